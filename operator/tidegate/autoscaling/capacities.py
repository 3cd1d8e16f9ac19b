"""Capacities of many deployments, worked out within a budget and remembered.

The capacity model takes some milliseconds; a thousand deployments ask every few seconds, each with
a service time that drifts. So: times are taken relative to that of a largest batch, and latencies,
not capacities, are remembered. One run at one load tells every quantile there, so it serves every
objective, the margin below it, the feedback and whoever drifts past. Runs are made on a grid: of
the load, of the share that ``alpha`` has in a largest batch, of the two variations and of the queue
delay. Between its points latency is interpolated, so nothing jumps while a measured number wanders;
a capacity is the load at which the interpolated latency is the target.

A new point is a short run first, made exact later; all of it stops when the budget of the round is
spent. Who finds no capacity goes by the last one it had, in shares of the throughput.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

from tidegate.autoscaling.capacity import (
    HIGHEST_LOAD,
    Pod,
    factor_quantile,
    gathers,
    idle_quantile,
    quantile_of,
    run,
)
from tidegate.autoscaling.variates import LONGEST

BUDGET: Final = 350_000
"""Batches played between two refills: about 0.25 s of one core."""
GATHERED: Final = 4
"""So many batches' time is one that waits for preferred sizes or a delay."""
KEEPING: Final = 4
"""So many latencies are kept and sorted in one batch's time."""
COARSE: Final = 3_000
FINE: Final = LONGEST
"""Arrivals of a run: for a first answer, and for the exact one."""
KEPT: Final = 30_000
"""Points remembered, some 300 bytes each; those that were not asked for longest go first."""
MOST_INEXACT: Final = 5_000
"""Points that wait to be made exact; the oldest are given up."""
LOADS: Final = (
    *(0.002, 0.01, 0.03, 0.08, 0.16, 0.26, 0.36, 0.46),
    *(0.55, 0.64, 0.72, 0.8, 0.87, 0.925, 0.965, HIGHEST_LOAD),
)
"""Shares of the throughput at which latencies are worked out."""
MOST_EXPECTED: Final = 0.92
"""Nearer to the throughput no latency is told: the queue has no end."""
SLOWER: Final = (
    *(0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002),
    *(0.001, 0.0005, 0.0002, 0.0001),
)
"""Shares of slower requests at which a run's latencies are remembered."""
ALPHAS: Final = (0.0, 0.05, 0.12, 0.25, 0.45, 0.7, 1.0)
"""Shares that alpha has in the time of a largest batch."""
SCVS: Final = (1.0, 1.5, 2.25, 4.0, 6.0)
CVS: Final = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)
DELAYS: Final = tuple(1.25**i for i in range(-20, 21))
"""Queue delays, in times of a largest batch."""


@dataclass(frozen=True)
class Found:
    """What a pod holds.

    Attributes:
        share: of its throughput.
        exact: False: from a short run, to be made exact.
    """

    share: float
    exact: bool


class _Latencies(NamedTuple):
    """What one run came to.

    Attributes:
        answered: latencies that the shares `SLOWER` of the answered requests exceed, in times of a
            largest batch.
        refused: share of the requests, where the queue is bounded.
        exact: whether the run was a long one.
    """

    answered: Sequence[float]
    refused: float
    exact: bool


class _Surface:
    """One pod of the grid: its latencies by load.

    Attributes:
        pod: in times of a largest batch.
        runs: by index of `LOADS`.
        hint: the load below a capacity that was found last.
        kept: not forgotten yet; a `Place` may still hold one that is.
    """

    __slots__ = ("hint", "kept", "pod", "runs")

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.runs: dict[int, _Latencies] = {}
        self.hint: int | None = None
        self.kept = True


_Point = tuple[_Surface, int]
"""And the index of a load."""


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
        self._surfaces: dict[tuple[object, ...], _Surface] = {}
        self._kept = 0
        self._inexact: dict[_Point, None] = {}

    @property
    def left(self) -> int:
        """Batches that may still be played before the next refill."""
        return self._left

    @property
    def inexact(self) -> int:
        """Points that wait to be made exact."""
        return len(self._inexact)

    @property
    def remembered(self) -> int:
        """Points."""
        return self._kept

    def refill(self) -> None:
        """Call once before each round of looks: what the last one left over goes into exactness."""
        while self._left > 0 and self._inexact:
            # The one that was asked for last: others may have been drifted away from.
            (surface, place), _ = self._inexact.popitem()
            self._play(surface, place, self._fine)
        self._left = self._budget

    def at(self, pod: Pod) -> "Place":
        """Where a pod lies on the grid.

        Args:
            pod: any unit of time.
        """
        unit = pod.time_of(pod.batch)
        delay = pod.delay / unit if pod.delay > 0.0 and pod.batch > 1 else 0.0
        share = 0.0 if pod.batch == 1 else min(1.0, pod.alpha / unit)
        measured = [(ALPHAS, share), (CVS, pod.cv), (SCVS, pod.scv)]
        if delay > 0.0:
            measured.append((DELAYS, delay))
        cell, parts = [], []
        for number, (grid, value) in enumerate(measured):
            place, part = _between(grid, value)
            cell.append(place)
            parts.append((part, number))
        # Kuhn's triangulation: with d dimensions d + 1 corners are enough instead of 2^d.
        parts.sort(reverse=True)
        corners: list[tuple[_Surface, float]] = []
        before = 1.0
        for part, number in parts:
            if before - part > 1e-9:
                corners.append((self._surface(pod, cell), before - part))
            if part <= 1e-9:
                break
            cell[number] += 1
            before = part
        else:
            corners.append((self._surface(pod, cell), before))
        return Place(self, corners, pod, unit)

    def find(self, pod: Pod, quantile: float, target: float) -> Found | None:
        """See `Place.find`."""
        return self.at(pod).find(quantile, target)

    def expected_latency(self, pod: Pod, quantile: float, rate: float) -> float | None:
        """See `Place.expected_latency`."""
        return self.at(pod).expected_latency(quantile, rate)

    def latencies(self, surface: _Surface, place: int) -> _Latencies | None:
        """At one point; None: not worked out yet, and the budget is spent."""
        known = surface.runs.get(place)
        if known is None:
            if self._left <= 0:
                return None
            known = self._play(surface, place, min(COARSE, self._fine))
        if not known.exact:
            self._inexact.pop((surface, place), None)
            self._inexact[surface, place] = None
            if len(self._inexact) > MOST_INEXACT:
                del self._inexact[next(iter(self._inexact))]
        return known

    def exact_latencies(self, surface: _Surface, place: int) -> _Latencies | None:
        """The same from a long run, if there is much left of the budget."""
        known = surface.runs.get(place)
        if known is not None and known.exact:
            return known
        # Feedback can wait: no capacity may fail for it.
        if self._left <= self._budget // 2:
            return None
        self._inexact.pop((surface, place), None)
        return self._play(surface, place, self._fine)

    def _surface(self, pod: Pod, cell: Sequence[int]) -> _Surface:
        key = (pod.instances, pod.batch, pod.preferred, pod.queue, *cell)
        surface = self._surfaces.pop(key, None)  # back at the end: the newest used
        if surface is None:
            share = ALPHAS[cell[0]]
            shape = replace(
                pod,
                alpha=share,
                beta=(1.0 - share) / pod.batch,
                cv=CVS[cell[1]],
                scv=SCVS[cell[2]],
                delay=DELAYS[cell[3]] if len(cell) > 3 else 0.0,
            )
            surface = _Surface(shape)
        self._surfaces[key] = surface
        return surface

    def _play(self, surface: _Surface, place: int, arrivals: int) -> _Latencies:
        pod = surface.pod
        found: list[float] = []
        rate = LOADS[place] * pod.throughput
        played = run(pod, rate, math.inf, arrivals=arrivals, latencies=found)
        self._left -= (GATHERED if gathers(pod) else 1) * played.batches + arrivals // KEEPING
        found.sort()
        values = array("d", [quantile_of(found, 1.0 - slower) for slower in SLOWER])
        known = _Latencies(values, played.late_share, arrivals == self._fine)
        self._kept += surface.kept and place not in surface.runs
        surface.runs[place] = known
        while self._kept > KEPT:
            oldest = self._surfaces.pop(next(iter(self._surfaces)))
            oldest.kept = False
            self._kept -= len(oldest.runs)
        return known


class Place:
    """Where a pod lies on the grid: the corners around it, with their weights.

    Args:
        capacities: where runs are remembered.
        corners: surfaces, and weights that add up to 1.
        pod: in its own unit of time.
        unit: what a largest batch takes, in that unit.
    """

    __slots__ = ("_capacities", "_corners", "_exact", "_pod", "_unit")

    def __init__(
        self, capacities: Capacities, corners: list[tuple[_Surface, float]], pod: Pod, unit: float
    ) -> None:
        self._capacities = capacities
        self._corners = corners
        self._pod = pod
        self._unit = unit
        self._exact = True

    def idle_quantile(self, quantile: float) -> float:
        """The quantile of the latency of a request that finds the pod idle, in its unit."""
        pod = self._pod
        if pod.cv <= 0.0:
            return idle_quantile(pod, quantile)
        # Random numbers are drawn for the variations of the grid only.
        place, part = _between(CVS, pod.cv)
        factor = factor_quantile(CVS[place], quantile)
        if part > 0.0:
            factor += (factor_quantile(CVS[place + 1], quantile) - factor) * part
        return idle_quantile(pod, quantile, factor)

    def find(self, quantile: float, target: float) -> Found | None:
        """The rate that the pod holds; None: not worked out yet, and the budget is spent.

        Args:
            quantile: of the objective.
            target: in the pod's unit of time.
        """
        idle = self.idle_quantile(quantile)
        if target <= idle:
            return Found(0.0, True)
        idle, target = idle / self._unit, target / self._unit
        slower = 1.0 - quantile
        self._exact = True
        place = self._first(slower, target)
        if place is None:
            return None
        lower = upper = None
        while lower is None or upper is None:
            # From the load that is looked at up or down, until the target lies in between.
            if lower is None and place < 0:
                lower = idle
            elif lower is None:
                at = self._latency(place, slower)
                if at is None:
                    return None
                if at <= target:
                    lower = at
                else:
                    place, upper = place - 1, at
            elif place + 1 == len(LOADS):
                return Found(LOADS[-1], self._exact)
            else:
                at = self._latency(place + 1, slower)
                if at is None:
                    return None
                if at > target:
                    upper = at
                else:
                    place, lower = place + 1, at
        max(self._corners, key=_weight)[0].hint = max(0, place)
        return Found(self._load(place, lower, upper, target, slower), self._exact)

    def expected_latency(self, quantile: float, rate: float) -> float | None:
        """The latency quantile that the model expects at a rate, of answered requests.

        Args:
            quantile: 0.5 to 0.9999; others are taken as the nearer of these.
            rate: requests per unit of time.

        Returns:
            None: not worked out yet, or so near the throughput that the queue has no end.
        """
        load = rate / self._pod.throughput
        if not 0.0 <= load <= MOST_EXPECTED:
            return None
        tail = _tail(1.0 - quantile)
        place, part = _between(LOADS, load)
        logs = []
        for each in (place, place + 1):
            latency = 0.0
            for surface, weight in self._corners:
                known = self._capacities.exact_latencies(surface, each)
                if known is None:
                    return None
                latency += weight * _beyond(known.answered, tail)
            logs.append(math.log(latency))
        return math.exp(logs[0] + (logs[1] - logs[0]) * part) * self._unit

    def _first(self, slower: float, target: float) -> int | None:
        """Which load to look at first: by the heaviest corner alone, as it was found last."""
        surface = max(self._corners, key=_weight)[0]
        if surface.hint is not None:
            return surface.hint
        low, high = -1, len(LOADS)
        while high - low > 1:
            middle = (low + high) // 2
            known = self._capacities.latencies(surface, middle)
            if known is None:
                return None
            tail = _tail(_of_answered(slower, known.refused))
            if _beyond(known.answered, tail) <= target:
                low = middle
            else:
                high = middle
        return max(0, low)

    def _latency(self, place: int, slower: float) -> float | None:
        """At one of the grid's loads, in times of a largest batch; a refused request's is endless.

        Returns:
            None: not worked out yet.
        """
        latency = refused = 0.0
        tail = _tail(slower)
        for surface, weight in self._corners:
            known = surface.runs.get(place)
            if known is None or not known.exact:
                known = self._capacities.latencies(surface, place)
                if known is None:
                    return None
                self._exact = self._exact and known.exact
            refused += weight * known.refused
            latency += weight * _beyond(known.answered, tail)
        if refused == 0.0:
            return latency
        tail = _tail(_of_answered(slower, refused))
        return sum([weight * _beyond(s.runs[place].answered, tail) for s, weight in self._corners])

    def _load(self, place: int, lower: float, upper: float, target: float, slower: float) -> float:
        """Between two loads of the grid, the one whose latency is the target."""
        if place < 0:
            return LOADS[0] * min(1.0, (target - lower) / (upper - lower))
        low, high = LOADS[place], LOADS[place + 1]
        if upper < math.inf:
            return low + (high - low) * math.log(target / lower) / math.log(upper / lower)
        # What ends there is the queue: where as many are refused as may be late.
        before, after = (
            sum([weight * surface.runs[each].refused for surface, weight in self._corners])
            for each in (place, place + 1)
        )
        before = max(before, slower * 1e-2)
        part = math.log(slower / before) / math.log(after / before)
        return low * math.pow(high / low, part)


def _weight(corner: tuple[_Surface, float]) -> float:
    return corner[1]


def _between(grid: Sequence[float], value: float) -> tuple[int, float]:
    """The cell that a value lies in, and where, 0 to 1; at the ends beyond the grid."""
    place = bisect_right(grid, value) - 1
    if place < 0:
        return 0, 0.0
    if place >= len(grid) - 1:
        return len(grid) - 1, 0.0
    return place, (value - grid[place]) / (grid[place + 1] - grid[place])


def _of_answered(slower: float, refused: float) -> float:
    """What share of the answered requests may be slower, if so many are refused; 0: none."""
    return max(0.0, (slower - refused) / (1.0 - refused)) if refused < 1.0 else 0.0


@lru_cache(maxsize=1024)
def _tail(slower: float) -> tuple[int, float]:
    """Which of `SLOWER` is the first that is no larger, and how far it is from the one before.

    Returns:
        Index, and 0 (it is that one) to 1 (the one before), in the logarithm; index -1: none.
    """
    if slower <= 0.0:
        return -1, 0.0
    for place, after in enumerate(SLOWER):
        if after <= slower * (1.0 + 1e-9):
            if place == 0 or after >= slower * (1.0 - 1e-9):
                return place, 0.0
            return place, math.log(slower / after) / math.log(SLOWER[place - 1] / after)
    return len(SLOWER) - 1, 0.0


def _beyond(latencies: Sequence[float], tail: tuple[int, float]) -> float:
    """The latency that only the requests of a tail exceed; endless for none."""
    place, part = tail
    if place < 0:
        return math.inf
    latency = latencies[place]
    return latency if part == 0.0 else latency * math.pow(latencies[place - 1] / latency, part)
