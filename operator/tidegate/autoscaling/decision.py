"""From what the load needs to how many replicas there are to be, and why: the law's acting half.

Up at once, to a number and not by a factor: pods that are starting already count, so a cold start
makes no cascade. Down late and slowly: only what the highest requirement of the last minutes
leaves over, after what was raised last has started, a tenth at a time, and only if the capacity
model says that the rest stays well within the target. What is not known moves nothing down.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum

from tidegate.api.spec import Spec
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.explanation import number, required
from tidegate.autoscaling.observer import draining_replicas, load_replicas
from tidegate.autoscaling.server import LAW, Law

AUTO = "Auto"


class Hold(StrEnum):
    """Why the number is not simply what the load needs."""

    NO_TARGET = "NoLatencyTarget"
    MEASURING = "Measuring"
    METRICS_MISSING = "MetricsMissing"
    CAPACITY_UNKNOWN = "CapacityUnknown"
    ROLLOUT = "RolloutLive"
    WAITING_FOR_GPU = "WaitingForGPU"
    STABILISING = "Stabilising"
    AT_MAXIMUM = "AtMaximum"
    AT_MINIMUM = "AtMinimum"


@dataclass(frozen=True)
class Bounds:
    """What the spec allows.

    Attributes:
        least: replicas.
        most: replicas; below ``least`` it wins.
        spare: replicas as headroom; None: automatic.
    """

    least: int
    most: int
    spare: int | None = None

    @classmethod
    def of(cls, spec: Spec) -> "Bounds":
        """Of a spec."""
        scaling = spec.scaling
        spare = None if scaling.headroom == AUTO else int(scaling.headroom)
        return cls(max(1, scaling.min_replicas), scaling.max_replicas, spare)

    def clamp(self, count: int) -> int:
        """The nearest number that is allowed."""
        return min(self.most, max(self.least, count))


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
        needed: the same without spare ones and bounds; None: unknown.
        spare: of the required, as headroom.
        hold: why desired is not required; None: it is.
        reason: for people.
        arrivals_per_s: that were decided by; None: unknown.
        cold_start_s: that spare replicas were sized for; None: not seen yet.
        growth: factor by which the load lately grew within a cold start, where spare replicas come
            of it; None: they do not.
        demand: what was measured; None: nothing yet.
    """

    desired: int
    required: int | None
    needed: int | None
    spare: int
    hold: Hold | None
    reason: str
    arrivals_per_s: float | None = None
    cold_start_s: float | None = None
    demand: Demand | None = None
    growth: float | None = None


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
        demand: of the observer; None: too little data for any.
        now_s: seconds since the epoch.
        expected_per_s: requests a second that the revision is about to get (a rollout's next
            step), where that is more than what it gets now.
        law: constants.
    """
    kept = bounds.clamp(fleet.desired)
    blind = "" if demand is None else _blind(demand, now_s, law)
    early = demand is None or demand.data_s < law.least_s - 1e-6
    if demand is None or (early and (blind or not _sure(demand))):
        text = f"{_count(kept)} kept: {law.least_s:.0f} s of measurements come first"
        return Decision(kept, None, None, 0, Hold.MEASURING, text)
    if demand.target_ms is None:
        text = (
            f"{_count(kept)} kept: there is no latency target (slo.latency) to scale by; "
            f"{number(demand.arrivals_per_s)} req/s arriving"
        )
        return Decision(
            kept, None, None, 0, Hold.NO_TARGET, text, demand.arrivals_per_s, None, demand
        )
    # No sooner than those that start can help: until then they would be asked for again.
    drain_s = max(law.drain_s, fleet.cold_start_s or 0.0)
    if blind:
        return _without_metrics(bounds, fleet, kept, demand, drain_s, blind)
    arrivals = demand.arrivals_per_s
    if expected_per_s is not None and math.isfinite(expected_per_s):
        arrivals = max(arrivals, expected_per_s)
    load = load_replicas(demand, arrivals, law)
    if load is None:
        text = (
            f"{_count(kept)} kept: what one pod holds is not known yet "
            "(Triton's batch statistics tell it, once requests were served)"
        )
        return Decision(kept, None, None, 0, Hold.CAPACITY_UNKNOWN, text, arrivals, None, demand)
    draining = draining_replicas(demand, arrivals, drain_s)
    needed = max(1, load, draining)
    # Spare ones can wait until more is known.
    spare, growth = (0, None) if early else _spare(bounds, fleet, demand, needed, arrivals, law)
    wanted = needed + spare
    aim = bounds.clamp(wanted)
    sentence = required(demand, wanted, arrivals, draining)
    if growth is not None:
        sentence += f" (the load lately grew {number(growth)} times within {_start_s(fleet):.0f} s)"
    limit = None
    if aim < wanted:
        limit, sentence = Hold.AT_MAXIMUM, f"{sentence}; maxReplicas is {bounds.most}"
    elif aim > wanted:
        limit, sentence = Hold.AT_MINIMUM, f"{sentence}; minReplicas is {bounds.least}"

    desired, hold, why = kept, limit, ""
    if aim > kept:
        if fleet.waiting_for_gpu > 0:
            hold = Hold.WAITING_FOR_GPU
            why = (
                f"{kept} kept: {fleet.waiting_for_gpu} of them found no GPU, "
                "so no more are asked for"
            )
        else:
            desired = aim
    elif aim < kept:
        desired, hold, why = _down(bounds, fleet, demand, now_s, kept, aim, spare, arrivals, law)
        hold = hold or limit
    return Decision(
        desired,
        aim,
        needed,
        spare,
        hold,
        f"{sentence}; {why}" if why else sentence,
        arrivals,
        fleet.cold_start_s,
        demand,
        growth,
    )


def _count(n: int) -> str:
    return "1 replica" if n == 1 else f"{n} replicas"


def _sure(demand: Demand) -> bool:
    """Whether what one pod holds may be gone by within the first minute."""
    return demand.service is not None and demand.service.sure and not demand.infeasible


def _blind(demand: Demand, now_s: float, law: Law) -> str:
    """Why the measurements are not to be believed; empty: they are."""
    age_s = demand.age_s + max(0.0, now_s - demand.at_s)
    if age_s > law.stale_intervals * law.interval_s:
        return f"the newest measurement is {number(age_s)} s old"
    if demand.coverage < law.least_coverage:
        read = round(demand.coverage * demand.ready_pods)
        return f"only {read} of {demand.ready_pods} Ready pods could be read"
    return ""


def _without_metrics(
    bounds: Bounds, fleet: Fleet, kept: int, demand: Demand, drain_s: float, why: str
) -> Decision:
    """Up on requests that wait, if some pods still tell of them; never down."""
    draining = draining_replicas(demand, demand.arrivals_per_s, drain_s)
    desired = bounds.clamp(max(kept, draining))
    if desired > kept and fleet.waiting_for_gpu > 0:
        text = f"{_count(kept)} kept: {fleet.waiting_for_gpu} of them found no GPU; {why}"
        desired = kept
    elif desired > kept:
        text = f"{_count(desired)}: {number(demand.pending)} requests wait, though {why}"
    else:
        text = f"{_count(kept)} kept: {why}"
    return Decision(
        desired,
        None,
        None,
        0,
        Hold.METRICS_MISSING,
        text,
        demand.arrivals_per_s,
        None,
        demand,
    )


def grown(demand: Demand, seconds: float) -> float:
    """By what factor the load lately grew in so many seconds, with few exceptions; at least 1."""
    pairs = demand.growth
    if not pairs or seconds <= 0.0:
        return 1.0
    place = bisect_left([at for at, _ in pairs], seconds)
    if place == len(pairs):
        return pairs[-1][1]
    (before_s, before), (after_s, after) = (
        (0.0, 1.0) if place == 0 else pairs[place - 1],
        pairs[place],
    )
    return before + (after - before) * (seconds - before_s) / (after_s - before_s)


def _spare(
    bounds: Bounds, fleet: Fleet, demand: Demand, needed: int, arrivals: float, law: Law
) -> tuple[int, float | None]:
    """Replicas beyond what the load needs now; and the growth of the load, if they come of it."""
    if bounds.spare is not None:
        return bounds.spare, None
    capacity = demand.capacity_per_pod
    if capacity is None:
        return 0, None
    spare = 0
    if needed < law.spare_below:
        # Rounding up has left some spare already; only what that lacks is added.
        used = arrivals * law.headroom / capacity
        spare = max(0, math.ceil(used + law.spare_pods - 1e-9) - needed)
    if fleet.cold_start_s is None:
        return spare, None
    # What comes while a pod starts must be carried by those that are there.
    factor = grown(demand, _start_s(fleet) + law.interval_s)
    then = math.ceil(arrivals * law.headroom * factor / capacity - 1e-9)
    return (then - needed, factor) if then - needed > spare else (spare, None)


def _start_s(fleet: Fleet) -> float:
    return fleet.cold_start_s or 0.0


def _down(
    bounds: Bounds,
    fleet: Fleet,
    demand: Demand,
    now_s: float,
    kept: int,
    aim: int,
    spare: int,
    arrivals: float,
    law: Law,
) -> tuple[int, Hold | None, str]:
    """Fewer replicas, if now is the time: the number, what holds it, and why."""
    if fleet.rollout:
        return kept, Hold.ROLLOUT, f"{kept} kept: none are taken away during a rollout"
    if demand.history_s < law.stabilisation_s - 1e-6:
        return (
            kept,
            Hold.STABILISING,
            f"{kept} kept: fewer only after {law.stabilisation_s:.0f} s of measurements, "
            f"{demand.history_s:.0f} s so far",
        )
    highest = bounds.clamp(max(demand.required_max or 0, 1) + spare)
    if highest >= kept:
        return (
            kept,
            Hold.STABILISING,
            f"{kept} kept: {highest} were required within the last {law.stabilisation_s:.0f} s",
        )
    rest_s = max(fleet.cold_start_s or 0.0, law.interval_s)
    if fleet.raised_at_s is not None and now_s < fleet.raised_at_s + rest_s:
        return (
            kept,
            Hold.STABILISING,
            f"{kept} kept: raised {max(0.0, now_s - fleet.raised_at_s):.0f} s ago, "
            f"and a pod takes {rest_s:.0f} s to start",
        )
    if fleet.lowered_at_s is not None and now_s < fleet.lowered_at_s + law.down_every_s:
        return (
            kept,
            Hold.STABILISING,
            f"{kept} kept: one step down every {law.down_every_s:.0f} s",
        )
    step = max(1, math.floor(kept * law.down_share))
    lowest = max(highest, aim, kept - step)
    cautious = demand.cautious_per_pod
    if cautious is not None and cautious > 0.0:
        safe = math.ceil(arrivals * law.headroom / cautious - 1e-9)
        if safe > lowest:
            lowest = safe
    if lowest >= kept:
        return (
            kept,
            Hold.STABILISING,
            f"{kept} kept: with {kept - 1} latency would come too near the target; "
            f"with room to spare one pod holds {number(cautious or 0.0)} req/s",
        )
    if lowest > aim:
        return lowest, Hold.STABILISING, f"down to {lowest} for now"
    return lowest, None, ""
