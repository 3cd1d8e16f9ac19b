"""Events reach a real server, are tried again, and never hold anything up."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.unit.runtime.server import Sink
from tidegate.runtime.cloudevents import CONTENT_TYPE, TRIES, WAITING, EventSink
from tidegate.runtime.telemetry import Metrics

RECORD = {
    "id": "abc",
    "modeldeployment": "demo/m",
    "decision": "RolledBack",
    "at": "2026-01-01T00:00:00.000Z",
    "revision": "r",
    "inputs": {"requests": 5},
}


@dataclass
class Server(Sink):
    """Takes events."""

    path: str = "/events"
    got: list[Any] = field(default_factory=list)

    async def take(self, body: bytes) -> web.Response:
        assert self.headers["Content-Type"] == CONTENT_TYPE
        self.got.append(json.loads(body))
        return web.Response(status=202)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    async with found.listening():
        found.url += found.path
        yield found


def count(metrics: Metrics, result: str) -> float:
    name = "tidegate_cloudevents_total"
    return metrics.registry.get_sample_value(name, {"result": result}) or 0.0


async def send(url: str, records: int = 1) -> Metrics:
    """Send so many, and wait until each was sent or given up."""
    metrics = Metrics()
    headers = {"Authorization": "Bearer a", "content-type": "text/plain"}
    sink = EventSink(url, metrics, headers, timeout_s=2.0, pause_s=0.001)
    task = asyncio.create_task(sink.run())
    for _ in range(records):
        sink.put(RECORD)
    for _ in range(10_000):
        if count(metrics, "sent") + count(metrics, "failed") == records:
            break
        await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return metrics


async def test_a_decision_is_a_cloud_event(server: Server) -> None:
    metrics = await send(server.url)
    assert count(metrics, "sent") == 1
    assert server.headers["Authorization"] == "Bearer a"
    assert server.got == [
        {
            "specversion": "1.0",
            "id": "abc",
            "source": "/tidegate.dev/modeldeployments/demo/m",
            "type": "dev.tidegate.RolledBack",
            "subject": "r",
            "time": "2026-01-01T00:00:00.000Z",
            "datacontenttype": "application/json",
            "data": RECORD,
        }
    ]


async def test_a_server_in_trouble_is_tried_again(server: Server) -> None:
    server.statuses = [503, 429]
    metrics = await send(server.url)
    assert (count(metrics, "sent"), len(server.got), server.asked) == (1, 1, 3)


@pytest.mark.parametrize(("status", "asked"), [(400, 1), (302, 1), (500, TRIES)])
async def test_what_is_refused_is_given_up(server: Server, status: int, asked: int) -> None:
    server.statuses = [status] * TRIES
    metrics = await send(server.url)
    assert (count(metrics, "failed"), server.asked) == (1, asked)


async def test_the_last_ones_are_waited_for(server: Server) -> None:
    server.statuses = [503]
    sink = EventSink(server.url, Metrics(), timeout_s=2.0, pause_s=0.001)
    sink.put(RECORD)
    sink.put(RECORD)
    task = asyncio.create_task(sink.run())
    await sink.drain()
    assert len(server.got) == 2
    task.cancel()


async def test_nobody_there() -> None:
    metrics = await send("http://127.0.0.1:9/", records=2)
    assert count(metrics, "failed") == 2


async def test_too_many_are_dropped_at_once() -> None:
    metrics = Metrics()
    sink = EventSink("http://127.0.0.1:9/", metrics)
    for _ in range(WAITING + 3):
        sink.put(RECORD)
    assert count(metrics, "dropped") == 3
