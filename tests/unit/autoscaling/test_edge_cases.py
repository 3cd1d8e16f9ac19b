"""What must not move replicas, or not that way: from counters to the number, one test each."""

import math
from dataclasses import replace

import pytest

from tests.unit.autoscaling.pods import Pod
from tests.unit.autoscaling.world import MODEL, SHARED, TICK_S, World
from tests.unit.measurement.pages import Cluster, page
from tidegate.attainment import Objective, Window
from tidegate.autoscaling.decision import Bounds, Decision, Fleet, Hold, replicas
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.observer import Observer
from tidegate.autoscaling.reading import Look, TritonStats, read_metrics
from tidegate.resources.sidecar import TrafficClass
from tidegate.sidecar_page import Reading, read_page

BOUNDS = Bounds(1, 20, spare=0)


def decided(world: World, *, now_s: float | None = None, **fleet: int | float | bool) -> Decision:
    """What comes of the last look, with the pods that there are."""
    n = len(world.pods)
    there = replace(Fleet(n, n), **fleet)  # type: ignore[arg-type]
    return replicas(BOUNDS, there, world.demand, world.now_s if now_s is None else now_s)


def test_an_absent_series_is_not_zero() -> None:
    """Nobody is read, for as long as one likes: not one pod fewer, then or just afterwards."""
    world = World(4)
    world.after(360.0, 400.0)
    assert decided(world).desired == 4
    world.unread = {pod.uid for pod in world.pods}
    for demand in world.run(20.0, 400.0):
        assert demand is not None
        assert demand.arrivals_per_s > 300.0
        assert decided(world).desired == 4
    assert decided(world).hold is Hold.METRICS_MISSING
    # Far less came meanwhile, but nobody knows what else did: it waits as long as a new one.
    world.unread = set()
    world.after(20.0, 200.0)
    assert decided(world).desired == 4
    assert decided(world).hold is Hold.STABILISING
    world.after(20.0, 120.0)
    assert decided(world).desired == 3


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
def test_nan_is_no_sample(value: str) -> None:
    """A page with one is no page: neither of the sidecar nor of Triton, so the pod is not read."""
    text = page({"client_http": Cluster({200: 90}, took_ms=[5] * 90)}, 60)
    assert read_page(text, pod="p", revision="r", at_s=1.0).classes
    total = next(line for line in text.split("\n") if "upstream_rq_total{" in line)
    with pytest.raises(ValueError, match="rq_total"):
        read_page(
            text.replace(total, f"{total.rpartition(' ')[0]} {value}"),
            pod="p",
            revision="r",
            at_s=1.0,
        )
    with pytest.raises(ValueError, match="nv_inference_request_success"):
        read_metrics(f'nv_inference_request_success{{model="m"}} {value}\n', model="m")


def test_a_number_that_is_none_changes_nothing_that_was_learned() -> None:
    """Times that are NaN come out of no page; should they, they are passed over."""
    world = World(2)
    before = world.after(100.0, 120.0)
    stats = world.pods[0].stats

    def broken() -> TritonStats:
        real = stats()
        return replace(real, batches=tuple(replace(b, busy_ms=math.nan) for b in real.batches))

    world.pods[0].stats = broken  # type: ignore[method-assign]
    after = world.after(100.0, 30.0)
    assert before.service is not None
    assert after.service is not None
    assert after.service.of(8) == pytest.approx(before.service.of(8), rel=0.01)
    assert after.required_replicas == before.required_replicas


@pytest.mark.parametrize(("lost", "down"), [(2, True), (3, False)])
def test_below_half_of_the_pods_never_down(lost: int, down: bool) -> None:
    world = World(4)
    world.after(20.0, 400.0)
    world.unread = {pod.uid for pod in world.pods[:lost]}
    world.after(20.0, 30.0)
    assert (decided(world).desired < 4) is down


def test_below_half_of_the_pods_up_on_what_waits_only() -> None:
    """Three of four are not read. The one that is tells of as much as before, then of a queue."""
    world = World(4)
    world.after(360.0, 400.0)
    world.unread = {"p1", "p2", "p3"}
    world.after(360.0, 30.0)
    assert decided(world).desired == 4
    world.pods[0].arrive([world.now_s] * 20_000)
    world.after(360.0, TICK_S)
    decision = decided(world)
    assert decision.hold is Hold.METRICS_MISSING
    assert decision.desired > 4
    assert "requests wait, though only 1 of 4 Ready pods could be read" in decision.reason


def test_older_than_three_intervals_never_down() -> None:
    world = World(4)
    world.after(20.0, 400.0)
    assert decided(world, now_s=world.now_s + 15.0).desired == 3
    late = decided(world, now_s=world.now_s + 15.1)
    assert (late.desired, late.hold) == (4, Hold.METRICS_MISSING)


def test_an_objective_that_no_idle_request_meets_grows_by_no_latency() -> None:
    world = World(2, model=replace(MODEL, target_ms=13.0))
    demand = world.after(200.0, 200.0)
    assert demand.infeasible
    assert demand.slow_share is not None
    assert demand.slow_share > 0.9
    # 200 x 1.05 over 0.8 of what a pod can answer at most.
    assert demand.throughput_per_pod is not None
    needed = math.ceil(200.0 * 1.05 / (0.8 * demand.throughput_per_pod))
    assert demand.required_replicas == decided(world).desired == needed == 2
    assert "so latency asks for no replicas" in decided(world).reason
    # Latency ten times as bad, the same service time: not one pod more.
    for pod in world.pods:
        farther(pod, 200)
    assert world.after(200.0, 200.0).feedback == 0.0
    assert decided(world).desired == 2


def farther(pod: Pod, by_ms: int) -> None:
    """All its answers take so much longer on their way."""
    reading = pod.reading

    def late(at_s: float) -> Reading:
        real = reading(at_s)
        return replace(real, edges_ms=tuple(edge + by_ms for edge in real.edges_ms))

    pod.reading = late  # type: ignore[method-assign]


def test_what_the_cache_answers_runs_no_batch() -> None:
    """Nine in ten from the cache: replicas for the tenth, and a service time of the tenth."""
    world = World(1)
    stats, reading = world.pods[0].stats, world.pods[0].reading

    def cached() -> TritonStats:
        real = stats()
        return replace(real, succeeded=10 * real.succeeded, cached=9 * real.succeeded)

    def tenfold(at_s: float) -> Reading:
        real = reading(at_s)
        counts = real.classes[TrafficClass.CLIENT]
        more = replace(
            counts,
            started=10 * counts.started,
            succeeded=10 * counts.succeeded,
            timed=10 * counts.timed,
            faster=tuple(n + 9 * counts.timed for n in counts.faster),
        )
        return replace(real, classes={TrafficClass.CLIENT: more})

    world.pods[0].stats, world.pods[0].reading = cached, tenfold  # type: ignore[method-assign]
    demand = world.after(40.0, 200.0)
    assert demand.arrivals_per_s == pytest.approx(400, rel=0.1)
    assert demand.service is not None
    assert demand.service.of(1) == pytest.approx(14.0, rel=0.03)
    assert demand.required_replicas == 1
    assert "90 % of the answers from the response cache" in decided(world).reason


def test_a_client_that_gives_up_is_no_error_and_has_arrived() -> None:
    """Every fourth cancels: answered 499 to nobody, and no answer of gRPC's."""
    pages = [
        page({"client_http": Cluster({200: 90 * n, 499: 30 * n}, took_ms=[5] * 90 * n)}, 60 + 5 * n)
        for n in range(1, 15)
    ]
    window = Window(Objective(100, 0.99, 0.01))
    observer = Observer(MODEL, SHARED)
    demand: Demand | None = None
    attained = None
    for n, text in enumerate(pages):
        at_s = 1000.0 + 5 * n
        reading = read_page(text, pod="p", revision="r", at_s=at_s)
        attained = window.observe(at_s, [reading])
        demand = observer.observe(at_s, [Look("p", at_s, reading)], ready=["p"])
    assert attained is not None
    assert attained.failed == 0
    assert demand is not None
    assert demand.long_per_s == pytest.approx(120 / 5)
    assert demand.pending == 0.0


def test_a_canary_goes_by_its_own_service_time_and_by_what_it_is_about_to_get() -> None:
    """Both revisions share one load; the slower one needs more pods for it."""
    quick, slow = World(1), World(1)
    slow.pods[0].alpha_ms, slow.pods[0].beta_ms = 16.0, 9.0
    quick.after(70.0, 200.0)
    slow.after(10.0, 200.0)
    fleet = Fleet(1, 1, rollout=True)
    numbers = [
        replicas(BOUNDS, fleet, world.demand, world.now_s, expected_per_s=300.0)
        for world in (quick, slow)
    ]
    assert [decision.arrivals_per_s for decision in numbers] == [300.0, 300.0]
    assert numbers[1].desired >= numbers[0].desired + 2
    assert numbers[0].desired > 1


def test_during_a_rollout_never_down() -> None:
    world = World(4)
    world.after(20.0, 400.0)
    assert decided(world).desired == 3
    decision = decided(world, rollout=True)
    assert (decision.desired, decision.hold) == (4, Hold.ROLLOUT)


def test_pods_that_wait_for_a_gpu_are_not_asked_for_again() -> None:
    world = World(2)
    world.after(700.0, 120.0)
    assert decided(world).desired > 2
    decision = decided(world, waiting_for_gpu=1)
    assert (decision.desired, decision.hold) == (2, Hold.WAITING_FOR_GPU)


def test_after_a_restart_the_number_holds_until_a_minute_was_measured() -> None:
    """The pods' counters are large and old; of what is to come nothing is known yet."""
    world = World(3)
    world.after(20.0, 400.0)
    assert decided(world).desired == 2
    world.observer = Observer(MODEL, SHARED)
    world.observe()
    for tick, _ in enumerate(world.run(20.0, 300.0), 1):
        decision = decided(world)
        assert decision.desired == 3
        if tick < 3:
            assert decision.hold is Hold.MEASURING
        # In the first minute only up.
        assert decision.hold in (Hold.MEASURING, Hold.STABILISING)
    world.after(20.0, 5 * TICK_S)
    assert decided(world).desired == 2
