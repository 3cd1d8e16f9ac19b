"""A pod is taken out of service by one write, with the chart's rights, and only that pod."""

import copy
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.audit import AuditLog
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from helm.chart import is_hook, objects
from tests.contract import runtime_harness as h
from tidegate.actions import TakeOut
from tidegate.api.names import SERVING_LABEL
from tidegate.resources.meta import serving_selector
from tidegate.runtime.apply import Carrier
from tidegate.runtime.cache import Cache, Key
from tidegate.runtime.done import NOTHING
from tidegate.runtime.fence import Fence
from tidegate.runtime.kinds import POD, Kind
from tidegate.runtime.kube import Kube
from tidegate.runtime.telemetry import Metrics

pytestmark = pytest.mark.contract

RBAC = {
    kind: Kind("rbac.authorization.k8s.io/v1", kind, f"{kind.lower()}s", selector="")
    for kind in ("Role", "RoleBinding")
}
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts", selector="")
GROUPS = ("system:serviceaccounts", "system:authenticated")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with start() as plane:
        yield plane


@pytest.fixture
def user(namespace: str) -> str:
    return f"system:serviceaccount:{namespace}:tidegate-operator"


@pytest.fixture
async def operator(
    plane: ControlPlane, kube: Kube, namespace: str, user: str, tmp_path: Path
) -> AsyncIterator[Kube]:
    """A client with the chart's rights in the namespace, and no other."""
    for item in objects({"watchNamespaces": [namespace]}, namespace=namespace):
        if item["kind"] in RBAC and not is_hook(item):
            await kube.apply(RBAC[item["kind"]], item, manager="test", force=True)
    fence = Fence(1e9)
    fence.renewed(0.0)
    # KUBECONFIG is a list divided by colons, so its path must hold none.
    account = tmp_path / "account.kubeconfig"
    shutil.copy(plane.kubeconfig_for(user, GROUPS), account)
    async with Kube(h.connection_by(account), fence, Metrics(), clock=lambda: 1.0) as client:
        yield client


async def make_pod(kube: Kube, namespace: str) -> dict[str, Any]:
    account = {"metadata": {"name": "default", "namespace": namespace}}
    if await kube.find(SERVICE_ACCOUNT, namespace, "default") is None:
        await kube.create(SERVICE_ACCOUNT, account, manager="test")
    pod = {
        "metadata": {
            "name": "p",
            "namespace": namespace,
            "labels": serving_selector("m", "abc") | {"team": "search"},
        },
        "spec": {"containers": [{"name": "triton", "image": "triton"}]},
    }
    return (await kube.create(POD, pod, manager="kubelet")).document


async def test_the_label_goes_and_nothing_else(
    plane: ControlPlane, kube: Kube, operator: Kube, namespace: str, user: str
) -> None:
    made = await make_pod(kube, namespace)
    cache, key, log = Cache(), Key(namespace, "m"), AuditLog(plane.audit_log)
    cache.put(POD, made)
    carrier = Carrier(operator, cache, Metrics())
    action = TakeOut("p", made["metadata"]["uid"], "wrong answers")
    done = await carrier.carry_out(key, {}, action)
    assert (done.wrote, done.reason) == (True, "wrong answers")
    live = await kube.get(POD, namespace, "p")
    want = {k: v for k, v in made["metadata"]["labels"].items() if k != SERVING_LABEL}
    assert live["metadata"]["labels"] == want
    assert live["metadata"]["uid"] == made["metadata"]["uid"]
    # The cache knows at once, so that the same plan again writes nothing.
    assert await carrier.carry_out(key, {}, action) == NOTHING
    assert [(w.verb, w.resource, w.code) for w in log.writes(user=user)] == [("patch", "pods", 200)]


async def test_another_pod_of_that_name_keeps_its_label(
    kube: Kube, operator: Kube, namespace: str
) -> None:
    made = await make_pod(kube, namespace)
    gone = copy.deepcopy(made)
    gone["metadata"]["uid"] = "0b5c0f4e-0000-4000-8000-000000000000"
    action = TakeOut("p", gone["metadata"]["uid"], "wrong answers")
    # The cache has not heard yet that the pod was replaced.
    stale = Cache()
    stale.put(POD, gone)
    assert (
        await Carrier(operator, stale, Metrics()).carry_out(Key(namespace, "m"), {}, action)
        == NOTHING
    )
    # Or it has.
    cache = Cache()
    cache.put(POD, made)
    assert (
        await Carrier(operator, cache, Metrics()).carry_out(Key(namespace, "m"), {}, action)
        == NOTHING
    )
    live = await kube.get(POD, namespace, "p")
    assert live["metadata"]["labels"][SERVING_LABEL] == "true"


async def test_a_pod_that_is_gone(kube: Kube, operator: Kube, namespace: str) -> None:
    made = await make_pod(kube, namespace)
    cache = Cache()
    cache.put(POD, made)
    await kube.delete(POD, namespace, "p", uid=made["metadata"]["uid"])
    action = TakeOut("p", made["metadata"]["uid"], "wrong answers")
    assert (
        await Carrier(operator, cache, Metrics()).carry_out(Key(namespace, "m"), {}, action)
        == NOTHING
    )
