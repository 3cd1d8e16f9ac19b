"""Pretend nodes by kwok, for scale runs: their pods become Running without running anything.

Beside a control plane of its own (with controllers), never beside the embedded cluster's real node.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import gobuild
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.kube import Object
from e2e.cluster.processes import require_running, spawn
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Gpus
from e2e.ports import free_ports

ANNOTATION = "kwok.x-k8s.io/node"
"""kwok keeps the nodes that carry this, with the value `fake`."""


def pretend_node(name: str, gpus: Gpus | None = None) -> Object:
    """Return a node of 32 cores and 256 GiB for kwok to keep, with pretend GPUs if given."""
    capacity = {"cpu": "32", "memory": "256Gi", "pods": "110"}
    if gpus is not None:
        capacity[gpus.resource] = str(gpus.count)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake"},
            "labels": {"type": "kwok", **(gpus.labels() if gpus is not None else {})},
        },
        "spec": {"taints": []},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


_STAGES = ("node/fast", "node/heartbeat", "pod/fast")
"""Folders of kwok's own stages: a node is Ready and a pod Running (or Completed) at once."""


def _stages() -> list[Path]:
    folder = gobuild.module_folder("kwok", "sigs.k8s.io/kwok") / "kustomize" / "stage"
    return [
        path
        for stage in _STAGES
        for path in sorted((folder / stage).glob("*.yaml"))
        if path.name != "kustomization.yaml"
    ]


@contextmanager
def kwok(plane: ControlPlane) -> Iterator[None]:
    """Run kwok against the control plane until the block ends; it builds kwok the first time.

    Raises:
        ProcessFailed: it ended at once; the message holds its log's end.
    """
    binary = gobuild.build("kwok", Progress())
    log = plane.directory / "kwok.log"
    process = spawn(
        "kwok",
        [
            binary,
            f"--kubeconfig={plane.kubeconfig}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
            *(f"--config={path}" for path in _stages()),
            f"--server-address=127.0.0.1:{free_ports(1)[0]}",
        ],
        owner=str(plane.directory),
        log=log,
        die_with_parent=True,
    )
    try:
        yield
        require_running(process, "kwok", log)
    finally:
        process.kill()
        process.wait()
