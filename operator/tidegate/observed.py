"""What is known of the world when a decision is made: a snapshot for one ModelDeployment.

Objects are the API server's own documents (nested dicts), never changed by a reader.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from tidegate.analysis.judgement import Judgement
from tidegate.autoscaling.demand import Demand
from tidegate.nodes import Nodes

Object = Mapping[str, Any]


class Ref(NamedTuple):
    """Names an object inside the namespace of its ModelDeployment."""

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True)
class Failure:
    """An action of the present plan that the API server refused.

    Attributes:
        action: what was tried, such as ``Apply``.
        ref: on which object; None where it was none of the children.
        reason: the API server's word, such as ``Forbidden`` or ``Invalid``.
        message: its explanation.
    """

    action: str
    ref: Ref | None
    reason: str
    message: str


@dataclass(frozen=True)
class GoldenResult:
    """What became of the golden requests that one pod was sent.

    Attributes:
        passed: every answer was as expected.
        message: which one was not, and how; or how many passed.
        at: when, UTC.
    """

    passed: bool
    message: str
    at: datetime


@dataclass(frozen=True)
class Measured:
    """What the sidecars say of a rollout (see `tidegate.actions.Measure`).

    Attributes:
        stable: hash of the revision compared with.
        canary: hash of the revision on trial.
        started: when the rollout began, as in the `Measure`.
        judgement: of all that was seen since.
        read_at: the last time that every pod of the canary could be read; None: never yet.
        blind_s: for how long they could not, in the sight of this process.
        unread: names of pods that could not be read at the last look.
        hanging: names of canary pods that owe answers and give none.
        canary_arrivals: client requests that reached the canary since `since`.
        stable_arrivals: the same for stable.
        mirrored: copies that reached the canary since the rollout began.
        streams: streams that clients opened to the pods of both, as far as these remember.
        requests: requests that they sent one by one, copies included, to the same pods.
        since: of the `Measure`.
        arrivals_per_s: client requests a second, both revisions together; None: unknown yet.
        in_flight_per_pod: mean requests in flight in one stable pod; None: unknown yet.
        state: the evidence as text, to go on from after a restart; at most 4 KiB.
        seen: by test, when the canary first and last did what it counts: two RFC 3339 times with a
            slash between.
    """

    stable: str
    canary: str
    started: str
    judgement: Judgement
    read_at: datetime | None
    blind_s: float = 0.0
    since: str = ""
    unread: tuple[str, ...] = ()
    hanging: tuple[str, ...] = ()
    canary_arrivals: int = 0
    stable_arrivals: int = 0
    mirrored: int = 0
    streams: int = 0
    requests: int = 0
    arrivals_per_s: float | None = None
    in_flight_per_pod: float | None = None
    state: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Attained:
    """What clients got lately, all revisions together (see `tidegate.attainment`).

    Attributes:
        window_s: over how long; 300 s once there is so much.
        answered: requests that got an answer, errors included.
        failed: of those, by the server's fault, `shed` included.
        shed: of those, refused by the sidecar for overload.
        timed: answers whose latency is known.
        slow: of those, slower than the target; None: there is no target.
        quantile: of the objective.
        quantile_ms: the latency that this share of the answers kept; None: there were none.
        latency_met: whether the target was kept; None: too few answers to say, or no target.
        errors_met: whether few enough failed; None: too few answers to say.
    """

    window_s: float
    answered: int
    failed: int
    shed: int
    timed: int
    slow: int | None
    quantile: float
    quantile_ms: float | None
    latency_met: bool | None
    errors_met: bool | None


@dataclass(frozen=True)
class Measurements:
    """What was measured: no object of the API server's.

    Attributes:
        rollout: of the rollout under way; None: nothing was read yet.
        golden: results by pod UID.
        golden_problems: why golden requests cannot be sent, by ConfigMap: there is none, or it
            does not parse.
        load: of the revisions that replicas follow (see `tidegate.actions.Load`), by hash; none of
            those with less than a minute of data.
        attained: what clients got lately; None: not known yet, or nothing counts it.
        in_flight: requests that a pod owes answers for, by its UID; only pods that were read.
        starts: seconds from a pod's creation until it was ready, by its UID; only pods whose start
            was seen (`tidegate.cold_start.Starts`).
    """

    rollout: Measured | None = None
    golden: Mapping[str, GoldenResult] = field(default_factory=dict)
    golden_problems: Mapping[str, str] = field(default_factory=dict)
    load: Mapping[str, Demand] = field(default_factory=dict)
    attained: Attained | None = None
    in_flight: Mapping[str, int] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """Everything `tidegate.plan.plan` knows of one ModelDeployment.

    Attributes:
        deployment: the ModelDeployment itself.
        children: objects that it controls (owner reference with its UID), Pods apart.
        pods: pods of its Deployments.
        looks: pods that look at its model's source.
        foreign: objects of which it would need the name, but that it does not control.
        events: Kubernetes events about its pods and ReplicaSets, newest last.
        present_kinds: optional kinds that this cluster serves, such as ``HTTPRoute``.
        models: by pod UID, what Triton says of a model that it could not load.
        nodes: what nodes offer, where a pod waits for a GPU; None: not read.
        failures: what could not be done; only when planned again just for the status that says so.
    """

    deployment: Object
    children: Mapping[Ref, Object] = field(default_factory=dict)
    pods: tuple[Object, ...] = ()
    looks: tuple[Object, ...] = ()
    foreign: frozenset[Ref] = frozenset()
    events: tuple[Object, ...] = ()
    present_kinds: frozenset[str] = frozenset()
    models: Mapping[str, str] = field(default_factory=dict)
    nodes: Nodes | None = None
    failures: tuple[Failure, ...] = ()

    def of_kind(self, kind: str) -> list[Object]:
        """The children of one kind, by name."""
        return [o for r, o in sorted(self.children.items()) if r.kind == kind]
