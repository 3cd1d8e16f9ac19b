"""A rollback as a collector sees it: one trace from the look at pods to the write of zero weight.

The operator is a process of its own against a real API server; pods and traffic are pretended. The
collector is a small HTTP server that decodes OTLP, since the real one takes longer to build than
all other servers of the tests together.
"""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    placed,
    quick,
)
from tests.unit.runtime.collector import Received, decoded
from tidegate.runtime.otlp import PATH

pytestmark = pytest.mark.integration

RECONCILES: Final = "reconcile"


@dataclass
class Collector:
    """Takes what is posted until it is stopped.

    Attributes:
        spans: all of them, in the order of their arrival.
    """

    spans: list[Received] = field(default_factory=list)

    def __enter__(self) -> "Collector":
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == PATH:
                    collector.spans += decoded(body)[0]
                self.send_response(200 if self.path == PATH else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()

    def trace(self, id_: str) -> list[Received] | None:
        """The spans of one trace, its root first; None: it has not come yet."""
        found = sorted((s for s in self.spans if s.trace == id_), key=lambda s: bool(s.parent))
        return found if found and not found[0].parent else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found


@pytest.fixture(scope="module")
def place(collector: Collector, folder: Path) -> Iterator[Place]:
    with placed(folder, TIDEGATE_TRACING_ENDPOINT=collector.url) as found:
        yield found


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


def test_a_rollback_is_one_trace(
    place: Place, content: Path, folder: Path, collector: Collector
) -> None:
    roll_out(place, content, 1, "Ready")
    place.data.bad = frozenset({"s3://models/detector/v2"})
    status = roll_out(place, content, 2, "Stalled")

    audit = [line for line in lines(folder) if line["event"] == "audit"]
    assert all(len(found["trace_id"]) == 32 for found in audit)
    assert {"RolloutComplete", "StepTaken", "Scaled"} <= {found["decision"] for found in audit}
    (line,) = [found for found in audit if found["decision"] == "RolledBack"]
    spans = wait_for(
        lambda: collector.trace(line["trace_id"]), "the rollback's trace", timeout_seconds=SECONDS
    )
    root, *children = spans
    assert root.name == RECONCILES
    assert root.about["tidegate.modeldeployment"] == MODEL
    assert root.about["k8s.namespace.name"] == NAMESPACE
    assert root.about["tidegate.generation"] == status["observedGeneration"] == 2
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
    # Each line about it leads to it.
    written = [found for found in lines(folder) if found.get("trace_id") == line["trace_id"]]
    assert any(f["event"] == "decision" and f["object"] == f"HTTPRoute/{MODEL}" for f in written)
    # Nothing came of most passes, and none of those was sent.
    roots = [span for span in collector.spans if span.name == RECONCILES]
    assert {span.about["tidegate.result"] for span in roots} <= {"changed", "failed"}
    assert all("trace_id" not in found for found in lines(folder) if found["event"] == "leading")


def test_a_collector_that_went_away_holds_nothing_up(
    place: Place, content: Path, folder: Path, collector: Collector
) -> None:
    collector.stop()
    before = len(collector.spans)
    status = roll_out(place, content, 1, "Ready")
    assert status["revisions"]["stable"]["source"] == "s3://models/detector/v1"
    wait_for(
        lambda: any(found["event"] == "traces not sent" for found in lines(folder)),
        "the operator says that nobody takes its traces",
        timeout_seconds=SECONDS,
    )
    assert len(collector.spans) == before
