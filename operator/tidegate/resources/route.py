"""The HTTPRoute of a ModelDeployment that names a gateway: one object, owned whole.

One route serves HTTP and gRPC (the sidecar speaks both on one port), since Gateway API lets an
implementation refuse an HTTPRoute and a GRPCRoute on one host.
"""

from collections.abc import Mapping
from typing import Any, Final

from tidegate.api.spec import Gateway, Spec
from tidegate.api.units import duration_ms
from tidegate.observed import Object
from tidegate.resources.meta import metadata
from tidegate.resources.services import HTTP_PORT

KIND: Final = "HTTPRoute"
FULL_WEIGHT: Final = 100


def http_route(
    deployment: Object, spec: Spec, gateway: Gateway, weights: Mapping[str, int]
) -> dict[str, Any]:
    """The route.

    Args:
        deployment: the ModelDeployment.
        spec: its spec.
        gateway: ``spec.traffic.gateway``.
        weights: weight of each revision's Service, by the Service's name.
    """
    rule: dict[str, Any] = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [
            {
                "group": "",
                "kind": "Service",
                "name": name,
                "port": HTTP_PORT,
                "weight": weight,
            }
            for name, weight in sorted(weights.items())
        ],
    }
    if spec.traffic.timeout is not None:
        rule["timeouts"] = {"request": gateway_duration(duration_ms(spec.traffic.timeout))}
    route: dict[str, Any] = {
        "parentRefs": [
            {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
            | parent.model_dump(by_alias=True, exclude_none=True)
            for parent in gateway.parent_refs
        ],
        "rules": [rule],
    }
    if gateway.hostnames:
        route["hostnames"] = list(gateway.hostnames)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": KIND,
        "metadata": metadata(deployment, deployment["metadata"]["name"]),
        "spec": route,
    }


def gateway_duration(ms: int) -> str:
    """A duration in Gateway API's form (GEP-2257): up to four parts of at most five digits."""
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, ms = divmod(ms, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
