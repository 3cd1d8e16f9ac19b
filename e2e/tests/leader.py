"""The operator's leader, and its end."""

import os
import signal
from pathlib import Path

from e2e.cluster import addons, node_images
from e2e.cluster.installation import operator_pods
from e2e.cluster.kube import KubeClient, Object
from e2e.tests.space import SETTINGS


def leader(kube: KubeClient) -> str:
    """Who holds the operator's Lease; empty: nobody."""
    lease = kube.get(
        "coordination.k8s.io/v1", "Lease", "tidegate-operator", addons.OPERATOR_NAMESPACE
    )
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


def is_another(kube: KubeClient, holder: str) -> bool:
    """Whether somebody else holds the operator's Lease."""
    return leader(kube) not in ("", holder)


def pod_of(kube: KubeClient, holder: str) -> Object:
    """The pod of the leader; its identity begins with the pod's name."""
    [pod] = [p for p in operator_pods(kube) if holder.startswith(p["metadata"]["name"])]
    return pod


def kill(pod: Object, program: str) -> None:
    """SIGKILL for the process of a pod's only container, which must be this program."""
    [status] = pod["status"]["containerStatuses"]
    container = status["containerID"].removeprefix("containerd://")
    rows = [line.split() for line in node_images.ctr(SETTINGS, "tasks", "list").splitlines()]
    [pid] = [int(row[1]) for row in rows if row[0] == container]
    assert program.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)


def kill_leader(kube: KubeClient, holder: str) -> None:
    """SIGKILL for the leader's process: no time to give the Lease back."""
    kill(pod_of(kube, holder), "tidegate-operator")


def delete_leader(kube: KubeClient, holder: str) -> None:
    """Delete the leader's pod, as a node drain does."""
    kube.delete("v1", "Pod", pod_of(kube, holder)["metadata"]["name"], addons.OPERATOR_NAMESPACE)
