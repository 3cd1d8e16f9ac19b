"""Reads the sidecars of live canaries, again and again, and keeps what the tests say of them.

One task for each rollout under way. A look reads all pods of both revisions whose sidecar began,
Ready or not, side by side; what happened since the last look goes to the evidence. The reconciler
is woken when that changes what may be done, and asks `Measurer.measured`.

A pod that cannot be read directly for a while is looked up in Prometheus, where one is configured.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import structlog

from tidegate.actions import Measure
from tidegate.analysis.block import Block
from tidegate.analysis.evidence import Evidence
from tidegate.analysis.judgement import Consequence, Judgement
from tidegate.api.names import REVISION_LABEL
from tidegate.measurement import (
    NO_COUNTS,
    Ledger,
    Reading,
    bounds_ms,
    hanging_after_s,
    read_page,
)
from tidegate.observed import Measured, Object
from tidegate.resources.pod import ENVOY
from tidegate.resources.sidecar import INTERNAL_PORT, SIDECAR_METRICS_PATH, TrafficClass
from tidegate.runtime.cache import Key
from tidegate.runtime.fleet import View
from tidegate.runtime.pages import PageError, Pages
from tidegate.runtime.queue import KeyedQueue
from tidegate.runtime.telemetry import Metrics

log: Final = structlog.get_logger(__name__)

T = TypeVar("T")

READ_TIMEOUT_S: Final = 1.0
READS_AT_ONCE: Final = 128
"""Over all ModelDeployments."""
# Only what is evidence or says that there is none, and was ever used: a fifth of the page.
PAGE: Final = (
    f"{SIDECAR_METRICS_PATH}?usedonly&filter="
    r"^(cluster\.(client|mirrored)_(http|grpc)\."
    r"(upstream_rq_([0-9]%2B|total|active|active_overflow|time|pending_(active|failure_eject))"
    r"|grpc\..*\.[0-9]%2B)|cluster\.streaming_(http|grpc)\.upstream_rq_total|server\.uptime)$"
)
FAST_S: Final = 0.25
"""Between two looks while the canary is under suspicion."""
SUSPECT_FOR_S: Final = 10.0
UNREAD_S: Final = 5.0
"""So long without an answer is worth a word; before, the pod may just be starting or leaving."""
OTHER_SOURCE_EVERY_S: Final = 5.0
RATE_OVER_S: Final = 30.0
DUMP_EVERY_S: Final = 5.0
"""The evidence is written down when there is news, and so often; status has it more seldom."""
CARRIES_STEP: Final = 0.05
MIRRORED_STEP: Final = 50


class PodAt(NamedTuple):
    """A pod that can be asked.

    Attributes:
        uid: its UID.
        name: its name.
        revision: hash of its revision.
        address: ``host:port`` of its internal listener.
    """

    uid: str
    name: str
    revision: str
    address: str


class ReadError(Exception):
    """A pod's counters could not be read; the text says why."""


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


def pods_at(pods: Iterable[Object], revisions: Iterable[str], started: str = "") -> list[PodAt]:
    """Pods of these revisions that have an address, whose sidecar began, and that are not over.

    Args:
        pods: all of a ModelDeployment.
        revisions: hashes.
        started: when the rollout began, RFC 3339. Pods that were told to leave before have no part
            in it: after an `undo` they are of the canary's revision, and what they still answer is
            no evidence.
    """
    wanted, found = set(revisions), []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status") or {}
        revision = (metadata.get("labels") or {}).get(REVISION_LABEL)
        ip = status.get("podIP")
        if revision not in wanted or not ip or status.get("phase") in ("Succeeded", "Failed"):
            continue
        if _fetches_still(status):
            continue
        told_to_leave = metadata.get("deletionTimestamp")
        grace_s = metadata.get("deletionGracePeriodSeconds") or 0
        if told_to_leave and _before(told_to_leave, grace_s, started):
            continue
        host = f"[{ip}]" if ":" in ip else ip
        found.append(PodAt(metadata["uid"], metadata["name"], revision, f"{host}:{INTERNAL_PORT}"))
    return found


def _fetches_still(status: Mapping[str, Any]) -> bool:
    """Whether the sidecar was never started: nobody can have asked such a pod anything."""
    for container in status.get("initContainerStatuses") or ():
        if container.get("name") == ENVOY:
            return "waiting" in (container.get("state") or {}) and not container.get("restartCount")
    return False


def _before(deletion: str, grace_s: float, started: str) -> bool:
    """Whether a pod was told to leave before that: deletionTimestamp is the end of its grace."""
    at, begun = _epoch_of(deletion), _epoch_of(started)
    return at is not None and begun is not None and at - grace_s < begun


class Sidecars:
    """The pods themselves: each one's statistics page."""

    def __init__(self, timeout_s: float = READ_TIMEOUT_S) -> None:
        self._pages = Pages(PAGE, timeout_s)

    async def read(self, pod: PodAt, at_s: Callable[[], float]) -> Reading:
        """See `Source.read`."""
        try:
            page = await self._pages.get(pod.address)
            return read_page(
                page.decode("utf-8", "replace"),
                pod=pod.uid,
                revision=pod.revision,
                at_s=at_s(),
                name=pod.name,
            )
        except (PageError, ValueError) as error:
            raise ReadError(str(error)) from error

    async def close(self) -> None:
        """See `Source.close`."""
        self._pages.close()


@dataclass
class _Live:
    """One rollout under way.

    Attributes:
        key: its ModelDeployment.
        measure: what is asked for.
        evidence: of the rollout.
        resumed: some of the evidence is from before this process.
        pods: who is read.
        ledger: what the pods said; None before the first look.
        task: the loop.
        answered_at: by UID, when a pod itself was last read; or when it was first tried.
        elsewhere_at: by UID, when the other source last knew it.
        asked_other_at: when the other source was last asked.
        measured: what is known; None before the first look.
        woken_by: what the reconciler was last woken for.
        suspect_until: look often up to then.
        all_read_at: when every pod of the canary was last read.
        rates: seconds and client requests of recent looks.
        loads: seconds and requests in flight a stable pod of recent looks.
        dumped_at: when the evidence was last written down.
        silent: pods of the canary have not been read for long.
        problems: by UID, why a pod was not read at the last look.
        started: by UID, streams and single requests since the pod's sidecar started.
        looked_at: when the last look was taken in.
        first_bad_at: when the canary was not yet seen to fail or to be slow; None: it never was.
    """

    key: Key
    measure: Measure
    evidence: Evidence
    resumed: bool
    pods: list[PodAt]
    ledger: Ledger | None = None
    task: asyncio.Task[None] | None = None
    answered_at: dict[str, float] = field(default_factory=dict)
    elsewhere_at: dict[str, float] = field(default_factory=dict)
    asked_other_at: float | None = None
    measured: Measured | None = None
    woken_by: "_Signal | None" = None
    suspect_until: float = 0.0
    all_read_at: float | None = None
    rates: deque[tuple[float, int]] = field(default_factory=deque)
    loads: deque[tuple[float, float]] = field(default_factory=deque)
    dumped_at: float = 0.0
    silent: bool = False
    problems: dict[str, str] = field(default_factory=dict)
    started: dict[str, tuple[int, int]] = field(default_factory=dict)
    looked_at: float | None = None
    first_bad_at: float | None = None


class _Signal(NamedTuple):
    """What matters to a decision, coarse enough that it changes seldom."""

    bad: str
    worse: str
    stable_failing: bool
    proven: bool
    hanging: tuple[str, ...]
    read: bool
    silent: bool
    carries: float
    mirrored: int
    streaming: bool


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
        if live is not None and (measure is None or not _same_rollout(live.measure, measure)):
            self._end(key)
            live = None
        if measure is None or self._closed:
            return
        found = pods_at(pods, (measure.stable, measure.canary), measure.started)
        if live is None:
            evidence = Evidence.load(measure.objective, measure.state)
            # A state that could not be used is no evidence: then all counts from the beginning.
            resumed = evidence.dump() != Evidence(measure.objective).dump()
            live = self._live[key] = _Live(key, measure, evidence, resumed, found)
            live.task = asyncio.create_task(self._keep_looking(live), name=f"measure {key}")
            return
        if live.measure.since != measure.since and live.measured is not None:
            live.measured = _with_shares_reset(live.measured, measure.since)
        live.measure, live.pods = measure, found

    def measured(self, key: Key) -> Measured | None:
        """What is known of a key's rollout; None: nothing yet, or there is none."""
        live = self._live.get(key)
        return None if live is None else live.measured

    def bad_for_s(self, key: Key) -> float | None:
        """Seconds since a key's canary first failed or was slow; None: that was not seen.

        Counted from the look before the one that showed it: rather too long than too short.
        """
        live = self._live.get(key)
        if live is None or live.resumed or live.first_bad_at is None:
            return None
        return self._clock() - live.first_bad_at

    def views(self) -> dict[Key, View]:
        """All rollouts under way."""
        now = self._clock()
        return {
            key: View(live.measured, None if live.all_read_at is None else now - live.all_read_at)
            for key, live in self._live.items()
        }

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
            await self._sleep(max(0.0, began + self._pause_s(live) - self._clock()))

    def _pause_s(self, live: _Live) -> float:
        pause_s = live.measure.interval_s
        return min(pause_s, FAST_S) if self._clock() < live.suspect_until else pause_s

    async def look(self, key: Key) -> None:
        """Read the pods of a key's rollout once, and judge."""
        live = self._live.get(key)
        if live is None:
            return
        pods = live.pods
        found = await asyncio.gather(*(self._read(live, pod) for pod in pods))
        readings = [reading for reading in found if reading is not None]
        now = self._clock()
        for pod, reading in zip(pods, found, strict=True):
            if reading is not None:
                live.answered_at[pod.uid] = now
            else:
                live.answered_at.setdefault(pod.uid, now)
        for uid in live.problems.keys() - {pod.uid for pod in pods}:
            del live.problems[uid]
        readings += await self._from_elsewhere(live, pods)
        if self._live.get(key) is live:
            self._take_in(live, pods, readings)

    async def _read(self, live: _Live, pod: PodAt) -> Reading | None:
        async with self._reads:
            try:
                reading = await self._source.read(pod, self._now_s)
            except ReadError as error:
                live.problems[pod.uid] = str(error)
                self._metrics.sidecar_reads.labels("failed").inc()
                return None
        self._metrics.sidecar_reads.labels("read").inc()
        live.problems.pop(pod.uid, None)
        return reading

    async def _from_elsewhere(self, live: _Live, pods: Sequence[PodAt]) -> list[Reading]:
        """Readings of pods that have not answered for long, from the other source."""
        now = self._clock()
        silent = [
            p for p in pods if p.uid in live.problems and now - live.answered_at[p.uid] > UNREAD_S
        ]
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
        for reading in readings:
            live.elsewhere_at[reading.pod] = self._clock()
        return readings

    def _take_in(self, live: _Live, pods: Sequence[PodAt], readings: list[Reading]) -> None:
        measure, now, at_s = live.measure, self._clock(), self._now_s()
        if live.ledger is None:
            live.ledger = _ledger(live, readings)
        unread = [p for p in pods if not _is_read(live, p, now)]
        block = live.ledger.observe(readings, at_s=at_s, unread=[p.name for p in unread])
        live.evidence.observe(block)
        judgement = live.evidence.judge()
        if live.first_bad_at is None and (block.canary.failed or block.canary.slow):
            live.first_bad_at = now if live.looked_at is None else live.looked_at
        live.looked_at = now
        if block.canary.failed or block.hanging or _looks_bad(judgement):
            live.suspect_until = now + SUSPECT_FOR_S
        canary = [p for p in pods if p.revision == measure.canary]
        missing = [p for p in unread if p.revision == measure.canary]
        if canary and not missing:
            live.all_read_at = now
        for reading in readings:
            live.started[reading.pod] = (
                _started(reading, TrafficClass.STREAMING),
                _started(reading, TrafficClass.CLIENT, TrafficClass.MIRRORED),
            )
        before = live.measured
        live.measured = Measured(
            stable=measure.stable,
            canary=measure.canary,
            started=measure.started,
            judgement=judgement,
            read_at=_read_at(live, self._epoch_s),
            since=measure.since,
            unread=block.unread,
            hanging=block.hanging,
            canary_arrivals=(before.canary_arrivals if before else 0) + block.canary_arrivals,
            stable_arrivals=(before.stable_arrivals if before else 0) + block.stable_arrivals,
            mirrored=(before.mirrored if before else 0) + block.mirrored,
            streams=sum(streams for streams, _ in live.started.values()),
            requests=sum(requests for _, requests in live.started.values()),
            arrivals_per_s=_arrivals_per_s(live, block, first=before is None),
            in_flight_per_pod=_in_flight_per_pod(live, block, readings),
            state=before.state if before else "",
        )
        silent = [p for p in missing if now - _last_read(live, p) > UNREAD_S]
        if bool(silent) != live.silent:
            live.silent = bool(silent)
            self._tell_silence(live, silent)
        if self._wake(live, live.measured) or now - live.dumped_at >= DUMP_EVERY_S:
            live.dumped_at = now
            live.measured = replace(live.measured, state=live.evidence.dump())

    @staticmethod
    def _tell_silence(live: _Live, silent: Sequence[PodAt]) -> None:
        if not silent:
            log.info("pods are read again", modeldeployment=str(live.key))
            return
        log.warning(
            "pods cannot be read",
            modeldeployment=str(live.key),
            problems={p.name: live.problems.get(p.uid, "") for p in silent[:3]},
            pods=len(silent),
        )

    def _wake(self, live: _Live, measured: Measured) -> bool:
        """Wake the reconciler if there is something new. Returns whether there was."""
        told = live.woken_by
        judgement = measured.judgement
        carries = judgement.carries
        mirrored = measured.mirrored
        if told is not None:
            if abs(carries - told.carries) <= CARRIES_STEP * told.carries:
                carries = told.carries
            # The more there are, the less a few more matter.
            if mirrored < told.mirrored + max(MIRRORED_STEP, told.mirrored // 4):
                mirrored = told.mirrored
        signal = _Signal(
            bad=judgement.bad.test if judgement.bad else "",
            worse=judgement.worse.test if judgement.worse else "",
            stable_failing=judgement.stable_failing,
            proven=judgement.proven,
            hanging=measured.hanging,
            read=measured.read_at is not None,
            silent=live.silent,
            carries=carries,
            mirrored=mirrored,
            streaming=measured.streams > measured.requests,
        )
        if signal == told:
            return False
        live.woken_by = signal
        self._queue.add(live.key, urgent=True)
        return True


def _same_rollout(one: Measure, other: Measure) -> bool:
    return (one.stable, one.canary, one.started) == (other.stable, other.canary, other.started)


def _with_shares_reset(measured: Measured, since: str) -> Measured:
    return replace(measured, since=since, canary_arrivals=0, stable_arrivals=0)


def _ledger(live: _Live, readings: Iterable[Reading]) -> Ledger:
    measure = live.measure
    target_ms = measure.objective.latency_target_ms
    stable = [r for r in readings if r.revision == measure.stable]
    return Ledger(
        measure.stable,
        measure.canary,
        target_ms,
        bounds_ms(target_ms),
        hang_after_s=hanging_after_s(target_ms, stable),
        counts_from_s=_epoch_of(measure.started),
        resumed=live.resumed,
    )


def _epoch_of(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _last_read(live: _Live, pod: PodAt) -> float:
    return max(live.answered_at[pod.uid], live.elsewhere_at.get(pod.uid, 0.0))


def _is_read(live: _Live, pod: PodAt, now: float) -> bool:
    """Whether a pod's counters are known as of now."""
    if pod.uid not in live.problems:
        return True
    seen = live.elsewhere_at.get(pod.uid)
    return seen is not None and now - seen <= 2 * OTHER_SOURCE_EVERY_S


def _looks_bad(judgement: Judgement) -> bool:
    """Whether the data speak against the canary, if not loudly enough yet."""
    return any(
        result.evidence > 1.0 and result.consequence is Consequence.ROLL_BACK
        for result in judgement.results
    )


def _read_at(live: _Live, epoch_s: float) -> datetime | None:
    if live.all_read_at is None:
        return None
    return datetime.fromtimestamp(epoch_s + live.all_read_at, UTC)


def _arrivals_per_s(live: _Live, block: Block, *, first: bool) -> float | None:
    """Over the last looks; the first block has no length, and may hold a pod's whole life."""
    if not first and block.seconds > 0:
        _keep(live.rates, (block.seconds, block.canary_arrivals + block.stable_arrivals))
    seconds = sum(s for s, _ in live.rates)
    return sum(n for _, n in live.rates) / seconds if seconds else None


def _in_flight_per_pod(live: _Live, block: Block, readings: Iterable[Reading]) -> float | None:
    stable = [
        r.classes.get(TrafficClass.CLIENT, NO_COUNTS).in_flight
        for r in readings
        if r.revision == live.measure.stable
    ]
    if stable:
        _keep(live.loads, (block.seconds, sum(stable) / len(stable)))
    return sum(n for _, n in live.loads) / len(live.loads) if live.loads else None


def _started(reading: Reading, *classes: TrafficClass) -> int:
    return sum(reading.classes.get(c, NO_COUNTS).started for c in classes)


def _keep(looks: "deque[tuple[float, T]]", newest: "tuple[float, T]") -> None:
    """Append a look; drop those from before the last `RATE_OVER_S`."""
    looks.append(newest)
    while len(looks) > 1 and sum(seconds for seconds, _ in looks) > RATE_OVER_S:
        looks.popleft()
