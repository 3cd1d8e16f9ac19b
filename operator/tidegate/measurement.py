"""Counters of a pod's sidecar, and what happened between two readings of them.

A reading is what one page of counters says, from the pod itself or from Prometheus: cumulative
since Envoy started. Two readings of a pod give a `tidegate.analysis.block.Tally` of what lies
between; tallies of pods add up to those of a revision. The same formulas serve both sources. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.resources.sidecar import TrafficClass


@dataclass(frozen=True)
class Counts:
    """Cumulative counters of one class of traffic in one pod, HTTP and gRPC together.

    Attributes:
        started: arrived, refused ones included.
        succeeded: answered well.
        client_errors: answered with a status that blames the request (4xx, INVALID_ARGUMENT ...).
        failed: answered with a status that blames the server, refusals for overload included.
        in_flight: not answered yet (a gauge).
        faster: answered in less than each of the reading's edges, ascending with them.
    """

    started: int = 0
    succeeded: int = 0
    client_errors: int = 0
    failed: int = 0
    in_flight: int = 0
    faster: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One look at one pod's counters.

    Attributes:
        pod: its UID.
        revision: hash of its revision.
        at_s: when, seconds since the epoch.
        edges_ms: the latency bounds that are counted, ascending.
        classes: the counters of each class of traffic.
        uptime_s: Envoy's own age, by which a restart shows; None: unknown.
    """

    pod: str
    revision: str
    at_s: float
    edges_ms: tuple[int, ...]
    classes: Mapping[TrafficClass, Counts]
    uptime_s: float | None = None
