"""What the operator's reader makes of a real Envoy's page: exact, whatever was sent."""

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
import tritonclient.grpc

from e2e.native.processes import Pod, pod
from tests.integration.sidecar.conftest import MODELS, TARGET_MS
from tests.integration.sidecar.wire import ERROR, OK, call, grpc_status, knob, knob_inputs
from tidegate.actions import Measure
from tidegate.analysis.block import Tally
from tidegate.analysis.judgement import Objective, Test
from tidegate.measurement import WARM_UP_REQUESTS, Ledger, bounds_ms
from tidegate.resources.sidecar import STATS_FLUSH_MS, TrafficClass
from tidegate.runtime.cache import Key
from tidegate.runtime.measuring import Measurer, Sidecars
from tidegate.runtime.pods import PodAt, ReadError
from tidegate.runtime.queue import KeyedQueue
from tidegate.sidecar_page import Counts, Reading

pytestmark = pytest.mark.integration

INFER = "/v2/models/knob/infer"
NOTHING = Counts()
BOUNDS_MS = bounds_ms(TARGET_MS)


class Reader:
    """Reads one native pod as the operator reads a cluster's, into a ledger."""

    def __init__(self, running: Pod) -> None:
        self.sidecars = Sidecars()
        self.at = PodAt("uid", "pod", "canary", f"127.0.0.1:{running.ports.internal}")

    async def read(self) -> Reading:
        return await self.sidecars.read(self.at, time.time)

    async def counts(self, traffic: TrafficClass) -> Counts:
        return (await self.read()).classes.get(traffic, NOTHING)

    async def settled(self, done: Callable[[Reading], bool]) -> Reading:
        """The first reading of which `done` is true; after a while, any."""
        deadline = time.monotonic() + 30
        while True:
            reading = await self.read()
            if done(reading) or time.monotonic() > deadline:
                return reading
            await asyncio.sleep(0.05)

    async def quiet(self) -> Reading:
        """A reading once nothing moves any more: the histogram is a flush behind the rest."""
        seen = await self.read()
        while True:
            await asyncio.sleep(3 * STATS_FLUSH_MS / 1000)
            now = await self.read()
            if now.classes == seen.classes:
                return now
            seen = now


@pytest.fixture
async def reader(running: Pod) -> AsyncIterator[Reader]:
    made = Reader(running)
    yield made
    await made.sidecars.close()


def of(reading: Reading, traffic: TrafficClass = TrafficClass.CLIENT) -> Counts:
    return reading.classes.get(traffic, NOTHING)


def added(now: Counts, before: Counts) -> tuple[int, int, int, int, int]:
    """Started, succeeded, client errors, failed, timed."""
    return (
        now.started - before.started,
        now.succeeded - before.succeeded,
        now.client_errors - before.client_errors,
        now.failed - before.failed,
        now.timed - before.timed,
    )


async def send(
    running: Pod, outcome: int = OK, times: int = 1, *, door: str = "", **options: object
) -> None:
    url = f"{door or running.serving}{INFER}"
    for _ in range(times):
        await asyncio.to_thread(functools.partial(call, url, knob(outcome), **options))  # type: ignore[arg-type]


async def test_a_stream_is_seen_and_its_requests_are_no_evidence(
    running: Pod, reader: Reader
) -> None:
    before = await reader.quiet()
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.ports.serving}") as client:
        answers: list[object] = []
        client.start_stream(lambda result, error: answers.append(error or result))
        for _ in range(3):
            client.async_stream_infer("knob", knob_inputs())
        client.stop_stream()
    after = await reader.quiet()
    assert len(answers) == 3
    streaming = TrafficClass.STREAMING
    assert of(after, streaming).started - of(before, streaming).started == 1
    assert added(of(after), of(before)) == (0, 0, 0, 0, 0)


async def test_http_by_outcome(running: Pod, reader: Reader) -> None:
    before = of(await reader.quiet())
    await send(running, OK, 7)
    await send(running, ERROR, 3)  # Triton itself counts these as successes
    unknown = f"{running.serving}/v2/models/nobody/infer"
    blamed = [(await asyncio.to_thread(call, unknown, knob())).status for _ in range(4)]
    assert {status // 100 for status in blamed} == {4}
    reading = await reader.settled(lambda r: of(r).timed - before.timed == 14)
    assert added(of(reading), before) == (14, 7, 4, 3, 14)
    assert of(reading).in_flight == 0
    assert TARGET_MS in reading.edges_ms


async def test_grpc_by_outcome(running: Pod, reader: Reader) -> None:
    before = of(await reader.quiet())
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.ports.serving}") as client:
        sent = [
            await asyncio.to_thread(grpc_status, ask)
            for ask, times in [
                (lambda: client.infer("knob", knob_inputs(OK)), 6),
                (lambda: client.infer("knob", knob_inputs(ERROR)), 3),
                (lambda: client.infer("nobody", knob_inputs(OK)), 2),
                (lambda: client.infer("knob", knob_inputs(OK)[:1]), 4),
            ]
            for _ in range(times)
        ]
    assert sent == ["OK"] * 6 + ["INTERNAL"] * 3 + ["NOT_FOUND"] * 2 + ["INVALID_ARGUMENT"] * 4
    reading = await reader.settled(lambda r: of(r).timed - before.timed == 15)
    assert added(of(reading), before) == (15, 6, 6, 3, 15)


async def test_mirrored_copies_are_counted_apart(running: Pod, reader: Reader) -> None:
    before = await reader.quiet()
    mirrored = of(before, TrafficClass.MIRRORED)
    await send(running, OK, 5, door=running.mirror)
    await send(running, ERROR, 2, door=running.mirror)
    address = f"127.0.0.1:{running.ports.mirror}"
    with tritonclient.grpc.InferenceServerClient(address) as client:
        ask = functools.partial(client.infer, "knob", knob_inputs(ERROR))
        assert await asyncio.to_thread(grpc_status, ask) == "INTERNAL"
    reading = await reader.settled(
        lambda r: of(r, TrafficClass.MIRRORED).timed - mirrored.timed == 8
    )
    assert added(of(reading, TrafficClass.MIRRORED), mirrored) == (8, 5, 0, 3, 8)
    assert of(reading) == of(before)


async def test_slow_answers_and_requests_that_wait(running: Pod, reader: Reader) -> None:
    """An answer after the target is slow; so is none, and only once."""
    book = Ledger("stable", "canary", TARGET_MS, BOUNDS_MS)

    async def look() -> Tally:
        return book.observe([await reader.read()], at_s=time.time()).canary

    await send(running, OK, WARM_UP_REQUESTS)
    await reader.quiet()
    await look()
    await look()
    for seconds, times in ((0.0, 3), (0.3, 2)):
        for _ in range(times):
            body = knob(OK, seconds)
            await asyncio.to_thread(call, f"{running.serving}{INFER}", body)
    await reader.quiet()
    tally = await look()
    assert (tally.requests, tally.timed) == (5, 5)
    assert 2 <= tally.slow <= 5  # the machine may be slower than asked
    slow = tally.slow
    waiting = asyncio.create_task(
        asyncio.to_thread(call, f"{running.serving}{INFER}", knob(OK, 3.0))
    )
    await reader.settled(lambda r: of(r).in_flight == 1)
    overdue = Tally()
    while not waiting.done() and not overdue.slow:
        await asyncio.sleep(0.1)
        overdue = await look()
    assert (overdue.requests, overdue.timed, overdue.slow) == (0, 1, 1)
    await waiting
    seen = []
    for _ in range(8):
        await asyncio.sleep(STATS_FLUSH_MS / 1000)
        seen.append(await look())
    assert sum(t.requests for t in seen) == 1
    assert sum(t.slow for t in seen) == 0
    assert slow >= 2


async def test_a_client_that_leaves_gave_up(running: Pod, reader: Reader) -> None:
    book = Ledger("stable", "canary", TARGET_MS, BOUNDS_MS)
    await reader.quiet()
    book.observe([await reader.read()], at_s=time.time())
    with socket.create_connection(("127.0.0.1", running.ports.serving)) as connection:
        body = knob(OK, 3.0)
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await reader.settled(lambda r: of(r).in_flight == 1)
    await reader.settled(lambda r: of(r).in_flight == 0)
    seen = [book.observe([await reader.read()], at_s=time.time()).canary for _ in range(3)]
    assert [t.given_up for t in seen] == [0, 1, 0]
    assert [t.requests for t in seen] == [0, 0, 0]


async def test_overload_and_a_dead_triton_are_told_apart() -> None:
    with pod(MODELS, max_pending=1) as limited, contextlib.ExitStack() as stack:
        reader = Reader(limited)
        body = knob(OK, 2.0)
        connection = stack.enter_context(
            socket.create_connection(("127.0.0.1", limited.ports.serving))
        )
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        client = stack.enter_context(
            tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{limited.ports.serving}")
        )
        ask = functools.partial(client.infer, "knob", knob_inputs(OK, 2.0))
        waiting = asyncio.create_task(asyncio.to_thread(grpc_status, ask))
        await reader.settled(lambda r: of(r).in_flight == 2)
        await send(limited, OK, 3)
        assert await asyncio.to_thread(grpc_status, ask) == "RESOURCE_EXHAUSTED"
        reading = await reader.read()
        assert added(of(reading), NOTHING)[:4] == (6, 0, 0, 4)
        assert of(reading).shed == 4
        assert await waiting == "OK"
        reading = await reader.settled(lambda r: of(r).in_flight == 0)
        assert added(of(reading), NOTHING)[:4] == (6, 2, 0, 4)
        limited.triton.popen.kill()
        limited.triton.popen.wait()
        await send(limited, OK, 2)
        assert await asyncio.to_thread(grpc_status, ask) == "UNAVAILABLE"
        reading = await reader.settled(lambda r: of(r).failed == 7)
        assert added(of(reading), NOTHING)[:4] == (9, 2, 0, 7)
        assert (of(reading).in_flight, of(reading).shed) == (0, 4)
        limited.envoy.stop()
        with pytest.raises(ReadError):
            await reader.read()
        await reader.sidecars.close()


async def test_a_bad_canary_is_found_by_the_measurer(running: Pod) -> None:
    """From the sidecar's counters to the verdict, and the reconciler is woken."""

    class Here(Sidecars):
        async def read(self, pod: PodAt, at_s: Callable[[], float]) -> Reading:
            here = f"127.0.0.1:{running.ports.internal}"
            return await super().read(pod._replace(address=here), at_s)

    key = Key("models", "knob")
    queue: KeyedQueue[Key] = KeyedQueue()
    measurer = Measurer(queue, Here())
    objective = Objective(0.01, TARGET_MS, 0.05, 0.05, 0.95)
    # Pods that are older than the rollout begin with a baseline.
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    canary = {
        "metadata": {"uid": "c", "name": "c", "labels": {"tidegate.dev/revision": "canary"}},
        "status": {"podIP": "127.0.0.1"},
    }
    measurer.want(key, Measure("stable", "canary", started, started, objective, 0.25), [canary])
    async with asyncio.timeout(60):
        while measurer.measured(key) is None:
            queue.succeeded(await queue.get())
        await send(running, ERROR, 6)
        while (measured := measurer.measured(key)) is None or measured.judgement.bad is None:
            queue.succeeded(await queue.get())
    result = measured.judgement.bad
    assert result.test is Test.ERRORS
    assert (result.canary_count, result.canary_requests) == (6, 6)
    await measurer.stop()
