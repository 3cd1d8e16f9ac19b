"""What the plan makes of a ModelDeployment, over time."""

import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.plan.world import (
    DIGEST,
    World,
    failing_fetch,
    pending_for_gpu,
)
from tidegate.actions import Apply, ShortLoad, WriteStatus
from tidegate.api.spec import parse
from tidegate.inactive import inactive_fields
from tidegate.observed import Failure, GoldenResult, Measurements, Ref
from tidegate.plan import plan
from tidegate.platform import Images, Platform, Profile


def version(n: int) -> dict[str, Any]:
    return {"source": {"uri": f"s3://models/magika/v{n}"}}


def live() -> World:
    world = World()
    world.settle()
    return world


def test_a_new_deployment_comes_to_serve() -> None:
    world = live()
    assert Counter(r.kind for r in world.children) == {
        "ControllerRevision": 1,
        "ConfigMap": 2,
        "Deployment": 1,
        "Service": 2,
        "PodDisruptionBudget": 1,
        "NetworkPolicy": 1,
    }
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Available")["status"] == "True"
    assert world.condition("Reconciling")["status"] == "False"
    assert world.condition("Stalled")["status"] == "False"
    assert world.status["revisions"]["stable"]["digest"] == DIGEST
    assert world.status["rollout"]["phase"] == "Promoted"
    assert world.serving_pods() == 1
    assert [e.reason for e in world.events] == ["RevisionCreated", "Ready"]


def test_planning_twice_is_a_no_op() -> None:
    world = live()
    assert world.step() == 0


def test_every_child_is_owned_and_labelled() -> None:
    for obj in live().children.values():
        owner = obj["metadata"]["ownerReferences"][0]
        assert (owner["uid"], owner["controller"]) == ("owner", True)
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tidegate"


def test_one_pod_alone_until_the_bytes_are_pinned() -> None:
    world = World()
    world.edit(scaling={"minReplicas": 3})
    seen = []
    for _ in range(8):
        world.step()
        pinned = any(o["metadata"]["name"].endswith("-pin") for o in world.of_kind("ConfigMap"))
        seen.append((pinned, len(world.pods)))
    assert all(count <= 1 for pinned, count in seen if not pinned)
    assert seen[-1] == (True, 3)


def test_a_stated_digest_needs_no_pod_alone() -> None:
    world = World()
    world.edit(
        scaling={"minReplicas": 3},
        model={"source": {"uri": "s3://models/magika/v3", "sha256": "a" * 64}},
    )
    world.step()
    world.step()
    assert len(world.pods) == 3


def test_a_pod_with_other_bytes_than_the_pinned_is_removed() -> None:
    world = live()
    world.edit(scaling={"minReplicas": 2})
    world.bytes_now = "sha256:" + "b" * 64
    world.step()
    assert len(world.pods) == 2
    world.bytes_now = DIGEST
    world.settle()
    assert {p["digest"] for p in world.pods} == {DIGEST}


def test_a_new_version_gets_traffic_only_when_ready_and_the_old_one_goes() -> None:
    world = live()
    old = world.stable()
    world.edit(model=version(4))
    while world.stable() == old:
        assert world.serving_pods() == 1
        world.step()
    assert world.serving_pods() == 1
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert {p["metadata"]["labels"]["tidegate.dev/revision"] for p in world.pods} == {
        world.stable()
    }
    assert len(world.of_kind("Deployment")) == 1
    assert len(world.of_kind("ControllerRevision")) == 2, "old specs are kept for undo and diff"
    assert [h["outcome"] for h in world.status["history"]] == ["Promoted", "Promoted"]
    assert "RolloutComplete" in [e.reason for e in world.events]


@pytest.mark.parametrize(
    ("outcome", "reason", "stalled"),
    [
        (failing_fetch("ChecksumMismatch", "wrong"), "ChecksumMismatch", "True"),
        (failing_fetch("SignatureInvalid", "of other files"), "SignatureInvalid", "True"),
        (failing_fetch("SourceUnreachable", "no answer"), "SourceUnreachable", "False"),
        (pending_for_gpu, "WaitingForGPU", "False"),
    ],
)
def test_a_version_that_does_not_come_up_leaves_the_old_one_serving(
    outcome: Any, reason: str, stalled: str
) -> None:
    world = live()
    old = world.stable()
    world.edit(model=version(4))
    target = _target(world)
    world.outcomes[target] = outcome
    world.settle()
    assert world.stable() == old
    assert world.serving_pods() == 1
    assert world.condition("Available")["status"] == "True"
    assert world.condition("Ready")["status"] == "False"
    assert world.condition("Ready")["reason"] == reason
    assert f"Revision {old} goes on serving." in world.condition("Ready")["message"]
    assert world.condition("Stalled")["status"] == stalled
    assert world.status["traffic"] == [
        {"revision": old, "weight": 100},
        {"revision": target, "weight": 0},
    ]
    # It recovers by itself when the cause goes.
    del world.outcomes[target]
    world.play()
    world.settle()
    assert world.stable() == target
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Stalled")["status"] == "False"


def _target(world: World) -> str:
    status = next(a for a in world.plan().actions if isinstance(a, WriteStatus)).status
    return str((status["revisions"].get("canary") or status["revisions"]["stable"])["hash"])


def test_reverting_the_spec_takes_the_unfinished_revision_away() -> None:
    world = live()
    before = world.stable()
    spec = world.spec["model"]
    world.edit(model=version(4))
    world.outcomes[_target(world)] = pending_for_gpu
    world.settle()
    assert len(world.of_kind("Deployment")) == 2
    world.edit(model=spec)
    world.settle()
    assert world.stable() == before
    assert len(world.of_kind("Deployment")) == 1
    assert world.condition("Ready")["status"] == "True"


def test_a_first_version_that_never_served_makes_room_at_once() -> None:
    world = World()
    first = _target(world)
    world.outcomes[first] = pending_for_gpu
    world.settle()
    assert world.condition("WaitingForGPU")["status"] == "True"
    world.edit(model=version(4))
    world.settle()
    assert world.stable() != first
    assert len(world.of_kind("Deployment")) == 1
    assert world.condition("WaitingForGPU")["status"] == "False"


def test_paused_holds_the_switch_and_says_so() -> None:
    world = live()
    old = world.stable()
    world.edit(model=version(4), rollout={"paused": True})
    world.settle()
    assert world.stable() == old
    assert world.condition("Ready")["reason"] == "Paused"
    world.edit(rollout={"paused": False})
    world.settle()
    assert world.stable() != old


def test_recreate_takes_the_old_pods_away_first() -> None:
    world = live()
    world.edit(model=version(4), rollout={"strategy": "Recreate"})
    world.outcomes[_target(world)] = pending_for_gpu
    world.settle()
    assert {p["metadata"]["labels"]["tidegate.dev/revision"] for p in world.pods} == {
        _target(world)
    }
    assert world.condition("Available")["status"] == "False"


def test_scaling_touches_no_pod_template() -> None:
    world = live()
    before = world.of_kind("Deployment")[0]["spec"]["template"]
    revision = world.stable()
    world.edit(replicas=4, scaling={"mode": "Fixed"}, slo={"maxErrorRate": "2%"})
    world.settle()
    assert len(world.pods) == 4
    assert world.stable() == revision
    assert world.of_kind("Deployment")[0]["spec"]["template"] == before


def test_fixed_at_zero_is_what_was_asked_for_and_serves_nothing() -> None:
    world = live()
    world.edit(replicas=0, scaling={"mode": "Fixed"})
    world.settle()
    assert world.pods == []
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Available")["reason"] == "ScaledToZero"
    world.edit(model=version(4))
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    world.edit(replicas=1)
    world.settle()
    assert world.serving_pods() == 1


def test_an_operator_with_other_defaults_restarts_nothing() -> None:
    world = live()
    before = world.of_kind("Deployment")[0]["spec"]["template"]
    world.platform = Platform(
        images=Images(triton="nvidia/tritonserver:99", fetch="tidegate/fetch:9"),
        pre_stop_seconds=60,
        profiles={"default": Profile(image="other/image:1")},
        default_profile="default",
    )
    world.settle()
    assert world.of_kind("Deployment")[0]["spec"]["template"] == before
    assert world.condition("RuntimeOutdated")["status"] == "True"
    assert "other/image:1" in world.condition("RuntimeOutdated")["message"]
    assert world.condition("Ready")["status"] == "True"


def test_signatures_are_asked_of_revisions_that_are_born_under_the_rule() -> None:
    """By namespace; those that were there before go on as they are."""
    key = Path("tests/unit/fetch/artefacts/signed.pem").read_text()
    rules = [{"keys": [key], "namespaces": ["prod"]}, {"keys": [key], "namespaces": ["demo"]}]
    world = live()
    world.platform = Platform.model_validate({"fetch": {"verify": rules}})

    def asked() -> list[Any]:
        world.settle()
        requests = [c["data"].get("fetch.json") for c in world.of_kind("ConfigMap")]
        return [json.loads(text).get("verify") for text in requests if text]

    assert asked() == [None]
    world.edit(model=version(4))
    assert asked() == [{"keys": [key], "required": True}]


@pytest.mark.parametrize("kind", ["ControllerRevision", "ConfigMap", "Deployment", "Service"])
def test_a_deleted_child_is_put_back_exactly_by_any_version(kind: str) -> None:
    world = live()
    world.platform = Platform(images=Images(triton="nvidia/tritonserver:99"))
    for ref in [r for r in world.children if r.kind == kind]:
        before = world.children.pop(ref)
        world.settle()
        after = world.children[ref]
        for obj in (before, after):
            obj["metadata"] = {
                k: v
                for k, v in obj["metadata"].items()
                if k not in ("uid", "creationTimestamp", "annotations")
            }
        assert before == after


def test_a_foreign_object_is_left_alone_and_told_of() -> None:
    ref = Ref("v1", "Service", "magika")
    world = World(foreign=frozenset({ref}))
    for _ in range(6):
        world.step()
    assert world.condition("Ready")["reason"] == "NameConflict"
    assert "Service magika" in world.condition("Ready")["message"]
    assert world.condition("Stalled")["status"] == "True"


def test_what_the_api_server_refuses_is_told() -> None:
    world = live()
    observed = replace(
        world.observed(),
        failures=(Failure("Apply", Ref("v1", "Service", "magika"), "Forbidden", "no right"),),
    )
    found = plan(observed, world.platform, world.now).actions[-1]
    assert isinstance(found, WriteStatus)
    ready = next(c for c in found.status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Forbidden")
    assert "Apply Service magika was refused: no right" in ready["message"]


@pytest.mark.parametrize(
    ("blocks", "reason", "words"),
    [
        ({"runtime": {"profile": "big"}}, "ProfileNotFound", "no profile 'big'"),
        (
            {"runtime": {"serviceAccountName": "root"}},
            "ServiceAccountNotAllowed",
            "runtime.serviceAccountName",
        ),
        (
            {"model": {**version(4), "config": {"override": "max_batchsize: 3"}}},
            "ConfigInvalid",
            "model.config.override",
        ),
        ({"model": {"source": {"url": "s3://a/b"}}}, "InvalidSpec", "spec.model.source"),
    ],
)
def test_a_spec_that_cannot_become_a_revision_changes_nothing_that_serves(
    blocks: dict[str, Any], reason: str, words: str
) -> None:
    fresh = World()
    fresh.edit(**blocks)
    fresh.settle()
    assert fresh.children == {}, "nothing half-created"
    assert fresh.condition("Stalled")["reason"] == reason
    assert words in fresh.condition("Ready")["message"]

    world = live()
    children = {r: o for r, o in world.children.items()}
    world.edit(**blocks)
    world.settle()
    assert world.children == children
    assert world.condition("Available")["status"] == "True"
    assert world.condition("Ready")["reason"] == reason
    assert [e.reason for e in world.events].count(reason) == 1


def test_the_progress_deadline_turns_waiting_into_stalled() -> None:
    world = World()
    world.outcomes[_target(world)] = pending_for_gpu
    world.settle()
    assert world.condition("Stalled")["status"] == "False"
    again = world.plan().requeue_after_s
    assert again is not None
    assert 0 < again <= 1800
    world.now += timedelta(seconds=again)
    world.settle()
    assert world.condition("Stalled")["status"] == "True"
    assert "rollout.progressDeadline (30m)" in world.condition("Ready")["message"]


def test_tritons_own_words_reach_the_user() -> None:
    world = World()

    def loading(pod: dict[str, Any]) -> None:
        pod["status"] = {
            "phase": "Running",
            "podIP": "10.0.0.2",
            "containerStatuses": [{"name": "triton", "ready": False, "state": {"running": {}}}],
            "conditions": [{"type": "PodScheduled", "status": "True"}],
        }
        world.models[pod["metadata"]["uid"]] = "magika version 1: Internal: no module named x"

    world.outcomes[_target(world)] = loading
    world.settle()
    assert world.condition("Ready")["reason"] == "ModelNotLoaded"
    assert "no module named x" in world.condition("Ready")["message"]


def test_history_is_bounded() -> None:
    world = live()
    world.edit(historyLimit=2)
    for n in range(4, 9):
        world.edit(model=version(n))
        world.settle()
    assert len(world.of_kind("ControllerRevision")) == 3


def test_failed_revisions_do_not_push_out_one_that_served() -> None:
    world = live()
    first = world.stable()
    world.edit(historyLimit=2)
    for n in range(4, 9):
        world.edit(model=version(n))
        world.outcomes[_target(world)] = failing_fetch("SourceNotFound", "nothing there")
        world.settle()
    assert world.stable() == first
    # The one that serves, the one that is wanted, and two that failed before it.
    assert len(world.of_kind("ControllerRevision")) == 4
    world.edit(model=version(9))
    world.settle()
    assert world.stable() != first
    outcomes = [(h["revision"], h["outcome"]) for h in world.status["history"]]
    assert outcomes[0] == (world.stable(), "Promoted")
    assert outcomes[1][1] == "Superseded"


def test_a_gateway_gets_a_route_and_loses_it() -> None:
    world = live()
    world.edit(traffic={"gateway": {"parentRefs": [{"name": "gw"}], "hostnames": ["m.example"]}})
    world.settle()
    (route,) = world.of_kind("HTTPRoute")
    assert route["spec"]["rules"][0]["backendRefs"][0]["name"] == f"magika-{world.stable()}"
    assert world.status["url"] == "http://m.example"
    world.spec["traffic"] = {}
    world.settle()
    assert world.of_kind("HTTPRoute") == []


def test_prometheus_finds_the_pods_where_it_has_the_api() -> None:
    assert live().of_kind("PodMonitor") == []
    world = World(present_kinds=frozenset({"PodMonitor"}))
    world.settle()
    (monitor,) = world.of_kind("PodMonitor")
    ports = {e["port"] for e in monitor["spec"]["podMetricsEndpoints"]}
    pod = world.of_kind("Deployment")[0]["spec"]["template"]["spec"]
    declared = {p["name"] for c in pod["initContainers"] for p in c.get("ports", [])}
    assert ports == {"internal"} <= declared
    world.edit(runtime={"sidecar": "Off"})
    world.settle()
    (monitor,) = world.of_kind("PodMonitor")
    assert [e["port"] for e in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


def test_a_gateway_without_its_api_is_told() -> None:
    world = World(present_kinds=frozenset())
    world.edit(traffic={"gateway": {"parentRefs": [{"name": "gw"}]}})
    world.settle()
    assert world.condition("Ready")["reason"] == "GatewayAPIMissing"


def test_a_deployment_on_its_way_out_is_left_to_the_garbage_collector() -> None:
    world = live()
    observed = world.observed()
    going = {**observed.deployment}
    going["metadata"] = {**going["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert plan(replace(observed, deployment=going), world.platform, world.now).actions == ()


def test_defaults_that_the_api_server_fills_in_are_not_listed_as_ignored() -> None:
    world = World(spec={"model": version(3)})
    world.edit(
        scaling={"mode": "Fixed", "minReplicas": 1, "maxReplicas": 10, "headroom": "Auto"},
        slo={"maxErrorRate": "1%"},
        rollout={"strategy": "BlueGreen", "bake": "10m", "gates": []},
    )
    world.settle()
    assert world.status["inactive"] == []


def test_nothing_is_silently_ignored() -> None:
    world = World()
    world.edit(
        rollout={"bake": "5m", "strategy": "BlueGreen"},
        goldenRequests={"configMapName": "golden"},
        traffic={"timeout": "5s"},
        runtime={"sidecar": "Off"},
        replicas=3,
    )
    world.settle()
    fields = {i["field"] for i in world.status["inactive"]}
    assert fields == {
        *("slo.latency", "replicas"),
        "traffic.timeout",
    }


GATEWAY = {"traffic": {"gateway": {"parentRefs": [{"name": "public"}]}}}
OTHER: dict[str, Any] = {
    "steps": [{"weight": "10%"}],
    "mirror": {"percent": "20%"},
    "pin": {"headers": {"x-canary": "yes"}},
    "onInconclusive": {"action": "RollBack"},
    "surgeWait": "1m",
    "confidence": "99%",
}


@pytest.mark.parametrize(
    ("blocks", "unread"),
    [
        (GATEWAY, []),
        ({}, ["steps", "mirror", "pin", "onInconclusive"]),
        (GATEWAY | {"rollout": {"strategy": "BlueGreen"}}, ["steps", "onInconclusive"]),
        (
            GATEWAY | {"rollout": {"strategy": "BlueGreen", "mirror": {"mode": "Required"}}},
            ["steps"],
        ),
        (
            GATEWAY | {"rollout": {"strategy": "Recreate", "surge": "Never"}},
            ["steps", "mirror", "onInconclusive", "surge", "surgeWait"],
        ),
        (GATEWAY | {"rollout": {"surge": "Always"}}, ["surgeWait"]),
        (GATEWAY | {"runtime": {"sidecar": "Off"}}, ["confidence"]),
    ],
)
def test_each_field_of_a_rollout_that_is_not_read_is_listed_with_the_reason(
    blocks: dict[str, Any], unread: list[str]
) -> None:
    rollout = OTHER | blocks.get("rollout", {})
    found = inactive_fields(parse({"model": version(3), **blocks, "rollout": rollout}))
    assert [i.field for i in found] == [f"rollout.{field}" for field in unread]
    assert all(i.reason for i in found)


EDITS = st.sampled_from(
    [
        {"model": version(3)},
        {"model": version(4)},
        {"model": version(5)},
        {"rollout": {"paused": True}},
        {"rollout": {"paused": False}},
        {"rollout": {"strategy": "Recreate"}},
        {"rollout": {"strategy": "Canary"}},
        {"replicas": 2, "scaling": {"mode": "Fixed"}},
        {"scaling": {"mode": "SLO"}},
        {"runtime": {"resources": {"cpu": "2"}}},
        {"runtime": {"profile": "missing"}},
        {"runtime": {}},
    ]
)


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(EDITS, st.integers(0, 12), st.booleans(), st.integers(0, 20)),
        min_size=1,
        max_size=6,
    )
)
def test_any_history_of_edits_crashes_and_deletions_ends_where_the_spec_says(
    history: list[tuple[dict[str, Any], int, bool, int]],
) -> None:
    """Level-triggered: the operator dies after any write, children vanish, specs change."""
    world = live()
    calm = True
    for edit, writes, delete, which in history:
        world.edit(**edit)
        world.step(writes=writes)
        if delete:
            refs = sorted(world.children)
            if refs:
                del world.children[refs[which % len(refs)]]
        world.play()
        recreate = world.spec.get("rollout", {}).get("strategy") == "Recreate"
        calm = calm and not delete and not recreate
        if calm:
            assert world.serving_pods() > 0, "no edit and no crash takes the model away"
    world.spec["runtime"] = {}
    world.spec["rollout"] = {"bake": "0s"}
    # In SLO mode replicas stay as they were until something is measured.
    world.spec |= {"scaling": {"mode": "Fixed"}, "replicas": 2}
    world.generation += 1
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    expected = World(spec=world.spec)
    expected.settle()
    assert world.stable() == expected.stable()
    assert {r for r in world.children if r.kind != "ControllerRevision"} == {
        r for r in expected.children if r.kind != "ControllerRevision"
    }
    assert len(world.pods) == len(expected.pods)
    assert world.step() == 0


def test_manifests_carry_no_namespace_and_no_secret() -> None:
    for action in World().plan().actions:
        if isinstance(action, Apply):
            assert "namespace" not in action.manifest["metadata"]
            assert action.manifest["kind"] != "Secret"


def test_only_a_first_revision_without_traffic_is_loaded() -> None:
    world = World()
    world.edit(goldenRequests={"configMapName": "g", "loadTest": {"rate": 20, "duration": "5s"}})
    for _ in range(3):
        world.step()
    (verify,) = world.plan().verify
    assert verify.load is not None
    share = verify.load.slow_share
    assert verify.load == ShortLoad(20, 5.0, 0.01, 100, share)
    assert share == pytest.approx(0.01)
    passed = GoldenResult(True, "", world.now)
    world.measurements = Measurements(golden={p["metadata"]["uid"]: passed for p in world.pods})
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    (verify,) = world.plan().verify
    assert verify.load is None
    world.edit(model={"source": {"uri": "s3://models/magika/v4"}})
    world.step()
    (verify,) = world.plan().verify
    assert verify.load is None
