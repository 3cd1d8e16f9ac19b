"""The examples, and every manifest in the documentation, are accepted as they stand."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.kube import KubeClient, documents
from tidegate import plan
from tidegate.actions import Apply
from tidegate.api import crd, names, spec
from tidegate.observed import Observed
from tidegate.platform import Platform, Profile

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))
# As the platform of the full example has it.
PLATFORM = Platform(profiles={"gold": Profile()}, allowed_service_accounts=("model-reader",))


def documented() -> Iterator[tuple[str, str]]:
    """Where and what: the YAML blocks of the documentation that hold a ModelDeployment."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if not page.is_file():
            continue
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S):
            if re.search(rf"^kind: {names.KIND}$", block, re.M) and "..." not in block:
                yield f"{page.relative_to(ROOT)}: {block.splitlines()[3][:40]}", block


DOCUMENTED = list(documented())


@pytest.fixture(scope="module")
def api(kube: KubeClient) -> KubeClient:
    kube.apply_all([crd.crd()])
    return kube


def accept(api: KubeClient, document: dict[str, Any]) -> dict[str, Any]:
    """What the API server makes of it, told to be strict and to store nothing."""
    path = api.path(document["apiVersion"], document["kind"], "default")
    params = {"dryRun": "All", "fieldValidation": "Strict"}
    return api.request("POST", path, body=document, params=params)


def observed(deployment: dict[str, Any]) -> Observed:
    """The first look at it, on a cluster with dynamic resource allocation."""
    return Observed(deployment, present_kinds=frozenset({"ResourceClaimTemplate"}))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8
    assert len(DOCUMENTED) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_example(api: KubeClient, path: Path) -> None:
    for document in documents(path.read_text()):
        accepted = accept(api, document)
        if document["kind"] != names.KIND:
            continue
        made = plan.plan(observed(accepted), PLATFORM, datetime(2026, 1, 1, tzinfo=UTC))
        children = [a.manifest for a in made.actions if isinstance(a, Apply)]
        assert "Deployment" in {c["kind"] for c in children}, made.actions
        for child in children:
            api.request(
                "PATCH",
                api.path_of(child, "default"),
                body=child,
                params={"fieldManager": "test", "dryRun": "All", "fieldValidation": "Strict"},
                content_type="application/apply-patch+yaml",
            )


@pytest.mark.parametrize(("where", "block"), DOCUMENTED, ids=[w for w, _ in DOCUMENTED])
def test_documented_manifest(api: KubeClient, where: str, block: str) -> None:
    for document in documents(block):
        if document["kind"] == names.KIND:
            document["metadata"].pop("namespace", None)  # tried in the tests' own
            accept(api, document)


def test_the_full_example_leaves_no_block_out() -> None:
    (full,) = documents((ROOT / "docs" / "examples" / "full.yaml").read_text())
    # What cannot stand beside the rest: a digest beside onChange NewRevision, an address and a
    # region of other schemes, replicas in SLO mode, DRA beside a counted resource.
    elsewhere = {
        *("spec.replicas", "spec.model.source.sha256", "spec.model.source.endpoint"),
        *("spec.model.source.region", "spec.runtime.gpu.dra"),
    }
    missing = set(absent(crd.schema()["properties"]["spec"], full["spec"], "spec"))
    assert missing == elsewhere
    text = "\n".join(path.read_text() for path in EXAMPLES)
    for path in elsewhere:
        assert re.search(rf"\b{path.rsplit('.', 1)[-1]}:", text), path


def absent(node: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    """Fields of a schema that a manifest does not use, by path."""
    for name, inner in node.get("properties", {}).items():
        if not isinstance(value, dict) or name not in value:
            yield f"{path}.{name}"
        elif inner.get("type") == "array":
            # The fields of all items together.
            items = [v for v in value[name] if isinstance(v, dict)]
            merged = {k: v for item in items for k, v in item.items()}
            if inner["items"].get("properties") and name not in ("tolerations", "parentRefs"):
                yield from absent(inner["items"], merged, f"{path}.{name}[]")
        else:
            yield from absent(inner, value[name], f"{path}.{name}")


def test_yaml_reads_off_as_false() -> None:
    """Why the reference says to quote it, and why the examples do."""
    assert yaml.safe_load("sidecar: Off") == {"sidecar": False}
    with pytest.raises(ValueError, match="sidecar"):
        spec.parse({"model": {"source": {"uri": "s3://a/b"}}, "runtime": {"sidecar": False}})
