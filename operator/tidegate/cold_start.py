"""How long a pod takes from being asked for until it serves, phase by phase.

Read from what the pod itself says, so it is known for every pod and by any operator: creation,
conditions, containers' start and end. Kubernetes keeps whole seconds; each phase ends where the
next one begins, so that they add up to the whole.

========== =========================================================================================
schedule   creation to being bound to a node: a free GPU, quota, a new node
image      sandbox, volumes, images: all time in which no container of ours did its work
fetch      the model's files: download or cache, checking, laying out
load       Triton's process to models loaded, warm-up included (Triton opens its port after both,
           and says nothing in between), and the probe that finds it so
ready      all containers ready to pod Ready: readiness gates
========== =========================================================================================

A pod whose containers were started again tells of a failure, not of a usual start, and says
nothing here. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Any, Final

from tidegate.diagnosis import fetch_result, is_ready
from tidegate.observed import Object
from tidegate.resources.pod import COPY_MODEL, ENVOY, FETCH, TRITON


@dataclass(frozen=True)
class Phases:
    """Seconds of each phase, in order."""

    schedule: float = 0.0
    image: float = 0.0
    fetch: float = 0.0
    load: float = 0.0
    ready: float = 0.0

    @property
    def total(self) -> float:
        """Of all of them."""
        return self.schedule + self.image + self.fetch + self.load + self.ready

    def __str__(self) -> str:
        """Such as "schedule 0 s, image 4 s, fetch 21 s, load 9 s"; the last only if there is any.

        The text is the same for what differs by less than a second.
        """
        told = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return ", ".join(f"{n} {s:.0f} s" for n, s in told if n != "ready" or round(s))


@dataclass(frozen=True)
class ColdStart:
    """One pod's start.

    Attributes:
        phases: seconds of each.
        cached: the model came from the shared cache.
        ready_at_s: when it was over, seconds since the epoch.
    """

    phases: Phases
    cached: bool
    ready_at_s: float


@dataclass(frozen=True)
class Summary:
    """The starts of a revision's pods.

    Attributes:
        pods: how many.
        median_s: of the whole start.
        largest_s: of the whole start.
        phases: the median of each phase; need not add up to the median of the whole.
    """

    pods: int
    median_s: float
    largest_s: float
    phases: Phases


def cold_start(pod: Object) -> ColdStart | None:
    """What a pod's start took; None while it is not over, or if it was no usual one."""
    created = _at((pod.get("metadata") or {}).get("creationTimestamp"))
    found = _containers(pod)
    fetch, triton = found.get(FETCH), found.get(TRITON)
    if created is None or fetch is None or triton is None:
        return None
    if any((c.get("restartCount") or 0) for n, c in found.items() if n in _OURS):
        return None
    first = found.get(COPY_MODEL) or fetch
    moments = (
        _true_since(pod, "PodScheduled"),
        _at(_state(first, "terminated").get("startedAt")),
        _at(_state(fetch, "terminated").get("finishedAt")),
        _at(_state(triton, "running").get("startedAt")),
        _true_since(pod, "ContainersReady"),
        _true_since(pod, "Ready"),
    )
    result = fetch_result(pod)
    if result is None:
        return None
    # Clocks of several machines, in whole seconds: a phase may look shorter than nothing.
    ends = [created]
    for moment in moments:
        if moment is None:
            return None
        ends.append(max(moment, ends[-1]))
    schedule, before, fetching, between, load, ready = (
        end - start for start, end in pairwise(ends)
    )
    phases = Phases(schedule, before + between, fetching, load, ready)
    return ColdStart(phases, result.cached, ends[-1])


_OURS: Final = frozenset({COPY_MODEL, FETCH, ENVOY, TRITON})


class Starts:
    """Starts that were seen from their beginning, of one ModelDeployment's pods.

    A pod that had started before it was first looked at may not have been ready for a while since,
    and then says that it became ready so late. Such a one tells nothing here.
    """

    def __init__(self) -> None:
        self._starting: set[str] = set()
        self._others: set[str] = set()
        self._seen: dict[str, float] = {}

    def look(self, pods: Iterable[Object]) -> Mapping[str, float]:
        """Take in all pods as they are now; by UID, the seconds of starts that were seen."""
        there = {str(pod["metadata"]["uid"]): pod for pod in pods}
        self._starting &= there.keys()
        self._others &= there.keys()
        self._seen = {uid: seconds for uid, seconds in self._seen.items() if uid in there}
        for uid in there.keys() - self._others - self._seen.keys() - self._starting:
            (self._others if _has_started(there[uid]) else self._starting).add(uid)
        for uid in sorted(self._starting):
            pod = there[uid]
            if not is_ready(pod):
                continue
            self._starting.remove(uid)
            start = cold_start(pod)
            if start is None:  # no usual one
                self._others.add(uid)
            else:
                self._seen[uid] = start.phases.total
        return dict(self._seen)


def _has_started(pod: Object) -> bool:
    """Whether it is ready, or was: its model's startup probe has passed."""
    return is_ready(pod) or bool((_containers(pod).get(TRITON) or {}).get("started"))


def summarise(starts: Iterable[ColdStart]) -> Summary | None:
    """Median and largest; None without any."""
    phases = [start.phases for start in starts]
    if not phases:
        return None
    totals = [each.total for each in phases]
    typical = {f.name: median(getattr(each, f.name) for each in phases) for f in fields(Phases)}
    return Summary(len(phases), median(totals), max(totals), Phases(**typical))


def _containers(pod: Object) -> dict[str, Mapping[str, Any]]:
    status = pod.get("status") or {}
    keys = ("initContainerStatuses", "containerStatuses")
    return {c["name"]: c for key in keys for c in status.get(key) or ()}


def _state(container: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (container.get("state") or {}).get(kind) or {}
    return found


def _true_since(pod: Object, kind: str) -> float | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == "True":
            return _at(condition.get("lastTransitionTime"))
    return None


def _at(text: Any) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None
