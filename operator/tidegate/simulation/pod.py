"""One simulated pod: a bounded queue, instances, and Triton's dynamic batcher.

Between two requests that it gets, a pod knows nothing of the others; so it is played by itself, in
leaps, batch by batch (`Pod.advance`). That is exact, and quick enough for millions of requests.
"""

import random
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from heapq import heapreplace
from typing import NamedTuple


@dataclass(frozen=True)
class Server:
    """How a pod serves. Times in seconds.

    Attributes:
        alpha_s: of any batch.
        beta_s: of each request in it.
        cv: of a batch's time: standard deviation over mean (gamma).
        instances: batches at once.
        max_batch: most requests in one.
        preferred: sizes that are sent at once, ascending.
        delay_s: how long the oldest request waits for a fuller batch.
        queue: requests that may wait; more are refused; None: no end.
        target_s: of the latency objective.
        quantile: of the latency objective.
    """

    alpha_s: float
    beta_s: float
    cv: float = 0.0
    instances: int = 1
    max_batch: int = 1
    preferred: tuple[int, ...] = ()
    delay_s: float = 0.0
    queue: int | None = None
    target_s: float = 0.1
    quantile: float = 0.99

    def time_of(self, n: int) -> float:
        """Mean time of a batch of n."""
        return self.alpha_s + self.beta_s * n

    @property
    def throughput(self) -> float:
        """Requests a second at most."""
        return self.instances * self.max_batch / self.time_of(self.max_batch)


@dataclass
class Counters:
    """What one pod, or many, have done since the start.

    Attributes:
        started: requests that came.
        answered: well.
        failed: with an error, or lost with the pod.
        refused: for want of room.
        late: answered well, but slower than the target.
        area_s: integral of the requests in the pod, over time.
        busy_s: integral of the busy instances, over time, over the number of instances.
        ready_s: time in service.
        histogram: answered (errors too), by latency: below the first edge, below the second ...
        batches: size to executions and their time in all.
    """

    started: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    late: int = 0
    area_s: float = 0.0
    busy_s: float = 0.0
    ready_s: float = 0.0
    histogram: list[int] = field(default_factory=list)
    batches: dict[int, tuple[int, float]] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """Requests in the pod."""
        return self.started - self.answered - self.failed - self.refused

    def add(self, other: "Counters") -> None:
        """Take another's on."""
        self.started += other.started
        self.answered += other.answered
        self.failed += other.failed
        self.refused += other.refused
        self.late += other.late
        self.area_s += other.area_s
        self.busy_s += other.busy_s
        self.ready_s += other.ready_s
        if not self.histogram:
            self.histogram = [0] * len(other.histogram)
        for i, n in enumerate(other.histogram):
            self.histogram[i] += n
        for size, (count, busy_s) in other.batches.items():
            before, seconds = self.batches.get(size, (0, 0.0))
            self.batches[size] = (before + count, seconds + busy_s)


class Ended(NamedTuple):
    """Requests that ended together.

    Attributes:
        at_s: when.
        came: when each of them came.
        good: of those, the ones that were answered well.
        served: False: they were refused, or lost with the pod, so they have no latency.
    """

    at_s: float
    came: list[float]
    good: list[float]
    served: bool = True


class Pod:
    """A pod and its requests.

    Args:
        name: its UID.
        server: how it serves.
        edges_s: of its latency histogram, ascending.
        seed: of its service times.
        created_s: when it was asked for.
        ready_s: when it serves; infinite: it waits for a GPU.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        edges_s: tuple[float, ...],
        seed: int,
        created_s: float,
        ready_s: float,
    ) -> None:
        self.name = name
        self.server = server
        self.created_s = created_s
        self.ready_s = ready_s
        self.scheduled_s: float | None = created_s
        self.leaving_s: float | None = None
        self.queue: list[float] = []
        """Arrival times, of requests that wait and of such that were served."""
        self.slower = 1.0
        """Factor on service times."""
        self.failing = 0.0
        """Share of requests that fail."""
        self.counters = Counters(histogram=[0] * (len(edges_s) + 1))
        self.ended: list[Ended] | None = None
        """What ended since somebody last took it; None: nobody wants to know."""
        self._edges = edges_s
        self._head = 0
        self._counted = 0
        self._free = [0.0] * server.instances
        self._running: list[tuple[float, float, list[float]]] = []
        self._chance = random.Random(seed)
        self._shape = 1.0 / server.cv**2 if server.cv > 0.0 else 0.0
        self._plain = server.queue is None and server.delay_s == 0.0 and not server.preferred
        # Sums for the integrals.
        self._came_sum = self._left_sum = 0.0
        self._left = 0
        self._begun_sum = self._work_sum = 0.0

    @property
    def in_flight(self) -> int:
        """Requests in the pod, as of the last `advance`."""
        return len(self.queue) - self._counted + self.counters.in_flight

    @property
    def running(self) -> int:
        """Requests that an instance works on, as of the last `advance`."""
        return sum(len(chunk) for _, _, chunk in self._running)

    @property
    def idle(self) -> bool:
        """Whether nothing is in it, as of the last `advance`."""
        return not self._running and self._head >= len(self.queue)

    def advance(self, until_s: float) -> None:
        """Play it up to a time; all requests that come before then are in the queue already."""
        server, queue, free = self.server, self.queue, self._free
        head, largest, plain = self._head, server.max_batch, self._plain
        alpha, beta = server.alpha_s * self.slower, server.beta_s * self.slower
        shape, running = self._shape, self._running
        end = len(queue)
        while head < end:
            first, ready = queue[head], free[0]
            if ready > first:
                start = ready
                if start >= until_s:
                    break
                n = bisect_right(queue, start, head + 1, min(head + largest, end)) - head
            else:
                start = first
                if start >= until_s:
                    break
                n = 1
            if not plain:
                if server.queue is not None:
                    room = max(1, server.queue)
                    end -= self._refuse(head, start, room)
                    n = min(n, room)
                n, start = self._gather(head, n, start)
                if start >= until_s:
                    break
            time = alpha + beta * n
            if shape:
                time *= self._chance.gammavariate(shape, 1.0 / shape)
            done = start + time
            heapreplace(free, done)
            running.append((done, start, queue[head : head + n]))
            head += n
        if server.queue is not None and head < end:
            self._refuse(head, until_s, server.queue if free[0] > until_s else max(1, server.queue))
        self._head = head
        self._count(until_s)

    def _refuse(self, head: int, at_s: float, room: int) -> int:
        """Requests that found the queue full: between two batches it only grows."""
        queue = self.queue
        waiting = bisect_right(queue, at_s, head) - head
        gone = waiting - room
        if gone <= 0:
            return 0
        counters = self.counters
        self._arrived()
        refused = queue[head + room : head + waiting]
        del queue[head + room : head + waiting]
        if self.ended is not None:
            self.ended.append(Ended(at_s, refused, [], served=False))
        self._counted -= gone
        counters.refused += gone
        self._left += gone
        self._left_sum += sum(refused)
        return gone

    def _gather(self, head: int, n: int, start: float) -> tuple[int, float]:
        """Triton's dynamic batcher: how many go, and when.

        A preferred size that is reached goes at once, the largest of them; a batch whose oldest
        request has waited for the delay takes all there is; otherwise it waits.
        """
        server, queue = self.server, self.queue
        delay, largest = server.delay_s, server.max_batch
        sizes = server.preferred or ((largest,) if delay > 0.0 else ())
        fitting = [size for size in sizes if size <= n]
        if fitting:
            return fitting[-1], start
        if delay == 0.0 or n >= largest:
            return n, start
        until = max(start, queue[head] + delay)
        filled = head + sizes[0] - 1
        if filled < len(queue) and queue[filled] <= until:
            return sizes[0], max(start, queue[filled])
        return bisect_right(queue, until, head + 1, min(head + largest, len(queue))) - head, until

    def _arrived(self) -> None:
        """Take note of requests that came since the last time."""
        fresh = len(self.queue) - self._counted
        if fresh > 0:
            self.counters.started += fresh
            self._came_sum += sum(self.queue[self._counted :])
            self._counted += fresh

    def _count(self, until_s: float) -> None:
        """Take note of what came, ended and is being worked on by a time."""
        self._arrived()
        counters, edges, target = self.counters, self._edges, self.server.target_s
        histogram, batches = counters.histogram, counters.batches
        still: list[tuple[float, float, list[float]]] = []
        for each in self._running:
            done, start, chunk = each
            if done > until_s:
                still.append(each)
                continue
            n = len(chunk)
            for came in chunk:
                histogram[bisect_right(edges, done - came)] += 1
            bad, all_of_it = 0, chunk
            if self.failing:
                good = [came for came in chunk if self._chance.random() >= self.failing]
                bad, chunk = n - len(good), good
            if self.ended is not None:
                self.ended.append(Ended(done, all_of_it, chunk))
            # The tolerance is for a sum of floats that is the target itself.
            late = bisect_left(chunk, done - target - 1e-9)
            counters.late += late
            counters.failed += bad
            counters.answered += n - bad
            count, busy = batches.get(n, (0, 0.0))
            batches[n] = (count + 1, busy + done - start)
            self._left += n
            self._left_sum += done * n
            self._work_sum += done - start
        self._running = still
        # Time in the pod so far, summed over all requests that came.
        inside = counters.started - self._left
        counters.area_s = inside * until_s + self._left_sum - self._came_sum
        partial = sum(until_s - start for _, start, _ in still)
        counters.busy_s = (self._work_sum + partial) / self.server.instances
        end = until_s if self.leaving_s is None else self.leaving_s
        counters.ready_s = max(0.0, end - self.ready_s)
        if self._head > 20_000:
            del self.queue[: self._head]
            self._counted -= self._head
            self._head = 0

    def kill(self, at_s: float) -> None:
        """It dies; what is in it is lost."""
        self.advance(at_s)
        lost = self.counters.in_flight
        if self.ended is not None:
            inside = [came for _, _, chunk in self._running for came in chunk]
            self.ended.append(Ended(at_s, inside + self.queue[self._head :], [], served=False))
        self.counters.failed += lost
        self._left += lost
        self._left_sum += lost * at_s
        self._running = []
        self._head = len(self.queue)
        self._free = [at_s] * self.server.instances
