"""Plays the kubelet's part for pods that no node runs: writes the status that a real one reports.

For measuring the operator alone, with hundreds of pods on a machine that could not run them. The
Deployments, ReplicaSets and pods are real objects made by the real controllers; only what happens
inside of a pod is played: scheduled, fetched, then Ready, one status write each. Pods have no
address, so the operator does not ask their Triton about the model.
"""

import json
import queue
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from e2e.bench.watch import Seen, Watching
from e2e.cluster.kube import KubeClient, KubeError, Object

DIGEST = "sha256:" + "5eed" * 16
WORKERS = 2


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _conditions(**known: bool) -> list[Object]:
    return [
        {"type": name, "status": str(value), "lastTransitionTime": _now()}
        for name, value in known.items()
    ]


def statuses(pod: Object) -> list[dict[str, Any]]:
    """The statuses that the pod goes through, as merge patches."""
    spec, stamp = pod["spec"], _now()
    report = {"digest": DIGEST, "bytes": 3177742, "files": 4, "backend": "python"}
    done = {
        "exitCode": 0,
        "reason": "Completed",
        "message": json.dumps(report),
        "startedAt": stamp,
        "finishedAt": stamp,
    }

    def containers(group: str, state: dict[str, Any], *, ready: bool) -> list[Object]:
        return [
            {
                "name": c["name"],
                "image": c["image"],
                "imageID": f"{c['image']}@{DIGEST}",
                "restartCount": 0,
                "ready": ready,
                "started": ready,
                "state": state,
            }
            for c in spec.get(group) or ()
        ]

    waiting = {"waiting": {"reason": "PodInitializing"}}
    running = {"running": {"startedAt": stamp}}
    native = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    names = {c["name"] for c in native}
    init = containers("initContainers", {"terminated": done}, ready=True)
    for entry in init:
        if entry["name"] in names:
            entry["state"] = running
    return [
        {
            "phase": "Pending",
            "conditions": _conditions(PodScheduled=True, Initialized=False, Ready=False),
            "initContainerStatuses": containers("initContainers", waiting, ready=False),
            "containerStatuses": containers("containers", waiting, ready=False),
        },
        {
            "phase": "Running",
            "conditions": _conditions(PodScheduled=True, Initialized=True, Ready=False),
            "initContainerStatuses": init,
            "containerStatuses": containers("containers", running, ready=False),
        },
        {
            "phase": "Running",
            "conditions": _conditions(
                PodScheduled=True, Initialized=True, ContainersReady=True, Ready=True
            ),
            "initContainerStatuses": init,
            "containerStatuses": containers("containers", running, ready=True),
        },
    ]


class PlayedKubelet:
    """Makes every pod of a namespace Ready as it appears, until the block ends."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._pods: queue.Queue[Object | None] = queue.Queue()
        self._watching = Watching(kubeconfig, "v1", "Pod", namespace, self._told)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self._watching.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watching.__exit__(kind, error, trace)
        for _ in self._threads:
            self._pods.put(None)

    def _told(self, seen: Seen) -> None:
        if seen.type == "ADDED":
            self._pods.put(seen.object)

    def _work(self) -> None:
        with KubeClient(self._kubeconfig, user_agent="tidegate-bench-kubelet") as client:
            while (pod := self._pods.get()) is not None:
                path = f"{client.path_of(pod)}/status"
                for status in statuses(pod):
                    try:
                        client.request(
                            "PATCH",
                            path,
                            body={"status": status},
                            content_type="application/merge-patch+json",
                        )
                    except KubeError as error:
                        if error.status != 404:  # it went while we played
                            raise
                        break
