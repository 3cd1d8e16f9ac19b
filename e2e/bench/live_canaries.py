"""How many live canaries one process can follow: reading, parsing and judging included.

``python -m e2e.bench.live_canaries`` runs the operator's own `Measurer` over many rollouts of two
canary and two stable pods each. The pods are played by another process, each at a loopback address
of its own: whatever it is asked, a pod answers with the page that a real sidecar gives (filtered as
the operator asks), with counters that move. Judging, reading and parsing run on one thread, as they
do in the operator; what is counted is the processor time of its process.

Rows give, for each round, the interval between two looks at one rollout, and the processor time of
one look: four pages read, parsed, turned into a block, and all tests judged. The interval says what
this machine gave, with the played pods beside; the processor time what one core could do.
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import ClassVar, Final

import structlog

from e2e.bench.played_pods import PlayedPod, chunked, cluster_lines, many_files, page_of
from e2e.bench.report import Report, Usage, parser, quantile
from tidegate.actions import Measure
from tidegate.analysis.judgement import Objective
from tidegate.api.names import REVISION_LABEL
from tidegate.observed import Object
from tidegate.runtime.cache import Key
from tidegate.runtime.measuring import Measurer, Sidecars
from tidegate.runtime.pods import PodAt
from tidegate.runtime.queue import KeyedQueue
from tidegate.sidecar_page import Reading

INTERVAL_S: Final = 1.0
TARGET_MS: Final = 120
PODS: Final = 2
"""Of each revision."""
RPS: Final = {"stable": 24, "canary": 1}
"""Client requests a second in one pod; a canary's are mirrored ones as often again."""
AIM: Final = "1"
SETTLED_LOOKS: Final = 3
"""At each rollout before anything counts: all connections are open, caches are filled."""


def page(revision: str, seconds: int) -> bytes:
    """What a sidecar's page says after so many seconds, as the operator asks for it."""
    clusters = {"client_http": 0.8, "client_grpc": 0.2}
    if revision == "canary":
        clusters = {"client_http": 1.0, "mirrored_http": 1.0}
    lines = []
    for name, share in clusters.items():
        count = int(RPS[revision] * share * seconds)
        # Nearly all by the target.
        lines += cluster_lines(
            name, count, count // 400, target_ms=TARGET_MS, by_target=0.14, open_requests=0
        )
    return page_of(lines, seconds)


class _PlayedPod(PlayedPod):
    """Whatever it is asked, it answers with the page of now."""

    pages: ClassVar[dict[tuple[str, int], bytes]] = {}

    def __init__(self, revision: str, began: float) -> None:
        super().__init__()
        self._revision = revision
        self._began = began

    def answer(self, path: bytes) -> bytes:
        """See `PlayedPod`."""
        at = (self._revision, int(time.monotonic() - self._began))
        answer = self.pages.get(at)
        if answer is None:
            head = (
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=UTF-8\r\n"
                "cache-control: no-cache, max-age=0\r\nx-content-type-options: nosniff\r\n"
                "server: envoy\r\nx-request-id: 5f4035d0-3053-45d8-8477-c59222c9ed9c\r\n"
                "transfer-encoding: chunked\r\n\r\n"
            )
            answer = self.pages[at] = head.encode() + chunked(page(*at))
        return answer


def play_pods(ports: "multiprocessing.Queue[dict[str, int]]") -> None:
    """Be all pods, until ended: those of one revision on one port of every loopback address."""
    many_files()

    async def serve() -> None:
        loop, began, found = asyncio.get_running_loop(), time.monotonic(), {}
        for revision in RPS:

            def protocol(revision: str = revision) -> _PlayedPod:
                return _PlayedPod(revision, began)

            server = await loop.create_server(protocol, "0.0.0.0", 0, backlog=4096)
            found[revision] = server.sockets[0].getsockname()[1]
        ports.put(found)
        await asyncio.Event().wait()

    asyncio.run(serve())


class _Played(Sidecars):
    """Reads played pods: by the port of their revision."""

    def __init__(self, ports: dict[str, int]) -> None:
        super().__init__()
        self._ports = ports

    async def read(self, pod: PodAt, at_s: Callable[[], float]) -> Reading:
        """See `Sidecars.read`."""
        host = pod.address.rpartition(":")[0]
        address = f"{host}:{self._ports[pod.revision]}"
        return await super().read(pod._replace(address=address), at_s)


class _Counting(Measurer):
    """Counts the looks at each rollout."""

    looks: ClassVar[Counter[Key]] = Counter()
    unsettled: ClassVar[set[Key]] = set()
    settled: ClassVar[asyncio.Event] = asyncio.Event()

    async def look(self, key: Key) -> None:
        """See `Measurer.look`."""
        await super().look(key)
        self.looks[key] += 1
        if self.looks[key] == SETTLED_LOOKS:
            self.unsettled.discard(key)
            if not self.unsettled:
                self.settled.set()


def rollout(number: int) -> tuple[Key, Measure, list[Object]]:
    """One rollout with its pods, at addresses of their own."""
    objective = Objective(0.01, TARGET_MS, 0.02, 0.05, 0.95)
    started = "2026-01-01T00:00:00Z"
    measure = Measure("stable", "canary", started, started, objective, INTERVAL_S)
    pods: list[Object] = []
    for revision in RPS:
        for index in range(PODS):
            place = 1 + number * PODS + index
            pods.append(
                {
                    "metadata": {
                        "uid": f"{number}-{revision}-{index}",
                        "name": f"model-{number}-{revision}-{index}",
                        "labels": {REVISION_LABEL: revision},
                    },
                    "status": {"podIP": f"127.1.{place // 250}.{place % 250 + 1}"},
                }
            )
    return Key("models", f"model-{number}"), measure, pods


async def measure(report: Report, ports: dict[str, int], given: argparse.Namespace) -> None:
    """Follow the rollouts, and add what was seen to the report."""
    queue: KeyedQueue[Key] = KeyedQueue()
    measurer = _Counting(queue, _Played(ports))
    rollouts = [rollout(number) for number in range(given.canaries)]
    keys = [key for key, _, _ in rollouts]
    measurer.unsettled.update(keys)
    for key, wanted, pods in rollouts:
        measurer.want(key, wanted, pods)
        await asyncio.sleep(INTERVAL_S / given.canaries)
    await measurer.settled.wait()
    intervals, slowest, cpu_ms, cores = [], [], [], []
    unread = 0
    for number in range(given.rounds):
        before, usage, began = Counter(measurer.looks), Usage.of(os.getpid()), time.monotonic()
        await asyncio.sleep(given.seconds)
        seconds = time.monotonic() - began
        looks = [measurer.looks[key] - before[key] for key in keys]
        used_s = Usage.of(os.getpid()).cpu_seconds - usage.cpu_seconds
        intervals.append(seconds / quantile(looks, 0.5))
        slowest.append(seconds / max(1, min(looks)))
        cpu_ms.append(1000.0 * used_s / max(1, sum(looks)))
        cores.append(100.0 * used_s / seconds)
        found = [measurer.measured(key) for key in keys]
        unread += sum(bool(m is None or m.unread) for m in found)
        print(f"round {number + 1}: {sum(looks)} looks in {seconds:.1f} s", file=sys.stderr)
    report.add("interval between looks at one rollout", "s", intervals, aim=AIM)
    report.add("the same, of the rollout with fewest looks", "s", slowest)
    report.add("processor time of one look", "ms", cpu_ms)
    everyone = [ms * given.canaries / 1000.0 for ms in cpu_ms]
    report.add("the same for a look at all: what one core allows", "s", everyone, aim=AIM)
    report.add("use of one core", "%", cores)
    report.facts["rollouts_with_unread_pods_at_the_end_of_rounds"] = unread
    report.facts["requests_judged"] = sum(m.judgement.requests for m in found if m is not None)
    await measurer.stop()


def main() -> int:
    """Measure. Returns the exit status."""
    made = parser(__doc__)
    made.add_argument("--canaries", type=int, default=1000, help="rollouts (default: %(default)s)")
    made.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    made.add_argument(
        "--seconds", type=float, default=10.0, help="of one round (default: %(default)s)"
    )
    given = made.parse_args()
    report = Report(
        "live_canaries",
        f"{given.canaries} live canaries in one process, {PODS} + {PODS} pods each, "
        f"looked at every {INTERVAL_S:g} s if there is time",
    )
    report.await_quiet(given.patience)
    many_files()
    # On a busy machine pods seem silent for a while; the facts tell of it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    context = multiprocessing.get_context("spawn")
    ports: multiprocessing.Queue[dict[str, int]] = context.Queue()
    player = context.Process(target=play_pods, args=(ports,), daemon=True)
    player.start()
    try:
        found = ports.get(timeout=60)
        before = Usage.of(player.pid or 0)
        asyncio.run(measure(report, found, given))
        used = Usage.of(player.pid or 0)
        report.facts |= {
            "canaries": given.canaries,
            "pods_a_rollout": PODS * len(RPS),
            "page_bytes": {revision: len(page(revision, 60)) for revision in RPS},
            "core_percent_of_the_played_pods": round(used.cpu_percent_since(before), 1),
        }
    finally:
        player.terminate()
        player.join()
    report.notes.append("the pods are played by another process, on another core")
    report.finish(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
