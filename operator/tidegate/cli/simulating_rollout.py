"""`tidegate simulate --change`: a rollout against a load curve, before anybody is served by it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tidegate.api.spec import ScalingMode, Spec
from tidegate.autoscaling.server import server_model
from tidegate.cli import simulating
from tidegate.cli.common import seconds
from tidegate.cli.simulating import Wanted
from tidegate.cli.trouble import Misuse, Trouble
from tidegate.simulation.faults import Fault, FaultError, parse
from tidegate.simulation.outcome import Outcome
from tidegate.simulation.pod import Server
from tidegate.simulation.rollout import RestlessError, Staging, stage

USUAL_CHANGE: Final = "5m"


@dataclass(frozen=True)
class Change:
    """What is applied later.

    Attributes:
        path: of the manifest.
        document: the manifest.
        spec: its spec.
        at_s: when.
    """

    path: Path
    document: dict[str, Any]
    spec: Spec
    at_s: float


def read_change(text: str, name: str) -> Change:
    """A manifest and when it is applied, as in ``v2.yaml@10m``.

    Args:
        text: of the option.
        name: of the ModelDeployment that it changes.

    Raises:
        Trouble: it cannot be read, or is another ModelDeployment's.
    """
    file, at, when = text.rpartition("@")
    if not at or not file:
        file, when = text, USUAL_CHANGE
    path = Path(file)
    at_s = seconds(when, f"--change {text}:")
    document = simulating.read_manifest(path, "--change")
    theirs = str((document.get("metadata") or {}).get("name") or name)
    if theirs != name:
        raise Misuse(
            f"--change {path} is ModelDeployment {theirs}, --spec is {name}",
            "give two versions of one ModelDeployment",
        )
    return Change(path, document, simulating.read_spec(document, path), at_s)


def read_faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of the options.

    Raises:
        Trouble: one cannot be read.
    """
    try:
        return tuple(parse(text) for text in texts)
    except FaultError as error:
        raise Misuse(f"--fault {error}", "such as errors=5% or no-metrics@12m-14m") from None


def staging_of(
    wanted: Wanted, before: dict[str, Any], change: Change, faults: Sequence[Fault]
) -> Staging:
    """What is to be played.

    Raises:
        Trouble: the change comes after the end of the load, or an objective is infeasible.
    """
    if change.at_s >= wanted.load.duration_s:
        raise Misuse(
            f"--change comes at {change.at_s:g} s, the load ends at {wanted.load.duration_s:g} s",
            f"apply it earlier: --change {change.path}@1m, or give a longer trace",
        )
    spec = wanted.spec
    initial = spec.scaling.min_replicas if spec.replicas is None else spec.replicas
    if spec.scaling_mode is ScalingMode.SLO:
        # As if it had run before: the pods that the first minute needs.
        first = wanted.load.rate(0.0) / max(1e-9, 0.8 * simulating.one_pod_holds(wanted))
        least, most = spec.scaling.min_replicas, spec.scaling.max_replicas
        initial = max(least, min(most, math.ceil(first)))
    if initial < 1:
        raise Trouble("no pod serves before the change", "ask for at least one replica")
    return Staging(
        name=wanted.name,
        before=before["spec"],
        after=change.document["spec"],
        change_s=change.at_s,
        old=simulating.server_of(wanted),
        new=_server_of(wanted, change.spec),
        load=wanted.load,
        initial=initial,
        cold_start_s=wanted.cold_start_s,
        faults=tuple(faults),
    )


def _server_of(wanted: Wanted, spec: Spec) -> Server:
    return simulating.server_of(replace(wanted, spec=spec, model=server_model(spec)))


@dataclass(frozen=True)
class Run:
    """One of several.

    Attributes:
        seed: of everything random.
        outcome: of the run.
    """

    seed: int
    outcome: Outcome


def play(staging: Staging, seed: int, runs: int) -> list[Run]:
    """Play it with so many seeds, one after the other.

    Raises:
        Trouble: what is there before the change never serves.
    """
    try:
        return [Run(s, stage(staging, s)) for s in range(seed, seed + runs)]
    except RestlessError as error:
        raise Trouble(str(error), "mend --spec: it is to serve before the change") from None
