"""From what the load needs to how many replicas there are to be, and why."""

from dataclasses import dataclass
from enum import StrEnum

from tidegate.api.spec import Spec
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.server import LAW, Law


class Hold(StrEnum):
    """Why the number is not simply what the load needs."""

    NO_TARGET = "NoLatencyTarget"
    MEASURING = "Measuring"
    METRICS_MISSING = "MetricsMissing"
    CAPACITY_UNKNOWN = "CapacityUnknown"
    INFEASIBLE = "SLOInfeasible"
    ROLLOUT = "RolloutLive"
    WAITING_FOR_GPU = "WaitingForGPU"
    STABILISING = "Stabilising"
    AT_MAXIMUM = "AtMaximum"
    AT_MINIMUM = "AtMinimum"


@dataclass(frozen=True)
class Bounds:
    """What the spec allows.

    Attributes:
        least, most: replicas; least is never above most.
        spare: replicas as headroom; None: automatic.
    """

    least: int
    most: int
    spare: int | None = None

    @classmethod
    def of(cls, spec: Spec) -> "Bounds":
        """Of a spec."""
        raise NotImplementedError


@dataclass(frozen=True)
class Fleet:
    """The pods of one revision and what was decided before.

    Attributes:
        desired: replicas asked for now.
        ready: pods that serve.
        waiting_for_gpu: pods that no node has room for.
        raised_at_s: when replicas last went up, seconds since the epoch; None: not known.
        lowered_at_s: when they last went down; None: not known.
        cold_start_s: from asking for a pod until it serves, as seen; None: not seen yet.
        rollout: a rollout is going on.
    """

    desired: int
    ready: int
    waiting_for_gpu: int = 0
    raised_at_s: float | None = None
    lowered_at_s: float | None = None
    cold_start_s: float | None = None
    rollout: bool = False


@dataclass(frozen=True)
class Decision:
    """How many replicas, and every number that led there.

    Attributes:
        desired: replicas to ask for.
        required: that the load needs, with spare ones, within the bounds; None: unknown.
        needed: the same without spare ones and bounds.
        spare: of the required, as headroom.
        hold: why desired is not required; None: it is.
        reason: for people.
        demand: what was measured; None: nothing yet.
    """

    desired: int
    required: int | None
    needed: int | None
    spare: int
    hold: Hold | None
    reason: str
    demand: Demand | None


def replicas(
    bounds: Bounds,
    fleet: Fleet,
    demand: Demand | None,
    now_s: float,
    *,
    expected_per_s: float | None = None,
    law: Law = LAW,
) -> Decision:
    """How many replicas one revision is to have.

    Args:
        bounds: what the spec allows.
        fleet: what there is.
        demand: of the observer; None: fewer than 60 s of data.
        now_s: seconds since the epoch.
        expected_per_s: requests a second that the revision is about to get (a rollout's next
            step), where that is more than what it gets now.
        law: constants.
    """
    raise NotImplementedError
