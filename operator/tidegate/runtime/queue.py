"""A queue of keys: one worker a key at a time, retries with exponential back-off and jitter.

`Schedule` holds the policy and knows no clock and no event loop: whoever asks tells it the time.
`KeyedQueue` is the thin asynchronous skin around it.

A key that is added while a worker has it is handed out once more after that worker is done, so no
change is lost and no key has two workers. Adding a key again only ever brings its time forward,
with one exception: while a key backs off after a failure, ordinary events do not shorten the wait
(a storm of events about a broken object must not become a storm of failing requests).
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Backoff:
    """How long to wait after the n-th failure in a row.

    Attributes:
        first_s: wait after the first failure.
        limit_s: longest wait.
        jitter: share of the wait by which it is varied to either side, in [0, 1).
    """

    first_s: float = 0.5
    limit_s: float = 60.0
    jitter: float = 0.25

    def delay_s(self, failures: int, draw: float) -> float:
        """Seconds to wait after so many failures in a row; `draw` is uniform in [0, 1)."""
        # 2**60 is beyond any limit: the exponent is cut so that the power stays finite.
        plain = min(self.limit_s, self.first_s * 2.0 ** min(failures - 1, 60))
        return plain * (1.0 + self.jitter * (2.0 * draw - 1.0))


@dataclass
class Schedule(Generic[Key]):
    """Which key is due when. Times are seconds of one monotonic clock.

    Attributes:
        backoff: the waits after failures.
        draw: source of the jitter, uniform in [0, 1).
    """

    backoff: Backoff = field(default_factory=Backoff)
    draw: Callable[[], float] = random.random
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, int, Key]] = field(default_factory=list)
    _working: set[Key] = field(default_factory=set)
    _again: dict[Key, float] = field(default_factory=dict)
    _failures: dict[Key, int] = field(default_factory=dict)
    _not_before: dict[Key, float] = field(default_factory=dict)
    _count: int = 0

    def add(self, key: Key, due: float, *, urgent: bool = False) -> None:
        """Have a key handed out at that time, or earlier if it already was to be.

        Args:
            key: what is to be looked at.
            due: when, at the earliest.
            urgent: end a back-off (the object itself was changed by its owner).
        """
        if urgent:
            self._not_before.pop(key, None)
        due = max(due, self._not_before.get(key, due))
        if key in self._working:
            self._again[key] = min(due, self._again.get(key, due))
        else:
            self._put(key, due)

    def _put(self, key: Key, due: float) -> None:
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))

    def _prune(self) -> None:
        # A key that was brought forward leaves its older entry behind.
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def next_due(self) -> float | None:
        """When the next key is due; None if none waits."""
        self._prune()
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> Key | None:
        """A key that is due, now in the hands of the caller; None if none is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key]
        self._working.add(key)
        return key

    def succeeded(self, key: Key, now: float, requeue_after_s: float | None = None) -> None:
        """The worker is done with a key, and wants it again after so many seconds, if at all."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        self._done(key, None if requeue_after_s is None else now + requeue_after_s)

    def failed(self, key: Key, now: float, at_least_s: float = 0.0) -> float:
        """The worker failed; the key comes again after a back-off, which is returned (seconds)."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least_s, self.backoff.delay_s(self._failures[key], self.draw()))
        self._not_before[key] = now + delay
        if key in self._again:
            self._again[key] = max(self._again[key], now + delay)
        self._done(key, now + delay)
        return delay

    def _done(self, key: Key, due: float | None) -> None:
        self._working.discard(key)
        again = self._again.pop(key, None)
        for when in (due, again):
            if when is not None:
                self._put(key, when)

    def failures(self, key: Key) -> int:
        """Failures in a row of a key."""
        return self._failures.get(key, 0)

    @property
    def waiting(self) -> int:
        """Keys that wait for their time or for a worker."""
        return len(self._due)

    def overdue(self, now: float) -> int:
        """Keys that wait for a worker."""
        return sum(due <= now for due in self._due.values())

    @property
    def working(self) -> int:
        """Keys in the hands of workers."""
        return len(self._working)


class KeyedQueue(Generic[Key]):
    """The schedule, with waiting."""

    def __init__(
        self, schedule: Schedule[Key] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.schedule: Schedule[Key] = schedule if schedule is not None else Schedule()
        self._clock = clock
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def close(self) -> None:
        """Hand out nothing any more."""
        self._closed = True

    def add(self, key: Key, delay_s: float = 0.0, *, urgent: bool = False) -> None:
        """Have a key handed out after a delay; see `Schedule.add`."""
        self.schedule.add(key, self._clock() + delay_s, urgent=urgent)
        self._wake.set()

    async def get(self) -> Key:
        """The next key, as soon as one is due. It must be given back by one of the two below."""
        while True:
            self._wake.clear()
            now = self._clock()
            key = None if self._closed else self.schedule.pop(now)
            if key is not None:
                self._wake.set()  # another may be due for another worker
                self._idle.clear()
                return key
            due = None if self._closed else self.schedule.next_due()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def succeeded(self, key: Key, requeue_after_s: float | None = None) -> None:
        """See `Schedule.succeeded`."""
        self.schedule.succeeded(key, self._clock(), requeue_after_s)
        self._given_back()

    def failed(self, key: Key, at_least_s: float = 0.0) -> float:
        """See `Schedule.failed`."""
        delay = self.schedule.failed(key, self._clock(), at_least_s)
        self._given_back()
        return delay

    def _given_back(self) -> None:
        self._wake.set()
        if not self.schedule.working:
            self._idle.set()

    def depth(self) -> int:
        """Keys that wait for a worker now."""
        return self.schedule.overdue(self._clock())

    async def idle(self) -> None:
        """Wait until no worker has a key."""
        await self._idle.wait()
