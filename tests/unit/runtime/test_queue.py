"""Policy of the queue: a table of cases, invariants over random histories, and the async skin."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidegate.runtime.queue import Backoff, KeyedQueue, Schedule


def schedule(**kwargs: float) -> Schedule[str]:
    return Schedule(Backoff(jitter=0.0, **kwargs))


def test_keys_come_when_due_and_in_order() -> None:
    s = schedule()
    s.add("late", 5.0)
    s.add("early", 1.0)
    assert s.pop(0.5) is None
    assert s.next_due() == 1.0
    assert s.pop(5.0) == "early"
    assert s.pop(5.0) == "late"
    assert s.pop(9.0) is None


def test_adding_again_brings_forward_and_never_back() -> None:
    s = schedule()
    s.add("k", 5.0)
    s.add("k", 9.0)
    assert s.next_due() == 5.0
    s.add("k", 2.0)
    assert s.next_due() == 2.0
    assert s.pop(2.0) == "k"
    assert s.waiting == 0
    assert s.pop(99.0) is None


def test_a_key_in_work_comes_once_more_afterwards_however_often_it_was_added() -> None:
    s = schedule()
    s.add("k", 0.0)
    assert s.pop(0.0) == "k"
    s.add("k", 1.0)
    s.add("k", 0.5)
    assert s.pop(9.0) is None
    s.succeeded("k", 2.0)
    assert s.pop(2.0) == "k"
    s.succeeded("k", 3.0)
    assert s.pop(99.0) is None


def test_success_can_ask_for_another_time() -> None:
    s = schedule()
    s.add("k", 0.0)
    s.pop(0.0)
    s.succeeded("k", 1.0, requeue_after_s=30.0)
    assert s.next_due() == 31.0


@pytest.mark.parametrize(
    ("failures", "wait"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (5000, 60.0)]
)
def test_waits_double_up_to_a_limit(failures: int, wait: float) -> None:
    assert Backoff(jitter=0.0).delay_s(failures, 0.9) == wait


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_share(failures: int, draw: float) -> None:
    plain = Backoff(jitter=0.0).delay_s(failures, draw)
    assert 0.75 * plain <= Backoff(jitter=0.25).delay_s(failures, draw) <= 1.25 * plain


def test_failures_count_up_and_success_forgives() -> None:
    s = schedule()
    now = 0.0
    for expected in (0.5, 1.0, 2.0):
        s.add("k", now)
        assert s.pop(now) == "k"
        assert s.failed("k", now) == expected
        now += expected
    assert s.pop(now) == "k"
    s.succeeded("k", now)
    s.add("k", now)
    s.pop(now)
    assert s.failed("k", now) == 0.5


def test_the_api_servers_wish_to_wait_longer_is_heard() -> None:
    s = schedule()
    s.add("k", 0.0)
    s.pop(0.0)
    assert s.failed("k", 0.0, at_least_s=7.0) == 7.0
    assert s.next_due() == 7.0


def test_ordinary_events_do_not_end_a_back_off_but_the_owners_change_does() -> None:
    s = schedule(first_s=10.0)
    s.add("k", 0.0)
    s.pop(0.0)
    s.add("k", 0.0)  # an event while it is being worked on
    s.failed("k", 0.0)
    assert s.next_due() == 10.0
    s.add("k", 1.0)
    assert s.next_due() == 10.0
    s.add("k", 1.0, urgent=True)
    assert s.next_due() == 1.0


class Histories(RuleBasedStateMachine):
    """Whatever happens: one worker a key, nothing added is lost, nothing comes before its time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.schedule: Schedule[str] = Schedule(Backoff(jitter=0.0))
        self.working: set[str] = set()
        self.owed: set[str] = set()

    keys = st.sampled_from("abc")

    @rule(key=keys, delay=st.floats(0, 10), urgent=st.booleans())
    def add(self, key: str, delay: float, urgent: bool) -> None:
        self.schedule.add(key, self.now + delay, urgent=urgent)
        self.owed.add(key)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def pop(self) -> None:
        due = self.schedule.next_due()
        key = self.schedule.pop(self.now)
        assert (key is None) == (due is None or due > self.now)
        if key is not None:
            assert key not in self.working
            self.working.add(key)
            self.owed.discard(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data(), ok=st.booleans())
    def give_back(self, data: st.DataObject, ok: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.working.discard(key)
        if ok:
            self.schedule.succeeded(key, self.now)
        else:
            self.schedule.failed(key, self.now)
            self.owed.add(key)

    @invariant()
    def nothing_owed_is_lost(self) -> None:
        assert self.schedule.working == len(self.working)
        for key in self.owed - self.working:
            assert key in self.schedule._due
        for key in self.owed & self.working:
            assert key in self.schedule._again

    def teardown(self) -> None:
        for key in list(self.working):
            self.schedule.succeeded(key, self.now)
        self.working.clear()
        while (due := self.schedule.next_due()) is not None:
            popped = self.schedule.pop(max(due, self.now))
            assert popped is not None
            self.owed.discard(popped)
            self.schedule.succeeded(popped, self.now)
        assert not self.owed


TestHistories = Histories.TestCase


async def test_workers_get_keys_as_they_fall_due() -> None:
    queue: KeyedQueue[str] = KeyedQueue(schedule())
    got: asyncio.Queue[str] = asyncio.Queue()

    async def worker() -> None:
        while True:
            key = await queue.get()
            got.put_nowait(key)
            queue.succeeded(key)

    workers = [asyncio.create_task(worker()) for _ in range(3)]
    queue.add("second", 0.02)
    queue.add("first")
    assert [await asyncio.wait_for(got.get(), 30) for _ in range(2)] == ["first", "second"]
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_a_closed_queue_hands_out_nothing_and_tells_when_it_is_idle() -> None:
    queue: KeyedQueue[str] = KeyedQueue(schedule())
    queue.add("a")
    assert await queue.get() == "a"
    queue.close()
    queue.add("b")
    idle = asyncio.create_task(queue.idle())
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0.01)
    assert not idle.done()
    assert not waiting.done()
    queue.failed("a")
    await idle
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()
