"""The simulated Deployments' pods: made, scheduled, fetched, loaded, serving, drained, gone.

Kubernetes' part (Deployment controller, scheduler, kubelet) for the pods of all revisions of one
ModelDeployment. Requests are played by `tidegate.simulation.pod`.
"""

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tidegate.api.names import REVISION_LABEL, SERVING_LABEL
from tidegate.resources.pod import ENVOY, FETCH, TRITON
from tidegate.simulation.faults import Defect, Fault, size_of
from tidegate.simulation.law import EPOCH_S
from tidegate.simulation.objects import rfc3339
from tidegate.simulation.pod import Pod, Server
from tidegate.simulation.sidecar import Class, Sidecar
from tidegate.simulation.world import hash_of

FETCH_SHARE: Final = 0.4
"""Of a cold start: image and model come; the rest is loading."""
USUAL_GRACE_S: Final = 60.0
HANGS: Final = 1e9
"""Times as long as an answer of a version that hangs takes."""


@dataclass
class Replica:
    """A pod, as Kubernetes sees it, and the requests in it.

    Attributes:
        pod: its requests.
        sidecar: its counters.
        revision: hash.
        labels: the pod's.
        grace_s: between being told to leave and being killed.
        created_s: when it was made.
        takes_s: from a node to serving.
        scheduled_s: when it got a node; None: it waits for a GPU.
        leaving_s: when it was told to leave; None: it was not.
        cost: of losing it, as said by the operator; None: nothing was said.
    """

    pod: Pod
    sidecar: Sidecar
    revision: str
    labels: dict[str, str]
    grace_s: float
    created_s: float
    takes_s: float
    scheduled_s: float | None = None
    leaving_s: float | None = None
    cost: int | None = None

    @property
    def name(self) -> str:
        """Its name, and its UID."""
        return self.pod.name

    @property
    def fetched_s(self) -> float:
        """When the model's bytes are there, and the sidecar starts."""
        return (
            math.inf
            if self.scheduled_s is None
            else (self.scheduled_s + FETCH_SHARE * self.takes_s)
        )

    @property
    def loaded_s(self) -> float:
        """When the model is loaded, if all goes well."""
        return math.inf if self.scheduled_s is None else self.scheduled_s + self.takes_s


@dataclass
class Fleet:
    """All pods of a ModelDeployment. Times in seconds from the start of the load.

    Attributes:
        servers: by revision hash, how a pod serves.
        edges_s: of the latency histograms.
        cold_start_s: median time from a node to serving.
        sigma: of its logarithm.
        drain_s: least time that a pod which goes keeps its GPU.
        gpus: pods for which there are some.
        faults: what goes wrong.
        new: hash of the revision that faults of the new version hit; empty: there is none yet.
        seed: of everything random.
        replicas: the pods that are there, oldest first.
        gone: clients' requests of pods that are gone, by revision.
        gpu_s: of pods that are gone.
    """

    servers: dict[str, Server]
    edges_s: tuple[float, ...]
    cold_start_s: float
    sigma: float
    drain_s: float
    gpus: float
    faults: Sequence[Fault]
    seed: int
    new: str = ""
    replicas: list[Replica] = field(default_factory=list)
    gone: dict[str, Class] = field(default_factory=dict)
    gpu_s: float = 0.0
    _made: int = 0

    def __post_init__(self) -> None:
        self._starts = random.Random(f"{self.seed} starts")

    # The Deployment controller, the scheduler and the kubelet.

    def follow(
        self, deployments: Iterable[Mapping[str, Any]], at_s: float, *, served_since_s: float = 0.0
    ) -> None:
        """Make the pods that Deployments ask for, let others go, give nodes to those that wait.

        Args:
            deployments: as they live.
            at_s: now.
            served_since_s: new pods have served for so long already; 0: they start now.
        """
        asked = {d["metadata"]["labels"][REVISION_LABEL]: d for d in deployments}
        for hash_ in sorted({r.revision for r in self.replicas} | set(asked)):
            number = asked[hash_]["spec"]["replicas"] if hash_ in asked else 0
            mine = [r for r in self.replicas if r.revision == hash_ and r.leaving_s is None]
            for _ in range(number - len(mine)):
                self._make(hash_, asked[hash_]["spec"]["template"], at_s, served_since_s)
            # Kubernetes: without a node first, then not ready, the cheapest, the youngest.
            mine.sort(
                key=lambda r: (
                    r.scheduled_s is not None,
                    self.is_ready(r, at_s),
                    r.cost or 0,
                    -r.created_s,
                )
            )
            for replica in mine[: max(0, len(mine) - number)]:
                self.leave(replica, at_s)
        self._schedule(at_s)

    def _make(
        self, hash_: str, template: Mapping[str, Any], at_s: float, served_since_s: float
    ) -> None:
        self._made += 1
        takes_s = self.cold_start_s * math.exp(self.sigma * self._starts.gauss(0, 1))
        name = f"{hash_}-{self._made:04}"
        server = self.servers[hash_]
        pod = Pod(name, server, self.edges_s, hash_of(self.seed, self._made), at_s, math.inf)
        pod.ended = []
        pod.advance(at_s)
        spec = template["spec"]
        self.replicas.append(
            Replica(
                pod=pod,
                sidecar=Sidecar(self.edges_s, server.target_s),
                revision=hash_,
                labels=dict(template["metadata"]["labels"]),
                grace_s=float(spec.get("terminationGracePeriodSeconds") or USUAL_GRACE_S),
                created_s=at_s - served_since_s - (takes_s if served_since_s else 0.0),
                takes_s=takes_s,
                scheduled_s=at_s - served_since_s - takes_s if served_since_s else None,
            )
        )

    def _schedule(self, at_s: float) -> None:
        there = size_of(self.faults, Defect.GPUS, at_s)
        free = min(self.gpus, math.inf if there is None else there)
        free -= sum(r.scheduled_s is not None for r in self.replicas)
        for replica in self.replicas:
            if replica.scheduled_s is None and replica.leaving_s is None and free >= 1:
                replica.scheduled_s = at_s
                free -= 1

    def leave(self, replica: Replica, at_s: float) -> None:
        """Tell a pod to leave."""
        if replica.leaving_s is None:
            replica.leaving_s = replica.pod.leaving_s = at_s

    def named(self, uid: str) -> Replica | None:
        """The pod of that UID, unless it is on its way out."""
        return next((r for r in self.replicas if r.name == uid and r.leaving_s is None), None)

    def take_out(self, replica: Replica) -> None:
        """A pod gets no more traffic."""
        replica.labels.pop(SERVING_LABEL, None)

    def clear(self, at_s: float) -> bool:
        """Pods that have drained, or whose grace is over, are gone; returns whether any is."""
        before = len(self.replicas)
        for replica in list(self.replicas):
            left_s = replica.leaving_s
            if left_s is None:
                continue
            if replica.scheduled_s is None or (replica.pod.idle and at_s >= left_s + self.drain_s):
                self._remove(replica, at_s)
            elif at_s >= left_s + replica.grace_s:
                self.lose(replica, at_s)
        return len(self.replicas) < before

    def lose(self, replica: Replica, at_s: float) -> None:
        """A pod dies with all that is in it, and is gone."""
        self._kill(replica, at_s)
        self._remove(replica, at_s)

    def _kill(self, replica: Replica, at_s: float) -> None:
        replica.pod.kill(at_s)
        assert replica.pod.ended is not None
        replica.sidecar.take(replica.pod.ended)

    def _remove(self, replica: Replica, at_s: float) -> None:
        if replica.scheduled_s is not None:
            self.gpu_s += at_s - max(0.0, replica.scheduled_s)
        self.gone.setdefault(replica.revision, Class()).add(replica.sidecar.clients)
        self.replicas.remove(replica)

    # Time.

    def advance(self, until_s: float) -> None:
        """Play all pods up to a time."""
        for replica in self.replicas:
            replica.pod.advance(until_s)
            assert replica.pod.ended is not None
            replica.sidecar.take(replica.pod.ended)

    def disturb(self, at_s: float) -> None:
        """Put faults in force that hold from this time on."""
        for fault in self.faults:
            if fault.defect is Defect.CRASH and fault.begin_s == at_s:
                for replica in self._of_new():
                    self._kill(replica, at_s)
        for replica in self.replicas:
            is_new = replica.revision == self.new
            slower = size_of(self.faults, Defect.SLOWER if is_new else Defect.OLD_SLOWER, at_s)
            if is_new and size_of(self.faults, Defect.HANG, at_s) is not None:
                slower = HANGS
            replica.pod.slower = slower or 1.0
            errors = Defect.ERRORS if is_new else Defect.OLD_ERRORS
            replica.pod.failing = size_of(self.faults, errors, at_s) or 0.0

    def _of_new(self) -> list[Replica]:
        return [r for r in self.replicas if self.new and r.revision == self.new]

    def changes(self) -> Iterator[float]:
        """Times at which a pod's state changes by itself."""
        for replica in self.replicas:
            yield replica.fetched_s
            yield replica.loaded_s

    # Looking.

    def _breaks(self, replica: Replica, defect: Defect, at_s: float) -> bool:
        return replica.revision == self.new and size_of(self.faults, defect, at_s) is not None

    def is_ready(self, replica: Replica, at_s: float) -> bool:
        """Whether a pod can serve."""
        return (
            replica.leaving_s is None
            and at_s >= replica.loaded_s
            and not self._breaks(replica, Defect.CRASH, at_s)
            and not self._breaks(replica, Defect.NEVER_READY, at_s)
        )

    def serving(self, hash_: str, at_s: float) -> list[Replica]:
        """Pods of a revision that are ready and get traffic."""
        return [r for r in self._of(hash_) if self.is_ready(r, at_s)]

    def reachable(self, hash_: str, at_s: float) -> list[Replica]:
        """The same; where there is none, those that drain still answer, as in Kubernetes."""
        ready = self.serving(hash_, at_s)
        if ready:
            return ready
        return [
            r
            for r in self._of(hash_)
            if r.leaving_s is not None
            and at_s >= r.loaded_s
            and not self._breaks(r, Defect.CRASH, at_s)
        ]

    def _of(self, hash_: str) -> list[Replica]:
        return [r for r in self.replicas if r.revision == hash_ and SERVING_LABEL in r.labels]

    def clients(self, hash_: str) -> Class:
        """What clients got of a revision so far."""
        total = Class(histogram=[0] * (len(self.edges_s) + 1))
        if hash_ in self.gone:
            total.add(self.gone[hash_])
        for replica in self.replicas:
            if replica.revision == hash_:
                total.add(replica.sidecar.clients)
        return total

    def documents(self, at_s: float) -> Iterator[dict[str, Any]]:
        """The pods as the API server has them."""
        for replica in self.replicas:
            meta: dict[str, Any] = {
                "name": replica.name,
                "uid": replica.name,
                "labels": dict(replica.labels),
                "creationTimestamp": _stamp(replica.created_s),
            }
            if replica.leaving_s is not None:
                # Kubernetes: the end of the grace.
                meta["deletionTimestamp"] = _stamp(replica.leaving_s + replica.grace_s)
                meta["deletionGracePeriodSeconds"] = replica.grace_s
            yield {"metadata": meta, "status": self._status(replica, at_s)}

    def _status(self, replica: Replica, at_s: float) -> dict[str, Any]:
        if replica.scheduled_s is None:
            text = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            return {"phase": "Pending", "conditions": [waits | {"message": text}]}
        scheduled = {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": _stamp(replica.scheduled_s),
        }
        fetch: dict[str, Any] = {"name": FETCH}
        if at_s < replica.fetched_s:
            fetch["state"] = {"running": {"startedAt": _stamp(replica.scheduled_s)}}
            return {
                "phase": "Pending",
                "podIP": "192.0.2.1",
                "initContainerStatuses": [fetch],
                "conditions": [scheduled],
            }
        seconds = FETCH_SHARE * replica.takes_s
        report = f'{{"digest": "{_digest(replica.revision)}", "seconds": {seconds:.3f}}}'
        fetch["state"] = {
            "terminated": {
                "exitCode": 0,
                "message": report,
                "startedAt": _stamp(replica.scheduled_s),
                "finishedAt": _stamp(replica.fetched_s),
            }
        }
        running = {"running": {"startedAt": _stamp(replica.fetched_s)}}
        ready = self.is_ready(replica, at_s)
        triton: dict[str, Any] = {"name": TRITON, "ready": ready, "state": running}
        if at_s >= replica.loaded_s and self._breaks(replica, Defect.CRASH, at_s):
            triton |= {
                "restartCount": 1,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "message": "--fault crash"}},
            }
        since = {"status": str(ready), "lastTransitionTime": _stamp(replica.loaded_s)}
        return {
            "phase": "Running",
            "podIP": "192.0.2.1",
            "initContainerStatuses": [fetch, {"name": ENVOY, "ready": True, "state": running}],
            "containerStatuses": [triton],
            "conditions": [
                scheduled,
                {"type": "ContainersReady", **since},
                {"type": "Ready", **since},
            ],
        }


def moment_of(at_s: float) -> datetime:
    """The simulated wall clock."""
    return datetime.fromtimestamp(EPOCH_S + at_s, UTC)


def _stamp(at_s: float) -> str:
    return rfc3339(moment_of(at_s))


def _digest(revision: str) -> str:
    return "sha256:" + hashlib.sha256(revision.encode()).hexdigest()
