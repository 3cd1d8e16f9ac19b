"""Since when is it bad? Evidence from every moment on, mixed. Pure.

Evidence about a canary's whole life is diluted by its own good past: what begins to fail at the
10,000th request has 10,000 good ones to outweigh. So every alternative is weighed from each block
on, not only from the first: a mixture over the moments at which the canary may have turned bad.
The moments' weights are fixed beforehand and sum to 1 and a mixture of e-processes is one, so the
chance that it ever reaches 1/alpha is still at most alpha.

One number holds all moments of an alternative: what begins with a block joins what began before,
and all of it is multiplied by what the block says (the recursion of Shiryaev 1963 and Roberts 1966;
Shin, Ramdas, Rinaldo 2023, "E-detectors"). So time and memory do not grow with the moments.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import exp, log, log1p
from typing import Final

FIRST: Final = 0.9
"""Weight of the first request: most bad versions are bad from the start, and what is left to the
later moments costs the first one ln(1 / 0.9), 1.5 % of what it takes to be sure at 0.1 %."""
SHARE_RATIOS: Final = tuple(1.5 * 200.0 ** (i / 7) for i in range(8))
"""Odds ratios to a bound that count as worse, 1.5 to 300."""
_SPREAD: Final = 100.0
"""Requests; beyond it each doubling has nearly the same weight."""
_LARGEST: Final = 1e150
_LARGEST_LOG: Final = 340.0
"""Less evidence than there may be is valid, and no product of the two is too large a number."""
_TURN: Final = 2.0
"""Odds ratio by which a stretch of bad requests is told from good ones before it."""
_LOG_TURN: Final = log(_TURN)
_EXPECTED: Final = 3.0
"""Failures expected of stable: in an incident of both it has none with a chance of 5 %."""
_SMALLEST: Final = 1e-9


def begun(requests: float) -> float:
    """Weight of the moments after the first request, up to that many requests."""
    return (1.0 - FIRST) * (1.0 - 1.0 / (1.0 + log1p(requests / _SPREAD)))


class Onset:
    """Evidence for each of several alternatives, whenever it began to hold.

    Args:
        alternatives: how many; each has the same weight.
        first: weight of the first request: `FIRST`, or 0 where another test sees to that.
    """

    __slots__ = ("_begun", "_first", "_requests", "_values")

    def __init__(self, alternatives: int, first: float = FIRST) -> None:
        self._first = first
        self._values = [first] * alternatives
        self._requests = self._begun = 0.0

    def weigh(self, log_factors: Sequence[float], requests: float, exponent: float = 1.0) -> None:
        """Take in a block.

        A moment's weight is added with the block after it: what is added must not hang on what
        the block says.

        Args:
            log_factors: logarithm of what the block says of each alternative.
            requests: the canary's, in the block.
            exponent: divides `log_factors`, see `tidegate.analysis.tempering`.
        """
        now = begun(self._requests)
        weight = now - self._begun
        self._begun = now
        self._requests += requests
        if exponent != 1.0:
            log_factors = [factor / exponent for factor in log_factors]
        if max(log_factors) > _LARGEST_LOG:
            log_factors = [min(factor, _LARGEST_LOG) for factor in log_factors]
        values = [
            (value + weight) * exp(factor)
            for value, factor in zip(self._values, log_factors, strict=True)
        ]
        if max(values) > _LARGEST:
            values = [min(value, _LARGEST) for value in values]
        self._values = values

    def temper(self, before: float, after: float) -> None:
        """A larger exponent than `before` divides from now on, what is behind as well.

        By Jensen's inequality this is at least what all moments would come to had they been
        divided from the beginning, and less than now wherever there is evidence.
        """
        part = before / after
        weight = self._first + self._begun
        if weight > 0.0:
            rest: float = weight ** (1.0 - part)
            self._values = [float(value**part) * rest for value in self._values]

    def forget(self) -> None:
        """No moment up to now counts any more; that never makes evidence of nothing."""
        self._values = [0.0] * len(self._values)

    @property
    def later(self) -> float:
        """What all moments up to now come to."""
        return sum(self._values) / len(self._values)

    def log_evidence(self) -> float:
        """Logarithm of the e-value, which begins at 0."""
        return log(max(self.later + 1.0 - FIRST - self._begun, 1e-300))

    def log_with(self, log_whole: float) -> float:
        """The same where `log_whole` is the evidence from the first request on."""
        beside = log(self.later + 1.0 - FIRST - self._begun + 1e-300)
        whole = log_whole + log(FIRST)
        top = max(whole, beside)
        return top + log1p(exp(min(whole, beside) - top))

    def outweighs(self, log_whole: float) -> bool:
        """Whether a later moment explains more than the first request does."""
        return self.later > FIRST * exp(min(log_whole, 700.0))

    def state(self) -> list[float]:
        """All that `restore` needs."""
        return [self._requests, self._begun, *self._values]

    def restore(self, take: Callable[[int], list[float]]) -> None:
        """Take back what `state` gave; ValueError if it cannot be."""
        self._requests, self._begun = take(2)
        self._values = take(len(self._values))
        if not 0.0 <= self._begun <= 1.0 - FIRST or min(self._values) < 0.0 or self._requests < 0.0:
            raise ValueError("not a state")


@lru_cache(maxsize=256)
def _logs(share: float) -> tuple[tuple[float, float], ...]:
    """For each of SHARE_RATIOS: what a failure says against a share, and what a success."""
    share = min(max(share, _SMALLEST), 1.0 - _SMALLEST)
    found = []
    for ratio in SHARE_RATIOS:
        change = log1p(share * (ratio - 1.0))
        found.append((log(ratio) - change, -change))
    return tuple(found)


def share_factors(failed: float, requests: float, share: float) -> list[float]:
    """What a block says of each of SHARE_RATIOS against "the share is at most this"."""
    good = requests - failed
    return [failed * bad + good * well for bad, well in _logs(share)]


class Stretch:
    """The latest requests of the canary that speak against it: since when, for people.

    A cumulative sum (Page 1954) of what each block says of `_TURN` times the odds; where it falls
    to 0 the stretch begins anew. What stable did meanwhile tells whose fault it is.

    Attributes:
        count: how many failed (or were slow ...).
        requests: out of.
        stable_count: the same for stable, as if it had as many requests as the canary.
        stable_requests: out of.
    """

    __slots__ = ("_level", "count", "requests", "stable_count", "stable_requests")

    def __init__(self) -> None:
        self.restore([0.0] * 5)

    def add(self, count: float, requests: float, share: float) -> None:
        """The canary's next requests, against a share that is no worse."""
        if requests <= 0.0:
            return
        self._level += count * _LOG_TURN - requests * log1p(share * (_TURN - 1.0))
        if self._level <= 0.0:
            self.restore([0.0] * 5)
            return
        self.count += count
        self.requests += requests

    def add_stable(self, count: float, requests: float) -> None:
        """Stable's requests beside it."""
        if self.requests:
            self.stable_count += count
            self.stable_requests += requests

    def telling(self) -> bool:
        """Whether stable had requests enough to fail, if it did as the canary does; or has none."""
        expected = self.count * self.stable_requests
        return expected == 0.0 or expected >= _EXPECTED * self.requests

    def shared(self, share: float) -> bool:
        """Whether stable did no better than the share in the same time."""
        return self.stable_count > share * self.stable_requests

    def state(self) -> list[float]:
        """All that `restore` needs."""
        stable = self.stable_count, self.stable_requests
        return [self._level, self.count, self.requests, *stable]

    def restore(self, numbers: Sequence[float]) -> None:
        """Take back what `state` gave."""
        self._level, self.count, self.requests, self.stable_count, self.stable_requests = numbers
