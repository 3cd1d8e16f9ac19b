"""Reading pods of live canaries, and waking the reconciler when it matters."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any

import pytest
from aiohttp import web

from tests.unit.measurement.pages import Cluster, page
from tests.unit.runtime.fakes import Clock
from tests.unit.runtime.server import Answer, answers, hang, serving
from tidegate.actions import Measure
from tidegate.analysis.evidence import Evidence
from tidegate.analysis.judgement import Objective, Test
from tidegate.api.names import REVISION_LABEL
from tidegate.judging import MIRRORED_STEP
from tidegate.observed import Measured
from tidegate.runtime.cache import Key
from tidegate.runtime.measuring import (
    DUMP_EVERY_S,
    OTHER_SOURCE_EVERY_S,
    PAGE,
    Measurer,
    Sidecars,
)
from tidegate.runtime.pods import READS_AT_ONCE, PodAt, ReadError, pods_at
from tidegate.runtime.queue import KeyedQueue
from tidegate.sidecar_page import Reading, read_page

KEY = Key("models", "m")
EPOCH_S = 1_700_000_000.0
STARTED = "2023-11-14T22:00:00Z"
"""Before the epoch above."""
MEASURE = Measure(
    stable="stable",
    canary="canary",
    started=STARTED,
    since=STARTED,
    objective=Objective(
        max_error_rate=0.01,
        latency_target_ms=100,
        slow_share=0.01,
        false_rollback_rate=0.05,
        confidence=0.95,
    ),
    interval_s=1.0,
)


def pod(uid: str, revision: str = "canary", ip: str | None = "10.0.0.1", **status: Any) -> Any:
    return {
        "metadata": {"uid": uid, "name": f"pod-{uid}", "labels": {REVISION_LABEL: revision}},
        "status": {"phase": "Running", **({"podIP": ip} if ip else {}), **status},
    }


BOTH = (pod("c"), pod("s", "stable"))


@dataclass
class FakePods:
    """Pods with counters that a test moves; a pod without any cannot be read."""

    counters: dict[str, dict[str, Cluster]] = field(default_factory=dict)
    born: dict[str, float] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    reads: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    hold: asyncio.Event | None = None
    closed: bool = False

    def of(self, uid: str, name: str = "client_http") -> Cluster:
        return self.counters.setdefault(uid, {}).setdefault(name, Cluster())

    def served(self, uid: str, count: int, code: int = 200, name: str = "client_http") -> None:
        cluster = self.of(uid, name)
        cluster.by_status[code] = cluster.by_status.get(code, 0) + count
        cluster.took_ms += [5] * count

    async def read(self, pod: PodAt, at_s: Callable[[], float]) -> Reading:
        self.reads.append(pod.uid)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if pod.uid not in self.counters or pod.uid in self.unreachable:
                raise ReadError("connection refused")
            return self.reading(pod, at_s())
        finally:
            self.at_once -= 1

    def reading(self, pod: PodAt, at_s: float) -> Reading:
        uptime_s = int(at_s - self.born.get(pod.uid, EPOCH_S))
        text = page(self.counters[pod.uid], uptime_s)
        return read_page(text, pod=pod.uid, revision=pod.revision, at_s=at_s, name=pod.name)

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeOther:
    """The other source: knows some pods."""

    pods: FakePods
    clock: Clock
    knows: set[str] = field(default_factory=set)
    asked: list[list[str]] = field(default_factory=list)
    away: bool = False

    async def readings(self, key: Key, pods: Sequence[PodAt]) -> list[Reading]:
        self.asked.append([p.uid for p in pods])
        if self.away:
            raise ReadError("no answer")
        at_s = EPOCH_S + self.clock() - 3.0
        return [self.pods.reading(p, at_s) for p in pods if p.uid in self.knows]

    async def close(self) -> None:
        pass


class World:
    """A measurer whose time passes when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.queue: KeyedQueue[Key] = KeyedQueue(clock=self.clock)
        self.pods = FakePods()
        self.other = FakeOther(self.pods, self.clock)
        self.pauses: list[float] = []
        self._sleeping: list[asyncio.Future[None]] = []
        self.measurer = Measurer(
            self.queue,
            self.pods,
            self.other,
            clock=self.clock,
            epoch_s=EPOCH_S,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        future = asyncio.get_running_loop().create_future()
        self._sleeping.append(future)
        await future

    async def look(self) -> Measured | None:
        """Let the pause pass, and the next look happen; for one rollout."""
        sleeping, self._sleeping = self._sleeping, []
        if sleeping:
            self.clock.now += self.pauses[-1]
        for future in sleeping:
            if not future.cancelled():
                future.set_result(None)
        for _ in range(1000):
            await asyncio.sleep(0)
            if self._sleeping:
                break
        return self.measurer.measured(KEY)

    async def seconds(self, seconds: float) -> Measured | None:
        end = self.clock.now + seconds
        measured = await self.look()
        while self.clock.now < end:
            measured = await self.look()
        return measured

    def woken(self) -> bool:
        """Whether the key was handed out since the last call."""
        key = self.queue.schedule.pop(self.clock.now)
        if key is not None:
            self.queue.succeeded(key)
        return key is not None


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.pods.of("c")
    made.pods.of("s")
    yield made
    await made.measurer.stop()


def test_whom_to_ask() -> None:
    pods = [
        pod("ready"),
        pod("starting", phase="Pending"),
        pod("six", "stable", "fd00::1"),
        pod("no address", ip=None),
        pod("over", phase="Failed"),
        pod("other", "old"),
        {"metadata": {"uid": "bare", "name": "bare"}},
    ]
    pods[1]["metadata"]["deletionTimestamp"] = STARTED  # it may still serve
    assert pods_at(pods, ("canary", "stable")) == [
        PodAt("ready", "pod-ready", "canary", "10.0.0.1:9091"),
        PodAt("starting", "pod-starting", "canary", "10.0.0.1:9091"),
        PodAt("six", "pod-six", "stable", "[fd00::1]:9091"),
    ]


@pytest.mark.parametrize(
    ("state", "restarts", "asked"),
    [
        ({"waiting": {"reason": "PodInitializing"}}, 0, False),
        ({"running": {}}, 0, True),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, 1, True),
        ({"terminated": {}}, 0, True),
    ],
)
def test_a_pod_that_still_fetches_is_not_asked(
    state: dict[str, Any], restarts: int, asked: bool
) -> None:
    found = pod("new")
    found["status"]["initContainerStatuses"] = [
        {"name": "fetch", "restartCount": 0, "state": {"running": {}}},
        {"name": "envoy", "restartCount": restarts, "state": state},
    ]
    assert [p.uid for p in pods_at([found], ("canary",))] == ["new"] * asked


async def test_nothing_is_measured_unless_wanted(world: World) -> None:
    world.measurer.want(KEY, None, BOTH)
    await world.look()
    assert (world.pods.reads, world.measurer.measured(KEY)) == ([], None)
    world.measurer.want(KEY, MEASURE, BOTH)
    assert world.measurer.measured(KEY) is None
    assert await world.look() is not None
    world.measurer.want(KEY, None, BOTH)
    assert world.measurer.measured(KEY) is None
    world.pods.reads.clear()
    await world.look()
    assert world.pods.reads == []


async def test_what_is_said_of_a_rollout(world: World) -> None:
    world.pods.served("s", 1000)
    world.measurer.want(KEY, MEASURE, BOTH)
    first = await world.look()
    assert first is not None
    assert (first.stable, first.canary, first.started, first.since) == (
        *("stable", "canary"),
        *(STARTED, STARTED),
    )
    assert (first.arrivals_per_s, first.in_flight_per_pod) == (None, 0.0)
    assert (first.canary_arrivals, first.stable_arrivals) == (0, 0)
    world.pods.served("s", 86)
    world.pods.served("c", 10)
    world.pods.served("c", 7, name="mirrored_http")
    world.pods.of("s").in_flight = 4
    measured = await world.look()
    assert measured is not None
    assert (measured.canary_arrivals, measured.stable_arrivals, measured.mirrored) == (10, 90, 7)
    assert (measured.arrivals_per_s, measured.in_flight_per_pod) == (100.0, 2.0)
    assert measured.judgement.requests == 17
    assert measured.read_at is not None
    assert measured.read_at.timestamp() == EPOCH_S + world.clock.now
    assert measured.state
    assert len(measured.state) <= 4096


async def test_streams_are_told_of_and_are_no_evidence(world: World) -> None:
    world.pods.served("s", 20)
    world.pods.of("s", "streaming_grpc").by_status[200] = 20
    world.measurer.want(KEY, MEASURE, BOTH)
    first = await world.look()
    assert first is not None
    assert (first.streams, first.requests) == (20, 20)
    assert world.woken()
    world.pods.served("c", 1, code=500, name="streaming_http")
    world.pods.served("c", 2, name="mirrored_http")
    world.pods.unreachable.add("s")  # what it said stays known
    measured = await world.look()
    assert measured is not None
    assert (measured.streams, measured.requests) == (21, 22)
    assert measured.judgement.requests == 2
    world.woken()
    world.pods.served("c", 9, name="streaming_http")
    await world.look()
    assert world.woken()


async def test_a_bad_canary_is_found_and_told_at_once(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    await world.look()
    assert world.woken()  # first successful read
    await world.look()
    assert not world.woken()
    world.pods.served("c", 10, code=500)
    measured = await world.look()
    assert measured is not None
    assert measured.judgement.bad is not None
    assert measured.judgement.bad.test is Test.ERRORS
    assert world.woken()
    await world.look()
    assert not world.woken()


async def test_looks_come_often_after_a_failure_and_until_all_was_well_for_a_while(
    world: World,
) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    for _ in range(3):
        world.pods.served("c", 50)
        world.pods.served("s", 50)
        await world.look()
    assert set(world.pauses) == {1.0}
    world.pods.served("c", 1, code=500)
    await world.look()
    failed_at = world.clock.now
    del world.pauses[:-1]
    while world.clock.now < failed_at + 20.0:
        world.pods.served("c", 50)
        world.pods.served("s", 50)
        await world.look()
    assert world.pauses[0] == 0.25
    assert set(world.pauses) == {0.25, 1.0}
    assert world.pauses.count(0.25) in range(38, 44)  # ten seconds of it
    world.measurer.want(KEY, changed(MEASURE, interval_s=0.1), BOTH)
    world.pods.served("c", 1, code=500)
    await world.look()
    assert world.pauses[-1] == pytest.approx(0.1)  # never slower than asked for


async def test_woken_when_the_evidence_allows_more(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    await world.look()
    world.woken()
    carries = []
    for _ in range(40):
        world.pods.served("c", 20)
        world.pods.served("s", 200)
        measured = await world.look()
        assert measured is not None
        if world.woken():
            carries.append(measured.judgement.carries)
    assert measured is not None
    assert measured.judgement.proven
    assert measured.judgement.carries == 1.0
    assert carries[-1] == 1.0
    assert all(b > a * 1.05 or b == 1.0 for a, b in itertools.pairwise(carries))


async def test_woken_by_mirrored_copies(world: World) -> None:
    """Also of requests that say nothing yet: it shows that the gateway mirrors."""
    world.measurer.want(KEY, MEASURE, BOTH)
    await world.look()
    world.woken()
    cluster = world.pods.of("c", "mirrored_http")
    cluster.in_flight = MIRRORED_STEP - 1
    await world.look()
    assert not world.woken()
    cluster.in_flight += 1
    await world.look()
    assert world.woken()
    await world.look()
    assert not world.woken()


async def test_pods_that_cannot_be_read(world: World) -> None:
    del world.pods.counters["c"]
    world.measurer.want(KEY, MEASURE, BOTH)
    measured = await world.look()
    assert measured is not None
    assert (measured.read_at, measured.unread) == (None, ("pod-c",))
    world.woken()
    for _ in range(5):
        await world.look()
        assert not world.woken()  # it may just be starting
    await world.look()
    assert world.woken()
    world.pods.of("c")
    measured = await world.look()
    assert measured is not None
    assert measured.unread == ()
    assert measured.read_at is not None
    assert world.woken()
    read_at = measured.read_at
    del world.pods.counters["s"]  # of stable it does not matter as much
    measured = await world.look()
    assert measured is not None
    assert measured.unread == ("pod-s",)
    assert measured.read_at is not None
    assert measured.read_at > read_at


async def test_a_canary_without_pods_was_not_read(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH[1:])
    measured = await world.look()
    assert measured is not None
    assert measured.read_at is None


async def test_the_other_source_helps_out(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    world.pods.served("c", 10)
    await world.look()
    world.pods.unreachable = {"c"}
    await world.seconds(4)
    assert world.other.asked == []
    await world.seconds(3)
    assert world.other.asked == [["c"]]
    world.other.knows = {"c"}
    world.other.away = True
    measured = await world.seconds(OTHER_SOURCE_EVERY_S)
    assert measured is not None
    assert measured.unread == ("pod-c",)
    world.other.away = False
    world.pods.served("c", 5, code=500)
    measured = await world.seconds(OTHER_SOURCE_EVERY_S)
    assert measured is not None
    assert measured.unread == ()
    # Shares are of what was seen since the first look.
    assert (measured.judgement.requests, measured.canary_arrivals) == (15, 5)
    assert measured.judgement.bad is not None
    asked = len(world.other.asked)
    world.pods.unreachable = set()
    world.pods.served("c", 2)
    measured = await world.seconds(10)
    assert measured is not None
    assert (measured.judgement.requests, len(world.other.asked)) == (17, asked)


async def test_another_rollout_is_other_evidence(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    world.pods.served("c", 10, code=500)
    measured = await world.look()
    assert measured is not None
    assert measured.judgement.bad is not None
    later = changed(MEASURE, started="2023-11-14T22:30:00Z", since="2023-11-14T22:30:00Z")
    world.clock.now += 2000.0  # its pods are older than it
    world.measurer.want(KEY, later, BOTH)
    assert world.measurer.measured(KEY) is None
    measured = await world.look()
    assert measured is not None
    assert measured.started == later.started
    assert measured.judgement.requests == 0
    assert measured.judgement.bad is None


async def test_shares_are_counted_from_the_step_on(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    await world.look()
    world.pods.served("c", 10)
    world.pods.served("s", 10)
    await world.look()
    world.measurer.want(KEY, changed(MEASURE, since="2023-11-14T22:10:00Z"), BOTH)
    world.pods.served("c", 3)
    world.pods.served("s", 4)
    measured = await world.look()
    assert measured is not None
    assert (measured.canary_arrivals, measured.stable_arrivals) == (3, 4)
    assert measured.since == "2023-11-14T22:10:00Z"
    assert measured.judgement.requests == 13


async def test_evidence_goes_on_after_a_restart_of_the_operator(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    await world.look()
    world.pods.served("c", 100)
    before = await world.look()
    assert before is not None
    await world.measurer.stop()

    again = World()
    again.clock.now = world.clock.now + 30.0
    again.pods.counters = world.pods.counters
    again.pods.served("c", 7)  # while nobody looked
    again.measurer.want(KEY, changed(MEASURE, state=before.state), BOTH)
    first = await again.look()
    assert first is not None
    assert first.judgement.requests == 100
    again.pods.served("c", 1)
    second = await again.look()
    assert second is not None
    assert second.judgement.requests == 101
    await again.measurer.stop()


async def test_the_evidence_is_written_down_without_news_too(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    await world.look()
    world.pods.served("c", 2000)
    await world.seconds(2)
    world.woken()
    world.pods.served("c", 1)
    measured = await world.seconds(DUMP_EVERY_S)
    assert measured is not None
    assert not world.woken()
    kept = Evidence.load(MEASURE.objective, measured.state)
    assert kept.judge().requests == measured.judgement.requests == 2001


@pytest.mark.parametrize("state", ["", "nonsense"])
async def test_without_a_usable_state_the_pods_remember(world: World, state: str) -> None:
    world.pods.served("c", 100)
    world.measurer.want(KEY, changed(MEASURE, state=state), BOTH)
    measured = await world.look()
    assert measured is not None
    assert measured.judgement.requests == 100


async def test_new_pods_are_read_and_old_ones_until_they_are_gone(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    await world.look()
    world.pods.served("d", 4)
    world.measurer.want(KEY, MEASURE, (*BOTH, pod("d")))
    world.pods.reads.clear()
    measured = await world.look()
    assert sorted(world.pods.reads) == ["c", "d", "s"]
    assert measured is not None
    assert measured.judgement.requests == 4
    world.measurer.want(KEY, MEASURE, BOTH[:1])
    world.pods.reads.clear()
    await world.look()
    assert world.pods.reads == ["c"]


async def test_reads_are_bounded_over_all_rollouts(world: World) -> None:
    world.pods.hold = asyncio.Event()
    for i in range(READS_AT_ONCE):
        world.measurer.want(Key("models", f"m{i}"), MEASURE, BOTH)
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.pods.at_once == READS_AT_ONCE
    world.pods.hold.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert (world.pods.most_at_once, len(world.pods.reads)) == (READS_AT_ONCE, 2 * READS_AT_ONCE)


async def test_a_defect_does_not_end_the_looking(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr("tidegate.measurement.Ledger.observe", broken)
        world.measurer.want(KEY, MEASURE, BOTH)
        assert await world.look() is None
    assert await world.look() is not None


async def test_stopping_ends_all_tasks(world: World) -> None:
    world.measurer.want(KEY, MEASURE, BOTH)
    await world.look()
    await world.measurer.stop()
    assert world.pods.closed
    assert [t for t in asyncio.all_tasks() if t.get_name().startswith("measure")] == []
    world.measurer.want(KEY, MEASURE, BOTH)
    assert world.measurer.measured(KEY) is None


# The pods themselves, over HTTP.


@dataclass
class Served:
    """An HTTP server in a pod's place."""

    answer: Answer = hang
    address: str = ""
    paths: list[str] = field(default_factory=list)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    given = Served()

    async def handle(request: web.Request) -> web.StreamResponse:
        given.paths.append(request.raw_path)
        return await given.answer(request)

    async with serving(handle) as given.address:
        yield given


async def test_a_pods_page_is_read(served: Served) -> None:
    text = page({"client_http": Cluster({200: 3}, took_ms=[1, 1, 1])}, 12)
    served.answer = answers(text=text)
    sidecars = Sidecars()
    asked = PodAt("uid", "name", "r", served.address)
    assert await sidecars.read(asked, lambda: 5.0) == read_page(
        text, pod="uid", revision="r", at_s=5.0, name="name"
    )
    assert served.paths == [PAGE]
    await sidecars.close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (answers(status=503, text="x"), "status 503"),
        (answers(status=302, headers={"Location": "/x"}), "status 302"),
        (answers(text="hello"), "no envoy_server_uptime"),
        (answers(body=b"\xff\xfe"), "no envoy_server_uptime"),
        (answers(body=b"#" * (2 << 20)), "too long"),
        (hang, "no answer within 0.2 s"),
    ],
)
async def test_what_is_no_page_is_an_error(served: Served, answer: Answer, told: str) -> None:
    served.answer = answer
    sidecars = Sidecars(timeout_s=0.2 if answer is hang else 5.0)
    with pytest.raises(ReadError, match=told):
        await sidecars.read(PodAt("uid", "name", "r", served.address), lambda: 5.0)
    await sidecars.close()


async def test_nobody_there_is_an_error(served: Served) -> None:
    sidecars = Sidecars()
    with pytest.raises(ReadError, match=r"127\.0\.0\.1"):
        await sidecars.read(PodAt("uid", "name", "r", "127.0.0.1:1"), lambda: 5.0)
    await sidecars.close()
