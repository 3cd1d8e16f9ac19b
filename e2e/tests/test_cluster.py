"""The embedded cluster is what it says: GPUs by the kubelet's API, DNS, Services, limits, logs."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from e2e.cluster import images
from e2e.cluster.kube import KubeClient, Object, has_condition, wait_for
from e2e.tests.space import SETTINGS

NAMESPACE = "e2e-cluster"
SECONDS = 120.0
GPU = SETTINGS.gpus.resource


@pytest.fixture(scope="module", autouse=True)
def namespace(cluster: KubeClient) -> Iterator[None]:
    """A namespace that takes restricted pods only."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    )
    wait_for(
        lambda: cluster.get("v1", "ServiceAccount", "default", NAMESPACE),
        "the namespace's service account",
        timeout_seconds=SECONDS,
    )
    yield
    cluster.delete("v1", "Namespace", NAMESPACE)


def start(cluster: KubeClient, name: str, script: str, **limits: Any) -> None:
    """Start a restricted pod that runs a Python script once."""
    container = {
        "name": "main",
        "image": images.OPERATOR,
        "command": ["python", "-c", script],
        "resources": {"limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
            },
        },
        namespace=NAMESPACE,
    )


def ended(cluster: KubeClient, name: str) -> Object:
    """Wait for the pod's container to end and return its last state."""

    def probe() -> Object | None:
        pod = cluster.get("v1", "Pod", name, NAMESPACE) or {}
        for container in pod.get("status", {}).get("containerStatuses", []):
            found: Object | None = container["state"].get("terminated")
            return found
        return None

    return wait_for(probe, f"pod {name} ended", timeout_seconds=SECONDS)


def logs(cluster: KubeClient, name: str) -> str:
    return cluster.text(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/log")


def test_a_pod_sees_the_ids_of_its_gpus(cluster: KubeClient) -> None:
    script = "import os; print(os.environ['NVIDIA_VISIBLE_DEVICES'])"
    start(cluster, "two-gpus", script, **{GPU: "2"})
    assert ended(cluster, "two-gpus")["exitCode"] == 0
    ids = logs(cluster, "two-gpus").strip().split(",")
    assert len(set(ids)) == 2
    assert all(re.fullmatch(r"GPU-tidegate-[0-3]", one) for one in ids)


def test_nobody_gets_more_gpus_than_there_are(cluster: KubeClient) -> None:
    start(cluster, "five-gpus", "pass", **{GPU: "5"})

    def refused() -> str | None:
        pod = cluster.get("v1", "Pod", "five-gpus", NAMESPACE) or {}
        if not has_condition(pod, "PodScheduled", "False"):
            return None
        (found,) = [c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled"]
        return str(found["message"])

    message = wait_for(refused, "the scheduler's refusal", timeout_seconds=SECONDS)
    assert f"Insufficient {GPU}" in message
    cluster.delete("v1", "Pod", "five-gpus", NAMESPACE)


def test_the_node_has_the_labels_of_feature_discovery(cluster: KubeClient) -> None:
    node = cluster.get("v1", "Node", SETTINGS.node)
    assert node is not None
    labels = node["metadata"]["labels"]
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-L4"
    assert labels["nvidia.com/gpu.count"] == node["status"]["capacity"][GPU] == "4"


def test_a_sick_gpu_is_no_longer_offered_until_it_is_well(cluster: KubeClient) -> None:
    def offered(count: str) -> None:
        def probe() -> bool:
            node = cluster.get("v1", "Node", SETTINGS.node)
            return node is not None and node["status"]["allocatable"][GPU] == count

        wait_for(probe, f"{count} GPUs allocatable", timeout_seconds=SECONDS)

    SETTINGS.unhealthy_gpus.write_text("GPU-tidegate-3\n")
    try:
        offered("3")
    finally:
        SETTINGS.unhealthy_gpus.unlink()
    offered("4")


def test_names_and_services_work_from_a_pod(cluster: KubeClient) -> None:
    host = f"s3.{SETTINGS.infra_namespace}.svc.cluster.local"
    script = (
        "import socket\n"
        f"with socket.create_connection(('{host}', 8333), 30) as s: print(s.getpeername()[0])"
    )
    start(cluster, "dns", script)
    assert ended(cluster, "dns")["exitCode"] == 0, logs(cluster, "dns")
    assert logs(cluster, "dns").strip() == SETTINGS.s3_address


def test_a_memory_limit_is_kept(cluster: KubeClient) -> None:
    start(cluster, "greedy", "x = b'x' * (1 << 28)", memory="32Mi")
    state = ended(cluster, "greedy")
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)


def test_the_gateway_answers(cluster: KubeClient) -> None:
    gateway = cluster.get(
        "gateway.networking.k8s.io/v1", "Gateway", "public", SETTINGS.infra_namespace
    )
    assert gateway is not None
    address = gateway["status"]["addresses"][0]["value"]
    answer = httpx.get(f"http://{address}/", trust_env=False, timeout=30)
    assert answer.status_code == 404, "no route, so Envoy itself says so"


def test_prometheus_reads_the_gateway() -> None:
    def up() -> bool:
        answer = httpx.get(
            f"{SETTINGS.prometheus_url}/api/v1/query",
            params={"query": 'up{namespace="envoy-gateway-system"}'},
            trust_env=False,
            timeout=30,
        )
        found = answer.json()["data"]["result"]
        return bool(found) and all(sample["value"][1] == "1" for sample in found)

    wait_for(up, "Prometheus reads Envoy Gateway's pods", timeout_seconds=SECONDS)
