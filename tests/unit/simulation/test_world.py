"""The simulated cluster: nothing gets lost, the same seed gives the same, and things go wrong."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.simulation.hpa import Hpa, Metric
from tidegate.simulation.load import CONSTANT, Drift, Load, diurnal, flash_crowd, steady
from tidegate.simulation.pod import Pod, Server
from tidegate.simulation.world import (
    Balancing,
    Fault,
    Kind,
    Outcome,
    View,
    World,
    quantile,
    simulate,
)

SERVER = Server(0.05, 0.02, cv=0.2, max_batch=4, queue=30, target_s=0.3)


class Told:
    """So many replicas from some time on."""

    interval_s = 5.0

    def __init__(self, *steps: tuple[float, int]) -> None:
        self.steps = steps
        self.views: list[View] = []

    def decide(self, view: View) -> int:
        self.views.append(view)
        return [n for t, n in self.steps if t <= view.now_s][-1]


def run(world: World, *steps: tuple[float, int], seed: int = 1) -> tuple[Outcome, Told]:
    law = Told(*steps or ((0.0, world.initial),))
    return simulate(world, law, seed), law


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    rate=st.floats(0.0, 80.0),
    steps=st.lists(st.integers(0, 6), min_size=1, max_size=8),
    balancing=st.sampled_from(Balancing),
    faults=st.lists(
        st.builds(
            Fault,
            kind=st.sampled_from(Kind),
            begin_s=st.floats(0, 100),
            size=st.floats(0.1, 1.0),
        ),
        max_size=3,
    ),
)
def test_every_request_ends_somewhere(
    seed: int, rate: float, steps: list[int], balancing: Balancing, faults: list[Fault]
) -> None:
    world = World(
        SERVER,
        steady(rate, 100),
        cold_start_s=15,
        least=0,
        initial=2,
        balancing=balancing,
        faults=tuple(faults),
    )
    told = [(i * 100 / len(steps), n) for i, n in enumerate(steps)]
    outcome, law = run(world, *told, seed=seed)
    assert outcome.arrived == len(world.load.arrivals(seed))
    ended = outcome.answered + outcome.refused + outcome.failed
    assert outcome.arrived == ended + outcome.in_flight
    assert min(vars(outcome)[k] for k in ("in_flight", "refused", "failed", "late", "gpu_s")) >= 0
    assert sum(outcome.histogram) <= outcome.answered + outcome.failed
    assert outcome.in_flight == 0
    assert all(v.totals.area_s >= -1e-6 for v in law.views)


@pytest.mark.parametrize("balancing", Balancing)
def test_the_same_seed_gives_the_same_and_another_something_else(balancing: Balancing) -> None:
    world = World(SERVER, diurnal(60, 200, 4), initial=2, balancing=balancing)
    first, again, other = (
        simulate(world, Hpa(Metric.UTILISATION, 0.6), seed) for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


def test_an_idle_fleet_costs_its_pods() -> None:
    outcome, _ = run(World(SERVER, steady(0.0, 1000), initial=3))
    assert outcome.gpu_s == pytest.approx(3000)
    assert outcome.attainment == 1.0
    assert outcome.arrived == 0


def test_a_pod_that_starts_costs_and_does_not_serve() -> None:
    world = World(SERVER, steady(1.0, 300), cold_start_s=100, cold_start_sigma=0.0)
    outcome, law = run(world, (0.0, 1), (50.0, 2))
    assert outcome.gpu_s == pytest.approx(300 + 250)
    ready = {view.now_s: view.ready for view in law.views}
    assert (ready[145.0], ready[150.0]) == (1, 2)


def test_a_pod_that_goes_answers_what_it_has() -> None:
    world = World(replace(SERVER, queue=None), steady(100.0, 60), initial=3, drain_s=10)
    outcome, law = run(world, (0.0, 3), (30.0, 1))
    assert outcome.answered == outcome.arrived
    assert len(law.views[6].leaving) == 2
    assert outcome.gpu_s >= 60 + 2 * 40


def test_pods_without_a_node_go_first_then_those_that_are_not_ready_then_the_youngest() -> None:
    world = World(
        SERVER, steady(1.0, 200), cold_start_s=20, cold_start_sigma=0.0, initial=1, gpus=3
    )
    _, law = run(world, (0.0, 1), (10.0, 2), (60.0, 5), (70.0, 3), (75.0, 2), (80.0, 1))
    names = {view.now_s: {p.name for p in view.pods} for view in law.views}
    assert law.views[12].waiting_for_gpu == 2
    assert names[75.0] == {"pod-00001", "pod-00002", "pod-00003"}
    assert names[80.0] == {"pod-00001", "pod-00002"}
    assert names[85.0] == {"pod-00001"}


def test_a_pod_gets_the_gpu_that_another_leaves() -> None:
    world = World(
        SERVER,
        steady(1.0, 300),
        cold_start_s=20,
        initial=1,
        gpus=10,
        faults=(Fault(Kind.GPUS, 0.0, 100.0, 1),),
    )
    _, law = run(world, (0.0, 2))
    waiting = {view.now_s: view.waiting_for_gpu for view in law.views}
    assert (waiting[50.0], waiting[110.0]) == (1, 0)
    assert law.views[-1].ready == 2


def test_without_a_ready_pod_requests_are_refused() -> None:
    outcome, _ = run(World(SERVER, steady(10.0, 60), least=0, initial=0), (0.0, 0))
    assert outcome.refused == outcome.arrived > 0
    assert outcome.attainment == 0.0


def test_a_crash_loses_what_is_in_the_pod_and_another_starts() -> None:
    world = World(
        replace(SERVER, queue=None),
        steady(30.0, 200),
        cold_start_s=20,
        initial=1,
        faults=(Fault(Kind.CRASH, 100.0),),
    )
    outcome, law = run(world)
    assert outcome.failed >= 1
    assert 200 < outcome.refused < 1200
    assert law.views[-1].ready == 1


@pytest.mark.parametrize(
    ("fault", "worse"),
    [
        (Fault(Kind.SLOW, 0.0, size=3.0), "late"),
        (Fault(Kind.ERRORS, 0.0, size=0.2), "failed"),
    ],
)
def test_faults_show(fault: Fault, worse: str) -> None:
    world = World(SERVER, steady(30.0, 200), initial=2)
    good, _ = run(world)
    bad, _ = run(replace(world, faults=(fault,)))
    assert vars(bad)[worse] > vars(good)[worse] + 50


def test_a_law_that_cannot_read_changes_nothing() -> None:
    lost = Fault(Kind.NO_METRICS, 100.0)
    world = World(SERVER, flash_crowd(20.0, 400), initial=1, faults=(lost,))
    outcome = simulate(world, Hpa(Metric.RPS, 20.0), 1)
    later = {m.desired for m in outcome.moments if m.at_s >= 120}
    assert len(later) == 1


def test_what_a_law_reads_is_as_old_as_the_lag() -> None:
    _, law = run(World(SERVER, steady(30.0, 100), initial=2, lag_s=20.0))
    _, fresh = run(World(SERVER, steady(30.0, 100), initial=2))
    assert law.views[10].totals.started == fresh.views[6].totals.started


def test_service_times_drift() -> None:
    drift = Drift(((100.0, 1.0), (200.0, 3.0)))
    assert [drift.factor(t) for t in (0, 100, 150, 200, 900)] == [1.0, 1.0, 2.0, 3.0, 3.0]
    assert CONSTANT.factor(5.0) == 1.0
    world = World(SERVER, steady(40.0, 300), initial=2, drift=drift)
    outcome, _ = run(world)
    assert outcome.late > 1000


def test_quantile_of_a_histogram() -> None:
    edges = (1.0, 2.0, 4.0)
    assert quantile([0, 0, 0, 0], edges, 0.5) is None
    assert quantile([10, 10, 0, 0], edges, 0.5) == pytest.approx(1.0)
    assert quantile([10, 10, 0, 0], edges, 0.75) == pytest.approx(1.5)
    assert quantile([0, 0, 10, 0], edges, 0.5) == pytest.approx(3.0)
    assert quantile([0, 0, 0, 3], edges, 0.5) == 4.0


def test_a_load_is_checked() -> None:
    for bad in ({"rates": ()}, {"rates": (-1.0,)}, {"step_s": 0.0}, {"scv": 0.0}):
        with pytest.raises(ValueError, match=r"step|rate|scv"):
            Load(**{"name": "x", "rates": (1.0,), "step_s": 5.0, **bad})  # type: ignore[arg-type]


@given(
    times=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=60),
    queue=st.none() | st.integers(1, 5),
    batch=st.integers(1, 4),
    delay_s=st.sampled_from((0.0, 0.3)),
    instances=st.integers(1, 2),
    steps=st.integers(1, 40),
)
def test_nothing_is_answered_before_it_came(
    times: list[float],
    queue: int | None,
    batch: int,
    delay_s: float,
    instances: int,
    steps: int,
) -> None:
    """And how finely time is cut changes nothing but who is counted when."""
    server = Server(
        0.5, 0.1, max_batch=batch, queue=queue, delay_s=delay_s, instances=instances, target_s=1.0
    )
    ends = []
    for n in (1, steps):
        pod = Pod("uid", server, (0.5999, 1.0, 100.0), 1, 0.0, 0.0)
        ordered, i = sorted(times), 0
        for k in range(n):
            until = 60.0 * (k + 1) / n
            while i < len(ordered) and ordered[i] < until:
                pod.queue.append(ordered[i])
                i += 1
            pod.advance(until)
        counters = pod.counters
        assert counters.histogram[0] == 0
        assert counters.answered + counters.refused == counters.started == len(times)
        assert pod.idle
        ends.append((counters.refused, counters.late, counters.batches.keys()))
    assert ends[0] == ends[1]
