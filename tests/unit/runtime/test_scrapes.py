"""Load by way of Prometheus: the same readings, the same demand, few questions."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.measurement.pages import Cluster, page, samples
from tests.unit.runtime.fakes import Clock
from tidegate.api.spec import parse
from tidegate.attainment import Objective, Window
from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.observer import Observer
from tidegate.autoscaling.reading import Look, read_metrics
from tidegate.autoscaling.server import server_model
from tidegate.resources.sidecar import latency_edges_ms
from tidegate.runtime.cache import Key
from tidegate.runtime.load import SCRAPED
from tidegate.runtime.load_source import LoadPod
from tidegate.runtime.pods import PodAt, ReadError
from tidegate.runtime.prometheus import STALE_S
from tidegate.runtime.scrapes import (
    AT_ONCE,
    FRESH_S,
    SIDECAR_SIGNALS,
    TRITON_SIGNAL,
    WANTED_S,
    Scrapes,
    look_of,
    scraped,
)
from tidegate.sidecar_page import read_page

NOW = 1_700_000_000.0
KEY = Key("models", "m")
PODS = tuple(
    LoadPod(PodAt(f"uid-{n}", f"pod-{n}", "r1", f"10.0.0.{n}:9091"), sidecar=True) for n in (1, 2)
)
EDGES = latency_edges_ms(100)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Served:
    """What one pod has done so far: only batches of one item."""

    ok: int = 0
    failed: int = 0
    slow: int = 0
    in_flight: int = 0

    def clusters(self) -> dict[str, Cluster]:
        took = [20] * (self.ok - self.slow) + [150] * self.slow
        return {
            "client_http": Cluster(
                {200: self.ok, 500: self.failed, 503: 1},
                took_ms=took,
                in_flight=self.in_flight,
                overflow=1,
            ),
            "pinned_grpc": Cluster(by_grpc_status={0: 2}),
        }

    def metrics(self) -> str:
        done, of = self.ok + self.failed, 'model="net",version="1"'
        lines = [f"nv_inference_request_success{{{of}}} {done}"]
        for reason in ("OTHER", "REJECTED"):
            failure = f'{{model="net",reason="{reason}",version="1"}}'
            lines.append(f"nv_inference_request_failure{failure} 0")
        lines += [
            f"nv_inference_count{{{of}}} {done}",
            f"nv_inference_exec_count{{{of}}} {done}",
            f"nv_inference_compute_input_duration_us{{{of}}} {100 * done}",
            f"nv_inference_compute_infer_duration_us{{{of}}} {18_000 * done}",
            f"nv_inference_compute_output_duration_us{{{of}}} {50 * done}",
            f"nv_inference_pending_request_count{{{of}}} {self.in_flight}",
            'nv_inference_count{model="other",version="1"} 5',
        ]
        return "\n".join(lines) + "\n"

    def look(self, pod: LoadPod, at_s: float, uptime_s: float) -> Look:
        """Read directly, from the pages themselves."""
        at = pod.at
        text = page(self.clusters(), uptime_s, EDGES)
        reading = read_page(text, pod=at.uid, revision=at.revision, at_s=at_s, name=at.name)
        return Look(at.uid, at_s, reading, read_metrics(self.metrics(), model="net"))


def matrix(
    pod: LoadPod, served: Served, at_s: float, uptime_s: float, **labels: str
) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """What Prometheus answers about one pod: to each of the sidecar's signals, and to Triton's."""
    target = {
        "namespace": "models",
        "pod": pod.at.name,
        "tidegate_dev_deployment": "m",
        "instance": pod.at.address,
        "job": "models/m",
        **labels,
    }

    def series(name: str, own: Mapping[str, str], value: str, endpoint: str) -> dict[str, Any]:
        metric = {"__name__": name, **own, **target, "endpoint": endpoint}
        return {"metric": metric, "values": [[at_s - 15.0, "0"], [at_s, value]]}

    page_samples = list(samples(served.clusters(), uptime_s, EDGES))
    sidecars = [
        [
            series(name, dict(_LABEL.findall(inner)), value, "internal")
            for name, inner, value in page_samples
            if re.fullmatch(names, name)
        ]
        for names in SIDECAR_SIGNALS.values()
    ]
    triton = []
    for line in served.metrics().splitlines():
        key, _, value = line.rpartition(" ")
        name, _, inner = key.partition("{")
        assert re.fullmatch(TRITON_SIGNAL, name), name
        triton.append(series(name, dict(_LABEL.findall(inner)), value, "metrics"))
    return sidecars, triton


def looks_of(
    answers: Sequence[tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]], now_s: float
) -> list[Look]:
    """Looks at both pods from the answers about each."""
    signals = [[s for a in answers for s in a[0][n]] for n in range(len(SIDECAR_SIGNALS))]
    found = scraped(signals, [s for a in answers for s in a[1]], now_s)
    looks = [
        look_of(pod, found["models", pod.at.name], "net")
        for pod in PODS
        if ("models", pod.at.name) in found
    ]
    return [look for look in looks if look is not None]


def test_both_ways_come_to_the_same() -> None:
    """The same counters, read and scraped: equal looks, equal demands, equal figures."""
    spec = parse(
        {
            "model": {"source": {"uri": "s3://models/m/1"}},
            "slo": {"latency": {"quantile": "0.99", "target": "100ms"}},
        }
    )
    observers = [Observer(server_model(spec), Capacities(), SCRAPED) for _ in range(2)]
    windows = [Window(Objective(100, 0.99, 0.01)) for _ in range(2)]
    states = {pod: Served() for pod in PODS}
    demands = figures = None
    for tick in range(20):
        at_s, uptime_s = NOW + 15.0 * tick, 60.0 + 15.0 * tick
        for n, served in enumerate(states.values()):
            served.ok += 240 + 30 * n + 17 * (tick % 3)
            served.failed += tick % 2
            served.slow += tick % 4
            served.in_flight = (3 * tick + n) % 5
        direct = [served.look(pod, at_s, uptime_s) for pod, served in states.items()]
        other = looks_of(
            [matrix(pod, served, at_s, uptime_s) for pod, served in states.items()], at_s + 2
        )
        assert other == direct
        ready = [pod.at.uid for pod in PODS]
        demands = [
            observer.observe(at_s + 2, looks, ready=ready)
            for observer, looks in zip(observers, (direct, other), strict=True)
        ]
        figures = [
            window.observe(at_s + 2, [x.reading for x in looks if x.reading])  # type: ignore[misc]
            for window, looks in zip(windows, (direct, other), strict=True)
        ]
        assert demands[0] == demands[1]
        assert figures[0] == figures[1]
    assert demands is not None
    assert figures is not None
    found, got = demands[0], figures[0]
    assert found is not None
    assert got is not None
    assert found.arrivals_per_s == pytest.approx((240 + 270 + 34) / 15, rel=0.1)
    assert found.service is not None
    assert found.service.of(1) == pytest.approx(18.15)
    assert found.required_replicas is not None
    assert got.failed > 0
    assert got.slow


def test_a_scrape_that_not_every_signal_has_is_not_taken() -> None:
    """A scrape may come between two questions: what belongs together has one time."""
    served = Served(100)
    older, newer = matrix(PODS[0], served, NOW, 60), matrix(PODS[0], Served(200), NOW + 15, 75)
    # The first two were asked before, the last after the scrape.
    mixed = [older[0][0], older[0][1], newer[0][2]]
    for series in mixed[2]:
        before = [s for s in older[0][2] if s["metric"] == series["metric"]]
        series["values"][0] = [NOW, before[0]["values"][1][1] if before else "0"]
    [look] = looks_of([(mixed, older[1])], NOW + 16)
    assert look.reading == served.look(PODS[0], NOW, 60).reading


def test_a_pod_that_is_scraped_twice_is_read_once() -> None:
    twice = [
        matrix(PODS[0], Served(50), NOW - 5, 60, prometheus="a"),
        matrix(PODS[0], Served(70), NOW, 65, prometheus="b"),
    ]
    assert looks_of(twice, NOW) == [Served(70).look(PODS[0], NOW, 65)]


def test_stale_samples_are_no_data() -> None:
    answers = [matrix(PODS[0], Served(9), NOW, 60)]
    assert len(looks_of(answers, NOW + STALE_S)) == 1
    assert looks_of(answers, NOW + STALE_S + 1) == []


def test_triton_alone() -> None:
    """Pods without a sidecar."""
    _, triton = matrix(PODS[0], Served(9, in_flight=2), NOW, 60)
    [look] = looks_of([([[], [], []], triton)], NOW)
    assert look.reading is None
    assert look.triton is not None
    assert (look.triton.succeeded, look.triton.pending) == (9, 2)


def test_without_a_model_to_ask_for() -> None:
    sidecars, triton = matrix(PODS[0], Served(9), NOW, 60)
    found = scraped(sidecars, triton, NOW)["models", "pod-1"]
    look = look_of(PODS[0], found, "")
    assert look is not None
    assert (look.at_s, look.triton) == (NOW, None)


@pytest.mark.parametrize("answer", [[1], [{}], [{"metric": {}, "values": []}]])
def test_an_answer_of_another_shape_is_an_error(answer: list[Any]) -> None:
    with pytest.raises(ReadError, match="not Prometheus'"):
        scraped([answer] * 3, [], NOW)
    with pytest.raises(ReadError, match="not Prometheus'"):
        scraped([], answer, NOW)


# Asking.


@dataclass
class FakePrometheus:
    """Answers about every pod; remembers the questions."""

    asked: list[str] = field(default_factory=list)
    fails: bool = False
    hold: asyncio.Event | None = None
    closed: bool = False

    async def ask(self, text: str) -> list[Any]:
        self.asked.append(text)
        if self.hold is not None:
            await self.hold.wait()
        if self.fails:
            raise ReadError("no answer within 5 s")
        sidecars, triton = matrix(PODS[0], Served(9), NOW, 60)
        for names, answer in zip(SIDECAR_SIGNALS.values(), sidecars, strict=True):
            if f'"{names}"' in text:
                return answer
        return triton

    async def close(self) -> None:
        self.closed = True


@dataclass
class World:
    """Scrapes, and a clock."""

    clock: Clock = field(default_factory=Clock)
    prometheus: FakePrometheus = field(default_factory=FakePrometheus)

    def __post_init__(self) -> None:
        self.scrapes = Scrapes(self.prometheus, clock=self.clock, now=lambda: NOW)  # type: ignore[arg-type]

    async def looks(self, key: Key = KEY) -> list[Look]:
        return await self.scrapes.looks(key, PODS, "net")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.scrapes.close()


async def test_one_question_for_each_signal(world: World) -> None:
    assert await world.looks() == [Served(9).look(PODS[0], NOW, 60)]
    assert len(world.prometheus.asked) == 4
    for names, text in zip(
        [*SIDECAR_SIGNALS.values(), TRITON_SIGNAL], world.prometheus.asked, strict=True
    ):
        assert f'__name__=~"{names}"' in text
        assert 'namespace=~"models",tidegate_dev_deployment=~"m"}[30s]' in text


async def test_everybody_shares_the_questions(world: World) -> None:
    keys = [Key("models", f"m{n}") for n in range(10)]
    world.prometheus.hold = asyncio.Event()
    waiting = [asyncio.create_task(world.looks(key)) for key in keys]
    await asyncio.sleep(0)
    world.prometheus.hold.set()
    await asyncio.gather(*waiting)
    assert len(world.prometheus.asked) == 4
    assert "m0|m1|m2" in world.prometheus.asked[0]
    await asyncio.gather(*(world.looks(key) for key in keys))
    assert len(world.prometheus.asked) == 4  # still fresh
    world.clock.now += FRESH_S
    await asyncio.gather(*(world.looks(key) for key in keys))
    assert len(world.prometheus.asked) == 8
    # Who asks no more is not asked for.
    world.clock.now += WANTED_S
    await world.looks(keys[3])
    assert 'deployment=~"m3"}' in world.prometheus.asked[-1]


async def test_many_are_asked_for_in_pieces(world: World) -> None:
    world.scrapes._wanted = {Key("models", f"m{n}"): world.clock() for n in range(AT_ONCE)}
    await world.looks(Key("other.ns", "one"))
    assert len(world.prometheus.asked) == 8
    assert 'namespace=~"other[.]ns"' in world.prometheus.asked[-1]


async def test_what_fails_is_told_to_all_and_not_asked_again_at_once(world: World) -> None:
    world.prometheus.fails = True
    for _ in range(3):
        with pytest.raises(ReadError, match="no answer within"):
            await world.looks()
    assert len(world.prometheus.asked) == 1
    world.prometheus.fails = False
    world.clock.now += FRESH_S
    assert await world.looks()


async def test_one_that_leaves_takes_the_answer_from_nobody(world: World) -> None:
    world.prometheus.hold = asyncio.Event()
    leaves, stays = asyncio.create_task(world.looks()), asyncio.create_task(world.looks())
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.sleep(0)
    world.prometheus.hold.set()
    assert await stays
    assert len(world.prometheus.asked) == 4
