"""Pretend nodes for scale runs; slow, for kwok is built for it the first time."""

import pytest

from e2e.cluster.control_plane import control_plane
from e2e.cluster.kube import Object, has_condition, wait_for
from e2e.cluster.kwok import kwok, pretend_node
from e2e.cluster.settings import Gpus

SECONDS = 120.0


@pytest.mark.slow
def test_pods_run_on_pretend_nodes() -> None:
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"nodeName": "n1", "containers": [{"name": "x", "image": "none"}]},
    }
    with control_plane(controllers=True) as plane, plane.client() as client, kwok(plane):
        for number in range(3):
            client.apply(pretend_node(f"n{number}", Gpus()))

        def all_ready() -> bool:
            return all(has_condition(item, "Ready") for item in client.list("v1", "Node"))

        wait_for(all_ready, "three nodes Ready", timeout_seconds=SECONDS)
        node = client.get("v1", "Node", "n1") or {}
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "4"
        wait_for(
            lambda: client.get("v1", "ServiceAccount", "default", "default"),
            "the service account",
            timeout_seconds=SECONDS,
        )
        client.apply(pod)
        wait_for(
            lambda: (client.get("v1", "Pod", "a") or {})["status"]["phase"] == "Running",
            "the pod Running",
            timeout_seconds=SECONDS,
        )
