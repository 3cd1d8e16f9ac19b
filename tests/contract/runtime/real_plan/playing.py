"""A ModelDeployment of the real plan's, and what a kubelet would report of its pods."""

import contextlib
import json
from collections.abc import Collection
from typing import Any

from tests.contract import runtime_harness as h
from tidegate.api import names
from tidegate.runtime.kinds import MODEL_DEPLOYMENT, POD
from tidegate.runtime.kube import Kube, NotFoundError

DIGEST = "sha256:" + "ab" * 32
SPEC: dict[str, Any] = {
    "model": {"source": {"uri": "s3://models/magika/v3"}},
    "slo": {"latency": {"quantile": "0.99", "target": "100ms"}, "maxErrorRate": "1%"},
}


async def condition(kube: Kube, namespace: str, kind: str) -> dict[str, Any]:
    """A condition of the ModelDeployment ``m``; empty: it has none of that type."""
    live = await kube.get(MODEL_DEPLOYMENT, namespace, "m")
    conditions = live.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


async def make_pods_ready(
    kube: Kube, namespace: str, *, only: Collection[str] | None = None, **told: str
) -> None:
    """What a kubelet would report of the model's pods, as soon as they are there.

    Args:
        kube: writes it.
        namespace: of the pods.
        only: UIDs of the pods that may start by now; None: all.
        told: what the fetch says besides.
    """
    async for page in kube.pages(POD, namespace):
        for pod in page["items"]:
            if names.REVISION_LABEL not in pod["metadata"]["labels"]:
                continue
            if (pod.get("status") or {}).get("initContainerStatuses"):
                continue
            if only is not None and pod["metadata"]["uid"] not in only:
                continue
            report = {"digest": DIGEST, "bytes": 1, "files": 1, "backend": "python", **told}
            stamp = pod["metadata"]["creationTimestamp"]
            done = {"exitCode": 0, "reason": "Completed", "message": json.dumps(report)}
            done |= {"startedAt": stamp, "finishedAt": stamp}
            running = {"state": {"running": {"startedAt": stamp}}, "ready": True, "started": True}
            status = {
                "phase": "Running",
                "podIP": "127.0.0.1",
                "conditions": [
                    {"type": t, "status": "True", "lastTransitionTime": stamp}
                    for t in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
                ],
                "initContainerStatuses": [
                    {
                        "name": c["name"],
                        "image": c["image"],
                        "imageID": "",
                        "restartCount": 0,
                        **(
                            running
                            if c.get("restartPolicy") == "Always"
                            else {"state": {"terminated": done}, "ready": True}
                        ),
                    }
                    for c in pod["spec"]["initContainers"]
                ],
                "containerStatuses": [
                    {"name": c["name"], "image": c["image"], "imageID": "", "restartCount": 0}
                    | running
                    for c in pod["spec"]["containers"]
                ],
            }
            with contextlib.suppress(NotFoundError):  # it has just gone
                await kube._write(
                    "merge",
                    POD,
                    "PATCH",
                    POD.path(namespace, pod["metadata"]["name"], "status"),
                    {"status": status},
                    content_type="application/merge-patch+json",
                )


async def until_ready(kube: Kube, namespace: str, *, only: Collection[str] | None = None) -> None:
    """Let the pods start (see `make_pods_ready`) and wait until the ModelDeployment is Ready."""

    async def ready() -> bool:
        await make_pods_ready(kube, namespace, only=only)
        return (await condition(kube, namespace, "Ready")).get("status") == "True"

    await h.until(ready, "Ready")
