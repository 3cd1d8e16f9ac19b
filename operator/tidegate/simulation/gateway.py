"""The simulated gateway: which pod gets which request, by the route as it was a moment ago."""

import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

from tidegate.simulation.fleet import Fleet

ROUTE_S: Final = 0.05
"""From the write of a weight until the gateway goes by it (35 ms were measured)."""


class Gateway:
    """Spreads clients' requests over two revisions, and copies some. Times in seconds.

    Args:
        fleet: the pods.
        arrivals: times of requests, ascending.
        old, new: hashes of the revisions; the same where there is but one.
        seed: of chance.

    Attributes:
        shares: of the requests, by revision, as it goes by now.
        mirror: share that is copied to the new revision.
        copies: requests that were copied.
        nowhere: requests for which no pod was there.
        first_s: when the first client's request went to the new revision; None: none did.
    """

    def __init__(
        self, fleet: Fleet, arrivals: Sequence[float], old: str, new: str, seed: int
    ) -> None:
        self.shares: dict[str, float] = {old: 1.0}
        self.mirror = 0.0
        self.copies = 0
        self.nowhere = 0
        self.first_s: float | None = None
        self._fleet = fleet
        self._arrivals = arrivals
        self._next = 0
        self._old, self._new = old, new
        self._chance = random.Random(f"{seed} routing").random
        self._coming: tuple[float, dict[str, float], float] | None = None

    @property
    def weight(self) -> float:
        """The new revision's share of the requests."""
        return 0.0 if self._new == self._old else self.shares.get(self._new, 0.0)

    @property
    def changes_s(self) -> float | None:
        """When it will go by another route; None: it has the newest."""
        return None if self._coming is None else self._coming[0]

    def told(self, shares: Mapping[str, float], mirror: float, at_s: float) -> None:
        """The route as it is now."""
        latest = (self.shares, self.mirror) if self._coming is None else self._coming[1:]
        if (shares, mirror) != latest:
            self._coming = (at_s + ROUTE_S, dict(shares), mirror)

    def change(self, at_s: float) -> None:
        """Go by what has come."""
        if self._coming is not None and at_s >= self._coming[0]:
            _, self.shares, self.mirror = self._coming
            self._coming = None

    def dispatch(self, begin: float, end: float) -> None:
        """Give out the requests of a time in which nothing changes."""
        first, last = self._next, bisect_left(self._arrivals, end, self._next)
        self._next = last
        if first == last:
            return
        came, weight, chance = self._arrivals[first:last], self.weight, self._chance
        if weight >= 1.0 or weight <= 0.0:
            self._give(self._new if weight >= 1.0 else self._old, came, begin)
        else:
            drawn = [chance() < weight for _ in came]
            self._give(self._new, [t for t, new in zip(came, drawn, strict=True) if new], begin)
            self._give(self._old, [t for t, new in zip(came, drawn, strict=True) if not new], begin)
        if self.mirror and weight <= 0.0:
            copied = [t for t in came if chance() < self.mirror]
            self._give(self._new, copied, begin, copies=True)

    def _give(
        self, revision: str, came: Sequence[float], begin: float, *, copies: bool = False
    ) -> None:
        """To the pods of a revision, at random."""
        if not came:
            return
        pods = self._fleet.reachable(revision, begin)
        if not pods:
            self.nowhere += 0 if copies else len(came)
            return
        if copies:
            self.copies += len(came)
        elif revision == self._new != self._old and self.first_s is None:
            self.first_s = came[0]
        before = [len(replica.pod.queue) for replica in pods]
        if len(pods) == 1:
            pods[0].pod.queue.extend(came)
        else:
            chance, n = self._chance, len(pods)
            queues = [replica.pod.queue.append for replica in pods]
            for at_s in came:
                queues[int(n * chance())](at_s)
        for replica, length in zip(pods, before, strict=True):
            fresh = len(replica.pod.queue) - length
            if fresh:
                replica.sidecar.arrived(fresh, copies=copies, since_s=begin)
