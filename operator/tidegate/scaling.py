"""How many replicas a revision is to have: as the spec says, or as the measured load needs."""

from dataclasses import dataclass

from tidegate.api.names import CHILDREN_MANAGER, SCALE_MANAGER
from tidegate.api.spec import ScalingMode, Spec
from tidegate.autoscaling.decision import Bounds, Decision, Fleet
from tidegate.autoscaling.decision import replicas as decide
from tidegate.autoscaling.demand import Demand
from tidegate.observed import Object


@dataclass(frozen=True)
class Replicas:
    """A number and why.

    Attributes:
        desired: replicas of the revision that serves.
        reason: for people.
        decision: every number behind it; None: the spec says it.
        fleet: what there was.
    """

    desired: int
    reason: str
    decision: Decision | None = None
    fleet: Fleet | None = None


def replicas(
    spec: Spec,
    fleet: Fleet | None = None,
    demand: Demand | None = None,
    now_s: float = 0.0,
    expected_per_s: float | None = None,
) -> Replicas:
    """The replicas of the revision that serves.

    Args:
        spec: what is asked for.
        fleet: its pods; read in SLO mode only. None: there are none yet.
        demand: what its load comes to; None: not known.
        now_s: seconds since the epoch.
        expected_per_s: requests a second that it must be able to take, where more than it has.
    """
    mode = spec.scaling_mode
    if mode is ScalingMode.SLO:
        bounds = Bounds.of(spec)
        there = fleet or Fleet(desired=bounds.least, ready=0)
        decision = decide(bounds, there, demand, now_s, expected_per_s=expected_per_s)
        return Replicas(decision.desired, decision.reason, decision, there)
    if spec.replicas is None:
        return Replicas(spec.scaling.min_replicas, f"{mode}: scaling.minReplicas")
    return Replicas(spec.replicas, f"{mode}: spec.replicas")


def other_scaler(live: Object) -> str:
    """Who else set the replicas of a child Deployment; empty: nobody did.

    Args:
        live: the Deployment, with its ``managedFields``.
    """
    for entry in live["metadata"].get("managedFields") or ():
        spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        manager = str(entry.get("manager"))
        if "f:replicas" in spec and manager not in (SCALE_MANAGER, CHILDREN_MANAGER):
            return manager
    return ""


def before_pin(wanted: int, *, pinned: bool) -> int:
    """One pod alone until the model's bytes are pinned, so that no two load different bytes."""
    return wanted if pinned else min(1, wanted)
