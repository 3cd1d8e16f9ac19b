"""What the operator owns stays as it was born; what it does not own it never touches."""

import difflib
import functools
import json
from typing import Any, Final

import pytest

from e2e.cluster import addons
from e2e.cluster.installation import operator_pods
from e2e.cluster.kube import Object, wait_for
from e2e.tests.leader import delete_leader, is_another, kill_leader, leader
from e2e.tests.load import ask_http, await_answer
from e2e.tests.space import (
    API,
    KIND,
    READY_SECONDS,
    SETTINGS,
    Space,
    condition,
    model_deployment,
    stable,
)

NAME: Final = "kept"
APPS: Final = "apps/v1"
ROUTES: Final = "gateway.networking.k8s.io/v1"
GATEWAY: Final = {
    "parentRefs": [{"name": "public", "namespace": SETTINGS.infra_namespace}],
    "hostnames": ["kept.example.test"],
}


@pytest.fixture(scope="module")
def revision(space: Space, whoami: dict[str, str]) -> str:
    """Name of the objects of a revision that serves, with a child of every kind."""
    space.apply(model_deployment(NAME, whoami["one"], {"traffic": {"gateway": GATEWAY}}))
    return str(stable(space.ready(NAME))["name"])


CHILDREN: Final = [
    pytest.param(APPS, "Deployment", "{revision}", id="Deployment"),
    pytest.param("v1", "ConfigMap", "{revision}", id="ConfigMap"),
    pytest.param("v1", "ConfigMap", "{revision}-pin", id="pin"),
    pytest.param("v1", "Service", "{revision}", id="revision's Service"),
    pytest.param(APPS, "ControllerRevision", "{revision}", id="ControllerRevision"),
    pytest.param("v1", "Service", NAME, id="entry Service"),
    pytest.param("policy/v1", "PodDisruptionBudget", NAME, id="PodDisruptionBudget"),
    pytest.param("networking.k8s.io/v1", "NetworkPolicy", NAME, id="NetworkPolicy"),
    pytest.param(ROUTES, "HTTPRoute", NAME, id="HTTPRoute"),
]


def own(item: Object) -> dict[str, Any]:
    """What the operator says of an object: without what the API server and others fill in."""
    meta = item["metadata"]
    annotations = {
        # When a revision first served is told anew where its record was lost.
        k: "" if k == "tidegate.dev/live-since" else v
        for k, v in (meta.get("annotations") or {}).items()
        if k.startswith("tidegate.dev/")
    }
    kept = {k: v for k, v in item.items() if k not in ("metadata", "status")}
    if item["kind"] == "Service":
        kept["spec"] = {
            k: v for k, v in kept["spec"].items() if k not in ("clusterIP", "clusterIPs")
        }
        for port in kept["spec"]["ports"]:
            port.pop("nodePort", None)
    owners = [
        {k: v for k, v in owner.items() if k in ("kind", "name", "uid", "controller")}
        for owner in meta.get("ownerReferences") or ()
    ]
    return kept | {
        "labels": meta.get("labels"),
        "annotations": annotations,
        "owners": owners,
        "name": meta["name"],
    }


def changes(before: Object, after: Object | None) -> str:
    """The lines in which two versions of an object differ, as far as they are the operator's."""
    old, new = (
        json.dumps(own(item) if item else None, sort_keys=True, indent=1).splitlines()
        for item in (before, after)
    )
    lines = [x[:200] for x in difflib.unified_diff(old, new, "before", "now", n=1, lineterm="")]
    return "\n".join(["", *lines[:40], ""])


@pytest.mark.parametrize(("api", "kind", "name"), CHILDREN)
def test_deleted_child_comes_back_exactly(
    space: Space, revision: str, api: str, kind: str, name: str
) -> None:
    name = name.format(revision=revision)
    before = space.require(api, kind, name)
    pods = space.restarts(NAME)
    space.kube.delete(api, kind, name, space.name)

    def back() -> Object | None:
        found = space.get(api, kind, name)
        new = found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]
        return found if new and found is not None and own(found) == own(before) else None

    wait_for(
        back,
        f"{kind} {name} back as it was",
        timeout_seconds=READY_SECONDS,
        state=lambda: changes(before, space.get(api, kind, name)) + space.told(NAME),
    )
    if kind == "Deployment":
        space.until(
            NAME,
            lambda f: f["status"]["readyReplicas"] == 1 and not pods.keys() & space.restarts(NAME),
            "a new pod",
        )
    space.ready(NAME)
    if kind != "Deployment":
        assert space.restarts(NAME) == pods
    assert_serves(space)


EDITS: Final = [
    pytest.param(
        *(APPS, "Deployment", "{revision}"),
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}},
        id="a pod's field",
    ),
    pytest.param(
        *(APPS, "Deployment", "{revision}"),
        {"spec": {"template": {"spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["x"]}]}}}},
        id="a field added to the pod",
    ),
    pytest.param(*(APPS, "Deployment", "{revision}"), {"spec": {"replicas": 3}}, id="replicas"),
    pytest.param(
        *("v1", "Service", NAME),
        {"spec": {"selector": {"tidegate.dev/revision": "nonesuch"}}},
        id="who gets the traffic",
    ),
    pytest.param(
        *("v1", "Service", "{revision}"), {"spec": {"selector": {"more": "x"}}}, id="a selector"
    ),
    pytest.param(
        *("policy/v1", "PodDisruptionBudget", NAME), {"spec": {"maxUnavailable": 5}}, id="budget"
    ),
    pytest.param(
        *("networking.k8s.io/v1", "NetworkPolicy", NAME),
        {"spec": {"ingress": [{}]}},
        id="an opened port",
    ),
    pytest.param(
        *(ROUTES, "HTTPRoute", NAME), {"spec": {"hostnames": ["evil.example.test"]}}, id="a host"
    ),
    pytest.param(
        *("v1", "Service", NAME),
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}},
        id="a label",
    ),
]


@pytest.mark.parametrize(("api", "kind", "name", "edit"), EDITS)
def test_edited_child_is_put_back(
    space: Space, revision: str, api: str, kind: str, name: str, edit: dict[str, Any]
) -> None:
    name = name.format(revision=revision)
    before = space.require(api, kind, name)
    edited = space.kube.request(
        "PATCH",
        space.kube.path(api, kind, space.name, name),
        body=edit,
        params={"fieldManager": "somebody"},
        content_type="application/merge-patch+json",
    )
    assert own(edited) != own(before), "the edit did nothing; the test proves nothing"

    def back() -> bool:
        found = space.require(api, kind, name)
        return own(found) == own(before) and found["metadata"]["uid"] == before["metadata"]["uid"]

    wait_for(
        back,
        f"{kind} {name} put back",
        timeout_seconds=READY_SECONDS,
        state=lambda: changes(before, space.get(api, kind, name)) + space.told(NAME),
    )
    space.ready(NAME)
    space.until(NAME, lambda f: f["status"]["replicas"] == 1, "one pod")
    assert_serves(space)


def test_foreign_service_is_never_touched(space: Space, whoami: dict[str, str]) -> None:
    name = "taken"
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app": "another"}},
        "spec": {"selector": {"app": "another"}, "ports": [{"name": "x", "port": 80}]},
    }
    before = space.apply(foreign)
    space.apply(model_deployment(name, whoami["one"]))
    told = space.not_ready(name, "NameConflict", f"Service {name}", "not touched", "Delete")
    assert condition(space.live(name), "Stalled")["status"] == "True"
    assert told["observedGeneration"] == 1
    after = space.require("v1", "Service", name)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]

    space.kube.delete("v1", "Service", name, space.name)
    space.ready(name)
    assert_serves(space, name)
    space.kube.delete(API, KIND, name, space.name)


def test_operators_may_die_and_nothing_restarts(space: Space, revision: str) -> None:
    pods, owned = space.restarts(NAME), uids(space)
    for end in (kill_leader, delete_leader):
        before = {pod["metadata"]["uid"] for pod in operator_pods(space.kube)}
        holder = leader(space.kube)
        end(space.kube, holder)
        wait_for(
            functools.partial(is_another, space.kube, holder),
            f"another leader than {holder} after {end.__name__}",
            timeout_seconds=READY_SECONDS,
            state=lambda: addons.describe_pods(space.kube, addons.OPERATOR_NAMESPACE),
        )
        # The new one is at work: it puts a child back.
        test_deleted_child_comes_back_exactly(space, revision, "v1", "Service", revision)
        assert space.restarts(NAME) == pods
        assert {k: v for k, v in uids(space).items() if k[0] != "Service"} == {
            k: v for k, v in owned.items() if k[0] != "Service"
        }
        addons.await_rollout(space.kube, "tidegate-operator", addons.OPERATOR_NAMESPACE)
        if end is delete_leader:
            assert before != {pod["metadata"]["uid"] for pod in operator_pods(space.kube)}


def test_deleting_leaves_nothing_behind(space: Space, revision: str) -> None:
    kinds = {kind for kind, _ in space.owned(NAME)}
    assert kinds >= {
        *("Deployment", "ReplicaSet", "ControllerRevision", "Service", "ConfigMap", "Pod"),
        *("PodDisruptionBudget", "NetworkPolicy", "HTTPRoute", "EndpointSlice"),
    }
    space.kube.delete(API, KIND, NAME, space.name)
    wait_for(
        lambda: not space.owned(NAME) and space.get(API, KIND, NAME) is None,
        "nothing left of it",
        timeout_seconds=READY_SECONDS,
        state=lambda: str(sorted(space.owned(NAME))),
    )


def assert_serves(space: Space, name: str = NAME) -> None:
    """The entry Service leads to the model."""
    answer = await_answer(
        lambda: ask_http(space.address(name), name, "x"),
        f"an answer of {name}",
        lambda: space.told(name),
    )
    assert answer["label"] == "one"


def uids(space: Space) -> dict[tuple[str, str], str]:
    """UIDs of everything of the ModelDeployment, but for what other controllers renew."""
    return {
        key: item["metadata"]["uid"]
        for key, item in space.owned(NAME).items()
        if key[0] != "EndpointSlice"
    }
