"""Nodes of a real API server, read with the rights of the chart, for a pod that waits for a GPU."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.control_plane import ControlPlane
from helm.chart import is_hook, objects
from tests.contract import runtime_harness as h
from tests.contract.runtime.real_plan.playing import SPEC, condition
from tidegate.api import names
from tidegate.plan import plan
from tidegate.runtime.kinds import POD, Kind
from tidegate.runtime.kube import Kube
from tidegate.runtime.nodes import NODE

pytestmark = pytest.mark.contract

GPU, PRODUCT = "nvidia.com/gpu", "nvidia.com/gpu.product"
SAID = f"0/2 nodes are available: 2 Insufficient {GPU}."
RBAC = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


async def make_node(kube: Kube, name: str, product: str) -> None:
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {PRODUCT: product}},
        "status": {"allocatable": {"cpu": "8", GPU: "4"}, "capacity": {"cpu": "8", GPU: "4"}},
    }
    await kube._write("create", NODE, "POST", "/api/v1/nodes", document)


async def grant(kube: Kube, namespace: str, *, nodes: bool) -> str:
    """Make the chart's roles. Returns the operator's user."""
    values = {"watchNamespaces": [namespace], "rbac": {"clusterRead": nodes, "aggregate": False}}
    for item in objects(values, namespace=namespace):
        if item["kind"] not in RBAC or is_hook(item):
            continue
        where = None if item["kind"].startswith("Cluster") else namespace
        kind = Kind(item["apiVersion"], item["kind"], f"{item['kind'].lower()}s", selector="")
        await kube._write(
            "apply",
            kind,
            "PATCH",
            kind.path(where, item["metadata"]["name"]),
            item,
            params={"fieldManager": "test", "force": "true"},
            content_type="application/apply-patch+yaml",
        )
    return f"system:serviceaccount:{namespace}:tidegate-operator"


async def say_unschedulable(kube: Kube, namespace: str) -> None:
    """What the scheduler would report of the model's pods."""
    told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": SAID}
    async for page in kube.pages(POD, namespace):
        for pod in page["items"]:
            if names.REVISION_LABEL in pod["metadata"]["labels"]:
                await kube._write(
                    "merge",
                    POD,
                    "PATCH",
                    POD.path(namespace, pod["metadata"]["name"], "status"),
                    {"status": {"conditions": [told]}},
                    content_type="application/merge-patch+json",
                )


async def test_what_would_free_it_is_said_with_the_right_and_only_then(
    plane: ControlPlane, kube: Kube, tmp_path: Path
) -> None:
    await make_node(kube, "a", "NVIDIA-A100")
    await make_node(kube, "b", "NVIDIA-L4")
    h100 = {"runtime": {"gpu": {"products": ["NVIDIA-H100"]}}}
    no_label = (
        f"no node that offers {GPU} has the label {PRODUCT} NVIDIA-H100; "
        "nodes have NVIDIA-A100, NVIDIA-L4"
    )
    # Without the right first: the role is bound to a service account of another namespace then.
    for granted, spec, begins in (
        (False, {}, f"no node has {GPU} free: {SAID}"),
        (True, {}, f"2 nodes offer {GPU}, 8 in all, all taken or not fit: {SAID}"),
        (True, h100, f"{no_label}: {SAID}"),
    ):
        namespace = await h.new_namespace(kube)
        user = await grant(kube, namespace, nodes=granted)
        account = tmp_path / f"{namespace}.kubeconfig"
        groups = ("system:serviceaccounts", "system:authenticated")
        shutil.copy(plane.kubeconfig_for(user, groups), account)
        await h.create_model(kube, namespace, **SPEC | spec)
        # Told to read in each case: without the right that holds nothing up.
        by = h.connection_by(account)
        async with h.running(by, namespace, plan, read_nodes=True):

            async def said(namespace: str = namespace, begins: str = begins) -> bool:
                await say_unschedulable(kube, namespace)
                found = await condition(kube, namespace, "WaitingForGPU")
                return found.get("status") == "True" and found["message"].startswith(begins)

            await h.until(said, begins)
