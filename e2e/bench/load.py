"""An open-loop client: requests leave on time whatever becomes of those before them.

Latency counts from when a request was *due*, not from when it could leave: a server that stalls
for a second makes fifty requests late at 50 a second, and all fifty are seen. Exactly
``rate x seconds`` requests are recorded, each once; one that cannot leave since too many are in
flight already is recorded as failed. The whole ends at the latest one request's time limit after
the last was due.
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

import aiohttp
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from e2e.bench.report import quantile

TIMEOUT_S: Final = 30.0
IN_FLIGHT: Final = 400
CONNECTIONS: Final = 4

Ask = Callable[[], Awaitable[str]]
"""Sends one request; returns why it failed, empty if it did not. Never raises, always ends."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request and what became of it. Times are seconds since the load began.

    Attributes:
        due_s: when it was to leave.
        late_s: how much later it left (the client's own doing).
        took_s: from when it was due until its end.
        error: why it failed; empty if it did not.
    """

    due_s: float
    late_s: float
    took_s: float
    error: str = ""


async def open_loop(
    ask: Ask, *, rate_hz: float, seconds: float, in_flight: int = IN_FLIGHT
) -> list[Request]:
    """Send ``rate_hz x seconds`` requests, evenly spaced, and record every one.

    Args:
        ask: sends one.
        rate_hz: requests a second.
        seconds: how long.
        in_flight: how many may be unanswered at a time.

    Returns:
        The requests in the order in which they were due.
    """
    count = round(rate_hz * seconds)
    found: list[Request | None] = [None] * count
    running: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def one(number: int, due: float) -> None:
        left = time.perf_counter() - began
        error = await ask()
        found[number] = Request(due, left - due, time.perf_counter() - began - due, error)

    for number in range(count):
        due = number / rate_hz
        pause = due - (time.perf_counter() - began)
        # Also without a pause the others must get their turn.
        await asyncio.sleep(max(0.0, pause))
        if len(running) >= in_flight:
            found[number] = Request(due, 0.0, 0.0, f"not sent: {len(running)} in flight")
            continue
        task = asyncio.create_task(one(number, due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return [request for request in found if request is not None]


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


class HttpTarget:
    """A model over HTTP/1.1, on a few connections that are kept open.

    Attributes:
        connections: how many were opened so far.
    """

    def __init__(self, address: str, model: str, content: bytes, label: str) -> None:
        self._url = f"http://{address}/v2/models/{model}/infer"
        tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1]}
        self._body = json.dumps({"inputs": [tensor | {"data": [content.decode()]}]}).encode()
        self._label = label
        self.connections = 0

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._connected)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            trace_configs=[trace],
            headers={"Content-Type": "application/json"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _connected(self, *_: Any) -> None:
        self.connections += 1

    async def ask(self) -> str:
        """One request; aiohttp does not send a POST twice."""
        try:
            async with self._session.post(self._url, data=self._body) as reply:
                text = await reply.text()
                if reply.status != 200:
                    return f"{reply.status} {text[:200]}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return repr(error)
        outputs = {o["name"]: o["data"][0] for o in json.loads(text)["outputs"]}
        said = outputs["label"]
        return "" if said == self._label else f"label {said!r} instead of {self._label!r}"


class GrpcTarget:
    """A model over gRPC, on a few channels; what a service config would retry is not retried."""

    def __init__(self, address: str, model: str, content: bytes, label: str) -> None:
        self._address = address
        self._model = model
        self._label = label
        self._tensor = triton.InferInput("content", [1, 1], "BYTES")
        self._tensor.set_data_from_numpy(np.array([[content]], dtype=object))

    async def __aenter__(self) -> Self:
        options = [
            # Else all channels of the process share one connection, and thus one pod.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        self._channels = [
            triton_aio.InferenceServerClient(self._address, channel_args=options)
            for _ in range(CONNECTIONS)
        ]
        self._next = itertools.cycle(self._channels)
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def ask(self) -> str:
        """One request."""
        try:
            reply = await next(self._next).infer(
                self._model, [self._tensor], client_timeout=TIMEOUT_S
            )
        except InferenceServerException as error:
            return repr(error)[:300]
        said = reply.as_numpy("label").item().decode()
        return "" if said == self._label else f"label {said!r} instead of {self._label!r}"
