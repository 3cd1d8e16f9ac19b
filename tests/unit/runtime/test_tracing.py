"""Traces: nothing where nobody asks for them, all that mattered where somebody does."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.trace import get_current_span

from tests.unit.architecture.test_tree import ROOT
from tests.unit.runtime.collector import Collector, Received, collecting
from tidegate.actions import Apply, Plan, WriteStatus
from tidegate.runtime import tracers
from tidegate.runtime.cache import Key
from tidegate.runtime.kube import ConflictError, NotFoundError
from tidegate.runtime.otlp import BATCH, TRIES, Traces, with_trace_id
from tidegate.runtime.settings import Settings, SettingsError
from tidegate.runtime.telemetry import Metrics
from tidegate.runtime.tracing import OFF, Look, Tracer

KEY = Key("demo", "detector")
OFF_SCRIPT = """
import sys
import tidegate.plan
import tidegate.runtime.main
from tidegate.platform import Platform
from tidegate.runtime.operator import Operator
from tidegate.runtime.settings import Settings
from tidegate.runtime.tracers import log_processors
from tidegate.runtime.tracing import OFF
import asyncio, kopf
from tidegate.runtime.login import Connection

async def made():
    connection = Connection(kopf.ConnectionInfo(server="http://127.0.0.1:9"))
    return Operator(Settings(), Platform(), tidegate.plan.plan, connection)

assert asyncio.run(made()).tracer is OFF
assert log_processors(Settings()) == ()
print([name for name in sys.modules if name.partition(".")[0] == "opentelemetry"])
"""


def test_off_is_nothing_at_all() -> None:
    run = subprocess.run(
        [sys.executable, "-c", OFF_SCRIPT],
        env={"PYTHONPATH": str(ROOT / "operator"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.stdout, run.returncode) == ("[]\n", 0), run.stderr[-2000:]


def test_off_has_every_method_that_on_has() -> None:
    public = {name for name in vars(Traces) if not name.startswith("_")}
    assert public == {name for name in vars(Tracer) if not name.startswith("_")}


def test_without_the_packages_the_mend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tidegate.runtime.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    with pytest.raises(SettingsError, match=r"install tidegate\[operator,tracing\]"):
        tracers.log_processors(Settings(tracing_endpoint="http://collector:4318"))


def count(metrics: Metrics, result: str) -> float:
    name = "tidegate_trace_spans_total"
    return metrics.registry.get_sample_value(name, {"result": result}) or 0.0


def traces(url: str, metrics: Metrics, **changes: Any) -> Traces:
    quick = {"gather_s": 0.001, "timeout_s": 2.0, "pause_s": 0.001}
    return Traces(url, metrics, identity="op-1", namespace="gate", **{**quick, **changes})


@contextlib.asynccontextmanager
async def sending(found: Traces) -> AsyncIterator[None]:
    task = asyncio.create_task(found.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(metrics: Metrics, spans: int) -> None:
    """Wait until each of so many was sent or given up."""
    for _ in range(10_000):
        if count(metrics, "sent") + count(metrics, "failed") >= spans:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"not {spans} spans")


def one_pass(tracer: Traces, result: str = "changed", decision: str = "") -> str:
    """As the reconciler goes about it. Returns the trace's id."""
    with tracer.reconcile(KEY) as span:
        tracer.began(3, None)
        found = tracer.trace_id()
        with tracer.planning():
            pass
        if decision:
            tracer.decided(decision, "ErrorRate")
        span.note("result", result)
    return found


async def received(tracer: Traces, metrics: Metrics, collector: Collector, spans: int) -> None:
    async with sending(tracer):
        await until(metrics, spans)
    assert len(collector.spans) == count(metrics, "sent")


async def test_a_pass_is_one_trace_with_what_it_did() -> None:
    metrics = Metrics()
    async with collecting() as collector:
        tracer = traces(collector.url, metrics, headers={"x-team": "ml"})
        plan = Plan(
            (
                Apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "m"}}),
                WriteStatus(
                    {
                        "conditions": [
                            {"type": "Ready", "status": "False", "reason": "RolledBack"},
                            {"type": "Available", "status": "True", "reason": "Serving"},
                        ]
                    }
                ),
            )
        )
        with tracer.reconcile(KEY) as span:
            trace = tracer.trace_id()
            tracer.began(6, Look(1_000.25, 1_000.5, 3, 1))
            with tracer.planning():
                pass
            with tracer.request("apply", "HTTPRoute", "PATCH", "/apis/x"):
                pass
            tracer.planned(7, plan)
            tracer.decided("RolledBack", "ErrorRate")
            tracer.decided("RolloutStarted", "")
            span.note("result", "changed")
        await received(tracer, metrics, collector, 4)
    root, *children = collector.trace(trace)
    assert root.name == "reconcile"
    assert root.about == {
        "k8s.namespace.name": "demo",
        "tidegate.modeldeployment": "detector",
        "tidegate.generation": 7,
        "tidegate.ready": "False: RolledBack",
        "tidegate.decision": "RolledBack, RolloutStarted",
        "tidegate.result": "changed",
    }
    assert root.events == ("RolledBack", "RolloutStarted")
    assert root.status == 0
    assert {span.parent for span in children} == {root.id}
    found = {span.name: span for span in children}
    assert set(found) == {"look at pods", "plan", "apply HTTPRoute"}
    look = found["look at pods"]
    assert (look.start_ns, look.end_ns) == (1_000_250_000_000, 1_000_500_000_000)
    assert look.about == {"tidegate.pods": 3, "tidegate.unread": 1}
    request = found["apply HTTPRoute"].about
    assert request == {"http.request.method": "PATCH", "url.path": "/apis/x"}
    assert root.start_ns <= found["plan"].start_ns <= found["plan"].end_ns <= root.end_ns
    assert collector.resource["service.name"] == "tidegate-operator"
    assert collector.resource["service.instance.id"] == "op-1"
    assert collector.resource["k8s.namespace.name"] == "gate"
    assert collector.headers["x-team"] == "ml"


async def test_what_nothing_came_of_is_kept_by_its_share() -> None:
    metrics = Metrics()
    async with collecting() as collector:
        tracer = traces(collector.url, metrics, idle_ratio=0.25)
        every = [one_pass(tracer, "idle") for _ in range(400)]
        mattered = [one_pass(tracer, "changed"), one_pass(tracer, "failed")]
        mattered += [one_pass(tracer, "idle", "Promoted")]
        kept = [t for t in every if int(t[16:], 16) < 1 << 62]
        await received(tracer, metrics, collector, 2 * (len(kept) + 3))
    assert {span.trace for span in collector.spans} == {*kept, *mattered}
    assert 50 < len(kept) < 150
    failed = collector.trace(mattered[1])[0]
    assert (failed.status, failed.about["tidegate.generation"]) == (2, 3)


async def test_by_default_nothing_idle_is_kept() -> None:
    metrics = Metrics()
    async with collecting() as collector:
        tracer = traces(collector.url, metrics)
        one_pass(tracer, "idle")
        last = one_pass(tracer, "changed")
        await received(tracer, metrics, collector, 2)
    assert {span.trace for span in collector.spans} == {last}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConflictError("taken", code=409), 2, 409),
        (NotFoundError("not there", code=404), 0, 404),
        (TimeoutError("late"), 2, None),
    ],
)
async def test_errors_of_requests(error: Exception, status: int, code: int | None) -> None:
    metrics = Metrics()
    async with collecting() as collector:
        tracer = traces(collector.url, metrics)
        with (
            tracer.reconcile(KEY) as span,
            contextlib.suppress(type(error)),
            tracer.request("apply", "Service", "PATCH", "/api"),
        ):
            span.note("result", "changed")
            raise error
        await received(tracer, metrics, collector, 2)
    found: Received = collector.named("apply Service")[0]
    assert found.status == status
    assert found.about.get("http.response.status_code") == code
    assert (str(error) in found.said) == (status == 2)


async def test_outside_of_a_pass_nothing_is_traced() -> None:
    metrics = Metrics()
    tracer = traces("http://127.0.0.1:9", metrics)
    late = asyncio.Event()

    async def outlives() -> tuple[bool, str, dict[str, Any]]:
        await late.wait()
        with tracer.request("get", "Pod", "GET", "/"):
            inside = get_current_span().is_recording()
        tracer.decided("Promoted", "")
        tracer.began(1, Look(1.0, 2.0, 1, 0))
        tracer.planned(1, Plan())
        return inside, tracer.trace_id(), dict(with_trace_id(None, "info", {"event": "x"}))

    with tracer.reconcile(KEY) as span:
        task = asyncio.create_task(outlives())
        line = with_trace_id(None, "info", {"event": "x"})
        assert line["trace_id"] == tracer.trace_id() != ""
        assert len(line["span_id"]) == 16
        span.note("result", "idle")
    late.set()
    assert await task == (False, "", {"event": "x"})
    with tracer.request("update", "Lease", "PUT", "/"):
        assert not get_current_span().is_recording()


@pytest.mark.parametrize(("status", "asked"), [(503, 3), (429, 3), (400, 1), (500, 1), (302, 1)])
async def test_what_is_refused(status: int, asked: int) -> None:
    metrics = Metrics()
    async with collecting() as collector:
        collector.statuses = [status] * TRIES
        tracer = traces(collector.url, metrics)
        one_pass(tracer)
        await received(tracer, metrics, collector, 2)
    assert (count(metrics, "failed"), collector.asked) == (2, asked)


async def test_what_a_collector_does_not_take_of_a_request_is_counted() -> None:
    metrics = Metrics()
    async with collecting() as collector:
        collector.rejects = 1
        tracer = traces(collector.url, metrics)
        one_pass(tracer)
        async with sending(tracer):
            await until(metrics, 2)
    assert (count(metrics, "sent"), count(metrics, "failed")) == (1, 1)


async def test_many_go_in_batches() -> None:
    metrics = Metrics()
    async with collecting() as collector:
        tracer = traces(collector.url, metrics)
        for _ in range(BATCH):
            one_pass(tracer)
        await received(tracer, metrics, collector, 2 * BATCH)
        assert collector.asked == 2


async def test_the_last_ones_are_waited_for_and_not_gathered_for() -> None:
    metrics = Metrics()
    async with collecting() as collector:
        tracer = traces(collector.url, metrics, gather_s=3600.0)
        async with sending(tracer):
            await tracer.drain()
            one_pass(tracer)
            await tracer.drain()
            assert len(collector.spans) == 2


async def test_nobody_there_costs_a_bounded_queue_and_no_pass_waits() -> None:
    """Passes go on without once giving the event loop away, whoever does not listen."""
    metrics = Metrics()
    tracer = traces("http://127.0.0.1:9", metrics, room=101)
    for _ in range(60):
        one_pass(tracer)
    # Whole traces: one place is left empty.
    assert count(metrics, "dropped") == 20
    async with sending(tracer):
        await until(metrics, 100)
        one_pass(tracer)
        await until(metrics, 102)
    assert (count(metrics, "failed"), count(metrics, "sent")) == (102, 0)


def test_off_costs_no_state() -> None:
    with OFF.reconcile(KEY) as span, OFF.planning(), OFF.request("a", "b", "c", "d"):
        span.note("result", "idle")
        OFF.began(1, Look(0.0, 1.0, 1, 0))
        OFF.planned(1, Plan())
        OFF.decided("Promoted", "")
    assert OFF.trace_id() == ""
    assert OFF.reconcile(KEY) is OFF.planning()
