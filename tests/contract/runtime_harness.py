"""Operators against a real API server: in this process, with plans of the tests' own making."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.audit import AuditLog
from e2e.cluster.control_plane import ControlPlane
from tidegate.actions import Apply, Plan, Scale, WriteStatus
from tidegate.api.names import (
    API_VERSION,
    DEPLOYMENT_LABEL,
    GROUP,
    KIND,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    PLURAL,
    SHORT_NAME,
    SINGULAR,
    VERSION,
)
from tidegate.observed import Object, Observed
from tidegate.platform import Platform
from tidegate.runtime.fence import Fence
from tidegate.runtime.kinds import MODEL_DEPLOYMENT, Kind
from tidegate.runtime.kube import Kube
from tidegate.runtime.login import Connection, login
from tidegate.runtime.operator import Operator
from tidegate.runtime.reconciler import Planner
from tidegate.runtime.settings import Settings
from tidegate.runtime.telemetry import Metrics

WAIT_S = 120.0
"""A bound, not an expectation: nothing here fails on being slow."""

NAMESPACE = Kind("v1", "Namespace", "namespaces", selector="")
CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
ADMIN = "contract-admin"

# The operator's edges know nothing of a spec, so neither does this CRD.
LOOSE_CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {
            "kind": KIND,
            "plural": PLURAL,
            "singular": SINGULAR,
            "shortNames": [SHORT_NAME],
        },
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": True,
                            },
                            "status": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": True,
                            },
                        },
                    }
                },
            }
        ],
    },
}

_numbers = itertools.count(1)


def connection(
    plane: ControlPlane, user: str, groups: tuple[str, ...] = ("system:masters",)
) -> Connection:
    """A connection as some user."""
    return connection_by(plane.kubeconfig_for(user, groups))


def connection_by(kubeconfig: Path) -> Connection:
    """The connection that a kubeconfig gives."""
    before = os.environ.get("KUBECONFIG")
    os.environ["KUBECONFIG"] = str(kubeconfig)
    try:
        return login()
    finally:
        if before is None:
            del os.environ["KUBECONFIG"]
        else:
            os.environ["KUBECONFIG"] = before


@contextlib.asynccontextmanager
async def client(plane: ControlPlane, user: str = ADMIN) -> AsyncIterator[Kube]:
    """A client that may write always."""
    fence = Fence(1e9)
    fence.renewed(0.0)
    async with Kube(connection(plane, user), fence, Metrics(), clock=lambda: 1.0) as kube:
        yield kube


async def until(
    probe: Callable[[], Awaitable[Any]] | Callable[[], Any], what: str, *, limit_s: float = WAIT_S
) -> Any:
    """Wait until a probe gives something true, and return it."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while True:
        found = probe()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.05)


def settings(namespace: str, **changes: Any) -> Settings:
    """Settings of an operator that serves one namespace.

    On a busy machine a renewal may take seconds: only who tests the Lease itself lets it run out.
    """
    return replace(
        Settings(
            namespaces=(namespace,),
            lease_namespace=namespace,
            http_port=0,
            lease_duration_s=300.0,
            renew_deadline_s=240.0,
            retry_period_s=0.5,
            sweep_period_s=1.0,
            discovery_period_s=2.0,
        ),
        **changes,
    )


@contextlib.asynccontextmanager
async def running(
    plane: ControlPlane | Connection,
    namespace: str,
    planner: Planner,
    user: str = "operator",
    **changes: Any,
) -> AsyncIterator[Operator]:
    """An operator, until the block ends; it must not have ended unless it was stopped."""
    where = plane if isinstance(plane, Connection) else connection(plane, user)
    operator = Operator(settings(namespace, **changes), Platform(), planner, where)
    task = asyncio.create_task(operator.run(signals=False))
    try:
        yield operator
        assert operator._stop.is_set() or not task.done(), task.result()
    finally:
        operator.stop()
        await task


async def leading(operator: Operator) -> None:
    """Wait until it holds the Lease."""
    await until(lambda: operator.leadership.held, "leadership")


async def quiet(operator: Operator) -> None:
    """Wait until the queue has been empty for a while."""
    still = 0

    def empty() -> bool:
        nonlocal still
        schedule = operator.queue.schedule
        now = asyncio.get_running_loop().time()
        due = schedule.next_due()
        busy = schedule.working or (due is not None and due <= now)
        still = 0 if busy else still + 1
        return still > 10

    await until(empty, "an empty queue")


async def comes_to_rest(operator: Operator, plane: ControlPlane, user: str = "operator") -> None:
    """Wait until looking at everything writes nothing, twice in a row."""
    empty = 0

    async def nothing_written() -> bool:
        nonlocal empty
        log = AuditLog(plane.audit_log)
        operator._look_at_all()
        await quiet(operator)
        written = [w for w in log.writes(user=user) if w.resource != "leases"]
        empty = 0 if written else empty + 1
        return empty == 2

    await until(nothing_written, "rest")


async def new_namespace(kube: Kube) -> str:
    """A namespace of the test's own."""
    name = f"runtime-{os.getpid()}-{next(_numbers)}"
    await kube._write(
        "create",
        NAMESPACE,
        "POST",
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
    )
    return name


def real_crd() -> dict[str, Any]:
    """The CRD that the chart installs."""
    path = Path(__file__).parents[2] / "crds" / "modeldeployments.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


async def install_crd(kube: Kube, crd: dict[str, Any] = LOOSE_CRD) -> None:
    """The CRD, established."""
    path = (
        f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{LOOSE_CRD['metadata']['name']}"
    )
    await kube._write(
        "apply",
        CRD,
        "PATCH",
        path,
        crd,
        params={"fieldManager": "test", "force": "true"},
        content_type="application/apply-patch+yaml",
    )

    async def established() -> bool:
        conditions = (await kube.document(path)).get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    await until(established, "the CRD")


def model(namespace: str, name: str = "m", **spec: Any) -> dict[str, Any]:
    """A ModelDeployment."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


async def create_model(kube: Kube, namespace: str, name: str = "m", **spec: Any) -> Object:
    """Make a ModelDeployment."""
    return (
        await kube.create(MODEL_DEPLOYMENT, model(namespace, name, **spec), manager="user")
    ).document


# A tiny plan.


def child(
    observed: Observed, api_version: str, kind: str, name: str, **parts: Any
) -> dict[str, Any]:
    """A child's manifest: labels and owner reference, and what the kind needs."""
    deployment = observed.deployment
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {
                MANAGED_BY_LABEL: MANAGED_BY,
                DEPLOYMENT_LABEL: deployment["metadata"]["name"],
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": deployment["metadata"]["name"],
                    "uid": deployment["metadata"]["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        **parts,
    }


def deployment_manifest(observed: Observed) -> dict[str, Any]:
    """A Deployment as the plan gives it: replicas 0, always."""
    name = observed.deployment["metadata"]["name"]
    labels = {DEPLOYMENT_LABEL: name, MANAGED_BY_LABEL: MANAGED_BY}
    return child(
        observed,
        "apps/v1",
        "Deployment",
        f"{name}-abc",
        spec={
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                    "containers": [
                        {
                            "name": "triton",
                            "image": observed.deployment["spec"].get("image", "triton:1"),
                            "args": ["--model-repository=/models"],
                            "ports": [{"containerPort": 8000, "name": "http"}],
                            "env": [
                                {"name": "EMPTY", "value": ""},
                                {
                                    "name": "IP",
                                    "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}},
                                },
                            ],
                            "resources": {
                                "requests": {"cpu": "1000m", "memory": "2Gi"},
                                "limits": {"memory": "2048Mi"},
                            },
                            "securityContext": {"capabilities": {"drop": ["ALL"]}},
                            "volumeMounts": [{"name": "models", "mountPath": "/models"}],
                        }
                    ],
                    "volumes": [{"name": "models", "emptyDir": {}}],
                },
            },
        },
    )


def config_manifest(observed: Observed) -> dict[str, Any]:
    """A ConfigMap."""
    name = observed.deployment["metadata"]["name"]
    return child(observed, "v1", "ConfigMap", f"{name}-abc", data={"config": "a"})


def service_manifest(observed: Observed) -> dict[str, Any]:
    """A Service."""
    name = observed.deployment["metadata"]["name"]
    return child(
        observed,
        "v1",
        "Service",
        name,
        spec={
            "selector": {DEPLOYMENT_LABEL: name},
            "ports": [
                {"name": "http", "port": 8000, "targetPort": 8080},
                {
                    "name": "grpc",
                    "port": 8001,
                    "targetPort": 8080,
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
        },
    )


def policy_manifest(observed: Observed) -> dict[str, Any]:
    """A NetworkPolicy: atomic lists with defaults inside."""
    name = observed.deployment["metadata"]["name"]
    return child(
        observed,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        name,
        spec={
            "podSelector": {"matchLabels": {DEPLOYMENT_LABEL: name}},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": 8080}]}],
        },
    )


def budget_manifest(observed: Observed) -> dict[str, Any]:
    """A PodDisruptionBudget."""
    name = observed.deployment["metadata"]["name"]
    return child(
        observed,
        "policy/v1",
        "PodDisruptionBudget",
        name,
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {DEPLOYMENT_LABEL: name}},
        },
    )


def tiny_plan(observed: Observed, platform: Platform, now: Any, measurements: Any = None) -> Plan:
    """Children of the kinds there are, a scale, and a status that tells of foreign ones."""
    manifests = [
        config_manifest(observed),
        deployment_manifest(observed),
        service_manifest(observed),
        policy_manifest(observed),
        budget_manifest(observed),
    ]
    applies = [Apply(m) for m in manifests]
    replicas = observed.deployment["spec"].get("replicas", 1)
    status: dict[str, Any] = {
        "observedGeneration": observed.deployment["metadata"]["generation"],
        "foreign": sorted(f"{r.kind}/{r.name}" for r in observed.foreign),
        "failures": [f"{f.action} {f.reason}" for f in observed.failures],
    }
    wanted = [a for a in applies if a.ref not in observed.foreign]
    return Plan((*wanted, Scale(applies[1].ref, replicas), WriteStatus(status)))
