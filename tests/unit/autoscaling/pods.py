"""Pods whose counters are played: a batch server each, with a sidecar and Triton's statistics."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from tidegate.autoscaling.reading import Batch, Look, TritonStats
from tidegate.autoscaling.variates import unit_gammas
from tidegate.resources.sidecar import LATENCY_EDGES_MS, TrafficClass
from tidegate.sidecar_page import Counts, Reading

START_S = 1_700_000_000.0
MAY_VARY = unit_gammas(0.01, 7, 4000)


@dataclass
class Pod:
    """One pod: requests go in, counters come out.

    Attributes:
        uid: its UID.
        alpha_ms, beta_ms: service time of a batch of n, alpha + beta n.
        largest: items in one batch.
        noise: whether a batch's time varies by 10 %.
    """

    uid: str
    alpha_ms: float = 8.0
    beta_ms: float = 6.0
    largest: int = 8
    noise: bool = False
    born_s: float = START_S - 1000.0
    edges_ms: tuple[int, ...] = LATENCY_EDGES_MS
    queue: list[float] = field(default_factory=list)
    free_s: float = 0.0
    started: int = 0
    running: list[tuple[float, float, list[float]]] = field(default_factory=list)
    batches: dict[int, tuple[int, float]] = field(default_factory=dict)
    bins: list[int] = field(default_factory=list)
    answered: int = 0
    drawn: int = 0

    def arrive(self, times_s: Iterable[float]) -> None:
        """Requests at these times, ascending."""
        before = len(self.queue)
        self.queue.extend(times_s)
        self.started += len(self.queue) - before

    def run_until(self, now_s: float) -> None:
        """Serve what can be started before now."""
        while self.queue:
            start_s = max(self.free_s, self.queue[0])
            if start_s >= now_s:
                break
            n = min(self.largest, bisect_right(self.queue, start_s))
            time_s = (self.alpha_ms + self.beta_ms * n) / 1000.0
            if self.noise:
                self.drawn += 1
                time_s *= MAY_VARY[self.drawn % len(MAY_VARY)]
            self.free_s = start_s + time_s
            self.running.append((self.free_s, time_s * 1000.0, self.queue[:n]))
            del self.queue[:n]
        if not self.bins:
            self.bins = [0] * (len(self.edges_ms) + 1)
        while self.running and self.running[0][0] <= now_s:
            done_s, busy_ms, times = self.running.pop(0)
            count, so_far_ms = self.batches.get(len(times), (0, 0.0))
            self.batches[len(times)] = (count + 1, so_far_ms + busy_ms)
            self.answered += len(times)
            for at_s in times:
                self.bins[bisect_right(self.edges_ms, (done_s - at_s) * 1000.0)] += 1

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self.queue)

    @property
    def in_flight(self) -> int:
        """Requests not answered."""
        return len(self.queue) + sum(len(times) for _, _, times in self.running)

    def reading(self, at_s: float) -> Reading:
        """What the sidecar's page says."""
        counts = Counts(
            started=self.started,
            succeeded=self.answered,
            in_flight=self.in_flight,
            timed=self.answered,
            faster=tuple(accumulate(self.bins[:-1])),
        )
        return Reading(
            self.uid,
            "r",
            at_s,
            self.edges_ms,
            {TrafficClass.CLIENT: counts},
            at_s - self.born_s,
        )

    def stats(self) -> TritonStats:
        """What Triton's statistics and its pending gauge say."""
        return TritonStats(
            batches=tuple(Batch(n, *self.batches[n]) for n in sorted(self.batches)),
            succeeded=self.answered,
            items=self.answered,
            # All that it has not answered: the change of this is exact.
            pending=self.in_flight,
        )

    def look(self, at_s: float, *, sidecar: bool = True, triton: bool = True) -> Look:
        """One look at both."""
        return Look(
            self.uid,
            at_s,
            self.reading(at_s) if sidecar else None,
            self.stats() if triton else None,
        )


class Stream:
    """Poisson arrivals (by default) at a rate that a test sets, dealt out among pods."""

    def __init__(self, scv: float = 1.0, seed: int = 11) -> None:
        self.gaps = unit_gammas(scv, seed)
        self.drawn = 0
        self.next_s: float | None = None
        self.dealt = 0

    def until(self, start_s: float, end_s: float, per_s: float) -> list[float]:
        """Times of arrivals between the two."""
        at_s = start_s if self.next_s is None or self.next_s < start_s else self.next_s
        times = []
        while at_s < end_s:
            times.append(at_s)
            at_s += self.gaps[self.drawn % len(self.gaps)] / per_s
            self.drawn += 1
        self.next_s = at_s
        return times

    def deal(self, times: Sequence[float], pods: Sequence[Pod]) -> None:
        """Each to a pod, by a fixed sequence that looks random."""
        shares: list[list[float]] = [[] for _ in pods]
        for at_s in times:
            self.dealt = (self.dealt * 1_103_515_245 + 12_345) % (1 << 31)
            shares[(self.dealt >> 16) % len(pods)].append(at_s)
        for pod, share in zip(pods, shares, strict=True):
            pod.arrive(share)
