"""A pod goes while clients work: none of them loses a request.

Two pods stand behind a stand-in for a ClusterIP: it chooses a pod for each new connection and
leaves open connections alone, as kube-proxy does, and it learns of a pod's end late. What the
kubelet does is done here by hand: preStop, SIGTERM for Triton, then SIGTERM for Envoy.
"""

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from e2e.native.processes import Pod, pod
from tests.integration.sidecar.conftest import MODELS
from tests.integration.sidecar.wire import call, knob, knob_inputs
from tidegate.resources.drain import drain_limit_s, post_start_command, pre_stop_command

pytestmark = pytest.mark.integration

SPREAD_S = 10
"""The platform's default."""
LATE_S = 4.0
"""So late the stand-in learns that the pod is going."""
SLOW_S = 8.0
PAUSE_S = 3.0


@dataclass
class ClusterIP:
    """Spreads connections, not requests."""

    pods: list[Pod]
    port: int = 0
    turns: Iterator[int] = field(default_factory=itertools.count)

    open: set[asyncio.StreamWriter] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Listens; closes all it opened at the end."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for writer in list(self.open):
                await self.close(writer)
            await server.wait_closed()

    async def close(self, writer: asyncio.StreamWriter) -> None:
        self.open.discard(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen = self.pods[next(self.turns) % len(self.pods)]
        self.open.add(writer)
        try:
            from_pod, to_pod = await asyncio.open_connection("127.0.0.1", chosen.ports.serving)
        except OSError:
            await self.close(writer)
            return
        self.open.add(to_pod)
        ways = [
            asyncio.create_task(self.copy(reader, to_pod)),
            asyncio.create_task(self.copy(from_pod, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        await self.close(to_pod)
        await self.close(writer)
        await asyncio.gather(*ways)

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()


@dataclass
class Clients:
    """Clients of several habits, each counting what it got."""

    address: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    got: dict[str, Counter[str]] = field(default_factory=dict)

    async def http(self, name: str, model: str, seconds: float, pause_s: float) -> None:
        body = knob(seconds=seconds)
        headers = {"Content-Type": "application/json"}
        async with httpx.AsyncClient(timeout=120, headers=headers) as client:

            async def ask() -> str:
                url = f"http://{self.address}/v2/models/{model}/infer"
                try:
                    return str((await client.post(url, content=body)).status_code)
                except httpx.HTTPError as error:
                    return repr(error)

            await self.work(name, ask, pause_s)

    async def grpc(self, name: str, model: str, seconds: float, pause_s: float) -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(self.address) as client:

            async def ask() -> str:
                try:
                    await client.infer(model, knob_inputs(seconds=seconds))
                except InferenceServerException as error:
                    return str(error)
                return "OK"

            await self.work(name, ask, pause_s)

    async def work(self, name: str, ask: Callable[[], Awaitable[str]], pause_s: float) -> None:
        got = self.got[name] = Counter()
        while not self.stop.is_set():
            got[await ask()] += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), pause_s)


HABITS = [
    # Name, model, seconds of an inference, pause between two.
    ("busy", "knob", 0.0, 0.02),
    ("slow", "nap", SLOW_S, 0.1),
    ("rare", "knob", 0.0, PAUSE_S),
]
OF_EACH = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The knob twice: a batch waits for its slowest, so slow requests get a model of their own."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("knob", "nap"):
        shutil.copytree(MODELS / "knob", folder / name)
    return folder


async def test_no_request_is_lost_when_a_pod_is_drained(models: Path) -> None:
    with pod(models) as leaving, pod(models) as staying:
        service = ClusterIP([leaving, staying])
        async with service.serve():
            clients = Clients(f"127.0.0.1:{service.port}")
            tasks = [
                asyncio.create_task(ask(f"{protocol} {name} {number}", model, seconds, pause_s))
                for protocol, ask in (("http", clients.http), ("grpc", clients.grpc))
                for name, model, seconds, pause_s in HABITS
                for number in range(OF_EACH)
            ]
            await asyncio.sleep(3)
            drained_s = await drain(service, leaving)
            await asyncio.sleep(2 * PAUSE_S)
            clients.stop.set()
            await asyncio.gather(*tasks)
    for name, got in clients.got.items():
        assert set(got) == {"200" if name.startswith("http") else "OK"}, (name, got)
    assert sum(got.total() for got in clients.got.values()) > 500
    assert SPREAD_S <= drained_s < drain_limit_s(SPREAD_S)


async def drain(service: ClusterIP, leaving: Pod) -> float:
    """What happens to a deleted pod, in its order; seconds of the preStop command."""
    start = time.monotonic()
    command = pre_stop_command(
        spread_s=SPREAD_S,
        admin_port=leaving.ports.admin,
        drain_folder=str(leaving.folder),
    )
    pre_stop = await asyncio.create_subprocess_exec(*command)
    await asyncio.sleep(LATE_S)
    service.pods.remove(leaving)
    assert await pre_stop.wait() == 0
    took_s = time.monotonic() - start
    for process in (leaving.triton, leaving.envoy):
        await asyncio.to_thread(process.stop)
    return took_s


async def test_idle_connections_are_closed_before_triton_goes() -> None:
    """A client that comes back on an old connection, after a long pause, must find a new pod."""
    with pod(MODELS) as leaving:
        reader, writer = await asyncio.open_connection("127.0.0.1", leaving.ports.serving)
        writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: idle\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{leaving.ports.serving}")
        await channel.channel_ready()
        command = pre_stop_command(
            spread_s=SPREAD_S, admin_port=leaving.ports.admin, drain_folder=str(leaving.folder)
        )
        pre_stop = await asyncio.create_subprocess_exec(*command)
        assert await pre_stop.wait() == 0
        assert await asyncio.wait_for(reader.read(), 1) == b""
        assert channel.get_state() is not grpc.ChannelConnectivity.READY
        await channel.close()
        writer.close()
        await writer.wait_closed()
        stats = call(f"{leaving.admin}/stats?filter=serving.downstream_cx_active").body
        assert stats.split() == [b"http.serving.downstream_cx_active:", b"0"]


def test_a_drained_envoy_serves_again_after_a_restart_of_triton_alone() -> None:
    """The kubelet runs preStop for a failed liveness probe, too; Envoy then lives on."""
    with pod(MODELS) as restarted:
        admin, folder = restarted.ports.admin, str(restarted.folder)
        url = f"{restarted.serving}/v2/models/knob"

        def closes() -> bool:
            with httpx.Client() as client:
                return "close" in client.get(url).headers.get("connection", "")

        assert not closes()
        subprocess.run(
            pre_stop_command(spread_s=0, admin_port=admin, drain_folder=folder), check=True
        )
        assert closes()
        assert call(f"{restarted.internal}/sidecar/ready").status == 503
        assert call(f"{restarted.internal}/sidecar/live").status == 200
        subprocess.run(post_start_command(admin_port=admin, drain_folder=folder), check=True)
        assert not closes()
        assert call(f"{restarted.internal}/sidecar/ready").status == 200
