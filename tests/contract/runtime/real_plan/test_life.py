"""The real plan, the real CRD, the real API server: from manifest to Ready and to nothing."""

from typing import Any

import pytest

from e2e.cluster.audit import AuditLog
from e2e.cluster.control_plane import ControlPlane
from tests.contract import runtime_harness as h
from tests.contract.runtime.real_plan.playing import SPEC, make_pods_ready, until_ready
from tidegate.plan import plan
from tidegate.runtime.kinds import CHILDREN, DEPLOYMENT, MODEL_DEPLOYMENT
from tidegate.runtime.kube import Kube

pytestmark = pytest.mark.contract


async def test_from_a_manifest_to_ready_to_rest_to_nothing(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    made = await h.create_model(kube, namespace, **SPEC)
    async with h.running(plane, namespace, plan) as operator:
        await until_ready(kube, namespace)
        await h.comes_to_rest(operator, plane)
        # No apply had to be found out to change nothing: the comparison knows.
        assert operator.reconciler._carrier._settled.is_empty
        assert operator.reconciler._restless == {}
    log = AuditLog(plane.audit_log)
    async with h.running(plane, namespace, plan, user="successor") as operator:
        await h.leading(operator)
        await h.quiet(operator)
        assert [w for w in log.writes(user="successor") if w.resource != "leases"] == []

        deployment = await kube.get(MODEL_DEPLOYMENT, namespace, "m")
        hash_ = deployment["status"]["revisions"]["stable"]["hash"]
        live = await kube.get(DEPLOYMENT, namespace, f"m-{hash_}")
        assert live["spec"]["replicas"] == 1
        await kube.delete(MODEL_DEPLOYMENT, namespace, "m", uid=made["metadata"]["uid"])

        async def nothing_left() -> bool:
            left = [
                item
                for kind in (MODEL_DEPLOYMENT, *CHILDREN)
                if not kind.optional
                async for page in kube.pages(kind, namespace, selector=kind.selector)
                for item in page["items"]
            ]
            return not left

        await h.until(nothing_left, "the garbage collector's work")


async def test_each_child_deleted_comes_back_and_all_rests(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    await h.create_model(kube, namespace, **SPEC)
    async with h.running(plane, namespace, plan) as operator:
        await until_ready(kube, namespace)
        await h.quiet(operator)

        async def children() -> dict[str, dict[str, Any]]:
            return {
                f"{kind}/{item['metadata']['name']}": item
                for kind in CHILDREN
                if not kind.optional
                async for page in kube.pages(kind, namespace, selector=kind.selector)
                for item in page["items"]
            }

        before = await children()
        assert len(before) >= 8, sorted(before)
        for kind in CHILDREN:
            for where, item in before.items():
                if where.split("/")[0] != kind.kind:
                    continue
                meta = item["metadata"]
                await kube.delete(kind, namespace, meta["name"], uid=meta["uid"])

        async def back() -> bool:
            await make_pods_ready(kube, namespace)
            now = await children()
            return now.keys() == before.keys() and all(
                now[w]["metadata"]["uid"] != before[w]["metadata"]["uid"] for w in before
            )

        await h.until(back, "all children back")
        await until_ready(kube, namespace)
        await h.comes_to_rest(operator, plane)


async def test_an_edited_child_is_put_back_with_the_real_plan(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    await h.create_model(kube, namespace, **SPEC)
    async with h.running(plane, namespace, plan) as operator:
        await until_ready(kube, namespace)
        await h.quiet(operator)
        status = (await kube.get(MODEL_DEPLOYMENT, namespace, "m"))["status"]
        name = status["revisions"]["stable"]["name"]
        before = (await kube.get(DEPLOYMENT, namespace, name))["spec"]
        await kube.merge(
            DEPLOYMENT,
            namespace,
            name,
            {"spec": {"template": {"spec": {"hostNetwork": True}}, "paused": True}},
            manager="kubectl-edit",
        )

        async def restored() -> bool:
            return bool((await kube.get(DEPLOYMENT, namespace, name))["spec"] == before)

        await h.until(restored, "put back")
