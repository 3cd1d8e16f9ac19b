"""A followed source on a real API server: CronJob, Job, pod, and the revision that comes of it."""

import json
from typing import Any

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.contract import runtime_harness as h
from tests.contract.runtime.real_plan.playing import condition, make_pods_ready
from tidegate.api.names import SOURCE_LABEL
from tidegate.plan import plan
from tidegate.runtime.kinds import MANAGED_SELECTOR, MODEL_DEPLOYMENT, POD, Kind, kind_of
from tidegate.runtime.kube import Kube

pytestmark = pytest.mark.contract

JOB = Kind("batch/v1", "Job", "jobs", selector="")
CRON_JOB = kind_of("batch/v1", "CronJob")
MANIFEST: dict[str, Any] = {
    "model": {
        "source": {
            "uri": "mlflow://magika/@champion",
            "endpoint": "https://mlflow.example.com",
            "onChange": "NewRevision",
        }
    },
    "rollout": {"bake": "0s"},
}


async def look(kube: Kube, namespace: str, name: str, version: str) -> None:
    """As ``kubectl create job --from=cronjob/m-source``; the pod ends as a kubelet would say."""
    cron = await kube.get(CRON_JOB, namespace, "m-source")
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": cron["spec"]["jobTemplate"]["spec"],
    }
    await kube.apply(JOB, job, manager="test", force=True)
    found: list[str] = []

    async def pod() -> bool:
        async for page in kube.pages(POD, namespace, selector=f"{SOURCE_LABEL}=m"):
            found.extend(
                p["metadata"]["name"]
                for p in page["items"]
                if p["metadata"]["name"].startswith(name)
            )
        return bool(found)

    await h.until(pod, "the pod that looks")
    message = json.dumps({"sourceVersion": version, "sourceAddress": None})
    ended = {"exitCode": 0, "reason": "Completed", "message": message}
    status = {
        "name": "fetch",
        "image": "fetch",
        "imageID": "",
        "restartCount": 0,
        "ready": False,
        "state": {"terminated": ended},
    }
    await kube._write(
        "merge",
        POD,
        "PATCH",
        POD.path(namespace, found[0], "status"),
        {"status": {"phase": "Succeeded", "containerStatuses": [status]}},
        content_type="application/merge-patch+json",
    )


async def test_a_champion_that_moves_is_followed(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    await h.create_model(kube, namespace, **MANIFEST)
    one, two = (f"v1-{n * 40}" for n in "12")

    async def followed(version: str, status: str) -> None:
        async def ready() -> bool:
            await make_pods_ready(kube, namespace, sourceVersion=version)
            says = await condition(kube, namespace, "SourceFollowed")
            now = await condition(kube, namespace, "Ready")
            return now.get("status") == "True" and says.get("status") == status

        await h.until(ready, f"Ready, SourceFollowed={status}")

    async def stable() -> str:
        live = await kube.get(MODEL_DEPLOYMENT, namespace, "m")
        return str(live["status"]["revisions"]["stable"]["hash"])

    async with h.running(plane, namespace, plan) as operator:
        await followed(one, "Unknown")
        first = await stable()
        await look(kube, namespace, "look-1", one)
        await followed(one, "True")
        assert await stable() == first
        await h.comes_to_rest(operator, plane)

    # The operator that goes on is another one.
    async with h.running(plane, namespace, plan, user="successor") as operator:
        await look(kube, namespace, "look-2", two)

        async def moved() -> bool:
            await make_pods_ready(kube, namespace, sourceVersion=two)
            return await stable() != first

        await h.until(moved, "the revision of what the alias leads to")
        await followed(two, "True")
        await h.comes_to_rest(operator, plane, user="successor")

        await kube.merge(
            MODEL_DEPLOYMENT,
            namespace,
            "m",
            {"spec": {"model": {"source": {"onChange": "Refuse"}}}},
            manager="user",
        )

        async def looks_no_more() -> bool:
            async for page in kube.pages(CRON_JOB, namespace, selector=MANAGED_SELECTOR):
                return not page["items"]
            return True

        await h.until(looks_no_more, "no CronJob")
        await h.comes_to_rest(operator, plane, user="successor")
