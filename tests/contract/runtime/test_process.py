"""The operator as a process: start, probes, metrics, memory, SIGTERM."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from e2e.cluster.audit import AuditLog, besides_leases
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from e2e.ports import free_ports
from tests.contract import runtime_harness as h
from tidegate.runtime.kinds import LEASE, MODEL_DEPLOYMENT
from tidegate.runtime.kube import Kube

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[3]
FLEET = 100
MEMORY_LIMIT_MIB = 150


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with start(controllers=True) as plane:
        yield plane


@pytest.fixture
async def kube(plane: ControlPlane) -> AsyncIterator[Kube]:
    async with h.client(plane) as kube:
        await h.install_crd(kube, h.real_crd())
        yield kube


@dataclass
class Process:
    """A running operator."""

    process: asyncio.subprocess.Process
    url: str
    log: Path

    async def get(self, path: str) -> tuple[int, str]:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(self.url + path) as answer,
            ):
                return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async def ready(self) -> bool:
        assert self.process.returncode is None, self.log.read_text()[-2000:]
        return (await self.get("/readyz"))[0] == 200

    async def leads(self) -> bool:
        return "\ntidegate_leader 1.0" in (await self.get("/metrics"))[1]

    async def passes(self) -> float:
        """Over ModelDeployments, so far."""
        metrics = (await self.get("/metrics"))[1]
        counts = re.findall(r"^tidegate_reconcile_seconds_count\{.*\} (.*)$", metrics, re.M)
        return sum(float(count) for count in counts)

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        return int(kib) / 1024

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextlib.asynccontextmanager
async def running(
    plane: ControlPlane, namespace: str, log: Path, **environ: str
) -> AsyncIterator[Process]:
    (port,) = free_ports(1)
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tidegate.runtime.main",
            cwd=log.parent,
            stdout=out,
            stderr=out,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT / "operator"),
                "KUBECONFIG": str(plane.kubeconfig_for("process", ("system:masters",))),
                "TIDEGATE_WATCH_NAMESPACES": namespace,
                "POD_NAMESPACE": namespace,
                "TIDEGATE_HTTP_PORT": str(port),
                **environ,
            },
        )
    try:
        yield Process(process, f"http://127.0.0.1:{port}", log)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), h.WAIT_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def test_it_starts_serves_and_ends_in_order(
    plane: ControlPlane, kube: Kube, tmp_path: Path
) -> None:
    namespace = await h.new_namespace(kube)
    async with running(plane, namespace, tmp_path / "log") as operator:
        await h.until(operator.ready, "ready")
        assert (await operator.get("/healthz"))[0] == 200
        await h.until(operator.leads, "leading")
        print(f"idle: {operator.rss_mib():.0f} MiB")
        await h.create_model(kube, namespace, model={"source": {"uri": "s3://models/m"}})

        async def has_status() -> bool:
            found = await kube.get(MODEL_DEPLOYMENT, namespace, "m")
            return bool((found.get("status") or {}).get("observedGeneration"))

        await h.until(has_status, "status")
        lines = (
            'tidegate_api_writes_total{kind="Deployment",verb="apply"} 1.0',
            'tidegate_reconcile_seconds_count{result="changed"}',
            'tidegate_watch_age_seconds{kind="Pod"} 0.0',
            'tidegate_cache_objects{kind="Deployment"} 1.0',
            "tidegate_queue_depth ",
        )

        async def counted() -> bool:
            metrics = (await operator.get("/metrics"))[1]
            return all(line in metrics for line in lines)

        await h.until(counted, f"metrics with {lines}")
        operator.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(operator.process.wait(), h.WAIT_S) == 0
    lease = await kube.get(LEASE, namespace, "tidegate-operator")
    assert not lease["spec"].get("holderIdentity")
    decisions = [line for line in operator.lines() if line["event"] == "decision"]
    assert {"modeldeployment", "action", "reason", "timestamp", "level"} <= decisions[0].keys()
    assert any(d.get("object", "").startswith("Deployment/") for d in decisions)
    assert [line for line in operator.lines() if line["level"] in ("error", "critical")] == []


async def test_without_credentials_it_says_so(plane: ControlPlane, tmp_path: Path) -> None:
    environ = {"KUBECONFIG": "", "HOME": str(tmp_path)}
    async with running(plane, "ns", tmp_path / "log", **environ) as operator:
        assert await asyncio.wait_for(operator.process.wait(), h.WAIT_S) == 2
    assert "no service account and no kubeconfig" in operator.log.read_text()


async def test_a_fleet_in_little_memory_and_no_writes_at_rest(
    plane: ControlPlane, kube: Kube, tmp_path: Path
) -> None:
    namespace = await h.new_namespace(kube)
    for n in range(FLEET):
        await h.create_model(
            kube,
            namespace,
            f"m{n}",
            model={"source": {"uri": f"s3://models/m{n}"}},
            slo={"latency": {"target": "100ms"}},
            scaling={"minReplicas": 2},
        )
    async with running(plane, namespace, tmp_path / "log") as operator:

        async def all_there() -> bool:
            found = 0
            async for page in kube.pages(MODEL_DEPLOYMENT, namespace):
                found += sum(bool((o.get("status") or {}).get("replicas")) for o in page["items"])
            return found == FLEET

        await h.until(all_there, "status of each", limit_s=600.0)

        async def at_rest() -> bool:
            log = AuditLog(plane.audit_log)
            await asyncio.sleep(5.0)
            return not besides_leases(log.writes(user="process"))

        await h.until(at_rest, "five seconds without a write", limit_s=300.0)
        settled_mib = operator.rss_mib()
        print(f"{FLEET} ModelDeployments: {settled_mib:.0f} MiB")
        assert settled_mib <= MEMORY_LIMIT_MIB
    # A process that begins with the fleet: the same.
    log = AuditLog(plane.audit_log)
    async with running(plane, namespace, tmp_path / "log2") as operator:
        await h.until(operator.leads, "leading")

        async def looked_at_all() -> bool:
            return await operator.passes() >= FLEET

        await h.until(looked_at_all, "a pass over each", limit_s=300.0)
        await asyncio.sleep(2.0)
        print(f"restarted: {operator.rss_mib():.0f} MiB")
        assert operator.rss_mib() <= MEMORY_LIMIT_MIB
        assert besides_leases(log.writes(user="process")) == []
