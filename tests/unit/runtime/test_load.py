"""Reading the load of every ModelDeployment, and waking the reconciler when it matters."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.unit.measurement.pages import Cluster, page
from tests.unit.runtime.fakes import Clock
from tidegate.actions import Load
from tidegate.api.names import REVISION_LABEL
from tidegate.api.spec import Spec, parse
from tidegate.autoscaling.demand import Demand, Source
from tidegate.autoscaling.reading import Batch, Look, TritonStats
from tidegate.autoscaling.server import LAW, Law, ServerModel
from tidegate.resources.pod import ENVOY
from tidegate.resources.sidecar import latency_edges_ms
from tidegate.runtime.cache import Key
from tidegate.runtime.load import (
    INTERVAL_S,
    OTHERS_INTERVAL_S,
    SCRAPED,
    SWITCH_S,
    UNREAD_S,
    LoadReader,
)
from tidegate.runtime.load_news import REFRESH_S
from tidegate.runtime.load_source import LoadPod, load_pods
from tidegate.runtime.pods import PodAt, ReadError
from tidegate.runtime.queue import KeyedQueue
from tidegate.sidecar_page import Reading, read_page

KEY = Key("models", "m")
EPOCH_S = 1_700_000_000.0
CONFIG = {"instance_group": [{"count": 2, "kind": "KIND_CPU"}], "max_batch_size": 8}


def spec(target: str = "120ms", **blocks: Any) -> Spec:
    return parse(
        {
            "model": {"source": {"uri": "s3://models/m/1"}},
            "slo": {"latency": {"quantile": "0.99", "target": target}},
            **blocks,
        }
    )


SCALED = Load(spec(), "net", {"r1": spec()})
OTHERS = Load(spec(), "net", {})


def pod(
    uid: str,
    revision: str = "r1",
    *,
    ip: str = "10.0.0.1",
    sidecar: bool = True,
    ready: bool = True,
) -> Any:
    return {
        "metadata": {"uid": uid, "name": f"pod-{uid}", "labels": {REVISION_LABEL: revision}},
        "spec": {"initContainers": [{"name": ENVOY}] if sidecar else []},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def demand(required: int | None = 1, **changes: Any) -> Demand:
    plain = Demand(
        at_s=0.0,
        data_s=60.0,
        ready_pods=1,
        coverage=1.0,
        age_s=0.0,
        source=Source.SIDECAR,
        arrivals_per_s=10.0,
        long_per_s=10.0,
        short_per_s=10.0,
        capacity_per_pod=50.0,
        required_replicas=required,
        required_max=required,
    )
    return replace(plain, **changes)


@dataclass
class FakePods:
    """Pods with counters that a test moves; both a source and, late, Prometheus."""

    clock: Clock
    counters: dict[str, dict[str, Cluster]] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    config_fails: bool = False
    looks: list[tuple[str, str]] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    hold: asyncio.Event | None = None
    at_once: int = 0
    most_at_once: int = 0
    closed: bool = False

    def of(self, uid: str, name: str = "client_http") -> Cluster:
        return self.counters.setdefault(uid, {}).setdefault(name, Cluster())

    def served(self, uid: str, count: int, code: int = 200, took_ms: int = 5) -> None:
        cluster = self.of(uid)
        cluster.by_status[code] = cluster.by_status.get(code, 0) + count
        cluster.took_ms += [took_ms] * count

    def reading(self, at: PodAt, at_s: float) -> Reading:
        text = page(self.counters[at.uid], int(at_s - EPOCH_S) + 900, latency_edges_ms(120))
        return read_page(text, pod=at.uid, revision=at.revision, at_s=at_s, name=at.name)

    def stats(self, uid: str) -> TritonStats:
        count = sum(self.of(uid).by_status.values())
        return TritonStats((Batch(1, count, 10.0 * count),), count, items=count)

    async def look(self, pod: LoadPod, model: str, at_s: Callable[[], float]) -> Look:
        self.looks.append((pod.at.uid, model))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if pod.at.uid not in self.counters or pod.at.uid in self.unreachable:
                raise ReadError("connection refused")
            triton = self.stats(pod.at.uid) if model else None
            if not pod.sidecar:
                return Look(pod.at.uid, at_s(), None, replace(triton or TritonStats(), pending=3))
            return Look(pod.at.uid, at_s(), self.reading(pod.at, at_s()), triton)
        finally:
            self.at_once -= 1

    async def config(self, pod: LoadPod, model: str) -> Mapping[str, Any]:
        self.configs.append(pod.at.uid)
        if self.config_fails:
            raise ReadError("status 400")
        return CONFIG

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeOther:
    """The other source: knows some pods, some seconds late."""

    pods: FakePods
    knows: set[str] = field(default_factory=set)
    asked: list[tuple[list[str], str]] = field(default_factory=list)
    away: bool = False

    async def looks(self, key: Key, pods: Sequence[LoadPod], model: str) -> list[Look]:
        self.asked.append(([p.at.uid for p in pods], model))
        if self.away:
            raise ReadError("no answer")
        at_s = EPOCH_S + self.pods.clock() - 3.0
        return [
            Look(p.at.uid, at_s, self.pods.reading(p.at, at_s), None)
            for p in pods
            if p.at.uid in self.knows
        ]

    async def close(self) -> None:
        pass


@dataclass
class FakeWatcher:
    """Says what a test wants said."""

    model: ServerModel
    law: Law
    says: Callable[[], Demand | None]
    seen: list[tuple[float, list[Look], list[str]]] = field(default_factory=list)

    def observe(self, at_s: float, looks: Iterable[Look], *, ready: Sequence[str]) -> Demand | None:
        self.seen.append((at_s, list(looks), list(ready)))
        return self.says()


async def _at_once(work: Callable[[], None]) -> None:
    work()


class World:
    """A reader whose time passes when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.queue: KeyedQueue[Key] = KeyedQueue(clock=self.clock)
        self.pods = FakePods(self.clock)
        self.other = FakeOther(self.pods)
        self.watchers: list[FakeWatcher] = []
        self.refills: list[float] = []
        self.demand: Demand | None = None
        self.pauses: list[float] = []
        self._sleeping: list[asyncio.Future[None]] = []
        self.draws = itertools.cycle([0.4])
        self.reader = LoadReader(
            self.queue,
            self.pods,
            self.other,
            reads=asyncio.Semaphore(4),
            watchers=self._watcher,
            refill=lambda: self.refills.append(self.clock.now),
            compute=_at_once,
            clock=self.clock,
            epoch_s=EPOCH_S,
            sleep=self._sleep,
            draw=lambda: next(self.draws),
        )

    def _watcher(self, model: ServerModel, law: Law) -> FakeWatcher:
        self.watchers.append(FakeWatcher(model, law, lambda: self.demand))
        return self.watchers[-1]

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        future = asyncio.get_running_loop().create_future()
        self._sleeping.append(future)
        await future

    async def settle(self) -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
            if self._sleeping:
                return

    async def look(self) -> None:
        """Let the pause pass, and the next look happen; for one ModelDeployment."""
        await self.settle()
        sleeping, self._sleeping = self._sleeping, []
        if sleeping:
            self.clock.now += self.pauses[-1]
        for future in sleeping:
            if not future.cancelled():
                future.set_result(None)
        await self.settle()

    async def seconds(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            await self.look()

    def woken(self) -> bool:
        """Whether the key was handed out since the last call."""
        key = self.queue.schedule.pop(self.clock.now)
        if key is not None:
            self.queue.succeeded(key)
        return key is not None


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.pods.of("a")
    yield made
    await made.reader.stop()


def test_whom_to_ask() -> None:
    pods = [
        pod("a"),
        pod("b", "r2", ip="fd00::1", sidecar=False),
        pod("starting", ready=False),
        {**pod("over"), "status": {"phase": "Failed", "podIP": "10.0.0.9"}},
        {**pod("waiting"), "status": {"phase": "Pending"}},
        {"metadata": {"uid": "bare", "name": "bare"}},
    ]
    found = load_pods(pods)
    assert [(p.at.uid, p.at.revision, p.sidecar) for p in found] == [
        ("a", "r1", True),
        ("b", "r2", False),
        ("starting", "r1", True),
    ]
    assert [p.host for p in found] == ["10.0.0.1", "[fd00::1]", "10.0.0.1"]


async def test_nothing_is_read_unless_wanted(world: World) -> None:
    world.reader.want(KEY, None, [pod("a")])
    await world.look()
    assert world.pods.looks == []
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    assert world.pods.looks == [("a", "net")]
    world.reader.want(KEY, None, [pod("a")])
    await world.look()
    assert len(world.pods.looks) == 1
    assert world.reader.attained(KEY) is None


@pytest.mark.parametrize(
    ("load", "interval_s", "model"), [(SCALED, INTERVAL_S, "net"), (OTHERS, OTHERS_INTERVAL_S, "")]
)
async def test_how_often_and_what(world: World, load: Load, interval_s: float, model: str) -> None:
    world.reader.want(KEY, load, [pod("a")])
    for _ in range(3):
        await world.look()
    # First at a random moment of the interval, then by the clock.
    assert world.pauses == pytest.approx([0.4 * interval_s, *[interval_s] * 3])
    assert set(world.pods.looks) == {("a", model)}
    assert bool(world.watchers) is bool(load.scaled)


async def test_a_slow_look_does_not_shift_the_next(world: World) -> None:
    world.pods.hold = asyncio.Event()
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    world.clock.now += 1.5
    world.pods.hold.set()
    await world.settle()
    assert world.pauses[-1] == pytest.approx(INTERVAL_S - 1.5)


async def test_what_an_observer_is_shown(world: World) -> None:
    for uid in ("b", "old", "new"):
        world.pods.of(uid)
    world.pods.served("b", 7)
    load = Load(spec(), "net", {"r1": spec(), "r2": spec("60ms")})
    pods = [pod("a"), pod("b", ready=False), pod("new", "r2"), pod("old", "r0"), pod("gone")]
    world.reader.want(KEY, load, pods)
    await world.look()
    first, second = world.watchers
    at_s, looks, ready = first.seen[0]
    assert at_s == EPOCH_S + world.clock.now
    assert [x.pod for x in looks] == ["a", "b"]
    assert ready == ["a", "gone"]
    assert looks[1].triton == TritonStats((Batch(1, 7, 70.0),), 7, items=7)
    assert isinstance(looks[1].reading, Reading)
    assert [x.pod for x in second.seen[0][1]] == ["new"]
    assert (first.model.target_ms, second.model.target_ms) == (120.0, 60.0)
    assert ("old", "") in world.pods.looks  # for what clients get only


async def test_tritons_own_configuration_is_learned_once(world: World) -> None:
    world.pods.config_fails = True
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    await world.look()
    assert world.watchers[0].model.instances == 1
    world.pods.config_fails = False
    for _ in range(3):
        await world.look()
    assert world.watchers[0].model.instances == 2
    assert world.pods.configs == ["a"] * 3
    assert len(world.watchers) == 1  # what was learned is kept


async def test_an_edited_objective_reaches_the_observer(world: World) -> None:
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    world.pods.served("a", 100)
    await world.look()
    assert world.reader.attained(KEY) is not None
    edited = spec("60ms")
    world.reader.want(KEY, Load(edited, "net", {"r1": edited}), [pod("a")])
    assert world.reader.attained(KEY) is None  # begun anew
    await world.look()
    assert world.watchers[0].model.target_ms == 60.0
    assert len(world.watchers) == 1


async def test_a_revision_that_is_gone_is_forgotten(world: World) -> None:
    world.demand = demand()
    both = Load(spec(), "net", {"r1": spec(), "r2": spec()})
    world.reader.want(KEY, both, [pod("a")])
    await world.look()
    assert set(world.reader.demands(KEY)) == {"r1", "r2"}
    world.reader.want(KEY, SCALED, [pod("a")])
    assert set(world.reader.demands(KEY)) == {"r1"}


async def test_what_clients_got_and_what_pods_owe(world: World) -> None:
    world.pods.of("b")
    world.reader.want(KEY, SCALED, [pod("a"), pod("b", "r2"), pod("c")])
    await world.look()
    world.pods.served("a", 150)
    world.pods.served("b", 40)
    world.pods.served("b", 10, code=500, took_ms=300)
    world.pods.of("b").in_flight = 4
    world.pods.of("b", "golden_http").in_flight = 9  # our own: nobody misses them
    await world.look()
    found = world.reader.attained(KEY)
    assert found is not None
    assert (found.answered, found.failed, found.timed, found.slow) == (200, 10, 200, 10)
    assert (found.latency_met, found.errors_met) == (False, False)
    assert world.reader.in_flight(KEY) == {"a": 0, "b": 4}


async def test_pods_without_a_sidecar(world: World) -> None:
    world.reader.want(KEY, SCALED, [pod("a", sidecar=False)])
    await world.look()
    [(_, [look], _)] = world.watchers[0].seen
    assert look.reading is None
    assert look.triton is not None
    assert world.reader.in_flight(KEY) == {"a": 3}
    # Nothing counts what their clients get.
    world.reader.want(KEY, OTHERS, [pod("a", sidecar=False)])
    world.pods.looks.clear()
    await world.look()
    assert world.pods.looks == []


async def test_pods_are_read_side_by_side_within_the_shared_bound(world: World) -> None:
    for n in range(9):
        world.pods.of(str(n))
    world.reader.want(KEY, SCALED, [pod(str(n)) for n in range(9)])
    await world.look()
    assert world.pods.most_at_once == 1  # nothing waits here
    world.pods.hold = asyncio.Event()
    await world.look()
    assert world.pods.at_once == 4
    world.pods.hold.set()
    await world.settle()
    assert len(world.watchers[0].seen) == 2


# Waking.


async def test_woken_when_replicas_may_change_and_not_else(world: World) -> None:
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    assert world.woken()
    for said, wakes in (
        (None, False),
        (demand(1), True),
        (demand(1, arrivals_per_s=10.2), False),
        (demand(2), True),
        (demand(2), False),
        (demand(1, required_max=2), True),
        (demand(1, required_max=1), True),
        (demand(1, infeasible=True), True),
        (demand(1, coverage=0.3), True),
        (demand(1, coverage=0.2), False),
        (demand(1, age_s=16.0), True),
        (demand(1, age_s=21.0), False),
        (demand(1, capacity_per_pod=None), True),
    ):
        world.demand = said
        await world.look()
        assert world.woken() is wakes, said


async def test_woken_when_an_objective_is_missed_and_kept_again(world: World) -> None:
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    world.pods.served("a", 200)
    await world.look()
    world.woken()
    world.pods.served("a", 50)
    await world.look()
    assert not world.woken()
    world.pods.served("a", 50, took_ms=400)
    await world.look()
    assert world.woken()
    world.pods.served("a", 100_000)
    await world.look()
    assert world.woken()


async def test_figures_alone_wake_once_a_minute_at_most(world: World) -> None:
    world.demand = demand(arrivals_per_s=10.0)
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    assert world.woken()
    woken_at = world.clock.now
    while not world.woken():
        world.demand = demand(arrivals_per_s=world.clock.now)
        await world.look()
    assert world.clock.now - woken_at == REFRESH_S
    # A small change is none, however long it lasts.
    world.demand = demand(arrivals_per_s=world.clock.now * 0.95)
    await world.seconds(3 * REFRESH_S)
    assert not world.woken()


# Pods that do not answer.


async def test_a_silent_pod_is_looked_up_elsewhere(world: World) -> None:
    world.pods.of("b")
    world.other.knows = {"b"}
    world.reader.want(KEY, SCALED, [pod("a"), pod("b")])
    await world.look()
    world.pods.unreachable = {"b"}
    began = world.clock.now
    while not world.other.asked:
        await world.look()
    assert world.clock.now - began == UNREAD_S
    assert world.other.asked == [(["b"], "net")]
    looks = {x.pod: x.at_s for x in world.watchers[0].seen[-1][1]}
    now = EPOCH_S + world.clock.now
    assert looks == {"a": now, "b": now - 3.0}
    world.pods.unreachable = set()
    await world.look()
    assert len(world.other.asked) == 1


async def test_nobody_knows_is_no_zero(world: World) -> None:
    world.other.away = True
    world.pods.unreachable = {"a"}
    world.reader.want(KEY, SCALED, [pod("a")])
    for _ in range(4):
        await world.look()
    assert world.other.asked
    assert [looks for _, looks, _ in world.watchers[0].seen] == [[]] * 4
    assert {tuple(ready) for _, _, ready in world.watchers[0].seen} == {("a",)}
    assert world.reader.in_flight(KEY) == {}


async def test_the_law_goes_by_the_pace_of_its_source(world: World) -> None:
    world.other.knows = {"a"}
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    world.pods.unreachable = {"a"}
    await world.seconds(SWITCH_S - INTERVAL_S)
    assert [w.law for w in world.watchers] == [LAW]
    await world.seconds(INTERVAL_S)
    assert [w.law for w in world.watchers] == [LAW, SCRAPED]
    await world.seconds(60)
    assert len(world.watchers) == 2
    world.pods.unreachable = set()
    await world.seconds(SWITCH_S + INTERVAL_S)
    assert [w.law for w in world.watchers] == [LAW, SCRAPED, LAW]
    await world.seconds(60)
    assert len(world.watchers) == 3


# Defects and ends.


async def test_a_defect_in_one_look_does_not_end_it(world: World) -> None:
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()

    def fail() -> Demand | None:
        raise ZeroDivisionError

    world.watchers[0].says = fail
    await world.look()
    world.watchers[0].says = lambda: demand(3)
    await world.look()
    assert world.reader.demands(KEY)["r1"].required_replicas == 3


async def test_the_capacity_models_budget_is_refilled_once_an_interval(world: World) -> None:
    load = SCALED
    world.draws = itertools.cycle([0.0, 0.5])
    other = Key("models", "n")
    world.reader.want(KEY, load, [pod("a")])
    world.reader.want(other, load, [pod("a")])
    await world.settle()
    for _ in range(7):
        await world.reader.look(KEY)
        world.clock.now += INTERVAL_S / 2
        await world.reader.look(other)
        world.clock.now += INTERVAL_S / 2
    assert world.refills == [1000.0 + INTERVAL_S * n for n in range(7)]


async def test_stopping(world: World) -> None:
    world.reader.want(KEY, SCALED, [pod("a")])
    await world.look()
    await world.reader.stop()
    assert world.pods.closed
    world.reader.want(KEY, SCALED, [pod("a")])
    assert world.reader.demands(KEY) == {}
