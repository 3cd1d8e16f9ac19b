"""A PodMonitor, where the cluster has that API: the platform's Prometheus finds the pods by it."""

from typing import Any, Final

from tidegate.api.names import DEPLOYMENT_LABEL, REVISION_LABEL
from tidegate.observed import Object
from tidegate.resources.meta import metadata, selector
from tidegate.resources.sidecar import SIDECAR_METRICS_PATH, TRITON_METRICS_PATH

KIND: Final = "PodMonitor"
INTERVAL_S: Final = 15.0


def pod_monitor(deployment: Object, *, sidecar: bool) -> dict[str, Any]:
    """Scrapes Triton's metrics and, with the sidecar, Envoy's."""
    name = deployment["metadata"]["name"]
    port = "internal" if sidecar else "metrics"
    paths = [TRITON_METRICS_PATH, *([SIDECAR_METRICS_PATH] if sidecar else [])]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": KIND,
        "metadata": metadata(deployment, name),
        "spec": {
            "selector": {"matchLabels": selector(name)},
            "podTargetLabels": [DEPLOYMENT_LABEL, REVISION_LABEL],
            "podMetricsEndpoints": [
                {"port": port, "path": path, "interval": f"{INTERVAL_S:g}s"} for path in paths
            ],
        },
    }
