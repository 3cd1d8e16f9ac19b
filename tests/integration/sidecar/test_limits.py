"""No limit of Envoy's may show: what Triton can do, clients can have."""

import asyncio
import itertools
import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import aiohttp
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio

from e2e.native.processes import Pod, pod
from tests.integration.sidecar.conftest import MODELS
from tests.integration.sidecar.wire import call, counts, knob, knob_inputs, quiet

pytestmark = pytest.mark.integration

INFER = "/v2/models/knob/infer"
AT_ONCE = 2000
LARGE_BYTES = 200 << 20
LONG_S = 60.0


@pytest.fixture(scope="module", autouse=True)
def minute() -> Iterator["Future[tuple[int, float, float]]"]:
    """An inference of a minute over both protocols, while the other tests run.

    In a pod of its own: status over HTTP, what gRPC says it slept, seconds that both took.
    """

    def over_http(patient: Pod) -> int:
        return call(f"{patient.serving}{INFER}", knob(seconds=LONG_S), timeout_s=120).status

    def over_grpc(patient: Pod) -> float:
        with tritonclient.grpc.InferenceServerClient(
            f"127.0.0.1:{patient.ports.serving}"
        ) as client:
            reply = client.infer("knob", knob_inputs(seconds=LONG_S))
            return float(reply.as_numpy("slept").item())

    def both() -> tuple[int, float, float]:
        with pod(MODELS) as patient, ThreadPoolExecutor() as two:
            start = time.monotonic()
            http, grpc = two.submit(over_http, patient), two.submit(over_grpc, patient)
            return http.result(), grpc.result(), time.monotonic() - start

    with ThreadPoolExecutor() as pool:
        yield pool.submit(both)


@pytest.fixture
def many_files() -> None:
    """Allows this process a connection for each request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = AT_ONCE + 500
    if soft < wanted:
        assert hard == resource.RLIM_INFINITY or hard >= wanted, "raise the limit of open files"
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.mark.usefixtures("many_files")
async def test_two_thousand_http_requests_at_once(running: Pod) -> None:
    """More than Envoy's default of 1,024 requests, connections and waiting requests."""
    before = quiet(running, "client_http")
    headers = {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def ask() -> int:
            async with session.post(f"{running.serving}{INFER}", data=knob(seconds=0.5)) as reply:
                await reply.read()
                return reply.status

        waiting = [asyncio.create_task(ask()) for _ in range(AT_ONCE)]
        most = 0
        while not all(task.done() for task in waiting):
            now = await asyncio.to_thread(counts, running, "client_http")
            most = max(most, now.in_flight)
            await asyncio.sleep(0.2)
        assert Counter(task.result() for task in waiting) == {200: AT_ONCE}
    added = quiet(running, "client_http").since(before)
    assert added.by_status == {200: AT_ONCE}
    assert added.overflow == added.unconnected == 0
    assert most > 1024


async def test_two_thousand_streams_on_one_grpc_connection(running: Pod) -> None:
    before = quiet(running, "client_grpc")
    async with tritonclient.grpc.aio.InferenceServerClient(
        f"127.0.0.1:{running.ports.serving}"
    ) as client:
        answers = await asyncio.gather(
            *(client.infer("knob", knob_inputs(seconds=0.5)) for _ in range(AT_ONCE))
        )
    assert len(answers) == AT_ONCE
    added = quiet(running, "client_grpc").since(before)
    assert added.by_grpc_status == {0: AT_ONCE}


def test_a_tensor_of_200_mb(running: Pod) -> None:
    """Over both protocols; it streams through, so Envoy does not grow by it."""
    data = np.random.default_rng(0).integers(0, 256, LARGE_BYTES, dtype=np.uint8)
    total = int(data.sum(dtype=np.int64))
    tensor = {"name": "data", "datatype": "UINT8", "shape": [LARGE_BYTES]}
    header = json.dumps(
        {"inputs": [tensor | {"parameters": {"binary_data_size": LARGE_BYTES}}]}
    ).encode()
    before = running.envoy.rss_bytes()
    reply = call(
        f"{running.serving}/v2/models/echo/infer",
        header + data.tobytes(),
        headers={
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(header)),
        },
    )
    assert reply.status == 200, reply.body
    assert json.loads(reply.body)["outputs"][0]["data"] == [total]
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.ports.serving}") as client:
        over_grpc = tritonclient.grpc.InferInput("data", [LARGE_BYTES], "UINT8")
        over_grpc.set_data_from_numpy(data)
        assert client.infer("echo", [over_grpc]).as_numpy("sum").item() == total
    assert running.envoy.rss_bytes() - before < LARGE_BYTES / 4


def test_connections_age_without_a_lost_request() -> None:
    """Clients that never pause are moved on; they see nothing of it."""
    with pod(MODELS, connection_age_s=2) as aging:
        address = f"127.0.0.1:{aging.ports.serving}"
        until = time.monotonic() + 12

        async def http() -> Counter[int]:
            statuses: Counter[int] = Counter()
            async with aiohttp.ClientSession() as session:
                while time.monotonic() < until:
                    async with session.post(f"http://{address}{INFER}", data=knob()) as reply:
                        await reply.read()
                        statuses[reply.status] += 1
            return statuses

        def grpc() -> int:
            with tritonclient.grpc.InferenceServerClient(address) as client:
                for done in itertools.count():
                    if time.monotonic() >= until:
                        return done
                    client.infer("knob", knob_inputs())
            raise AssertionError

        with ThreadPoolExecutor() as pool:
            over_grpc = pool.submit(grpc)
            over_http = asyncio.run(http())
            assert over_grpc.result() > 10
        assert set(over_http) == {200}
        with_age = call(f"{aging.internal}/stats/prometheus?filter=cx_total").body.decode()
        [line] = [x for x in with_age.splitlines() if x.startswith("envoy_http_downstream_cx_tot")]
        assert int(line.split()[-1]) >= 6  # two clients, a new connection every 2.4 s at most


def test_an_inference_may_take_a_minute(minute: "Future[tuple[int, float, float]]") -> None:
    """Longer than Envoy's default route timeout (15 s). Last: it ran beside the others."""
    status, slept_s, took_s = minute.result()
    assert (status, slept_s) == (200, LONG_S)
    assert took_s >= LONG_S
