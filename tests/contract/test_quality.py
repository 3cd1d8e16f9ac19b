"""Labels that a service account posts answer a gate: a real API server, the chart's roles."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from e2e.ports import free_ports
from helm.chart import objects
from tests.contract import runtime_harness as h
from tidegate.api.names import API_VERSION, KIND, STATUS_MANAGER
from tidegate.quality.policy import ANNOTATION
from tidegate.runtime.fence import Fence
from tidegate.runtime.kinds import MODEL_DEPLOYMENT, Kind
from tidegate.runtime.kube import APPLY, ForbiddenError, InvalidError, Kube
from tidegate.runtime.quality.answering import MANAGER
from tidegate.runtime.quality.main import Settings, run
from tidegate.runtime.telemetry import Metrics

pytestmark = pytest.mark.contract

ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts", selector="")
RBAC_GROUP = "rbac.authorization.k8s.io"
RBAC = f"{RBAC_GROUP}/v1"
POLICIES = "admissionregistration.k8s.io/v1"
CLUSTER = {
    "ClusterRole": Kind(RBAC, "ClusterRole", "clusterroles"),
    "ClusterRoleBinding": Kind(RBAC, "ClusterRoleBinding", "clusterrolebindings"),
    "ValidatingAdmissionPolicy": Kind(
        POLICIES, "ValidatingAdmissionPolicy", "validatingadmissionpolicies"
    ),
    "ValidatingAdmissionPolicyBinding": Kind(
        POLICIES, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"
    ),
}
USER = "quality"
ACCOUNT_NAME = "system:serviceaccount:tidegate-system:tidegate-quality"
NAMESPACED = {kind: Kind(RBAC, kind, f"{kind.lower()}s") for kind in ("Role", "RoleBinding")}
SPEC: dict[str, Any] = {
    "model": {"source": {"uri": "s3://models/magika/v3"}},
    "rollout": {"gates": ["Accurate"]},
}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with start() as plane:
        yield plane


@pytest.fixture
async def kube(plane: ControlPlane) -> AsyncIterator[Kube]:
    async with h.client(plane) as kube:
        await h.install_crd(kube, h.real_crd())
        yield kube


async def operators_status(kube: Kube, namespace: str, stable: str, canary: str) -> None:
    """As the operator writes it."""
    revisions = {role: _revision(hash_) for role, hash_ in (("stable", stable), ("canary", canary))}
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "WaitingForGates",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    status = {
        "replicas": 0,
        "conditions": [ready],
        "revisions": revisions,
        "rollout": {"phase": "Canary"},
    }
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "m", "namespace": namespace},
        "status": status,
    }
    await kube.apply(MODEL_DEPLOYMENT, document, manager=STATUS_MANAGER, force=True, sub="status")


def _revision(hash_: str) -> dict[str, Any]:
    return {"name": f"m-{hash_}", "hash": hash_}


async def token(kube: Kube, namespace: str, name: str, rules: list[dict[str, Any]]) -> str:
    """Of a new service account with these rights."""
    meta = {"name": name, "namespace": namespace}
    await kube.apply(
        ACCOUNT,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        manager="t",
        force=True,
    )
    role = {"apiVersion": RBAC, "kind": "Role", "metadata": meta, "rules": rules}
    binding = {
        "apiVersion": RBAC,
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    for one in (role, binding):
        await kube.apply(NAMESPACED[str(one["kind"])], one, manager="t", force=True)
    answer = await kube._write(
        "create",
        "TokenRequest",
        "POST",
        ACCOUNT.path(namespace, name, "token"),
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
    )
    return str(answer.document["status"]["token"])


async def install(kube: Kube) -> None:
    """The component's role and policy, for a user of the tests' own."""
    for one in objects({"quality": {"enabled": True}}):
        kind = CLUSTER.get(one["kind"])
        if kind is None or one["metadata"]["name"] != "tidegate-quality":
            continue
        # The kubeconfig of a service account's name cannot be written to a file of that name.
        if one["kind"] == "ClusterRoleBinding":
            one["subjects"] = [{"kind": "User", "name": USER, "apiGroup": RBAC_GROUP}]
        if one["kind"] == "ValidatingAdmissionPolicy":
            [condition] = one["spec"]["matchConditions"]
            assert ACCOUNT_NAME in condition["expression"]
            condition["expression"] = condition["expression"].replace(ACCOUNT_NAME, USER)
        await kube._write(
            "apply",
            one["kind"],
            "PATCH",
            kind.path(None, one["metadata"]["name"]),
            one,
            params={"fieldManager": "t", "force": "true"},
            content_type=APPLY,
        )


@asynccontextmanager
async def component(plane: ControlPlane, kube: Kube, folder: Path) -> AsyncIterator[str]:
    """The component itself, with the rights that the chart gives it. Yields its address."""
    await install(kube)
    [port] = free_ports(1)
    stop = asyncio.Event()
    connection = h.connection(plane, USER, groups=())
    task = asyncio.create_task(run(Settings(folder, port), connection, stop))
    address = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        if task.done():
            task.result()
        try:
            async with aiohttp.request("GET", f"{address}/healthz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    await h.until(answers, "the component")
    try:
        yield address
    finally:
        stop.set()
        await task


async def test_it_can_write_nothing_else_of_a_status(plane: ControlPlane, kube: Kube) -> None:
    namespace = await h.new_namespace(kube)
    await kube.create(MODEL_DEPLOYMENT, h.model(namespace, **SPEC), manager="user")
    await operators_status(kube, namespace, "aaa", "bbb")
    await install(kube)
    fence = Fence(1e9)
    fence.renewed(0.0)
    mine = h.connection(plane, USER, groups=())
    condition = (await kube.get(MODEL_DEPLOYMENT, namespace, "m"))["status"]["conditions"][0]
    canary = {"rollout": {"phase": "Canary"}, "revisions": {"canary": _revision("evil")}}

    async def written(status: dict[str, Any]) -> bool:
        document = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "m", "namespace": namespace},
            "status": status,
        }
        try:
            await own.apply(MODEL_DEPLOYMENT, document, manager=MANAGER, force=True, sub="status")
        except (ForbiddenError, InvalidError):
            return False
        return True

    numbers = itertools.count(1)
    async with Kube(mine, fence, Metrics(), clock=lambda: 1.0) as own:

        async def is_allowed() -> bool:
            return await written({})

        async def is_enforced() -> bool:
            return not await written({"replicas": next(numbers)})

        # Rights and policies take effect some moments after they are written.
        await h.until(is_allowed, "the rights")
        await h.until(is_enforced, "the policy")
        await operators_status(kube, namespace, "aaa", "bbb")
        assert not await written({"conditions": [{**condition, "status": "True"}]})
        assert not await written({"conditions": [{**condition, "type": "Approved"}]})
        assert not await written({"rollout": {"phase": "Baking"}})
        assert not await written(canary)
        assert not await written({"url": "http://elsewhere"})
        accurate = {**condition, "type": "Accurate", "status": "True"}
        quality = [{"revision": "bbb", "accuracy": "98%"}]
        assert await written({"conditions": [accurate], "quality": quality})
        assert await written({})
        with pytest.raises(ForbiddenError):
            await own.merge(
                MODEL_DEPLOYMENT, namespace, "m", {"spec": {"replicas": 9}}, manager=MANAGER
            )


async def test_labels_of_a_service_account_answer_the_gate(
    plane: ControlPlane, kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.runtime.quality.main.LOOK_EVERY_S", 0.2)
    namespace = await h.new_namespace(kube)
    model = h.model(namespace, **SPEC)
    model["metadata"]["annotations"] = {ANNOTATION: '{"minAccuracy": "90%"}'}
    await kube.create(MODEL_DEPLOYMENT, model, manager="user")
    await operators_status(kube, namespace, "aaa", "bbb")
    report = {"apiGroups": ["tidegate.dev"], "resources": ["modeldeployments"], "verbs": ["report"]}
    pipeline = await token(kube, namespace, "pipeline", [{**report, "resourceNames": ["m"]}])
    viewer = await token(kube, namespace, "viewer", [{**report, "verbs": ["get", "list"]}])
    one = f"/api/v1/namespaces/{namespace}/modeldeployments/m"

    async def live() -> dict[str, Any]:
        return await kube.get(MODEL_DEPLOYMENT, namespace, "m")

    async def answer() -> tuple[str, str]:
        found = (await live())["status"]["conditions"]
        return next(
            ((c["status"], c["reason"]) for c in found if c["type"] == "Accurate"), ("", "")
        )

    async def revision() -> str:
        """That the condition names; the gate is open for no other."""
        found = (await live())["status"]["conditions"]
        return next(str(c["revision"]) for c in found if c["type"] == "Accurate")

    async def answered(*expected: str) -> None:
        async def as_expected() -> bool:
            return await answer() == expected

        await h.until(as_expected, " ".join(expected))

    async with component(plane, kube, tmp_path) as address, aiohttp.ClientSession() as session:

        async def post(what: str, item: dict[str, Any], by: str) -> int:
            headers = {"Authorization": f"Bearer {by}"}
            body = {what: [item]}
            async with session.post(f"{address}{one}/{what}", json=body, headers=headers) as found:
                return found.status

        await answered("Unknown", "TooFewLabels")
        labels = {"revision": "bbb", "labels": 1000, "right": 980}
        assert await post("labels", labels, viewer) == 403
        assert await post("labels", labels, "of.no.account") == 401
        assert await answer() == ("Unknown", "TooFewLabels")
        assert await post("labels", labels, pipeline) == 200
        await answered("True", "Shown")
        assert await revision() == "bbb"
        # The operator's next write leaves it, and the component leaves what is the operator's.
        await operators_status(kube, namespace, "aaa", "bbb")
        status = (await live())["status"]
        assert await answer() == ("True", "Shown")
        assert {c["type"] for c in status["conditions"]} == {"Ready", "Accurate"}
        assert status["quality"][0]["accuracy"].startswith("98.0% of 1,000 labels right")
        # Another canary has shown nothing.
        await operators_status(kube, namespace, "bbb", "ccc")
        await answered("Unknown", "TooFewLabels")
        assert await revision() == "ccc"
        await kube.merge(
            MODEL_DEPLOYMENT,
            namespace,
            "m",
            {"metadata": {"annotations": {ANNOTATION: None}}},
            manager="user",
        )
        await answered("", "")
        status = (await live())["status"]
        assert {c["type"] for c in status["conditions"]} == {"Ready"}
        assert "quality" not in status
    # Another process goes on from the same file.
    await kube.merge(
        MODEL_DEPLOYMENT,
        namespace,
        "m",
        {"metadata": {"annotations": {ANNOTATION: '{"minAccuracy": "90%"}'}}},
        manager="user",
    )
    await operators_status(kube, namespace, "aaa", "bbb")
    async with component(plane, kube, tmp_path):
        await answered("True", "Shown")
    assert await answer() == ("Unknown", "NotLookedAt"), "nobody looks any more"
