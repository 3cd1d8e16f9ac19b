"""Rollouts in simulated time, decided by the operator's own `plan`."""

import functools
import math
from typing import Any

import pytest

from tidegate.record import Phase
from tidegate.simulation.faults import parse
from tidegate.simulation.load import steady
from tidegate.simulation.outcome import Outcome
from tidegate.simulation.pod import Server
from tidegate.simulation.rollout import Staging, stage

CHANGE_S = 20.0
COLD_START_S = 15.0
RPS = 24.0
SECONDS = 130.0
SERVER = Server(0.004, 0.001, cv=0.1, max_batch=4, target_s=0.1)


def spec(version: int, **more: Any) -> dict[str, Any]:
    rollout = {
        "steps": [{"weight": "20%", "hold": "5s"}, {"weight": "50%", "hold": "5s"}],
        "bake": "20s",
        "mirror": {"minRequests": 30},
    }
    return {
        "model": {"source": {"uri": f"s3://models/detector/v{version}"}},
        "slo": {"latency": {"quantile": "0.9", "target": "100ms"}, "maxErrorRate": "10%"},
        "scaling": {"mode": "Fixed"},
        "replicas": 2,
        "traffic": {"gateway": {"parentRefs": [{"name": "gw"}], "hostnames": ["d.example"]}},
        **more,
        "rollout": rollout | more.get("rollout", {}),
    }


@functools.cache
def arrivals() -> tuple[float, ...]:
    return tuple(steady(RPS, SECONDS).arrivals(1))


@functools.cache
def usual() -> Outcome:
    """A good version."""
    return played()


def played(*faults: str, **more: Any) -> Outcome:
    staging = Staging(
        name="detector",
        before=spec(1, **more),
        after=spec(2, **more),
        change_s=CHANGE_S,
        old=SERVER,
        new=SERVER,
        load=steady(RPS, SECONDS),
        cold_start_s=COLD_START_S,
        faults=tuple(parse(fault) for fault in faults),
    )
    return stage(staging, 1, arrivals())


def conserved(o: Outcome) -> None:
    """Each request went one way, and ended one way."""
    assert o.arrived == len(arrivals())
    for side in (o.old, o.new):
        assert side.started == side.answered + side.failed + side.in_flight
        assert min(side.in_flight, side.answered, side.failed) >= 0
    # Pods that came and went took nothing with them.
    assert o.nowhere == 0


NO_MIRROR = {"rollout": {"mirror": {"mode": "Off"}}}


def test_a_good_version_is_promoted_step_by_step_and_costs_nobody_anything() -> None:
    o = usual()
    conserved(o)
    assert (o.phase, o.old.failed, o.new.failed) == (Phase.PROMOTED, 0, 0)
    taken = list(dict.fromkeys((d.phase, d.weight) for d in o.decisions))
    assert taken == [
        (Phase.PREPARING, 0.0),
        (Phase.MIRRORING, 0.0),
        (Phase.CANARY, 0.2),
        (Phase.CANARY, 0.5),
        (Phase.BAKING, 1.0),
        (Phase.PROMOTED, 1.0),
    ]
    begun = {d.phase: d.at_s for d in reversed(o.decisions)}
    assert begun[Phase.PREPARING] == CHANGE_S
    # Two pods, each with a start of its own that varies.
    assert 0.5 * COLD_START_S < begun[Phase.MIRRORING] - CHANGE_S < 2 * COLD_START_S
    assert o.ended_s == begun[Phase.BAKING]
    assert o.done_s == pytest.approx(begun[Phase.BAKING] + 20.0, abs=2.0)
    assert o.copies >= 30
    assert o.first_s is not None
    # All that came since then, and what the steps gave it.
    assert o.new.started > sum(t >= o.ended_s for t in arrivals())
    last = o.moments[-1]
    assert (last.weight, last.old.desired, last.new.ready) == (1.0, 0, 2)
    # Two pods all the time; one more, later two, from the change on until the old ones are gone.
    assert o.done_s is not None
    both_s = o.done_s + 10.0 - CHANGE_S
    assert 2 * SECONDS + both_s < o.gpu_s < 2 * SECONDS + 2 * both_s


def test_a_good_version_is_not_held_for_having_fewer_pods_than_its_share() -> None:
    """At 75 % each of two pods has three times the work of a stable one, and batches queue."""
    steps = [{"weight": "50%", "hold": "5s"}, {"weight": "75%", "hold": "90s"}]
    busy = Server(0.008, 0.006, cv=0.1, max_batch=8, target_s=0.1)
    staging = Staging(
        name="detector",
        before=spec(1, rollout={"steps": steps}),
        after=spec(2, rollout={"steps": steps}),
        change_s=30.0,
        old=busy,
        new=busy,
        load=steady(120.0, 220.0),
        cold_start_s=5.0,
    )
    o = stage(staging, 1)
    assert not any(d.hold == "WorseThanStable" for d in o.decisions)
    assert o.phase is Phase.PROMOTED


def test_the_share_is_what_the_route_says() -> None:
    o = played(rollout={"steps": [{"weight": "20%", "hold": "60s"}]} | NO_MIRROR["rollout"])
    at = [m for m in o.moments if m.weight == 0.2][2:]
    share = sum(m.new.arrived for m in at) / sum(m.new.arrived + m.old.arrived for m in at)
    count = sum(m.new.arrived + m.old.arrived for m in at)
    assert count > 1000
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / count)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("errors=40%", {"ErrorRate", "ErrorRateAgainstStable"}),
        ("slower=40", {"Latency"}),
        ("crash", {"Crashing"}),
        ("hang", {"Hanging", "Latency"}),
    ],
)
def test_a_bad_version_is_taken_back_before_a_client_meets_it(fault: str, reason: set[str]) -> None:
    o = played(fault)
    conserved(o)
    assert o.phase is Phase.ROLLED_BACK
    assert o.reason in reason
    assert (o.new.started, o.old.failed, o.first_s) == (0, 0, None)


def test_without_copies_clients_meet_it_until_it_is_taken_back() -> None:
    o = played("errors=40%", **NO_MIRROR)
    conserved(o)
    assert o.phase is Phase.ROLLED_BACK
    assert o.copies == 0
    assert 0 < o.new_until_ended.failed <= o.new.failed < 20
    assert o.first_s is not None
    assert o.ended_s is not None
    after = [m for m in o.moments if m.at_s > o.ended_s + 5.0]
    assert after
    assert not any(m.new.arrived or m.weight for m in after)


def test_what_goes_bad_after_promotion_is_taken_back_in_the_bake() -> None:
    promoted = usual()
    assert promoted.ended_s is not None
    o = played(f"errors=60%@{round(promoted.ended_s) + 5}s")
    conserved(o)
    assert o.phase is Phase.ROLLED_BACK
    assert Phase.BAKING in {d.phase for d in o.decisions}
    assert o.ended_s is not None
    assert o.ended_s > promoted.ended_s
    assert o.moments[-1].weight == 0.0


def test_without_metrics_the_weight_stays_where_it_is() -> None:
    o = played("no-metrics@55s-100s", **NO_MIRROR)
    conserved(o)
    blind = [d for d in o.decisions if 61.0 < d.at_s < 100.0]
    before = [d for d in o.decisions if d.at_s <= 61.0][-1]
    assert "MetricsUnavailable" in {d.hold for d in (before, *blind)}
    assert {d.weight for d in blind} <= {before.weight}
    assert o.phase is Phase.PROMOTED


def test_late_counters_delay_a_verdict_by_as_much() -> None:
    now, late = (played("errors=40%", *more) for more in ((), ("lag=10s",)))
    assert late.phase is Phase.ROLLED_BACK
    assert now.ended_s is not None
    assert late.ended_s is not None
    assert late.ended_s - now.ended_s == pytest.approx(10.0, abs=2.0)


def test_without_a_gpu_it_waits_and_says_so() -> None:
    o = played("gpus=2")
    conserved(o)
    assert o.ended_s is None
    assert {(d.phase, d.hold) for d in o.decisions} == {(Phase.PREPARING, "WaitingForGPU")}
    assert max(m.new.ready for m in o.moments) == 0


def test_a_pod_that_dies_is_replaced() -> None:
    o = played("lost-pod@10s", "gpus=4")
    conserved(o)
    assert min(m.old.ready for m in o.moments if m.at_s < 20.0) == 1
    assert o.phase is Phase.PROMOTED


@pytest.mark.parametrize("wrong", [True, False])
def test_golden_requests_come_before_the_clients(wrong: bool) -> None:
    faults = ("wrong-answers",) if wrong else ()
    o = played(*faults, goldenRequests={"configMapName": "golden"}, **NO_MIRROR)
    conserved(o)
    assert (o.reason == "GoldenRequestsFailed") is wrong
    assert (o.new.started == 0) is wrong


def test_recreate_has_a_gap() -> None:
    o = played(rollout={"strategy": "Recreate"})
    assert o.arrived == len(arrivals())
    assert o.phase is Phase.PROMOTED
    # Nobody answers while the old pods drain, and until the new ones have started.
    assert o.nowhere == pytest.approx(RPS * (10.0 + COLD_START_S), rel=0.5)
    assert max(m.old.ready + m.new.ready for m in o.moments) == 2


def test_a_rollback_loses_no_request_on_its_way() -> None:
    # What the gateway still sends to pods that leave is answered.
    load, rollout = steady(150.0, 60.0), {"steps": [{"weight": "50%"}], "mirror": {"mode": "Off"}}
    before, after = (spec(n, rollout=rollout) for n in (1, 2))
    faults = (parse("errors=60%@45s"),)
    o = stage(
        Staging("detector", before, after, 5.0, SERVER, SERVER, load, 1, 10.0, 0.2, faults=faults),
        1,
    )
    assert o.phase is Phase.ROLLED_BACK
    assert o.new.started > 1000
    assert (o.nowhere, o.old.failed, o.in_flight) == (0, 0, 0)


def test_the_same_seed_gives_the_same() -> None:
    assert played() == usual()


def test_a_change_without_a_new_revision_is_no_rollout() -> None:
    staging = Staging(
        "detector",
        spec(1),
        spec(1, replicas=3),
        CHANGE_S,
        SERVER,
        SERVER,
        steady(RPS, SECONDS),
        cold_start_s=COLD_START_S,
    )
    o = stage(staging, 1, arrivals())
    assert o.phase is None
    assert o.old.started == len(arrivals())
    assert (o.moments[0].old.ready, o.moments[-1].old.ready) == (2, 3)


def test_replicas_follow_the_load_meanwhile() -> None:
    load = steady(60.0, 110.0)
    server = Server(0.05, 0.0, cv=0.1, target_s=0.5)
    more = {"scaling": {"minReplicas": 1, "maxReplicas": 9}, "replicas": None}
    slo = {"latency": {"quantile": "0.99", "target": "500ms"}, "maxErrorRate": "5%"}
    before, after = (
        {k: v for k, v in spec(n, **more, slo=slo).items() if v is not None} for n in (1, 2)
    )
    o = stage(
        Staging(
            "detector",
            before,
            after,
            90.0,
            server,
            server,
            load,
            initial=3,
            cold_start_s=COLD_START_S,
        ),
        1,
    )
    # One pod does 20 a second at most: three are overrun.
    assert o.moments[-1].old.desired > 3
    assert o.moments[-1].new.desired >= 1
