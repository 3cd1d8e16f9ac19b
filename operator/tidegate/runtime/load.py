"""Reads the load of every ModelDeployment, again and again, and keeps what it comes to.

One task for each, started at a random moment of its interval, so that a thousand spread over it.
A look reads all pods that have an address, Ready or not, side by side, within the bound that the
reader of rollouts shares. What the looks at a revision come to is worked out by the pure
`tidegate.autoscaling.Observer`, in a thread of its own: the capacity model takes milliseconds, and
the event loop renews the Lease. The reconciler is woken when replicas may have to change, when an
objective is missed or kept again, and now and then while the figures in status are outdated.

A pod that cannot be read directly for a while is looked up in Prometheus, where one is configured.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

import structlog

from tidegate.actions import Load
from tidegate.api.spec import Spec
from tidegate.api.units import duration_ms, fraction, quantile
from tidegate.attainment import Objective, Window
from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.observer import Observer
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import LAW, Law, ServerModel, server_model
from tidegate.diagnosis import is_ready
from tidegate.observed import Attained, Object
from tidegate.resources.monitoring import INTERVAL_S as SCRAPE_INTERVAL_S
from tidegate.runtime.cache import Key
from tidegate.runtime.load_news import News
from tidegate.runtime.load_source import LoadPages, LoadPod, LoadSource, in_flight, load_pods
from tidegate.runtime.pods import READS_AT_ONCE, Answers, ReadError
from tidegate.runtime.queue import KeyedQueue
from tidegate.sidecar_page import Reading

log: Final = structlog.get_logger(__name__)

T = TypeVar("T")

INTERVAL_S: Final = LAW.interval_s
"""Between two looks where replicas follow the load."""
OTHERS_INTERVAL_S: Final = 15.0
"""Where only status says what clients get."""
UNREAD_S: Final = 2 * INTERVAL_S
"""So long without an answer, and the pod is looked up elsewhere."""
SWITCH_S: Final = 30.0
"""After so long by the other source only, its slower pace is the law's; and back."""
SCRAPED: Final = replace(LAW, interval_s=SCRAPE_INTERVAL_S)


class Elsewhere(Protocol):
    """Knows counters of pods that do not answer, if a little late."""

    async def looks(self, key: Key, pods: Sequence[LoadPod], model: str) -> list[Look]:
        """Of those pods of a ModelDeployment that it knows; model as in `LoadSource.look`.

        Raises:
            ReadError: it cannot be asked.
        """

    async def close(self) -> None:
        """Close open connections."""


class Watcher(Protocol):
    """What an `Observer` does."""

    model: ServerModel

    def observe(self, at_s: float, looks: Iterable[Look], *, ready: Sequence[str]) -> Demand | None:
        """See `Observer.observe`."""


@dataclass
class _Revision:
    """What is known of a revision that scales.

    Attributes:
        spec: by which its pods serve.
        model: how one of them does; None: to be made of spec and configuration.
        law: of the source that its pods are read by.
        config: Triton's own configuration of the model; None: not known yet.
        watcher: what learns; None: made at the next look.
        demand: what the last look came to.
        direct_at: when a pod of it last answered itself.
        elsewhere_at: when one was last found elsewhere.
    """

    spec: Spec
    model: ServerModel | None = None
    law: Law = LAW
    config: Mapping[str, Any] | None = None
    watcher: Watcher | None = None
    demand: Demand | None = None
    direct_at: float | None = None
    elsewhere_at: float | None = None


@dataclass
class _Live:
    """One ModelDeployment whose load is read.

    Attributes:
        key: which.
        load: what is asked for.
        pods: who is read.
        ready: UIDs of the pods that serve.
        window: what clients get.
        revisions: those that scale, by hash.
        task: the loop.
        began_at: when it was first asked for.
        attained: what the window came to at the last look.
        in_flight: by UID, of pods that were read at the last look.
        answers: of the pods themselves.
        silent: pods that serve have not been read for long.
        news: what the reconciler was last woken for.
    """

    key: Key
    load: Load
    pods: list[LoadPod]
    ready: frozenset[str]
    window: Window
    revisions: dict[str, _Revision]
    began_at: float
    task: asyncio.Task[None] | None = None
    attained: Attained | None = None
    in_flight: dict[str, int] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    silent: bool = False
    news: News = field(default_factory=News)


class LoadReader:
    """Reads the load of every ModelDeployment that it is told to, until told otherwise.

    Args:
        queue: woken with a key when what was read may change what is decided.
        source: reads pods.
        other: knows counters of pods that cannot be read; None: nobody does.
        reads: bounds how many pods are read at once, by this and by whoever shares it.
        watchers: makes what learns of a revision; by default observers that share one capacity
            model.
        refill: called before the looks of each interval; by default the capacity model's.
        compute: runs what takes long, one at a time; by default in a thread of its own.
        clock: monotonic, seconds.
        epoch_s: seconds since the epoch when `clock` was 0; the wall clock is looked at once.
        sleep: waits so many seconds of `clock`.
        draw: uniform in [0, 1): when in its interval a ModelDeployment is read.
    """

    def __init__(
        self,
        queue: KeyedQueue[Key],
        source: LoadSource | None = None,
        other: Elsewhere | None = None,
        *,
        reads: asyncio.Semaphore | None = None,
        watchers: Callable[[ServerModel, Law], Watcher] | None = None,
        refill: Callable[[], None] | None = None,
        compute: Callable[[Callable[[], None]], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        epoch_s: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._source: LoadSource = source if source is not None else LoadPages()
        self._other = other
        self._reads = asyncio.Semaphore(READS_AT_ONCE) if reads is None else reads
        capacities = Capacities()
        self._watchers = watchers or (lambda model, law: Observer(model, capacities, law))
        self._refill = refill or capacities.refill
        self._refilled_at: float | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._compute = compute or self._in_a_thread
        self._clock = clock
        self._epoch_s = time.time() - clock() if epoch_s is None else epoch_s
        self._sleep = sleep
        self._draw = draw
        self._live: dict[Key, _Live] = {}
        self._closed = False

    def want(self, key: Key, load: Load | None, pods: Iterable[Object]) -> None:
        """What the last plan of a key asks for; its pods as they are now."""
        if load is None or self._closed:
            self._end(key)
            return
        pods = list(pods)
        found = load_pods(pods)
        if not load.scaled:
            found = [pod for pod in found if pod.sidecar]  # nothing else counts what clients get
        ready = frozenset(pod["metadata"]["uid"] for pod in pods if is_ready(pod))
        objective = _objective(load)
        live = self._live.get(key)
        if live is None:
            live = self._live[key] = _Live(
                key, load, found, ready, Window(objective), {}, self._clock()
            )
            live.task = asyncio.create_task(self._keep_looking(live), name=f"load of {key}")
        live.load, live.pods, live.ready = load, found, ready
        if live.window.objective != objective:
            live.window, live.attained = Window(objective), None
        for gone in live.revisions.keys() - load.scaled.keys():
            del live.revisions[gone]
        for hash_, spec in load.scaled.items():
            revision = live.revisions.setdefault(hash_, _Revision(spec))
            if revision.spec is not spec:
                revision.spec, revision.model = spec, None

    def demands(self, key: Key) -> Mapping[str, Demand]:
        """By revision hash, what is known of the load of those that scale."""
        live = self._live.get(key)
        revisions = {} if live is None else live.revisions
        return {h: r.demand for h, r in revisions.items() if r.demand is not None}

    def attained(self, key: Key) -> Attained | None:
        """What the clients of a key got lately."""
        live = self._live.get(key)
        return None if live is None else live.attained

    def in_flight(self, key: Key) -> Mapping[str, int]:
        """By UID, what each pod of a key that was read owes answers for."""
        live = self._live.get(key)
        return {} if live is None else dict(live.in_flight)

    async def stop(self) -> None:
        """End all tasks and close connections. It reads nothing any more."""
        self._closed = True
        tasks = [live.task for live in self._live.values() if live.task is not None]
        for key in list(self._live):
            self._end(key)
        if tasks:
            await asyncio.wait(tasks)
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._source.close()
        if self._other is not None:
            await self._other.close()

    def _end(self, key: Key) -> None:
        live = self._live.pop(key, None)
        if live is not None and live.task is not None:
            live.task.cancel()

    def _now_s(self) -> float:
        return self._epoch_s + self._clock()

    async def _in_a_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _keep_looking(self, live: _Live) -> None:
        await self._sleep(self._draw() * _interval_s(live))
        while True:
            began = self._clock()
            try:
                await self.look(live.key)
            except Exception as error:
                # A defect in what one load comes to must not end it, nor the others.
                log.error("load not read", modeldeployment=str(live.key), exc_info=error)
            await self._sleep(max(0.0, began + _interval_s(live) - self._clock()))

    async def look(self, key: Key) -> None:
        """Read the pods of a key once, and work out what it comes to."""
        live = self._live.get(key)
        if live is None:
            return
        pods = live.pods
        answers = await asyncio.gather(*(self._read(live, pod) for pod in pods))
        direct = [look for look in answers if look is not None]
        live.answers.looked((pod.at.uid for pod in pods), self._clock())
        elsewhere = await self._from_elsewhere(live, pods)
        await self._learn_configs(live, pods, direct)
        if self._live.get(key) is live:
            await self._take_in(live, pods, direct, elsewhere)

    async def _read(self, live: _Live, pod: LoadPod) -> Look | None:
        model = live.load.model if pod.at.revision in live.revisions else ""
        async with self._reads:
            try:
                look = await self._source.look(pod, model, self._now_s)
            except ReadError as error:
                live.answers.problems[pod.at.uid] = str(error)
                return None
        live.answers.problems.pop(pod.at.uid, None)
        return look

    async def _from_elsewhere(self, live: _Live, pods: Sequence[LoadPod]) -> list[Look]:
        """Looks at pods that have not answered for long, by the other source."""
        now = self._clock()
        silent = [p for p in pods if live.answers.silent_s(p.at.uid, now) >= UNREAD_S]
        self._tell_silence(live, [pod for pod in silent if pod.at.uid in live.ready])
        if not silent or self._other is None:
            return []
        model = live.load.model if live.revisions else ""
        try:
            return await self._other.looks(live.key, silent, model)
        except ReadError as error:
            log.warning(
                "load not read elsewhere", modeldeployment=str(live.key), problem=str(error)
            )
            return []

    async def _learn_configs(
        self, live: _Live, pods: Sequence[LoadPod], looks: Sequence[Look]
    ) -> None:
        """Ask a pod of each revision for Triton's configuration, once its model is loaded."""
        loaded = {look.pod for look in looks if look.triton is not None}
        for hash_, revision in list(live.revisions.items()):
            asked = [p for p in pods if p.at.revision == hash_ and p.at.uid in loaded]
            if revision.config is not None or not asked:
                continue
            try:
                async with self._reads:
                    config = await self._source.config(asked[0], live.load.model)
                revision.model = server_model(revision.spec, config)
            except (ReadError, ValueError, KeyError) as error:
                log.warning("no configuration", modeldeployment=str(live.key), problem=str(error))
                continue
            revision.config = config

    async def _take_in(
        self, live: _Live, pods: Sequence[LoadPod], direct: list[Look], elsewhere: list[Look]
    ) -> None:
        looks = direct + elsewhere
        at_s, now = self._now_s(), self._clock()
        readings = [look.reading for look in looks if isinstance(look.reading, Reading)]
        live.attained = live.window.observe(at_s, readings)
        owed = {look.pod: in_flight(look) for look in looks}
        live.in_flight = {uid: n for uid, n in owed.items() if n is not None}
        work = []
        for hash_, revision in live.revisions.items():
            mine = {pod.at.uid for pod in pods if pod.at.revision == hash_}
            if any(look.pod in mine for look in direct):
                revision.direct_at = now
            if any(look.pod in mine for look in elsewhere):
                revision.elsewhere_at = now
            self._choose_law(live, revision, now)
            ready = sorted(live.ready & mine)
            model = revision.model
            if model is None:
                model = revision.model = server_model(revision.spec, revision.config)
            work.append((revision, model, [x for x in looks if x.pod in mine], ready))
        if work:
            await self._compute(lambda: self._observe(work, at_s, now))
        if self._live.get(live.key) is live:
            self._wake(live)

    def _observe(
        self,
        work: Iterable[tuple[_Revision, ServerModel, list[Look], list[str]]],
        at_s: float,
        now: float,
    ) -> None:
        """What a look at each revision comes to. In the thread."""
        if self._refilled_at is None or now - self._refilled_at >= INTERVAL_S:
            self._refilled_at = now
            self._refill()
        for revision, model, looks, ready in work:
            watcher = revision.watcher
            if watcher is None:
                watcher = revision.watcher = self._watchers(model, revision.law)
            elif watcher.model != model:
                watcher.model = model
            revision.demand = watcher.observe(at_s, looks, ready=ready)

    def _choose_law(self, live: _Live, revision: _Revision, now: float) -> None:
        """The law's pace is that of the source; another source is begun with afresh."""
        direct_at = live.began_at if revision.direct_at is None else revision.direct_at
        elsewhere_at = revision.elsewhere_at
        if elsewhere_at == now and now - direct_at >= SWITCH_S:
            law = SCRAPED
        elif revision.direct_at == now and (elsewhere_at is None or now - elsewhere_at >= SWITCH_S):
            law = LAW
        else:
            return
        if law != revision.law:
            revision.law, revision.watcher = law, None
            source = "Prometheus" if law is SCRAPED else "the pods"
            log.info("load is read elsewhere", modeldeployment=str(live.key), source=source)

    def _tell_silence(self, live: _Live, silent: Sequence[LoadPod]) -> None:
        if bool(silent) == live.silent:
            return
        live.silent = bool(silent)
        if not silent:
            log.info("load of all pods is read again", modeldeployment=str(live.key))
            return
        log.warning(
            "load of pods cannot be read",
            modeldeployment=str(live.key),
            problems={p.at.name: live.answers.problems.get(p.at.uid, "") for p in silent[:3]},
            pods=len(silent),
        )

    def _wake(self, live: _Live) -> None:
        """Wake the reconciler if there is something new."""
        scaled = {hash_: (one.demand, one.law) for hash_, one in live.revisions.items()}
        if live.news.has_come(live.attained, scaled, self._clock()):
            self._queue.add(live.key)


def _interval_s(live: _Live) -> float:
    return INTERVAL_S if live.load.scaled else OTHERS_INTERVAL_S


def _objective(load: Load) -> Objective:
    slo = load.spec.slo
    errors = fraction(slo.max_error_rate)
    if slo.latency is None:
        return Objective(None, 0.99, errors)
    target_ms = duration_ms(slo.latency.target)
    return Objective(int(target_ms), quantile(slo.latency.quantile), errors)
