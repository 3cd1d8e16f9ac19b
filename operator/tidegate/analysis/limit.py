"""Does the canary keep a limit, and if it does not, is it to blame alone? Pure.

Evidence that a limit is broken is that of the canary's whole life mixed with that from each later
moment on (`tidegate.analysis.onset`). Whether an incident hits stable, too, is read off stable's
counts as if each block of it had had as many requests as the canary's: what the canary would have
looked like. So an incident that both share weighs the same in both.
"""

from math import log
from typing import NamedTuple

from tidegate.analysis import bound
from tidegate.analysis.comparison import NON_INFERIOR_SHIFTS, add_non_inferiority, log_mean
from tidegate.analysis.onset import SHARE_RATIOS, Onset, Stretch, share_factors
from tidegate.analysis.tempering import Tempering


class Proof(NamedTuple):
    """What is known in the canary's favour.

    Attributes:
        carried: weight that it may have by what is known; 1: any.
        proven: it surely keeps the limit, or is surely no worse than stable by the margin.
        stable_fails: stable surely breaks the limit, and the canary is neither better nor worse.
    """

    carried: float
    proven: bool
    stable_fails: bool


class Limit:
    """A limit on a share of the canary's requests, failed or slow, and what speaks of it.

    Args:
        share: the limit.
        needed: logarithm of the evidence at which it counts as broken.
        kind: of outcome, of those in `tidegate.analysis.tempering`.

    Attributes:
        later: evidence against the canary from each moment after its first request.
        stretch: what speaks against it lately.
        matched: stable's count, out of how many, as if it had had the canary's requests.
        no_worse: evidence that it is no worse than stable, for each of `NON_INFERIOR_SHIFTS`.
        kept: logarithm of the evidence that the limit is kept.
        blamed: the canary was found to break it, and to be alone in that.
    """

    __slots__ = (
        "_kind",
        "_needed",
        "blamed",
        "kept",
        "later",
        "matched",
        "no_worse",
        "share",
        "stretch",
    )

    def __init__(self, share: float, needed: float, kind: int) -> None:
        self.share = share
        self._needed = needed
        self._kind = kind
        self.later = Onset(len(SHARE_RATIOS), 0.0)
        self.stretch = Stretch()
        self.matched = (0.0, 0.0)
        self.no_worse = [0.0] * len(NON_INFERIOR_SHIFTS)
        self.kept = 0.0
        self.blamed = False

    def weigh(self, count: float, requests: float, tempering: Tempering) -> None:
        """The canary's next block, by itself."""
        if requests:
            factors = share_factors(count, requests, self.share)
            self.later.weigh(factors, requests, tempering.accusing[self._kind])
            self.stretch.add(count, requests, self.share)

    def compare(
        self, margin: float, guess: float, canary: tuple[float, float], stable: tuple[float, float]
    ) -> None:
        """A block of both: is the canary no worse?

        Args:
            margin: by what share of requests it may be worse; 0: that is not asked.
            guess: stable's share, from earlier blocks.
            canary: its count, out of how many.
            stable: the same.
        """
        if margin > 0.0:
            add_non_inferiority(self.no_worse, margin, guess, canary, stable)

    def match(self, canary_requests: float, stable: tuple[float, float]) -> None:
        """Stable's count, out of how many, beside so many requests of the canary's."""
        count, requests = stable
        if canary_requests and requests:
            weight = min(1.0, canary_requests / requests)
            like_it = weight * count, weight * requests
            self.matched = self.matched[0] + like_it[0], self.matched[1] + like_it[1]
            self.stretch.add_stable(*like_it)

    def look(self, count: float, requests: float, tempering: Tempering, *, worse: bool) -> float:
        """Logarithm of the evidence that the limit is broken; finds who is to blame for it.

        Args:
            count: of the canary's whole life.
            requests: out of.
            tempering: what divides the evidence.
            worse: the canary is worse than stable, thus to blame whatever stable did.
        """
        log_whole = self._of_whole_life(count, requests, tempering)
        later, alone = self.later, worse
        value = later.log_with(log_whole)
        if value >= self._needed and later.outweighs(log_whole) and not alone:
            if self.stretch.shared(self.share):
                # An incident of both; when it is over nobody is to blame for it.
                later.forget()
                value = later.log_with(log_whole)
            elif self.stretch.telling() or value >= 4.0 * self._needed:
                alone = True
            else:
                # Few clients are left with stable, and one look more may show it failing, too.
                value = min(value, 0.99 * self._needed)
        if value >= self._needed:
            self.blamed = self.blamed or alone or not self._stable_is_above()
        return value

    def _of_whole_life(self, count: float, requests: float, tempering: Tempering) -> float:
        proving, accusing = tempering.proving[self._kind], tempering.accusing[self._kind]
        broken, self.kept = bound.log_evidence(count / proving, requests / proving, self.share)
        if accusing != proving:
            broken, _ = bound.log_evidence(count / accusing, requests / accusing, self.share)
        return broken

    def _stable_is_above(self) -> bool:
        """Whether stable did no better than the limit in the canary's blocks, as observed.

        Asked for before the canary is blamed alone. Surely above would be too much to ask: in an
        incident that hits both alike it is chance whose count tells first.
        """
        count, requests = self.matched
        return count > self.share * requests

    def proof(
        self, count: float, requests: float, tempering: Tempering, alpha: float, *, worse: bool
    ) -> Proof:
        """What is known in the canary's favour; arguments as for `look`, sure to 1 - alpha."""
        exponent = tempering.proving[self._kind]
        highest = bound.upper(count / exponent, requests / exponent, alpha)
        needed = -log(alpha)
        stable_lower = self._stable_lower(exponent, alpha)
        better = stable_lower > self.share and highest < stable_lower
        proven = better or self.kept >= needed or log_mean(self.no_worse, exponent) >= needed
        return Proof(
            carried=min(1.0, self.share / highest),
            proven=proven,
            stable_fails=stable_lower > self.share and not better and not worse,
        )

    def _stable_lower(self, exponent: float, alpha: float) -> float:
        """What stable's share surely is, in the canary's blocks; 0: not above the limit."""
        if not self._stable_is_above():
            return 0.0  # cheaper, and no lower than anybody asks
        count, requests = self.matched
        return bound.lower(count / exponent, requests / exponent, alpha)
