"""A short load: even in time, held to the objective, over as soon as it is lost."""

import asyncio
import heapq
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from tidegate.actions import ShortLoad
from tidegate.runtime.golden_load import IN_FLIGHT, short_load

T = TypeVar("T")
LOAD = ShortLoad(10, 10.0, max_error_rate=0.01, latency_target_ms=100, slow_share=0.05)


class Clock:
    """Time that jumps to whatever is waited for next, once nobody has anything else to do."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.now + seconds, next(self._count), future))
        await future

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(4):
                await asyncio.sleep(0)
            if self._waiting:
                self.now, _, future = heapq.heappop(self._waiting)
                if not future.done():
                    future.set_result(None)
        return task.result()


@dataclass
class Pod:
    """Takes so long for each request."""

    takes_s: float = 0.01
    bad: frozenset[int] = frozenset()
    slow: frozenset[int] = frozenset()
    clock: Clock = field(default_factory=Clock)
    at: list[float] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0

    async def send(self, number: int) -> bool:
        self.at.append(self.clock.now)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await self.clock.sleep(0.2 if number in self.slow else self.takes_s)
        self.in_flight -= 1
        return number not in self.bad

    async def load(self, load: ShortLoad = LOAD) -> tuple[bool, str]:
        work = short_load(self.send, load, lambda: self.clock.now, self.clock.sleep)
        return await self.clock.run(work)


async def test_requests_are_even_and_the_objective_is_kept() -> None:
    pod = Pod()
    assert await pod.load() == (
        True,
        "load test, 100 of 100 requests at 10 a second: 0 failed (1 allowed), "
        "0 not within 100 ms (5 allowed)",
    )
    assert pod.at == pytest.approx([n / 10 for n in range(100)])


@pytest.mark.parametrize(
    ("bad", "slow", "passed"),
    [
        (range(1), range(0), True),
        (range(2), range(0), False),
        (range(0), range(10, 15), True),
        (range(0), range(10, 16), False),
    ],
)
async def test_what_is_allowed(bad: range, slow: range, passed: bool) -> None:
    pod = Pod(bad=frozenset(bad), slow=frozenset(slow))
    assert (await pod.load())[0] is passed


async def test_it_ends_when_it_is_lost() -> None:
    pod = Pod(bad=frozenset(range(100)))
    passed, message = await pod.load()
    assert (passed, len(pod.at)) == (False, 2)
    assert "2 of 100" in message


async def test_a_pod_that_falls_behind_is_slow_and_never_overrun() -> None:
    pod = Pod(takes_s=30.0)
    load = ShortLoad(100, 2.0, max_error_rate=0.01, latency_target_ms=100, slow_share=0.01)
    passed, message = await pod.load(load)
    assert (passed, pod.most) == (False, IN_FLIGHT)
    assert "200 of 200" in message


async def test_a_pod_that_cannot_be_asked_is_unknown() -> None:
    async def send(number: int) -> bool:
        if number == 3:
            raise ConnectionError("gone")
        return True

    with pytest.raises(ConnectionError):
        await short_load(send, LOAD, lambda: 0.0, lambda _: asyncio.sleep(0))
