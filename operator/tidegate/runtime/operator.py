"""The operator's process, put together: watches, sweeps, leadership, workers, probes.

Every replica watches and keeps its cache in order. Workers run only while the Lease is held, and
only after all kinds are synced: a plan made from half of the world would delete the other half.
Should any of the parts end by an error, the process ends: a fresh start is the one repair that is
always tested.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from tidegate.platform import Platform
from tidegate.runtime.apply import Carrier
from tidegate.runtime.audit import Auditor
from tidegate.runtime.cache import Cache, Key
from tidegate.runtime.cloudevents import EventSink
from tidegate.runtime.events import Teller
from tidegate.runtime.explaining import Explainer
from tidegate.runtime.fence import Fence
from tidegate.runtime.foreign import ForeignObjects
from tidegate.runtime.golden import GoldenRunner
from tidegate.runtime.kinds import MODEL_DEPLOYMENT, WATCHED, Kind
from tidegate.runtime.kube import (
    ForbiddenError,
    Kube,
    KubeError,
    NotFoundError,
)
from tidegate.runtime.leader import Leadership, LeadershipLostError
from tidegate.runtime.load import LoadReader
from tidegate.runtime.login import Connection
from tidegate.runtime.measuring import Measurer
from tidegate.runtime.memory import give_back
from tidegate.runtime.pods import READS_AT_ONCE
from tidegate.runtime.probes import Probes, tick
from tidegate.runtime.prometheus import Prometheus
from tidegate.runtime.queue import KeyedQueue
from tidegate.runtime.reconciler import Planner, Reconciler
from tidegate.runtime.reporting import Reporter
from tidegate.runtime.scrapes import Scrapes
from tidegate.runtime.settings import Settings
from tidegate.runtime.sweep import Sweeper, WatchHealth
from tidegate.runtime.telemetry import Metrics
from tidegate.runtime.tracers import tracer
from tidegate.runtime.tracing import OFF
from tidegate.runtime.watching import Watch
from tidegate.runtime.worker import Worker

log: Final = structlog.get_logger(__name__)

DEBOUNCE_S: Final = 0.02
"""Events come in flocks; one look serves them all."""
UNSYNCED_RETRY_S: Final = 2.0
LAST_WORDS_S: Final = 1.0
RENEW_AFTER_SWEEPS: Final = 2
"""A watch that is behind in so many sweeps in a row is started anew."""


@dataclass
class _Served:
    """A kind that the cluster serves, and who watches it."""

    watch: Watch
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Operator:
    """The process.

    Args:
        settings: how it is set up.
        platform: the platform settings.
        planner: decides.
        connection: the API server.
    """

    def __init__(
        self, settings: Settings, platform: Platform, planner: Planner, connection: Connection
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.refresh = self._refresh_metrics
        for kind in WATCHED:
            self.metrics.begin_at_zero(kind.kind)
        self.queue: KeyedQueue[Key] = KeyedQueue()
        self.cache = Cache(self._changed)
        self.health = WatchHealth()
        self.fence = Fence(settings.renew_deadline_s)
        self.tracer = tracer(settings, self.metrics)
        self.kube = Kube(connection, self.fence, self.metrics, tracer=self.tracer)
        self.leadership = Leadership(self.kube, self.fence, settings)
        self.probes = Probes(settings.http_port, self._not_alive, self._not_ready, self.metrics)
        self._connection = connection
        self._namespaces: tuple[str | None, ...] = settings.namespaces or (None,)
        self._sweeper = Sweeper(self.kube, self.cache, self.health, self.metrics, self._namespaces)
        self._served: dict[Kind, _Served] = {}
        self._stop = asyncio.Event()
        self._synced = asyncio.Event()
        self._signals = False
        self._optional_known = False
        self._known_kinds: frozenset[str] = frozenset()
        url = settings.prometheus_url
        reads = asyncio.Semaphore(READS_AT_ONCE)
        self.measurer = Measurer(
            self.queue, other=Prometheus(url) if url else None, reads=reads, metrics=self.metrics
        )
        other = Scrapes(Prometheus(url)) if url else None
        self.load = LoadReader(self.queue, other=other, reads=reads)
        sink = settings.event_sink_url
        self.sink = EventSink(sink, self.metrics, settings.event_sink_headers) if sink else None
        self.auditor = Auditor(
            self.metrics,
            settings.identity,
            None if self.sink is None else self.sink.put,
            tracer=self.tracer,
        )
        self.golden = GoldenRunner(self.kube, lambda key: self.queue.add(key, urgent=True))
        carrier = Carrier(self.kube, self.cache, self.metrics)
        self.reconciler = Reconciler(
            self.cache,
            carrier,
            Reporter(carrier, Teller(self.kube, settings.identity)),
            ForeignObjects(self.kube, self.queue.add),
            Explainer(self.kube, self.queue.add, read_nodes=settings.read_nodes),
            self.measurer,
            self.golden,
            self.load,
            self.auditor,
            platform=platform,
            planner=planner,
            present_kinds=self._present_kinds,
            tracer=self.tracer,
        )
        self.worker = Worker(self.queue, self.reconciler, self.metrics, tracer=self.tracer)

    def stop(self) -> None:
        """End in order: finish what is being written, give the Lease back."""
        self._stop.set()

    async def run(self, *, signals: bool = True) -> None:
        """Run until stopped.

        Args:
            signals: whether SIGTERM and SIGINT stop it.

        Raises:
            LeadershipLostError: the Lease was lost.
        """
        self._signals = signals
        self._take_signals()
        async with self.kube, self._background() as tasks:
            await self.probes.start()
            try:
                log.info(
                    "started",
                    identity=self.settings.identity,
                    namespaces=list(self.settings.namespaces) or "all",
                    http_port=self.probes.port,
                )
                self._spawn(tasks, tick(self.metrics), "event loop's tick")
                self._spawn(tasks, self._serve_kinds(tasks), "kinds")
                if self.sink is not None:
                    self._spawn(tasks, self.sink.run(), "event sink")
                if self.tracer is not OFF:
                    self._spawn(tasks, self.tracer.run(), "traces")
                lead = self._spawn(tasks, self._lead(), "leadership")
                stop = asyncio.create_task(self._stop.wait(), name="stop")
                try:
                    await self._until_stopped(tasks, stop)
                finally:
                    stop.cancel()
                # Workers first: the Lease is given back only when nothing is being written.
                lead.cancel()
                await asyncio.wait([lead])
            finally:
                await self.leadership.release()
                self.metrics.leader.set(0)
                await self._last_words()
                await self.probes.stop()
                log.info("stopped", identity=self.settings.identity)

    async def _last_words(self) -> None:
        """Let out what was decided last; a moment, for whoever listens is not waited for."""
        told = [self.tracer.drain()]
        if self.sink is not None:
            told.append(self.sink.drain())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await asyncio.gather(*told)

    async def _until_stopped(self, tasks: set[asyncio.Task[None]], stop: asyncio.Task[Any]) -> None:
        while not stop.done():
            # In slices: kinds come and go, and so do their tasks.
            done, _ = await asyncio.wait(
                [*tasks, stop], timeout=1.0, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stop}:
                tasks.discard(task)
                if not task.cancelled():
                    task.result()  # raises what it ended with

    @staticmethod
    def _spawn(
        tasks: set[asyncio.Task[None]], coroutine: Coroutine[Any, Any, None], name: str
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=name)
        tasks.add(task)
        return task

    @contextlib.asynccontextmanager
    async def _background(self) -> AsyncIterator[set[asyncio.Task[None]]]:
        tasks: set[asyncio.Task[None]] = set()
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=self.settings.shutdown_grace_s)

    def _take_signals(self) -> None:
        # Again after each start of a kopf, which takes them for itself.
        if not self._signals:
            return
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)

    # Watching.

    def _changed(self, key: Key, urgent: bool) -> None:
        self.queue.add(key, DEBOUNCE_S, urgent=urgent)

    def _present_kinds(self) -> frozenset[str]:
        return frozenset(
            kind.kind for kind in self.health.synced if kind.optional and kind in self._served
        )

    async def _serve_kinds(self, tasks: set[asyncio.Task[None]]) -> None:
        """Watch and sweep what there is; look for optional kinds from time to time."""
        for kind in WATCHED:
            if not kind.optional:
                self._serve(kind, tasks)
        while True:
            for kind in [k for k in WATCHED if k.optional]:
                present = await self._is_present(kind)
                if present is True and kind not in self._served:
                    log.info("kind found", kind=kind.kind, api_version=kind.api_version)
                    self._serve(kind, tasks)
                elif present is False and kind in self._served:
                    log.info("kind gone", kind=kind.kind, api_version=kind.api_version)
                    self._drop(kind)
            self._optional_known = True
            self._note_synced()
            await asyncio.sleep(self.settings.discovery_period_s)

    async def _is_present(self, kind: Kind) -> bool | None:
        """Whether the API server serves an optional kind and lets us list it; None: unknown."""
        try:
            index = await self.kube.document(kind.root)
            if all(r.get("name") != kind.plural for r in index.get("resources") or ()):
                return False
            async for _ in self.kube.pages(kind, self._namespaces[0], metadata_only=True, limit=1):
                break
        except NotFoundError:
            return False
        except ForbiddenError as error:
            log.warning(
                "kind left out",
                kind=kind.kind,
                problem=str(error),
                mend="grant list and watch on it, or take this as it is",
            )
            return False
        except KubeError as error:
            log.warning("kind unknown", kind=kind.kind, problem=str(error))
            return None
        return True

    def _serve(self, kind: Kind, tasks: set[asyncio.Task[None]]) -> None:
        watch = Watch(
            kind,
            self._connection,
            self._namespaces,
            self.cache.observe,
            self.metrics,
            self._take_signals,
        )
        served = self._served[kind] = _Served(watch)
        served.tasks = [
            self._spawn(tasks, watch.run(), f"watch of {kind}"),
            self._spawn(tasks, self._sweep(kind, watch), f"sweep of {kind}"),
        ]

    def _drop(self, kind: Kind) -> None:
        for task in self._served.pop(kind).tasks:
            task.cancel()
        self.health.forget(kind)
        self.cache.drop_kind(kind)
        self._look_at_all()

    async def _sweep(self, kind: Kind, watch: Watch) -> None:
        behind, told = 0, ""
        while True:
            try:
                keeps_up = await self._sweeper.sweep(kind)
            except* KubeError as group:
                error = group.exceptions[0]
                # Told once, not with each try: the API server may be away for long.
                if str(error) != told:
                    told = str(error)
                    log.warning("not listed", kind=kind.kind, problem=told, mend=_mend(error))
                keeps_up = True  # unknown; a watch is not blamed for an unreachable server
            else:
                if told:
                    log.info("listed again", kind=kind.kind)
                told = ""
            behind = 0 if keeps_up else behind + 1
            if behind >= RENEW_AFTER_SWEEPS:
                watch.renew()
                behind = 0
            self._note_synced()
            synced = kind in self.health.synced and not told
            await asyncio.sleep(
                self.settings.sweep_period_s
                if synced and not behind
                else min(UNSYNCED_RETRY_S, self.settings.sweep_period_s)
            )

    def _note_synced(self) -> None:
        wanted = set(self._served)
        if not self._synced.is_set():
            if self._optional_known and wanted <= self.health.synced:
                log.info("synced", objects={k.kind: n for k, n in self.cache.sizes().items() if n})
                self._known_kinds = self._present_kinds()
                give_back()
                self._synced.set()
        elif self._known_kinds != self._present_kinds():
            self._known_kinds = self._present_kinds()
            self._look_at_all()

    def _look_at_all(self) -> None:
        for key in self.cache.known():
            self.queue.add(key)

    # Leading.

    async def _lead(self) -> None:
        await self._synced.wait()
        await self.leadership.acquire()
        log.info("leading", identity=self.settings.identity)
        self.metrics.leader.set(1)
        self._look_at_all()
        workers = [
            asyncio.create_task(self.worker.work(), name=f"worker {n}")
            for n in range(self.settings.workers)
        ]
        keep = asyncio.create_task(self.leadership.keep(), name="lease")
        try:
            done, _ = await asyncio.wait([*workers, keep], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except LeadershipLostError as error:
            log.error("leadership lost", reason=str(error))
            raise
        finally:
            await self._end_workers(workers)
            await self.reconciler.stop()
            await self.measurer.stop()
            await self.load.stop()
            await self.golden.close()
            keep.cancel()
            with contextlib.suppress(asyncio.CancelledError, LeadershipLostError):
                await keep

    async def _end_workers(self, workers: list[asyncio.Task[None]]) -> None:
        """Let what is being done be finished, for a while, if it may still be written."""
        self.queue.close()
        grace_s = min(self.settings.shutdown_grace_s, self.fence.remaining_s(time.monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.queue.idle()
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers, timeout=self.settings.shutdown_grace_s)

    # Probes.

    def _not_alive(self) -> str:
        late = [
            f"the watch of {kind} has been behind for {age:.0f} s"
            for kind, age in self._watch_ages().items()
            if age > self.settings.stale_watch_limit_s
        ]
        return "; ".join(late)

    def _watch_ages(self) -> dict[Kind, float]:
        now = time.monotonic()
        return {kind: self.health.age_s(kind, now) for kind in self._served}

    def _refresh_metrics(self) -> None:
        for kind, age in self._watch_ages().items():
            self.metrics.watch_age.labels(kind.kind).set(age)
        for kind, count in self.cache.sizes().items():
            self.metrics.objects.labels(kind.kind).set(count)
        shown = self.cache.known() if self.leadership.held else ()
        found = {key: self.cache.deployment(key) for key in shown}
        self.metrics.fleet.take(
            {key: obj for key, obj in found.items() if obj is not None}, self.measurer.views()
        )
        self.metrics.queue_waiting.set(self.queue.depth())
        self.metrics.queue_working.set(self.queue.schedule.working)

    def _not_ready(self) -> str:
        if self._synced.is_set():
            return ""
        missing = sorted(str(k) for k in set(self._served) - self.health.synced)
        return f"not synced yet: {', '.join(missing) or 'optional kinds'}"


def _mend(error: BaseException) -> str:
    if isinstance(error, ForbiddenError):
        return "grant list and watch on it to the operator's service account"
    if isinstance(error, NotFoundError):
        return f"install the CRD of {MODEL_DEPLOYMENT} (the chart's crds/)"
    return "the operator goes on trying"
