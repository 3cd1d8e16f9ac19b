"""The chart's roles are enough for a whole life of a ModelDeployment."""

import shutil
from pathlib import Path

import pytest

from e2e.cluster.audit import AuditLog
from e2e.cluster.control_plane import ControlPlane
from helm.chart import is_hook, objects
from tests.contract import runtime_harness as h
from tests.contract.runtime.real_plan.playing import SPEC, make_pods_ready, until_ready
from tidegate.plan import plan
from tidegate.runtime.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, Kind
from tidegate.runtime.kube import Kube

pytestmark = pytest.mark.contract

RBAC = {
    kind: Kind("rbac.authorization.k8s.io/v1", kind, f"{kind.lower()}s", selector="")
    for kind in ("Role", "RoleBinding")
}


async def test_the_charts_rights_are_enough(
    plane: ControlPlane, kube: Kube, tmp_path: Path
) -> None:
    namespace = await h.new_namespace(kube)
    for item in objects({"watchNamespaces": [namespace]}, namespace=namespace):
        if item["kind"] in RBAC and not is_hook(item):
            await kube.apply(RBAC[item["kind"]], item, manager="test", force=True)
    user = f"system:serviceaccount:{namespace}:tidegate-operator"
    groups = ("system:serviceaccounts", "system:authenticated")
    # KUBECONFIG is a list divided by colons, so its path must hold none.
    account = tmp_path / "account.kubeconfig"
    shutil.copy(plane.kubeconfig_for(user, groups), account)
    # The former revision goes as soon as the new one is promoted.
    await h.create_model(kube, namespace, **SPEC | {"rollout": {"bake": "0s"}})
    log = AuditLog(plane.audit_log)
    async with h.running(h.connection_by(account), namespace, plan) as operator:
        await until_ready(kube, namespace)
        first = (await kube.get(MODEL_DEPLOYMENT, namespace, "m"))["status"]["revisions"]["stable"]

        # A new revision, whose birth, scaling, switch of traffic and tidying up need every verb.
        runtime = {"runtime": {"resources": {"cpu": "2"}}}
        await kube.merge(MODEL_DEPLOYMENT, namespace, "m", {"spec": runtime}, manager="user")

        async def replaced() -> bool:
            await make_pods_ready(kube, namespace)
            live = await kube.get(MODEL_DEPLOYMENT, namespace, "m")
            stable = live["status"]["revisions"]["stable"]["hash"] != first["hash"]
            return stable and await kube.find(DEPLOYMENT, namespace, first["name"]) is None

        await h.until(replaced, "the new revision")
        await h.quiet(operator)
    writes = log.writes(user=user)
    assert {w.code for w in writes} <= {200, 201}
    assert {"create", "delete", "patch", "update"} <= {w.verb for w in writes}
