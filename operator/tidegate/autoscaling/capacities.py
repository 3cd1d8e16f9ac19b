"""Capacities of many deployments, worked out within a budget and remembered.

The capacity model takes some milliseconds; a thousand deployments ask every few seconds, each with
a service time that drifts. So: times are taken relative to that of a largest batch, which leaves
two numbers that drift, the share ``alpha`` has in it and how far the target lies above the latency
of an idle pod. The model is worked out on a grid of these two and interpolated between; a
deployment that drifts needs new points only when it leaves its cell. A new point starts from a
neighbour, or from a short run that is made exact later; and all of it stops when the budget of the
round is spent. Who finds no capacity goes by the last one it had, in shares of the throughput.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tidegate.autoscaling.capacity import (
    Pod,
    capacity,
    gathers,
    idle_quantile,
    latencies_at,
    quantile_of,
)
from tidegate.autoscaling.variates import LONGEST

BUDGET: Final = 600_000
"""Batches played between two refills: about 0.3 s of one core."""
GATHERED: Final = 4
"""So many batches' time is one that waits for preferred sizes or a delay."""
COARSE: Final = 3_000
FINE: Final = LONGEST
"""Arrivals of a run: for a first answer, and for the exact one."""
KEPT: Final = 40_000
"""Points remembered."""
MOST_INEXACT: Final = 5_000
"""Points that wait to be made exact; the oldest are given up."""
ALPHA_CELLS: Final = 8
"""Cells of alpha's share, 0 to 1."""
SLACK_STEP: Final = math.log(1.15)
"""Width of a cell of the logarithm of (target / idle latency - 1)."""
MOST_SLACK: Final = 60.0
"""More is no more capacity."""
SLOWER: Final = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""Shares of slower requests at which a run's latencies are remembered."""
LOAD_CELLS: Final = 25
"""Cells of the load, 0 to 1, for the latency that the model expects."""
SCVS: Final = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
CVS: Final = (0.0, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)
DELAY_STEP: Final = math.log(1.1)
"""Of the logarithm of the queue delay, in times of a largest batch. With steps of 0.05 of such a
time instead, which deployments would share more, capacities were up to 22 % off."""

_Point = tuple[int, int, int]
"""Of a family: cell edges of alpha's share and of the logarithm of slack, or of the load."""


@dataclass
class _Known:
    """A point's value and whether it is the exact one."""

    value: float
    exact: bool


@dataclass(frozen=True)
class Found:
    """What a pod holds.

    Attributes:
        share: of its throughput.
        exact: False: from a short run, to be made exact.
    """

    share: float
    exact: bool


class Capacities:
    """Remembers what the capacity model said, and does at most so much work between two refills.

    Not for several threads at once. The same calls in the same order give the same answers.

    Args:
        budget: batches played between two refills; one is about 0.5 microseconds, and one that
            waits counts as several (`GATHERED`).
        fine: arrivals of a run for an exact answer.
    """

    def __init__(self, budget: int = BUDGET, *, fine: int = FINE) -> None:
        self._fine = fine
        self._budget = self._left = budget
        self._families: dict[tuple[object, ...], int] = {}
        self._shapes: list[tuple[Pod, float]] = []
        self._held: dict[_Point, _Known] = {}
        self._expected: dict[_Point, tuple[float, ...]] = {}
        self._inexact: dict[_Point, None] = {}

    @property
    def left(self) -> int:
        """Batches that may still be played before the next refill."""
        return self._left

    @property
    def inexact(self) -> int:
        """Points that wait to be made exact."""
        return len(self._inexact)

    def refill(self) -> None:
        """Call once before each round of looks: what the last one left over goes into exactness."""
        while self._left > 0 and self._inexact:
            # The one that was asked for last: others may have been drifted away from.
            point, _ = self._inexact.popitem()
            known = self._held.get(point)
            if known is not None and not known.exact:
                self._work_out(point, known.value)
        self._left = self._budget

    def find(self, pod: Pod, quantile: float, target: float) -> Found | None:
        """The rate that a pod holds; None: not worked out yet, and the budget is spent.

        Args:
            pod: any unit of time.
            quantile: of the objective.
            target: in the same unit.
        """
        idle = idle_quantile(on_grid(pod), quantile)
        if target <= idle:
            return Found(0.0, True)
        slack = min(MOST_SLACK, target / idle - 1.0)
        family, share = self._family(pod, quantile)
        exact = True

        def value(point: _Point) -> float | None:
            nonlocal exact
            known = self._held.get(point) or self._new(point)
            if known is None:
                return None
            if not known.exact:
                exact = False
                self._inexact.pop(point, None)
                self._inexact[point] = None
            return known.value

        found = _between(family, share, math.log(slack) / SLACK_STEP, value)
        return None if found is None else Found(found, exact)

    def expected_latency(self, pod: Pod, quantile: float, rate: float) -> float | None:
        """The latency quantile that the model expects at a rate.

        Args:
            pod: any unit of time.
            quantile: 0.7 to 0.999; others are taken as the nearer of these.
            rate: requests per unit of time.

        Returns:
            None: not worked out yet, or so near the throughput that the queue has no end.
        """
        load = rate / pod.throughput
        if not 0.0 <= load <= 1.0 - 2.0 / LOAD_CELLS:
            return None
        family, share = self._family(pod, 0.0)
        slower = min(SLOWER[0], max(SLOWER[-1], 1.0 - quantile))
        place = next(i for i, each in enumerate(SLOWER) if each <= slower * (1.0 + 1e-9))
        place = max(1, place)
        before, after = SLOWER[place - 1], SLOWER[place]
        part = math.log(before / slower) / math.log(before / after)

        def value(point: _Point) -> float | None:
            known = self._expected.get(point) or self._new_expected(point)
            if known is None:
                return None
            return known[place - 1] * (1.0 - part) + known[place] * part

        found = _between(family, share, load * LOAD_CELLS, value)
        return None if found is None else math.exp(found) * pod.time_of(pod.batch)

    def _family(self, pod: Pod, quantile: float) -> tuple[int, float]:
        """What does not drift, as a number, and alpha's share in a largest batch."""
        unit = pod.time_of(pod.batch)
        scv, cv, delay = _nearest(SCVS, pod.scv), _nearest(CVS, pod.cv), 0.0
        if pod.delay > 0.0 and pod.batch > 1:
            delay = math.exp(round(math.log(pod.delay / unit) / DELAY_STEP) * DELAY_STEP)
        key = (pod.instances, pod.batch, pod.preferred, delay, pod.queue, cv, scv, quantile)
        family = self._families.get(key)
        if family is None:
            family = self._families[key] = len(self._shapes)
            shape = replace(pod, alpha=0.0, beta=0.0, delay=delay, cv=cv, scv=scv)
            self._shapes.append((shape, quantile))
        return family, 0.0 if pod.batch == 1 else min(1.0, pod.alpha / unit)

    def _pod(self, point: _Point) -> tuple[Pod, float]:
        shape, quantile = self._shapes[point[0]]
        share = point[1] / ALPHA_CELLS
        return replace(shape, alpha=share, beta=(1.0 - share) / shape.batch), quantile

    def _new(self, point: _Point) -> _Known | None:
        if self._left <= 0:
            return None
        family, i, j = point
        for near in (
            (family, i, j - 1),
            (family, i, j + 1),
            (family, i - 1, j),
            (family, i + 1, j),
        ):
            known = self._held.get(near)
            if known is not None and known.exact:
                return self._work_out(point, known.value)
        pod, quantile = self._pod(point)
        if self._fine <= COARSE:
            return self._work_out(point, None)
        worked = capacity(pod, quantile, _target(pod, quantile, j), arrivals=COARSE)
        self._left -= _cost(pod, worked.batches)
        if len(self._inexact) >= MOST_INEXACT:
            del self._inexact[next(iter(self._inexact))]
        self._inexact[point] = None
        return self._keep(point, _Known(worked.rate / pod.throughput, exact=False))

    def _work_out(self, point: _Point, near: float | None) -> _Known:
        pod, quantile = self._pod(point)
        worked = capacity(
            pod,
            quantile,
            _target(pod, quantile, point[2]),
            arrivals=self._fine,
            guess=None if near is None else near * pod.throughput,
        )
        self._left -= _cost(pod, worked.batches)
        return self._keep(point, _Known(worked.rate / pod.throughput, exact=True))

    def _keep(self, point: _Point, known: _Known) -> _Known:
        if len(self._held) >= KEPT and point not in self._held:
            del self._held[next(iter(self._held))]
        self._held[point] = known
        return known

    def _new_expected(self, point: _Point) -> tuple[float, ...] | None:
        """Logarithms of the latencies that the shares `SLOWER` exceed."""
        # Feedback can wait: no capacity may fail for it.
        if self._left <= self._budget // 2:
            return None
        pod, _ = self._pod(point)
        load = max(0.2 / LOAD_CELLS, point[2] / LOAD_CELLS)
        latencies = latencies_at(pod, load * pod.throughput, arrivals=self._fine)
        values = tuple(math.log(quantile_of(latencies, 1.0 - slower)) for slower in SLOWER)
        # Fewer batches than arrivals, but each latency is kept and sorted.
        self._left -= _cost(pod, self._fine)
        if len(self._expected) >= KEPT:
            del self._expected[next(iter(self._expected))]
        self._expected[point] = values
        return values


def on_grid(pod: Pod) -> Pod:
    """The pod with its two measured variations on the grids for which random numbers are kept."""
    scv, cv = _nearest(SCVS, pod.scv), _nearest(CVS, pod.cv)
    return pod if scv == pod.scv and cv == pod.cv else replace(pod, scv=scv, cv=cv)


def _nearest(grid: tuple[float, ...], value: float) -> float:
    place = bisect_left(grid, value)
    if place == 0:
        return grid[0]
    if place == len(grid):
        return grid[-1]
    below, above = grid[place - 1], grid[place]
    return above if above - value < value - below else below


def _cost(pod: Pod, batches: int) -> int:
    """Of the budget."""
    return GATHERED * batches if gathers(pod) else batches


def _target(pod: Pod, quantile: float, slack_edge: int) -> float:
    return idle_quantile(pod, quantile) * (1.0 + math.exp(slack_edge * SLACK_STEP))


def _between(
    family: int, share: float, x: float, value: Callable[[_Point], float | None]
) -> float | None:
    """Interpolated between the four points around; None: one of them is not known."""
    y = share * ALPHA_CELLS
    i, j = math.floor(y), math.floor(x)
    result = 0.0
    for ii, weight_i in ((i, 1.0 - (y - i)), (i + 1, y - i)):
        if weight_i == 0.0:
            continue
        for jj, weight_j in ((j, 1.0 - (x - j)), (j + 1, x - j)):
            if weight_j == 0.0:
                continue
            known = value((family, ii, jj))
            if known is None:
                return None
            result += weight_i * weight_j * known
    return result
