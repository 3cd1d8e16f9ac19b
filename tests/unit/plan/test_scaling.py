"""Replicas follow the measured load: from `Demand` to each revision's number, and to status."""

import math
from dataclasses import replace
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plan.world import World, pending_for_gpu, ready_pod
from tidegate.actions import Event, Scale
from tidegate.autoscaling.demand import Demand, ServiceTime, Source
from tidegate.observed import Attained, Measurements

HPA = "kube-controller-manager"
SERVICE = ServiceTime(alpha_ms=8.0, beta_ms=6.0, cv=0.05, error=0.01, batches=5000.0, sure=True)


def world(**scaling: Any) -> World:
    """A ModelDeployment whose first revision serves."""
    found = World()
    found.edit(
        slo={"latency": {"target": "100ms"}},
        scaling={"minReplicas": 1, "maxReplicas": 8, "headroom": "1"} | scaling,
        rollout={"bake": "0s"},
    )
    found.settle()
    return found


def demand(found: World, arrivals_per_s: float, **changes: Any) -> Demand:
    """A load for which one pod holds 100 requests a second."""
    required = max(1, math.ceil(arrivals_per_s * 1.05 / 100.0))
    made = Demand(
        at_s=found.now.timestamp(),
        data_s=600.0,
        ready_pods=1,
        coverage=1.0,
        age_s=1.0,
        source=Source.SIDECAR,
        arrivals_per_s=arrivals_per_s,
        long_per_s=arrivals_per_s,
        short_per_s=arrivals_per_s,
        service=SERVICE,
        capacity_per_pod=100.0,
        cautious_per_pod=90.0,
        throughput_per_pod=120.0,
        target_ms=100.0,
        measured_ms=60.0,
        slow_share=0.001,
        timed=5000,
        model_ms=62.0,
        required_replicas=required,
        required_max=required,
        history_s=600.0,
    )
    return replace(made, **changes)


def load(found: World, arrivals_per_s: float, **changes: Any) -> None:
    """That load on the revision that serves, as the runtime measures it now."""
    made = demand(found, arrivals_per_s, **changes)
    found.measurements = replace(found.measurements, load={found.stable(): made})


def asked(found: World) -> int:
    """Replicas of the revision that serves."""
    [deployment] = [
        d
        for d in found.of_kind("Deployment")
        if d["metadata"]["labels"]["tidegate.dev/revision"] == found.stable()
    ]
    return int(deployment["spec"]["replicas"])


def test_a_pod_that_was_not_ready_for_a_while_makes_no_cold_start_longer() -> None:
    found = world()
    took = timedelta(seconds=40)

    def ready_then(pod: dict[str, Any]) -> None:
        ready_pod(pod)
        created = pod["metadata"]["creationTimestamp"]
        at = (datetime.fromisoformat(created) + took).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = pod["status"]
        status["conditions"].append({"type": "ContainersReady", "status": "True"})
        for each in status["conditions"]:
            each["lastTransitionTime"] = at if each["type"] == "Ready" else created
        [fetch] = status["initContainerStatuses"]
        fetch["state"]["terminated"] |= {"startedAt": created, "finishedAt": created}
        status["containerStatuses"][0]["state"]["running"]["startedAt"] = created

    found.outcomes[found.stable()] = ready_then
    found.play()
    load(found, 50.0)
    found.step()
    assert found.status["scaling"]["coldStart"] == "40s"
    took = timedelta(days=2)
    found.play()
    load(found, 120.0)
    found.step()
    assert found.status["scaling"]["desired"] > 1
    assert found.status["scaling"]["coldStart"] == "40s"
    # What was seen is believed, also where it took longer: new nodes, images to pull.
    seen = dict(zip((p["metadata"]["uid"] for p in found.pods), (40.0, 300.0, 310.0), strict=False))
    found.measurements = replace(found.measurements, starts=seen)
    load(found, 300.0)
    found.step()
    assert found.status["scaling"]["coldStart"] == f"{median(seen.values()):.0f}s"
    assert median(seen.values()) > 100.0
    found.measurements = replace(found.measurements, starts={})
    load(found, 120.0)
    found.step()
    assert found.status["scaling"]["coldStart"] == f"{median(seen.values()):.0f}s", "as it was"


def test_without_measurements_replicas_stay() -> None:
    found = world(minReplicas=2)
    assert asked(found) == 2
    assert found.status["scaling"]["hold"] == "Measuring"
    assert found.condition("MetricsAvailable")["status"] == "Unknown"
    assert found.condition("SLOMet")["status"] == "Unknown"


def test_a_load_gets_the_replicas_that_it_needs_and_the_numbers_are_told() -> None:
    found = world()
    load(found, 412.0)
    found.settle()
    status = found.status["scaling"]
    # 412 x 1.05 / 100 is 4.3, so 5, and one more below six.
    assert (asked(found), status["desired"], status["requiredReplicas"]) == (6, 6, 6)
    assert status["arrivalRate"] == "412"
    assert status["capacityPerPod"] == "100"
    assert status["serviceTime"] == "8 + 6 n ms"
    assert status["spare"] == 1
    assert (status["throughputPerPod"], status["requiredMax"]) == ("120", 5)
    assert (status["pending"], status["backlog"], status["dispersion"]) == ("0", "0", "1")
    assert (status["latency"], status["latencyModelled"]) == ("60ms", "62ms")
    assert (status["feedback"], status["coverage"]) == ("1.00", "100%")
    for text in ("412 req/s", "100 req/s within 100 ms", "8 + 6 n ms"):
        assert text in status["reason"]
    assert status["raised"] == found.now.strftime("%Y-%m-%d") + status["raised"][10:]
    assert found.condition("MetricsAvailable")["status"] == "True"
    assert found.condition("SLOInfeasible")["status"] == "False"
    [told] = [e for e in found.events if e.reason == "Scaled"]
    assert told.message.startswith("1 -> 6 replicas: 6 replicas required: 412 req/s arriving")


def test_planning_again_changes_nothing_while_figures_hardly_move() -> None:
    found = world()
    load(found, 412.0)
    found.settle()
    for rate in (415.0, 405.0, 419.0):
        found.now += timedelta(seconds=5)
        load(found, rate)
        assert found.step() == 0


def test_fewer_pods_come_one_step_at_a_time_and_idle_ones_go_first() -> None:
    found = world()
    load(found, 412.0)
    found.settle()
    found.now += timedelta(seconds=400)
    load(found, 40.0)
    busy = {p["metadata"]["uid"]: 5 for p in found.pods}
    idle = found.pods[0]["metadata"]["uid"]
    found.measurements = replace(found.measurements, in_flight=busy | {idle: 0})
    found.step()
    assert asked(found) == 5
    assert idle not in {p["metadata"]["uid"] for p in found.pods}
    load(found, 40.0)
    assert found.plan().requeue_after_s is not None
    found.settle()
    assert asked(found) == 5, "not before 30 s"
    found.now += timedelta(seconds=31)
    load(found, 40.0)
    found.step()
    assert asked(found) == 4


def test_no_more_are_asked_for_while_pods_find_no_gpu() -> None:
    found = world()
    found.outcomes[found.stable()] = pending_for_gpu
    found.play()
    load(found, 700.0)
    before = asked(found)
    found.step()
    assert asked(found) == before
    assert found.status["scaling"]["hold"] == "WaitingForGPU"
    assert found.condition("WaitingForGPU")["status"] == "True"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"coverage": 0.4}, "MetricsMissing"), ({"age_s": 60.0}, "MetricsMissing")],
)
def test_missing_metrics_take_nothing_away(changes: dict[str, Any], reason: str) -> None:
    found = world()
    load(found, 412.0)
    found.settle()
    found.now += timedelta(seconds=400)
    load(found, 0.0, **changes)
    found.step()
    assert asked(found) == 6
    assert found.condition("MetricsAvailable")["reason"] == reason


def test_an_infeasible_slo_is_told() -> None:
    found = world()
    load(found, 80.0, infeasible=True, idle_ms=140.0, capacity_per_pod=96.0)
    found.step()
    told = found.condition("SLOInfeasible")
    assert told["status"] == "True"
    assert "100 ms" in told["message"]


def test_during_a_rollout_none_are_taken_away_and_the_canary_gets_its_own_number() -> None:
    found = world()
    load(found, 412.0)
    found.settle()
    stable = found.stable()
    found.edit(
        model={"source": {"uri": "s3://models/magika/v4"}},
        rollout={"bake": "10m", "steps": [{"weight": "50%"}]},
        traffic={"gateway": {"parentRefs": [{"name": "public"}]}},
    )
    found.step()
    found.now += timedelta(seconds=400)
    canary = str(found.status["revisions"]["canary"]["hash"])
    # Far slower than stable, and it gets next to nothing yet; both together get 200 a second.
    slow = demand(found, 10.0, capacity_per_pod=40.0, cautious_per_pod=36.0)
    found.measurements = replace(
        found.measurements, load={stable: demand(found, 190.0), canary: slow}
    )
    for _ in range(5):
        found.step()
    assert asked(found) == 6
    assert found.status["scaling"]["hold"] == "RolloutLive"
    # Half of the traffic, with as much for each pod as stable's have: all that it needs for 200.
    counts = {
        d["metadata"]["labels"]["tidegate.dev/revision"]: d["spec"]["replicas"]
        for d in found.of_kind("Deployment")
    }
    assert counts == {stable: 6, canary: 7}


def test_fixed_and_external_leave_the_number_to_people() -> None:
    for mode in ("Fixed", "External"):
        found = world()
        found.edit(scaling={"mode": mode}, replicas=3)
        found.settle()
        load(found, 700.0)
        assert found.step() == 0
        assert asked(found) == 3


def test_whoever_else_scales_a_child_is_named_and_overruled() -> None:
    found = world()
    [deployment] = found.of_kind("Deployment")
    deployment["spec"]["replicas"] = 7
    deployment["metadata"]["managedFields"] = [
        {"manager": "tidegate", "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"manager": "kubectl-scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]
    plan = found.plan()
    assert [a.replicas for a in plan.actions if isinstance(a, Scale)] == [1]
    [told] = [a for a in plan.actions if isinstance(a, Event) and a.reason == "OtherScaler"]
    assert told.message.startswith("kubectl-scale set Deployment ")
    assert "it gets 1 again" in told.message


def set_by(found: World, manager: str, replicas: int, *more: str) -> None:
    """Somebody sets the number; the field's owner becomes another.

    By an apply, or by ``/scale``, of which the API server keeps no time.
    """
    found.spec["replicas"] = replicas
    found.generation += 1
    time = {"time": found.now.strftime("%Y-%m-%dT%H:%M:%SZ")} if manager != HPA else {}
    owner: dict[str, Any] = {"fieldsV1": {"f:spec": {"f:replicas": {}}}} | time
    found.managed_fields = [{"manager": m, **owner} for m in (manager, *more)]


def external(replicas: int = 2) -> World:
    found = World()
    found.edit(scaling={"mode": "External"}, rollout={"bake": "0s"})
    set_by(found, HPA, replicas)
    found.settle()
    return found


def test_an_hpa_alone_is_followed_wherever_it_goes() -> None:
    found = external()
    for number in (3, 7, 4, 1, 5):
        found.now += timedelta(seconds=15)
        set_by(found, HPA, number)
        found.settle()
        assert asked(found) == number
    [known] = found.status["scaling"]["setBy"]
    assert (known["manager"], known["replicas"]) == (HPA, 5)
    assert found.status["scaling"]["reason"] == "External: spec.replicas"
    assert "OtherScaler" not in {e.reason for e in found.events}


@pytest.mark.parametrize("other", ["kubectl", "kustomize-controller"])
@pytest.mark.parametrize(("theirs", "kept"), [(5, 5), (1, 2)])
def test_two_who_set_the_number_by_turns_are_named_and_the_higher_one_stays(
    other: str, theirs: int, kept: int
) -> None:
    found = external(2)
    found.now += timedelta(hours=3)
    set_by(found, other, theirs)
    found.settle()
    assert asked(found) == theirs, "once is no quarrel"
    found.now += timedelta(seconds=15)
    set_by(found, HPA, 2)
    found.settle()
    assert asked(found) == found.status["scaling"]["desired"] == kept
    assert found.status["scaling"]["hold"] == "OtherScaler"
    said = (
        f"External: {other} set spec.replicas to {theirs}, a HorizontalPodAutoscaler ({HPA}) to 2, "
        f"by turns; {kept} kept. Let one of them go."
    )
    [told] = [e for e in found.events if e.reason == "OtherScaler"]
    assert told.message == found.status["scaling"]["reason"] == said
    # On and on: the number stays, and it is told once.
    for _ in range(3):
        for manager, number in ((other, theirs), (HPA, 2)):
            found.now += timedelta(seconds=15)
            set_by(found, manager, number)
            found.settle()
            assert asked(found) == kept
    assert len([e for e in found.log if isinstance(e, Event) and e.reason == "OtherScaler"]) == 1
    # One of them went.
    wait_s = found.plan().requeue_after_s
    assert wait_s is not None
    assert 870.0 < wait_s <= 885.0
    found.now += timedelta(seconds=wait_s)
    found.settle()
    assert asked(found) == 2
    assert "hold" not in found.status["scaling"]


def test_who_goes_the_same_way_or_comes_late_does_not_quarrel() -> None:
    found = external(2)
    for seconds, manager, number in (
        (60, "kubectl", 4),
        (60, HPA, 6),
        (1000, "kubectl", 3),
        (1000, HPA, 5),
    ):
        found.now += timedelta(seconds=seconds)
        set_by(found, manager, number)
        found.settle()
        assert asked(found) == number
    assert "OtherScaler" not in {e.reason for e in found.events}


def test_a_person_who_changes_their_mind_is_obeyed() -> None:
    """With one command of kubectl's and with another; in Fixed mode whoever they are."""
    for mode, others in (("External", ("kubectl", "kubectl-edit")), ("Fixed", (HPA, "flux"))):
        found = external(2)
        found.edit(scaling={"mode": mode})
        for number in (5, 2, 4, 1):
            for manager in others:
                found.now += timedelta(seconds=30)
                set_by(found, manager, number)
                found.settle()
                assert asked(found) == number
                number += 1
        assert "OtherScaler" not in {e.reason for e in found.events}


def test_who_sets_the_same_number_changes_nothing() -> None:
    found = external(2)
    found.now += timedelta(seconds=30)
    set_by(found, "kustomize-controller", 2, HPA)
    found.settle()
    found.now += timedelta(seconds=30)
    set_by(found, HPA, 4)
    found.settle()
    assert asked(found) == 4
    assert "hold" not in found.status["scaling"]


def test_in_slo_mode_whoever_sets_the_number_is_told_that_it_is_not_read() -> None:
    found = world()
    load(found, 412.0)
    found.settle()
    set_by(found, HPA, 2)
    found.settle()
    assert asked(found) == 6
    assert [e["field"] for e in found.status["inactive"]] == ["replicas"]


def test_what_clients_got_stands_beside_what_they_were_promised() -> None:
    found = world()
    attained = Attained(
        window_s=300.0,
        answered=1000,
        failed=2,
        shed=0,
        timed=1000,
        slow=25,
        quantile=0.99,
        quantile_ms=123.0,
        latency_met=False,
        errors_met=True,
    )
    found.measurements = Measurements(attained=attained)
    found.step()
    assert found.status["slo"]["latency"] == "123ms/100ms"
    assert found.status["slo"]["errorRate"] == "0.20%/1%"
    told = found.condition("SLOMet")
    assert (told["status"], told["reason"]) == ("False", "SLOMissed")
    assert "123ms/100ms" in told["message"]
    found.measurements = Measurements(attained=replace(attained, quantile_ms=118.0, failed=3))
    assert [a for a in found.plan().actions if isinstance(a, Scale | Event)] == []


@settings(max_examples=20)
@given(st.lists(st.floats(0.0, 2000.0), min_size=1, max_size=4), st.integers(1, 4))
def test_any_course_of_the_load_stays_within_the_bounds_and_comes_to_rest(
    rates: list[float], least: int
) -> None:
    found = world(minReplicas=least)
    for rate in rates:
        found.now += timedelta(seconds=400)
        load(found, rate)
        for _ in range(3):
            found.step()
            assert least <= asked(found) <= 8
        assert found.step() == 0, "planning twice is no news"
