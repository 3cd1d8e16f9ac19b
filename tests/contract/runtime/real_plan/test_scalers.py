"""Kubernetes' own controllers and our replicas: a real HPA, and whom a ReplicaSet takes away.

Without metrics an HPA still keeps its bounds, which is all that it needs here: it reads and writes
``/scale`` as it does with metrics, and as KEDA does, which makes an HPA.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.contract import runtime_harness as h
from tests.contract.runtime.real_plan.playing import SPEC, make_pods_ready, until_ready
from tidegate.actions import Plan
from tidegate.api import names
from tidegate.observed import Measurements, Observed
from tidegate.plan import plan
from tidegate.platform import Platform
from tidegate.runtime.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, POD, Kind
from tidegate.runtime.kube import Kube

pytestmark = pytest.mark.contract

HPA = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", selector="")
EVENT = Kind("v1", "Event", "events", selector="")
MANAGER = "kube-controller-manager"


async def live(kube: Kube, namespace: str) -> dict[str, Any]:
    return await kube.get(MODEL_DEPLOYMENT, namespace, "m")


async def pods_asked_for(kube: Kube, namespace: str) -> int:
    """Replicas of the child Deployment."""
    await make_pods_ready(kube, namespace)
    hash_ = (await live(kube, namespace))["status"]["revisions"]["stable"]["hash"]
    return int((await kube.get(DEPLOYMENT, namespace, f"m-{hash_}"))["spec"]["replicas"])


def hpa(namespace: str, target: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {
        "apiVersion": HPA.api_version,
        "kind": HPA.kind,
        "metadata": {"name": "m", "namespace": namespace},
        "spec": {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": most},
    }


async def events(kube: Kube, namespace: str) -> list[str]:
    """What was told of other scalers."""
    return [
        event["message"]
        async for page in kube.pages(EVENT, namespace)
        for event in page["items"]
        if event["reason"] == "OtherScaler"
    ]


async def test_an_hpa_is_followed_until_somebody_quarrels_with_it(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    external: dict[str, Any] = {"scaling": {"mode": "External"}, "replicas": 1}
    await h.create_model(kube, namespace, **SPEC, **external)
    async with h.running(plane, namespace, plan) as operator:
        await until_ready(kube, namespace)
        target = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "m"}
        await kube.apply(HPA, hpa(namespace, target, 3, 4), manager="test", force=True)

        async def raised() -> bool:
            return await pods_asked_for(kube, namespace) == 3

        await h.until(raised, "the HPA's number")

        async def known() -> bool:
            told = (await live(kube, namespace))["status"]["scaling"]
            setters = [(e["manager"], e["replicas"]) for e in told["setBy"]]
            return setters == [("user", 1), (MANAGER, 3)]

        await h.until(known, "who set it")
        scaling = (await live(kube, namespace))["status"]["scaling"]
        assert "hold" not in scaling
        assert await events(kube, namespace) == []

        async def quarrel() -> bool:
            """As ``kubectl scale``, whenever the HPA's number is in force."""
            found = await live(kube, namespace)
            told = found["status"]["scaling"]
            if told.get("hold") == "OtherScaler":
                return True
            if told["setBy"][-1]["manager"] == MANAGER and found["spec"]["replicas"] == 3:
                await kube._write(
                    "merge",
                    MODEL_DEPLOYMENT,
                    "PATCH",
                    MODEL_DEPLOYMENT.path(namespace, "m", "scale"),
                    {"spec": {"replicas": 1}},
                    params={"fieldManager": "kubectl"},
                    content_type="application/merge-patch+json",
                )
            return False

        await h.until(quarrel, "the quarrel")
        scaling = (await live(kube, namespace))["status"]["scaling"]
        assert scaling["desired"] == 3
        said = (
            "External: kubectl set spec.replicas to 1, a HorizontalPodAutoscaler "
            f"({MANAGER}) to 3, by turns; 3 kept. Let one of them go."
        )
        assert scaling["reason"] == said

        async def told() -> bool:
            return await events(kube, namespace) == [said]

        await h.until(told, "the event")
        assert await pods_asked_for(kube, namespace) == 3
        await h.comes_to_rest(operator, plane)


async def test_an_hpa_that_names_the_child_is_overruled_and_named(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    await h.create_model(kube, namespace, **SPEC, scaling={"mode": "Fixed"}, replicas=2)
    async with h.running(plane, namespace, plan):
        await until_ready(kube, namespace)
        hash_ = (await live(kube, namespace))["status"]["revisions"]["stable"]["hash"]
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"m-{hash_}"}
        await kube.apply(HPA, hpa(namespace, target, 5, 6), manager="test", force=True)

        async def told() -> list[str]:
            return await events(kube, namespace)

        [text, *_] = await h.until(told, "the event")
        assert text.startswith(f"a HorizontalPodAutoscaler ({MANAGER}) set Deployment m-{hash_} to")
        assert "it gets 2 again" in text
        made = await kube.get(HPA, namespace, "m")
        await kube.delete(HPA, namespace, "m", uid=made["metadata"]["uid"])

        async def back() -> bool:
            return await pods_asked_for(kube, namespace) == 2

        await h.until(back, "its own number")


async def models_pods(kube: Kube, namespace: str) -> list[dict[str, Any]]:
    """The model's pods that are to stay."""
    return [
        pod
        async for page in kube.pages(POD, namespace)
        for pod in page["items"]
        if names.REVISION_LABEL in pod["metadata"]["labels"]
        and not pod["metadata"].get("deletionTimestamp")
    ]


async def test_the_pods_with_the_least_to_do_go_first(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    """A ReplicaSet takes the youngest of equals; here these are the busiest."""
    owed: dict[str, int] = {}
    looked_at: set[str] = set()
    started: set[str] = set()

    def planned(
        observed: Observed,
        platform: Platform,
        now: datetime,
        measurements: Measurements | None = None,
    ) -> Plan:
        known = replace(measurements or Measurements(), in_flight=dict(owed))
        looked_at.update(pod["metadata"]["uid"] for pod in observed.pods)
        started.update(known.starts)
        return plan(observed, platform, now, known)

    await h.create_model(kube, namespace, **SPEC, scaling={"mode": "Fixed"}, replicas=1)
    async with h.running(plane, namespace, planned) as operator:
        # A start counts where it was seen from its beginning, and a real one takes seconds: here
        # each pod waits with it until it was looked at.
        await until_ready(kube, namespace, only=looked_at)
        for count in (2, 3, 4):
            await kube.merge(
                MODEL_DEPLOYMENT, namespace, "m", {"spec": {"replicas": count}}, manager="user"
            )

            async def there(count: int = count) -> bool:
                await make_pods_ready(kube, namespace, only=looked_at)
                found = await models_pods(kube, namespace)
                uids = [pod["metadata"]["uid"] for pod in found]
                for uid in uids:
                    owed.setdefault(uid, len(owed))
                return len(uids) == count and all(
                    (pod.get("status") or {}).get("phase") == "Running" for pod in found
                )

            await h.until(there, f"{count} pods")
        await until_ready(kube, namespace)
        assert sorted(owed.values()) == [0, 1, 2, 3]
        await h.until(lambda: started == owed.keys(), "each pod's start seen")
        await h.quiet(operator)
        for count in (2, 1):
            await kube.merge(
                MODEL_DEPLOYMENT, namespace, "m", {"spec": {"replicas": count}}, manager="user"
            )

            async def gone(count: int = count) -> bool:
                return len(await models_pods(kube, namespace)) == count

            await h.until(gone, f"{count} pods")
            left = {owed[p["metadata"]["uid"]] for p in await models_pods(kube, namespace)}
            assert left == set(range(4 - count, 4))
