"""Requests lost, and latency, while every pod of a served model is replaced.

``python -m e2e.bench.rolling_restart`` serves Magika with two replicas on the embedded cluster and
sends, on time and whatever comes back (`e2e.load`), ``--rps`` requests a second to the
model's Service, half of them over HTTP keep-alive and half over gRPC. After ``--before`` quiet
seconds, all pods are replaced, by one of three ways in turn:

- *rollout*: ``kubectl rollout restart`` of the revision's Deployment, which replaces its pods by
  its own strategy;
- *eviction*: one pod after the other through the API server's eviction, as a node's drain does it;
  the PodDisruptionBudget says when the next may go. A pod goes before its replacement is there.
- *revision*: a changed spec: the new revision's pods come up beside the old ones, then the Service
  moves to them, then the old ones go.

By default the pods ask for no GPU, so that it fits beside others on four; a restart does not depend
on it. ``--gpus 1`` asks for one each.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from e2e.bench.report import Report, parser
from e2e.bench.stage import API, KIND, LABEL, TEXT, Stage, kubectl, stage
from e2e.cluster.kube import KubeError, Object, has_condition, wait_for
from e2e.cluster.progress import Progress
from e2e.load import GrpcTarget, HttpTarget, Request, Summary, open_loop

NAMESPACE: Final = "bench-restart"
NAME: Final = "magika"
REPLICAS: Final = 2
READY_SECONDS: Final = 180.0
EVICTION_POLL_SECONDS: Final = 0.5


def _ready(pod: Object) -> bool:
    return has_condition(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]


@dataclass
class Restarter:
    """Replaces the pods of the model.

    Attributes:
        scene: where.
        gpus: GPUs of each pod.
        number: of the restart, so that each spec differs from the one before.
    """

    scene: Stage
    gpus: int
    number: int = 0

    def manifest(self) -> Object:
        """The ModelDeployment of the present number."""
        return self.scene.model_deployment(
            NAME, gpus=self.gpus, replicas=REPLICAS, env={"RESTART": str(self.number)}
        )

    def names(self) -> frozenset[str]:
        """The pods that are there now, those on their way out included."""
        return frozenset(pod["metadata"]["name"] for pod in self.scene.pods(NAME))

    def await_ready(self, old: frozenset[str] = frozenset()) -> None:
        """Wait until the spec's revision is live with all replicas and no other pod is there.

        Args:
            old: pods that must be gone.
        """

        def done() -> bool:
            found = self.scene.client.get(API, KIND, NAME, self.scene.namespace) or {}
            current = has_condition(found, "Ready") and all(
                c.get("observedGeneration") == found["metadata"]["generation"]
                for c in found["status"]["conditions"]
                if c["type"] == "Ready"
            )
            pods = self.scene.pods(NAME)
            new = not old & {pod["metadata"]["name"] for pod in pods}
            return current and new and len(pods) == REPLICAS and all(map(_ready, pods))

        wait_for(done, f"{NAME} Ready with {REPLICAS} pods", timeout_seconds=READY_SECONDS)

    def rollout(self) -> None:
        """Restart the Deployment that has pods, as kubectl does."""
        old = self.names()
        labels = f"tidegate.dev/deployment={NAME}"
        for item in self.scene.client.list("apps/v1", "Deployment", self.scene.namespace, labels):
            if item["spec"]["replicas"]:
                name = item["metadata"]["name"]
                kubectl(self.scene, "rollout", "restart", f"deployment/{name}")
        self.await_ready(old)

    def eviction(self) -> None:
        """Evict each pod that is there now, as soon as the budget allows."""
        client, namespace = self.scene.client, self.scene.namespace
        old = self.names()
        for name in sorted(old):
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": namespace},
            }
            path = client.path("v1", "Pod", namespace, name) + "/eviction"
            deadline = time.monotonic() + READY_SECONDS
            while True:
                try:
                    client.request("POST", path, body=body)
                    break
                except KubeError as error:
                    if error.status != 429 or time.monotonic() > deadline:
                        raise
                time.sleep(EVICTION_POLL_SECONDS)
        self.await_ready(old)

    def revision(self) -> None:
        """Change the spec, so that a new revision takes over."""
        old = self.names()
        self.number += 1
        self.scene.client.apply(self.manifest())
        self.await_ready(old)


WAYS: Final[dict[str, Callable[[Restarter], None]]] = {
    "rollout": Restarter.rollout,
    "eviction": Restarter.eviction,
    "revision": Restarter.revision,
}


@dataclass(frozen=True)
class Outcome:
    """One restart under load.

    Attributes:
        way: how the pods were replaced.
        seconds: from its begin until only new pods are there, all Ready.
        before: summaries by protocol of what was due before it began.
        during: the same of all that was due from then on.
        http_connections: opened in all.
    """

    way: str
    seconds: float
    before: dict[str, Summary]
    during: dict[str, Summary]
    http_connections: int


async def restart_under_load(
    way: str, restarter: Restarter, address: str, options: argparse.Namespace
) -> Outcome:
    """Load, a pause, a restart, and load until the end."""
    async with (
        HttpTarget(address, "magika", TEXT, LABEL) as http,
        GrpcTarget(address, "magika", TEXT, LABEL) as grpc,
    ):
        # Once each, so that connections and the model's first answer are not part of it.
        for target in (http, grpc):
            if error := (await target.ask()).error:
                raise RuntimeError(f"the model does not answer at {address}: {error}")
        seconds = options.before + options.seconds
        began = time.perf_counter()
        loads = [
            asyncio.create_task(open_loop(target.ask, rate_hz=options.rps / 2, seconds=seconds))
            for target in (http, grpc)
        ]
        await asyncio.sleep(options.before)
        restarted = time.perf_counter() - began
        await asyncio.to_thread(WAYS[way], restarter)
        took = time.perf_counter() - began - restarted
        requests: dict[str, list[Request]] = {
            "HTTP": await loads[0],
            "gRPC": await loads[1],
        }
    return Outcome(
        way=way,
        seconds=took,
        before={
            k: Summary.of(r for r in v if r.due_s < restarted - 1) for k, v in requests.items()
        },
        during={k: Summary.of(r for r in v if r.due_s >= restarted) for k, v in requests.items()},
        http_connections=http.connections,
    )


def add_to(report: Report, outcomes: list[Outcome], seconds: float) -> None:
    """Rows and facts of all restarts."""
    for way in dict.fromkeys(outcome.way for outcome in outcomes):
        same = [outcome for outcome in outcomes if outcome.way == way]
        report.add(f"{way}: until all pods are new", "s", [o.seconds for o in same])
        for protocol in same[0].during:
            during = [o.during[protocol] for o in same]
            before = [o.before[protocol] for o in same]
            head = f"{way}, {protocol}:"
            report.add(f"{head} requests", "", [float(s.sent) for s in during])
            report.add(f"{head} failed", "", [float(s.failed) for s in during], aim="0")
            report.add(f"{head} p50 before", "ms", [s.p50_ms for s in before])
            report.add(f"{head} p50 during", "ms", [s.p50_ms for s in during])
            report.add(f"{head} p99 before", "ms", [s.p99_ms for s in before])
            report.add(f"{head} p99 during", "ms", [s.p99_ms for s in during])
            report.add(f"{head} slowest during", "ms", [s.max_ms for s in during])
    report.facts["outcomes"] = [asdict(outcome) for outcome in outcomes]
    failed_before = sum(s.failed for o in outcomes for s in o.before.values())
    if failed_before:
        report.notes.append(
            f"{failed_before} requests failed before any restart: the machine was too busy for "
            "this load, so this says nothing about the restart"
        )
    late = [o for o in outcomes if o.seconds > seconds]
    if late:
        report.notes.append(f"{len(late)} restarts took longer than the load")
    worst = max(s.client_late_p99_ms for o in outcomes for s in o.during.values())
    report.notes.append(
        f"latency counts from when a request was due; the client itself was late by at most "
        f"{worst:.1f} ms at p99"
    )


def _options() -> argparse.Namespace:
    command = parser(__doc__)
    command.add_argument(
        "--rps", type=float, default=50.0, help="requests a second, both protocols together"
    )
    command.add_argument("--before", type=float, default=15.0, help="seconds before the restart")
    command.add_argument("--seconds", type=float, default=60.0, help="from the restart on")
    command.add_argument("--runs", type=int, default=2, help="of each way")
    command.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    command.add_argument("--gpus", type=int, default=0, help="of each pod")
    return command.parse_args()


def main() -> int:
    """The command line."""
    options = _options()
    progress = Progress()
    report = Report(
        "rolling_restart",
        f"all {REPLICAS} pods of a served model replaced under {options.rps:.0f} requests a "
        f"second, half over HTTP keep-alive and half over gRPC, {options.seconds:.0f} s, "
        f"{options.runs} runs of each way",
    )
    outcomes: list[Outcome] = []
    report.await_quiet(options.patience)
    with stage(NAMESPACE, progress) as scene:
        restarter = Restarter(scene, options.gpus)
        scene.client.apply(restarter.manifest())
        restarter.await_ready()
        address = scene.address(NAME)
        if address is None:
            raise RuntimeError(f"no Service {NAMESPACE}/{NAME}")
        for number in range(options.runs):
            for way in options.ways:
                with progress.step(f"{way}, run {number + 1} of {options.runs}"):
                    outcome = asyncio.run(restart_under_load(way, restarter, address, options))
                outcomes.append(outcome)
                failed: dict[str, Any] = {k: s.errors for k, s in outcome.during.items()}
                progress.say(f"  {outcome.seconds:.1f} s; failed: {failed}")
                restarter.await_ready()
    add_to(report, outcomes, options.seconds)
    report.facts |= {k: v for k, v in vars(options).items() if k != "out"}
    report.finish(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
