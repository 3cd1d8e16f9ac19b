"""Claims over folders of the node: the embedded cluster has no provisioner."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from e2e.cluster.kube import KubeClient, Object, wait_for
from e2e.tests.space import READY_SECONDS, SETTINGS

SIZE: Final = "1Gi"


@contextmanager
def volume(kube: KubeClient, name: str) -> Iterator[Path]:
    """A PersistentVolume over a folder of the node, which is this machine; yields the folder."""
    folder = SETTINGS.state / "volumes" / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    # Any user's, as a volume of many writers: a hostPath knows no fsGroup.
    folder.chmod(0o777)
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": SIZE},
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": name,
                "hostPath": {"path": str(folder), "type": "Directory"},
            },
        }
    )
    # A claim that comes before its volume is looked at again only after 15 seconds.
    wait_for(
        lambda: (kube.get("v1", "PersistentVolume", name) or {})["status"]["phase"] == "Available",
        f"volume {name} available",
        timeout_seconds=READY_SECONDS,
    )
    try:
        yield folder
    finally:
        kube.delete("v1", "PersistentVolume", name)


def claim(name: str, volume_name: str) -> Object:
    """A claim for that volume and no other."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": volume_name,
            "volumeName": volume_name,
            "resources": {"requests": {"storage": SIZE}},
        },
    }
