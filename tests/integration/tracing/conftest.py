"""The operator as a process of its own, with rollouts to trace; pods and traffic are pretended."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster.kube import wait_for
from tests.integration.gitops.conftest import (
    EXAMPLES,
    MODEL,
    NAMESPACE,
    SECONDS,
    Place,
    ask_for,
    quick,
)
from tests.unit.runtime.collector import Received

RECONCILES: Final = "reconcile"
BAD: Final = "s3://models/detector/v2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def content(folder: Path) -> Path:
    """A copy of the examples that rolls out within seconds."""
    found = folder / "content"
    shutil.copytree(EXAMPLES, found)
    quick(found)
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    """The operator's log."""
    text = (folder / "operator.log").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def said(folder: Path, event: str) -> list[dict[str, Any]]:
    """The lines of that event."""
    return [line for line in lines(folder) if line["event"] == event]


def manifest(content: Path) -> dict[str, Any]:
    """The example's production overlay, merged."""
    base = yaml.safe_load((content / "base/modeldeployment.yaml").read_text(encoding="utf-8"))
    patch = yaml.safe_load(
        (content / "overlays/production/production.yaml").read_text(encoding="utf-8")
    )
    base["spec"] |= patch["spec"]
    base["metadata"]["namespace"] = NAMESPACE
    found: dict[str, Any] = base
    return found


def roll_out(place: Place, content: Path, version: int, condition: str) -> dict[str, Any]:
    """Ask for a version, and wait until the spec's revision is decided. Returns its status."""
    ask_for(content, version)
    generation = place.kube.apply(manifest(content))["metadata"]["generation"]

    def done() -> dict[str, Any] | None:
        status = place.status()
        has = {c["type"]: c for c in status.get("conditions") or ()}
        over = has.get(condition, {}).get("status") == "True"
        baked = (status.get("rollout") or {}).get("phase") != "Baking"
        return status if status.get("observedGeneration") == generation and over and baked else None

    found: dict[str, Any] = wait_for(
        done,
        f"version {version}: {condition}",
        timeout_seconds=SECONDS,
        state=lambda: yaml.safe_dump(place.status()),
    )
    return found


def whole(spans: Sequence[Received], trace: str) -> list[Received] | None:
    """The spans of one trace, its root first; None: it has not come yet."""
    found = sorted((s for s in spans if s.trace == trace), key=lambda s: bool(s.parent))
    return found if found and not found[0].parent else None


def is_a_rollback(spans: Sequence[Received], generation: int) -> None:
    """From the look at pods to the write of zero weight, as docs/operations/monitoring.md says."""
    root, *children = spans
    assert root.name == RECONCILES
    assert root.about["tidegate.modeldeployment"] == MODEL
    assert root.about["k8s.namespace.name"] == NAMESPACE
    assert root.about["tidegate.generation"] == generation
    assert root.about["tidegate.decision"] == "RolledBack"
    assert root.about["tidegate.result"] == "changed"
    assert root.about["tidegate.ready"] == "False: RolledBack"
    assert {span.parent for span in children} == {root.id}
    first = {span.name: span for span in reversed(children)}
    assert {"look at pods", "plan", "apply HTTPRoute", "apply ModelDeployment/status"} <= set(first)
    look, plan, route = (first[n] for n in ("look at pods", "plan", "apply HTTPRoute"))
    # What the plan knew was read before, and what it wanted was written after.
    assert look.start_ns < look.end_ns <= plan.start_ns < plan.end_ns <= route.start_ns
    assert 2 <= look.about["tidegate.pods"] <= 4, "of both revisions"
    assert route.about["url.path"].endswith(f"/namespaces/{NAMESPACE}/httproutes/{MODEL}")
    assert all(span.status == 0 for span in spans)
