"""From ``kubectl apply`` to the first correct inference, and whose time it is.

``python -m e2e.bench.first_inference`` applies a ModelDeployment of Magika on the embedded cluster
with warm caches (images on the node, model in the cluster's S3 server), asks the model's Service
from the first moment on until it answers rightly, removes it, and does so again.

All times are on one clock, this machine's: the API server's audit log (microseconds) for what the
operator and kubectl wrote; the arrival of watch events for what the kubelet and the controllers
did; the containers' logs (stamped by the container runtime) for what went on inside of them.

The operator's own share of the way is counted where the next part waits for it:

- from the ModelDeployment's creation in the API server to the Deployment's scaling, which is the
  last thing that the first pod waits for (with the Services, the policies and the budget made);
- from the pod's Ready to the ModelDeployment's condition Ready.

What it does meanwhile (pinning the digest while Triton starts, events, status) nobody waits for; it
is listed apart.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx
import yaml

from e2e.bench.operator_process import seconds_of
from e2e.bench.report import Report, parser
from e2e.bench.stage import API, KIND, LABEL, OPERATOR_USER, TEXT, Stage, kubectl, stage
from e2e.bench.watch import Seen, Watching
from e2e.cluster import addons
from e2e.cluster.audit import AuditLog, Write
from e2e.cluster.kube import Object, has_condition
from e2e.cluster.progress import Progress

NAMESPACE: Final = "bench-first"
TRITON_UP: Final = "Started HTTPService"
"""Triton opens its door when its models are loaded."""
ASK_EVERY_SECONDS: Final = 0.02
LIMIT_SECONDS: Final = 180.0
SHARE_AIM: Final = "at most 1"

TO_CREATED: Final = "kubectl: start to created"
TO_SCALED: Final = "operator: created to all children made and scaled"
TO_POD: Final = "controllers: scaled to pod created"
TO_SCHEDULED: Final = "scheduler: to pod bound"
TO_FETCHED: Final = "kubelet, fetch container: to model fetched"
TO_SIDECAR: Final = "kubelet, Envoy: to sidecar started"
TO_TRITON: Final = "kubelet: to Triton's container started"
TO_LOADED: Final = "Triton: to models loaded"
TO_READY: Final = "kubelet's probes: to pod Ready"
TO_CONDITION: Final = "operator: pod Ready to condition Ready"
TO_ANSWER: Final = "Service: pod Ready to first correct inference"
TOTAL: Final = "kubectl apply to first correct inference"
SHARE: Final = "operator's own share, in sum"


class Asker:
    """Asks the model's Service until it says the right thing, from a thread of its own."""

    def __init__(self, scene: Stage, name: str) -> None:
        self._scene = scene
        self._name = name
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop = threading.Event()
        self.answered = threading.Event()
        self.answered_at = 0.0
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        address = None
        tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": [TEXT.decode()]}
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            while not self._stop.wait(ASK_EVERY_SECONDS):
                address = address or self._scene.address(self._name)
                if address is None:
                    continue
                try:
                    # Another connection each time: one that was refused says nothing of later.
                    reply = client.post(
                        f"http://{address}/v2/models/magika/infer",
                        json={"inputs": [tensor]},
                        headers={"Connection": "close"},
                    )
                except httpx.TransportError:
                    continue
                at = time.time()
                if reply.status_code != 200:
                    continue
                said = {o["name"]: o["data"][0] for o in reply.json()["outputs"]}["label"]
                if said == LABEL:
                    self.answered_at = at
                    self.answered.set()
                    return
                self.wrong.append(said)


@dataclass(frozen=True)
class Moments:
    """When each thing happened, seconds since the epoch."""

    applied: float
    created: float
    children: Mapping[str, float]
    """By kind, when the API server had made it; and `scale`."""
    pod_created: float
    scheduled: float
    fetched: float
    sidecar: float
    triton: float
    loaded: float
    pod_ready: float
    condition_ready: float
    answered: float

    def shares(self) -> dict[str, float]:
        """Seconds of each part, one after the other, and the sums."""
        to_scaled = self.children["deployments/scale"] - self.created
        to_condition = self.condition_ready - self.pod_ready
        return {
            TO_CREATED: self.created - self.applied,
            TO_SCALED: to_scaled,
            TO_POD: self.pod_created - self.children["deployments/scale"],
            TO_SCHEDULED: self.scheduled - self.pod_created,
            TO_FETCHED: self.fetched - self.scheduled,
            TO_SIDECAR: self.sidecar - self.fetched,
            TO_TRITON: self.triton - self.sidecar,
            TO_LOADED: self.loaded - self.triton,
            TO_READY: self.pod_ready - self.loaded,
            TO_ANSWER: self.answered - self.pod_ready,
            TO_CONDITION: to_condition,
            TOTAL: self.answered - self.applied,
            SHARE: to_scaled + to_condition,
        }


def made(writes: list[Write], namespace: str) -> dict[str, float]:
    """When the API server had done the operator's first successful write of each resource."""
    found: dict[str, float] = {}
    for write in writes:
        if write.namespace == namespace and write.code < 400 and not write.dry_run:
            found.setdefault(write.resource, seconds_of(write.done_at))
    return found


def first_line(log: str, text: str = "") -> float:
    """The stamp of the first line of a stamped log that contains the text.

    Raises:
        LookupError: no line does.
    """
    for line in log.splitlines():
        if text in line:
            return seconds_of(line.split(" ", 1)[0])
    raise LookupError(f"no line with {text!r} in a log of {len(log)} characters")


def _container(pod: Object, name: str) -> Object:
    status = pod.get("status", {})
    both = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    found: Object = next((c for c in both if c["name"] == name), {})
    return found


def fetch_report(pod: Object) -> dict[str, Any]:
    """What the pod's fetch container reported when it was done; empty before."""
    ended = _container(pod, "fetch").get("state", {}).get("terminated") or {}
    found: dict[str, Any] = json.loads(ended["message"]) if ended.get("exitCode") == 0 else {}
    return found


def _of(name: str, wanted: Callable[[Object], Any]) -> Callable[[Seen], bool]:
    def check(seen: Seen) -> bool:
        labels = seen.object["metadata"].get("labels") or {}
        return name in (seen.name, labels.get("tidegate.dev/deployment")) and bool(
            wanted(seen.object)
        )

    return check


def apply(scene: Stage, item: Object) -> float:
    """Apply a manifest as a user does; when kubectl was started, seconds since the epoch."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(item, file)
        file.flush()
        began = time.time()
        kubectl(scene, "apply", "-f", file.name)
    return began


def leader(scene: Stage) -> str:
    """Which operator holds the Lease; empty: none."""
    lease = scene.client.get(
        "coordination.k8s.io/v1", "Lease", "tidegate-operator", addons.OPERATOR_NAMESPACE
    )
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


def run_once(scene: Stage, name: str, gpus: int) -> tuple[Moments, dict[str, Any]]:
    """Apply, wait for the answer and for Ready, collect, remove."""
    config, namespace = scene.settings.kubeconfig, scene.namespace
    led_by = leader(scene)
    audit = AuditLog(scene.settings.audit_log)
    with (
        Watching(config, "v1", "Pod", namespace) as pods,
        Watching(config, API, KIND, namespace) as resources,
        Asker(scene, name) as asker,
    ):
        applied = apply(scene, scene.model_deployment(name, gpus=gpus))

        def pod(wanted: Callable[[Object], Any], what: str) -> Seen:
            return pods.first(_of(name, wanted), what, timeout_seconds=LIMIT_SECONDS)

        ready = pod(lambda p: has_condition(p, "Ready"), f"a pod of {name} Ready")
        condition = resources.first(
            _of(name, lambda m: has_condition(m, "Ready")), f"{name} Ready", timeout_seconds=60
        )
        if not asker.answered.wait(LIMIT_SECONDS):
            raise TimeoutError(f"no right answer from {name}; it said {asker.wrong[:3]}")
        fetched = pod(fetch_report, "model fetched")
        log = scene.client.text(
            f"/api/v1/namespaces/{namespace}/pods/{ready.name}/log",
            {"container": "triton", "timestamps": "true"},
        )
        moments = Moments(
            applied=applied,
            created=min(
                seconds_of(w.done_at)
                for w in audit.writes(user="admin")
                if w.resource == "modeldeployments" and w.name == name and w.code == 201
            ),
            children=made(audit.writes(user=OPERATOR_USER), namespace),
            pod_created=pod(lambda p: True, "pod created").at,
            scheduled=pod(lambda p: has_condition(p, "PodScheduled"), "pod bound").at,
            fetched=fetched.at,
            sidecar=pod(lambda p: _container(p, "envoy").get("started"), "sidecar started").at,
            triton=first_line(log),
            loaded=first_line(log, TRITON_UP),
            pod_ready=ready.at,
            condition_ready=condition.at,
            answered=asker.answered_at,
        )
        facts = {
            "children_seconds_after_creation": {
                resource: round(at - moments.created, 4)
                for resource, at in sorted(moments.children.items(), key=lambda item: item[1])
            },
            "fetch_own_seconds": fetch_report(fetched.object)["seconds"],
            "wrong_answers": asker.wrong,
            "same_leader": led_by == leader(scene),
            "writes": len(
                [w for w in audit.writes(user=OPERATOR_USER) if w.namespace == namespace]
            ),
        }
    scene.remove(name)
    return moments, facts


def add_to(report: Report, runs: list[tuple[Moments, dict[str, Any]]]) -> None:
    """Rows and facts of all runs."""
    shares = [moments.shares() for moments, _ in runs]
    for name in shares[0]:
        aim = SHARE_AIM if name == SHARE else ""
        report.add(name, "s", [share[name] for share in shares], aim=aim)
    report.facts["runs"] = [facts for _, facts in runs]
    own = [facts["fetch_own_seconds"] for _, facts in runs]
    report.notes.append(
        f"of the time to the fetched model, the fetch itself took {min(own):.2f} to "
        f"{max(own):.2f} s; the rest is sandbox, mounts and the interpreter's start"
    )
    wrong = sum(len(facts["wrong_answers"]) for _, facts in runs)
    report.notes.append(f"{wrong} wrong answers came before the first correct one")


def main() -> int:
    """The command line."""
    command = parser(__doc__)
    command.add_argument("--runs", type=int, default=5)
    command.add_argument("--gpus", type=int, default=1, help="of the pod (pretend GPUs here)")
    options = command.parse_args()
    progress = Progress()
    report = Report(
        "first_inference",
        "kubectl apply to the first correct inference of Magika on the embedded cluster, "
        f"warm images, {options.runs} runs",
    )
    report.await_quiet(options.patience)
    runs: list[tuple[Moments, dict[str, Any]]] = []
    discarded = 0
    with stage(NAMESPACE, progress) as scene:
        while len(runs) < options.runs:
            title = f"run {len(runs) + 1} of {options.runs}"
            with progress.step(title):
                moments, facts = run_once(scene, f"first-{len(runs) + 1}-{discarded}", options.gpus)
            shares = moments.shares()
            progress.say(f"  {shares[TOTAL]:.2f} s, the operator's share {shares[SHARE]:.2f} s")
            if facts["same_leader"]:
                runs.append((moments, facts))
                continue
            discarded += 1
            progress.say("  somebody replaced the operator meanwhile: this run does not count")
            if discarded > options.runs:
                raise SystemExit("the operator is replaced again and again: measure later")
    add_to(report, runs)
    report.facts |= {"gpus": options.gpus, "discarded_runs": discarded}
    report.finish(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
