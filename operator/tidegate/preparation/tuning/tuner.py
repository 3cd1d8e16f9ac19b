"""One candidate tuned, so that a run that was cut off goes on where it was.

Each probe and each stretch is kept as soon as it is known. The search is the same each time, so it
finds its own earlier measurements again.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from tidegate.golden import GoldenRequest
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.state import State
from tidegate.preparation.tuning import other_targets
from tidegate.preparation.tuning.grid import Grid, Setting, Workers
from tidegate.preparation.tuning.learning import Learned, latency_ms
from tidegate.preparation.tuning.measuring import Bench
from tidegate.preparation.tuning.other_targets import FACTORS, Other
from tidegate.preparation.tuning.picture import Point
from tidegate.preparation.tuning.repository import Backend, batches
from tidegate.preparation.tuning.search import (
    MOST_MEASURED,
    MOST_RUNS,
    Objective,
    Stretch,
    Tuned,
    tune,
)

SHARES: Final = (0.25, 0.5, 0.75)
"""Of the highest rate: where the curve of the setting that is taken is measured besides."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seconds: of a stretch.
        most_measured: settings.
        most_runs: stretches of each.
        other_runs: stretches of the pick for half and for double the target, each; 0: the capacity
            model alone says what those cost.
        quick: a smaller grid.
    """

    seconds: float = 5.0
    most_measured: int = MOST_MEASURED
    most_runs: int = MOST_RUNS
    other_runs: int = other_targets.MOST_RUNS
    quick: bool = False


QUICK: Final = Effort(seconds=1.0, most_measured=1, most_runs=4, other_runs=0, quick=True)


@dataclass(frozen=True)
class Job:
    """What is tuned, with what.

    Attributes:
        candidate: the one.
        digest: of its files.
        model: Triton's name for it.
        backend: what runs it.
        triton: what starts Triton.
        objective: what is to hold.
        requests: that are sent.
        cores: that serve.
        effort: how much is measured.
        facts: what else a measurement depends on: the machine, the versions.
    """

    candidate: Candidate
    digest: str
    model: str
    backend: Backend
    triton: str
    objective: Objective
    requests: Sequence[GoldenRequest]
    cores: int
    effort: Effort
    facts: Mapping[str, Any]

    def grid(self) -> Grid:
        """What is searched."""
        return Grid.of(
            cores=self.cores,
            target_ms=self.objective.target_ms,
            batches=batches(self.candidate),
            quick=self.effort.quick,
        )

    def most_told(self) -> int:
        """How often its tuning says at most what it does: once a probe, setting and stretch."""
        effort, workers = self.effort, {s.workers for s in self.grid().settings()}
        return len(workers) + effort.most_measured * (1 + effort.most_runs) + len(SHARES)

    def bench(self) -> Bench:
        """What measures it."""
        return Bench(
            self.candidate,
            self.model,
            self.backend,
            self.triton,
            self.objective,
            self.requests,
            self.effort.seconds,
        )

    def known_by(self) -> dict[str, Any]:
        """All that a measurement depends on besides its setting and rate."""
        return {
            "candidate": self.digest,
            "backend": self.backend.value,
            "triton": self.triton,
            "objective": asdict(self.objective),
            "seconds": self.effort.seconds,
            **self.facts,
        }


@dataclass(frozen=True)
class Result:
    """A tuned candidate.

    Attributes:
        tuned: what the search came to.
        curve: stretches of the setting that was taken, by rate; empty if none holds.
        modelled: the objective's quantile by the capacity model, by rate.
        others: what half and double the target would cost, by their factors.
    """

    tuned: Tuned
    curve: tuple[Stretch, ...]
    modelled: tuple[Point, ...]
    others: Mapping[float, Other] = field(default_factory=dict)


def tuned(job: Job, state: State, tell: Callable[[str], None]) -> Result:
    """Search the grid of one candidate, then measure the curve of the setting that is taken.

    Raises:
        tidegate.preparation.errors.PreparationError: Triton does not start, or refuses.
    """
    known_by = job.known_by()
    with job.bench() as bench:

        def probe(workers: Workers, largest: int) -> Learned:
            parts = {**known_by, "workers": asdict(workers), "largest": largest}
            found = state.recall("probe", parts, lambda: asdict(bench.probe(workers, largest)))
            return Learned(**found)

        measure = partial(_measured, bench, job, state, tell, job.objective)
        effort = job.effort
        found = tune(
            job.grid(),
            job.objective,
            probe,
            measure,
            most_measured=effort.most_measured,
            most_runs=effort.most_runs,
            tell=tell,
        )
        others = {factor: other_targets.modelled(found, factor) for factor in FACTORS}
        if found.best is None:
            return Result(found, (), (), others)
        best = found.best
        shares = SHARES[1:2] if effort.quick else SHARES
        curve = [*best.stretches, *(measure(best.setting, s * best.rate_per_s) for s in shares)]
    return Result(found, tuple(sorted(curve, key=lambda s: s.rate_per_s)), _modelled(found), others)


def with_others(job: Job, result: Result, state: State, tell: Callable[[str], None]) -> Result:
    """The result with what half and double the target cost as it is seen, if that is to be seen.

    Raises:
        tidegate.preparation.errors.PreparationError: Triton does not start, or refuses.
    """
    if not job.effort.other_runs:
        return result
    with job.bench() as bench:
        others = {
            factor: other_targets.measured(
                result.tuned,
                factor,
                lambda objective: partial(_measured, bench, job, state, tell, objective),
                most_runs=job.effort.other_runs,
                tell=tell,
            )
            for factor in FACTORS
        }
    runs = sum(len(held.stretches) for other in others.values() for held in other.tried)
    tuned = replace(result.tuned, runs=result.tuned.runs + runs)
    return replace(result, tuned=tuned, others=others)


def _measured(
    bench: Bench,
    job: Job,
    state: State,
    tell: Callable[[str], None],
    objective: Objective,
    setting: Setting,
    rate_per_s: float,
) -> Stretch:
    """A stretch that is known, or measured now and kept."""
    rate_per_s = float(f"{rate_per_s:.4g}")
    parts = {
        **job.known_by(),
        "objective": asdict(objective),
        "setting": asdict(setting),
        "rate": rate_per_s,
    }
    tell(f"{setting}: {rate_per_s:g} requests a second")
    found = state.recall(
        "stretch", parts, lambda: asdict(bench.measure(setting, rate_per_s, objective))
    )
    return Stretch(**found)


def _modelled(found: Tuned) -> tuple[Point, ...]:
    if found.best is None or found.best.setting.workers not in found.learned:
        return ()
    setting, learned = found.best.setting, found.learned[found.best.setting.workers]
    throughput = 1000 * learned.pod(setting, found.objective.quantile, 1.0).throughput
    most = min(0.95 * throughput, 1.1 * found.best.rate_per_s)
    rates = [most * (i + 1) / 12 for i in range(12)]
    points = [
        (rate, latency_ms(learned, setting, rate, found.objective.quantile)) for rate in rates
    ]
    return tuple(p for p in points if math.isfinite(p[1]))
