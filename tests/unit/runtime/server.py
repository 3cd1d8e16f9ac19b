"""Real HTTP servers in the place of what the operator talks to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(answer: Answer, *, cancels: bool = True) -> AsyncIterator[str]:
    """A server that answers every request so, until the block ends.

    Args:
        answer: to a request.
        cancels: whether an answer is given up when its client goes away.

    Yields:
        Its ``host:port``.
    """
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=cancels, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answers(status: int = 200, text: str | None = None, **more: Any) -> Answer:
    """The same answer each time; arguments as for `aiohttp.web.Response`."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, **more)

    return answer


async def hang(_: web.Request) -> web.Response:
    """An answer that never comes."""
    await asyncio.sleep(60)
    return web.Response()


@dataclass
class Sink:
    """Takes what is posted to `path`, or answers with these statuses first.

    Attributes:
        path: what it is posted to.
        statuses: of the next answers; what comes with them is not taken.
        headers: of what was taken last.
        asked: requests so far.
        url: where it listens.
    """

    path: str
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    url: str = ""

    async def take(self, body: bytes) -> web.Response:
        """What it does with a body, and says of it."""
        raise NotImplementedError

    async def answer(self, request: web.Request) -> web.Response:
        """To a request, as `serving` wants it."""
        assert (request.method, request.path) == ("POST", self.path)
        self.asked += 1
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        self.headers = dict(request.headers)
        return await self.take(await request.read())

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """It listens until the block ends."""
        async with serving(self.answer) as address:
            self.url = f"http://{address}"
            yield
