"""`tidegate simulate`: a load curve against a ModelDeployment, before any GPU is bought."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from tidegate.api.names import KIND
from tidegate.api.spec import ScalingMode, Spec, parse
from tidegate.autoscaling.capacity import capacity, idle_quantile, pod_of
from tidegate.autoscaling.decision import Bounds
from tidegate.autoscaling.server import ServerModel, server_model
from tidegate.cli.common import text_of
from tidegate.cli.setting import Changed, Setting, broken
from tidegate.cli.trouble import Misuse, Trouble
from tidegate.simulation.hpa import Hpa, Metric
from tidegate.simulation.law import Tidegate
from tidegate.simulation.load import Load, multiplied
from tidegate.simulation.pod import Server
from tidegate.simulation.trace import ColumnError, TraceError, read
from tidegate.simulation.world import Outcome, Policy, View, World, simulate

SERVICE_TIME: Final = re.compile(
    r"\s*(?P<alpha>[0-9]+(?:\.[0-9]+)?)\s*(?:\+\s*(?P<beta>[0-9]+(?:\.[0-9]+)?)\s*\*?\s*n\s*)?(?:ms)?\s*"
)
MOST_REQUESTS: Final = 20_000_000
"""More take minutes and gigabytes."""
MANIFEST_MEND: Final = "give a ModelDeployment, as for kubectl apply"


@dataclass(frozen=True)
class Wanted:
    """What is to be simulated.

    Attributes:
        name: of the ModelDeployment.
        spec: its spec.
        model: how a pod of it serves.
        alpha_ms, beta_ms: time of a batch of n.
        cv: of that time.
        load: what clients ask for.
        cold_start_s: median.
        seed: of everything random.
        gpu_price: of one GPU for an hour; None: not asked for.
    """

    name: str
    spec: Spec
    model: ServerModel
    alpha_ms: float
    beta_ms: float
    cv: float
    load: Load
    cold_start_s: float
    seed: int
    gpu_price: float | None = None

    @property
    def gpus(self) -> int:
        """GPUs of one pod."""
        return self.spec.runtime.gpu.count


class _Fixed:
    interval_s = 5.0

    def __init__(self, number: int) -> None:
        self._number = number

    def decide(self, view: View) -> int:
        return self._number


def read_manifest(path: Path, option: str = "--spec") -> dict[str, Any]:
    """The ModelDeployment of the file that an option names; the first one.

    Raises:
        Trouble: it cannot be read, or holds none.
    """
    text = text_of(path, option, MANIFEST_MEND)
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise Trouble(f"{path}{where}: {problem}", MANIFEST_MEND) from None
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == KIND:
            return document
    raise Trouble(f"{path} holds no {KIND}", MANIFEST_MEND)


def read_spec(document: dict[str, Any], path: Path) -> Spec:
    """Its spec.

    Raises:
        Trouble: it is not valid, or has no latency objective.
    """
    try:
        spec = parse(document.get("spec") or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise Trouble(f"{path}: {where}: {first['msg']}{more}", "mend the manifest") from None
    if spec.slo.latency is None:
        raise Trouble(
            f"{path}: spec.slo.latency is absent, so no request can be in time or late",
            'add slo: {latency: {quantile: "0.99", target: 100ms}}',
        )
    if wrong := broken(spec):
        field, why, mend = wrong
        raise Trouble(f"{path}: spec.{field}: {why}", mend)
    return spec


def read_service_time(text: str, document: dict[str, Any]) -> tuple[float, float]:
    """Milliseconds of a batch of n: what any takes, and what each item adds.

    Args:
        text: such as ``8+6n`` or ``20``; empty: what was measured, from the status.
        document: the ModelDeployment.

    Raises:
        Trouble: neither is there.
    """
    status = document.get("status")
    scaling = status.get("scaling") if isinstance(status, dict) else None
    measured = scaling.get("serviceTime") if isinstance(scaling, dict) else None
    found = SERVICE_TIME.fullmatch(text or str(measured or ""))
    if found is None and text:
        raise Misuse(f"--service-time {text!r} is none", "write 8+6n for 8 ms and 6 more each")
    if found is None:
        raise Misuse(
            "--service-time is needed: the manifest has no measured status.scaling.serviceTime",
            "say --service-time 8+6n (8 ms for a batch, 6 more for each request in it), or save "
            "one that serves with kubectl get mdep NAME -o yaml",
        )
    alpha, beta = float(found["alpha"]), float(found["beta"] or 0.0)
    if alpha + beta <= 0.0:
        raise Misuse(f"--service-time {text!r} is 0 ms", "write 8+6n for 8 ms and 6 more each")
    return alpha, beta


def read_load(path: Path, column: str, interval_s: float, times: float, seed: int) -> Load:
    """The load of a trace.

    Raises:
        Trouble: it does not parse, is empty, or is too long.
    """
    if interval_s <= 0.0:
        raise Misuse("--interval 0s is no time between two rows", "write 90s, 30m, 1h30m")
    text = text_of(path, "--trace", "give a CSV file")
    try:
        load = read(text, name=path.stem, column=column, interval_s=interval_s)
    except ColumnError as error:
        raise Misuse(f"--column {column!r}: {path}: {error.what}", error.mend) from None
    except TraceError as error:
        raise Trouble(str(error).replace("line", f"{path} line", 1)) from None
    if times != 1.0:
        load = multiplied(load, times, seed)
    requests = sum(load.rates) * load.step_s
    if requests < 1:
        raise Trouble(f"{path} holds no requests", "give a trace with some")
    if requests > MOST_REQUESTS:
        raise Trouble(
            f"{path} comes to {requests:,.0f} requests, {MOST_REQUESTS:,} at most",
            "give a part of it, or fewer with --times 0.1",
        )
    return load


def server_of(wanted: Wanted) -> Server:
    """A simulated pod.

    Raises:
        Trouble: even an idle pod misses the objective.
    """
    model = wanted.model
    assert model.target_ms is not None
    pod = pod_of(model, wanted.alpha_ms, wanted.beta_ms, cv=wanted.cv)
    idle_ms = idle_quantile(pod, model.quantile)
    if idle_ms > model.target_ms:
        raise Trouble(
            f"the SLO is infeasible: a request that finds a pod idle takes {idle_ms:.3g} ms, the "
            f"target is {model.target_ms:g} ms",
            "raise slo.latency.target, or make the model faster",
        )
    return Server(
        alpha_s=wanted.alpha_ms / 1000,
        beta_s=wanted.beta_ms / 1000,
        cv=wanted.cv,
        instances=model.instances,
        max_batch=model.max_batch,
        preferred=model.preferred,
        delay_s=model.queue_delay_ms / 1000,
        queue=pod.queue,
        target_s=model.target_ms / 1000,
        quantile=model.quantile,
    )


def wanted_of(
    document: dict[str, Any],
    spec: Spec,
    service_time: tuple[float, float],
    load: Load,
    *,
    cold_start_s: float,
    seed: int,
    cv: float,
    gpu_price: float | None,
) -> Wanted:
    """What is to be simulated."""
    name = str((document.get("metadata") or {}).get("name") or "model")
    return Wanted(
        name, spec, server_model(spec), *service_time, cv, load, cold_start_s, seed, gpu_price
    )


@dataclass(frozen=True)
class Result:
    """One law's.

    Attributes:
        law: for people.
        outcome: of the run.
        settings: what it has otherwise than the manifest.
    """

    law: str
    outcome: Outcome
    settings: tuple[Setting, ...] = ()


def own(wanted: Wanted, server: Server) -> tuple[str, Callable[[], Policy]]:
    """What the spec asks for."""
    spec, mode = wanted.spec, wanted.spec.scaling_mode
    if mode is ScalingMode.SLO:
        return "Tidegate", lambda: Tidegate(server, Bounds.of(spec), wanted.cold_start_s)
    number = spec.scaling.min_replicas if spec.replicas is None else spec.replicas
    return f"{mode.value}, {number} replicas", lambda: _Fixed(number)


def with_settings(wanted: Wanted, changed: Changed) -> Result:
    """The same requests, with other settings.

    Raises:
        Trouble: even an idle pod misses the objective.
    """
    other = replace(wanted, spec=changed.spec, model=server_model(changed.spec))
    (result,) = play(other, [own(other, server_of(other))])
    return replace(result, law=f"{result.law}, as set", settings=changed.settings)


def laws(
    wanted: Wanted,
    server: Server,
    *,
    hpa_utilization: float | None,
    hpa_latency_ms: float | None,
    keda_rps: float | None,
) -> list[tuple[str, Callable[[], Policy]]]:
    """What the spec asks for, and what the user compares with.

    Raises:
        Trouble: a target is not above 0.
    """
    made = [own(wanted, server)]
    for value, option in (
        (hpa_utilization, "--hpa-utilization"),
        (hpa_latency_ms, "--hpa-latency"),
        (keda_rps, "--keda-rps"),
    ):
        if value is not None and not 0.0 < value < math.inf:
            raise Misuse(f"{option} {value:g} is no target", "give a number above 0")
    if hpa_utilization is not None:
        share = hpa_utilization / 100
        made.append((f"HPA, {hpa_utilization:g} % busy", lambda: Hpa(Metric.UTILISATION, share)))
    if hpa_latency_ms is not None:
        target_s = hpa_latency_ms / 1000
        made.append(
            (
                f"HPA, {hpa_latency_ms:g} ms p{100 * server.quantile:g}",
                lambda: Hpa(Metric.LATENCY, target_s, quantile=server.quantile),
            )
        )
    if keda_rps is not None:
        made.append((f"KEDA, {keda_rps:g} req/s a pod", lambda: Hpa(Metric.RPS, keda_rps)))
    return made


def play(wanted: Wanted, compared: Sequence[tuple[str, Callable[[], Policy]]]) -> list[Result]:
    """Run each law on the same requests."""
    server, spec = server_of(wanted), wanted.spec
    holds = one_pod_holds(wanted)
    arrivals = wanted.load.arrivals(wanted.seed)
    least, most = spec.scaling.min_replicas, spec.scaling.max_replicas
    fixed = spec.scaling_mode is not ScalingMode.SLO
    results = []
    for i, (law, policy) in enumerate(compared):
        if fixed and i == 0:
            number = least if spec.replicas is None else spec.replicas
            bounds = (number, number, number)
        else:
            # As if it had run before: the pods that the first minute needs.
            first = wanted.load.rate(0.0) / max(1e-9, 0.8 * holds)
            bounds = (least, most, max(least, min(most, math.ceil(first))))
        world = World(
            server,
            wanted.load,
            cold_start_s=wanted.cold_start_s,
            least=bounds[0],
            most=bounds[1],
            initial=bounds[2],
        )
        results.append(Result(law, simulate(world, policy(), wanted.seed, arrivals)))
    return results


def one_pod_holds(wanted: Wanted) -> float:
    """Requests a second within the objective, by the capacity model."""
    model = wanted.model
    assert model.target_ms is not None
    pod = pod_of(model, wanted.alpha_ms, wanted.beta_ms, cv=wanted.cv)
    return 1000.0 * capacity(pod, model.quantile, model.target_ms).rate
