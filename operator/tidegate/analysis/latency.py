"""Is the canary slower than stable? Shares beyond several latency bounds, compared together. Pure.

Each bound makes requests "slower than it" or not. Which bounds tell something depends on the model;
they are chosen once, before the canary's first answer counts, by what stable did until then. The
e-values of the bounds are averaged, which is valid however they depend on each other.
"""

from collections.abc import Callable, Sequence
from typing import Final

from tidegate.analysis.comparison import add_superiority, log_mean

RATIOS: Final = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 40.0)
"""Odds ratios that count as slower. Smaller than those for failures: where many requests lie beyond
a bound, small changes show."""
MOST_BOUNDS: Final = 40
"""Bounds taken in; more are left out."""
_COMPARED: Final = 6
_KNOWN_FROM: Final = 50.0
"""Answers of stable's that tell which bounds to compare."""
_TELLING: Final = (0.002, 0.9)
"""Share of stable's answers beyond a bound that tells something."""
_PRIOR: Final = 0.5


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
        "_log_ratios",
        "_seen",
        "_seen_of",
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
        # For each compared bound, one after the other, the running sum of each of RATIOS.
        self._log_ratios: list[float] = []

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

    def weigh(
        self,
        canary: tuple[Sequence[float], float],
        stable: tuple[Sequence[float], float],
    ) -> None:
        """Weigh one block; each side: answers beyond each bound, out of how many."""
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
        if not theirs or stable[1] <= 0.0:
            return
        self.stable_timed += stable[1]
        for i, count in enumerate(theirs):
            self.stable[i] += count
            guess = (self._seen[i] + _PRIOR) / (self._seen_of + 2.0 * _PRIOR)
            add_superiority(
                self._log_ratios,
                RATIOS,
                guess,
                (ours[i], canary[1]),
                (count, stable[1]),
                i * len(RATIOS),
            )

    def log_evidence(self, exponent: float) -> float:
        """Logarithm of the e-value against "the canary is not slower at any bound"."""
        return log_mean(self._log_ratios, exponent) if self.compared else 0.0

    def worst(self) -> int | None:
        """Which of `compared` speaks most against the canary; None: none chosen yet."""
        if not self.compared:
            return None
        return self._log_ratios.index(max(self._log_ratios)) // len(RATIOS)

    def _picked(self, slower: Sequence[float]) -> list[float]:
        if not slower or self.compared[-1] >= len(slower):
            return []
        return [slower[i] for i in self.compared]

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
        self._log_ratios = [0.0] * (count * len(RATIOS))

    def state(self) -> list[float]:
        """All that `restore` needs."""
        numbers = [float(len(self.compared)), float(len(self._seen)), self._seen_of]
        numbers += [float(i) for i in self.compared]
        numbers += self._seen
        if self.compared:
            numbers += [self.canary_timed, self.stable_timed, *self.canary, *self.stable]
            numbers += self._log_ratios
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
            self._log_ratios = take(count * len(RATIOS))
