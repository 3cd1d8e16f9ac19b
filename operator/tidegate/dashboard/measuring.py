"""What the sidecars of one ModelDeployment count right now: requests, errors, latency. Pure.

For the eye: rates over the last seconds. The evidence that decides is the operator's, and stands in
status.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from tidegate.api import names
from tidegate.resources.sidecar import INTERNAL_PORT, TrafficClass
from tidegate.sidecar_page import NO_COUNTS, Reading

WINDOW_S: Final = 15.0
"""Rates are over so long."""
LEAST_TIMED: Final = 20
"""Fewer answers have no quantile worth showing."""
MAX_PODS: Final = 64
"""Of one ModelDeployment are read."""
DEFAULT_QUANTILE: Final = 0.99


class Pod(NamedTuple):
    """A pod that can be read.

    Attributes:
        uid: its UID.
        name: its name.
        revision: hash of its revision.
        address: ``host:port`` of its sidecar's read-only listener.
    """

    uid: str
    name: str
    revision: str
    address: str


def readable(pods: Iterable[Mapping[str, Any]]) -> list[Pod]:
    """The pods that have an address of their own and are not over.

    Args:
        pods: as the API server has them.
    """
    found = []
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status") or {}
        ip, revision = status.get("podIP"), (meta.get("labels") or {}).get(names.REVISION_LABEL)
        # One on the host's network would lead to whatever else listens on that node.
        shared = (pod.get("spec") or {}).get("hostNetwork")
        if not ip or not revision or shared or status.get("phase") in ("Succeeded", "Failed"):
            continue
        host = f"[{ip}]" if ":" in ip else ip
        found.append(Pod(meta["uid"], meta["name"], revision, f"{host}:{INTERNAL_PORT}"))
    return found[:MAX_PODS]


def in_ms(target: str) -> float | None:
    """A latency such as ``100ms`` or ``1.5s`` in milliseconds; None where it is none."""
    for unit, factor in (("ms", 1.0), ("s", 1000.0)):
        number = target.removesuffix(unit)
        if number != target:
            try:
                return float(number) * factor
            except ValueError:
                return None
    return None


@dataclass
class Speeds:
    """Recent readings of each pod, and what they come to by revision."""

    _pods: dict[str, deque[Reading]] = field(default_factory=dict)

    def observe(self, readings: Iterable[Reading], now_s: float) -> None:
        """Take one look at the pods in; those that were not read for a window are forgotten.

        Args:
            readings: of this look.
            now_s: seconds since the epoch.
        """
        for reading in readings:
            kept = self._pods.setdefault(reading.pod, deque())
            if kept and _fell(kept[-1], reading):
                kept.clear()  # its Envoy began anew
            kept.append(reading)
        for uid, kept in list(self._pods.items()):
            # One reading older than the window stays: from it the window's counts begin.
            while len(kept) > 2 and kept[1].at_s <= now_s - WINDOW_S:
                kept.popleft()
            if kept[-1].at_s < now_s - WINDOW_S:
                del self._pods[uid]

    def measured(self, quantile: float = DEFAULT_QUANTILE) -> dict[str, dict[str, Any]]:
        """By revision: requests a second, share of errors, latency quantile, requests in flight.

        Args:
            quantile: which one, between 0 and 1.
        """
        by_revision: dict[str, list[deque[Reading]]] = {}
        for kept in self._pods.values():
            by_revision.setdefault(kept[-1].revision, []).append(kept)
        return {hash_: _measured(pods, quantile) for hash_, pods in sorted(by_revision.items())}


def _measured(pods: Sequence[deque[Reading]], quantile: float) -> dict[str, Any]:
    rate_per_s, answered, failed, timed, in_flight = 0.0, 0, 0, 0, 0
    faster: dict[int, int] = {}
    moving = False
    for kept in pods:
        first, last = kept[0], kept[-1]
        seconds = last.at_s - first.at_s
        for traffic in (TrafficClass.CLIENT, TrafficClass.MIRRORED):
            then = first.classes.get(traffic, NO_COUNTS)
            now = last.classes.get(traffic, NO_COUNTS)
            in_flight += now.in_flight
            if seconds <= 0:
                continue
            moving = True
            rate_per_s += max(0, now.started - then.started) / seconds
            answered += now.answered - then.answered
            failed += now.failed - then.failed
            timed += now.timed - then.timed
            before = dict(zip(first.edges_ms, then.faster, strict=False))
            for edge, count in zip(last.edges_ms, now.faster, strict=False):
                faster[edge] = faster.get(edge, 0) + count - before.get(edge, 0)
    newest_s = max(kept[-1].at_s for kept in pods)
    return {
        "at": datetime.fromtimestamp(newest_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "requestsPerS": round(rate_per_s, 2) if moving else None,
        "errorShare": round(failed / answered, 6) if answered > 0 else None,
        "quantileMs": _quantile_ms(faster, timed, quantile),
        "inFlight": in_flight,
        "pods": len(pods),
    }


def _quantile_ms(faster: Mapping[int, int], timed: int, quantile: float) -> float | None:
    """About where the quantile lies: even within a bin; the last edge where it lies beyond."""
    if timed < LEAST_TIMED or not faster:
        return None
    wanted, below, low = quantile * timed, 0, 0
    for edge, count in sorted(faster.items()):
        if count >= wanted:
            part = (wanted - below) / (count - below) if count > below else 1.0
            return round(low + part * (edge - low), 1)
        below, low = count, edge
    return float(low)


def _fell(before: Reading, now: Reading) -> bool:
    if before.uptime_s is not None and now.uptime_s is not None and now.uptime_s < before.uptime_s:
        return True
    return any(
        now.classes.get(traffic, NO_COUNTS).answered < counts.answered
        for traffic, counts in before.classes.items()
    )
