"""How many replicas: each edge case, and what holds whatever the numbers."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.api.spec import parse
from tidegate.autoscaling.decision import Bounds, Decision, Fleet, Hold, grown, replicas
from tidegate.autoscaling.demand import Demand, ServiceTime, Source
from tidegate.autoscaling.server import LAW, Law

NOW_S = 1_700_000_000.0
BOUNDS = Bounds(1, 20, spare=0)
SERVICE = ServiceTime(8.0, 6.0, cv=0.0, error=0.01, batches=5000.0, sure=True)
DEMAND = Demand(
    at_s=NOW_S,
    data_s=900.0,
    ready_pods=4,
    coverage=1.0,
    age_s=0.0,
    source=Source.SIDECAR,
    arrivals_per_s=390.0,
    long_per_s=390.0,
    short_per_s=390.0,
    service=SERVICE,
    capacity_per_pod=105.0,
    cautious_per_pod=104.0,
    throughput_per_pod=142.0,
    target_ms=100.0,
    required_replicas=4,
    required_max=4,
    history_s=600.0,
)
FLEET = Fleet(desired=4, ready=4)


def loaded(per_s: float, **more: object) -> Demand:
    """The same server under another load, which has lasted."""
    needed = math.ceil(per_s * LAW.headroom / 105.0)
    values = {
        "arrivals_per_s": per_s,
        "long_per_s": per_s,
        "short_per_s": per_s,
        "required_replicas": needed,
        "required_max": needed,
        **more,
    }
    return replace(DEMAND, **values)  # type: ignore[arg-type]


def decide(
    demand: Demand | None = DEMAND, fleet: Fleet = FLEET, bounds: Bounds = BOUNDS, **more: float
) -> Decision:
    return replicas(bounds, fleet, demand, NOW_S, **more)  # type: ignore[arg-type]


def test_what_is_needed_is_what_there_is() -> None:
    decision = decide()
    assert (decision.desired, decision.required, decision.hold) == (4, 4, None)
    assert decision.demand is DEMAND


def test_up_at_once_to_the_number() -> None:
    decision = decide(loaded(1200.0))
    assert (decision.desired, decision.required, decision.hold) == (12, 12, None)


def test_pods_that_are_starting_count() -> None:
    """No cascade: what was asked for is asked for once."""
    decision = decide(loaded(1200.0), Fleet(desired=12, ready=4, raised_at_s=NOW_S - 5))
    assert (decision.desired, decision.hold) == (12, None)


def test_never_above_the_most() -> None:
    decision = decide(loaded(1200.0), bounds=Bounds(1, 6, spare=0))
    assert (decision.desired, decision.required, decision.needed) == (6, 6, 12)
    assert decision.hold is Hold.AT_MAXIMUM
    assert decision.reason.endswith("; maxReplicas is 6")


def test_never_below_the_least() -> None:
    decision = decide(loaded(10.0), Fleet(3, 3), Bounds(3, 6, spare=0))
    assert (decision.desired, decision.required, decision.needed) == (3, 3, 1)
    assert decision.hold is Hold.AT_MINIMUM


@pytest.mark.parametrize(
    ("fleet", "demand", "desired", "hold", "says"),
    [
        pytest.param(
            Fleet(30, 30), None, 20, Hold.MEASURING, "20 replicas kept: 60 s of", id="restart"
        ),
        pytest.param(
            Fleet(4, 4), None, 4, Hold.MEASURING, "4 replicas kept", id="no data, no change"
        ),
        pytest.param(
            Fleet(2, 2), replace(DEMAND, data_s=20.0), 4, None, "4 replicas required", id="early up"
        ),
        pytest.param(
            Fleet(2, 2),
            replace(DEMAND, data_s=20.0, service=replace(SERVICE, sure=False)),
            2,
            Hold.MEASURING,
            "2 replicas kept: 60 s of",
            id="early, batches not known well",
        ),
        pytest.param(
            Fleet(2, 2),
            replace(DEMAND, data_s=20.0, coverage=0.25, pending=9e4, backlog=9e4),
            2,
            Hold.MEASURING,
            "2 replicas kept: 60 s of",
            id="early and half blind",
        ),
        pytest.param(
            Fleet(9, 9),
            replace(DEMAND, target_ms=None, required_replicas=None),
            9,
            Hold.NO_TARGET,
            "no latency target (slo.latency)",
            id="no latency objective",
        ),
        pytest.param(
            Fleet(9, 9),
            replace(DEMAND, coverage=0.25),
            9,
            Hold.METRICS_MISSING,
            "9 replicas kept: only 1 of 4 Ready pods could be read",
            id="few read: not down",
        ),
        pytest.param(
            Fleet(4, 4),
            replace(loaded(4000.0), coverage=0.25),
            4,
            Hold.METRICS_MISSING,
            "only 1 of 4",
            id="few read: not up by a rate",
        ),
        pytest.param(
            Fleet(4, 4),
            replace(DEMAND, coverage=0.25, pending=17_500.0, backlog=17_000.0),
            7,
            Hold.METRICS_MISSING,
            "7 replicas: 17500 requests wait, though only 1 of 4",
            id="few read: up on what waits",
        ),
        pytest.param(
            Fleet(4, 3, waiting_for_gpu=1),
            replace(DEMAND, coverage=0.25, pending=17_500.0, backlog=17_000.0),
            4,
            Hold.METRICS_MISSING,
            "4 replicas kept: 1 of them found no GPU; only 1 of 4",
            id="few read and no GPU: not asked again",
        ),
        pytest.param(
            Fleet(9, 9),
            replace(DEMAND, age_s=16.0),
            9,
            Hold.METRICS_MISSING,
            "the newest measurement is 16 s old",
            id="old: not down",
        ),
        pytest.param(
            Fleet(9, 9),
            replace(DEMAND, at_s=NOW_S - 40.0),
            9,
            Hold.METRICS_MISSING,
            "the newest measurement is 40 s old",
            id="the observer itself stopped",
        ),
        pytest.param(
            Fleet(9, 9),
            replace(DEMAND, capacity_per_pod=None, service=None, required_replicas=None),
            9,
            Hold.CAPACITY_UNKNOWN,
            "what one pod holds is not known yet",
            id="no service time",
        ),
        pytest.param(
            Fleet(9, 9, rollout=True), DEMAND, 9, Hold.ROLLOUT, "during a rollout", id="rollout"
        ),
        pytest.param(
            Fleet(3, 3, rollout=True), DEMAND, 4, None, "4 replicas required", id="rollout: up"
        ),
        pytest.param(
            Fleet(3, 2, waiting_for_gpu=1),
            DEMAND,
            3,
            Hold.WAITING_FOR_GPU,
            "3 kept: 1 of them found no GPU",
            id="no GPU: not asked again",
        ),
        pytest.param(
            Fleet(9, 4, waiting_for_gpu=5), DEMAND, 8, Hold.STABILISING, "", id="no GPU: down"
        ),
        pytest.param(
            Fleet(9, 9),
            replace(DEMAND, history_s=120.0),
            9,
            Hold.STABILISING,
            "fewer only after 300 s of measurements, 120 s so far",
            id="young",
        ),
        pytest.param(
            Fleet(9, 9),
            replace(DEMAND, required_max=9),
            9,
            Hold.STABILISING,
            "9 kept: 9 were required within the last 300 s",
            id="stabilisation",
        ),
        pytest.param(
            Fleet(9, 9, raised_at_s=NOW_S - 90, cold_start_s=120.0),
            DEMAND,
            9,
            Hold.STABILISING,
            "raised 90 s ago, and a pod takes 120 s to start",
            id="after an up",
        ),
        pytest.param(
            Fleet(9, 9, lowered_at_s=NOW_S - 20),
            DEMAND,
            9,
            Hold.STABILISING,
            "one step down every 30 s",
            id="after a down",
        ),
        pytest.param(
            Fleet(9, 9), DEMAND, 8, Hold.STABILISING, "down to 8 for now", id="one at a time"
        ),
        pytest.param(Fleet(5, 5), DEMAND, 4, None, "4 replicas required", id="the last one"),
        pytest.param(
            Fleet(20, 20), DEMAND, 18, Hold.STABILISING, "down to 18 for now", id="a tenth"
        ),
        pytest.param(
            Fleet(5, 5),
            replace(DEMAND, cautious_per_pod=90.0),
            5,
            Hold.STABILISING,
            "too near the target; with room to spare one pod holds 90 req/s",
            id="too near",
        ),
    ],
)
def test_what_holds(
    fleet: Fleet, demand: Demand | None, desired: int, hold: Hold | None, says: str
) -> None:
    decision = decide(demand, fleet)
    assert (decision.desired, decision.hold) == (desired, hold)
    assert says in decision.reason


def test_a_rollout_holds_no_rollback_up() -> None:
    """Stable takes everything back: what is to come counts, not what it gets now."""
    decision = decide(loaded(50.0), Fleet(1, 1, rollout=True), expected_per_s=800.0)
    assert (decision.desired, decision.required) == (8, 8)
    assert "800 req/s to come" in decision.reason
    assert decide(expected_per_s=5.0) == decide()
    assert decide(expected_per_s=math.nan) == decide()


def test_an_objective_that_cannot_be_met_is_sized_by_throughput() -> None:
    demand = replace(DEMAND, infeasible=True, idle_ms=140.0, capacity_per_pod=113.6)
    decision = decide(demand)
    assert (decision.desired, decision.hold) == (4, None)
    assert "one pod holds 114 req/s of the 142 req/s that it can answer at most" in decision.reason
    assert "takes 140 ms, more than the target of 100 ms" in decision.reason


def test_what_has_piled_up_is_drained() -> None:
    demand = replace(DEMAND, pending=17_500.0, backlog=17_000.0)
    decision = decide(demand)
    assert decision.desired == 7
    assert "7 drain the 17000 requests that piled up" in decision.reason
    # Pods that start in 60 s are not asked for as if they drained it in 30.
    assert decide(demand, replace(FLEET, cold_start_s=60.0)).desired == 5


@pytest.mark.parametrize(
    ("bounds", "fleet", "growth", "spare"),
    [
        (Bounds(1, 20, spare=3), FLEET, ((60.0, 1.5),), 3),
        (Bounds(1, 20, spare=0), FLEET, ((60.0, 1.5),), 0),
        (Bounds(1, 20), FLEET, (), 1),
        (Bounds(1, 20), replace(FLEET, cold_start_s=55.0), ((60.0, 1.1),), 1),
        # 390 * 1.5 / 105 = 5.6: six when the pods asked for now are there.
        (Bounds(1, 20), replace(FLEET, cold_start_s=55.0), ((60.0, 1.5),), 2),
        (Bounds(1, 20), replace(FLEET, cold_start_s=1.0), ((60.0, 1.5),), 1),
    ],
)
def test_spare_replicas(
    bounds: Bounds, fleet: Fleet, growth: tuple[tuple[float, float], ...], spare: int
) -> None:
    decision = decide(replace(DEMAND, growth=growth), fleet, bounds)
    assert decision.spare == spare
    assert decision.needed == 4
    assert decision.desired == 4 + spare
    assert decision.cold_start_s == fleet.cold_start_s
    if spare == 2:
        assert decision.growth == 1.5
        assert decision.reason.endswith(
            "two more as headroom (the load lately grew 1.5 times within 55 s)"
        )
    else:
        assert decision.growth is None
        assert "grew" not in decision.reason


def test_a_large_fleet_needs_no_automatic_spare() -> None:
    assert decide(loaded(700.0), bounds=Bounds(1, 20)).spare == 0


def test_headroom_counts_for_what_comes_within_a_cold_start_too() -> None:
    """Else the growth alone keeps replicas that a lower headroom gives up."""
    fleet = replace(FLEET, cold_start_s=60.0)
    lean = Law(headroom=0.7, spare_pods=0.0)
    flat = replace(DEMAND, growth=((60.0, 1.0),))
    assert replicas(Bounds(1, 20), fleet, flat, NOW_S, law=lean).required == 3
    growing = replace(DEMAND, growth=((60.0, 1.5),))
    assert replicas(Bounds(1, 20), fleet, growing, NOW_S, law=lean).required == 4


def test_no_spare_in_the_first_minute() -> None:
    early = replace(DEMAND, data_s=20.0, growth=((60.0, 1.5),))
    fleet = replace(FLEET, cold_start_s=60.0)
    assert decide(early, fleet, Bounds(1, 20)).spare == 0


def test_growth_between_what_was_seen() -> None:
    demand = replace(DEMAND, growth=((15.0, 1.1), (30.0, 1.2), (60.0, 1.2)))
    assert grown(demand, 0.0) == 1.0
    assert grown(demand, 7.5) == pytest.approx(1.05)
    assert grown(demand, 22.5) == pytest.approx(1.15)
    assert grown(demand, 45.0) == pytest.approx(1.2)
    assert grown(demand, 600.0) == 1.2
    assert grown(DEMAND, 60.0) == 1.0


def test_bounds_of_a_spec() -> None:
    base = {"model": {"source": {"uri": "s3://models/magika"}}}
    assert Bounds.of(parse(base)) == Bounds(1, 10, None)
    scaling = {"minReplicas": 2, "maxReplicas": 7, "headroom": 3}
    assert Bounds.of(parse({**base, "scaling": scaling})) == Bounds(2, 7, 3)
    assert Bounds.of(parse({**base, "scaling": {"minReplicas": 0}})).least == 1


def test_contradicting_bounds_keep_below_the_most() -> None:
    """Refused at admission; should one come through, it costs no more than was allowed."""
    assert decide(loaded(1200.0), bounds=Bounds(9, 5, spare=0)).desired == 5


# Whatever the numbers.

demands = st.builds(
    lambda per_s, capacity, needed_max, coverage, age_s, pending, backlog, history_s, growth: (
        replace(
            DEMAND,
            arrivals_per_s=per_s,
            capacity_per_pod=capacity,
            cautious_per_pod=None if capacity is None else 0.9 * capacity,
            required_max=needed_max,
            coverage=coverage,
            age_s=age_s,
            pending=pending,
            backlog=backlog,
            history_s=history_s,
            growth=((60.0, growth),),
        )
    ),
    st.floats(0.0, 1e5),
    st.none() | st.floats(0.1, 1e4),
    st.integers(0, 200),
    st.floats(0.0, 1.0),
    st.floats(0.0, 30.0),
    st.floats(0.0, 1e5),
    st.floats(0.0, 1e4),
    st.floats(0.0, 1000.0),
    st.floats(1.0, 2.0),
)
times = st.none() | st.floats(NOW_S - 1000.0, NOW_S)
fleets = st.builds(
    Fleet,
    desired=st.integers(0, 120),
    ready=st.integers(0, 120),
    waiting_for_gpu=st.integers(0, 3),
    raised_at_s=times,
    lowered_at_s=times,
    cold_start_s=st.none() | st.floats(0.0, 600.0),
    rollout=st.booleans(),
)
bounds = st.builds(
    lambda least, more, spare: Bounds(least, least + more, spare),
    st.integers(1, 30),
    st.integers(0, 70),
    st.none() | st.integers(0, 5),
)


@given(bounds, fleets, st.none() | demands)
def test_never_outside_the_bounds_and_the_same_twice(
    bounds: Bounds, fleet: Fleet, demand: Demand | None
) -> None:
    decision = decide(demand, fleet, bounds)
    assert bounds.least <= decision.desired <= bounds.most
    assert decision.required is None or bounds.least <= decision.required <= bounds.most
    assert decision == decide(demand, fleet, bounds)
    assert decision.reason


@given(bounds, fleets, demands)
def test_never_down_without_measurements_or_in_a_rollout(
    bounds: Bounds, fleet: Fleet, demand: Demand
) -> None:
    kept = bounds.clamp(fleet.desired)
    decision = decide(demand, fleet, bounds)
    blind = demand.coverage < 0.5 or demand.age_s > 15.0 or demand.capacity_per_pod is None
    if blind or fleet.rollout:
        assert decision.desired >= kept
    if decision.desired < kept:
        assert decision.desired >= kept - max(1, kept // 10)
        assert demand.history_s >= LAW.stabilisation_s - 1e-6
    if decision.desired > kept:
        assert fleet.waiting_for_gpu == 0


@given(bounds, fleets, demands, st.floats(1.0, 5.0))
def test_more_load_never_asks_for_fewer(
    bounds: Bounds, fleet: Fleet, demand: Demand, factor: float
) -> None:
    more = replace(demand, arrivals_per_s=factor * demand.arrivals_per_s)
    before, after = decide(demand, fleet, bounds), decide(more, fleet, bounds)
    assert after.desired >= before.desired
    if before.required is not None:
        assert after.required is not None
        assert after.required >= before.required


@given(bounds, fleets, demands)
def test_deciding_again_after_acting_changes_nothing(
    bounds: Bounds, fleet: Fleet, demand: Demand
) -> None:
    first = decide(demand, fleet, bounds)
    moved = first.desired - bounds.clamp(fleet.desired)
    acted = replace(
        fleet,
        desired=first.desired,
        raised_at_s=NOW_S if moved > 0 else fleet.raised_at_s,
        lowered_at_s=NOW_S if moved < 0 else fleet.lowered_at_s,
    )
    assert decide(demand, acted, bounds).desired == first.desired


def test_a_law_of_ones_own() -> None:
    law = Law(headroom=2.0)
    assert replicas(BOUNDS, FLEET, DEMAND, NOW_S, law=law).desired == 8
