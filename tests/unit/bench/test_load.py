import asyncio

import pytest

from e2e.bench.load import Request, Summary, open_loop


async def test_every_request_is_recorded_once_and_in_order() -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        number = asked
        await asyncio.sleep(0.001 * (number % 5))
        return "" if number % 10 else "tenth"

    found = await open_loop(ask, rate_hz=1000.0, seconds=0.1)
    assert asked == len(found) == 100
    assert [r.due_s for r in found] == sorted(r.due_s for r in found)
    assert sum(r.error == "tenth" for r in found) == 10
    assert all(r.took_s >= r.late_s >= 0 for r in found)


async def test_requests_leave_though_earlier_ones_hang() -> None:
    release = asyncio.Event()
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 20:
            release.set()
        await release.wait()
        return ""

    # A client that waits for answers before it asks again would hang here.
    async with asyncio.timeout(10.0):
        found = await open_loop(ask, rate_hz=2000.0, seconds=0.01)
    assert len(found) == 20
    # The first one waited for all the others to be sent, and its latency says so.
    assert found[0].took_s >= found[-1].due_s


async def test_more_in_flight_than_allowed_fail_without_being_sent() -> None:
    release, full = asyncio.Event(), asyncio.Event()
    asked = running = most = 0

    async def ask() -> str:
        nonlocal asked, running, most
        asked += 1
        running += 1
        if running == 3:
            full.set()
        most = max(most, running)
        await release.wait()
        running -= 1
        return ""

    async def later() -> None:
        await full.wait()
        await asyncio.sleep(0.05)
        release.set()

    found, _ = await asyncio.gather(
        open_loop(ask, rate_hz=5000.0, seconds=0.01, in_flight=3), later()
    )
    assert most == 3
    assert len(found) == 50
    refused = [r for r in found if r.error]
    assert len(refused) == 50 - asked
    assert {r.error for r in refused} == {"not sent: 3 in flight"}


def test_a_summary_counts_failures_and_takes_latency_from_answers_only() -> None:
    requests = [Request(0.1 * n, 0.001, 0.001 * n) for n in range(1, 101)]
    requests += [Request(11.0, 0.5, 30.0, "503 x"), Request(12.0, 0.001, 30.0, "503 x")]
    found = Summary.of(requests)
    assert (found.sent, found.failed, found.errors) == (102, 2, {"503 x": 2})
    assert found.p50_ms == pytest.approx(50.0)
    assert found.p99_ms == pytest.approx(99.0)
    assert found.max_ms == pytest.approx(100.0)
    assert found.client_late_p99_ms == pytest.approx(1.0)


def test_a_load_that_nobody_answered_has_no_summary() -> None:
    with pytest.raises(ValueError, match="quantile"):
        Summary.of([Request(0.0, 0.0, 1.0, "refused")])
