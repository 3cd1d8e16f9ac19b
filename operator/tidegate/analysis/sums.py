"""What one side of a rollout did: a tally made consistent, that can be added up. Pure."""

from collections.abc import Sequence

from tidegate.analysis.block import Tally
from tidegate.analysis.latency import MOST_BOUNDS


class Sum:
    """What one side did; as `Tally`, but `blamed` is all that says nothing of the model by itself.

    That is: client errors, requests given up and those refused for overload.
    """

    __slots__ = ("blamed", "blamed_of", "failed", "requests", "slow", "slower", "timed")

    def __init__(self) -> None:
        self.requests = self.failed = 0.0
        self.blamed = self.blamed_of = 0.0
        self.timed = self.slow = 0.0
        self.slower: list[float] = []

    @classmethod
    def of(cls, tally: Tally) -> "Sum":
        """A block's tally, made consistent: nothing negative, no more failed than there were."""
        result = cls()
        unanswered = max(tally.given_up, 0) + max(tally.shed, 0)
        result.requests = requests = float(max(tally.requests, 0))
        result.failed = min(max(tally.failed, 0.0), requests)
        result.blamed_of = requests + unanswered
        result.blamed = min(max(tally.client_errors, 0.0) + unanswered, result.blamed_of)
        result.timed = timed = float(max(tally.timed, 0))
        result.slow = min(max(tally.slow, 0.0), timed)
        if tally.slower:
            slower = [float(count) for count in tally.slower[:MOST_BOUNDS]]
            if min(slower) < 0.0 or max(slower) > timed:
                slower = [min(max(count, 0.0), timed) for count in slower]
            result.slower = slower
        return result

    def add(self, other: "Sum") -> None:
        """Add what happened later, but for `slower`."""
        self.requests += other.requests
        self.failed += other.failed
        self.blamed += other.blamed
        self.blamed_of += other.blamed_of
        self.timed += other.timed
        self.slow += other.slow

    def add_slower(self, other: "Sum") -> None:
        """Add `slower`, too; dropped if its bounds are others."""
        if len(self.slower) == len(other.slower):
            self.slower = [a + b for a, b in zip(self.slower, other.slower, strict=True)]
        elif not self.slower:
            self.slower = list(other.slower)

    def state(self) -> list[float]:
        """All but `slower`."""
        return [self.requests, self.failed, self.blamed, self.blamed_of, self.timed, self.slow]

    def restore(self, numbers: Sequence[float]) -> None:
        """Take back what `state` gave."""
        self.requests, self.failed, self.blamed, self.blamed_of, self.timed, self.slow = numbers

    def __bool__(self) -> bool:
        return self.blamed_of > 0.0 or self.timed > 0.0
