"""From looks at pods to a demand: what is counted, what is not known, and what is said of it."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.autoscaling.pods import START_S, Pod, Stream
from tests.unit.autoscaling.world import MODEL, TICK_S, World
from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.demand import Source
from tidegate.autoscaling.observer import Observer, draining_replicas
from tidegate.autoscaling.reading import Look, TritonStats
from tidegate.autoscaling.server import LAW, Law
from tidegate.resources.sidecar import TrafficClass
from tidegate.sidecar_page import Counts, Reading


def test_nothing_is_said_in_the_first_intervals() -> None:
    said = list(World(triton=False).run(20.0, 30.0))
    assert [demand is not None for demand in said] == [False] * 2 + [True] * 4
    assert said[2] is not None
    assert said[2].data_s == 15.0


def test_in_the_first_minute_chance_passes_for_no_load() -> None:
    """Of what was counted one standard error is taken off."""
    for demand in World(triton=False).run(100.0, 70.0):
        if demand is None:
            continue
        if demand.data_s < LAW.least_s:
            error = math.sqrt(demand.dispersion * demand.long_per_s / demand.data_s)
            assert demand.arrivals_per_s == pytest.approx(demand.long_per_s - error)
        else:
            assert demand.arrivals_per_s >= demand.long_per_s


def test_what_is_learned_of_a_server_at_ease() -> None:
    demand = World(2, noise=True).after(100.0, 200.0)
    assert demand.source is Source.SIDECAR
    assert demand.arrivals_per_s == pytest.approx(100, rel=0.06)
    assert demand.long_per_s == pytest.approx(100, rel=0.04)
    assert demand.balance_per_s == pytest.approx(demand.long_per_s, rel=0.001)
    assert demand.service is not None
    assert demand.service.sure
    for n in (1, 4, 8):
        assert demand.service.of(n) == pytest.approx(8 + 6 * n, rel=0.03)
    assert demand.capacity_per_pod == pytest.approx(100, rel=0.1)
    assert demand.cautious_per_pod is not None
    assert demand.cautious_per_pod < demand.capacity_per_pod  # type: ignore[operator]
    assert demand.throughput_per_pod == pytest.approx(8000 / 56, rel=0.03)
    assert (demand.coverage, demand.age_s, demand.infeasible) == (1.0, 0.0, False)
    assert 1.0 <= demand.dispersion < 1.5
    assert demand.slow_share is not None
    assert demand.slow_share < 0.01
    assert demand.measured_ms is not None
    assert 40 < demand.measured_ms < 90
    assert demand.required_replicas == demand.required_max == 2
    assert demand.backlog == 0.0


@pytest.mark.parametrize("sidecar", [True, False])
def test_arrivals_are_exact_under_overload_where_completions_are_not(sidecar: bool) -> None:
    world = World(sidecar=sidecar)
    arriving = 1.25 * 8000 / 56
    demand = world.after(arriving, 120.0)
    answered = world.pods[0].answered
    world.after(arriving, 60.0)
    completions = (world.pods[0].answered - answered) / 60.0
    assert completions < 0.82 * arriving
    assert world.demand is not None
    assert demand.source is (Source.SIDECAR if sidecar else Source.FLOW_BALANCE)
    for each in (demand, world.demand):
        assert each.long_per_s == pytest.approx(arriving, rel=0.02)
    assert demand.required_replicas is not None
    assert demand.required_replicas == demand.required_max == 2  # of the load alone
    assert 0.0 < demand.backlog < demand.pending
    assert draining_replicas(demand, arriving, 30.0) > 2


def test_both_sources_say_the_same_of_the_same_pods() -> None:
    """A sidecar's counter and Triton's flow balance: equal rates of an equal stream."""
    one, other = World(3).after(60.0, 120.0), World(3, sidecar=False).after(60.0, 120.0)
    assert one.long_per_s == pytest.approx(other.long_per_s, rel=1e-9)
    assert one.service == other.service


def test_a_step_of_the_load_shows_within_fifteen_seconds() -> None:
    world = World(4, triton=False)
    world.after(100.0, 200.0)
    assert world.after(300.0, 15.0).arrivals_per_s > 270
    assert world.demand is not None
    assert world.demand.long_per_s < 200


def test_a_step_of_the_load_is_no_dispersion() -> None:
    world = World(4, triton=False)
    world.after(50.0, 200.0)
    assert world.after(150.0, 60.0).dispersion < 2.0


@pytest.mark.parametrize(("scv", "least", "most"), [(1.0, 1.0, 1.4), (4.0, 2.5, 5.5)])
def test_dispersion(scv: float, least: float, most: float) -> None:
    world = World(1, triton=False)
    world.stream = Stream(scv, seed=5)
    assert least <= world.after(40.0, 600.0).dispersion <= most


def test_pods_that_are_not_read_are_taken_to_get_what_others_get() -> None:
    world = World(4)
    world.after(200.0, 100.0)
    world.unread = {"p1", "p2"}
    demand = world.after(200.0, 60.0)
    assert demand.coverage == 0.5
    assert demand.long_per_s == pytest.approx(200, rel=0.08)
    # What they counted meanwhile is spread over the time in which they did.
    world.unread = set()
    demand = world.after(200.0, TICK_S)
    assert demand.coverage == 1.0
    assert demand.long_per_s == pytest.approx(200, rel=0.05)
    assert demand.short_per_s == pytest.approx(200, rel=0.15)


def test_nobody_is_read_is_not_nothing_arrives() -> None:
    world = World(2)
    before = world.after(20.0, 100.0)
    world.unread = {"p0", "p1"}
    demand = world.after(20.0, 15.0)
    assert demand.coverage == 1.0  # three intervals may pass
    assert demand.age_s == 15.0
    demand = world.after(20.0, TICK_S)
    assert (demand.coverage, demand.age_s, demand.history_s) == (0.0, 20.0, 0.0)
    demand = world.after(20.0, 700.0)
    assert demand.arrivals_per_s == pytest.approx(before.arrivals_per_s, rel=0.1)
    assert (demand.coverage, demand.age_s) == (0.0, 720.0)


def test_no_ready_pod_is_no_coverage() -> None:
    world = World(1, triton=False)
    world.after(50.0, 100.0)
    demand = world.observer.observe(world.now_s + 5.0, [], ready=[])
    assert demand is not None
    assert demand.coverage == 0.0


def test_a_scrape_of_prometheus_each_fifteen_seconds() -> None:
    """Pages that are up to 15 s old, each pod's at its own time; looked at every 5 s."""
    world = World(3, law=Law(interval_s=15.0))
    latest: dict[str, Look] = {}
    for tick in range(1, 60):
        world.capacities.refill()
        world.serve(75.0)
        pod = world.pods[tick % 3]
        latest[pod.uid] = pod.look(world.now_s)
        demand = world.observer.observe(
            world.now_s, latest.values(), ready=[pod.uid for pod in world.pods]
        )
    assert demand is not None
    assert demand.long_per_s == pytest.approx(75, rel=0.05)
    assert demand.coverage == 1.0
    assert demand.dispersion < 1.6
    assert demand.service is not None


def test_a_new_pod_counts_from_its_birth() -> None:
    world = World(1)
    world.after(50.0, 100.0)
    born_s = world.now_s + 1.0
    world.serve(50.0)
    new = Pod("new", born_s=born_s)
    new.arrive([born_s + 0.1] * 40)
    new.run_until(world.now_s)
    world.pods.append(new)
    world.observe()
    demand = world.after(50.0, TICK_S)
    arrived = demand.long_per_s * 60.0
    # 60 s at 50, and the 40 of the new pod's first seconds (half of its first tick is guessed).
    assert arrived == pytest.approx(3000 + 40, rel=0.04)


@pytest.mark.parametrize("uptime_known", [True, False])
def test_a_sidecar_that_starts_over(uptime_known: bool) -> None:
    world = World(2)
    world.after(100.0, 100.0)
    pod = world.pods[0]
    fresh = Pod("p0", born_s=world.now_s + 0.5)
    fresh.free_s = pod.free_s
    world.pods[0] = fresh
    if not uptime_known:
        look = fresh.look

        def without(at_s: float, **how: bool) -> Look:
            whole = look(at_s, **how)
            assert isinstance(whole.reading, Reading)
            return replace(whole, reading=replace(whole.reading, uptime_s=None))

        fresh.look = without  # type: ignore[method-assign]
    demand = world.after(100.0, 60.0)
    assert demand.long_per_s == pytest.approx(100, rel=0.05)
    assert demand.coverage == 1.0


def reading(at_s: float, started: int, uptime_s: float | None, timed: int = 0) -> Reading:
    counts = Counts(started=started, succeeded=timed, timed=timed, faster=(timed,))
    return Reading("p", "r", at_s, (100,), {TrafficClass.CLIENT: counts}, uptime_s)


counters = st.lists(
    st.tuples(
        st.integers(0, 1000),  # answered since the last look
        st.integers(0, 50),  # in flight
        st.booleans(),  # starts over
        st.booleans(),  # is read
        st.sampled_from(["known", "unknown"]),
    ),
    min_size=14,
    max_size=20,
)


@settings(max_examples=60)
@given(counters)
def test_counters_that_start_over_make_no_rate_negative_or_huge(
    steps: list[tuple[int, int, bool, bool, str]],
) -> None:
    observer = Observer(MODEL, Capacities(0), LAW)
    at_s, answered, born_s, items = START_S, 10**9, START_S - 10**6, 10**9
    observer.observe(at_s, [], ready=["p"])
    for more, in_flight, starts_over, is_read, uptime in steps:
        if starts_over:
            answered, born_s, items = 0, at_s + 1.0, 0
        at_s += TICK_S
        answered += more
        items += more
        look = Look(
            "p",
            at_s,
            reading(
                at_s,
                answered + in_flight,
                at_s - born_s if uptime == "known" else None,
                answered,
            ),
            TritonStats(succeeded=items, items=items, pending=in_flight),
        )
        demand = observer.observe(at_s, [look] if is_read else [], ready=["p"])
        if demand is not None:
            rates = (demand.arrivals_per_s, demand.long_per_s, demand.short_per_s)
            assert all(0.0 <= rate <= 1050 / TICK_S / 0.25 for rate in rates)
            assert 0.0 <= demand.coverage <= 1.0
            assert 1.0 <= demand.dispersion <= 6.0


def test_two_proxies_by_turns_are_no_load() -> None:
    """Large counters that fall and rise again (two pages mixed up) are no samples."""
    observer = Observer(MODEL, Capacities(0), LAW)
    demand = None
    for tick in range(40):
        at_s = START_S + TICK_S * tick
        base = 10**6 if tick % 2 else 5 * 10**5
        page = reading(at_s, base + tick, 10**5 + TICK_S * tick, base + tick)
        demand = observer.observe(at_s, [Look("p", at_s, page)], ready=["p"])
    assert demand is None or demand.arrivals_per_s < 10**6 / TICK_S


def test_the_order_of_pods_does_not_matter() -> None:
    said = set()
    for order in [(0, 1, 2), (2, 1, 0), (1, 2, 0)]:
        world = World(3, noise=True, capacities=Capacities(fine=2000))
        for _ in range(14):
            world.serve(40.0)
            looks = world.looks()
            demand = world.observer.observe(
                world.now_s, [looks[i] for i in order], ready=[world.pods[i].uid for i in order]
            )
        said.add(demand)
    assert len(said) == 1
    assert None not in said


def test_the_same_look_twice_changes_nothing() -> None:
    world = World(2)
    demand = world.after(80.0, 100.0)
    again = world.observer.observe(world.now_s, world.looks(), ready=["p0", "p1"])
    assert again is demand
    assert world.observer.observe(float("nan"), world.looks(), ready=["p0"]) is demand
    assert world.observer.observe(world.now_s - 60.0, world.looks(), ready=["p0"]) is demand


def test_a_reading_without_a_time_is_no_sample() -> None:
    world = World(1)
    world.after(80.0, 100.0)
    pod = world.pods[0]
    bad = Look("p0", float("nan"), pod.reading(float("nan")), pod.stats())
    demand = world.observer.observe(world.now_s + TICK_S, [bad], ready=["p0"])
    assert demand is not None
    assert demand.long_per_s == pytest.approx(80, rel=0.06)
    assert demand.age_s == TICK_S


def test_an_objective_that_no_idle_request_meets() -> None:
    world = World(2, model=replace(MODEL, target_ms=13.0))
    for pod in world.pods:
        pod.edges_ms = (5, 10, 13, 15, 100)
    demand = world.after(100.0, 120.0)
    assert demand.infeasible
    assert demand.idle_ms == pytest.approx(14, rel=0.01)
    assert demand.capacity_per_pod == pytest.approx(0.8 * 8000 / 56, rel=0.01)
    assert demand.feedback == 0.0
    assert demand.slow_share == pytest.approx(1.0)
    assert demand.required_replicas == 1


def test_no_target_no_requirement() -> None:
    demand = World(2, model=replace(MODEL, target_ms=None)).after(100.0, 120.0)
    assert demand.target_ms is None
    assert demand.arrivals_per_s == pytest.approx(100, rel=0.06)
    assert demand.required_replicas is None
    assert demand.capacity_per_pod is None
    assert demand.slow_share is None
    assert not demand.infeasible


def test_without_triton_there_is_no_capacity() -> None:
    demand = World(2, triton=False).after(100.0, 120.0)
    assert demand.source is Source.SIDECAR
    assert demand.balance_per_s is None
    assert demand.service is None
    assert demand.required_replicas is None
    assert demand.slow_share is not None


def test_without_a_budget_the_last_share_of_the_throughput_serves() -> None:
    world = World(2)
    before = world.after(100.0, 120.0)
    world.observer._capacities = Capacities(0)
    after = world.after(100.0, TICK_S)
    assert before.exact
    assert not after.exact
    assert after.capacity_per_pod == pytest.approx(before.capacity_per_pod, rel=0.02)


def test_cached_answers_need_no_pod() -> None:
    """Half of the requests come from the response cache: a pod holds twice as many."""
    world = World(1)
    stats = world.pods[0].stats

    def half_cached() -> TritonStats:
        real = stats()
        return replace(real, succeeded=2 * real.succeeded, cached=real.succeeded)

    world.pods[0].stats = half_cached  # type: ignore[method-assign]
    demand = world.after(40.0, 120.0)
    assert demand.cached_share == pytest.approx(0.5)
    assert demand.throughput_per_pod == pytest.approx(2 * 8000 / 56, rel=0.01)


def test_feedback_learns_what_the_model_does_not_know() -> None:
    """Latency outside of Triton's compute: the measured quantile is far above the model's."""
    world = World(1)
    calm = world.after(70.0, 200.0)
    assert abs(calm.feedback) < 0.25
    slow = World(1)
    pod = slow.pods[0]
    stats = pod.stats

    def half_the_time() -> TritonStats:
        real = stats()
        batches = tuple(replace(batch, busy_ms=batch.busy_ms / 2) for batch in real.batches)
        return replace(real, batches=batches)

    pod.stats = half_the_time  # type: ignore[method-assign]
    demand = slow.after(80.0, 200.0)
    assert demand.feedback > 0.3
    assert demand.feedback <= LAW.feedback_most
    assert demand.measured_ms is not None


def test_what_a_jump_of_the_service_time_taught_is_forgotten() -> None:
    """Until it was noticed, feedback had taken it for an error of the model."""
    world = World(1, noise=True, law=replace(LAW, feedback_gain=0.5))
    calm = world.after(90.0, 200.0).feedback
    world.pods[0].alpha_ms *= 1.2
    world.pods[0].beta_ms *= 1.2
    said = [demand.feedback for demand in world.run(90.0, 40.0) if demand is not None]
    assert max(said) > calm + 0.05
    assert said[-1] <= calm


def test_latency_that_pods_do_not_mend_takes_half_of_a_capacity_at_most() -> None:
    """30 ms on the way to the pod and back, however little it has to do."""
    model = replace(MODEL, target_ms=30.0)
    near = World(2, model=model, law=replace(LAW, feedback_gain=0.0))
    far = World(2, model=model, law=replace(LAW, feedback_gain=0.8))  # so that it soon gets there
    for world in (near, far):
        world.stream = Stream(0.25)
        for pod in world.pods:
            pod.edges_ms = (10, 14, 18, 22, 26, 30, 60)

    def farther(pod: Pod) -> None:
        reading = pod.reading

        def late(at_s: float) -> Reading:
            real = reading(at_s)
            return replace(real, edges_ms=tuple(edge + 30 for edge in real.edges_ms))

        pod.reading = late  # type: ignore[method-assign]

    for pod in far.pods:
        farther(pod)
    plain, demand = near.after(20.0, 120.0), far.after(20.0, 120.0)
    assert demand.feedback > 0.3
    assert plain.capacity_per_pod is not None
    assert demand.capacity_per_pod == pytest.approx(0.5 * plain.capacity_per_pod, rel=0.01)
    assert demand.required_replicas is not None
    assert plain.required_replicas is not None
    assert demand.required_replicas <= 2 * plain.required_replicas


def test_a_few_slow_requests_teach_nothing() -> None:
    world = World(1)
    for _ in world.run(4.0, 120.0):
        pass
    assert world.demand is not None
    assert world.demand.timed < LAW.feedback_samples
    assert world.demand.feedback == 0.0
