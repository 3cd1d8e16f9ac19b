"""How many replicas a revision is to have: as the spec says, or as the measured load needs.

In External mode the spec's number may have two who write it by turns, an HPA and a GitOps tool.
Field owners tell who wrote it last, status remembers who did before; while they quarrel the higher
one of their numbers stays.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from tidegate.actions import Action, Event
from tidegate.api.names import CHILDREN_MANAGER, SCALE_MANAGER
from tidegate.api.spec import ScalingMode, Spec
from tidegate.api.status import SetBy
from tidegate.autoscaling.decision import Bounds, Decision, Fleet
from tidegate.autoscaling.decision import replicas as decide
from tidegate.autoscaling.demand import Demand
from tidegate.observed import Object

OTHER_SCALER: Final = "OtherScaler"
"""Reason of an event, and what holds a number that two write."""
QUARREL_S: Final = 900.0
"""Whoever undoes within so long what another has set quarrels, and so long the number is kept."""
REMEMBERED: Final = 3
"""Of those who set it: the last one, the one before, and who it was before that."""


@dataclass(frozen=True)
class Replicas:
    """A number and why.

    Attributes:
        desired: replicas of the revision that serves.
        reason: for people.
        decision: every number behind it; None: the spec says it.
        fleet: what there was.
        set_by: who set the spec's number lately, the last one at the end.
        hold: why the spec's number does not hold; empty: it does.
        again_after_s: when it will, in seconds; None: nothing is waited for.
    """

    desired: int
    reason: str
    decision: Decision | None = None
    fleet: Fleet | None = None
    set_by: tuple[SetBy, ...] = ()
    hold: str = ""
    again_after_s: float | None = None


def replicas(
    spec: Spec,
    fleet: Fleet | None = None,
    demand: Demand | None = None,
    now_s: float = 0.0,
    expected_per_s: float | None = None,
    set_by: Sequence[SetBy] = (),
) -> Replicas:
    """The replicas of the revision that serves.

    Args:
        spec: what is asked for.
        fleet: its pods; read in SLO mode only. None: there are none yet.
        demand: what its load comes to; None: not known.
        now_s: seconds since the epoch.
        expected_per_s: requests a second that it must be able to take, where more than it has.
        set_by: who set the spec's number, of `setters`; not read in SLO mode.
    """
    mode = spec.scaling_mode
    if mode is ScalingMode.SLO:
        bounds = Bounds.of(spec)
        there = fleet or Fleet(desired=bounds.least, ready=0)
        decision = decide(bounds, there, demand, now_s, expected_per_s=expected_per_s)
        return Replicas(decision.desired, decision.reason, decision, there)
    if spec.replicas is None:
        return Replicas(spec.scaling.min_replicas, f"{mode}: scaling.minReplicas")
    known = tuple(set_by)
    # Where the number is a person's, it is theirs to change as often as they like.
    quarrel = _quarrel(known, now_s) if mode is ScalingMode.EXTERNAL else None
    if quarrel is None:
        return Replicas(spec.replicas, f"{mode}: spec.replicas", set_by=known)
    theirs, mine, rest_s = quarrel
    kept = max(theirs.replicas, mine.replicas)
    return Replicas(
        kept,
        f"{mode}: {_called(theirs.manager)} set spec.replicas to {theirs.replicas}, "
        f"{_called(mine.manager)} to {mine.replicas}, by turns; {kept} kept. Let one of them go.",
        set_by=known,
        hold=OTHER_SCALER,
        again_after_s=rest_s,
    )


def setters(deployment: Object, now_s: float) -> tuple[SetBy, ...]:
    """Who set ``spec.replicas`` lately, the last one at the end.

    Args:
        deployment: the ModelDeployment, with the owners of this field (``managedFields``), and with
            those who are remembered in its status.
        now_s: seconds since the epoch: the API server keeps no time of a write to ``/scale``.
    """
    status = (deployment.get("status") or {}).get("scaling") or {}
    known = tuple(SetBy.model_validate(each) for each in status.get("setBy") or ())
    number = deployment["spec"].get("replicas")
    owners = {
        _whose(str(entry.get("manager"))): str(entry.get("time") or "")
        for entry in deployment["metadata"].get("managedFields") or ()
        if owns_replicas(entry)
    }
    if number is None or not owners:
        return known
    last = known[-1] if known else None
    # Two who set the same number both own it, which changes nothing.
    if last is not None and last.manager in owners:
        if last.replicas == number:
            return known
        manager, known = last.manager, known[:-1]
    else:
        manager = max(owners, key=lambda each: (owners[each], each))
    now = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = SetBy(manager=manager, replicas=number, time=owners[manager] or now)
    return (*known, found)[-REMEMBERED:]


def _quarrel(set_by: Sequence[SetBy], now_s: float) -> tuple[SetBy, SetBy, float] | None:
    """Who undid what another had set: the other, itself, and for how many seconds it still counts.

    None: nobody, or too long ago. Two who only go the same way do not quarrel.
    """
    if len(set_by) < REMEMBERED:
        return None
    before, theirs, mine = set_by[-REMEMBERED:]
    undone = (theirs.replicas - before.replicas) * (mine.replicas - theirs.replicas) < 0
    if before.manager != mine.manager or not undone:
        return None
    theirs_s = _epoch_s(theirs.time)
    rest_s = theirs_s + QUARREL_S - now_s
    if _epoch_s(mine.time) - theirs_s > QUARREL_S or rest_s <= 0.0:
        return None
    return theirs, mine, rest_s


def _epoch_s(text: str) -> float:
    """Of an RFC 3339 time; long ago if it is none."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except ValueError:
        return 0.0


def quarrel_told(deployment: Object, scale: Replicas) -> Iterable[Action]:
    """An event when two begin to quarrel about the spec's number."""
    before = ((deployment.get("status") or {}).get("scaling") or {}).get("hold")
    if scale.hold == OTHER_SCALER != before:
        yield Event("Warning", OTHER_SCALER, scale.reason)


def owns_replicas(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of ``managedFields`` owns ``spec.replicas``."""
    return "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})


def _whose(manager: str) -> str:
    """One for all of kubectl's own (scale, edit, patch, apply): a person uses one and the other."""
    return "kubectl" if manager.startswith("kubectl") else manager


def _called(manager: str) -> str:
    """A field manager, for people."""
    if manager == "kube-controller-manager":
        return "a HorizontalPodAutoscaler (kube-controller-manager)"
    return manager


def other_scaler(live: Object) -> str:
    """Who else set the replicas of a child Deployment, for people; empty: nobody did.

    Args:
        live: the Deployment, with its ``managedFields``.
    """
    for entry in live["metadata"].get("managedFields") or ():
        manager = str(entry.get("manager"))
        if owns_replicas(entry) and manager not in (SCALE_MANAGER, CHILDREN_MANAGER):
            return _called(manager)
    return ""


def before_pin(wanted: int, *, pinned: bool) -> int:
    """One pod alone until the model's bytes are pinned, so that no two load different bytes."""
    return wanted if pinned else min(1, wanted)
