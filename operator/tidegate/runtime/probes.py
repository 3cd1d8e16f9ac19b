"""``/healthz``, ``/readyz`` and ``/metrics`` on one small server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from tidegate.runtime.telemetry import Metrics

log: Final = structlog.get_logger(__name__)

TICK_S: Final = 1.0

Check = Callable[[], str]
"""Says what is wrong; empty: nothing."""


class Probes:
    """The server.

    Args:
        port: where; 0: any free one.
        alive: what makes the process need a restart.
        ready: what makes it not fit to take over yet.
        metrics: what ``/metrics`` shows.
    """

    def __init__(self, port: int, alive: Check, ready: Check, metrics: Metrics) -> None:
        self._port = port
        self._alive = alive
        self._ready = ready
        self._metrics = metrics
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port in use, once started."""
        if self._runner is None or not self._runner.addresses:
            return self._port
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Begin to serve."""
        app = web.Application()
        app.router.add_get("/healthz", self._answer(self._alive))
        app.router.add_get("/readyz", self._answer(self._ready))
        app.router.add_get("/metrics", self._show_metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        """Serve no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    @staticmethod
    def _answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            problem = check()
            return web.Response(text=problem or "ok", status=503 if problem else 200)

        return answer

    async def _show_metrics(self, _: web.Request) -> web.Response:
        self._metrics.refresh()
        # A fleet has thousands of series: written out beside the event loop.
        body = await asyncio.to_thread(self._metrics.render)
        return web.Response(
            body=body,
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


async def tick(metrics: Metrics) -> None:
    """Measure how late the event loop is, for ever."""
    while True:
        due = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        metrics.loop_lag.set(max(0.0, time.monotonic() - due))
