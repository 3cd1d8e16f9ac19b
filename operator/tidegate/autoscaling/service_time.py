"""Service time s(n) = alpha + beta n, learned from Triton's batch statistics.

Triton tells, by batch size, how many executions there were and how long they took in all. What
came since the last look is one sample for each size: the mean time of ``count`` executions. A
weighted least-squares line goes through these samples, weight ``count``, old ones fading.

Triton's plain compute counters cannot serve: each request counts its whole batch's time, so their
mean is alpha + beta E[n^2] / E[n].
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from tidegate.autoscaling.demand import ServiceTime

KEEP: Final = 0.98
"""What is left of a sample's weight one interval later: half after 34 intervals."""
KEEP_RECENT: Final = 0.8
"""The same for the memory that notices a change: half after 3."""
CHANGED: Final = 0.1
"""Recent executions that take so much longer or shorter than the line says ..."""
CHANGED_ERRORS: Final = 4.0
"""... and by so many standard errors, scale it by as much at once."""
CHANGED_KEEP: Final = 0.25
"""What is then left of the older samples' weight: the line's shape may have changed, too."""
SETTLING: Final = 6
"""Intervals around a change whose samples tell nothing about the variation of single executions:
so many before it was noticed, and as many after."""
LEAST_RECENT: Final = 20.0
"""Executions without which the recent ones say nothing."""
LEAST: Final = 5.0
"""Executions without which nothing is known."""
SURE_ERROR: Final = 0.1
"""Relative standard error of a largest batch's time up to which the line is believed."""
CAUTION: Final = 2.0
"""Standard errors by which a line that is not believed is taken to be steeper."""
LEAST_CV: Final = 0.02
"""No steadier is one execution taken to be, for the error of the line."""
UNKNOWN_CV: Final = 0.15
"""The same as long as its variation is not known."""
FEW: Final = 8
"""Executions in one sample up to which its distance from the mean tells how much *one* varies.
In larger ones drift and differences between pods would pass for it."""
MOST_OFF: Final = 1.0
"""By what share of the mean one sample is taken to differ at most."""
LEAST_FREEDOM: Final = 20.0
"""Such samples without which the variation is not known."""
GONE: Final = 0.01
"""Executions at which a size is forgotten."""


@dataclass(slots=True)
class _Size:
    """Executions of one batch size: how many, and their milliseconds in all."""

    count: float
    busy_ms: float


@dataclass(frozen=True)
class _Line:
    """A weighted least-squares line.

    Attributes:
        alpha, beta: of the line.
        count: executions.
        mean_n: of the batch sizes.
        mean_ms: of the times.
        spread: weighted sum of squares of n around its mean; 0: one size only.
    """

    alpha: float
    beta: float
    count: float
    mean_n: float
    mean_ms: float
    spread: float


def _fit(sizes: dict[int, _Size]) -> _Line:
    w = wn = wnn = wy = wny = 0.0
    for n, size in sizes.items():
        w += size.count
        wn += size.count * n
        wnn += size.count * n * n
        wy += size.busy_ms
        wny += size.busy_ms * n
    mean_n, mean_y = wn / w, wy / w
    if len(sizes) == 1:
        return _Line(0.0, mean_y / mean_n, w, mean_n, mean_y, 0.0)
    spread = max(1e-9 * wnn, wnn - w * mean_n * mean_n)
    beta = (wny - w * mean_n * mean_y) / spread
    if beta < 0.0:
        return _Line(mean_y, 0.0, w, mean_n, mean_y, spread)
    alpha = mean_y - beta * mean_n
    if alpha < 0.0:  # of the lines that are allowed, one through the origin fits best
        return _Line(0.0, wny / wnn, w, mean_n, mean_y, spread)
    return _Line(alpha, beta, w, mean_n, mean_y, spread)


class ServiceTimes:
    """Learns the service time of one revision from its pods' batches.

    Attributes:
        largest: items in a largest batch.
        changed: whether the last interval brought a sudden change.

    Args:
        largest: items in a largest batch.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.changed = False
        self._long: dict[int, _Size] = {}
        self._recent: dict[int, _Size] = {}
        self._newest: dict[int, _Size] = {}
        self._squares = 0.0
        self._freedom = 0.0
        self._settling = 0
        self._varied: deque[tuple[float, float]] = deque(maxlen=SETTLING)

    def add(self, size: int, count: int, busy_ms: float) -> None:
        """What one pod ran since its last look: executions of a size, their time in all."""
        if size < 1 or count <= 0 or not 0.0 <= busy_ms < math.inf:
            return
        known = self._long.get(size)
        few = count <= FEW and not self._settling
        if known is not None and few and known.count >= FEW:
            off = busy_ms * known.count / (count * known.busy_ms) - 1.0 if known.busy_ms else 0.0
            # Drift between looks moves all samples; one far off is a change about to be noticed.
            off = min(MOST_OFF, max(-MOST_OFF, off))
            self._squares += off * off / (1.0 / count + 1.0 / known.count)
            self._freedom += 1.0
        for sizes in (self._long, self._recent, self._newest):
            each = sizes.get(size)
            if each is None:
                sizes[size] = _Size(float(count), busy_ms)
            else:
                each.count += count
                each.busy_ms += busy_ms

    def end_interval(self, intervals: float = 1.0) -> None:
        """All pods of one look have been added: notice a change, and let old samples fade.

        Args:
            intervals: how many have passed since the last call; Law.interval_s each.
        """
        change = self._change()
        self.changed = change is not None
        if change is not None:
            # What differed by the change is no variation of single executions, nor is what the
            # line is still off afterwards.
            self._squares, self._freedom = self._varied[0] if self._varied else (0.0, 0.0)
            self._varied.clear()
            self._settling = SETTLING + 1
            for size in self._long.values():
                size.count *= CHANGED_KEEP
                size.busy_ms *= CHANGED_KEEP * change
        for sizes, keep in (
            (self._long, KEEP**intervals),
            (self._recent, KEEP_RECENT**intervals),
            (self._newest, 0.0),
        ):
            for n, size in list(sizes.items()):
                size.count *= keep
                size.busy_ms *= keep
                if size.count < GONE:
                    del sizes[n]
        self._squares *= KEEP**intervals
        self._freedom *= KEEP**intervals
        self._settling = max(0, self._settling - 1)
        self._varied.append((self._squares, self._freedom))

    def _change(self) -> float | None:
        """By what factor executions take longer than they did; None: no such thing is certain."""
        off = self._off(self._recent)
        if off is None:
            return None
        ratio, count = off
        line = _fit(self._long)
        error = self._deviation(line) / line.mean_ms
        error *= math.sqrt(1.0 / count + 1.0 / line.count)
        if abs(ratio - 1.0) <= max(CHANGED, CHANGED_ERRORS * error):
            return None
        newest = self._off(self._newest)  # what came before the change is not among these
        return ratio if newest is None else newest[0]

    def _off(self, sizes: dict[int, _Size]) -> tuple[float, float] | None:
        """Time taken against what the long memory says of the same sizes; and executions.

        Size by size against its own mean: a line that does not fit well is no change.
        """
        taken = foretold = count = 0.0
        for n, size in sizes.items():
            known = self._long.get(n)
            if known is not None and known.count >= 2.0 * size.count and known.busy_ms > 0.0:
                taken += size.busy_ms
                foretold += size.count * known.busy_ms / known.count
                count += size.count
        return None if count < LEAST_RECENT else (taken / foretold, count)

    def _cv(self) -> float | None:
        if self._freedom < LEAST_FREEDOM:
            return None
        return math.sqrt(self._squares / self._freedom)

    def _deviation(self, line: _Line) -> float:
        """Of one execution, in ms."""
        cv = self._cv()
        return line.mean_ms * (UNKNOWN_CV if cv is None else max(LEAST_CV, cv))

    def estimate(self) -> ServiceTime | None:
        """What is known; None: too few executions so far."""
        if sum(size.count for size in self._long.values()) < LEAST:
            return None
        line = _fit(self._long)
        if line.mean_ms <= 0.0:
            return None
        cv, deviation = self._cv() or 0.0, self._deviation(line)
        off = self.largest - line.mean_n
        if off <= 0.0:
            error = deviation / math.sqrt(line.count) / line.mean_ms
            return ServiceTime(line.alpha, line.beta, cv, error, line.count, sure=True)
        steepest = line.mean_ms / line.mean_n
        if line.spread == 0.0:
            return ServiceTime(0.0, steepest, cv, 1.0, line.count, sure=False)
        error_ms = deviation * math.sqrt(1.0 / line.count + off * off / line.spread)
        error = error_ms / max(line.mean_ms, line.alpha + line.beta * self.largest)
        if error <= SURE_ERROR:
            return ServiceTime(line.alpha, line.beta, cv, error, line.count, sure=True)
        beta = min(steepest, line.beta + CAUTION * deviation / math.sqrt(line.spread))
        alpha = max(0.0, line.mean_ms - beta * line.mean_n)
        return ServiceTime(alpha, beta, cv, error, line.count, sure=False)
