"""A fleet at rest is left at rest: after a restart, too, the operator writes its Lease only."""

import os
import time
from typing import Any, Final

from e2e.cluster import addons
from e2e.cluster.audit import AuditLog, Write
from e2e.cluster.installation import operator_pods
from e2e.cluster.kube import wait_for
from e2e.tests.space import READY_SECONDS, SETTINGS, Space, model_deployment

WATCHED_SECONDS: Final = 300 if os.environ.get("TIDEGATE_FULL") == "1" else 60
USER: Final = f"system:serviceaccount:{addons.OPERATOR_NAMESPACE}:tidegate-operator"
LEASES: Final = "leases"


def test_no_write_but_the_lease(space: Space, whoami: dict[str, str]) -> None:
    gateway = {
        "parentRefs": [{"name": "public", "namespace": SETTINGS.infra_namespace}],
        "hostnames": ["idle.example.test"],
    }
    slo = {"latency": {"target": "100ms"}}
    specs: dict[str, dict[str, Any]] = {
        "plain": {},
        "routed": {"traffic": {"gateway": gateway}, "slo": slo},
        "bare": {"runtime": {"sidecar": "Off"}},
        # One that cannot start is at rest, too, until something changes.
        "waiting": {"runtime": {"nodeSelector": {"no": "such-node"}}},
    }
    for name, spec in specs.items():
        space.apply(model_deployment(name, whoami["one"], spec))
    for name in specs:
        if name == "waiting":
            space.not_ready(name, "NoMatchingNode")
        else:
            space.ready(name)
    before = {pod["metadata"]["name"] for pod in operator_pods(space.kube)}
    log = AuditLog(SETTINGS.audit_log)
    for name in before:
        space.kube.delete("v1", "Pod", name, addons.OPERATOR_NAMESPACE)
    wait_for(
        lambda: not before & {pod["metadata"]["name"] for pod in operator_pods(space.kube)},
        "other operators",
        timeout_seconds=READY_SECONDS,
    )
    addons.await_rollout(space.kube, "tidegate-operator", addons.OPERATOR_NAMESPACE)
    time.sleep(WATCHED_SECONDS)
    writes = of_these(log.writes(user=USER), space.name)
    leases = [write for write in writes if write.resource == LEASES]
    others = [write for write in writes if write.resource != LEASES]
    assert others == []
    # The log was read, and the operator was alive all the time: it renewed its Lease to the end.
    assert len(leases) >= WATCHED_SECONDS // 10
    space.kube.delete("tidegate.dev/v1alpha1", "ModelDeployment", "plain", space.name)
    space.apply(model_deployment("bare", whoami["one"], specs["bare"] | {"replicas": 2}))
    space.ready("bare")
    assert [w for w in of_these(log.writes(user=USER), space.name) if w.resource != LEASES], (
        "the operator's writes do not show in the log; the test proves nothing"
    )


def of_these(writes: list[Write], namespace: str) -> list[Write]:
    """Those in a namespace of ours or the operator's own: others may use the cluster meanwhile."""
    return [w for w in writes if w.namespace in (namespace, addons.OPERATOR_NAMESPACE)]
