"""Asking a model on time, whatever comes back: every request is kept.

`open_loop` sends requests when they are due, whatever becomes of those before them. Latency counts
from when a request was *due*, not from when it could leave: a server that stalls for a second makes
fifty requests late at 50 a second, and all fifty are seen. Each request is recorded once; one that
cannot leave since too many are in flight already is recorded as failed.

`Load` does it in a process of its own, so that the caller's work does not make requests late. It
ends with its caller, and by itself after its time limit.
"""

import asyncio
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol, Self

import aiohttp
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from e2e.bench.report import quantile
from e2e.cluster import paths

TIMEOUT_S: Final = 30.0
IN_FLIGHT: Final = 400
CONNECTIONS: Final = 4
OUTPUT: Final = "label"
"""Output of which a load may know what it must say."""

Answer = dict[str, Any]
"""The first element of each output, by its name."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        status: the HTTP status, or gRPC's name of its own; empty: nothing came.
        error: why it failed; empty if it did not.
        answer: the outputs.
    """

    status: str = ""
    error: str = ""
    answer: Answer | None = None


Ask = Callable[[], Awaitable[Reply]]
"""Sends one request. Never raises, always ends."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request and what became of it. Times are seconds since the load began.

    Attributes:
        due_s: when it was to leave.
        late_s: how much later it left (the client's own doing).
        took_s: from when it was due until its end.
        error: why it failed; empty if it did not.
        client: which client of the load sent it.
        status: as in `Reply`.
        answer: as in `Reply`.
    """

    due_s: float
    late_s: float
    took_s: float
    error: str = ""
    client: str = ""
    status: str = ""
    answer: Answer | None = None

    @property
    def at_s(self) -> float:
        """When it left."""
        return self.due_s + self.late_s

    @property
    def end_s(self) -> float:
        """When its fate was known."""
        return self.due_s + self.took_s


Course = Sequence[tuple[float, float]]
"""Stretches of a load: so many seconds, at so many requests a second at their end.

The rate goes from what it was to that in a straight line; the first stretch is even.
"""


def due_times(course: Course) -> Iterator[float]:
    """When each request of a course is to leave, in seconds since it began."""
    began, before, passed = 0.0, course[0][1], 0.0
    number = 0
    for seconds, rate_hz in course:
        # The n-th request is due when the area under the rate reaches n.
        slope = (rate_hz - before) / seconds
        whole = seconds * (before + rate_hz) / 2
        while number < passed + whole:
            area = number - passed
            if slope:
                at = (math.sqrt(max(0.0, before * before + 2 * slope * area)) - before) / slope
            else:
                at = area / rate_hz
            yield began + at
            number += 1
        began, before, passed = began + seconds, rate_hz, passed + whole


async def open_loop(
    ask: Ask,
    *,
    rate_hz: float = 0.0,
    seconds: float = 0.0,
    course: Course = (),
    in_flight: int = IN_FLIGHT,
    client: str = "",
    stop: asyncio.Event | None = None,
    record: Callable[[Request], None] | None = None,
) -> list[Request]:
    """Send a course's requests, each when it is due, and record every one.

    It ends at the latest one request's time limit after the last was due.

    Args:
        ask: sends one.
        rate_hz: requests a second.
        seconds: how long.
        course: instead of these two.
        in_flight: how many may be unanswered at a time.
        client: its name in the records.
        stop: no request leaves once it is set.
        record: told of each request when its fate is known.

    Returns:
        The requests in the order in which they were due.
    """
    found: list[Request] = []
    running: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    def keep(request: Request) -> None:
        found.append(request)
        if record is not None:
            record(request)

    async def one(due: float) -> None:
        left = time.perf_counter() - began
        reply = await ask()
        took = time.perf_counter() - began - due
        keep(Request(due, left - due, took, reply.error, client, reply.status, reply.answer))

    # A group: an `ask` that raises ends the load instead of a request that nobody misses.
    async with asyncio.TaskGroup() as group:
        for due in due_times(course or ((seconds, rate_hz),)):
            pause = due - (time.perf_counter() - began)
            # Also without a pause the others must get their turn.
            await asyncio.sleep(max(0.0, pause))
            if stop is not None and stop.is_set():
                break
            if len(running) >= in_flight:
                keep(Request(due, 0.0, 0.0, f"not sent: {len(running)} in flight", client))
                continue
            task = group.create_task(one(due))
            running.add(task)
            task.add_done_callback(running.discard)
    return sorted(found, key=lambda request: request.due_s)


@dataclass(frozen=True)
class Summary:
    """What a stretch of a load came to. Latencies in milliseconds, from when a request was due."""

    sent: int
    failed: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    client_late_p99_ms: float
    errors: dict[str, int]

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Self:
        """Sum up; latencies are of the answered requests.

        Raises:
            ValueError: not one was answered.
        """
        known = list(requests)
        took_ms = [r.took_s * 1000 for r in known if not r.error]
        errors = Counter(r.error for r in known if r.error)
        return cls(
            sent=len(known),
            failed=errors.total(),
            p50_ms=quantile(took_ms, 0.5),
            p99_ms=quantile(took_ms, 0.99),
            max_ms=quantile(took_ms, 1.0),
            client_late_p99_ms=quantile([r.late_s * 1000 for r in known], 0.99),
            errors=dict(errors.most_common(10)),
        )


def _judged(status: str, answer: Answer, expected: str) -> Reply:
    """The reply with that answer; it failed if it does not say what it must."""
    said = answer.get(OUTPUT)
    if expected and said != expected:
        return Reply(status, f"{OUTPUT} {said!r} instead of {expected!r}", answer)
    return Reply(status, "", answer)


class Target(Protocol):
    """Asks one model, between entering and leaving."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def ask(self) -> Reply:
        """Send one request."""
        ...


class HttpTarget:
    """A model over HTTP/1.1, on connections that are kept open.

    Args:
        address: ``host:port``.
        model: its name.
        content: what is sent.
        expected: what the output `OUTPUT` must say; empty: anything.
        host: the name to ask for at a gateway.
        connections: how many there may be; 0: as many as it takes.
        timeout_s: of one request.

    Attributes:
        connections: how many were opened so far.
    """

    def __init__(
        self,
        address: str,
        model: str,
        content: bytes,
        expected: str = "",
        *,
        host: str = "",
        connections: int = 0,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = f"http://{address}/v2/models/{model}/infer"
        tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1]}
        self._body = json.dumps({"inputs": [tensor | {"data": [content.decode()]}]}).encode()
        self._expected = expected
        self._headers = {"Content-Type": "application/json", **({"Host": host} if host else {})}
        self._most = connections
        self._timeout_s = timeout_s
        self.connections = 0

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._connected)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._most),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            trace_configs=[trace],
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _connected(self, *_: Any) -> None:
        self.connections += 1

    async def ask(self) -> Reply:
        """One request; aiohttp does not send a POST twice."""
        status = ""
        try:
            async with self._session.post(self._url, data=self._body) as reply:
                status = str(reply.status)
                text = await reply.text()
                if reply.status != 200:
                    return Reply(status, f"{status} {text[:200]}")
            answer = {o["name"]: o["data"][0] for o in json.loads(text)["outputs"]}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError) as error:
            return Reply(status, repr(error))
        return _judged(status, answer, self._expected)


class GrpcTarget:
    """A model over gRPC, on a few channels; what a service config would retry is not retried.

    Arguments as `HttpTarget`, but there are as many connections as it says; 0: `CONNECTIONS`.
    """

    def __init__(
        self,
        address: str,
        model: str,
        content: bytes,
        expected: str = "",
        *,
        host: str = "",
        connections: int = 0,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._address = address
        self._model = model
        self._expected = expected
        self._host = host
        self._connections = connections or CONNECTIONS
        self._timeout_s = timeout_s
        self._tensor = triton.InferInput("content", [1, 1], "BYTES")
        self._tensor.set_data_from_numpy(np.array([[content]], dtype=object))

    async def __aenter__(self) -> Self:
        options = [
            # Else all channels of the process share one connection, and thus one pod.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            *([("grpc.default_authority", self._host)] if self._host else []),
        ]
        self._channels = [
            triton_aio.InferenceServerClient(self._address, channel_args=options)
            for _ in range(self._connections)
        ]
        self._next = itertools.cycle(self._channels)
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def ask(self) -> Reply:
        """One request."""
        try:
            reply = await next(self._next).infer(
                self._model, [self._tensor], client_timeout=self._timeout_s
            )
        except InferenceServerException as error:
            status = str(error.status() or "").removeprefix("StatusCode.")
            return Reply(status, f"{status} {error.message()}"[:300])
        answer = {}
        for output in reply.get_response().outputs:
            value = reply.as_numpy(output.name).reshape(-1)[0]
            answer[output.name] = value.decode() if isinstance(value, bytes) else value.item()
        return _judged("OK", answer, self._expected)


@dataclass(frozen=True)
class Orders:
    """What the process of a load is to do; its one argument, as JSON.

    Attributes:
        http: ``host:port`` that speaks HTTP.
        grpc: ``host:port`` that speaks gRPC; None: HTTP only.
        model: its name.
        text: what is sent.
        http_clients: how many clients ask over HTTP, each with connections of its own.
        rate_hz: requests a second of each client.
        limit_s: the longest time it goes on.
        course: of each client, instead of these two.
        host: the name to ask for at a gateway.
        expected: what the output `OUTPUT` must say; empty: anything.
        connections: of each client, as its target says.
        timeout_s: of one request.
    """

    http: str
    grpc: str | None
    model: str
    text: str
    http_clients: int = 1
    rate_hz: float = 10.0
    limit_s: float = 300.0
    course: Course = ()
    host: str = ""
    expected: str = ""
    connections: int = 1
    timeout_s: float = TIMEOUT_S

    def clients(self) -> dict[str, Target]:
        """Each client by its name."""
        said = (self.model, self.text.encode(), self.expected)
        found: dict[str, Target] = {}
        for number in range(self.http_clients):
            found[f"HTTP {number}"] = HttpTarget(
                *(self.http, *said),
                host=self.host,
                connections=self.connections,
                timeout_s=self.timeout_s,
            )
        if self.grpc is not None:
            found["gRPC"] = GrpcTarget(
                *(self.grpc, *said),
                host=self.host,
                connections=self.connections,
                timeout_s=self.timeout_s,
            )
        return found


@dataclass
class Load:
    """A load in a process of its own, from entering the block until leaving it.

    Memory is bounded by rate and time limit: every request is kept.

    Attributes:
        orders: what is sent.
        requests: those whose fate is known, in that order.
        began: when it began, seconds since the epoch.
    """

    orders: Orders
    requests: list[Request] = field(default_factory=list)
    began: float = 0.0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "e2e.load", json.dumps(asdict(self.orders))],
            cwd=paths.REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first:
            raise RuntimeError(f"the load ended with {self._process.wait()} before it began")
        self.began = json.loads(first)
        self._reader = threading.Thread(target=self._read, name="load", daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.requests.append(Request(*json.loads(line)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait until the fate of all that were sent is known."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            try:
                status = self._process.wait(self.orders.timeout_s + 30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
            self._reader.join()
            self._process.stdout.close()
            if status != 0:
                raise RuntimeError(f"the load's process ended with {status}")

    @property
    def failures(self) -> list[Request]:
        """The requests that failed."""
        return [r for r in list(self.requests) if r.error]

    def await_more(self, count: int = 20) -> None:
        """Go on until every client sent so many more.

        Raises:
            AssertionError: they have come to their end.
        """
        names = self.orders.clients()
        before = Counter(r.client for r in list(self.requests))
        while True:
            now = Counter(r.client for r in list(self.requests))
            if all(now[name] - before[name] >= count for name in names):
                return
            assert self._process.poll() is None, f"the load ended by itself: {now}"
            time.sleep(0.02)

    def assert_no_failure(self, at_least: int = 50) -> None:
        """All were answered, and there were enough of them to say so."""
        failed = self.failures
        shown = "\n".join(f"{r.at_s:7.2f} s {r.client}: {r.error}" for r in failed[:10])
        assert not failed, f"{len(failed)} of {len(self.requests)} requests failed:\n{shown}"
        assert len(self.requests) >= at_least, f"only {len(self.requests)} requests were sent"


def answers(requests: Sequence[Request], output: str) -> list[Any]:
    """What an output said, in the order of sending; failed ones left out."""
    ordered = sorted(requests, key=lambda r: r.at_s)
    return [r.answer[output] for r in ordered if r.answer is not None and not r.error]


async def _serve(orders: Orders) -> None:
    """Carry the orders out; one line a request on stdout, until stdin ends."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def await_end() -> None:
        os.read(sys.stdin.fileno(), 1)  # until the caller ends or closes it
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=await_end, daemon=True).start()

    def record(r: Request) -> None:
        line = (r.due_s, r.late_s, r.took_s, r.error, r.client, r.status, r.answer)
        print(json.dumps(line), flush=True)

    async def run(name: str, target: Target) -> None:
        async with target:
            await open_loop(
                target.ask,
                rate_hz=orders.rate_hz,
                seconds=orders.limit_s,
                course=orders.course,
                client=name,
                stop=stop,
                record=record,
            )

    print(json.dumps(time.time()), flush=True)
    async with asyncio.TaskGroup() as group:
        for name, target in orders.clients().items():
            group.create_task(run(name, target))


if __name__ == "__main__":
    asyncio.run(_serve(Orders(**json.loads(sys.argv[1]))))
