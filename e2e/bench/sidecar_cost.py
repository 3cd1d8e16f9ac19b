"""What the sidecar costs: the same requests to Triton alone and through Envoy, in one run.

``python -m e2e.bench.sidecar_cost`` starts a real Triton with Magika and Envoy with the
configuration that pods get, as plain processes: no cluster. Clients on keep-alive connections send
one file again and again, each time once past the sidecar and once through it, in an order that a
fair coin decides, so that whatever else the machine does hits both alike. Everybody shares the
machine's cores.

Rows give, for each round, a quantile of one way or of the pairwise difference: the median
difference is the cost that a usual request sees.
"""

import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import tritonclient.grpc

from e2e.bench.report import Report, parser, quantile
from e2e.models.magika.build import MODEL, build
from e2e.native.processes import Pod, pod

GENERATION: Final = "v3"
FILE: Final = Path(__file__)
"""What is sent: a source file of some kilobytes."""
WARM_UP: Final = 100
AIM: Final = "at most 1"
MIB: Final = 1 << 20

Ask = Callable[[], None]
Connect = Callable[[int], AbstractContextManager[Ask]]


@contextmanager
def http(port: int) -> Iterator[Ask]:
    """A keep-alive HTTP connection, without a library's own time."""
    content = FILE.read_bytes()
    request = (
        f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: bench\r\n"
        "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: 0\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode() + content
    connection: list[socket.socket] = []

    def connected() -> socket.socket:
        if not connection:
            made = socket.create_connection(("127.0.0.1", port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.append(made)
        return connection[0]

    def ask() -> None:
        talk = connected()
        talk.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += _received(talk)
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        if not lines[0].startswith(b"http/1.1 200"):
            raise RuntimeError(answer.decode(errors="replace"))
        [length] = [int(x.split(b":")[1]) for x in lines if x.startswith(b"content-length:")]
        while len(body) < length:
            body += _received(talk)
        if b"connection: close" in lines:  # the connection's age
            connection.pop().close()

    try:
        yield ask
    finally:
        for open_one in connection:
            open_one.close()


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise RuntimeError("the server closed the connection inside an answer")
    return data


@contextmanager
def grpc(port: int) -> Iterator[Ask]:
    """A tritonclient with a prepared request."""
    content = tritonclient.grpc.InferInput("content", [1, 1], "BYTES")
    content.set_data_from_numpy(np.array([[FILE.read_bytes()]], dtype=object))
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield lambda: client.infer(MODEL, [content])


def paired_ms(
    alone: Ask, through: Ask, requests: int, coin: random.Random
) -> list[tuple[float, float]]:
    """Milliseconds of each pair: past the sidecar, through the sidecar."""

    def timed(ask: Ask) -> float:
        start = time.perf_counter()
        ask()
        return (time.perf_counter() - start) * 1000

    pairs = []
    for _ in range(requests):
        if coin.random() < 0.5:
            first = timed(alone)
            pairs.append((first, timed(through)))
        else:
            second = timed(through)
            pairs.append((timed(alone), second))
    return pairs


def measure(
    connect: Connect,
    ports: tuple[int, int],
    clients: int,
    requests: int,
    seed: int,
) -> list[tuple[float, float]]:
    """The pairs of all clients, which work at the same time, after a warm-up."""
    together = threading.Barrier(clients)

    def client(number: int) -> list[tuple[float, float]]:
        coin = random.Random(seed * 1000 + number)
        with ExitStack() as stack:
            alone, through = (stack.enter_context(connect(port)) for port in ports)
            paired_ms(alone, through, WARM_UP // clients, coin)
            together.wait()
            return paired_ms(alone, through, requests // clients, coin)

    with ThreadPoolExecutor(clients) as pool:
        return [pair for pairs in pool.map(client, range(clients)) for pair in pairs]


def main() -> int:
    """The command line."""
    options = parser(__doc__)
    options.add_argument("--requests", type=int, default=1000, help="pairs a round")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--clients", type=int, nargs="+", default=[1, 4], help="at a time")
    given = options.parse_args()

    report = Report(
        "sidecar_cost",
        "latency of one Magika inference, straight to Triton and through the sidecar, paired",
    )
    with tempfile.TemporaryDirectory() as folder:
        repository = build(Path(folder))[GENERATION]
        with pod(repository, latency_target_ms=100) as running:
            _rounds(report, running, given.clients, given.rounds, given.requests)
            report.add("Envoy's memory", "MiB", [running.envoy.rss_bytes() / MIB])
    report.facts |= {
        "requests a round": given.requests,
        "file": FILE.name,
        "bytes": FILE.stat().st_size,
    }
    report.notes.append("client, Envoy and Triton share the cores; differences are taken by pair")
    report.finish(given.out)
    return 0


def _rounds(report: Report, running: Pod, clients: list[int], rounds: int, requests: int) -> None:
    ways: dict[str, tuple[Connect, tuple[int, int]]] = {
        "HTTP": (http, (running.ports.triton_http, running.ports.serving)),
        "gRPC": (grpc, (running.ports.triton_grpc, running.ports.serving)),
    }
    for count in clients:
        for protocol, (connect, ports) in ways.items():
            found = []
            for number in range(rounds):
                found.append(measure(connect, ports, count, requests, number))
                print(f"{protocol}, {count} clients, round {number + 1}", file=sys.stderr)
            who = f"{protocol}, {count} client{'s' if count > 1 else ''}"
            for q in (0.5, 0.99):
                p = f"p{q * 100:.0f}"
                alone = [quantile([a for a, _ in pairs], q) for pairs in found]
                through = [quantile([t for _, t in pairs], q) for pairs in found]
                report.add(f"{who}: {p} Triton alone", "ms", alone)
                report.add(f"{who}: {p} through the sidecar", "ms", through)
            cost = [quantile([t - a for a, t in pairs], 0.5) for pairs in found]
            report.add(f"{who}: median difference", "ms", cost, aim=AIM)


if __name__ == "__main__":
    sys.exit(main())
