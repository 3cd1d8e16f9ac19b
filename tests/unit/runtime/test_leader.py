"""Leadership with a clock that only moves when told."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.runtime.fakes import Clock, FakeServer
from tidegate.runtime.fence import Fence
from tidegate.runtime.kinds import LEASE
from tidegate.runtime.kube import ServerError, UnreachableError
from tidegate.runtime.leader import Leadership, LeadershipLostError
from tidegate.runtime.settings import Settings

SETTINGS = Settings(
    lease_duration_s=15.0, renew_deadline_s=10.0, retry_period_s=2.0, lease_namespace="ns"
)


def candidate(
    server: FakeServer, clock: Clock, identity: str = "me", sleep: Any = None
) -> tuple[Leadership, Fence]:
    fence = Fence(SETTINGS.renew_deadline_s)
    leadership = Leadership(
        server,  # type: ignore[arg-type]
        fence,
        replace(SETTINGS, identity=identity),
        clock=clock,
        sleep=sleep or clock.sleep,
    )
    return leadership, fence


def lease(server: FakeServer) -> dict[str, Any]:
    spec: dict[str, Any] = server.objects[LEASE, "ns", "tidegate-operator"]["spec"]
    return spec


async def test_the_first_takes_it_at_once() -> None:
    server, clock = FakeServer(), Clock()
    leadership, fence = candidate(server, clock)
    await leadership.acquire()
    assert leadership.held
    assert clock.now == 1000.0
    assert lease(server)["holderIdentity"] == "me"
    assert lease(server)["leaseTransitions"] == 0
    assert fence.remaining_s(clock.now) == 10.0


async def test_a_standby_waits_a_whole_duration_on_its_own_clock() -> None:
    server, clock = FakeServer(), Clock()
    first, _ = candidate(server, clock, "first")
    await first.acquire()
    # The holder's wall clock may be wrong by hours; nobody reads it.
    server.objects[LEASE, "ns", "tidegate-operator"]["spec"]["renewTime"] = "1970-01-01T00:00:00Z"
    second, fence = candidate(server, clock, "second")
    await second.acquire()
    assert 15.0 <= clock.now - 1000.0 <= 15.0 + SETTINGS.retry_period_s
    assert lease(server)["leaseTransitions"] == 1
    assert fence.remaining_s(clock.now) == 10.0


async def test_each_renewal_starts_the_wait_anew() -> None:
    server, clock = FakeServer(), Clock()
    first, _ = candidate(server, clock, "first")
    await first.acquire()
    renewals = 0

    async def sleep(seconds: float) -> None:
        nonlocal renewals
        clock.now += seconds
        if renewals < 20:
            renewals += 1
            assert await first._try()

    second, _ = candidate(server, clock, "second", sleep)
    await second.acquire()
    assert clock.now >= 1000.0 + 20 * SETTINGS.retry_period_s + 15.0 - SETTINGS.retry_period_s


async def test_a_released_lease_is_taken_at_once() -> None:
    server, clock = FakeServer(), Clock()
    first, fence = candidate(server, clock, "first")
    await first.acquire()
    await first.release()
    assert fence.remaining_s(clock.now) == 0.0
    second, _ = candidate(server, clock, "second")
    await second.acquire()
    assert clock.now == 1000.0


async def test_the_fence_counts_from_when_the_renewal_was_sent() -> None:
    server, clock = FakeServer(), Clock()
    leadership, fence = candidate(server, clock)
    await leadership.acquire()
    put = server.lease

    async def slow(*args: Any, **kwargs: Any) -> Any:
        answer = await put(*args, **kwargs)
        clock.now += 4.0  # the answer takes its time
        return answer

    server.lease = slow  # type: ignore[method-assign]
    clock.now += 2.0
    assert await leadership._try()
    assert fence.remaining_s(clock.now) == 6.0


async def test_renewals_may_fail_for_less_than_the_deadline() -> None:
    server, clock = FakeServer(), Clock()
    leadership, fence = candidate(server, clock)
    await leadership.acquire()
    server.fail = [UnreachableError("no answer"), ServerError("500", code=500)]
    turns = 0

    class EnoughError(Exception):
        pass

    async def sleep(seconds: float) -> None:
        nonlocal turns
        clock.now += seconds
        turns += 1
        if turns == 4:
            raise EnoughError

    leadership._sleep = sleep
    with pytest.raises(EnoughError):
        await leadership.keep()
    assert leadership.held
    assert fence.remaining_s(clock.now) > 0


async def test_renewals_that_fail_beyond_the_deadline_end_it() -> None:
    server, clock = FakeServer(), Clock()
    leadership, fence = candidate(server, clock)
    await leadership.acquire()
    server.fail = [UnreachableError("no answer") for _ in range(100)]
    with pytest.raises(LeadershipLostError, match="in time"):
        await leadership.keep()
    assert not leadership.held
    assert fence.remaining_s(clock.now) == 0.0
    # And before a standby may begin.
    assert clock.now - 1000.0 < SETTINGS.lease_duration_s


async def test_a_lease_that_another_holds_ends_it() -> None:
    server, clock = FakeServer(), Clock()
    leadership, fence = candidate(server, clock)
    await leadership.acquire()
    document = server.objects[LEASE, "ns", "tidegate-operator"]
    document["spec"]["holderIdentity"] = "thief"
    server.put(LEASE, document)
    with pytest.raises(LeadershipLostError, match="thief"):
        await leadership.keep()
    assert fence.remaining_s(clock.now) == 0.0


async def test_a_lease_that_another_only_touched_is_kept() -> None:
    server, clock = FakeServer(), Clock()
    leadership, _ = candidate(server, clock)
    await leadership.acquire()
    server.put(LEASE, server.objects[LEASE, "ns", "tidegate-operator"])
    assert await leadership._try()
    assert await leadership._try()
    assert leadership.held


async def test_a_paused_holder_may_not_write_when_it_wakes() -> None:
    server, clock = FakeServer(), Clock()
    leadership, fence = candidate(server, clock)
    await leadership.acquire()
    clock.now += 60.0
    assert fence.remaining_s(clock.now) == 0.0


async def test_who_never_held_it_releases_nothing() -> None:
    server, clock = FakeServer(), Clock()
    first, _ = candidate(server, clock, "first")
    await first.acquire()
    second, _ = candidate(server, clock, "second")
    assert not await second._try()
    await second.release()
    assert lease(server)["holderIdentity"] == "first"
