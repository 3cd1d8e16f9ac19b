"""Is the canary slower than stable? Where their answers lie between latency bounds, compared. Pure.

Which bounds tell something depends on the model; they are chosen once, before the canary's first
answer counts, by what stable did until then. They cut the answers into bins. Each alternative
says how the canary's share of the bins differs from stable's: by factors that grow with latency.

A block's factor, with n1 answers of the canary and n0 of stable's, w1 = n1 / (n1 + n0), w0 = 1 - w1
and r_j the alternative's factor of bin j: the product of r_j / (w1 r_j + w0) over the canary's
answers and of 1 / (w1 r_j + w0) over stable's. It is an e-variable for "the canary is not slower",
that is, at no bound are more of its answers beyond: r / (w1 r + w0) grows with j, so its mean is no
larger for the canary, A at most, than over stable's bins. With B the mean of 1 / (w1 r + w0) over
those, w1 A + w0 B = 1, and by the inequality of the means A^n1 B^n0 is at most 1. (For two bins
this is the test of `tidegate.analysis.comparison`.)
"""

from collections.abc import Callable, Sequence
from math import exp, log, sqrt
from operator import mul
from statistics import NormalDist
from typing import Final

from tidegate.analysis.onset import Onset

SHIFTS: Final = tuple(0.1 * 1.75**i for i in range(7))
"""By how many standard deviations of (say) the logarithm of stable's latency the canary's is up:
factors exp(shift x normal score of the bin), exact for a log-normal latency."""
TAILS: Final = (0.2, 0.02)
"""Share of stable's answers in a tail ..."""
TAIL_RATIOS: Final = (3.0, 20.0)
"""... of which the canary has so many times the odds: most answers as ever, a few much slower."""
ALTERNATIVES: Final = len(SHIFTS) + len(TAILS) * len(TAIL_RATIOS)
MOST_BOUNDS: Final = 40
"""Bounds taken in; more are left out."""
_COMPARED: Final = 6
_KNOWN_FROM: Final = 50.0
"""Answers of stable's that tell which bounds to compare."""
_TELLING: Final = (0.002, 0.9)
"""Share of stable's answers beyond a bound that tells something."""
_PRIOR: Final = 0.5
_NORMAL: Final = NormalDist()


class LatencyComparison:
    """The state of the comparison.

    Attributes:
        compared: indexes of the bounds that are compared; empty: not chosen yet.
        canary: how many of the canary's answers were beyond each of them, since they were chosen.
        canary_timed: out of.
        stable: the same for stable.
        stable_timed: out of.
    """

    __slots__ = (
        "_logs",
        "_onset",
        "_seen",
        "_seen_of",
        "_shares",
        "_tilts",
        "canary",
        "canary_timed",
        "compared",
        "stable",
        "stable_timed",
    )

    def __init__(self) -> None:
        self.compared: tuple[int, ...] = ()
        self.canary: list[float] = []
        self.stable: list[float] = []
        self.canary_timed = self.stable_timed = 0.0
        # Stable's answers in earlier blocks: beyond each bound, later each compared one; out of.
        self._seen: list[float] = []
        self._seen_of = 0.0
        # Stable's shares beyond the compared bounds when they were chosen; what follows from them.
        self._shares: list[float] = []
        self._tilts: list[list[float]] = []
        self._logs: list[list[float]] = []
        self._onset = Onset(ALTERNATIVES)

    def learn(self, slower: Sequence[float], timed: float) -> None:
        """Stable's answers of a block, after it was weighed."""
        if not slower or timed <= 0.0:
            return
        if self.compared:
            slower = self._picked(slower)
        if len(self._seen) != len(slower):
            if self._seen:
                return  # other bounds than before
            self._seen = [0.0] * len(slower)
        self._seen_of += timed
        for i, count in enumerate(slower):
            self._seen[i] += count

    def usual(self) -> tuple[Sequence[float], float]:
        """Stable's answers beyond each bound, out of how many, until bounds are chosen."""
        return ((), 0.0) if self.compared else (self._seen, self._seen_of)

    def weigh(
        self,
        canary: tuple[Sequence[float], float],
        stable: tuple[Sequence[float], float],
        exponent: float = 1.0,
    ) -> None:
        """Weigh one block.

        Args:
            canary: answers beyond each bound, out of how many.
            stable: the same.
            exponent: see `tidegate.analysis.tempering`.
        """
        if canary[1] <= 0.0 or not canary[0]:
            return
        if not self.compared:
            self._choose(len(canary[0]))
            if not self.compared:
                return
        ours, theirs = self._picked(canary[0]), self._picked(stable[0])
        self.canary_timed += canary[1]
        for i, count in enumerate(ours):
            self.canary[i] += count
        if not ours or not theirs or stable[1] <= 0.0:
            return
        self.stable_timed += stable[1]
        for i, count in enumerate(theirs):
            self.stable[i] += count
        factors = self._factors((ours, canary[1]), (theirs, stable[1]))
        self._onset.weigh(factors, canary[1], exponent)

    def _factors(
        self, canary: tuple[list[float], float], stable: tuple[list[float], float]
    ) -> list[float]:
        """Logarithm of the block's factor for each alternative."""
        bins = len(self.compared) + 1
        of = self._seen_of + _PRIOR * bins
        expected = [(count + _PRIOR) / of for count in _between(self._seen, self._seen_of)]
        ours, theirs = _between(*canary), _between(*stable)
        both = [(i, a + b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a or b]
        mine = [(i, a) for i, a in enumerate(ours) if a]
        w1 = canary[1] / (canary[1] + stable[1])
        w0 = 1.0 - w1
        factors = []
        for tilt, logs in zip(self._tilts, self._logs, strict=True):
            mean = sum(map(mul, expected, tilt))
            share = w1 / mean
            factor = sum([a * logs[i] for i, a in mine]) - canary[1] * log(mean)
            for i, answers in both:
                factor -= answers * log(share * tilt[i] + w0)
            factors.append(factor)
        return factors

    def temper(self, before: float, after: float) -> None:
        """A larger exponent from now on, see `Onset.temper`."""
        self._onset.temper(before, after)

    def log_evidence(self) -> float:
        """Logarithm of the e-value against "the canary is not slower at any bound"."""
        return self._onset.log_evidence()

    def worst(self) -> int | None:
        """Which of `compared` shows the difference most clearly; None: none chosen yet."""
        if not self.compared:
            return None
        n1, n0 = max(self.canary_timed, 1.0), max(self.stable_timed, 1.0)

        def deviations(i: int) -> float:
            share = (self.canary[i] + self.stable[i] + _PRIOR) / (n1 + n0 + 2.0 * _PRIOR)
            spread = sqrt(max(share * (1.0 - share), 1e-12) * (1.0 / n1 + 1.0 / n0))
            return (self.canary[i] / n1 - self.stable[i] / n0) / spread

        return max(range(len(self.compared)), key=deviations)

    def _picked(self, slower: Sequence[float]) -> list[float]:
        if not slower or self.compared[-1] >= len(slower):
            return []
        return [slower[i] for i in self.compared]

    def _set_tilts(self) -> None:
        self._tilts = _tilts(self._shares)
        self._logs = [[log(factor) for factor in tilt] for tilt in self._tilts]

    def _choose(self, bounds: int) -> None:
        if self._seen_of < _KNOWN_FROM or len(self._seen) != bounds:
            return
        shares = [count / self._seen_of for count in self._seen]
        low, high = _TELLING
        telling = [i for i, share in enumerate(shares) if low <= share <= high]
        # The next bound shows a tail that stable does not have.
        following = telling[-1] + 1 if telling else sum(share > high for share in shares)
        if following < bounds:
            telling.append(following)
        telling = telling or [bounds - 1]
        count = min(len(telling), _COMPARED)
        gaps = max(count - 1, 1)
        self.compared = tuple(telling[i * (len(telling) - 1) // gaps] for i in range(count))
        self._seen = self._picked(self._seen)
        self.canary, self.stable = [0.0] * count, [0.0] * count
        self._shares = [(n + _PRIOR) / (self._seen_of + 2.0 * _PRIOR) for n in self._seen]
        self._set_tilts()

    def state(self) -> list[float]:
        """All that `restore` needs."""
        numbers = [float(len(self.compared)), float(len(self._seen)), self._seen_of]
        numbers += [float(i) for i in self.compared]
        numbers += self._seen
        if self.compared:
            numbers += [self.canary_timed, self.stable_timed, *self.canary, *self.stable]
            numbers += self._shares + self._onset.state()
        return numbers

    def restore(self, take: Callable[[int], list[float]]) -> None:
        """Take back what `state` gave; ValueError if it cannot be.

        Args:
            take: gives the next so many numbers.
        """
        compared, seen, self._seen_of = take(3)
        count, bounds = int(compared), int(seen)
        if not (0 <= count <= _COMPARED and 0 <= bounds <= MOST_BOUNDS):
            raise ValueError("not a state")
        self.compared = tuple(int(i) for i in take(count))
        self._seen = take(bounds)
        if count:
            if bounds != count or list(self.compared) != sorted({*self.compared}):
                raise ValueError("not a state")
            if self.compared[0] < 0 or self.compared[-1] >= MOST_BOUNDS:
                raise ValueError("not a state")
            self.canary_timed, self.stable_timed = take(2)
            self.canary, self.stable = take(count), take(count)
            self._shares = take(count)
            if self._shares != sorted(self._shares, reverse=True) or not (
                0.0 < self._shares[-1] <= self._shares[0] < 1.0
            ):
                raise ValueError("not a state")
            self._set_tilts()
            self._onset.restore(take)


def _between(beyond: Sequence[float], total: float) -> list[float]:
    """Answers in each bin, from those beyond each bound; none below 0, whatever was counted."""
    found, before = [], total
    for count in beyond:
        found.append(max(before - count, 0.0))
        before = count
    found.append(before)
    return found


def _tilts(shares: Sequence[float]) -> list[list[float]]:
    """For each alternative the factor of each bin, ascending, up to a constant.

    Args:
        shares: of stable's answers beyond each bound, descending, above 0 and below 1.
    """
    at = [_NORMAL.inv_cdf(1.0 - share) for share in shares]
    heights = [0.0, *(_NORMAL.pdf(z) for z in at), 0.0]
    ends = [1.0, *shares, 0.0]
    scores: list[float] = []
    for i in range(len(ends) - 1):
        inside = ends[i] - ends[i + 1]
        # The mean of a normal variable between two of its quantiles.
        score = (heights[i] - heights[i + 1]) / inside if inside > 0.0 else at[min(i, len(at) - 1)]
        scores.append(max(score, scores[-1]) if scores else score)
    found = [[exp(shift * score) for score in scores] for shift in SHIFTS]
    for tail in TAILS:
        begin = next((i for i, share in enumerate(shares, 1) if share <= tail), len(shares))
        for ratio in TAIL_RATIOS:
            found.append([ratio if i >= begin else 1.0 for i in range(len(scores))])
    return found
