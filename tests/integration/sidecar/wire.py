"""Requests to the knob and echo models, and the counters that the sidecar kept of them."""

import json
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from e2e.native.processes import Pod
from tidegate.resources.sidecar import STATS_FLUSH_MS, edge_ms

OK, ERROR = 0, 1
"""What the knob model does."""

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Counts:
    """The counters of one cluster, such as ``client_http``."""

    started: int = 0
    in_flight: int = 0
    overflow: int = 0
    unconnected: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    by_grpc_status: Counter[int] = field(default_factory=Counter)
    faster_than_ms: Counter[int | None] = field(default_factory=Counter)
    timed: int = 0

    def since(self, before: "Counts") -> "Counts":
        """What was added; the gauge stays as it is."""
        return Counts(
            self.started - before.started,
            self.in_flight,
            self.overflow - before.overflow,
            self.unconnected - before.unconnected,
            self.by_status - before.by_status,
            self.by_grpc_status - before.by_grpc_status,
            self.faster_than_ms - before.faster_than_ms,
            self.timed - before.timed,
        )

    @property
    def answered(self) -> int:
        """Requests that got a status."""
        return self.by_status.total()


def counts(pod: Pod, cluster: str) -> Counts:
    """The counters now, by the page that the operator reads."""
    with urllib.request.urlopen(f"{pod.internal}/stats/prometheus", timeout=10) as reply:
        page = reply.read().decode()
    plain: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    grpc_statuses: Counter[int] = Counter()
    faster: Counter[int | None] = Counter()
    for line in page.splitlines():
        if line.startswith("#") or not (match := _SAMPLE.match(line)):
            continue
        labels = dict(_LABEL.findall(match["labels"] or ""))
        if labels.get("envoy_cluster_name") != cluster:
            continue
        name, value = match["name"].removeprefix("envoy_cluster_"), int(float(match["value"]))
        if name == "upstream_rq":
            statuses[int(labels["envoy_response_code"])] += value
        elif name == "upstream_rq_time_bucket":
            faster[edge_ms(float(labels["le"]))] += value
        elif grpc := re.fullmatch(r"grpc_\w+_(\d+)", name):
            grpc_statuses[int(grpc[1])] += value
        else:
            plain[name] += value
    return Counts(
        started=plain["upstream_rq_total"],
        in_flight=plain["upstream_rq_active"] + plain["upstream_rq_pending_active"],
        overflow=plain["upstream_rq_active_overflow"],
        unconnected=plain["upstream_rq_pending_failure_eject"],
        by_status=statuses,
        by_grpc_status=grpc_statuses,
        faster_than_ms=faster,
        timed=plain["upstream_rq_time_count"],
    )


def quiet(pod: Pod, cluster: str) -> Counts:
    """The counters once nothing moves any more: the histogram is a flush behind the rest."""
    seen = counts(pod, cluster)
    while True:
        time.sleep(3 * STATS_FLUSH_MS / 1000)
        now = counts(pod, cluster)
        if now == seen:
            return now
        seen = now


def settled(pod: Pod, cluster: str, before: Counts, done: Callable[[Counts], bool]) -> Counts:
    """What was added since, once `done` says it is all there; else what there is after a while."""
    deadline = time.monotonic() + 30
    while True:
        added = counts(pod, cluster).since(before)
        if done(added) or time.monotonic() > deadline:
            return added
        time.sleep(0.05)


def knob(outcome: int = OK, seconds: float = 0.0) -> bytes:
    """The body of one request to the knob model."""
    return json.dumps(
        {
            "inputs": [
                {"name": "seconds", "datatype": "FP32", "shape": [1, 1], "data": [seconds]},
                {"name": "outcome", "datatype": "INT32", "shape": [1, 1], "data": [outcome]},
            ]
        }
    ).encode()


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str]


def call(
    url: str,
    body: bytes | None = None,
    *,
    headers: dict[str, str] | None = None,
    method: str | None = None,
    timeout_s: float = 120,
) -> Reply:
    """One HTTP request on a connection of its own; a refusal is an answer, too."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return Reply(reply.status, reply.read(), dict(reply.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read(), dict(error.headers))


def knob_inputs(outcome: int = OK, seconds: float = 0.0) -> list[Any]:
    """The same request for tritonclient."""
    wait = tritonclient.grpc.InferInput("seconds", [1, 1], "FP32")
    wait.set_data_from_numpy(np.array([[seconds]], np.float32))
    result = tritonclient.grpc.InferInput("outcome", [1, 1], "INT32")
    result.set_data_from_numpy(np.array([[outcome]], np.int32))
    return [wait, result]


def grpc_status(ask: Callable[[], Any]) -> str:
    """The gRPC status of a tritonclient call, such as ``OK`` or ``INTERNAL``."""
    try:
        ask()
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode.")
    return "OK"
