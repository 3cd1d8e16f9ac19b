"""How many pods each revision is to have during a rollout, on the GPUs that there are.

Under *surge* the canary's pods come on top of stable's, which keeps all of its own until the bake
ends. Where they find no GPU, *swap*: one stable pod gives way to one canary pod, one at a time, as
long as the measured load fits on the rest. Where that does not go either, the rollout waits and
says what would free it. What is free is learned from pods that cannot be scheduled, so no right
on nodes is needed.

How many pods gave way stands in the decision record and only grows, so a rollout never goes back
and forth between the two.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tidegate.api.spec import Strategy, Surge
from tidegate.record import Phase

FULLEST: Final = 0.7
"""Mean requests in flight per model instance up to which a pod is taken to keep its latency."""
EVEN: Final = 1.05
"""A canary pod may carry this factor of what a stable pod carries: balancing is no evener."""
UNEVEN: Final = 1.15
"""From this factor on latency says more of the load than of the version."""
SETTLE_S: Final = 60.0
"""Least time between two stable pods that give way: to stop, and for the scheduler to see it."""
MEND: Final = "To free it: rollout.strategy: Recreate, one more GPU, or fewer replicas elsewhere."

_GIVING_UP: Final = frozenset({Phase.PREPARING, Phase.VERIFYING, Phase.BAKING})
"""Phases in which Recreate does without stable: beyond the first two it has traffic again only
where the strategy was another one before, and then the rollout goes on as it began."""
_OVER: Final = frozenset({Phase.ROLLED_BACK, Phase.SUPERSEDED, Phase.PROMOTED})


class Mode(StrEnum):
    """How room is made for the canary."""

    SURGE = "Surge"
    """Its pods come on top of stable's."""
    SWAP = "Swap"
    """Stable pods give way to its pods."""
    WAITING = "Waiting"
    """There is no room, and none can be made."""


@dataclass(frozen=True)
class Pods:
    """The pods of one revision.

    Attributes:
        there: pods that exist and are not on their way out.
        ready: those of them that serve.
        leaving: pods on their way out; they hold their GPU until they are gone.
        waiting: why one of them finds no GPU (`tidegate.diagnosis`); empty: none waits.
        waited_s: for how long the longest waits.
    """

    there: int = 0
    ready: int = 0
    leaving: int = 0
    waiting: str = ""
    waited_s: float = 0.0


@dataclass(frozen=True)
class Load:
    """What stable carries, and what one pod can.

    Attributes:
        in_flight_per_pod: mean requests in flight in a ready stable pod; None: unknown.
        instances: model instances per pod, which is how many requests it works on at a time.
    """

    in_flight_per_pod: float | None = None
    instances: int = 1


@dataclass(frozen=True)
class Placement:
    """How many pods each revision is to have.

    Attributes:
        stable: replicas of the stable revision.
        canary: replicas of the canary.
        gave_way: stable pods that gave way so far in this rollout, this decision included; goes
            into the record before any pod is scaled.
        mode: how room is made.
        reason: why it does not go on, a hold in CamelCase; empty: nothing is in the way.
        message: the same for people, with the mend; empty where there is nothing to say.
        swap_back_s: how long stable needs to be whole again; None: it is, or nobody knows.
    """

    stable: int
    canary: int
    gave_way: int = 0
    mode: Mode = Mode.SURGE
    reason: str = ""
    message: str = ""
    swap_back_s: float | None = None


def pods_for(share: float, full: int, stable_kept: float = 1.0) -> int:
    """Canary pods that a share of the traffic needs, at least 1 (0 where nothing is to run).

    So many that a canary pod carries no more than a stable pod beside it. With fewer, wherever
    requests queue or batch, a good version would be slower than stable for its number of pods.

    Args:
        share: of the traffic, 0 to 1.
        full: canary pods that all the traffic needs; never more.
        stable_kept: part of stable's pods that is still there, 0 to 1.
    """
    if share >= 1.0:
        return full
    # Rounded first: 0.07 x 100 is a little more than 7 in binary.
    balanced = share / (1.0 - share) * stable_kept * full
    return min(full, max(1, math.ceil(round(balanced / EVEN, 9))))


def uneven(weight: float, mirror: float, canary_ready: int, stable_ready: int) -> float | None:
    """How many times the requests of a stable pod a canary pod gets, where that is too much.

    With all of its pods a canary is balanced up to half of the traffic. Beyond, or where it has
    fewer, each of its pods works harder than a stable one: wherever requests queue or batch a good
    version is slower there, for no fault of its own.

    Args:
        weight: the canary's share of the traffic, 0 to 1.
        mirror: share of which it gets copies.
        canary_ready: its pods that serve.
        stable_ready: stable's.

    Returns:
        The factor, infinite where stable gets nothing; None: their latencies can be compared.
    """
    if not canary_ready or not stable_ready:
        return None
    if weight >= 1.0:
        return math.inf
    found = (weight + mirror) / canary_ready / ((1.0 - weight) / stable_ready)
    return round(found, 2) if found > UNEVEN else None


def can_carry(
    share: float, wanted: int, ready: int, gave_way: int = 0, *, wanted_canary: int | None = None
) -> bool:
    """Whether so many ready canary pods can carry that share of the traffic.

    Args:
        share: 0 to 1.
        wanted: replicas of the revision that serves.
        ready: canary pods that are ready.
        gave_way: stable pods that gave way; once all but one did, one pod less is enough, since
            the load was measured to fit on that many before the first did.
        wanted_canary: replicas that the canary needs for all the traffic; None: as many.
    """
    full = wanted if wanted_canary is None else wanted_canary
    needed = pods_for(share, full, _kept(wanted, gave_way))
    return ready >= min(needed, _most(wanted, gave_way, full))


def place(
    *,
    strategy: Strategy,
    surge: Surge,
    surge_wait_s: float,
    phase: Phase,
    wanted: int,
    wanted_canary: int | None = None,
    share: float,
    next_share: float,
    stable: Pods,
    canary: Pods,
    load: Load,
    gave_way: int = 0,
    gave_way_s_ago: float | None = None,
    start_s: float | None = None,
    keep_failed: bool = False,
    held_back: bool = False,
) -> Placement:
    """Decide how many pods stable and canary are to have.

    Args:
        strategy: of the rollout.
        surge: whether extra pods are asked for.
        surge_wait_s: how long Auto waits for room before stable pods give way.
        phase: where the rollout stands.
        wanted: replicas of the revision that serves.
        wanted_canary: replicas that the canary needs for all the traffic; None: as many as stable.
        share: the canary's share of the traffic now, 0 to 1.
        next_share: the share that it is to carry next; 1 before promotion.
        stable: the stable revision's pods.
        canary: the canary's pods.
        load: what stable carries.
        gave_way: stable pods that gave way so far, from the record.
        gave_way_s_ago: how long ago the last one did; None: none did, or nobody knows.
        start_s: how long a pod of stable takes to start; None: unknown.
        keep_failed: keep a failed canary's pods for debugging; not where stable gave way to them.
        held_back: Recreate is not to take the old pods away yet.
    """
    if wanted == 0:
        return Placement(0, 0)
    gave_way = min(gave_way, wanted - 1)
    if phase in _OVER:
        return _over(wanted, stable, canary, gave_way, start_s, keep_failed)
    full = wanted if wanted_canary is None else wanted_canary
    if held_back:
        return Placement(wanted, min(canary.there, full))
    if strategy is Strategy.RECREATE and phase in _GIVING_UP:
        gone = stable.there == stable.leaving == 0
        return Placement(0, full if gone else 0)
    share_asked = 1.0 if strategy is Strategy.BLUE_GREEN else next_share
    asked = max(pods_for(share_asked, full, _kept(wanted, gave_way)), min(canary.there, full))
    if stable.waiting and stable.ready < wanted - gave_way:
        return _stable_first(wanted, share, stable, canary, gave_way, start_s)

    never = surge is Surge.NEVER
    blocked = ""
    if never or (canary.waiting and (gave_way or canary.waited_s >= surge_wait_s)):
        settled = (
            stable.there == wanted - gave_way
            and stable.leaving == 0
            and (gave_way_s_ago is None or gave_way_s_ago >= SETTLE_S)
        )
        if never and gave_way >= min(asked, max(1, wanted - 1)) and not canary.waiting:
            pass  # It has what it needs.
        elif gave_way and not settled:
            pass  # One at a time.
        else:
            blocked = _why_none_gives_way(surge, wanted, asked, stable, load, gave_way)
            if not blocked:
                gave_way += 1
    most = _most(wanted, gave_way, full)
    number = min(asked, most)
    if never:  # A canary pod is asked for only when its place is free.
        number = min(number, max(gave_way, canary.there))
    back_s = start_s if gave_way else None
    mode = Mode.WAITING if blocked else Mode.SWAP if gave_way else Mode.SURGE
    if canary.waiting:
        reason, message = "WaitingForGPU", _waiting(canary, surge, surge_wait_s, gave_way, blocked)
    elif blocked:
        reason, message = "StableShort", f"rollout.surge is Never, and {blocked}. {MEND}"
    else:
        reason, message = "", _swapped(gave_way, start_s)
    return Placement(wanted - gave_way, number, gave_way, mode, reason, message, back_s)


def _kept(wanted: int, gave_way: int) -> float:
    """Part of stable's pods that did not give way."""
    return 1.0 - min(gave_way, wanted) / wanted if wanted else 1.0


def _most(wanted: int, gave_way: int, full: int) -> int:
    """Most canary pods: all, unless only one stable pod is left, which stays through the bake."""
    return min(full, wanted - 1) if gave_way and gave_way >= wanted - 1 else full


def _why_none_gives_way(
    surge: Surge, wanted: int, asked: int, stable: Pods, load: Load, gave_way: int
) -> str:
    """Why no further stable pod may give way; empty: one may."""
    if surge is Surge.ALWAYS:
        return "rollout.surge is Always, so no stable pod gives way"
    if wanted == 1:
        return "the one stable pod cannot give way while it serves"
    left = wanted - gave_way - 1
    if left < 1:
        return "the last stable pod stays, as the way back"
    if gave_way >= asked:
        return f"{_pods(gave_way)} gave way already, and what that freed went elsewhere"
    if stable.ready < wanted - gave_way:
        return f"only {stable.ready} of {_pods(wanted - gave_way)} of stable are ready"
    if load.in_flight_per_pod is None:
        return "the load of stable is not known yet, so none of its pods gives way"
    # Little's law: the mean number in flight does not depend on how many pods share it.
    after = load.in_flight_per_pod * stable.ready / left
    limit = FULLEST * load.instances
    if after > limit:
        return (
            f"the load does not fit on {_pods(left)} of stable ({after:.2g} requests in flight "
            f"in each, {limit:.2g} is taken to fit)"
            + ("; smaller steps in rollout.steps need less at a time" if gave_way else "")
        )
    return ""


def _waiting(canary: Pods, surge: Surge, surge_wait_s: float, gave_way: int, blocked: str) -> str:
    """What is told while a canary pod finds no GPU."""
    if blocked:
        return f"{canary.waiting} Nothing makes room: {blocked}. {MEND}"
    if gave_way:
        return f"{canary.waiting} {_pods(gave_way)} of stable gave way to the new revision."
    if surge is Surge.ALWAYS:
        return f"{canary.waiting} rollout.surge is Always: it waits until there is room. {MEND}"
    # No countdown: a message that changes each second would be written each second.
    return (
        f"{canary.waiting} After {surge_wait_s:g} s (rollout.surgeWait) one stable pod gives way, "
        "if the load fits on the rest."
    )


def _swapped(gave_way: int, start_s: float | None) -> str:
    if not gave_way:
        return ""
    time = "" if start_s is None else f"; stable would be whole in about {math.ceil(start_s)} s"
    return f"{_pods(gave_way)} of stable gave way to the new revision{time}"


def _stable_first(
    wanted: int, share: float, stable: Pods, canary: Pods, gave_way: int, start_s: float | None
) -> Placement:
    """A stable pod finds no GPU: the canary keeps only what its traffic needs."""
    # As if they were stable's own pods: no more than its part of all the pods.
    needed = pods_for(share, wanted, 1.0 - share) if share > 0 else 0
    text = (
        f"{stable.ready} of {_pods(wanted - gave_way)} of stable are ready: {stable.waiting} "
        "Stable comes first, so the new revision takes no further GPU."
    )
    return Placement(
        wanted - gave_way,
        min(needed, canary.there, _most(wanted, gave_way, wanted)),
        gave_way,
        Mode.WAITING,
        "StableShort",
        text,
        start_s if gave_way else None,
    )


def _over(
    wanted: int,
    stable: Pods,
    canary: Pods,
    gave_way: int,
    start_s: float | None,
    keep_failed: bool,
) -> Placement:
    """No rollout any more: stable is whole, and what stood in its way goes."""
    if gave_way and stable.ready < wanted:
        time = "" if start_s is None else f", all in about {math.ceil(start_s)} s"
        text = f"stable gets its pods back: {stable.ready} of {wanted} are ready{time}"
        return Placement(wanted, 0, gave_way, Mode.SWAP, "StableShort", text, start_s)
    kept = min(canary.there, wanted) if keep_failed and not gave_way and not stable.waiting else 0
    return Placement(wanted, kept)


def _pods(number: int) -> str:
    return f"{number} pod" if number == 1 else f"{number} pods"
