"""A toy cluster for the whole state machine: API server, Deployments, GPUs, gateway, sidecars.

It carries out the real `tidegate.plan.plan` as `tidegate.runtime.reconciler` does: in rounds until
nothing changes, events and status last. The operator can die between any two writes; only what is
in objects survives that. After each write the safety invariants are checked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from hypothesis import settings

from tests.unit.plan.world import DIGEST, copied, fetched
from tests.unit.rollout.invariants import Snapshot, check_pass, check_write
from tidegate.actions import (
    Action,
    Annotate,
    Apply,
    Delete,
    DeletePod,
    DeletionCost,
    Event,
    Measure,
    Plan,
    Scale,
    TakeOut,
    WriteStatus,
)
from tidegate.analysis.judgement import Consequence, Judgement, Result, Test
from tidegate.api.names import REQUEST_ANNOTATION, REVISION_LABEL, SERVING_LABEL
from tidegate.api.spec import parse
from tidegate.observed import GoldenResult, Measured, Measurements, Observed, Ref
from tidegate.plan import plan
from tidegate.platform import Platform
from tidegate.record import Phase, Record
from tidegate.resources.route import record_of, shares_of
from tidegate.resources.services import revision_of
from tidegate.rollout import LIVE
from tidegate.scaling import replicas

START = datetime(2026, 1, 1, tzinfo=UTC)
SEARCH = settings.default is not None and settings.default.max_examples > 1_000
"""Whether the profile that takes its time is in use (`make fuzz`)."""
NAME = "detector"
ROUNDS = 12
STEPS = ("5%", "25%", "50%")
ROUTE = Ref("gateway.networking.k8s.io/v1", "HTTPRoute", NAME)
ENTRY = Ref("v1", "Service", NAME)

SPEC: dict[str, Any] = {
    "model": {"source": {"uri": "s3://models/detector/v1"}},
    "slo": {"latency": {"quantile": "0.99", "target": "100ms"}, "maxErrorRate": "1%"},
    "scaling": {"mode": "Fixed"},
    "replicas": 3,
    "traffic": {"gateway": {"parentRefs": [{"name": "gw"}], "hostnames": ["d.example"]}},
    "rollout": {
        "steps": [{"weight": w} for w in STEPS],
        "bake": "1m",
        "surgeWait": "30s",
        "progressDeadline": "10m",
        "mirror": {"minRequests": 50, "deadline": "2m"},
    },
}


class Quality(StrEnum):
    """How the answers of a version are."""

    GOOD = "good"
    BAD = "bad"
    WORSE = "worse"
    """Within the objective, slower than stable."""
    HANGING = "hanging"


class Health(StrEnum):
    """How the pods of a version turn out."""

    WELL = "well"
    NEVER_READY = "never ready"
    CRASHING = "crashing"


class KilledError(Exception):
    """The operator died."""


@dataclass
class Pod:
    """A pod, before it is written as an object."""

    name: str
    uid: str
    revision: str
    labels: dict[str, str]
    made: datetime
    start_s: int
    gpu_since: datetime | None = None
    leaves: datetime | None = None
    broken: bool = False


@dataclass
class World:
    """One ModelDeployment, its cluster and its operator."""

    spec: dict[str, Any] = field(default_factory=lambda: copied(SPEC))
    gpus: int = 100
    platform: Platform = field(default_factory=Platform)
    now: datetime = START
    start_s: int = 20
    rps: float = 20.0
    in_flight_per_stable: float = 0.3
    stable_failing: bool = False
    metrics_down: bool = False
    streams: int = 0
    # By how much stable's clusters divide the evidence: against the canary, for it.
    clusters: tuple[float, float] = (1.0, 1.0)
    # By test, when the canary did what it counts.
    seen: dict[str, str] = field(default_factory=dict)
    route_accepted: bool = True
    mirrors: bool = True
    golden_wrong: set[str] = field(default_factory=set)
    quality: dict[str, Quality] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    foreign: frozenset[Ref] = frozenset()
    present_kinds: frozenset[str] = frozenset({"HTTPRoute", "ResourceClaimTemplate"})

    generation: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    children: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    # Held in the operator's memory only.
    evidence: dict[tuple[str, str, str], float] = field(default_factory=dict)
    since: dict[str, tuple[float, float]] = field(default_factory=dict)
    golden: dict[str, GoldenResult] = field(default_factory=dict)
    last: Plan = field(default_factory=Plan)
    watched_from: datetime | None = None
    read_at: datetime | None = None

    # What happened, for the invariants.
    writes: int = 0
    status_writes: int = 0
    log: list[Action] = field(default_factory=list)
    decisions: list[Record] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    die_at: int | None = None
    ready_seen: dict[str, int] = field(default_factory=dict)
    _uids: int = 0

    # The ModelDeployment.

    @property
    def deployment(self) -> dict[str, Any]:
        return {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {
                "name": NAME,
                "namespace": "demo",
                "uid": "owner",
                "generation": self.generation,
                "annotations": self.annotations,
            },
            "spec": self.spec,
            "status": self.status,
        }

    def edit(self, **blocks: Any) -> None:
        """A new spec, the blocks merged one level deep."""
        before = copied(self.spec)
        for name, block in blocks.items():
            if isinstance(block, dict) and isinstance(self.spec.get(name), dict):
                self.spec[name] = {**self.spec[name], **block}
            else:
                self.spec[name] = block
        if self.spec != before:
            self.generation += 1

    def version(self, number: int) -> None:
        """Ask for another version of the model."""
        self.edit(model={"source": {"uri": f"s3://models/detector/v{number}"}})

    def ask(self, verb: str, revision: str = "") -> None:
        """What ``kubectl tidegate`` writes."""
        self._uids += 1
        if verb == "retry":
            self.failed.clear()
        self.annotations[REQUEST_ANNOTATION] = f"r{self._uids}/{verb}/{revision}/jane"

    @property
    def wanted(self) -> int:
        return replicas(parse(copied(self.spec))).desired

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    # The operator.

    def observed(self) -> Observed:
        return Observed(
            deployment=self.deployment,
            children=dict(self.children),
            pods=tuple(self._documents()),
            foreign=self.foreign,
            present_kinds=self.present_kinds,
        )

    def reconcile(self) -> int:
        """One pass, as the reconciler does it; returns how many writes it took."""
        before = self.writes
        self.ready_seen = {p.revision: self.ready(p.revision) for p in self.pods}
        told: dict[Event, None] = {}
        try:
            for _ in range(ROUNDS):
                self.last = plan(self.observed(), self.platform, self.now, self._measurements())
                changed = False
                for action in self.last.actions:
                    if isinstance(action, Event):
                        told[action] = None
                    elif not isinstance(action, WriteStatus):
                        changed = self._carry_out(action) or changed
                if not changed:
                    break
            else:
                raise AssertionError("the plan does not come to rest")
            self.events += [e for e in told if e not in self.events]
            for action in self.last.actions:
                if isinstance(action, WriteStatus):
                    self._carry_out(action)
            check_pass(self)
        except KilledError:
            self.restart()
        return self.writes - before

    def restart(self) -> None:
        """A new process: what was only in memory is gone."""
        self.evidence.clear()
        self.since.clear()
        self.golden.clear()
        self.last = Plan()
        self.watched_from = self.read_at = None
        self.die_at = None

    def _measurements(self) -> Measurements:
        return Measurements(rollout=self._measured(self.last.measure), golden=dict(self.golden))

    def _measured(self, asked: Measure | None) -> Measured | None:
        if asked is None:
            return None
        key = (asked.stable, asked.canary, asked.started)
        exact = self.evidence.get(key, float(asked.state or 0))
        requests = int(exact)
        arrivals = self.since.get(asked.since, (0.0, 0.0))
        hanging = self.quality.get(asked.canary) is Quality.HANGING and requests >= 5
        return Measured(
            stable=asked.stable,
            canary=asked.canary,
            started=asked.started,
            judgement=self._judged(asked.canary, requests),
            blind_s=self._blind_s(),
            read_at=self.read_at,
            since=asked.since,
            unread=("some-pod",) if self.metrics_down else (),
            hanging=("a-pod",) if hanging else (),
            canary_arrivals=int(arrivals[1]),
            stable_arrivals=int(arrivals[0]),
            mirrored=requests,
            streams=self.streams,
            requests=requests,
            arrivals_per_s=self.rps,
            in_flight_per_pod=self.in_flight_per_stable,
            state=str(exact),
            seen=dict(self.seen),
        )

    def _blind_s(self) -> float:
        if not self.metrics_down:
            self.read_at = self.now
        self.watched_from = self.watched_from or self.now
        return (self.now - (self.read_at or self.watched_from)).total_seconds()

    def _judged(self, canary: str, requests: int) -> Judgement:
        """The rules of a toy: 5 requests show a bad one, 200 prove a good one."""
        quality = self.quality.get(canary, Quality.GOOD)
        bad = quality is Quality.BAD
        failed = requests // 2 if bad else 0
        errors = Result(
            test=Test.ERRORS,
            observed=failed / requests if requests else None,
            bound=0.01,
            canary_count=failed,
            canary_requests=requests,
            stable_count=0,
            stable_requests=0,
            evidence=2.0 ** min(failed, 60),
            needed=2000.0,
            fired=bad and requests >= 5,
            consequence=Consequence.ROLL_BACK,
            explanation=f"{failed} of {requests} requests failed",
            accusing=self.clusters[0],
            tempering=self.clusters[1],
        )
        slow = Result(
            test=Test.LATENCY_AGAINST_STABLE,
            observed=0.1,
            bound=0.05,
            canary_count=requests // 10,
            canary_requests=requests,
            stable_count=5,
            stable_requests=100,
            evidence=3000.0,
            needed=2000.0,
            fired=quality is Quality.WORSE and requests >= 20,
            consequence=Consequence.HOLD,
            explanation="slower than stable",
        )
        return Judgement(
            results=(errors, slow),
            bad=errors if errors.fired and not self.stable_failing else None,
            worse=slow if slow.fired else None,
            stable_failing=self.stable_failing,
            carries=0.0 if bad else min(1.0, requests / 100),
            proven=not bad and requests >= 200,
            requests=requests,
        )

    # Time.

    def tick(self, seconds: int = 10) -> None:
        """Time passes: pods come up, requests are answered, the operator looks."""
        self.now += timedelta(seconds=seconds)
        self.play()
        self._traffic(seconds)
        self._golden_requests()
        self.reconcile()
        self.play()

    def run(self, seconds: int, step: int = 10) -> None:
        for _ in range(0, seconds, step):
            self.tick(step)

    def until(self, reached: Callable[["World"], bool], limit_s: int = 3600) -> None:
        for _ in range(0, limit_s, 5):
            if reached(self):
                return
            self.tick(5)
        raise AssertionError(f"not reached; {self.record}")

    def settle(self, limit_s: int = 7200, quiet: int = 8) -> None:
        """Until nothing is written for a while."""
        calm = 0
        for _ in range(0, limit_s, 15):
            before = self.writes
            self.tick(15)
            calm = calm + 1 if self.writes == before else 0
            if calm >= quiet:
                return
        raise AssertionError(f"it does not come to rest: {self.record}")

    def _traffic(self, seconds: int) -> None:
        asked = self.last.measure
        record = self.record
        if asked is None or record.phase not in LIVE or record.canary != asked.canary:
            return
        if not self.ready(record.canary):
            return
        weight = self.shares().get(record.canary, 0.0)
        mirror = record.mirror if self.mirrors else 0.0
        key = (asked.stable, asked.canary, asked.started)
        if not self.metrics_down:
            seen = self.evidence.get(key, float(asked.state or 0))
            self.evidence[key] = seen + self.rps * seconds * (weight + mirror)
        stable, canary = self.since.get(asked.since, (0.0, 0.0))
        total = self.rps * seconds
        self.since[asked.since] = (stable + total * (1 - weight), canary + total * weight)

    def _golden_requests(self) -> None:
        for uid in (uid for one in self.last.verify for uid in one.pods):
            pod = next((p for p in self.pods if p.uid == uid), None)
            if pod is not None:
                wrong = pod.revision in self.golden_wrong
                self.golden[uid] = GoldenResult(not wrong, "label: dog, not cat", self.now)

    # What is in force.

    @property
    def record(self) -> Record:
        for ref in (ROUTE, ENTRY):
            found = record_of(self.children[ref]) if ref in self.children else None
            if found is not None:
                return found
        return Record(stable="")

    def shares(self) -> dict[str, float]:
        """Share of the clients' requests by revision, as the route says."""
        route = self.children.get(ROUTE)
        if route is None:
            entry = self.children.get(ENTRY)
            hash_ = None if entry is None else revision_of(entry)
            return {} if hash_ is None else {hash_: 1.0}
        return {self._hash_of(name): share for name, share in shares_of(route).items()}

    @staticmethod
    def _hash_of(service: str) -> str:
        return service.removeprefix(f"{NAME}-")

    def serving(self) -> str:
        """Hash of the revision that gets all the requests."""
        (found,) = self.shares()
        return found

    def revision_at(self, ref: Ref) -> str | None:
        """Hash of the revision that a child belongs to."""
        found = self.children.get(ref)
        return (
            None if found is None else (found["metadata"].get("labels") or {}).get(REVISION_LABEL)
        )

    def asked(self, revision: str) -> int:
        """Replicas that its Deployment asks for."""
        found = self.children.get(Ref("apps/v1", "Deployment", f"{NAME}-{revision}"))
        return 0 if found is None else int(found["spec"]["replicas"])

    def ready(self, revision: str) -> int:
        return sum(self._is_ready(p) for p in self.pods if p.revision == revision)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [o for r, o in sorted(self.children.items()) if r.kind == kind]

    # Pods.

    def play(self) -> None:
        """Deployments make pods, the scheduler gives GPUs, pods come up and go."""
        asked: dict[str, dict[str, Any]] = {
            o["metadata"]["labels"][REVISION_LABEL]: o for o in self.of_kind("Deployment")
        }
        for hash_ in {p.revision for p in self.pods} | set(asked):
            number = asked[hash_]["spec"]["replicas"] if hash_ in asked else 0
            mine = [p for p in self.pods if p.revision == hash_ and p.leaves is None]
            mine.sort(key=lambda p: (p.gpu_since is None, not self._is_ready(p), p.made))
            for pod in mine[number:]:
                self._leave(pod)
            for _ in range(number - len(mine)):
                uid = self._uid()
                labels = dict(asked[hash_]["spec"]["template"]["metadata"]["labels"])
                name = f"{NAME}-{hash_}-{uid}"
                self.pods.append(Pod(name, uid, hash_, labels, self.now, self.start_s))
        self.pods = [p for p in self.pods if p.leaves is None or p.leaves > self.now]
        free = self.gpus - sum(p.gpu_since is not None for p in self.pods)
        for pod in sorted(self.pods, key=lambda p: p.made):
            if pod.gpu_since is None and pod.leaves is None and free > 0:
                pod.gpu_since, free = self.now, free - 1
        route = self.children.get(ROUTE)
        if route is not None:
            self.children[ROUTE] = {**route, "status": self._route_status(route)}

    def lose_pod(self, revision: str) -> None:
        """A pod is evicted."""
        pod = next((p for p in self.pods if p.revision == revision and p.leaves is None), None)
        if pod is not None:
            pod.leaves = self.now
            self.play()

    def _leave(self, pod: Pod) -> None:
        pod.leaves = self.now + timedelta(seconds=0 if pod.gpu_since is None else 10)

    def _is_ready(self, pod: Pod) -> bool:
        if pod.leaves is not None or pod.gpu_since is None or pod.broken:
            return False
        if self.health.get(pod.revision, Health.WELL) is not Health.WELL:
            return False
        return self.now >= pod.gpu_since + timedelta(seconds=pod.start_s)

    def _documents(self) -> Iterator[dict[str, Any]]:
        for pod in self.pods:
            yield {
                "metadata": {
                    "name": pod.name,
                    "uid": pod.uid,
                    "labels": dict(pod.labels),
                    "creationTimestamp": _rfc3339(pod.made),
                    **({"deletionTimestamp": _rfc3339(pod.leaves)} if pod.leaves else {}),
                },
                "status": self._pod_status(pod),
            }

    def _pod_status(self, pod: Pod) -> dict[str, Any]:
        if pod.gpu_since is None:
            text = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            return {"phase": "Pending", "conditions": [condition | {"message": text}]}
        ready = self._is_ready(pod)
        crashing = pod.broken or self.health.get(pod.revision) is Health.CRASHING
        triton: dict[str, Any] = {"name": "triton", "ready": ready, "state": {"running": {}}}
        if crashing:
            ended = {"exitCode": 1, "message": "Segmentation fault"}
            triton |= {
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": ended},
            }
        since = pod.gpu_since + timedelta(seconds=pod.start_s)
        return {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "initContainerStatuses": [fetched(DIGEST)],
            "containerStatuses": [triton],
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {
                    "type": "Ready",
                    "status": str(ready),
                    "lastTransitionTime": _rfc3339(since),
                },
            ],
        }

    def _route_status(self, route: dict[str, Any]) -> dict[str, Any]:
        generation = route["metadata"]["generation"]
        status, reason = ("True", "Accepted") if self.route_accepted else ("False", "NotAllowed")
        return {
            "parents": [
                {
                    "parentRef": parent,
                    "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
                    "conditions": [
                        {
                            "type": kind,
                            "status": status,
                            "reason": reason,
                            "observedGeneration": generation,
                        }
                        for kind in ("Accepted", "ResolvedRefs")
                    ],
                }
                for parent in route["spec"]["parentRefs"]
            ]
        }

    # The API server.

    def _carry_out(self, action: Action) -> bool:
        """Do it, unless it is so already; die before the write where that is due."""
        before = self._before(action)
        if before is None:
            return False
        if self.die_at is not None and self.writes >= self.die_at:
            raise KilledError
        snapshot = Snapshot(self, action)
        before()
        self.writes += 1
        self.status_writes += isinstance(action, WriteStatus)
        self.log.append(action)
        self._remember(action)
        check_write(self, action, snapshot)
        return True

    def _before(self, action: Action) -> Callable[[], None] | None:
        """What the write would do; None: nothing."""
        match action:
            case Apply(manifest=manifest):
                return self._applied(action.ref, manifest)
            case Annotate(ref=ref, annotations=annotations):
                live = self.children.get(ref)
                have = {} if live is None else live["metadata"].get("annotations") or {}
                if live is None or annotations.items() <= have.items():
                    return None
                return lambda: self._replace(ref, annotations=have | annotations)
            case Scale(ref=ref, replicas=number):
                found = self.children.get(ref)
                if found is None or found["spec"]["replicas"] == number:
                    return None
                return lambda: self._replace(ref, replicas=number)
            case Delete(ref=ref, uid=uid):
                there = self.children.get(ref)
                if there is None or there["metadata"]["uid"] != uid:
                    return None
                return lambda: self._delete(ref)
            case DeletionCost():
                return None
            case DeletePod(uid=uid) | TakeOut(uid=uid):
                pod = next((p for p in self.pods if p.uid == uid and p.leaves is None), None)
                if pod is None:
                    return None
                if isinstance(action, DeletePod):
                    return lambda: self._leave(pod)
                if SERVING_LABEL not in pod.labels:
                    return None
                return lambda: self._take_out(pod)
            case WriteStatus(status=status):
                status = self._beside_others(status)
                if status == self.status:
                    return None
                return lambda: self._write_status(status)
        raise AssertionError(action)

    def _beside_others(self, status: dict[str, Any]) -> dict[str, Any]:
        """The status as the API server merges it: conditions that others set stay."""
        gates = self.spec["rollout"].get("gates", ())
        others = [c for c in self.status.get("conditions", ()) if c["type"] in gates]
        return {**status, "conditions": [*status["conditions"], *others]} if others else status

    def _replace(
        self, ref: Ref, annotations: dict[str, str] | None = None, replicas: int | None = None
    ) -> None:
        found = dict(self.children[ref])
        if annotations is not None:
            found["metadata"] = {**found["metadata"], "annotations": annotations}
        if replicas is not None:
            found["spec"] = {**found["spec"], "replicas": replicas}
        self.children[ref] = found

    def _delete(self, ref: Ref) -> None:
        del self.children[ref]

    def _write_status(self, status: dict[str, Any]) -> None:
        self.status = copied(status)

    def _take_out(self, pod: Pod) -> None:
        del pod.labels[SERVING_LABEL]

    def _applied(self, ref: Ref, wish: dict[str, Any]) -> Callable[[], None] | None:
        if ref in self.foreign:
            return None
        live = self.children.get(ref)
        manifest = {**wish, "metadata": dict(wish["metadata"])}
        meta = manifest["metadata"]
        if live is None:
            meta |= {"uid": self._uid(), "creationTimestamp": _rfc3339(self.now), "generation": 1}
            return lambda: self.children.__setitem__(ref, copied(manifest))
        if ref.kind == "Deployment":
            manifest["spec"] = {**wish["spec"], "replicas": live["spec"]["replicas"]}
        meta |= {k: live["metadata"][k] for k in ("uid", "creationTimestamp", "generation")}
        notes = (live["metadata"].get("annotations") or {}) | (meta.get("annotations") or {})
        if notes:
            meta["annotations"] = notes
        if "status" in live:
            manifest["status"] = live["status"]
        if manifest == live:
            return None
        if manifest.get("spec") != live.get("spec"):
            meta["generation"] += 1
        return lambda: self.children.__setitem__(ref, copied(manifest))

    def _remember(self, action: Action) -> None:
        """The decisions, from the object that carries them."""
        if not isinstance(action, Apply):
            return
        found = record_of(action.manifest)
        if found is None or found != self.record:
            return
        if not self.decisions or self.decisions[-1] != found:
            self.decisions.append(found)
        if found.phase is Phase.ROLLED_BACK:
            self.failed.add(found.canary)

    def _uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids:04}"


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
