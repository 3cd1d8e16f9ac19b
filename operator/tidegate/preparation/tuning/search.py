"""Which settings to measure, at which rates, and which one to take. Pure: measuring is given.

The capacity model ranks the grid from a few probes. The best ranked, and those that are expected to
cost little more, are measured, each from the rate that the model expects.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from tidegate.autoscaling.capacity import SLOPE
from tidegate.preparation.tuning.grid import Grid, Setting, Workers
from tidegate.preparation.tuning.learning import Learned, Predicted, predict

MOST_RUNS: Final = 5
"""Stretches of load for one setting."""
TOLERANCE: Final = 0.06
"""Relative distance between a rate that holds and one that does not, at which a search ends."""
REACH: Final = 0.5
"""How far the first step goes at most, in the logarithm of the rate."""
MOST_MEASURED: Final = 3
"""Settings that are measured."""
UNSURE: Final = 0.15
"""Settings that are expected to cost more than the best ranked one by this share are not measured:
so far the model is trusted."""
FIRST_RATE_PER_S: Final = 50.0
"""Where an exhaustive search starts."""
SATURATED: Final = 0.9
"""Of what came back when many requests were sent at once: no search starts higher."""
LATE_CLIENT: Final = 0.25
"""Of the target: a client that sends so much later than it should is the limit itself."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of load on one setting.

    Attributes:
        rate_per_s: at which requests were due.
        requests: how many.
        late: of them slower than the target, failed or refused.
        p50_ms: median latency of the answered ones, from when they were due; None: of none.
        p99_ms: the same, 99 %.
        cpu_s: processor time of all the server's processes.
        client_late_p99_ms: how late the client itself was.
    """

    rate_per_s: float
    requests: int
    late: int
    p50_ms: float | None
    p99_ms: float | None
    cpu_s: float
    client_late_p99_ms: float

    @property
    def cost_s(self) -> float:
        """Processor seconds for a million requests."""
        return 1e6 * self.cpu_s / self.requests

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Objective:
    """What a request is promised.

    Attributes:
        quantile: share of the requests ...
        target_ms: ... that are answered in this time.
    """

    quantile: float
    target_ms: float

    def __str__(self) -> str:
        """As ``p99=50ms``."""
        return f"p{100 * self.quantile:g}={self.target_ms:g}ms"

    def times(self, factor: float) -> "Objective":
        """With another target."""
        return Objective(self.quantile, self.target_ms * factor)


class Measure(Protocol):
    """Measures one setting at one rate."""

    def __call__(self, setting: Setting, rate_per_s: float) -> Stretch: ...  # noqa: D102


@dataclass(frozen=True)
class Held:
    """What a setting holds.

    Attributes:
        setting: the one.
        rate_per_s: the highest at which the objective was seen to hold; 0: at none.
        cost_s: processor seconds for a million requests there.
        at_least: the client could not send more, so it may hold more.
        stretches: all that were measured, in order.
    """

    setting: Setting
    rate_per_s: float
    cost_s: float
    at_least: bool
    stretches: tuple[Stretch, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "setting": self.setting.document(),
            "ratePerSecond": self.rate_per_s,
            "cpuSecondsPerMillion": self.cost_s,
            "atLeast": self.at_least,
            "stretches": [s.document() for s in self.stretches],
        }


@dataclass(frozen=True)
class Tuned:
    """What a search came to.

    Attributes:
        objective: that was asked for.
        best: the cheapest that holds it; None: none was seen to.
        held: all that were measured.
        learned: by workers; empty of an exhaustive search.
        predicted: of the whole grid.
        runs: stretches and probes in all.
    """

    objective: Objective
    best: Held | None
    held: tuple[Held, ...]
    learned: Mapping[Workers, Learned]
    predicted: Mapping[Setting, Predicted]
    runs: int


def highest(
    measure: Measure,
    setting: Setting,
    objective: Objective,
    guess_per_s: float,
    *,
    most_runs: int = MOST_RUNS,
    tolerance: float = TOLERANCE,
) -> Held:
    """The highest rate at which a setting holds the objective.

    Args:
        measure: does it.
        setting: the one.
        objective: what is to hold.
        guess_per_s: where to start.
        most_runs: stretches at most.
        tolerance: see `TOLERANCE`.
    """
    allowed = 1.0 - objective.quantile
    low: Stretch | None = None
    high: Stretch | None = None
    seen: list[Stretch] = []
    rate, limited, reach = guess_per_s, False, REACH
    while len(seen) < most_runs:
        found = measure(setting, rate)
        seen.append(found)
        bound = found.client_late_p99_ms > LATE_CLIENT * objective.target_ms
        if found.late <= allowed * found.requests:
            if low is None or found.rate_per_s > low.rate_per_s:
                low = found
            limited = bound
            if bound:
                break
        elif high is None or found.rate_per_s < high.rate_per_s:
            high, limited = found, bound
        if low and high:
            if high.rate_per_s <= low.rate_per_s * (1 + tolerance):
                break
            f_low, f_high = _excess(low, allowed), _excess(high, allowed)
            share = f_low / (f_low - f_high) if f_high > f_low else 0.5
            rate = low.rate_per_s + (high.rate_per_s - low.rate_per_s) * min(0.8, max(0.2, share))
            continue
        # One end only: along the usual slope, and a little further so as to find the other.
        away = min(reach, max(tolerance, 1.2 * abs(_excess(found, allowed)) / SLOPE))
        reach = 2 * REACH
        rate = rate * math.exp(away if low else -away)
    if low is None:
        return Held(setting, 0.0, 0.0, limited, tuple(seen))
    return Held(setting, low.rate_per_s, low.cost_s, limited, tuple(seen))


def _excess(stretch: Stretch, allowed: float) -> float:
    """Logarithm of late requests against allowed ones: nearly linear in the rate."""
    return math.log((stretch.late + 0.5) / (allowed * stretch.requests + 0.5))


def ranked(
    settings: Iterable[Setting], learned: Mapping[Workers, Learned], objective: Objective
) -> dict[Setting, Predicted]:
    """What the model expects of each setting that it knows the workers of: cheapest first.

    Those that hold no rate come last.
    """
    found = {
        s: predict(learned[s.workers], s, objective.quantile, objective.target_ms)
        for s in settings
        if s.workers in learned
    }
    return dict(
        sorted(found.items(), key=lambda item: (item[1].rate_per_s <= 0, item[1].cost_s, item[0]))
    )


def tune(
    grid: Grid,
    objective: Objective,
    probe: Callable[[Workers, int], Learned],
    measure: Measure,
    *,
    most_measured: int = MOST_MEASURED,
    most_runs: int = MOST_RUNS,
    tell: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Search with probes and the capacity model.

    Args:
        grid: what can be set.
        objective: what is to hold.
        probe: teaches about some workers with batches of up to so many items.
        measure: measures a setting.
        most_measured: settings at most.
        most_runs: stretches of each at most.
        tell: is told what goes on.
    """
    settings = grid.settings()
    largest = max(grid.batches)
    learned: dict[Workers, Learned] = {}
    for workers in sorted({s.workers for s in settings}):
        tell(f"probing {workers.instances} x {workers.threads} threads")
        learned[workers] = probe(workers, largest)
    predicted = ranked(settings, learned, objective)
    held: list[Held] = []
    best: Held | None = None
    first: Predicted | None = None
    runs = len(learned)
    rate_off = 1.0
    for setting, expected in predicted.items():
        if len(held) >= most_measured:
            break
        if expected.rate_per_s <= 0.0 and held:
            break
        first = first or expected
        if best is not None and expected.cost_s > first.cost_s * (1 + UNSURE):
            break
        most_per_s = SATURATED * learned[setting.workers].saturated_per_s
        guess = min(expected.rate_per_s * rate_off or FIRST_RATE_PER_S, most_per_s)
        tell(f"measuring {setting}: {guess:.0f} requests a second expected")
        found = highest(measure, setting, objective, guess, most_runs=most_runs)
        held.append(found)
        runs += len(found.stretches)
        if found.rate_per_s and expected.rate_per_s:
            # What the model leaves out is much the same for all.
            rate_off = found.rate_per_s / expected.rate_per_s
        if found.rate_per_s and (best is None or found.cost_s < best.cost_s):
            best = found
    return Tuned(objective, best, tuple(held), learned, predicted, runs)


def exhaustive(
    grid: Grid,
    objective: Objective,
    measure: Measure,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Measure every setting; what `tune` is compared with."""
    held: list[Held] = []
    guess = FIRST_RATE_PER_S
    for setting in grid.settings():
        tell(f"measuring {setting}")
        found = highest(measure, setting, objective, guess)
        held.append(found)
        guess = found.rate_per_s or guess
    fitting = [h for h in held if h.rate_per_s]
    best = min(fitting, key=lambda h: h.cost_s, default=None)
    runs = sum(len(h.stretches) for h in held)
    return Tuned(objective, best, tuple(held), {}, {}, runs)
