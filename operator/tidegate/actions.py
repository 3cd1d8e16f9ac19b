"""What a plan may ask of the world. Carried out by `tidegate.runtime`, in order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tidegate.analysis.judgement import Objective
from tidegate.api.spec import Spec
from tidegate.observed import Ref


@dataclass(frozen=True)
class Apply:
    """Server-side apply of a whole child by the children's manager.

    The edge skips it where the live object already says the same, and refuses it where an object
    of that name exists that the ModelDeployment does not control.
    """

    manifest: dict[str, Any]

    @property
    def ref(self) -> Ref:
        """The object that is applied."""
        m = self.manifest
        return Ref(m["apiVersion"], m["kind"], m["metadata"]["name"])


@dataclass(frozen=True)
class Annotate:
    """Merge annotations into a child (for what is learned after its birth)."""

    ref: Ref
    annotations: dict[str, str]


@dataclass(frozen=True)
class Scale:
    """Set the replicas of a child Deployment by the scale manager."""

    ref: Ref
    replicas: int


@dataclass(frozen=True)
class Delete:
    """Delete a child, if it still has this UID."""

    ref: Ref
    uid: str


@dataclass(frozen=True)
class DeletePod:
    """Delete a pod, if it still has this UID."""

    name: str
    uid: str
    reason: str


@dataclass(frozen=True)
class TakeOut:
    """Take the serving label off a pod, if it still has this UID: it gets no more traffic."""

    name: str
    uid: str
    reason: str


@dataclass(frozen=True)
class DeletionCost:
    """Say what it costs to lose a pod, if it still has this UID: the cheapest goes first."""

    name: str
    uid: str
    cost: int


@dataclass(frozen=True)
class Event:
    """A Kubernetes event about the ModelDeployment; the same event twice is told once."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class WriteStatus:
    """Apply the status document, unless it already says the same."""

    status: dict[str, Any]


Action = (
    Apply | Annotate | Scale | Delete | DeletePod | TakeOut | DeletionCost | Event | WriteStatus
)


@dataclass(frozen=True)
class Measure:
    """Read both revisions' counters and judge them, again and again, until told otherwise.

    Attributes:
        stable: hash of the revision to compare with.
        canary: hash of the revision on trial.
        started: when its rollout began; with the two above it names one body of evidence.
        since: when the phase or step began; shares of traffic are measured from there.
        objective: what it is judged by.
        interval_s: time between two looks.
        state: evidence gathered before this process began, from status; empty: none.
        uneven: how many times the requests of a stable pod a canary pod gets, where that is too
            much for their latencies to be compared; None: they can be.
        seen: by test, when the canary first and last did what it counts, from status.
    """

    stable: str
    canary: str
    started: str
    since: str
    objective: Objective
    interval_s: float
    state: str = ""
    uneven: float | None = None
    seen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ShortLoad:
    """Golden requests at a steady rate, for a while.

    Attributes:
        rate_per_s: requests a second to one pod.
        duration_s: how long.
        max_error_rate: share of them that may fail.
        latency_target_ms: slow is what is not faster; None: nothing is.
        slow_share: share of them that may be slow.
    """

    rate_per_s: int
    duration_s: float
    max_error_rate: float
    latency_target_ms: int | None = None
    slow_share: float = 0.0


@dataclass(frozen=True)
class Verify:
    """Send golden requests to pods, and again on a schedule.

    Attributes:
        config_map: name of the ConfigMap that holds them.
        model: name of the model to ask.
        pods: UIDs of the pods to ask.
        every_s: again after so long; None: once for each pod.
        load: besides, for a first revision that gets no traffic yet; None: not asked for.
    """

    config_map: str
    model: str
    pods: tuple[str, ...]
    every_s: float | None
    load: ShortLoad | None = None


@dataclass(frozen=True)
class Load:
    """Read the pods' counters every few seconds: what load they have, what their clients get.

    Attributes:
        spec: the ModelDeployment's: its objective.
        model: name of the model in Triton.
        scaled: revisions whose replicas follow the load, by hash, each with the spec by which its
            pods serve (its typed tuning counts until Triton was asked for its own configuration).
            Of others only that is read which says what clients get, and less often.
    """

    spec: Spec
    model: str
    scaled: Mapping[str, Spec]


@dataclass(frozen=True)
class Plan:
    """Actions in order, and what is to be known for the next plan.

    Attributes:
        actions: carried out in order.
        requeue_after_s: look again after so long at the latest; None: on events only.
        measure: what to measure meanwhile.
        verify: which pods to send golden requests to, by ConfigMap.
        load: whose load to read.
    """

    actions: tuple[Action, ...] = ()
    requeue_after_s: float | None = None
    measure: Measure | None = None
    verify: tuple[Verify, ...] = ()
    load: Load | None = None
