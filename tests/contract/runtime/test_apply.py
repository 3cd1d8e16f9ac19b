"""What the operator writes, and what it leaves alone, against a real API server."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from e2e.cluster.audit import AuditLog, Write
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from tests.contract import runtime_harness as h
from tidegate.actions import Annotate, Apply, Delete, Event, Plan, Scale, WriteStatus
from tidegate.api.names import CHILDREN_MANAGER, SCALE_MANAGER
from tidegate.observed import Observed, Ref
from tidegate.runtime import drift
from tidegate.runtime.apply import Carrier
from tidegate.runtime.cache import Cache, Key
from tidegate.runtime.foreign import ForeignObjectError
from tidegate.runtime.kinds import CHILDREN, DEPLOYMENT, EVENT, MODEL_DEPLOYMENT, Kind, kind_of
from tidegate.runtime.kube import Kube
from tidegate.runtime.telemetry import Metrics

pytestmark = pytest.mark.contract

SERVICE = kind_of("v1", "Service")
CONFIG_MAP = kind_of("v1", "ConfigMap")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with start(controllers=True) as plane:
        yield plane


async def status_of(kube: Kube, namespace: str, name: str = "m") -> dict[str, Any]:
    live = await kube.get(MODEL_DEPLOYMENT, namespace, name)
    status: dict[str, Any] = live.get("status", {})
    return status


async def served(kube: Kube, namespace: str, generation: int = 1) -> None:
    async def done() -> bool:
        return (await status_of(kube, namespace)).get("observedGeneration") == generation

    await h.until(done, f"status of generation {generation}")


def writes(log: AuditLog, user: str = "operator") -> list[Write]:
    return [w for w in log.writes(user=user) if w.resource != "leases"]


async def test_an_object_becomes_its_children_and_then_nothing_is_written(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    from_start = AuditLog(plane.audit_log)
    await h.create_model(kube, namespace, replicas=2)
    async with h.running(plane, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        await h.quiet(operator)
        # Each once: five children, a scale, a status.
        assert sorted(w.resource for w in writes(from_start)) == [
            "configmaps",
            "deployments",
            "deployments/scale",
            "modeldeployments/status",
            "networkpolicies",
            "poddisruptionbudgets",
            "services",
        ]
        assert (await kube.get(DEPLOYMENT, namespace, "m-abc"))["spec"]["replicas"] == 2
        await h.comes_to_rest(operator, plane)
        # And not because the comparison gave up: it finds no difference at all.
        assert operator.reconciler._carrier._settled.is_empty


async def test_a_restart_writes_nothing(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    def plan_with_event(observed: Observed, *rest: Any) -> Plan:
        plan = h.tiny_plan(observed, *rest)
        return Plan((*plan.actions, Event("Normal", "Served", "it serves")))

    await h.create_model(kube, namespace)
    async with h.running(plane, namespace, plan_with_event) as operator:
        await served(kube, namespace)
        await h.comes_to_rest(operator, plane)
    # The API server forgets events after an hour; that they are gone is no reason to tell again.
    async for page in kube.pages(EVENT, namespace):
        for event in page["items"]:
            meta = event["metadata"]
            await kube.delete(EVENT, namespace, meta["name"], uid=meta["uid"])
    log = AuditLog(plane.audit_log)
    async with h.running(plane, namespace, plan_with_event, user="successor") as operator:
        await h.leading(operator)
        await h.quiet(operator)
        operator._look_at_all()
        await h.quiet(operator)
    assert any(w.resource == "leases" for w in log.writes(user="successor"))
    assert writes(log, "successor") == []


EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "image changed": (
        {"spec": {"template": {"spec": {"containers": [{"name": "triton", "image": "evil:1"}]}}}},
        "image",
    ),
    "container added": (
        {"spec": {"template": {"spec": {"containers": [{"name": "miner", "image": "evil:1"}]}}}},
        "containers[",
    ),
    "node selector added": (
        {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}},
        "nodeSelector",
    ),
    "variable added": (
        {
            "spec": {
                "template": {
                    "spec": {
                        "containers": [{"name": "triton", "env": [{"name": "X", "value": "1"}]}]
                    }
                }
            }
        },
        "env[",
    ),
    "default changed": (
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
        "terminationGracePeriodSeconds",
    ),
    "template annotated": (
        {"spec": {"template": {"metadata": {"annotations": {"theirs": "x"}}}}},
        "annotations",
    ),
    "label taken": ({"metadata": {"labels": {"tidegate.dev/deployment": None}}}, ""),
    "selected label taken": (
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}},
        "",
    ),
    "atomic list replaced": (
        {"spec": {"template": {"spec": {"tolerations": [{"key": "x", "operator": "Exists"}]}}}},
        "tolerations",
    ),
    "strategy changed": ({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 5}}}}, "maxSurge"),
}


def comparable(live: Any) -> Any:
    live = deepcopy(dict(live))
    live.pop("status", None)
    for volatile in ("managedFields", "resourceVersion", "generation"):
        live["metadata"].pop(volatile, None)
    # The deployment controller's own.
    (live["metadata"].get("annotations") or {}).pop("deployment.kubernetes.io/revision", None)
    live["metadata"].pop("annotations", None)
    return live


async def strategic(kube: Kube, namespace: str, name: str, patch: dict[str, Any]) -> Any:
    """As kubectl edit does it."""
    return (
        await kube._write(
            "merge",
            DEPLOYMENT,
            "PATCH",
            DEPLOYMENT.path(namespace, name),
            patch,
            params={"fieldManager": "kubectl-edit"},
            content_type="application/strategic-merge-patch+json",
        )
    ).document


async def test_edits_by_hand_are_put_back(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    await h.create_model(kube, namespace, replicas=0)
    async with h.running(plane, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        operator.reconciler._carrier._put_backs.first_s = 0.0
        await h.quiet(operator)
        before = comparable(await kube.get(DEPLOYMENT, namespace, "m-abc"))
        for what, (patch, field) in EDITS.items():
            edited = await strategic(kube, namespace, "m-abc", patch)
            assert comparable(edited) != before, what

            async def restored() -> bool:
                known = operator.cache.get(DEPLOYMENT, namespace, "m-abc")
                return (
                    comparable(await kube.get(DEPLOYMENT, namespace, "m-abc")) == before
                    and known is not None
                    and comparable(known) == before
                )

            await h.until(restored, f"{what} put back")

            async def told(field: str = field) -> bool:
                messages = [
                    e["message"]
                    async for page in kube.pages(EVENT, namespace)
                    for e in page["items"]
                    if e["reason"] == "Drifted"
                ]
                return any(field in message for message in messages)

            await h.until(told, f"{what} told")
        await h.comes_to_rest(operator, plane)


async def test_a_restart_by_kubectl_stands_while_other_edits_go(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-11-21T08:00:00Z"}
    await h.create_model(kube, namespace, replicas=0)
    async with h.running(plane, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        operator.reconciler._carrier._put_backs.first_s = 0.0
        both = {"spec": {"template": {"metadata": {"annotations": restarted | {"theirs": "x"}}}}}
        await strategic(kube, namespace, "m-abc", both)

        async def only_the_restart() -> bool:
            live = await kube.get(DEPLOYMENT, namespace, "m-abc")
            return bool(live["spec"]["template"]["metadata"].get("annotations") == restarted)

        await h.until(only_the_restart, "the other annotation gone")
        await h.comes_to_rest(operator, plane)
        assert await only_the_restart()


async def test_who_insists_is_answered_ever_more_slowly(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    await h.create_model(kube, namespace, replicas=0)
    async with h.running(plane, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        operator.reconciler._carrier._put_backs.first_s = 3600.0
        operator.reconciler._carrier._put_backs.limit_s = 3600.0
        patch = EDITS["node selector added"][0]

        async def restored() -> bool:
            live = await kube.get(DEPLOYMENT, namespace, "m-abc")
            return "nodeSelector" not in live["spec"]["template"]["spec"]

        await strategic(kube, namespace, "m-abc", patch)
        await h.until(restored, "put back at once")
        await h.comes_to_rest(operator, plane)
        await strategic(kube, namespace, "m-abc", patch)
        await h.comes_to_rest(operator, plane)
        assert not await restored()
        # A new wish does not wait for the end of the quarrel.
        await kube.merge(
            MODEL_DEPLOYMENT, namespace, "m", {"spec": {"image": "triton:2"}}, manager="user"
        )

        async def new_image() -> bool:
            live = await kube.get(DEPLOYMENT, namespace, "m-abc")
            return bool(live["spec"]["template"]["spec"]["containers"][0]["image"] == "triton:2")

        await h.until(new_image, "the new image")


async def test_a_child_deleted_by_hand_comes_back(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    await h.create_model(kube, namespace)
    async with h.running(plane, namespace, h.tiny_plan):
        await served(kube, namespace)
        for kind in CHILDREN:
            name = {"Deployment": "m-abc", "ConfigMap": "m-abc"}.get(kind.kind, "m")
            old = await kube.find(kind, namespace, name) if not kind.optional else None
            if old is None:
                continue
            uid = old["metadata"]["uid"]
            await kube.delete(kind, namespace, name, uid=uid)

            async def back(kind: Kind = kind, name: str = name, uid: str = uid) -> bool:
                new = await kube.find(kind, namespace, name)
                return bool(new is not None and new["metadata"]["uid"] != uid)

            await h.until(back, f"{kind} back")

        async def scaled() -> bool:
            return bool((await kube.get(DEPLOYMENT, namespace, "m-abc"))["spec"]["replicas"] == 1)

        await h.until(scaled, "the new Deployment scaled")


async def test_a_foreign_object_without_any_conflict_is_not_merged_into(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "m-abc", "namespace": namespace},
        "data": {"theirs": "x"},
    }
    made = (await kube.create(CONFIG_MAP, foreign, manager="them")).document
    await h.create_model(kube, namespace)
    log = AuditLog(plane.audit_log)
    async with h.running(plane, namespace, h.tiny_plan):

        async def told() -> bool:
            return (await status_of(kube, namespace)).get("foreign") == ["ConfigMap/m-abc"]

        await h.until(told, "status names the foreign object")
    assert await kube.get(CONFIG_MAP, namespace, "m-abc") == made
    assert [w for w in writes(log) if w.resource == "configmaps"] == []


@pytest.mark.parametrize("labelled", [False, True])
async def test_a_foreign_object_is_not_touched_and_status_says_so(
    plane: ControlPlane, kube: Kube, namespace: str, labelled: bool
) -> None:
    labels = {"app.kubernetes.io/managed-by": "tidegate", "tidegate.dev/deployment": "m"}
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "m",
            "namespace": namespace,
            "labels": labels if labelled else {},
        },
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    made = (await kube.create(SERVICE, foreign, manager="them")).document
    await h.create_model(kube, namespace)
    async with h.running(plane, namespace, h.tiny_plan) as operator:

        async def told() -> bool:
            return (await status_of(kube, namespace)).get("foreign") == ["Service/m"]

        await h.until(told, "status names the foreign object")
        # Everything else is there all the same.
        assert await kube.find(DEPLOYMENT, namespace, "m-abc") is not None
        await h.quiet(operator)
        assert await kube.get(SERVICE, namespace, "m") == made
        # Its owner takes it away: ours is made.
        await kube.delete(SERVICE, namespace, "m", uid=made["metadata"]["uid"])

        async def ours() -> bool:
            operator._look_at_all()  # it looks by itself only every half minute
            live = await kube.find(SERVICE, namespace, "m")
            return bool(live and live["metadata"].get("ownerReferences"))

        await h.until(ours, "our Service")

        async def untold() -> bool:
            return (await status_of(kube, namespace)).get("foreign") == []

        await h.until(untold, "status forgets it")


class _Blind(Kube):
    """Sees no object: somebody makes it between our look and our apply."""

    async def find(self, *_: Any) -> None:
        return None


async def test_a_name_taken_in_the_last_moment_is_given_back(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "m-abc", "namespace": namespace},
        "data": {"theirs": "x"},
    }
    made = (await kube.create(CONFIG_MAP, foreign, manager="them")).document
    deployment = await h.create_model(kube, namespace)
    blind = _Blind(h.connection(plane, "blind"), kube._fence, Metrics(), clock=lambda: 1.0)
    async with blind:
        carrier = Carrier(blind, Cache(), Metrics())
        manifest = h.config_manifest(Observed(deployment))
        with pytest.raises(ForeignObjectError):
            await carrier.carry_out(Key(namespace, "m"), deployment, Apply(manifest))
    live = await kube.get(CONFIG_MAP, namespace, "m-abc")
    assert live["data"] == made["data"]
    assert "ownerReferences" not in live["metadata"]
    assert "labels" not in live["metadata"]


@pytest.mark.parametrize("replicas", [0, 1, 3])
async def test_replicas_belong_to_the_scale_manager(
    plane: ControlPlane, kube: Kube, namespace: str, replicas: int
) -> None:
    await h.create_model(kube, namespace, replicas=replicas, image="triton:1")
    async with h.running(plane, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        await h.quiet(operator)
        live = await kube.get(DEPLOYMENT, namespace, "m-abc")
        assert live["spec"]["replicas"] == replicas
        owner = SCALE_MANAGER if replicas else CHILDREN_MANAGER
        assert drift.owners(live, ("spec", "replicas")) == {owner}
        # A later apply of the children's manager drops nothing.
        for generation, image in enumerate(("triton:2", "triton:3"), start=2):
            await kube.merge(
                MODEL_DEPLOYMENT, namespace, "m", {"spec": {"image": image}}, manager="user"
            )
            await served(kube, namespace, generation)
            live = await kube.get(DEPLOYMENT, namespace, "m-abc")
            assert live["spec"]["template"]["spec"]["containers"][0]["image"] == image
            assert live["spec"]["replicas"] == replicas
        # Hand-made scaling is put back by the scale manager, whichever way it was done.
        for sub in (None, "scale"):
            await kube._write(
                "merge",
                DEPLOYMENT,
                "PATCH",
                DEPLOYMENT.path(namespace, "m-abc", sub),
                {"spec": {"replicas": 7}},
                params={"fieldManager": "kubectl"},
                content_type="application/merge-patch+json",
            )

            async def back() -> bool:
                live = await kube.get(DEPLOYMENT, namespace, "m-abc")
                return bool(live["spec"]["replicas"] == replicas)

            await h.until(back, "scaled back")
        live = await kube.get(DEPLOYMENT, namespace, "m-abc")
        assert drift.owners(live, ("spec", "replicas")) == {SCALE_MANAGER}
        await kube.merge(
            MODEL_DEPLOYMENT, namespace, "m", {"spec": {"image": "triton:4"}}, manager="user"
        )
        await served(kube, namespace, 4)
        live = await kube.get(DEPLOYMENT, namespace, "m-abc")
        assert live["spec"]["replicas"] == replicas


async def test_a_field_that_is_not_wanted_any_more_goes(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    def plan(observed: Observed, *_: Any) -> Plan:
        manifest = h.config_manifest(observed)
        manifest["data"] = dict(observed.deployment["spec"]["data"])
        return Plan((Apply(manifest),))

    await h.create_model(kube, namespace, data={"a": "1", "b": "2"})
    async with h.running(plane, namespace, plan):

        async def has(data: dict[str, str]) -> bool:
            live = await kube.find(CONFIG_MAP, namespace, "m-abc")
            return live is not None and live.get("data") == data

        await h.until(lambda: has({"a": "1", "b": "2"}), "first data")
        await kube.merge(
            MODEL_DEPLOYMENT, namespace, "m", {"spec": {"data": {"b": None}}}, manager="user"
        )
        await h.until(lambda: has({"a": "1"}), "b gone")


async def test_annotations_live_beside_applies(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    note = {"tidegate.dev/source-digest": "sha256:abc"}

    def plan(observed: Observed, *_: Any) -> Plan:
        manifest = h.config_manifest(observed)
        manifest["data"] = {"n": str(observed.deployment["spec"]["n"])}
        return Plan((Apply(manifest), Annotate(Ref("v1", "ConfigMap", "m-abc"), note)))

    await h.create_model(kube, namespace, n=1)
    async with h.running(plane, namespace, plan) as operator:

        async def has(n: str) -> bool:
            live = await kube.find(CONFIG_MAP, namespace, "m-abc")
            return (
                live is not None
                and live["data"] == {"n": n}
                and live["metadata"].get("annotations") == note
            )

        await h.until(lambda: has("1"), "noted")
        await kube.merge(MODEL_DEPLOYMENT, namespace, "m", {"spec": {"n": 2}}, manager="user")
        await h.until(lambda: has("2"), "applied, and still noted")
        await h.comes_to_rest(operator, plane)


async def test_deletion_leaves_nothing_behind(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    made = await h.create_model(kube, namespace, replicas=0)
    async with h.running(plane, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        await h.quiet(operator)
        live = await kube.get(MODEL_DEPLOYMENT, namespace, "m")
        assert "finalizers" not in live["metadata"]
        assert "annotations" not in live["metadata"]
        await kube.delete(MODEL_DEPLOYMENT, namespace, "m", uid=made["metadata"]["uid"])

        async def left() -> list[str]:
            return [
                f"{kind}/{item['metadata']['name']}"
                for kind in (MODEL_DEPLOYMENT, *CHILDREN)
                if not kind.optional
                async for page in kube.pages(kind, namespace, selector=kind.selector)
                for item in page["items"]
            ]

        async def nothing_left() -> bool:
            return not await left()

        await h.until(nothing_left, "the garbage collector's work")

        def forgotten() -> bool:
            return all(n == 0 for n in operator.cache.sizes().values())

        await h.until(forgotten, "the last deletion seen")
        await h.quiet(operator)
        assert await left() == []
        assert forgotten()


async def test_delete_spares_a_successor_of_the_same_name(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    deployment = await h.create_model(kube, namespace)
    carrier = Carrier(kube, cache := Cache(), Metrics())
    key = Key(namespace, "m")
    manifest = h.config_manifest(Observed(deployment))
    await carrier.carry_out(key, deployment, Apply(manifest))
    old = cache.get(CONFIG_MAP, namespace, "m-abc")
    assert old is not None
    await kube.delete(CONFIG_MAP, namespace, "m-abc", uid=old["metadata"]["uid"])
    manifest["metadata"]["namespace"] = namespace
    new = (await kube.create(CONFIG_MAP, manifest, manager="x")).document
    done = await carrier.carry_out(
        key, deployment, Delete(Ref("v1", "ConfigMap", "m-abc"), old["metadata"]["uid"])
    )
    assert not done.wrote
    assert (await kube.get(CONFIG_MAP, namespace, "m-abc"))["metadata"]["uid"] == (
        new["metadata"]["uid"]
    )


async def test_status_about_an_older_spec_is_not_written(kube: Kube, namespace: str) -> None:
    deployment = await h.create_model(kube, namespace, n=1)
    cache = Cache()
    cache.put(MODEL_DEPLOYMENT, deployment)
    carrier = Carrier(kube, cache, Metrics())
    await kube.merge(MODEL_DEPLOYMENT, namespace, "m", {"spec": {"n": 2}}, manager="user")
    done = await carrier.carry_out(Key(namespace, "m"), deployment, WriteStatus({"about": 1}))
    assert not done.wrote
    assert done.again_after_s is not None
    assert await status_of(kube, namespace) == {}
    fresh = cache.deployment(Key(namespace, "m"))
    assert fresh is not None
    assert fresh["metadata"]["generation"] == 2
    done = await carrier.carry_out(Key(namespace, "m"), fresh, WriteStatus({"about": 2}))
    assert done.wrote
    assert await status_of(kube, namespace) == {"about": 2}


async def test_status_keeps_what_others_say_and_drops_what_it_says_no_more(
    kube: Kube, namespace: str
) -> None:
    deployment = await h.create_model(kube, namespace)
    cache = Cache()
    cache.put(MODEL_DEPLOYMENT, deployment)
    carrier = Carrier(kube, cache, Metrics())
    key = Key(namespace, "m")
    await carrier.carry_out(key, deployment, WriteStatus({"a": 1, "b": {"c": 2}}))
    theirs = (
        await kube._write(
            "merge",
            MODEL_DEPLOYMENT,
            "PATCH",
            MODEL_DEPLOYMENT.path(namespace, "m", "status"),
            {"status": {"gate": "open"}},
            params={"fieldManager": "them"},
            content_type="application/merge-patch+json",
        )
    ).document
    cache.put(MODEL_DEPLOYMENT, theirs)
    assert not (
        await carrier.carry_out(key, deployment, WriteStatus({"a": 1, "b": {"c": 2}}))
    ).wrote
    assert (await carrier.carry_out(key, deployment, WriteStatus({"a": 1}))).wrote
    assert await status_of(kube, namespace) == {"a": 1, "gate": "open"}


async def test_an_event_is_told_once(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    log = AuditLog(plane.audit_log)

    def plan(observed: Observed, *_: Any) -> Plan:
        return Plan(
            (
                Event("Normal", "Seen", "it was seen"),
                WriteStatus({"observedGeneration": observed.deployment["metadata"]["generation"]}),
            )
        )

    await h.create_model(kube, namespace, n=1)
    for generation in (1, 2):
        # The second operator has something else to write, and meets the first one's event.
        async with h.running(plane, namespace, plan) as operator:
            await served(kube, namespace, generation)
            await h.comes_to_rest(operator, plane)
        await kube.merge(
            MODEL_DEPLOYMENT,
            namespace,
            "m",
            {"spec": {"n": generation}, "metadata": {}} if generation == 2 else {"spec": {"n": 9}},
            manager="user",
        )
    told = [e async for page in kube.pages(EVENT, namespace) for e in page["items"]]
    assert [(e["reason"], e["message"]) for e in told] == [("Seen", "it was seen")]
    assert told[0]["involvedObject"]["name"] == "m"
    # A write that meets its own name is a write all the same.
    assert len([w for w in writes(log) if w.resource == "events"]) == 1


async def test_scale_of_a_deployment_that_is_not_there_is_left_out(
    kube: Kube, namespace: str
) -> None:
    deployment = await h.create_model(kube, namespace)
    carrier = Carrier(kube, Cache(), Metrics())
    done = await carrier.carry_out(
        Key(namespace, "m"), deployment, Scale(Ref("apps/v1", "Deployment", "none"), 3)
    )
    assert not done.wrote
