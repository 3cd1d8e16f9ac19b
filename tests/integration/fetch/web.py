"""A local web server with ranges and with everything that goes wrong on a line."""

import asyncio
import hashlib
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

from aiohttp import web


@dataclass
class Faults:
    """How the server misbehaves.

    Attributes:
        cut_after: connections end after so many bytes of a body, this many times.
        cuts: see above.
        statuses: answers given first, in order.
        ranges: whether Range is understood.
        pause_s: before each 64 KiB of a body.
        etag: overrides the content's own.
        redirect: where every request is sent.
        lie: bytes that Content-Length is too long by.
    """

    cut_after: int = 0
    cuts: int = 0
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    pause_s: float = 0.0
    etag: str | None = None
    redirect: str | None = None
    chunked: bool = False


@dataclass
class Request:
    path: str
    range: str | None
    authorization: str | None
    host: str
    sent: int = 0


class WebServer:
    """Serves ``files`` on a free port of loopback, in a thread of its own."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.user: str | None = None
        self.on_request: Callable[[Request], None] | None = None
        self.routes: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> "WebServer":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        seen = Request(
            request.path,
            request.headers.get("Range"),
            request.headers.get("Authorization"),
            request.headers.get("Host", ""),
        )
        self.requests.append(seen)
        if self.on_request:
            self.on_request(seen)
        faults = self.faults
        if faults.statuses:
            return web.Response(status=faults.statuses.pop(0), headers={"Retry-After": "0"})
        if faults.redirect is not None:
            return web.Response(status=302, headers={"Location": faults.redirect})
        if self.user is not None and seen.authorization != self.user:
            return web.Response(status=401)
        if route := self.routes.get(request.path):
            return await route(request)
        if request.path not in self.files:
            return web.Response(status=404)
        return await self._send(request, seen, self.files[request.path])

    async def _send(self, request: web.Request, seen: Request, body: bytes) -> web.StreamResponse:
        faults = self.faults
        etag = faults.etag or f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        start, end, status = 0, len(body), 200
        headers = {"ETag": etag}
        if faults.ranges and seen.range:
            first, _, last = seen.range.removeprefix("bytes=").partition("-")
            start = int(first)
            if start >= len(body):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
            if request.headers.get("If-Range", etag) == etag:
                end = min(len(body), int(last) + 1) if last else len(body)
                status = 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
            else:
                start = 0
        response = web.StreamResponse(status=status, headers=headers)
        if faults.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = end - start
        await response.prepare(request)
        at = start
        while at < end:
            if faults.pause_s:
                await asyncio.sleep(faults.pause_s)
            piece = body[at : min(at + (64 << 10), end)]
            if faults.cuts > 0 and seen.sent + len(piece) > faults.cut_after:
                faults.cuts -= 1
                assert request.transport is not None
                request.transport.close()
                return response
            try:
                await response.write(piece)
            except ConnectionResetError:
                return response
            at += len(piece)
            seen.sent += len(piece)
        await response.write_eof()
        return response
