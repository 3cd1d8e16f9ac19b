"""A rollback as a collector sees it: one trace from the look at pods to the write of zero weight.

The operator is a process of its own against a real API server; pods and traffic are pretended. The
collector is a small HTTP server that decodes OTLP: `test_collector.py` has a real one, which takes
minutes to get.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.kube import wait_for
from tests.integration.gitops.conftest import MODEL, SECONDS, Place, placed
from tests.integration.tracing.conftest import (
    BAD,
    RECONCILES,
    is_a_rollback,
    lines,
    roll_out,
    whole,
)
from tests.unit.runtime.collector import Received, decoded
from tidegate.runtime.otlp import PATH

pytestmark = pytest.mark.integration


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


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found


@pytest.fixture(scope="module")
def place(collector: Collector, folder: Path) -> Iterator[Place]:
    with placed(folder, TIDEGATE_TRACING_ENDPOINT=collector.url) as found:
        yield found


def test_a_rollback_is_one_trace(
    place: Place, content: Path, folder: Path, collector: Collector
) -> None:
    roll_out(place, content, 1, "Ready")
    place.data.bad = frozenset({BAD})
    status = roll_out(place, content, 2, "Stalled")

    audit = [line for line in lines(folder) if line["event"] == "audit"]
    assert all(len(found["trace_id"]) == 32 for found in audit)
    assert {"RolloutComplete", "StepTaken", "Scaled"} <= {found["decision"] for found in audit}
    (line,) = [found for found in audit if found["decision"] == "RolledBack"]
    spans = wait_for(
        lambda: whole(collector.spans, line["trace_id"]),
        "the rollback's trace",
        timeout_seconds=SECONDS,
    )
    assert status["observedGeneration"] == 2
    is_a_rollback(spans, 2)
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
