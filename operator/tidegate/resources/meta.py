"""Labels, owners and names that every child carries."""

from collections.abc import Mapping
from typing import Any, Final

from tidegate.api.names import (
    API_VERSION,
    DEPLOYMENT_LABEL,
    KIND,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    REVISION_LABEL,
    SERVING_LABEL,
)
from tidegate.observed import Object

NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"


def labels(deployment: str, hash_: str | None = None) -> dict[str, str]:
    """Labels of a child; with a hash, of one that belongs to that revision."""
    found = {
        MANAGED_BY_LABEL: MANAGED_BY,
        NAME_LABEL: "tritonserver",
        INSTANCE_LABEL: deployment,
        DEPLOYMENT_LABEL: deployment,
    }
    return found if hash_ is None else found | {REVISION_LABEL: hash_}


def selector(deployment: str, hash_: str | None = None) -> dict[str, str]:
    """Selects all pods of a ModelDeployment, or those of one revision."""
    found = {DEPLOYMENT_LABEL: deployment}
    return found if hash_ is None else found | {REVISION_LABEL: hash_}


def serving_selector(deployment: str, hash_: str) -> dict[str, str]:
    """Selects the pods of a revision that may get traffic."""
    return selector(deployment, hash_) | {SERVING_LABEL: "true"}


def owned(deployment: Object, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as a child: with the owner reference that makes it go with its owner."""
    return {
        **manifest,
        "metadata": {**manifest["metadata"], "ownerReferences": [owner_reference(deployment)]},
    }


def owner_reference(deployment: Object) -> dict[str, Any]:
    """The controlling owner reference to a ModelDeployment."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": deployment["metadata"]["name"],
        "uid": deployment["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(deployment: Object, name: str, hash_: str | None = None) -> dict[str, Any]:
    """Metadata of a child, owner reference included."""
    return {
        "name": name,
        "labels": labels(deployment["metadata"]["name"], hash_),
        "ownerReferences": [owner_reference(deployment)],
    }
