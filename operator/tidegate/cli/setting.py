"""`tidegate simulate --set`: what another setting of the manifest would do, without editing it.

What may be set is what the scaling reads. A value must be one that the API server takes: the types
say most of it, `broken` the rest, for the rules themselves are CEL (`tidegate.api.rules`), which
only an API server can evaluate. The tests hold both to the same table.
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from tidegate.api.formats import FORMATS
from tidegate.api.spec import ScalingMode, Spec, parse
from tidegate.api.units import duration_ms
from tidegate.cli.trouble import Misuse

NUMBERS: Final = ("scaling.minReplicas", "scaling.maxReplicas", "replicas")
FIELDS: Final = (
    *("slo.latency.target", "slo.latency.quantile", "scaling.mode", "scaling.headroom"),
    *NUMBERS,
)
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True)
class Setting:
    """A field that is set.

    Attributes:
        field: its path below ``spec``.
        before: what the manifest says, or its default; None: nothing.
        value: what is tried.
    """

    field: str
    before: str | int | None
    value: str | int

    def __str__(self) -> str:
        """Such as ``scaling.maxReplicas 8 instead of 10``."""
        instead = "nothing" if self.before is None else self.before
        return f"{self.field} {self.value} instead of {instead}"


@dataclass(frozen=True)
class Changed:
    """A spec with other settings.

    Attributes:
        spec: with them.
        settings: that were made, in the order of the options.
    """

    spec: Spec
    settings: tuple[Setting, ...]


def changed(document: Mapping[str, Any], spec: Spec, texts: Sequence[str]) -> Changed:
    """The spec of a manifest with what ``--set`` says.

    Args:
        document: the ModelDeployment; it stays as it is.
        spec: its spec.
        texts: of the options, such as ``scaling.maxReplicas=8``; ``spec.`` may stand before.

    Raises:
        Misuse: one cannot be set, or not to that value, or the API server would refuse the whole.
    """
    body = copy.deepcopy(dict(document.get("spec") or {}))
    known = spec.model_dump(by_alias=True, mode="json")
    made: list[Setting] = []
    for text in texts:
        name, _, given = (part.strip() for part in text.partition("="))
        field = name.removeprefix("spec.")
        if field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, 1, 0.7)
            mend = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIELDS)}"
            raise Misuse(f"--set {text}: {name!r} cannot be set", mend)
        if any(field == one.field for one in made):
            raise Misuse(f"--set {text}: {field} is set twice", "leave one out")
        value: str | int = given
        if field in NUMBERS:
            # The form alone; the types below say which numbers may be.
            if not given.removeprefix("-").isdecimal() or len(given) > 9:
                raise Misuse(f"--set {text}: {given!r} is no whole number", f"write {field}=3")
            value = int(given)
        made.append(Setting(field, _at(known, field), value))
        _put(body, field, value)
    told = " ".join(f"--set {text}" for text in texts)
    try:
        found = parse(body)
    except ValidationError as error:
        raise Misuse(
            f"{told}: {_said(error)}", "give a value that kubectl apply would take"
        ) from None
    if wrong := broken(found):
        field, why, mend = wrong
        raise Misuse(f"{told}: spec.{field}: {why}", mend)
    return Changed(found, tuple(made))


def broken(spec: Spec) -> tuple[str, str, str] | None:
    """What the API server's rules say against the fields that may be set.

    As `tidegate.api.rules.scaling`, `slo` and, for the timeout, `across`.

    Returns:
        The field below ``spec``, what is wrong and the mend; None: nothing is.
    """
    scaling, latency = spec.scaling, spec.slo.latency
    if latency is not None:
        target, ms = latency.target, duration_ms(latency.target)
        field = "slo.latency.target"
        if ms < 1:
            return field, f"{target} is below 1ms", "write 1ms or more"
        if ms > _HOUR_MS:
            return field, f"{target} is above 1h", "write 1h or less"
        if len(str(ms).rstrip("0")) > 2:
            why = f"{target} has more than two significant digits in milliseconds"
            return field, why, "round it, for example to 100ms, 250ms or 1500ms"
        timeout = spec.traffic.timeout
        if timeout is not None and duration_ms(timeout) < ms:
            why = f"{target} is above traffic.timeout {timeout}, which cuts requests off"
            return field, why, "write less, or raise the timeout in the manifest"
    least, most = scaling.min_replicas, scaling.max_replicas
    if least < 1:
        return (
            "scaling.minReplicas",
            f"{least}: scaling to zero is not there yet",
            "write 1 or more",
        )
    if least > most:
        why = f"minReplicas {least} is above maxReplicas {most}"
        return "scaling.minReplicas", why, "lower it, or raise maxReplicas"
    if scaling.mode is ScalingMode.SLO and latency is None:
        return "scaling.mode", "SLO needs slo.latency", "set slo.latency.target, or mode Fixed"
    if spec.scaling_mode is ScalingMode.SLO and spec.runtime.sidecar == "Off":
        why = "SLO needs the sidecar, which runtime.sidecar turns off"
        return "scaling.mode", why, "turn it on in the manifest, or set mode Fixed"
    if scaling.mode is ScalingMode.EXTERNAL and spec.replicas is None:
        return "replicas", "External needs a number to begin with", "set replicas, too"
    return None


def _at(node: Any, path: str) -> Any:
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _put(body: dict[str, Any], path: str, value: str | int) -> None:
    *above, last = path.split(".")
    for part in above:
        if not isinstance(body.get(part), dict):
            body[part] = {}
        body = body[part]
    body[last] = value


def _said(error: ValidationError) -> str:
    """What pydantic says first, with the API's words for its patterns."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in ("spec", *first["loc"]))
    form = FORMATS.get(str(first.get("ctx", {}).get("pattern", "")))
    said = f"{first['input']!r} is not {form.name}, {form.mend}" if form else first["msg"]
    return f"{where}: {said}"
