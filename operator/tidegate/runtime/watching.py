"""Watches, by kopf: events only, nothing is written, nothing is remembered in objects.

Each kind has a kopf of its own, so that one that cannot be watched (a right was revoked, its watch
answers with an error) does not take the others with it: kopf ends on such an error, and is
started again here. kopf's own main loop is left out, since it cancels every task of the process
when it ends; its tasks are spawned, and stopped, one by one.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import kopf
import structlog

from tidegate.observed import Object
from tidegate.runtime.kinds import Kind
from tidegate.runtime.login import CONNECT_TIMEOUT_S, Connection, close
from tidegate.runtime.queue import Backoff
from tidegate.runtime.telemetry import Metrics

log: Final = structlog.get_logger(__name__)

RESTART: Final = Backoff(first_s=0.5, limit_s=30.0, jitter=0.25)
CALM_S: Final = 120.0
"""A watch that held for so long begins its back-off anew."""
STOP_TIMEOUT_S: Final = 10.0

Observe = Callable[[Kind, str | None, Object], object]


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no copy of an object, so that kopf computes no differences."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Keeps no progress of handlers: there are none that have any."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def kopf_settings(kind: Kind) -> kopf.OperatorSettings:
    """kopf, set up to do nothing but watch thousands of objects."""
    settings = kopf.OperatorSettings()
    # kopf arms a SIGKILL of the process when its tasks are cancelled, which a restart does.
    settings.process.ultimate_exiting_timeout = None
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 1.0
    # A revision's record is some 60 KiB: pages set the memory of a start.
    settings.watching.chunk_size = 10
    settings.watching.inactivity_timeout = 70.0
    settings.watching.server_timeout = 300  # the API server takes whole seconds only
    settings.watching.connect_timeout = CONNECT_TIMEOUT_S
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = CONNECT_TIMEOUT_S
    settings.networking.error_backoffs = (0.5, 1.0, 2.0)
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    if kind.selector:
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.selector
    return settings


def kopf_registry(
    kind: Kind, connection: Connection, observe: Observe, sessions: list[aiohttp.ClientSession]
) -> kopf.OperatorRegistry:
    """The two handlers: how to log in, and what to do with an event.

    Sessions that are opened are added to `sessions`: kopf closes them only if it ends by itself.
    """
    registry = kopf.OperatorRegistry()

    async def log_in(**_: Any) -> kopf.AiohttpSession:
        sessions.append(connection.session())
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=sessions[-1])

    async def on_event(event: Any, **_: Any) -> None:
        observe(kind, event["type"], event["object"])

    kopf.on.login(registry=registry, id="login")(log_in)
    kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id="observe")(on_event)
    return registry


class Watch:
    """Watches one kind for as long as it is wanted.

    Args:
        kind: what to watch.
        connection: where.
        namespaces: in which namespaces; (None,): in all.
        observe: takes each event.
        metrics: counts.
        spawned: called when kopf has started its tasks (it takes over the process's signals).
    """

    def __init__(
        self,
        kind: Kind,
        connection: Connection,
        namespaces: tuple[str | None, ...],
        observe: Observe,
        metrics: Metrics,
        spawned: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self._connection = connection
        self._namespaces = namespaces
        self._observe = observe
        self._metrics = metrics
        self._spawned = spawned
        self._renew = asyncio.Event()

    def renew(self) -> None:
        """Start again: it is alive, but does not bring what it should."""
        self._renew.set()

    async def run(self) -> None:
        """Watch; never ends but by cancellation."""
        failures = 0
        while True:
            began = time.monotonic()
            self._renew.clear()
            reason = await self._run_once()
            failures = 1 if time.monotonic() - began > CALM_S else failures + 1
            delay = RESTART.delay_s(failures, 0.5)
            self._metrics.watch_restarts.labels(self.kind.kind).inc()
            log.warning(
                "watch ended", kind=self.kind.kind, reason=reason, again_in_s=round(delay, 1)
            )
            await asyncio.sleep(delay)

    async def _run_once(self) -> str:
        """Run kopf until it ends or is to be renewed. Returns why."""
        namespaces = [n for n in self._namespaces if n is not None]
        sessions: list[aiohttp.ClientSession] = []
        tasks = await kopf.spawn_tasks(
            registry=kopf_registry(self.kind, self._connection, self._observe, sessions),
            settings=kopf_settings(self.kind),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            # Only peering uses it. None would make kopf ask for the user's name, and the user of
            # a container has none.
            identity="tidegate",  # type: ignore[arg-type]
        )
        self._spawned()
        renewal = asyncio.create_task(self._renew.wait(), name=f"renewal of {self.kind}")
        try:
            done, _ = await asyncio.wait([*tasks, renewal], return_when=asyncio.FIRST_COMPLETED)
            if renewal in done:
                return "it brought nothing, though there was something"
            errors = [error for t in done if not t.cancelled() and (error := t.exception())]
            return str(errors[0])[:300] if errors else "kopf ended"
        finally:
            renewal.cancel()
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([*tasks, renewal], timeout=STOP_TIMEOUT_S)
            for session in sessions:
                await close(session)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.exception()  # fetched, so that asyncio does not report it as lost
