"""Services: one for each revision, with a selector that never changes, and the entry.

The entry's selector names the revision that gets the traffic: it is where clients without a
gateway connect. Without a gateway it also carries the decision behind that, as the route does
otherwise. Before a first revision is verified it selects no pod.
"""

from collections.abc import Mapping
from typing import Any, Final

from tidegate.api.names import DECISION_ANNOTATION, REVISION_LABEL
from tidegate.observed import Object
from tidegate.resources.meta import labels, metadata, serving_selector
from tidegate.resources.sidecar import MIRROR_PORT as SIDECAR_MIRROR_PORT
from tidegate.resources.sidecar import SERVING_PORT, TRITON_GRPC_PORT, TRITON_HTTP_PORT

HTTP_PORT: Final = 8000
"""Triton's own numbers, so that clients need no other habits."""
GRPC_PORT: Final = 8001
MIRROR_PORT: Final = 8002
"""Of a revision's Service: where gateways send copies of live requests."""
H2C: Final = "kubernetes.io/h2c"
NO_REVISION: Final = "none"
"""In the entry's selector: no pod. Never a hash (they are longer). A Service whose selector goes
altogether keeps its last endpoints for ever, since nobody looks after them any more."""


def ports(*, sidecar: bool) -> list[dict[str, Any]]:
    """Ports of a Service. With the sidecar both lead to its one port, which speaks both."""
    http = {"name": "http", "port": HTTP_PORT, "protocol": "TCP"}
    grpc = {"name": "grpc", "port": GRPC_PORT, "protocol": "TCP", "appProtocol": H2C}
    if sidecar:
        # One route serves HTTP and gRPC, so a gateway has to speak HTTP/2 here.
        return [
            http | {"targetPort": SERVING_PORT, "appProtocol": H2C},
            grpc | {"targetPort": SERVING_PORT},
        ]
    return [
        http | {"targetPort": TRITON_HTTP_PORT},
        grpc | {"targetPort": TRITON_GRPC_PORT},
    ]


_MIRROR: Final = {
    "name": "mirror",
    "port": MIRROR_PORT,
    "protocol": "TCP",
    "targetPort": SIDECAR_MIRROR_PORT,
    "appProtocol": H2C,
}


def revision_service(deployment: str, name: str, hash_: str, *, sidecar: bool) -> dict[str, Any]:
    """The Service of one revision, without owner."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels(deployment, hash_)},
        "spec": {
            "type": "ClusterIP",
            "selector": serving_selector(deployment, hash_),
            "ports": [*ports(sidecar=sidecar), *([_MIRROR] if sidecar else [])],
        },
    }


def entry_service(
    deployment: Object, hash_: str | None, *, sidecar: bool, record: str | None = None
) -> dict[str, Any]:
    """The Service that clients inside the cluster use; its traffic goes to one revision.

    Args:
        deployment: the ModelDeployment.
        hash_: of the revision that gets the traffic; None: no pod gets any.
        sidecar: whether that revision's pods have the sidecar.
        record: the decision behind it (`tidegate.record.Record.dump`), where no route carries it.
    """
    name = deployment["metadata"]["name"]
    meta = metadata(deployment, name)
    if record:
        meta["annotations"] = {DECISION_ANNOTATION: record}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "type": "ClusterIP",
            "selector": serving_selector(name, NO_REVISION if hash_ is None else hash_),
            "ports": ports(sidecar=sidecar),
        },
    }


def revision_of(entry: Mapping[str, Any]) -> str | None:
    """Hash of the revision that an entry Service leads to; None: to none."""
    found = ((entry.get("spec") or {}).get("selector") or {}).get(REVISION_LABEL)
    return None if found in (None, NO_REVISION) else str(found)
