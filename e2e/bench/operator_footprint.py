"""What the operator costs: memory, processor time, time to converge, and to come back.

``python -m e2e.bench.operator_footprint`` brings up an API server with kube-controller-manager on
free ports (no node, no cluster needed) and runs this checkout's operator as a process against it.
ModelDeployments, Deployments, ReplicaSets and pods are real; what happens inside of a pod is played
(`e2e.bench.kubelet`). All parts share this machine's cores, so times include the API server, etcd,
the controllers and the player; the operator's own processor time is given beside them.

Each run, on fresh data:
1. start without any ModelDeployment; after a pause, memory and processor use while idle;
2. apply the ModelDeployments at once; time until all are Ready;
3. memory and processor use while idle with all of them;
4. stop and start anew: time to the first sync, to leadership, until every one was looked at; then
   the writes other than of the Lease.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.bench.kubelet import PlayedKubelet
from e2e.bench.operator_process import OperatorProcess
from e2e.bench.report import Report, Usage, parser
from e2e.bench.watch import Watching
from e2e.cluster import paths
from e2e.cluster.audit import AuditLog, besides_leases, by_kind
from e2e.cluster.control_plane import ControlPlane, control_plane
from e2e.cluster.kube import KubeClient, Object, documents, has_condition
from e2e.cluster.progress import Progress

CRD = paths.REPOSITORY / "crds" / "modeldeployments.yaml"
NAMESPACE = "bench"
LEASE_NAMESPACE = "tidegate-system"
USER = "bench-operator"
SETTLE_SECONDS = 8.0
"""After this the Python heap and the sweep of the start are at rest."""
CONVERGE_SECONDS = 600.0
MEMORY_AIM = "at most 150"


@dataclass
class Samples:
    """The values of each quantity, one a run (several a run for restarts)."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    aims: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, unit: str, value: float, aim: str = "") -> None:
        """Note one value."""
        self.values.setdefault((name, unit), []).append(value)
        if aim:
            self.aims[name] = aim

    def report_to(self, report: Report) -> None:
        """Add all quantities, in the order in which they came up."""
        for (name, unit), values in self.values.items():
            report.add(name, unit, values, aim=self.aims.get(name, ""))


def model_deployment(name: str) -> Object:
    """A ModelDeployment as a user would write it."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "source": {"uri": f"s3://models/{name}/v3", "secretName": "s3"},
            },
            "runtime": {"resources": {"cpu": "2", "memory": "8Gi"}},
            "slo": {"latency": {"quantile": "0.99", "target": "100ms"}, "maxErrorRate": "1%"},
        },
    }


@contextmanager
def _idle(operator: OperatorProcess, seconds: float) -> Iterator[list[Usage]]:
    """Two looks at an operator that has nothing to do, so many seconds apart."""
    looks = [operator.usage()]
    time.sleep(seconds)
    looks.append(operator.usage())
    yield looks


def _start(plane: ControlPlane, folder: Path, python: str) -> OperatorProcess:
    return OperatorProcess(
        plane.kubeconfig_for(USER, ["system:masters"]), folder, python, LEASE_NAMESPACE
    )


def _sizes(client: KubeClient) -> dict[str, dict[str, float]]:
    """How many children of each kind there are and how big, in KiB of JSON."""
    kinds = (
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("v1", "ConfigMap"),
        ("apps/v1", "ControllerRevision"),
        ("policy/v1", "PodDisruptionBudget"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("v1", "Pod"),
    )
    found = {}
    for api_version, kind in kinds:
        items = client.list(
            api_version, kind, NAMESPACE, selector="app.kubernetes.io/managed-by=tidegate"
        )
        total = sum(len(json.dumps(item, separators=(",", ":"))) for item in items)
        found[kind] = {"count": len(items), "kib_total": round(total / 1024, 1)}
    return found


def _run(options: argparse.Namespace, samples: Samples, report: Report, progress: Progress) -> None:
    count: int = options.count
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-bench-") as text,
        control_plane(controllers=True) as plane,
        plane.client() as client,
    ):
        folder = Path(text)
        client.apply_all(documents(CRD.read_text()))
        client.apply_all(
            [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                for name in (NAMESPACE, LEASE_NAMESPACE)
            ]
        )
        operator = _start(plane, folder, options.python)
        try:
            samples.add("start, empty: to first sync", "s", operator.said("synced"))
            samples.add("start, empty: to leadership", "s", operator.said("leading"))
            time.sleep(SETTLE_SECONDS)
            with _idle(operator, options.idle) as (before, after):
                samples.add("idle: memory (RSS)", "MB", after.rss_mb, MEMORY_AIM)
                samples.add("idle: CPU", "% of a core", after.cpu_percent_since(before))
            progress.say(f"idle: {after.rss_mb:.1f} MB")

            _converge(plane, client, operator, count, samples)
            samples.add(f"{count}: peak memory", "MB", operator.usage().peak_mb)
            time.sleep(SETTLE_SECONDS)
            with _idle(operator, options.idle) as (before, after):
                samples.add(f"{count}: memory (RSS)", "MB", after.rss_mb, MEMORY_AIM)
                samples.add(f"{count}: idle CPU", "% of a core", after.cpu_percent_since(before))
            progress.say(f"{count} ModelDeployments: {after.rss_mb:.1f} MB")
            report.facts["children"] = _sizes(client)

            for _ in range(options.restarts):
                audit = AuditLog(plane.audit_log)
                samples.add("stop (SIGTERM)", "s", operator.stop())
                operator = _start(plane, folder, options.python)
                samples.add(f"restart, {count}: to first sync", "s", operator.said("synced"))
                samples.add(f"restart, {count}: to leadership", "s", operator.said("leading"))
                samples.add(f"restart, {count}: all looked at", "s", operator.looked_at(count))
                time.sleep(options.window)
                writes = besides_leases(audit.writes(user=USER))
                samples.add(f"restart, {count}: writes", "writes", float(len(writes)), "0")
                if writes:
                    report.facts.setdefault("unexpected_writes", []).append(by_kind(writes))
                usage = operator.usage()
                samples.add(f"restart, {count}: memory (RSS)", "MB", usage.rss_mb, MEMORY_AIM)
                samples.add(f"restart, {count}: CPU time", "s", usage.cpu_seconds)
                progress.say(f"restarted: {usage.rss_mb:.1f} MB, {len(writes)} writes")
        finally:
            operator.stop()


def _converge(
    plane: ControlPlane,
    client: KubeClient,
    operator: OperatorProcess,
    count: int,
    samples: Samples,
) -> None:
    """Apply so many ModelDeployments and wait until all are Ready."""
    audit = AuditLog(plane.audit_log)
    names = [f"model-{n:04d}" for n in range(count)]
    before = operator.usage()
    with (
        PlayedKubelet(plane.kubeconfig, NAMESPACE),
        Watching(
            plane.kubeconfig, "tidegate.dev/v1alpha1", "ModelDeployment", NAMESPACE
        ) as watching,
    ):
        began = time.time()
        for name in names:
            client.apply(model_deployment(name))
        applied = time.time()
        ready: dict[str, float] = {}
        # The watch's thread keeps all events; each is looked at once.
        looked = 0
        deadline = time.monotonic() + CONVERGE_SECONDS
        while len(ready) < count:
            events = watching.events()
            for seen in events[looked:]:
                if has_condition(seen.object, "Ready"):
                    ready.setdefault(seen.name, seen.at)
            looked = len(events)
            if time.monotonic() > deadline:
                missing = sorted(set(names) - ready.keys())
                raise TimeoutError(f"not Ready: {', '.join(missing[:5])} ({len(missing)})")
            time.sleep(0.05)
    after = operator.usage()
    writes = besides_leases(audit.writes(user=USER))
    samples.add(f"{count}: applying them", "s", applied - began)
    samples.add(f"{count}: first apply to all Ready", "s", max(ready.values()) - began)
    samples.add(f"{count}: operator's CPU time of it", "s", after.cpu_seconds - before.cpu_seconds)
    samples.add(f"{count}: writes a ModelDeployment", "writes", len(writes) / count)
    refused = Counter(f"{w.code} {w.verb} {w.resource}" for w in writes if w.code >= 400)
    samples.add(f"{count}: refused writes", "writes", float(sum(refused.values())))


def main() -> int:
    """The command line."""
    command = parser(__doc__)
    command.add_argument("--count", type=int, default=100, help="ModelDeployments")
    command.add_argument("--runs", type=int, default=3, help="each on fresh data")
    command.add_argument("--restarts", type=int, default=2, help="of the operator, in each run")
    command.add_argument("--idle", type=float, default=20.0, help="seconds of each idle look")
    command.add_argument(
        "--window", type=float, default=20.0, help="seconds after a restart in which to count"
    )
    command.add_argument("--python", default=sys.executable, help="interpreter of the operator")
    options = command.parse_args()
    progress = Progress()
    report = Report(
        "operator_footprint",
        f"the operator with none and with {options.count} ModelDeployments "
        f"(real API server and controllers, no nodes, pods' status played), {options.runs} runs",
    )
    report.await_quiet(options.patience)
    samples = Samples()
    for number in range(options.runs):
        with progress.step(f"run {number + 1} of {options.runs}"):
            _run(options, samples, report, progress)
    samples.report_to(report)
    report.facts |= {k: v for k, v in vars(options).items() if k != "out"}
    report.finish(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
