"""Every inference is counted once, in its class, by status and by latency."""

import contextlib
import functools
import json
import socket
import time
from collections import Counter

import pytest
import tritonclient.grpc

from e2e.native.processes import Pod, pod
from tests.integration.sidecar.conftest import MODELS, TARGET_MS
from tests.integration.sidecar.wire import (
    ERROR,
    OK,
    call,
    counts,
    grpc_status,
    knob,
    knob_inputs,
    quiet,
    settled,
)
from tidegate.resources.sidecar import PIN_HEADER, Protocol, TrafficClass, cluster_name

pytestmark = pytest.mark.integration

INFER = "/v2/models/knob/infer"
ALL = [cluster_name(traffic, protocol) for traffic in TrafficClass for protocol in Protocol]
CLASSES: list[tuple[str, dict[str, str]]] = [
    ("client", {}),
    ("pinned", {PIN_HEADER: "knob-abc"}),
    ("mirrored", {}),
]


def test_http_by_status(running: Pod) -> None:
    before = {name: counts(running, name) for name in ALL}
    before["client_http"] = quiet(running, "client_http")
    sent = Counter(
        call(f"{running.serving}{path}", body).status
        for path, body, times in [
            (INFER, knob(OK), 7),
            ("/v2/models/knob/versions/1/infer", knob(OK), 2),
            (INFER, knob(ERROR), 3),  # Triton itself counts these as successes
            (INFER, b'{"inputs": [{"name": "seconds"}]}', 4),
            ("/v2/models/nobody/infer", knob(OK), 5),
            ("/v2/models/knob/generate", b'{"seconds": 0.0, "outcome": 0}', 2),
        ]
        for _ in range(times)
    )
    assert sent[200] >= 9
    assert sent[500] >= 3
    assert len(sent) >= 3
    added = settled(
        running, "client_http", before["client_http"], lambda c: c.timed == sent.total()
    )
    assert added.by_status == sent
    assert added.started == added.timed == sent.total()
    assert added.in_flight == 0
    for name in ALL:
        if name != "client_http":
            assert counts(running, name).since(before[name]).started == 0, name


def test_reads_and_refusals_are_not_counted(running: Pod) -> None:
    before = {name: counts(running, name) for name in ALL}
    for path in ("/v2/health/ready", "/v2/models/knob", "/v2/models/knob/stats", "/nothing"):
        call(f"{running.serving}{path}")
    call(f"{running.serving}/v2/repository/index", b"")
    call(f"{running.serving}{INFER}")  # GET
    for name in ALL:
        assert counts(running, name).since(before[name]).started == 0, name


def test_grpc_by_status(running: Pod, grpc: "tritonclient.grpc.InferenceServerClient") -> None:
    before = quiet(running, "client_grpc")
    sent = Counter(
        grpc_status(ask)
        for ask, times in [
            (lambda: grpc.infer("knob", knob_inputs(OK)), 6),
            (lambda: grpc.infer("knob", knob_inputs(ERROR)), 3),
            (lambda: grpc.infer("nobody", knob_inputs(OK)), 2),
            (lambda: grpc.infer("knob", knob_inputs(OK)[:1]), 4),
        ]
        for _ in range(times)
    )
    assert sent == {"OK": 6, "INTERNAL": 3, "NOT_FOUND": 2, "INVALID_ARGUMENT": 4}
    added = settled(running, "client_grpc", before, lambda c: c.timed == 15)
    assert added.by_grpc_status == {0: 6, 13: 3, 5: 2, 3: 4}
    assert added.by_status == {200: 15}  # which is why statuses of gRPC are counted apart
    assert added.started == 15


@pytest.mark.parametrize(("traffic", "headers"), CLASSES, ids=[name for name, _ in CLASSES])
def test_classes_are_counted_apart(running: Pod, traffic: str, headers: dict[str, str]) -> None:
    before = {name: counts(running, name) for name in ALL}
    door = running.mirror if traffic == "mirrored" else running.serving
    for outcome in (OK, OK, ERROR):
        call(f"{door}{INFER}", knob(outcome), headers=headers)
    with tritonclient.grpc.InferenceServerClient(door.removeprefix("http://")) as client:
        for outcome in (OK, ERROR):
            inputs = knob_inputs(outcome)
            grpc_status(functools.partial(client.infer, "knob", inputs, headers=headers))
    added = {name: counts(running, name).since(before[name]) for name in ALL}
    assert added.pop(f"{traffic}_http").by_status == {200: 2, 500: 1}
    assert added.pop(f"{traffic}_grpc").by_grpc_status == {0: 1, 13: 1}
    assert {name for name, count in added.items() if count.started} == set()


def test_golden_requests_are_not_a_clients(running: Pod) -> None:
    before = {name: counts(running, name) for name in ALL}
    assert call(f"{running.internal}{INFER}", knob(OK)).status == 200
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.ports.internal}") as client:
        client.infer("knob", knob_inputs(OK))
    added = {name: counts(running, name).since(before[name]) for name in ALL}
    assert {name: c.started for name, c in added.items() if c.started} == {
        "golden_http": 1,
        "golden_grpc": 1,
    }


def test_streams_are_counted_apart(
    running: Pod, grpc: "tritonclient.grpc.InferenceServerClient"
) -> None:
    before = {name: counts(running, name) for name in ALL}
    answers = []
    grpc.start_stream(callback=lambda result, error: answers.append(error))
    for _ in range(3):
        grpc.async_stream_infer("knob", knob_inputs(OK))
    grpc.stop_stream()
    body = b'{"seconds": 0.0, "outcome": 0}'
    reply = call(f"{running.serving}/v2/models/knob/generate_stream", body)
    assert (reply.status, answers) == (200, [None, None, None])
    added = {name: counts(running, name).since(before[name]) for name in ALL}
    assert {name: c.started for name, c in added.items() if c.started} == {
        "streaming_http": 1,
        "streaming_grpc": 1,
    }


def test_latency_buckets_are_exact(running: Pod) -> None:
    """By each edge between what surely took longer and what surely took less."""
    asked_s = [0.0] * 6 + [0.03] * 5 + [0.121] * 4 + [0.3] * 2
    before = quiet(running, "client_http")
    took_ms = []
    for seconds in asked_s:
        start = time.monotonic()
        assert call(f"{running.serving}{INFER}", knob(OK, seconds)).status == 200
        took_ms.append((time.monotonic() - start) * 1000)
    added = settled(running, "client_http", before, lambda c: c.timed == len(asked_s))
    assert added.timed == len(asked_s)
    for edge_ms in (1, 20, 50, 100, TARGET_MS, 150, 200, 300, 500, 1000, 600_000):
        surely = sum(ms < edge_ms for ms in took_ms)
        perhaps = sum(seconds * 1000 < edge_ms for seconds in asked_s)
        assert surely <= added.faster_than_ms[edge_ms] <= perhaps, edge_ms


def test_in_flight_and_given_up(running: Pod) -> None:
    """A client that leaves is neither answered nor in flight any more."""
    before = counts(running, "client_http")
    with socket.create_connection(("127.0.0.1", running.ports.serving)) as connection:
        body = knob(OK, 3.0)
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        during = settled(running, "client_http", before, lambda c: c.in_flight == 1)
        assert (during.started, during.in_flight, during.answered) == (1, 1, 0)
    after = settled(running, "client_http", before, lambda c: c.in_flight == 0)
    assert (after.started, after.in_flight, after.answered) == (1, 0, 0)


def test_only_failures_are_logged(running: Pod) -> None:
    def lines() -> list[str]:
        return running.envoy.log.read_text().splitlines()

    seen = len(lines())
    served = call(f"{running.serving}{INFER}", knob(OK), headers={"x-request-id": "good"})
    failed = call(f"{running.serving}{INFER}", knob(ERROR), headers={"x-request-id": "bad"})
    assert (served.status, failed.status) == (200, 500)
    assert failed.headers["x-request-id"] == "bad"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not any('"bad"' in line for line in lines()[seen:]):
        time.sleep(0.1)
    entries = [json.loads(line) for line in lines()[seen:] if line.startswith("{")]
    assert [e["id"] for e in entries if e["id"] in ("good", "bad")] == ["bad"]
    [entry] = [e for e in entries if e["id"] == "bad"]
    assert entry["code"] == 500
    assert entry["class"] == "client_http"
    assert entry["path"] == INFER
    assert entry["duration_ms"] >= 0
    assert entry["flags"] == "-"
    assert json.loads(entry["message"]) == json.loads(failed.body)


def test_a_failing_grpc_request_is_logged_with_its_status(
    running: Pod, grpc: "tritonclient.grpc.InferenceServerClient"
) -> None:
    headers = {"x-request-id": "grpc-bad"}
    assert grpc_status(lambda: grpc.infer("knob", knob_inputs(ERROR), headers=headers)) == (
        "INTERNAL"
    )
    assert (
        grpc_status(
            lambda: grpc.infer("knob", knob_inputs(OK), headers={"x-request-id": "grpc-good"})
        )
        == "OK"
    )
    deadline = time.monotonic() + 30
    log = ""
    while time.monotonic() < deadline and "grpc-bad" not in log:
        log = running.envoy.log.read_text()
        time.sleep(0.1)
    [entry] = [json.loads(line) for line in log.splitlines() if "grpc-bad" in line]
    assert (entry["code"], entry["grpc"]) == (200, "Internal")
    assert "as asked: an error" in entry.get("grpc_message", entry.get("grpc_error", ""))
    assert "grpc-good" not in log


def test_overload_answers_503_and_counts_it() -> None:
    with pod(MODELS, max_pending=2) as limited, contextlib.ExitStack() as stack:
        body = knob(OK, 2.0)
        request = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        waiting = []
        for _ in range(2):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", limited.ports.serving))
            )
            connection.sendall(request.encode() + body)
            waiting.append(connection)
        nothing = counts(limited, "golden_http")
        settled(limited, "client_http", nothing, lambda c: c.in_flight == 2)
        refused = [call(f"{limited.serving}{INFER}", knob(OK)) for _ in range(3)]
        assert [reply.status for reply in refused] == [503, 503, 503]
        assert {reply.headers["retry-after"] for reply in refused} == {"1"}
        assert "maxPending" in json.loads(refused[0].body)["error"]
        assert call(f"{limited.internal}{INFER}", knob(OK)).status == 200  # golden: not limited
        for connection in waiting:
            assert connection.recv(64).startswith(b"HTTP/1.1 200")
        added = settled(limited, "client_http", nothing, lambda c: c.answered == 5)
        assert added.by_status == {200: 2, 503: 3}
        assert added.overflow == 3


def test_a_dead_triton_is_503() -> None:
    with pod(MODELS) as dying:
        dying.triton.popen.kill()
        dying.triton.popen.wait()
        assert call(f"{dying.serving}{INFER}", knob(OK)).status == 503
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{dying.ports.serving}") as client:
            assert grpc_status(lambda: client.infer("knob", knob_inputs(OK))) == "UNAVAILABLE"
        over_http, over_grpc = counts(dying, "client_http"), counts(dying, "client_grpc")
        assert over_http.by_status == {503: 1}
        assert over_grpc.by_grpc_status == {14: 1}
        for seen in (over_http, over_grpc):
            assert (seen.started + seen.unconnected, seen.in_flight) == (1, 0)
