"""Golden requests from what a model answers now: inputs in, with what must not be kept taken out.

What looks like a secret or like a person's data is struck out of the inputs *before* they are sent,
so that the answers belong to what is kept. Each input is sent several times: a number that differs
between the answers gets a tolerance, anything else that differs is kept by its shape only.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from tidegate import golden
from tidegate.cli.trouble import Misuse, Trouble
from tidegate.golden import Answer, GoldenError, GoldenRequest, Output, Tolerance

MAX_KEPT: Final = 1024
"""Elements of an output; of a larger one only the shape is kept."""
SPREAD_FACTOR: Final = 10.0
"""A tolerance is so many times the spread that was seen."""

PATTERNS: Final = {
    "e-mail address": r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    "bearer token": r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{12,}",
    "access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----",
    "password": r"(?i)(?<=password[=:])\s*[^\s\"',;&]{4,}",
}
"""What is struck out of texts. A card number is, too (see `_is_card`)."""
_TOLERANCE: Final = re.compile(r"(?P<number>\d*\.?\d+(?:[eE][+-]?\d+)?)(?P<percent>%?)")
_DIGITS: Final = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")


@dataclass
class Redactor:
    """Strikes out, letter by letter, so that lengths stay.

    Attributes:
        patterns: regular expressions by what they find.
        cards: strike out card numbers, too.
        struck: how often each was found.
    """

    patterns: Mapping[str, str] = field(default_factory=lambda: PATTERNS)
    cards: bool = True
    struck: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self._compiled = {what: re.compile(text) for what, text in self.patterns.items()}
        except re.error as error:
            raise Misuse(
                f"--redact {error.pattern!s} is no regular expression: {error}",
                "a dot or a bracket that is meant as such is written \\. or \\(",
            ) from None

    def text(self, text: str) -> str:
        """A text without what must not be kept."""
        for what, pattern in self._compiled.items():
            text = pattern.sub(partial(self._strike, what), text)
        return _DIGITS.sub(self._card, text) if self.cards else text

    def _card(self, match: re.Match[str]) -> str:
        return self._strike("card number", match) if _is_card(match[0]) else match[0]

    def value(self, value: Any) -> Any:
        """The same for an element of a tensor, or a list of them."""
        if isinstance(value, list):
            return [self.value(v) for v in value]
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping) and isinstance(value.get("base64"), str):
            try:
                raw = base64.b64decode(value["base64"], validate=True)
            except ValueError:
                return value
            kept = self.text(raw.decode("latin-1")).encode("latin-1")
            return {"base64": base64.b64encode(kept).decode()}
        return value

    def request(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A request with its inputs' texts redacted."""
        inputs = [
            {**i, "data": self.value(i.get("data"))} if isinstance(i, Mapping) else i
            for i in document.get("inputs") or ()
        ]
        return {**document, "inputs": inputs}

    def _strike(self, what: str, match: re.Match[str]) -> str:
        self.struck[what] = self.struck.get(what, 0) + 1
        return re.sub(r"\S", "x", match[0])


def _is_card(text: str) -> bool:
    """Luhn's check, ISO/IEC 7812-1."""
    digits = [int(c) for c in text if c.isdigit()][::-1]
    doubled = sum(sum(divmod(2 * d, 10)) for d in digits[1::2])
    return (sum(digits[::2]) + doubled) % 10 == 0 and any(digits)


@dataclass(frozen=True)
class Recorded:
    """A golden request as it will be kept.

    Attributes:
        document: with ``expected``.
        notes: what is kept less exactly than it was answered, and why.
    """

    document: dict[str, Any]
    notes: tuple[str, ...] = ()


def tolerances(texts: Iterable[str]) -> dict[str, Tolerance]:
    """How far outputs may be off, by their names.

    Args:
        texts: ``OUTPUT=0.01``, ``OUTPUT=1%`` (of what is expected), or both as ``OUTPUT=0.01+1%``.

    Raises:
        Trouble: one cannot be read, or an output is named twice.
    """
    found: dict[str, Tolerance] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        parts = [_TOLERANCE.fullmatch(part.strip()) for part in value.split("+")]
        kinds = [m["percent"] for m in parts if m]
        if not name or len(kinds) < len(parts) or len(set(kinds)) < len(kinds):
            raise Misuse(
                f"--tolerance {text} cannot be read", "write score=0.01, score=1%, or score=0.01+1%"
            )
        if name in found:
            raise Misuse(f"--tolerance names output {name} twice", "one is enough: score=0.01+1%")
        sizes = {m["percent"]: float(m["number"]) for m in parts if m}
        found[name] = Tolerance(sizes.get("", 0.0), float(f"{sizes.get('%', 0.0) / 100:.6g}"))
    return found


def prepared(key: str, document: Mapping[str, Any], outputs: Sequence[str]) -> GoldenRequest:
    """The request that is sent: all outputs asked for.

    Raises:
        Trouble: it cannot be read.
    """
    expected = {"outputs": [{"name": name, "ignore": True} for name in outputs]}
    asked = {k: v for k, v in document.items() if k != "expected"} | {"expected": expected}
    try:
        found = golden.parse({"metadata": {"name": "inputs"}, "data": {key: json.dumps(asked)}})
    except GoldenError as error:
        raise Trouble(str(error), "see docs/guide/golden-requests.md") from None
    return found[0]


def record(
    key: str,
    document: Mapping[str, Any],
    ask: Callable[[], Answer],
    *,
    times: int,
    drop: Iterable[str] = (),
    shape_only: Iterable[str] = (),
    allowed: Mapping[str, Tolerance] | None = None,
) -> Recorded:
    """What a request is answered, as its expectation.

    Args:
        key: of the ConfigMap.
        document: the request.
        ask: sends it.
        times: how often.
        drop: outputs that are not kept.
        shape_only: outputs of which only the shape is kept.
        allowed: how far outputs of numbers may be off; else it follows from how they differ.

    Raises:
        Trouble: it was refused, or no answer came, or answers differ by more than is allowed.
    """
    allowed = allowed or {}
    if both := sorted({*drop, *shape_only} & set(allowed)):
        raise Trouble(f"output {both[0]}: a tolerance, and no values to compare", "choose one")
    answers = []
    for _ in range(times):
        try:
            answer = ask()
        except (OSError, ValueError) as error:
            raise Trouble(f"{key}: no answer: {error}", "is the model ready?") from None
        if answer.status != 200:
            raise Trouble(
                f"{key}: answered HTTP {answer.status}: {answer.error}", "correct this input"
            )
        answers.append(answer)
    expected, notes = [], []
    for name in answers[0].outputs:
        if name in set(drop):
            continue
        outputs = [a.outputs.get(name) for a in answers]
        try:
            kept, note = _expectation(name, outputs, name in set(shape_only), allowed.get(name))
        except Trouble as error:
            raise Trouble(f"{key}: output {name}: {error.message}", error.mend) from None
        expected.append(kept)
        notes += [f"{key}: output {name}: {note}"] if note else []
    if not expected:
        raise Trouble(f"{key}: no output is left to compare", "drop fewer of them")
    kept_request = {k: v for k, v in document.items() if k != "expected"}
    return Recorded({**kept_request, "expected": {"outputs": expected}}, tuple(notes))


def _expectation(
    name: str, outputs: Sequence[Output | None], by_shape: bool, allowed: Tolerance | None
) -> tuple[dict[str, Any], str]:
    there = [o for o in outputs if o is not None]
    first = there[0]
    shape = {"name": name, "shape": list(first.shape)}
    if any(o.shape != first.shape for o in there) or len(there) < len(outputs):
        return {"name": name, "ignore": True}, "its shape differs from answer to answer"
    if by_shape:
        return shape, ""
    if math.prod(first.shape) > MAX_KEPT:
        return shape, f"{math.prod(first.shape):,} elements: only the shape is kept"
    values = [golden.unpack(o) for o in there]
    kept = {"name": name, "data": [_written(v) for v in values[0]]}
    if allowed is not None:
        return {**kept, "tolerance": _given(allowed, values)}, ""
    if all(v == values[0] for v in values):
        return kept, ""
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for v in values for x in v)
    finite = numbers and all(math.isfinite(float(x)) for v in values for x in v)
    if not finite:
        return shape, "differs from answer to answer: only the shape is kept"
    columns = zip(*values, strict=True)
    spread = max(max(map(float, c)) - min(map(float, c)) for c in columns)
    largest = max(abs(float(x)) for x in values[0]) or 1.0
    tolerance = {"absolute": float(f"{SPREAD_FACTOR * spread:.1g}")}
    if spread > 0.1 * largest:
        return shape, "differs from answer to answer by more than a tenth: only the shape is kept"
    return {**kept, "tolerance": tolerance}, (
        f"differs from answer to answer by {spread:.2g}: tolerance {tolerance['absolute']:g}"
    )


def _given(allowed: Tolerance, values: Sequence[Sequence[golden.Value]]) -> dict[str, float]:
    """The tolerance as it is written, if the answers themselves keep it.

    Raises:
        Trouble: they do not, or are no numbers.
    """
    if any(isinstance(x, bool | bytes | str) for v in values for x in v):
        raise Trouble("is no output of numbers", "leave its --tolerance out")
    pairs = [(float(x), float(y)) for v in values[1:] for x, y in zip(values[0], v, strict=True)]
    pairs = [(x, y) for x, y in pairs if x != y and not (math.isnan(x) and math.isnan(y))]
    off = max((abs(y - x) - allowed.relative * abs(x) for x, y in pairs), default=0.0)
    if not off <= allowed.absolute:  # NaN, too
        raise Trouble(
            "differs from answer to answer by more than its --tolerance",
            "allow more, or keep its shape: --shape-only",
        )
    sizes = {"absolute": allowed.absolute, "relative": allowed.relative}
    return {part: size for part, size in sizes.items() if size} or {"absolute": 0.0}


def _written(value: golden.Value) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def config_map(name: str, namespace: str, found: Mapping[str, Recorded]) -> dict[str, Any]:
    """The ConfigMap that holds them.

    Raises:
        Trouble: they are too many, or too large.
    """
    data = {
        key: json.dumps(one.document, indent=1, ensure_ascii=False) + "\n"
        for key, one in sorted(found.items())
    }
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }
    try:
        golden.parse(made)
    except GoldenError as error:
        raise Trouble(str(error)) from None
    return made
