"""A small world for the plan: it carries out actions at once and plays Deployments and pods.

Only for stating behaviour of the pure core; how a real API server and kubelet take the same
actions is shown by the contract and end-to-end tests.
"""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from tidegate.actions import (
    Action,
    Annotate,
    Apply,
    Delete,
    DeletePod,
    DeletionCost,
    Event,
    Plan,
    Scale,
    TakeOut,
    WriteStatus,
)
from tidegate.api.names import REVISION_LABEL, SERVING_LABEL
from tidegate.observed import Measurements, Observed, Ref
from tidegate.plan import plan
from tidegate.platform import Platform

START = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64

MINIMAL: dict[str, Any] = {
    "model": {"source": {"uri": "s3://models/magika/v3"}},
    "slo": {"latency": {"quantile": "0.99", "target": "100ms"}, "maxErrorRate": "1%"},
    "rollout": {"bake": "0s"},
}


def fetched(digest: str = DIGEST, version: str = "", address: str = "") -> dict[str, Any]:
    """Status of a fetch container that succeeded."""
    told = {"digest": digest, "seconds": 1.5, "cached": False}
    message = json.dumps(
        told
        | ({"sourceVersion": version} if version else {})
        | ({"sourceAddress": address} if address else {})
    )
    return {
        "name": "fetch",
        "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": message}},
    }


def ready_pod(pod: dict[str, Any]) -> None:
    """Makes a pod as it is when all is well."""
    pod["status"] = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "initContainerStatuses": [
            fetched(pod["digest"], pod.get("version", ""), pod.get("address", ""))
        ],
        "containerStatuses": [{"name": "triton", "ready": True, "state": {"running": {}}}],
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True"},
        ],
    }


def failing_fetch(reason: str, message: str) -> Callable[[dict[str, Any]], None]:
    """Makes pods whose fetch fails."""

    def fail(pod: dict[str, Any]) -> None:
        text = json.dumps({"reason": reason, "message": message})
        pod["status"] = {
            "phase": "Pending",
            "initContainerStatuses": [
                {
                    "name": "fetch",
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 1, "message": text}},
                }
            ],
            "conditions": [{"type": "PodScheduled", "status": "True"}],
        }

    return fail


def pending_for_gpu(pod: dict[str, Any]) -> None:
    """Makes pods for which there is no GPU."""
    pod["status"] = {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            }
        ],
    }


T = TypeVar("T")


def copied(document: T) -> T:
    """A copy that shares nothing; five times as quick as `copy.deepcopy`."""
    copy: T = pickle.loads(pickle.dumps(document, pickle.HIGHEST_PROTOCOL))
    return copy


@dataclass
class World:
    """One ModelDeployment and what became of it."""

    spec: dict[str, Any] = field(default_factory=lambda: copied(MINIMAL))
    platform: Platform = field(default_factory=Platform)
    now: datetime = START
    generation: int = 1
    status: dict[str, Any] = field(default_factory=dict)
    children: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    pods: list[dict[str, Any]] = field(default_factory=list)
    foreign: frozenset[Ref] = frozenset()
    present_kinds: frozenset[str] = frozenset({"HTTPRoute", "ResourceClaimTemplate"})
    models: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    log: list[Action] = field(default_factory=list)
    # How the pods of a revision turn out, by hash; all well where nothing is said.
    outcomes: dict[str, Callable[[dict[str, Any]], None]] = field(default_factory=dict)
    bytes_now: str = DIGEST
    # What the source tells of itself to whoever fetches.
    version_now: str = ""
    address_now: str = ""
    looks: list[dict[str, Any]] = field(default_factory=list)
    measurements: Measurements = field(default_factory=Measurements)
    # By pod UID, what it was said to cost to lose it.
    costs: dict[str, int] = field(default_factory=dict)
    # Whose the fields of the ModelDeployment are.
    managed_fields: list[dict[str, Any]] = field(default_factory=list)
    _uids: int = 0

    @property
    def deployment(self) -> dict[str, Any]:
        """The ModelDeployment as it lives."""
        return {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {
                "name": "magika",
                "namespace": "demo",
                "uid": "owner",
                "generation": self.generation,
                "managedFields": self.managed_fields,
            },
            "spec": self.spec,
            "status": self.status,
        }

    def observed(self) -> Observed:
        """A snapshot."""
        return Observed(
            deployment=copied(self.deployment),
            children=copied(self.children),
            pods=tuple(copied(self.pods)),
            looks=tuple(copied(self.looks)),
            foreign=self.foreign,
            present_kinds=self.present_kinds,
            models=dict(self.models),
        )

    def plan(self) -> Plan:
        """What is planned now."""
        return plan(self.observed(), self.platform, self.now, self.measurements)

    def edit(self, **blocks: Any) -> None:
        """A new spec, the blocks merged one level deep."""
        for name, block in blocks.items():
            if isinstance(block, dict):
                self.spec[name] = {**self.spec.get(name, {}), **block}
            else:
                self.spec[name] = block
        self.generation += 1

    def step(self, *, writes: int | None = None) -> int:
        """One plan, carried out; returns how many actions changed something.

        Args:
            writes: the operator dies after so many changes.
        """
        changed = 0
        for action in self.plan().actions:
            if writes is not None and changed >= writes:
                return changed
            changed += self._carry_out(action)
        self.play()
        return changed

    def settle(self, limit: int = 30) -> None:
        """Until nothing changes any more."""
        for _ in range(limit):
            self.now += timedelta(seconds=1)
            if self.step() == 0:
                return
        raise AssertionError("the plan does not come to rest")

    def play(self) -> None:
        """Deployments make pods, pods turn out as they do."""
        for ref, obj in self.children.items():
            if ref.kind != "Deployment":
                continue
            hash_ = obj["metadata"]["labels"][REVISION_LABEL]
            mine = [p for p in self.pods if p["metadata"]["labels"][REVISION_LABEL] == hash_]
            mine.sort(key=lambda p: -self.costs.get(p["metadata"]["uid"], 0))
            for extra in mine[obj["spec"]["replicas"] :]:
                self.pods.remove(extra)
            for _ in range(obj["spec"]["replicas"] - len(mine)):
                self.pods.append(self._new_pod(obj, hash_))
        alive = {
            r.kind == "Deployment" and o["metadata"]["labels"][REVISION_LABEL]
            for r, o in self.children.items()
        }
        self.pods = [p for p in self.pods if p["metadata"]["labels"][REVISION_LABEL] in alive]
        for pod in self.pods:
            hash_ = pod["metadata"]["labels"][REVISION_LABEL]
            self.outcomes.get(hash_, ready_pod)(pod)

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition of the status."""
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def stable(self) -> str:
        """Hash of the revision to which the entry leads."""
        entry = self.children[Ref("v1", "Service", "magika")]
        return str(entry["spec"]["selector"][REVISION_LABEL])

    def serving_pods(self) -> int:
        """Ready pods behind the entry."""
        return sum(
            p["metadata"]["labels"][REVISION_LABEL] == self.stable()
            and any(
                c["type"] == "Ready" and c["status"] == "True" for c in p["status"]["conditions"]
            )
            for p in self.pods
        )

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Children of a kind."""
        return [o for r, o in sorted(self.children.items()) if r.kind == kind]

    def _uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"

    def _new_pod(self, owner: dict[str, Any], hash_: str) -> dict[str, Any]:
        uid = self._uid()
        return {
            "metadata": {
                "name": f"{owner['metadata']['name']}-{uid}",
                "uid": uid,
                "labels": dict(owner["spec"]["template"]["metadata"]["labels"]),
                "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "digest": self.bytes_now,
            "version": self.version_now,
            "address": self.address_now,
            "status": {},
        }

    def _carry_out(self, action: Action) -> bool:
        self.log.append(action)
        match action:
            case Apply(manifest=manifest):
                return self._apply(action.ref, copied(manifest))
            case Annotate(ref=ref, annotations=annotations):
                meta = self.children[ref]["metadata"]
                before = dict(meta.get("annotations") or {})
                meta["annotations"] = before | annotations
                return bool(before != meta["annotations"])
            case Scale(ref=ref, replicas=replicas):
                spec = self.children[ref]["spec"]
                before_count, spec["replicas"] = spec["replicas"], replicas
                return bool(before_count != replicas)
            case Delete(ref=ref, uid=uid):
                assert self.children[ref]["metadata"]["uid"] == uid
                del self.children[ref]
                return True
            case DeletePod(uid=uid):
                self.pods = [p for p in self.pods if p["metadata"]["uid"] != uid]
                return True
            case TakeOut(uid=uid):
                for pod in self.pods:
                    if pod["metadata"]["uid"] == uid:
                        pod["metadata"]["labels"].pop(SERVING_LABEL, None)
                return True
            case DeletionCost(uid=uid, cost=cost):
                self.costs[uid] = cost
                return True
            case Event():
                if action in self.events:
                    return False
                self.events.append(action)
                return False
            case WriteStatus(status=status):
                before_status, self.status = self.status, copied(status)
                return before_status != status
        raise AssertionError(action)

    def _apply(self, ref: Ref, manifest: dict[str, Any]) -> bool:
        if ref in self.foreign:
            return False
        live = self.children.get(ref)
        if live is None:
            manifest["metadata"] |= {
                "uid": self._uid(),
                "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            self.children[ref] = manifest
            return True
        if ref.kind == "Deployment":
            manifest["spec"]["replicas"] = live["spec"]["replicas"]
        kept = {
            k: v
            for k, v in live["metadata"].items()
            if k in ("uid", "creationTimestamp", "annotations")
        }
        manifest["metadata"] = kept | manifest["metadata"]
        self.children[ref] = manifest
        return manifest != live
