"""What a plan wants measured comes back to the next plan: through watches, queue and sidecars."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from tests.contract import runtime_harness as h
from tests.unit.measurement.pages import Cluster, page
from tidegate.actions import Measure, Plan
from tidegate.analysis.judgement import Objective
from tidegate.api.names import (
    DEPLOYMENT_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    REVISION_LABEL,
)
from tidegate.observed import Measurements, Observed
from tidegate.resources.sidecar import INTERNAL_PORT
from tidegate.runtime.cache import Key
from tidegate.runtime.kinds import MODEL_DEPLOYMENT, POD, Kind
from tidegate.runtime.kube import Kube

pytestmark = pytest.mark.contract

SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts", selector="")
ADDRESSES = {"canary": "127.77.0.1", "stable": "127.77.0.2"}
"""Of this machine, so that pods which no node runs can be read."""


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with start() as plane:
        yield plane


async def make_pod(kube: Kube, namespace: str, revision: str) -> None:
    """A pod as a kubelet reports it that is not Ready yet."""
    labels = {MANAGED_BY_LABEL: MANAGED_BY, DEPLOYMENT_LABEL: "m", REVISION_LABEL: revision}
    pod = {
        "metadata": {"name": revision, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "triton", "image": "triton"}]},
    }
    await kube.create(POD, pod, manager="kubelet")
    await kube._write(
        "merge",
        POD,
        "PATCH",
        POD.path(namespace, revision, "status"),
        {"status": {"phase": "Running", "podIP": ADDRESSES[revision]}},
        content_type="application/merge-patch+json",
    )


async def test_a_plan_is_told_what_it_wants_to_know(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    clusters = {revision: {"client_http": Cluster({200: 500})} for revision in ADDRESSES}
    runners = []
    for revision, address in ADDRESSES.items():

        async def answer(_: web.Request, revision: str = revision) -> web.Response:
            return web.Response(text=page(clusters[revision], 5))

        app = web.Application()
        app.router.add_get("/stats/prometheus", answer)
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], address, INTERNAL_PORT).start()

    started = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    objective = Objective(0.01, None, 0.0, 0.05, 0.95)
    measure = Measure("stable", "canary", started, started, objective, 0.2)
    told: list[Measurements] = []

    def plan(observed: Observed, platform: Any, now: Any, measurements: Measurements) -> Plan:
        told.append(measurements)
        return Plan(measure=measure)

    account = {"metadata": {"name": "default", "namespace": namespace}}
    if await kube.find(SERVICE_ACCOUNT, namespace, "default") is None:
        await kube.create(SERVICE_ACCOUNT, account, manager="test")
    made = await h.create_model(kube, namespace)
    async with h.running(plane, namespace, plan) as operator:
        await h.until(lambda: told, "a plan")
        assert told[0].rollout is None
        for revision in ADDRESSES:
            await make_pod(kube, namespace, revision)

        def seen() -> bool:
            rollout = told[-1].rollout
            return rollout is not None and rollout.judgement.requests == 500

        await h.until(seen, "a plan that knows of the canary's requests")
        assert told[-1].rollout is not None
        assert told[-1].rollout.judgement.bad is None
        plans = len(told)
        clusters["canary"]["client_http"].by_status[500] = 40
        await h.until(
            lambda: (r := told[-1].rollout) is not None and r.judgement.bad is not None,
            "a plan that knows that it is bad",
        )
        assert len(told) > plans  # nobody but the measurer had anything to say

        await kube.delete(MODEL_DEPLOYMENT, namespace, "m", uid=made["metadata"]["uid"])
        key = Key(namespace, "m")
        await h.until(lambda: operator.measurer.measured(key) is None, "the end of measuring")
    assert [t for t in asyncio.all_tasks() if t.get_name().startswith("measure")] == []
    for runner in runners:
        await runner.cleanup()
