"""What a law that reads metrics remembers: totals, and their change over a window."""

from collections import deque
from dataclasses import dataclass

from tidegate.simulation.world import View, quantile


@dataclass(frozen=True)
class Totals:
    """A look: `tidegate.simulation.pod.Counters` as plain numbers.

    Attributes:
        at_s: when.
        started, ended: requests.
        area_s, busy_s, ready_s: integrals.
        histogram: of latencies.
    """

    at_s: float
    started: int
    ended: int
    area_s: float
    busy_s: float
    ready_s: float
    histogram: tuple[int, ...]


class Window:
    """Looks, as far back as the longest window.

    Args:
        longest_s: of the windows that are asked for.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._looks: deque[Totals] = deque()
        self._edges: tuple[float, ...] = ()

    def take(self, view: View) -> bool:
        """Take in a look. Returns whether all pods could be read; if not it is passed over."""
        if view.unread:
            return False
        c = view.totals
        look = Totals(
            view.now_s,
            c.started,
            c.answered + c.failed,
            c.area_s,
            c.busy_s,
            c.ready_s,
            tuple(c.histogram),
        )
        self._edges = view.edges_s
        self._looks.append(look)
        while len(self._looks) > 2 and self._looks[1].at_s <= look.at_s - self._longest_s:
            self._looks.popleft()
        return True

    def _pair(self, seconds: float) -> tuple[Totals, Totals] | None:
        if len(self._looks) < 2:
            return None
        last = self._looks[-1]
        first = self._looks[0]
        for look in self._looks:
            if look.at_s > last.at_s - seconds + 1e-9:
                break
            first = look
        return (first, last) if first.at_s < last.at_s else None

    def arrivals_per_s(self, seconds: float) -> float | None:
        """Requests a second."""
        pair = self._pair(seconds)
        return None if pair is None else _per_s(pair, pair[1].started - pair[0].started)

    def concurrency(self, seconds: float) -> float | None:
        """Mean requests in all pods."""
        pair = self._pair(seconds)
        return None if pair is None else _per_s(pair, pair[1].area_s - pair[0].area_s)

    def utilisation(self, seconds: float) -> float | None:
        """Busy share of the instances of ready pods."""
        pair = self._pair(seconds)
        if pair is None or pair[1].ready_s <= pair[0].ready_s:
            return None
        return (pair[1].busy_s - pair[0].busy_s) / (pair[1].ready_s - pair[0].ready_s)

    def latency_s(self, q: float, seconds: float) -> float | None:
        """A quantile of the latency; None: no requests."""
        pair = self._pair(seconds)
        if pair is None:
            return None
        first = pair[0].histogram or (0,) * len(pair[1].histogram)
        change = [b - a for a, b in zip(first, pair[1].histogram, strict=True)]
        return quantile(change, self._edges, q)


def _per_s(pair: tuple[Totals, Totals], change: float) -> float:
    return change / (pair[1].at_s - pair[0].at_s)
