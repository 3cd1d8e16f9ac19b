"""Traces in an OpenTelemetry Collector of the project's own: what arrives, and what it refuses.

The collector asks for a login. Its receiver never takes a part of a request and refuses the rest:
that is shown against a server of ours in tests/unit/runtime.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from e2e.cluster.kube import wait_for
from e2e.ports import free_ports
from tests.integration.gitops.conftest import NAMESPACE, SECONDS, Place, placed
from tests.integration.tracing.collector import Collector, collecting
from tests.integration.tracing.conftest import (
    BAD,
    RECONCILES,
    is_a_rollback,
    roll_out,
    said,
    whole,
)
from tidegate import __version__
from tidegate.runtime.cache import Key
from tidegate.runtime.otlp import NOT_HTTP, Traces
from tidegate.runtime.telemetry import Metrics

pytestmark = [pytest.mark.integration, pytest.mark.clouds]

TOKEN: Final = "c2VzYW1l,MQ=="
LOGIN: Final = {"Authorization": f"Bearer {TOKEN}"}
SPANS: Final = "tidegate_trace_spans_total"
RESULTS: Final = ("sent", "failed", "dropped")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with collecting(tmp_path_factory.mktemp("collector"), TOKEN) as found:
        yield found


@pytest.fixture
def collector(process: Collector) -> Collector:
    """It runs, whatever the test before did to it."""
    process.start()
    return process


@pytest.fixture(scope="module")
def port() -> int:
    (found,) = free_ports(1)
    return found


@pytest.fixture(scope="module")
def place(process: Collector, folder: Path, port: int) -> Iterator[Place]:
    settings = {
        "TIDEGATE_TRACING_ENDPOINT": process.http,
        "TIDEGATE_TRACING_HEADERS": f"Authorization={quote(LOGIN['Authorization'])}",
        "TIDEGATE_HTTP_PORT": str(port),
    }
    with placed(folder, **settings) as found:
        yield found


def counted(port: int) -> dict[str, float]:
    """Spans by result, of the operator's process."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
    return {
        sample.labels["result"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == SPANS
    }


def trace_of(folder: Path, decision: str) -> str:
    """The trace that the audit record of the latest such decision names."""
    found = [line for line in said(folder, "audit") if line["decision"] == decision]
    return str(found[-1]["trace_id"])


def test_a_rollback_arrives(
    place: Place, content: Path, folder: Path, collector: Collector, port: int
) -> None:
    began_ns = time.time_ns()
    roll_out(place, content, 1, "Ready")
    place.data.bad = frozenset({BAD})
    roll_out(place, content, 2, "Stalled")
    trace = trace_of(folder, "RolledBack")
    spans = wait_for(
        lambda: whole(collector.spans(), trace), "the rollback's trace", timeout_seconds=SECONDS
    )
    is_a_rollback(spans, 2)
    assert all(began_ns < span.start_ns <= span.end_ns < time.time_ns() for span in spans)
    root, *children = spans
    assert "RolledBack" in root.events
    internal, client = 1, 3
    asked = [span for span in children if span.kind == client]
    assert all(span.about["http.request.method"] for span in asked)
    assert {s.name for s in spans if s.kind == internal} == {RECONCILES, "look at pods", "plan"}
    # Of each process and tracer the same is said.
    for process, tracer, _ in collector.taken():
        assert tracer == "tidegate"
        assert process["service.name"] == "tidegate-operator"
        assert process["service.version"] == __version__
        assert process["k8s.namespace.name"] == NAMESPACE
        assert process["service.instance.id"]
    wait_for(
        lambda: counted(port)["sent"] == len(collector.spans()),
        "all that is counted as sent lies in the collector's file",
        timeout_seconds=SECONDS,
        state=lambda: f"{counted(port)}, {len(collector.spans())} in the file",
    )
    assert counted(port)["failed"] == counted(port)["dropped"] == 0
    assert not said(folder, "traces not sent")


def test_a_collector_that_is_killed_holds_nothing_up_and_is_found_again(
    place: Place, content: Path, folder: Path, collector: Collector, port: int
) -> None:
    before = len(collector.spans())
    collector.kill()
    status = roll_out(place, content, 1, "Ready")
    assert status["revisions"]["stable"]["source"] == "s3://models/detector/v1"
    lost = wait_for(
        lambda: counted(port)["failed"] or None, "spans are given up", timeout_seconds=SECONDS
    )
    (line,) = said(folder, "traces not sent")
    assert "Cannot connect" in line["problem"], line
    assert len(collector.spans()) == before

    collector.start()
    roll_out(place, content, 3, "Ready")
    trace = trace_of(folder, "RolloutComplete")
    wait_for(lambda: whole(collector.spans(), trace), "the next rollout", timeout_seconds=SECONDS)
    assert len(said(folder, "traces are sent again")) == 1
    assert counted(port)["failed"] >= lost


async def told(
    url: str, *, passes: int = 1, headers: dict[str, str] | None = None, **how: Any
) -> tuple[dict[str, float], list[str]]:
    """Have passes of two spans traced and sent there. Returns spans by result, and the problems."""
    metrics = Metrics()
    quick = {"gather_s": 0.01, "timeout_s": 10.0, "pause_s": 0.01}
    tracer = Traces(
        url, metrics, identity="op-1", namespace="gate", headers=headers, **(quick | how)
    )
    for _ in range(passes):
        with tracer.reconcile(Key("demo", "detector")) as span:
            with tracer.planning():
                pass
            span.note("result", "changed")
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(tracer.run())
            await tracer.drain()
            task.cancel()
    value = metrics.registry.get_sample_value
    counts = {result: value(SPANS, {"result": result}) or 0.0 for result in RESULTS}
    return counts, [line["problem"] for line in logs if line["event"] == "traces not sent"]


def arrived(collector: Collector, spans: int) -> None:
    """Wait until so many lie in its file."""
    wait_for(lambda: len(collector.spans()) >= spans, f"{spans} spans", timeout_seconds=SECONDS)


REFUSED: Final = {"sent": 0.0, "failed": 2.0, "dropped": 0.0}


@pytest.mark.parametrize(
    ("door", "headers", "problem"),
    [
        ("http", {}, "status 401"),
        ("http", {"Authorization": "Bearer guessed"}, "status 401"),
        ("small", {}, "status 400"),
        ("grpc", {}, NOT_HTTP),
    ],
    ids=["no login", "a wrong login", "too large", "the port of gRPC"],
)
async def test_what_it_refuses_is_counted_and_said(
    collector: Collector, door: str, headers: dict[str, str], problem: str
) -> None:
    before = len(collector.spans())
    assert await told(getattr(collector, door), headers=headers) == (REFUSED, [problem])
    assert len(collector.spans()) == before


async def test_with_the_login_it_takes_them(collector: Collector) -> None:
    before = len(collector.spans())
    counts, problems = await told(collector.http, headers=LOGIN)
    assert (counts, problems) == ({"sent": 2.0, "failed": 0.0, "dropped": 0.0}, [])
    await asyncio.to_thread(arrived, collector, before + 2)


async def test_one_without_room_is_tried_again_and_given_up(collector: Collector) -> None:
    # What its file's buffer takes is taken; once it found that the disk is full it says 503.
    tried = [await told(collector.full) for _ in range(20)]
    assert tried[-1] == (REFUSED, ["status 503"])


async def test_one_that_comes_back_between_two_tries_gets_all(collector: Collector) -> None:
    collector.kill()
    before = len(collector.spans())
    sending = asyncio.create_task(told(collector.http, headers=LOGIN, pause_s=4.0))
    # The first try finds nobody, the last is twelve seconds later.
    await asyncio.sleep(0.5)
    await asyncio.to_thread(collector.start)
    assert await sending == ({"sent": 2.0, "failed": 0.0, "dropped": 0.0}, [])
    await asyncio.to_thread(arrived, collector, before + 2)


async def test_what_waits_for_one_that_is_away_is_bounded() -> None:
    (nobody,) = free_ports(1)
    counts, _ = await told(f"http://127.0.0.1:{nobody}", passes=5, room=6)
    assert counts == {"sent": 0.0, "failed": 6.0, "dropped": 4.0}
