"""Arrivals of one revision from what its pods counted: rate, dispersion, growth.

Pods are read at different times, some not at all for a while. What a pod counted between two of
its looks is spread over the ticks in between; each tick knows how much of its pods' time it has
covered, and a rate is scaled by that. So a pod that is read late changes no rate twice, and pods
that are not read are taken to get what the others get.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tidegate.autoscaling.server import Law

LEAST_COVERED: Final = 0.25
"""Of its pods' time: a tick of which less is known says nothing."""
MOST_DISPERSION: Final = 6.0
OUTLIER: Final = 9.0
"""A difference whose square is more than so many times a usual one's does not count: a single step
of the load, or of a pod's share of it, is no dispersion. Of a normal distribution that is 3 %."""
LEAST_PAIRS: Final = 12
"""Pairs of intervals without which the arrivals are taken to be Poisson."""
LEAST_FORETOLD: Final = 1e-6
"""Less is what is left of sums after all was taken away again: nothing arrived."""
GROWTH_HORIZONS_S: Final = (15.0, 30.0, 60.0, 120.0, 300.0)
GROWTH_EVERY_S: Final = 15.0
GROWTH_WINDOW_S: Final = 3600.0
GROWTH_QUANTILE: Final = 0.95
LEAST_GROWTH_SAMPLES: Final = 120
MOST_GROWTH: Final = 2.0
TREND_SAMPLES: Final = 4
"""The trend is what the mean over a minute gained in so many samples, also a minute."""
SCORE_KEEP: Final = 0.93
"""What is left of an old forecast's error with each new one: half after 2.5 minutes."""
LEAST_SCORES: Final = 4.0
TREND_WINS: Final = 0.7
"""The trend counts where its errors lately were at most this share of those without it."""


@dataclass(slots=True)
class _Tick:
    """Between two observations.

    Attributes:
        start_s, end_s: seconds since the epoch.
        pods: Ready ones.
        covered_s: of their time, what was counted.
        arrivals: counted.
        squares: of differences between neighbouring intervals' rates, over what a Poisson stream
            would give: numerator ...
        foretold: ... and denominator.
        pairs: of intervals behind these.
        seconds: how long it is.
    """

    start_s: float
    end_s: float
    pods: int
    covered_s: float = 0.0
    arrivals: float = 0.0
    squares: float = 0.0
    foretold: float = 0.0
    pairs: int = 0
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = self.end_s - self.start_s


class Arrivals:
    """Remembers what arrived at one revision's pods.

    Args:
        law: its windows.
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._ticks: deque[_Tick] = deque()
        self._last: dict[str, tuple[float, float]] = {}
        self._one = 1.0
        # Over all ticks: pairs, foretold, squares; seconds, and those of all pods.
        self._pairs = 0
        self._foretold = self._squares = 0.0
        self._seconds = self._pod_seconds = 0.0
        self._pods: frozenset[str] = frozenset()

    def begin(self, start_s: float, end_s: float, pods: frozenset[str]) -> None:
        """A new tick, of these Ready pods."""
        newest = _Tick(start_s, end_s, len(pods))
        self._ticks.append(newest)
        self._seconds += newest.seconds
        self._pod_seconds += newest.pods * newest.seconds
        if pods != self._pods:
            # Each pod's share changes, which is no dispersion of what arrives.
            self._pods = pods
            self._last.clear()
        while self._ticks and self._ticks[0].end_s <= end_s - self._law.dispersion_s:
            gone = self._ticks.popleft()
            self._pairs -= gone.pairs
            self._foretold -= gone.foretold
            self._squares -= gone.squares
            self._seconds -= gone.seconds
            self._pod_seconds -= gone.pods * gone.seconds

    def add(self, pod: str, since_s: float, until_s: float, count: float, *, ready: bool) -> None:
        """What one pod counted between two of its looks.

        Args:
            pod: its UID.
            since_s: when the interval began.
            until_s: when it ended.
            count: requests that arrived in it.
            ready: whether the pod is one of the tick's.
        """
        seconds = until_s - since_s
        if seconds <= 0.0:
            return
        left = count
        newest = self._ticks[-1]
        for tick in reversed(self._ticks):
            if tick.end_s <= since_s:
                break
            # A clock that runs ahead of ours counts into the newest tick.
            end_s = until_s if tick is newest else min(tick.end_s, until_s)
            overlap_s = end_s - max(tick.start_s, since_s)
            if overlap_s <= 0.0:
                continue
            share = count * overlap_s / seconds
            tick.arrivals += share
            left -= share
            if ready:
                tick.covered_s += min(overlap_s, tick.seconds)
        self._disperse(pod, seconds, count, newest)

    def _disperse(self, pod: str, seconds: float, count: float, tick: _Tick) -> None:
        before = self._last.get(pod)
        self._last[pod] = (seconds, count)
        if before is None or count < 0.0 or before[1] < 0.0:
            return
        seconds_before, count_before = before
        rate = (count + count_before) / (seconds + seconds_before)
        foretold = rate * (1.0 / seconds + 1.0 / seconds_before)
        square = (count / seconds - count_before / seconds_before) ** 2
        if square > OUTLIER * self._one * foretold:
            return
        tick.squares += square
        tick.foretold += foretold
        tick.pairs += 1
        self._squares += square
        self._foretold += foretold
        self._pairs += 1

    def forget(self, pod: str) -> None:
        """The next interval of this pod does not follow the last one."""
        self._last.pop(pod, None)

    def rate(self, window_s: float) -> float | None:
        """Requests a second over the last so many seconds of which enough is known."""
        arrived = seconds = 0.0
        for tick in reversed(self._ticks):
            if seconds >= window_s - 1e-6:
                break
            full_s = tick.pods * tick.seconds
            if full_s <= 0.0 or tick.covered_s < LEAST_COVERED * full_s:
                continue
            arrived += tick.arrivals * max(1.0, full_s / tick.covered_s)
            seconds += tick.seconds
        return max(0.0, arrived / seconds) if seconds > 0.0 else None

    def steady(self, window_s: float) -> bool:
        """Whether the number of Ready pods was the same all the time."""
        newest = self._ticks[-1]
        for tick in reversed(self._ticks):
            if tick.end_s <= newest.end_s - window_s:
                break
            if tick.pods != newest.pods:
                return False
        return True

    def dispersion(self) -> float:
        """Variance over mean of the counts of all pods together; Poisson is 1.

        Of each pod the differences between neighbouring intervals, so that neither a trend nor
        pods that come and go count. Splitting a stream over N pods at random takes the N-th part
        of what exceeds 1; this undoes it.
        """
        pairs, foretold = self._pairs, self._foretold
        if pairs < LEAST_PAIRS or foretold <= LEAST_FORETOLD:
            return 1.0
        one = max(0.0, self._squares) / foretold
        self._one = max(1.0, one)
        # Less one standard error: chance, times the number of pods, must not pass for bursts.
        # (Each count is in two differences, so each pair tells less: 3 instead of 2.)
        one = max(1.0, one * (1.0 - math.sqrt(3.0 / pairs)))
        pods = self._pod_seconds / self._seconds
        return min(MOST_DISPERSION, max(1.0, 1.0 + (one - 1.0) * max(1.0, pods)))


@dataclass
class _Score:
    """Mean errors of forecasts, fading: with the trend and without it."""

    trend: float = 0.0
    same: float = 0.0
    count: float = 0.0

    def add(self, trend_error: float, same_error: float) -> None:
        self.trend = self.trend * SCORE_KEEP + trend_error
        self.same = self.same * SCORE_KEEP + same_error
        self.count = self.count * SCORE_KEEP + 1.0

    @property
    def wins(self) -> bool:
        return self.count >= LEAST_SCORES and self.trend <= TREND_WINS * self.same


class Growth:
    """By how much the load grows within a cold start.

    Two ways to tell, and the larger counts: how much it usually grew so far within as long, and
    the trend of the last minutes, where forecasts by it were lately the better ones. (A forecast
    that is not tested that way doubles the cost of a flash crowd.)
    """

    def __init__(self) -> None:
        self._rates: deque[tuple[float, float, float]] = deque()
        self._usual: tuple[float, ...] = ()
        self._scores = [_Score() for _ in GROWTH_HORIZONS_S]
        self._known: tuple[tuple[float, float], ...] = ()

    def add(self, at_s: float, decided_per_s: float, mean_per_s: float, dispersion: float) -> None:
        """One look.

        Args:
            at_s: now.
            decided_per_s: the rate that a decision now goes by.
            mean_per_s: the mean over the last minute.
            dispersion: of the arrivals.
        """
        if self._rates:
            since_s = at_s - self._rates[-1][0]
            if since_s < GROWTH_EVERY_S - 1e-6:
                return
            if since_s > 2.0 * GROWTH_EVERY_S:
                # A gap: neighbours in the list are no longer neighbours in time.
                self._rates.clear()
        self._rates.append((at_s, decided_per_s, mean_per_s))
        while self._rates[0][0] < at_s - GROWTH_WINDOW_S:
            self._rates.popleft()
        if len(self._rates) % 4 == 0:
            self._usual = tuple(self._work_out(dispersion))
        self._known = tuple(self._combined())

    @property
    def known(self) -> tuple[tuple[float, float], ...]:
        """Pairs (seconds, factor), ascending; empty: too little was seen."""
        return self._known

    def _combined(self) -> Iterable[tuple[float, float]]:
        rates, largest = self._rates, 1.0
        mean_per_s = rates[-1][2]
        for place, (horizon_s, score) in enumerate(
            zip(GROWTH_HORIZONS_S, self._scores, strict=True)
        ):
            # The mean over a minute is the rate half a minute before.
            then = -1 - round((horizon_s + 30.0) / GROWTH_EVERY_S)
            if len(rates) >= TREND_SAMPLES - then:
                before = self._trend(then, horizon_s)
                score.add(
                    abs(rates[then][1] + before - mean_per_s), abs(rates[then][1] - mean_per_s)
                )
            factor = self._usual[place] if place < len(self._usual) else 1.0
            decided = rates[-1][1]
            if score.wins and decided > 0.0 and len(rates) > TREND_SAMPLES:
                factor = max(factor, min(MOST_GROWTH, 1.0 + self._trend(-1, horizon_s) / decided))
            largest = max(largest, factor)
            yield horizon_s, largest

    def _trend(self, place: int, horizon_s: float) -> float:
        """What the trend adds within a horizon, from a sample's view; requests a second."""
        gained = self._rates[place][2] - self._rates[place - TREND_SAMPLES][2]
        # The rate that is decided by is late itself, by some 15 s.
        return gained / (TREND_SAMPLES * GROWTH_EVERY_S) * (horizon_s + 15.0)

    def _work_out(self, dispersion: float) -> Iterable[float]:
        rates = list(self._rates)
        largest = 1.0
        for horizon_s in GROWTH_HORIZONS_S:
            ratios, noise = [], 0.0
            later = 0
            for at_s, decided, _ in rates:
                while later < len(rates) and rates[later][0] < at_s + horizon_s + 30.0:
                    later += 1
                if later == len(rates):
                    break
                if decided > 0.0:
                    ratios.append(rates[later][2] / decided)
                    noise += 2.0 * dispersion / (60.0 * decided)
            if len(ratios) < LEAST_GROWTH_SAMPLES:
                return
            ratios.sort()
            grown = ratios[math.ceil(GROWTH_QUANTILE * len(ratios)) - 1] - 1.0
            # What chance alone makes two means differ by, at the same quantile, is no growth.
            chance = 1.645**2 * noise / len(ratios)
            real = math.sqrt(max(0.0, grown * grown - chance)) if grown > 0.0 else 0.0
            largest = max(largest, min(MOST_GROWTH, 1.0 + real))
            yield largest


def higher_of(long_per_s: float, short_per_s: float, short_s: float, dispersion: float) -> float:
    """The rate to decide by: the long window's, or the short one's less its standard error.

    A rise shows in the short window first; less one standard error, chance rarely passes for one.
    """
    return max(long_per_s, lower_of(short_per_s, short_s, dispersion))


def lower_of(per_s: float, seconds: float, dispersion: float) -> float:
    """A rate that was counted over so long, less its standard error."""
    return max(0.0, per_s - math.sqrt(dispersion * per_s / seconds))
