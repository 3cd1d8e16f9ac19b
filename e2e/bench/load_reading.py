"""What it costs to know the load of many ModelDeployments whose replicas follow it.

``python -m e2e.bench.load_reading`` runs the operator's own `LoadReader` over many ModelDeployments
of some pods each. The pods are played by another process, each at a loopback address of its own:
whatever it is asked, a pod answers with the pages that a real sidecar and a real Triton give. No
two deployments are alike: each has its own service time, which drifts by a fifth up and down, its
own batches and its own load, which drifts, too.

Rows give the processor time of the reader's process: of one look (all pods of one deployment read,
parsed, and what they come to worked out) and of a look at all. Once with the law, capacity model
included, and once with reading and parsing alone; the first minute, in which little is known yet,
and the second, in which the capacity model is new to everybody, are told apart from what follows.
"""

import argparse
import asyncio
import functools
import json
import logging
import math
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import structlog

from e2e.bench.played_pods import PlayedPod, chunked, cluster_lines, many_files, page_of
from e2e.bench.report import Report, Usage, parser
from tidegate.actions import Load
from tidegate.api.names import REVISION_LABEL
from tidegate.api.spec import Spec, parse
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import Law, ServerModel
from tidegate.observed import Object
from tidegate.resources.pod import ENVOY
from tidegate.runtime.cache import Key
from tidegate.runtime.load import INTERVAL_S, LoadReader
from tidegate.runtime.load_source import LoadPages, LoadPod
from tidegate.runtime.queue import KeyedQueue

AIM: Final = "1"
TARGET_MS: Final = 250
LARGEST: Final = 8
DRIFT: Final = 0.2
PERIOD_S: Final = 600.0
PAGE_EVERY_S: Final = 2.5
"""Played counters move so often: the playing process has work enough."""
PER_ADDRESS: Final = 250
LEARNING_S: Final = 70.0
"""The law says something from 15 s on; its windows are full after a minute."""


@dataclass(frozen=True)
class Character:
    """How the pods of one deployment serve.

    Attributes:
        alpha_ms, beta_ms: their service time, before drift.
        rate_hz: requests a second of one pod.
        phase: of its drift, 0 to 1.
    """

    alpha_ms: float
    beta_ms: float
    rate_hz: float
    phase: float

    @classmethod
    def of(cls, number: int) -> "Character":
        """Of the deployment with that number."""
        draw = random.Random(number)
        alpha_ms, beta_ms = draw.uniform(2.0, 40.0), draw.uniform(0.5, 8.0)
        most_hz = 1000 * LARGEST / (alpha_ms + LARGEST * beta_ms)
        return cls(alpha_ms, beta_ms, draw.uniform(0.2, 0.8) * most_hz, draw.random())

    def so_far(self, seconds: float, level: float, phase: float) -> float:
        """A quantity around `level` that drifts, added up since the start."""
        turn = 2 * math.pi / PERIOD_S
        moved = math.cos(2 * math.pi * phase) - math.cos(turn * seconds + 2 * math.pi * phase)
        return level * (seconds + DRIFT * moved / turn)


def page(character: Character, seconds: float) -> bytes:
    """The sidecar's page, as the operator asks for it."""
    lines = []
    for name, share in (("client_http", 0.8), ("client_grpc", 0.2)):
        rate_hz = character.rate_hz * share
        count = int(character.so_far(seconds, rate_hz, character.phase + 0.25))
        lines += cluster_lines(
            name, count, count // 500, target_ms=TARGET_MS, by_target=0.07, open_requests=1
        )
    return page_of(lines, int(seconds))


def stats(character: Character, seconds: float) -> bytes:
    """Triton's statistics: batches of every size, the larger ones the oftener."""
    sizes = range(1, LARGEST + 1)
    batches_hz = character.rate_hz / (sum(n * n for n in sizes) / sum(sizes))
    parts: list[dict[str, Any]] = []
    requests = executions = 0
    for n in sizes:
        level = batches_hz * n / sum(sizes)
        count = int(character.so_far(seconds, level, character.phase + 0.25))
        mean_ms = character.alpha_ms + character.beta_ms * n
        # As if each second had its share of the batches: near enough.
        busy_ms = character.so_far(seconds, mean_ms, character.phase) / max(seconds, 1e-9) * count
        requests += n * count
        executions += count
        parts.append(
            {
                "batch_size": n,
                "compute_input": {"count": count, "ns": int(busy_ms * 2e4)},
                "compute_infer": {"count": count, "ns": int(busy_ms * 97e4)},
                "compute_output": {"count": count, "ns": int(busy_ms * 1e4)},
            }
        )
    some = {"count": requests, "ns": requests * 50_000_000}
    return json.dumps(
        {
            "model_stats": [
                {
                    "name": "net",
                    "version": "1",
                    "inference_count": requests,
                    "execution_count": executions,
                    "inference_stats": {"success": some, "fail": {"count": 0, "ns": 0}},
                    "batch_stats": parts,
                }
            ]
        }
    ).encode()


def config(queue_delay_us: int) -> bytes:
    """Triton's configuration of the model."""
    batching: dict[str, Any] = {}
    if queue_delay_us:
        batching = {
            "preferred_batch_size": [4, LARGEST],
            "max_queue_delay_microseconds": queue_delay_us,
        }
    return json.dumps(
        {
            "name": "net",
            "max_batch_size": LARGEST,
            "dynamic_batching": batching,
            "instance_group": [{"count": 1, "kind": "KIND_GPU", "gpus": [0]}],
        }
    ).encode()


def place_of(number: int) -> str:
    """The address of the pod with that number."""
    rest, low = divmod(number, PER_ADDRESS)
    high, middle = divmod(rest, PER_ADDRESS)
    return f"127.{2 + high}.{middle}.{low + 1}"


def number_of(address: str) -> int:
    """The inverse of `place_of`."""
    _, high, middle, low = map(int, address.split("."))
    return ((high - 2) * PER_ADDRESS + middle) * PER_ADDRESS + low - 1


class _PlayedPod(PlayedPod):
    """The sidecar's page and Triton's, of the deployment that its address is of."""

    answers: ClassVar[dict[tuple[int, bytes], tuple[int, bytes]]] = {}

    def __init__(self, pods: int, config: bytes, began: float) -> None:
        super().__init__()
        self._pods = pods
        self._config = config
        self._began = began

    def opened(self, address: str) -> None:
        """See `PlayedPod`."""
        self._deployment = number_of(address) // self._pods

    def answer(self, path: bytes) -> bytes:
        """See `PlayedPod`."""
        now = int((time.monotonic() - self._began) / PAGE_EVERY_S)
        kept = self.answers.get((self._deployment, path))
        if kept is not None and kept[0] == now:
            return kept[1]
        character, seconds = Character.of(self._deployment), 3600.0 + now * PAGE_EVERY_S
        head = "HTTP/1.1 200 OK\r\nserver: envoy\r\n"
        if path.startswith(b"/stats"):
            body = chunked(page(character, seconds))
            kind = "text/plain; charset=UTF-8\r\ntransfer-encoding: chunked"
        else:
            body = self._config if path.endswith(b"/config") else stats(character, seconds)
            kind = f"application/json\r\ncontent-length: {len(body)}"
        answer = f"{head}content-type: {kind}\r\n\r\n".encode() + body
        self.answers[self._deployment, path] = now, answer
        return answer


def play_pods(pods: int, queue_delay_us: int, ports: "multiprocessing.Queue[int]") -> None:
    """Be all pods, until ended: one port of every loopback address."""
    many_files()

    async def serve() -> None:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        server = await loop.create_server(
            lambda: _PlayedPod(pods, config(queue_delay_us), began), "0.0.0.0", 0, backlog=4096
        )
        ports.put(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(serve())


class _Played(LoadPages):
    """Reads played pods; counts the looks at them."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.looks: Counter[str] = Counter()

    async def look(self, pod: LoadPod, model: str, at_s: Callable[[], float]) -> Look:
        """See `LoadPages.look`."""
        self.looks[pod.at.revision] += 1
        return await super().look(self._here(pod), model, at_s)

    async def config(self, pod: LoadPod, model: str) -> Mapping[str, Any]:
        """See `LoadPages.config`."""
        return await super().config(self._here(pod), model)

    def _here(self, pod: LoadPod) -> LoadPod:
        return pod._replace(at=pod.at._replace(address=f"{pod.host}:{self._port}"))


class _Idle:
    """Learns nothing: what is left is reading."""

    def __init__(self, model: ServerModel, _: Law) -> None:
        self.model = model

    def observe(self, at_s: float, looks: Iterable[Look], *, ready: Sequence[str]) -> Demand | None:
        """See `tidegate.autoscaling.observer.Observer.observe`."""
        return None


@functools.cache
def spec() -> Spec:
    """Of every deployment."""
    latency = {"quantile": "0.99", "target": f"{TARGET_MS}ms"}
    return parse({"model": {"source": {"uri": "s3://models/net/1"}}, "slo": {"latency": latency}})


def deployment(number: int, pods: int) -> tuple[Key, Load, list[Object]]:
    """One ModelDeployment with its pods, at addresses of their own."""
    revision = f"r{number}"
    found: list[Object] = [
        {
            "metadata": {
                "uid": f"{number}-{index}",
                "name": f"net-{number}-{index}",
                "labels": {REVISION_LABEL: revision},
            },
            "spec": {"initContainers": [{"name": ENVOY}]},
            "status": {
                "phase": "Running",
                "podIP": place_of(number * pods + index),
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        for index in range(pods)
    ]
    return Key("models", f"net-{number}"), Load(spec(), "net", {revision: spec()}), found


async def measure(
    report: Report, port: int, given: argparse.Namespace, *, law: bool
) -> list[float]:
    """Read for a while, and add what was seen to the report.

    Returns:
        Processor time of one look in ms, by round.
    """
    queue: KeyedQueue[Key] = KeyedQueue()
    source = _Played(port)
    reader = LoadReader(queue, source, watchers=None if law else _Idle)
    all_of_them = [deployment(number, given.pods) for number in range(given.deployments)]
    for key, load, pods in all_of_them:
        reader.want(key, load, pods)
    what = "with the law" if law else "reading alone"
    stretches = (
        [("its first minute", LEARNING_S), ("its second minute", 60.0)]
        if law
        else [("opening connections", 2 * INTERVAL_S)]
    )
    stretches += [("", given.seconds)] * given.rounds
    cpu_ms, intervals_s = [], []
    for name, seconds in stretches:
        before, usage, began = source.looks.total(), Usage.of(os.getpid()), time.monotonic()
        await asyncio.sleep(seconds)
        passed = time.monotonic() - began
        looks = (source.looks.total() - before) / given.pods
        used_s = Usage.of(os.getpid()).cpu_seconds - usage.cpu_seconds
        print(f"{what}, {name or 'a round'}: {looks:.0f} looks, {used_s:.1f} s", file=sys.stderr)
        if name:
            fact = f"ms of one look {what}, {name}".replace(",", "").replace(" ", "_")
            report.facts[fact] = round(1000.0 * used_s / max(1.0, looks), 3)
            continue
        cpu_ms.append(1000.0 * used_s / max(1.0, looks))
        intervals_s.append(passed * given.deployments / max(1.0, looks))
    report.add(f"processor time of one look, {what}", "ms", cpu_ms)
    everyone = [ms * given.deployments / 1000.0 for ms in cpu_ms]
    report.add(f"the same for a look at all, {what}", "s", everyone)
    report.add(f"interval between looks at one ModelDeployment, {what}", "s", intervals_s)
    if law:
        found = [reader.demands(key) for key, _, _ in all_of_them]
        known = [d for by_revision in found for d in by_revision.values()]
        report.facts["with_required_replicas"] = sum(d.required_replicas is not None for d in known)
        report.facts["with_an_exact_capacity"] = sum(d.exact for d in known)
        report.facts["woken_keys_waiting"] = queue.schedule.waiting
    await reader.stop()
    return cpu_ms


def main() -> int:
    """Measure. Returns the exit status."""
    made = parser(__doc__)
    made.add_argument("--deployments", type=int, default=1000, help="default: %(default)s")
    made.add_argument("--pods", type=int, default=3, help="of each (default: %(default)s)")
    made.add_argument(
        "--queue-delay-us",
        type=int,
        default=0,
        help="how long the batcher waits for a fuller batch (default: %(default)s)",
    )
    made.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    made.add_argument(
        "--seconds", type=float, default=20.0, help="of one round (default: %(default)s)"
    )
    given = made.parse_args()
    report = Report(
        "load_reading",
        f"{given.deployments} ModelDeployments of {given.pods} pods whose load is read every "
        f"{INTERVAL_S:g} s by one process",
    )
    report.await_quiet(given.patience)
    many_files()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    context = multiprocessing.get_context("spawn")
    ports: multiprocessing.Queue[int] = context.Queue()
    player = context.Process(
        target=play_pods, args=(given.pods, given.queue_delay_us, ports), daemon=True
    )
    player.start()
    try:
        port = ports.get(timeout=60)
        reading = asyncio.run(measure(report, port, given, law=False))
        both = asyncio.run(measure(report, port, given, law=True))
        spent = [ms - statistics.median(reading) for ms in both]
        everyone = [ms * given.deployments / 1000.0 for ms in spent]
        report.add("the difference for a look at all: the law alone", "s", everyone, aim=AIM)
        report.facts |= {
            "deployments": given.deployments,
            "pods": given.pods,
            "queue_delay_us": given.queue_delay_us,
            "page_bytes": len(page(Character.of(0), 3600.0)),
            "stats_bytes": len(stats(Character.of(0), 3600.0)),
        }
    finally:
        player.terminate()
        player.join()
    report.notes.append("the pods are played by another process, on another core")
    report.finish(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
