"""More requests than a pod can serve: who is refused, who waits, and in which order."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc

from e2e.bench.overload import TARGET_MS, TIMES, Way, limit, run
from e2e.models.sleeper.build import MODEL, Times, build
from e2e.native.processes import Pod, pod
from tests.integration.sidecar.wire import Reply, call, counts, grpc_status, quiet
from tidegate.api.spec import Model
from tidegate.resources.model_config import merge, parse_pbtxt, to_pbtxt
from tidegate.resources.triton_config import tuning_pbtxt

pytestmark = pytest.mark.integration

ONE_BY_ONE = Times(alpha_ms=400, beta_ms=0, batch=1)
INFER = f"/v2/models/{MODEL}/infer"


def body(**parameters: Any) -> bytes:
    tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


def tuned(folder: Path, **batching: Any) -> Path:
    """A repository of the model with the typed fields over its own configuration."""
    repository = build(folder / "models", ONE_BY_ONE)
    model = Model.model_validate(
        {"source": {"uri": "s3://b/m"}, "config": {"dynamicBatching": batching}}
    )
    path = repository / MODEL / "config.pbtxt"
    config = parse_pbtxt(path.read_text(), where="model")
    merge(config, parse_pbtxt(tuning_pbtxt(model, gpu_count=0), where="tuning"))
    path.write_text(to_pbtxt(config))
    return repository


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def in_flight(running: Pod, count: int) -> None:
    deadline = time.monotonic() + 20
    while counts(running, "client_http").in_flight != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.alone  # how much is twice, a neighbour decides, too
def test_at_twice_the_capacity_half_is_refused_at_once_and_the_rest_is_served() -> None:
    most = limit(TIMES, TARGET_MS)
    seen, answers = run(Way("limit", sidecar={"max_pending": most}), 2 * TIMES.per_s, 10)
    statuses = Counter(seen.by_status)
    assert set(statuses) == {"200", "503"}
    assert 0.35 < statuses["503"] / statuses.total() < 0.75
    assert answers > TIMES.per_s / 2


def test_a_full_pod_refuses_all_but_the_urgent(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    with pod(build(tmp_path / "m", ONE_BY_ONE), max_pending=1, reserved=1) as running:
        url = f"{running.serving}{INFER}"
        waiting = pool.submit(call, url, body())
        in_flight(running, 1)
        urgent = pool.submit(call, url, body(), headers={"x-tidegate-priority": "high"})
        in_flight(running, 2)
        plain = call(url, body())
        no_room = call(url, body(), headers={"x-tidegate-priority": "high"})
        for refused in (plain, no_room):
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert "maxPending" in json.loads(refused.body)["error"]
        assert (waiting.result().status, urgent.result().status) == (200, 200)
        assert quiet(running, "client_http").overflow == 2


def test_grpc_clients_are_told_in_their_own_words(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    with (
        pod(build(tmp_path / "m", ONE_BY_ONE), max_pending=1) as running,
        tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.ports.serving}") as client,
    ):
        content = tritonclient.grpc.InferInput("content", [1, 1], "BYTES")
        content.set_data_from_numpy(np.array([[b"x"]], dtype=object))
        asked = [pool.submit(grpc_status, lambda: client.infer(MODEL, [content])) for _ in range(4)]
        said = Counter(each.result() for each in asked)
    assert set(said) == {"OK", "RESOURCE_EXHAUSTED"}


def test_tritons_own_queue_refuses_what_waits_too_long(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    with pod(tuned(tmp_path, queueTimeout="100ms")) as running:
        url = f"{running.serving}{INFER}"
        replies = [f.result() for f in [pool.submit(call, url, body()) for _ in range(6)]]
    said = Counter(reply.status for reply in replies)
    assert set(said) == {200, 503}
    for reply in replies:
        if reply.status == 503:
            assert reply.headers["retry-after"] == "1"
            assert "expired" in json.loads(reply.body)["error"]


def test_tritons_own_queue_is_bounded(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    with pod(tuned(tmp_path, maxQueueSize=1)) as running:
        url = f"{running.serving}{INFER}"
        replies = [f.result() for f in [pool.submit(call, url, body()) for _ in range(8)]]
    refused = [reply for reply in replies if reply.status != 200]
    assert 0 < len(refused) < 8
    for reply in refused:
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "maximum queue size" in json.loads(reply.body)["error"].lower()


def test_urgent_requests_overtake_in_tritons_queue(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """Who says nothing is of the last priority."""
    order: list[str] = []

    def ask(name: str, **parameters: Any) -> Reply:
        reply = call(url, body(**parameters))
        order.append(name)
        return reply

    with pod(tuned(tmp_path, priorities=[{}, {"maxQueueSize": 50}])) as running:
        url = f"{running.serving}{INFER}"
        asked: list[Future[Reply]] = []
        for number in range(5):
            asked.append(pool.submit(ask, f"usual {number}"))
            in_flight(running, number + 1 - len(order))
        asked.append(pool.submit(ask, "urgent", priority=1))
        assert {each.result().status for each in asked} == {200}
    assert order.index("urgent") < order.index("usual 4")
    assert order.index("urgent") < 5
