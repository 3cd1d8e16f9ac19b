"""What guards the pods: a disruption budget and a network policy."""

from collections.abc import Collection, Sequence
from typing import Any

from tidegate.api.spec import Peer, Spec
from tidegate.observed import Object
from tidegate.platform import Platform
from tidegate.resources.meta import metadata, selector
from tidegate.resources.sidecar import (
    INTERNAL_PORT,
    MIRROR_PORT,
    SERVING_PORT,
    TRITON_GRPC_PORT,
    TRITON_HTTP_PORT,
    TRITON_METRICS_PORT,
)

NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def disruption_budget(deployment: Object) -> dict[str, Any]:
    """One pod at a time; a pod that is not healthy never blocks the drain of its node."""
    name = deployment["metadata"]["name"]
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(deployment, name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(name)},
        },
    }


def network_policy(
    deployment: Object, spec: Spec, platform: Platform, *, sidecars: Collection[bool]
) -> dict[str, Any]:
    """Ingress only: clients reach the serving port, the platform the internal one.

    Args:
        deployment: the ModelDeployment.
        spec: its spec.
        platform: the platform's settings.
        sidecars: of each revision that has pods, whether they have the sidecar: while traffic
            moves from pods with to pods without, both must be reached.
    """
    name = deployment["metadata"]["name"]
    serving = [
        *([SERVING_PORT, MIRROR_PORT] if True in sidecars else []),
        *([TRITON_HTTP_PORT, TRITON_GRPC_PORT] if False in sidecars else []),
    ]
    internal = [
        *([INTERNAL_PORT] if True in sidecars else []),
        # Its statistics, and why a model did not load, are Triton's to tell.
        *([TRITON_HTTP_PORT, TRITON_METRICS_PORT] if False in sidecars else []),
    ]
    platform_namespaces = sorted({platform.operator_namespace, *platform.metrics_namespaces})
    clients: dict[str, Any] = {"ports": _ports(serving)}
    if spec.traffic.allow_from:
        clients["from"] = [_peer(peer) for peer in spec.traffic.allow_from]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(deployment, name),
        "spec": {
            "podSelector": {"matchLabels": selector(name)},
            "policyTypes": ["Ingress"],
            "ingress": [
                clients,
                {
                    "ports": _ports(internal),
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchExpressions": [
                                    {
                                        "key": NAMESPACE_LABEL,
                                        "operator": "In",
                                        "values": platform_namespaces,
                                    }
                                ]
                            }
                        }
                    ],
                },
            ],
        },
    }


def _ports(numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]


def _peer(peer: Peer) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if peer.namespace_labels:
        found["namespaceSelector"] = {"matchLabels": dict(peer.namespace_labels)}
    if peer.pod_labels:
        found["podSelector"] = {"matchLabels": dict(peer.pod_labels)}
    return found or {"podSelector": {}}
