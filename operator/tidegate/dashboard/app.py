"""The dashboard's server: its page, and what the API server lets the reader see, as streams."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import structlog
from aiohttp import web

from tidegate.dashboard import files
from tidegate.dashboard.board import Board, Boards, line
from tidegate.dashboard.fleet import Fleet, scope_of
from tidegate.dashboard.one import One
from tidegate.dashboard.sidecars import CONNECTIONS, Sidecars
from tidegate.dashboard.trail import Trails
from tidegate.dashboard.upstream import TOKEN, Upstream, UpstreamError, one_deployment

log: Final = structlog.get_logger(__name__)

PING_EVERY_S: Final = 4.0
"""A stream that is silent for longer is broken; the page says so after three of these."""
WRITE_TIMEOUT_S: Final = 20.0
"""A reader that takes nothing for so long is gone."""
GAP_S: Final = 0.25
"""Between two writes to the same reader: what comes in between goes out together."""
STREAMS_OF_ONE_READER: Final = 60
MAX_NAMESPACES: Final = 100
NAME: Final = "[a-z0-9-]{1,63}"

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""On every answer."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dashboard:
    """The server's parts.

    Args:
        upstream: the API server.
        sidecars: read models' counters; None: nobody does.
        namespaces: looked into for readers who may not list all.
        max_streams: open streams, over all readers.
        secure: it answers HTTPS.
    """

    def __init__(
        self,
        upstream: Upstream,
        sidecars: Sidecars | None = None,
        *,
        namespaces: tuple[str, ...] = (),
        max_streams: int = 500,
        secure: bool = False,
    ) -> None:
        self._upstream = upstream
        self._sidecars = sidecars
        self._namespaces = namespaces
        self._max_streams = max_streams
        self._secure = secure
        self._files = files.load()
        self._trails = Trails()
        self.boards = Boards()
        self._streams: dict[bytes, int] = {}
        """By reader."""

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[self._as_json], client_max_size=1024)
        app.on_response_prepare.append(self._secure_headers)
        one = rf"/api/v1/namespaces/{{namespace:{NAME}}}/modeldeployments/{{name:{NAME}}}"
        app.add_routes(
            [
                web.get("/healthz", _healthz),
                web.get("/", self._page),
                web.get("/static/{path:.+}", self._static),
                web.get("/api/v1/me", self._me),
                web.get("/api/v1/fleet", self._fleet),
                web.get(one, self._one),
                web.get(f"{one}/stream", self._stream_of_one),
            ]
        )
        return app

    # Nothing in them belongs to anybody.

    async def _page(self, request: web.Request) -> web.Response:
        return self._file(request, files.INDEX)

    async def _static(self, request: web.Request) -> web.Response:
        return self._file(request, request.match_info["path"])

    def _file(self, request: web.Request, path: str) -> web.Response:
        found = self._files.get(path)
        if found is None:
            raise web.HTTPNotFound(text="there is no such file")
        headers = {"ETag": found.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == found.tag:
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = found.type
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=found.packed, headers=headers)
        return web.Response(body=found.content, headers=headers)

    # With a token only.

    async def _me(self, request: web.Request) -> web.Response:
        return _json({"user": await self._upstream.user(_token(request))})

    async def _fleet(self, request: web.Request) -> web.StreamResponse:
        token = _token(request)
        asked = sorted(set(request.query.getall("namespace", [])))
        if len(asked) > MAX_NAMESPACES:
            raise web.HTTPBadRequest(text=f"at most {MAX_NAMESPACES} namespaces at a time")
        user = await self._upstream.user(token)
        scope = await scope_of(self._upstream, token, user, asked, self._namespaces)
        first = {
            "type": "scope",
            "user": user,
            "everywhere": scope.everywhere,
            "namespaces": scope.namespaces,
            "refused": scope.refused,
        }
        return await self._stream(
            request,
            ("fleet", _digest(token), scope.feeds),
            lambda: Fleet(self._upstream, token, scope.feeds),
            line(first),
        )

    async def _one(self, request: web.Request) -> web.Response:
        token = _token(request)
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        key = ("one", _digest(token), namespace, name)
        await self._require(token, namespace, name)
        with self._slot(token):
            async with (
                asyncio.timeout(WRITE_TIMEOUT_S),
                self.boards.joined(key, lambda: self._board(token, namespace, name)) as mailbox,
            ):
                said = (await mailbox.take())[-1]
        return web.Response(
            body=said, content_type="application/json", headers={"Cache-Control": "no-store"}
        )

    async def _stream_of_one(self, request: web.Request) -> web.StreamResponse:
        token = _token(request)
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        await self._require(token, namespace, name)
        return await self._stream(
            request,
            ("one", _digest(token), namespace, name),
            lambda: self._board(token, namespace, name),
        )

    def _board(self, token: str, namespace: str, name: str) -> Board:
        return One(self._upstream, token, namespace, name, self._sidecars, self._trails)

    async def _require(self, token: str, namespace: str, name: str) -> None:
        """Ask the API server anew, also where others look at the same thing already."""
        found, _ = await self._upstream.list(token, one_deployment(namespace, name))
        if not found:
            raise web.HTTPNotFound(text=f"there is no ModelDeployment {name} in {namespace}")

    async def _stream(
        self, request: web.Request, key: Hashable, make: Callable[[], Board], first: bytes = b""
    ) -> web.StreamResponse:
        with self._slot(_token(request)):
            response = web.StreamResponse(
                headers={
                    "Content-Type": "application/x-ndjson; charset=utf-8",
                    "Cache-Control": "no-store",
                    # A proxy that collects a stream's lines makes old news of them.
                    "X-Accel-Buffering": "no",
                }
            )
            await response.prepare(request)
            try:
                if first:
                    await response.write(first)
                async with self.boards.joined(key, make) as mailbox:
                    while not mailbox.ended or len(mailbox):
                        try:
                            async with asyncio.timeout(PING_EVERY_S):
                                lines = await mailbox.take()
                        except TimeoutError:
                            lines = [line({"type": "ping"})]
                        async with asyncio.timeout(WRITE_TIMEOUT_S):
                            await response.write(b"".join(lines))
                        await asyncio.sleep(GAP_S)
            except (ConnectionError, TimeoutError):
                # It left, or takes nothing: either way nobody reads this any more.
                if request.transport is not None:
                    request.transport.abort()
            return response

    def _slot(self, token: str) -> "_Slot":
        return _Slot(self._streams, _digest(token), self._max_streams)

    # Around every answer.

    async def _secure_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)
        response.headers.pop("Server", None)
        if self._secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"

    @web.middleware
    async def _as_json(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors as JSON, with the API server's own words."""
        try:
            return await handler(request)
        except UpstreamError as error:
            status = error.status if error.status in (401, 403, 404, 429) else 502
            return _error(status, str(error))
        except web.HTTPException as error:
            return _error(error.status, error.text or error.reason)
        except TimeoutError:
            return _error(504, "no answer in time")
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            log.error("a request failed", path=request.path, exc_info=error)
            return _error(500, "the dashboard failed; see its log")


class _Slot:
    """Room for one more stream.

    Raises:
        web.HTTPException: there is none.
    """

    def __init__(self, streams: dict[bytes, int], reader: bytes, most: int) -> None:
        self._streams = streams
        self._reader = reader
        self._most = most

    def __enter__(self) -> None:
        mine = self._streams.get(self._reader, 0)
        if mine >= STREAMS_OF_ONE_READER or sum(self._streams.values()) >= self._most:
            raise web.HTTPTooManyRequests(
                text="too many open views; close some tabs, or wait a little"
            )
        self._streams[self._reader] = mine + 1

    def __exit__(self, *_: object) -> None:
        self._streams[self._reader] -= 1
        if not self._streams[self._reader]:
            del self._streams[self._reader]


@asynccontextmanager
async def served(
    api_server: str,
    ssl: Any,
    *,
    namespaces: tuple[str, ...] = (),
    max_streams: int = 500,
    secure: bool = False,
    measure: bool = True,
) -> AsyncIterator[Dashboard]:
    """A dashboard with its connections.

    Args:
        api_server: its address.
        ssl: how its certificate is trusted (`ssl.SSLContext`, or True for the system's way).
        namespaces: see `Dashboard`.
        max_streams: see `Dashboard`.
        secure: see `Dashboard`.
        measure: whether sidecars are read.
    """
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=ssl, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=["Accept-Encoding"],
        ) as pods,
    ):
        yield Dashboard(
            Upstream(api_server, session),
            Sidecars(pods) if measure else None,
            namespaces=namespaces,
            max_streams=max_streams,
            secure=secure,
        )


def _token(request: web.Request) -> str:
    """The bearer token.

    Raises:
        UpstreamError: there is none (401).
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not TOKEN.fullmatch(token):
        raise UpstreamError("sign in: send a bearer token of this cluster", 401)
    return token


def _digest(token: str) -> bytes:
    """Tells tokens apart without being one."""
    return hashlib.sha256(token.encode()).digest()


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _json(body: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})


def _error(status: int, message: str) -> web.Response:
    response = _json({"status": status, "message": message}, status)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
