"""Manifests for the contract tests."""

from typing import Any

COLLECTION = "/apis/tidegate.dev/v1alpha1/namespaces/default/modeldeployments"


def manifest(name: str) -> dict[str, Any]:
    """The smallest good ModelDeployment."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"source": {"uri": "s3://models/magika/v3"}}},
    }


def overlay(body: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The manifest with values put in by path below ``spec``; None takes a field away.

    Changes `body` and gives it back.
    """
    for path, value in change.items():
        node, below = body, path.split(".")
        if below[0] not in ("metadata", "spec"):
            below = ["spec", *below]
        for part in below[:-1]:
            node = node.setdefault(part, {})
        if value is None:
            node.pop(below[-1], None)
        else:
            node[below[-1]] = value
    return body
