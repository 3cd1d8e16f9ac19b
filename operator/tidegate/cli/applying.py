"""Applies what `tidegate prepare` wrote: golden requests first, then what names them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from tidegate.api import names
from tidegate.cli.client import APPLY, ApiError
from tidegate.cli.planning import path_of
from tidegate.cli.trouble import Trouble

if TYPE_CHECKING:
    from tidegate.cli.client import Client

MANIFESTS: Final = (
    ("golden.yaml", "v1", "ConfigMap", "configmaps"),
    ("modeldeployment.yaml", names.API_VERSION, names.KIND, names.PLURAL),
)
"""In this order: whoever reads the second finds what it names. Nothing else is applied, whatever a
model that runs code while it is loaded has written beside them."""


def apply_prepared(client: "Client", space: str, folder: Path) -> list[str]:
    """Apply the manifests of a prepared model.

    Args:
        client: of the cluster.
        space: namespace.
        folder: that `tidegate prepare` wrote.

    Returns:
        ``kind/name`` of what was applied.

    Raises:
        Trouble: one is missing or is something else, or the API server refuses; those before it
            were applied.
    """
    found = [
        (plural, version, _document(folder / "manifests" / file, version, kind))
        for file, version, kind, plural in MANIFESTS
    ]
    applied = []
    for plural, version, document in found:
        name = str(document["metadata"]["name"])
        try:
            client.request(
                "PATCH",
                path_of(version, plural, space, name),
                body=document,
                params={"fieldManager": "tidegate-cli", "force": "true"},
                content_type=APPLY,
            )
        except ApiError as error:
            # Admission refuses with the same status, and says itself what to do.
            missing = error.status == 403 and " cannot " in error.message
            mend = f"grant patch and create of {plural} in {space}" * missing
            raise Trouble(f"{plural} {name}: {error.message}", mend) from None
        applied.append(f"{document['kind'].lower()}/{name}")
    return applied


def _document(path: Path, version: str, kind: str) -> dict[str, Any]:
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d]
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{path} cannot be read: {error}", "prepare a model first") from None
    except yaml.YAMLError as error:
        raise Trouble(f"{path} is no YAML: {error}", "prepare it again") from None
    document = documents[0] if len(documents) == 1 and isinstance(documents[0], dict) else {}
    if (document.get("apiVersion"), document.get("kind")) != (version, kind):
        raise Trouble(f"{path} is not one {kind}", "prepare it again")
    metadata = document.get("metadata")
    if not (isinstance(metadata, dict) and metadata.get("name") and "namespace" not in metadata):
        raise Trouble(f"{path} has no name, or a namespace of its own", "prepare it again")
    return document
