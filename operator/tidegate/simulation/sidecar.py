"""The simulated pod's sidecar: counts clients' requests and copies apart, as Envoy does."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

from tidegate.resources.sidecar import TrafficClass
from tidegate.sidecar_page import Counts, Reading
from tidegate.simulation.pod import Ended


@dataclass
class Class:
    """What became of one class of traffic since the pod began.

    Attributes:
        started: requests that came.
        answered: well.
        failed: with an error, refused or lost.
        late: answered well, but slower than the target.
        histogram: latencies of those that got an answer: below the first edge, the second ...
    """

    started: int = 0
    answered: int = 0
    failed: int = 0
    late: int = 0
    histogram: list[int] = field(default_factory=list)

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return self.started - self.answered - self.failed

    def add(self, other: "Class") -> None:
        """Take another's on."""
        self.started += other.started
        self.answered += other.answered
        self.failed += other.failed
        self.late += other.late
        if not self.histogram:
            self.histogram = [0] * len(other.histogram)
        for i, n in enumerate(other.histogram):
            self.histogram[i] += n

    def copy(self) -> "Class":
        """As it is now."""
        return Class(self.started, self.answered, self.failed, self.late, list(self.histogram))


class Sidecar:
    """Counters of one pod.

    A pod gets clients' requests or copies at any time, never both: so a request's class follows
    from when it came.

    Args:
        edges_s: of its latency histogram, ascending.
        target_s: of the latency objective.
    """

    def __init__(self, edges_s: tuple[float, ...], target_s: float) -> None:
        self._edges = edges_s
        self._edges_ms = tuple(round(1000 * edge) for edge in edges_s)
        self._target_s = target_s
        self.clients = Class(histogram=[0] * (len(edges_s) + 1))
        self.copies = Class(histogram=[0] * (len(edges_s) + 1))
        # Times at which the class of what comes changes; clients' requests come first.
        self._switches: list[float] = []

    def arrived(self, number: int, *, copies: bool, since_s: float) -> None:
        """So many requests came, none before that time."""
        if copies != bool(len(self._switches) % 2):
            self._switches.append(since_s)
        (self.copies if copies else self.clients).started += number

    def take(self, ended: list[Ended]) -> None:
        """Count what ended, and forget it."""
        edges = self._edges
        for each in ended:
            for into, came, good in self._by_class(each):
                into.answered += len(good)
                into.failed += len(came) - len(good)
                if each.served:
                    done, histogram = each.at_s, into.histogram
                    for at_s in came:
                        histogram[bisect_right(edges, done - at_s)] += 1
                    # The tolerance is for a sum of floats that is the target itself.
                    into.late += bisect_left(good, done - self._target_s - 1e-9)
        ended.clear()

    def _by_class(self, ended: Ended) -> list[tuple[Class, list[float], list[float]]]:
        switches = self._switches
        if not switches or not ended.came:
            return [(self.clients, ended.came, ended.good)]
        first, last = bisect_right(switches, ended.came[0]), bisect_right(switches, ended.came[-1])
        if first == last:
            return [(self.copies if first % 2 else self.clients, ended.came, ended.good)]
        both: list[tuple[Class, list[float], list[float]]] = []
        for copies, into in ((False, self.clients), (True, self.copies)):

            def mine(times: list[float], copies: bool = copies) -> list[float]:
                return [t for t in times if bool(bisect_right(switches, t) % 2) == copies]

            both.append((into, mine(ended.came), mine(ended.good)))
        return both

    def reading(self, *, pod: str, revision: str, at_s: float, uptime_s: float) -> Reading:
        """What its page says; times since the epoch."""
        return Reading(
            pod=pod,
            revision=revision,
            at_s=at_s,
            edges_ms=self._edges_ms,
            classes={
                traffic: _counts(counted)
                for traffic, counted in (
                    (TrafficClass.CLIENT, self.clients),
                    (TrafficClass.MIRRORED, self.copies),
                )
                if counted.started
            },
            uptime_s=uptime_s,
            name=pod,
        )


def _counts(counted: Class) -> Counts:
    return Counts(
        started=counted.started,
        succeeded=counted.answered,
        failed=counted.failed,
        in_flight=counted.in_flight,
        timed=sum(counted.histogram),
        faster=tuple(accumulate(counted.histogram[:-1])),
    )
