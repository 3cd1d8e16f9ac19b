"""Writes to the API server while nothing happens, after a restart of the operator.

``python -m e2e.bench.idle_writes`` serves one ModelDeployment on the embedded cluster, deletes the
operator's pods, waits for new ones, and then counts the requests that write, by user, in the API
server's audit log over ``--seconds``. Renewals of Leases are left out; all else counts, failed and
dry-run requests too. The writes of the restart itself are counted apart: from the deletion of the
pods until a new one leads and all is quiet.

On a cluster that others use at the same time the operator may have work of theirs to do; so its
writes in this measurement's own namespace are listed apart, and what the others wrote as well.

Memory and processor time of the operator's processes over the same time are taken from the kernel.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from e2e.bench.report import Report, Usage, parser
from e2e.bench.stage import API, KIND, OPERATOR_USER, Stage, stage
from e2e.cluster import addons
from e2e.cluster.audit import AuditLog, Write, besides_leases, by_kind
from e2e.cluster.kube import Object, has_condition, wait_for
from e2e.cluster.progress import Progress

NAMESPACE: Final = "bench-idle"
NAME: Final = "magika"
OPERATOR_SELECTOR: Final = "app.kubernetes.io/component=operator"
SETTLE_SECONDS: Final = 10.0
READY_SECONDS: Final = 180.0
MEMORY_AIM: Final = "at most 150"


def by_user(writes: Iterable[Write]) -> dict[str, dict[str, int]]:
    """How often each user did what, the busiest user first."""
    users: dict[str, list[Write]] = {}
    for write in writes:
        users.setdefault(write.user, []).append(write)
    ordered = sorted(users.items(), key=lambda item: -len(item[1]))
    return {user: dict(by_kind(found).most_common()) for user, found in ordered}


def processes_of(pod_uid: str, command: str) -> list[int]:
    """Ids of the processes in a pod's cgroups whose command line contains the text."""
    # The kubelet's cgroup drivers write a pod's UID with dashes or with underscores.
    mark = re.compile(re.escape(pod_uid).replace("\\-", "[-_]"))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            inside = mark.search((entry / "cgroup").read_text()) is not None
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if inside and command in words:
            found.append(int(entry.name))
    return sorted(found)


def _operator_pods(scene: Stage) -> list[Object]:
    return scene.client.list("v1", "Pod", addons.OPERATOR_NAMESPACE, selector=OPERATOR_SELECTOR)


def _restart_operator(scene: Stage) -> float:
    """Delete the operator's pods and wait for new ones and their leader. Returns the seconds."""
    client, namespace = scene.client, addons.OPERATOR_NAMESPACE
    old = {pod["metadata"]["name"] for pod in _operator_pods(scene)}
    began = time.monotonic()
    for name in sorted(old):
        client.delete("v1", "Pod", name, namespace)

    def led() -> bool:
        pods = _operator_pods(scene)
        lease = client.get("coordination.k8s.io/v1", "Lease", "tidegate-operator", namespace) or {}
        holder = str(lease.get("spec", {}).get("holderIdentity") or "").partition("_")[0]
        names = {pod["metadata"]["name"] for pod in pods}
        return (
            not names & old
            and len(names) == len(old)
            and all(has_condition(pod, "Ready") for pod in pods)
            and holder in names
        )

    wait_for(led, "new operators, one leading", timeout_seconds=READY_SECONDS)
    return time.monotonic() - began


def _usages(scene: Stage) -> dict[str, Usage]:
    """By pod, what its operator process holds and has used."""
    return {
        pod["metadata"]["name"]: Usage.of(pid)
        for pod in _operator_pods(scene)
        for pid in processes_of(pod["metadata"]["uid"], "tidegate-operator")
    }


def measure(scene: Stage, seconds: float, report: Report, progress: Progress) -> None:
    """One restart and one idle stretch."""
    scene.client.apply(scene.model_deployment(NAME, gpus=0))
    wait_for(
        lambda: has_condition(scene.client.get(API, KIND, NAME, scene.namespace) or {}, "Ready"),
        f"{NAME} Ready",
        timeout_seconds=READY_SECONDS,
    )
    time.sleep(SETTLE_SECONDS)
    audit = AuditLog(scene.settings.audit_log)
    with progress.step("a new operator"):
        took = _restart_operator(scene)
        time.sleep(SETTLE_SECONDS)
    restart = [w for w in besides_leases(audit.writes()) if w.user == OPERATOR_USER]
    audit.mark()
    before = _usages(scene)
    with progress.step(f"{seconds:.0f} s without anything to do"):
        time.sleep(seconds)
    after = _usages(scene)
    writes = audit.writes()
    idle = besides_leases(writes)
    mine = [write for write in idle if write.user == OPERATOR_USER]

    report.add("operators restarted, one leads", "s", [took])
    restarted_here = [w for w in restart if w.namespace == scene.namespace]
    report.add("operator's writes of the restart, here", "", [len(restarted_here)], aim="0")
    here = [write for write in mine if write.namespace == scene.namespace]
    report.add("operator's writes while idle, here", "", [len(here)], aim="0")
    report.add("operator's writes while idle, everywhere", "", [len(mine)])
    leases = Counter(w.user for w in writes if w.resource == "leases")
    report.add("operator's renewals of its Lease", "", [leases[OPERATOR_USER]])
    report.add("writes of all others", "", [len(idle) - len(mine)])
    same = [name for name in before if name in after]
    if same:
        report.add(
            "memory (RSS) of each operator", "MB", [after[n].rss_mb for n in same], aim=MEMORY_AIM
        )
        report.add(
            "CPU of each operator",
            "% of a core",
            [after[n].cpu_percent_since(before[n]) for n in same],
        )
    if set(before) != set(after):
        report.notes.append("somebody restarted the operator meanwhile: measure again")
    changed = [w for w in idle if w.resource.startswith("modeldeployments") and w not in mine]
    if changed:
        report.notes.append(
            f"others wrote {len(changed)} times to ModelDeployments meanwhile, which gives the "
            "operator work: only the writes in this measurement's namespace count"
        )
    report.facts |= {
        "seconds": seconds,
        "writes_of_the_restart": dict(by_kind(restart)),
        "idle_writes_by_user": by_user(idle),
        "renewals_by_user": dict(leases),
        "modeldeployments": len(scene.client.list(API, KIND)),
    }


def main() -> int:
    """The command line."""
    command = parser(__doc__)
    command.add_argument("--seconds", type=float, default=300.0, help="how long to count")
    options = command.parse_args()
    progress = Progress()
    report = Report(
        "idle_writes",
        f"writes to the API server other than of Leases over {options.seconds:.0f} idle seconds "
        "after a restart of the operator, from the audit log",
    )
    report.await_quiet(options.patience)
    with stage(NAMESPACE, progress) as scene:
        measure(scene, options.seconds, report, progress)
    report.finish(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
