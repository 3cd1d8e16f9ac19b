"""A proxy between an operator and the API server that can be told to misbehave."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import aiohttp
import kopf
from aiohttp import web

from tidegate.runtime.login import Connection


class Fault(Enum):
    """What to do to a request."""

    ANSWER_500 = auto()
    ANSWER_429 = auto()
    LOSE_ANSWER = auto()
    """Pass it on, and cut the connection when the API server has answered."""


@dataclass
class Watch:
    """A watch in progress."""

    plural: str
    response: web.StreamResponse
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FaultProxy:
    """Passes on, except what the tests say.

    Attributes:
        fault: asked for each request that is no watch (method, path); None: pass on.
        keep: asked for each watch event (plural, event); false: it is lost.
        refuse_watches: new watches get 500.
        requests: all that came, (method, path).
    """

    upstream: Connection
    fault: Callable[[str, str], Fault | None] = lambda method, path: None
    keep: Callable[[str, dict[str, Any]], bool] = lambda plural, event: True
    refuse_watches: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    url: str = ""

    @property
    def connection(self) -> Connection:
        """How an operator reaches the API server through the proxy."""
        return Connection(kopf.ConnectionInfo(server=self.url))

    async def say(self, code: int, reason: str) -> int:
        """Send an ERROR to each watch and end it. Returns how many there were."""
        status = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason}
        status |= {"status": "Failure", "message": f"{reason} said the proxy"}
        line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
        watches, self.watches = self.watches, []
        for watch in watches:
            with contextlib.suppress(ConnectionError):
                await watch.response.write(line)
            watch.ended.set()
        return len(watches)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass on one request."""
        self.requests.append((request.method, request.path))
        if "watch" in request.query:
            return await self._watch(request)
        fault = self.fault(request.method, request.path)
        if fault is Fault.ANSWER_500:
            return web.json_response({"message": "the proxy's 500"}, status=500)
        if fault is Fault.ANSWER_429:
            return web.json_response(
                {"message": "the proxy's 429"}, status=429, headers={"Retry-After": "1"}
            )
        async with self._session.request(
            request.method,
            self.upstream.server + request.path_qs,
            data=await request.read() or None,
            headers=self._headers(request),
        ) as answer:
            body = await answer.read()
            if fault is Fault.LOSE_ANSWER and request.transport is not None:
                request.transport.abort()
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_watches:
            return web.json_response({"message": "no watches"}, status=500)
        plural = request.path.rpartition("/")[2]
        async with self._session.get(
            self.upstream.server + request.path_qs, headers=self._headers(request)
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            response.content_type = "application/json"
            await response.prepare(request)
            watch = Watch(plural, response)
            self.watches.append(watch)
            lines = asyncio.create_task(self._lines(answer, watch))
            ended = asyncio.create_task(watch.ended.wait())
            try:
                await asyncio.wait([lines, ended], return_when=asyncio.FIRST_COMPLETED)
            finally:
                lines.cancel()
                ended.cancel()
                await asyncio.wait([lines, ended])
                if watch in self.watches:
                    self.watches.remove(watch)
            return response

    async def _lines(self, answer: aiohttp.ClientResponse, watch: Watch) -> None:
        buffer = b""
        async for chunk in answer.content.iter_any():
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                if line and self.keep(watch.plural, json.loads(line)):
                    await watch.response.write(line + b"\n")

    @staticmethod
    def _headers(request: web.Request) -> dict[str, str]:
        kept = ("Accept", "Content-Type", "User-Agent")
        return {k: request.headers[k] for k in kept if k in request.headers}

    _session: aiohttp.ClientSession = field(init=False)


@contextlib.asynccontextmanager
async def fault_proxy(upstream: Connection) -> AsyncIterator[FaultProxy]:
    """A running proxy."""
    proxy = FaultProxy(upstream)
    proxy._session = upstream.session()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        for watch in proxy.watches:
            watch.ended.set()
        await runner.cleanup()
        await proxy._session.close()
