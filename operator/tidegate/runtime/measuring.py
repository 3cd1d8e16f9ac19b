"""Reads the sidecars of live canaries, again and again, and keeps what the tests say of them.

One task for each rollout under way. A look reads all pods of both revisions whose sidecar began,
Ready or not, side by side; what they say goes to the pure `tidegate.judging.Trial`. The reconciler
is woken when that changes what may be done, and asks `Measurer.measured`.

A pod that cannot be read directly for a while is looked up in Prometheus, where one is configured.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from tidegate.actions import Measure
from tidegate.judging import UNREAD_S, Asked, Trial
from tidegate.observed import Measured, Object
from tidegate.resources.sidecar import SIDECAR_METRICS_PATH
from tidegate.runtime.cache import Key
from tidegate.runtime.fleet import View
from tidegate.runtime.pages import Pages
from tidegate.runtime.pods import READS_AT_ONCE, Answers, PodAt, ReadError, pods_at, read_sidecar
from tidegate.runtime.queue import KeyedQueue
from tidegate.runtime.telemetry import Metrics
from tidegate.runtime.tracing import Look
from tidegate.sidecar_page import Reading

log: Final = structlog.get_logger(__name__)

READ_TIMEOUT_S: Final = 1.0
# Only what is evidence or says that there is none, and was ever used: a fifth of the page.
PAGE: Final = (
    f"{SIDECAR_METRICS_PATH}?usedonly&filter="
    r"^(cluster\.(client|mirrored)_(http|grpc)\."
    r"(upstream_rq_([0-9]%2B|total|active|active_overflow|time|pending_(active|failure_eject))"
    r"|grpc\..*\.[0-9]%2B)|cluster\.streaming_(http|grpc)\.upstream_rq_total|server\.uptime)$"
)
OTHER_SOURCE_EVERY_S: Final = 5.0
DUMP_EVERY_S: Final = 5.0
"""The evidence is written down when there is news, and so often; status has it more seldom."""


class Source(Protocol):
    """Reads one pod."""

    async def read(self, pod: PodAt, at_s: Callable[[], float]) -> Reading:
        """Its counters now.

        Raises:
            ReadError: they cannot be read.
        """

    async def close(self) -> None:
        """Close open connections."""


class OtherSource(Protocol):
    """Knows counters of all pods of a ModelDeployment, if a little late."""

    async def readings(self, key: Key, pods: Sequence[PodAt]) -> list[Reading]:
        """Of those pods that it knows.

        Raises:
            ReadError: it cannot be asked.
        """

    async def close(self) -> None:
        """Close open connections."""


class Sidecars:
    """The pods themselves: each one's statistics page."""

    def __init__(self, timeout_s: float = READ_TIMEOUT_S) -> None:
        self._pages = Pages(PAGE, timeout_s)

    async def read(self, pod: PodAt, at_s: Callable[[], float]) -> Reading:
        """See `Source.read`."""
        return await read_sidecar(self._pages, pod, at_s)

    async def close(self) -> None:
        """See `Source.close`."""
        self._pages.close()


@dataclass
class _Live:
    """One rollout under way.

    Attributes:
        key: its ModelDeployment.
        trial: what the looks come to.
        pods: who is read.
        task: the loop.
        answers: of the pods themselves.
        elsewhere_at: by UID, when the other source last knew it.
        asked_other_at: when the other source was last asked.
        dumped_at: when the evidence was last written down.
        silent: pods of the canary have not been read for long.
        look: the last one, until a pass has taken it.
    """

    key: Key
    trial: Trial
    pods: list[PodAt]
    task: asyncio.Task[None] | None = None
    answers: Answers = field(default_factory=Answers)
    elsewhere_at: dict[str, float] = field(default_factory=dict)
    asked_other_at: float | None = None
    dumped_at: float = 0.0
    silent: bool = False
    look: Look | None = None


class Measurer:
    """Measures every rollout that it is told to, until told otherwise.

    Args:
        queue: woken with a key when its measurements change what may be done.
        source: reads pods.
        other: knows counters of pods that cannot be read; None: nobody does.
        metrics: counts.
        clock: monotonic, seconds.
        epoch_s: seconds since the epoch when `clock` was 0. The wall clock is looked at once: a
            time that jumps must not look like requests that waited.
        sleep: waits so many seconds of `clock`.
        reads: bounds how many pods are read at once, by this and by whoever shares it.
    """

    def __init__(
        self,
        queue: KeyedQueue[Key],
        source: Source | None = None,
        other: OtherSource | None = None,
        *,
        reads: asyncio.Semaphore | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        epoch_s: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._queue = queue
        self._source: Source = source if source is not None else Sidecars()
        self._other = other
        self._metrics = metrics if metrics is not None else Metrics()
        self._clock = clock
        self._epoch_s = time.time() - clock() if epoch_s is None else epoch_s
        self._sleep = sleep
        self._live: dict[Key, _Live] = {}
        self._reads = asyncio.Semaphore(READS_AT_ONCE) if reads is None else reads
        self._closed = False

    def want(self, key: Key, measure: Measure | None, pods: Iterable[Object]) -> None:
        """What the last plan of a key asks for; its pods as they are now."""
        live = self._live.get(key)
        if live is not None and (measure is None or not live.trial.is_of(measure)):
            self._end(key)
            live = None
        if measure is None or self._closed:
            return
        found = pods_at(pods, (measure.stable, measure.canary), measure.started)
        if live is None:
            live = self._live[key] = _Live(key, Trial(measure), found)
            live.task = asyncio.create_task(self._keep_looking(live), name=f"measure {key}")
            return
        live.trial.want(measure)
        live.pods = found

    def measured(self, key: Key) -> Measured | None:
        """What is known of a key's rollout; None: nothing yet, or there is none."""
        live = self._live.get(key)
        return None if live is None else live.trial.measured

    def new_look(self, key: Key) -> Look | None:
        """The last look at a key's rollout, once; None: there was none since."""
        live = self._live.get(key)
        if live is None:
            return None
        look, live.look = live.look, None
        return look

    def bad_for_s(self, key: Key) -> float | None:
        """Seconds since a key's canary first failed or was slow; None: that was not seen.

        Counted from the look before the one that showed it: rather too long than too short.
        """
        live = self._live.get(key)
        if live is None or live.trial.resumed or live.trial.first_bad_s is None:
            return None
        return self._now_s() - live.trial.first_bad_s

    def views(self) -> dict[Key, View]:
        """All rollouts under way."""
        now_s, found = self._now_s(), {}
        for key, live in self._live.items():
            read_s = live.trial.all_read_s
            found[key] = View(live.trial.measured, None if read_s is None else now_s - read_s)
        return found

    async def stop(self) -> None:
        """End all tasks and close connections. It measures nothing any more."""
        self._closed = True
        tasks = [live.task for live in self._live.values() if live.task is not None]
        for key in list(self._live):
            self._end(key)
        if tasks:
            await asyncio.wait(tasks)
        await self._source.close()
        if self._other is not None:
            await self._other.close()

    def _end(self, key: Key) -> None:
        live = self._live.pop(key)
        if live.task is not None:
            live.task.cancel()

    def _now_s(self) -> float:
        return self._epoch_s + self._clock()

    async def _keep_looking(self, live: _Live) -> None:
        while True:
            began = self._clock()
            try:
                await self.look(live.key)
            except Exception as error:
                # A defect in judging one rollout must not end it, nor the others.
                log.error("look failed", modeldeployment=str(live.key), exc_info=error)
            pause_s = live.trial.pause_s(self._now_s())
            await self._sleep(max(0.0, began + pause_s - self._clock()))

    async def look(self, key: Key) -> None:
        """Read the pods of a key's rollout once, and judge."""
        live = self._live.get(key)
        if live is None:
            return
        pods = live.pods
        began_s = self._now_s()
        found = await asyncio.gather(*(self._read(live, pod) for pod in pods))
        live.look = Look(began_s, self._now_s(), len(pods), sum(r is None for r in found))
        readings = [reading for reading in found if reading is not None]
        live.answers.looked((pod.uid for pod in pods), self._clock())
        readings += await self._from_elsewhere(live, pods)
        if self._live.get(key) is live:
            self._take_in(live, pods, readings)

    async def _read(self, live: _Live, pod: PodAt) -> Reading | None:
        async with self._reads:
            try:
                reading = await self._source.read(pod, self._now_s)
            except ReadError as error:
                live.answers.problems[pod.uid] = str(error)
                self._metrics.sidecar_reads.labels("failed").inc()
                return None
        self._metrics.sidecar_reads.labels("read").inc()
        live.answers.problems.pop(pod.uid, None)
        return reading

    async def _from_elsewhere(self, live: _Live, pods: Sequence[PodAt]) -> list[Reading]:
        """Readings of pods that have not answered for long, from the other source."""
        now = self._clock()
        silent = [p for p in pods if live.answers.silent_s(p.uid, now) > UNREAD_S]
        if not silent or self._other is None:
            return []
        if live.asked_other_at is not None and now - live.asked_other_at < OTHER_SOURCE_EVERY_S:
            return []
        live.asked_other_at = now
        try:
            readings = await self._other.readings(live.key, silent)
        except ReadError as error:
            log.warning("not read elsewhere", modeldeployment=str(live.key), problem=str(error))
            return []
        now = self._clock()
        live.elsewhere_at = {
            **{p.uid: at for p in pods if (at := live.elsewhere_at.get(p.uid)) is not None},
            **{reading.pod: now for reading in readings},
        }
        return readings

    def _take_in(self, live: _Live, pods: Sequence[PodAt], readings: list[Reading]) -> None:
        now, trial = self._clock(), live.trial
        asked = [Asked(p.uid, p.name, p.revision, _is_read(live, p, now)) for p in pods]
        news = trial.look(self._now_s(), readings, asked)
        if bool(trial.silent) != live.silent:
            live.silent = bool(trial.silent)
            self._tell_silence(live)
        if news:
            self._queue.add(live.key, urgent=True)
        if news or now - live.dumped_at >= DUMP_EVERY_S:
            live.dumped_at = now
            trial.write_down()

    @staticmethod
    def _tell_silence(live: _Live) -> None:
        silent = live.trial.silent
        if not silent:
            log.info("pods are read again", modeldeployment=str(live.key))
            return
        log.warning(
            "pods cannot be read",
            modeldeployment=str(live.key),
            problems={p.name: live.answers.problems.get(p.uid, "") for p in silent[:3]},
            pods=len(silent),
        )


def _is_read(live: _Live, pod: PodAt, now: float) -> bool:
    """Whether a pod's counters are known as of now."""
    if pod.uid not in live.answers.problems:
        return True
    seen = live.elsewhere_at.get(pod.uid)
    return seen is not None and now - seen <= 2 * OTHER_SOURCE_EVERY_S
