"""The Envoy beside each Triton: the pod's only door, and the place where requests are counted.

Three listeners. The *serving* one takes HTTP/1 and gRPC on one port and lets through inference and
the read-only calls of Triton's API; everything that changes the server (model repository, shared
memory, log and trace settings) answers 403. The *internal* one is for the kubelet, the operator
and Prometheus: probes, statistics, metrics of both processes, the repository index, and golden
requests, which must not be counted as a client's.

**What is counted.** Each inference goes to Triton through a cluster (Envoy's word for an upstream
with its own counters) named ``<class>_<protocol>``, so that one page of counters tells clients,
pinned requests, mirrored copies, golden requests and streams apart. Clusters were chosen over
virtual clusters: they also know what is *in flight*, so that a request a client gave up on can be
told from one that Triton still owes an answer, and the statuses of gRPC (always HTTP 200) exist
per cluster only. For class ``c`` and protocol ``p``, with ``envoy_cluster_name="c_p"``:

===================================================== ============================================
``envoy_cluster_upstream_rq_total``                   started: handed to Triton (counter)
``envoy_cluster_upstream_rq_active_overflow``         refused by ``max_pending``, 503 (counter)
``envoy_cluster_upstream_rq_pending_failure_eject``   no connection to Triton, 503 (counter)
``envoy_cluster_upstream_rq_active`` (+               in flight (gauge); ``_pending_active`` are
``_pending_active``)                                  those still waiting for a connection
``envoy_cluster_upstream_rq{envoy_response_code}``    answered, by HTTP status, with the 503 above
``envoy_cluster_grpc_ModelInfer_<code>``              answered over gRPC, by gRPC status
``envoy_cluster_upstream_rq_time_bucket{le}``         answered, by milliseconds from the end of the
                                                      request's body to the end of the answer
===================================================== ============================================

Over gRPC a refusal is RESOURCE_EXHAUSTED (8), which Triton itself never answers.

Arrivals are the first three and ``_pending_active`` together. A request that its client gave up
leaves ``started`` without ever reaching a status: given up = started - answered - in flight.

A bucket is exact, if one knows how: Envoy keeps whole milliseconds (rounded down) in bins of two
significant digits, and a bucket's count takes in every bin that *begins* at or below its edge, so
``le="120"`` holds answers of up to 129 ms. Edges here lie half a millisecond below a number of at
most two significant digits: ``le="119.5"`` counts exactly the answers that took less than 120 ms
(`bucket_le`, `edge_ms`).

Pure: builds data, reads nothing.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SERVING_PORT: Final = 8080
MIRROR_PORT: Final = 8081
"""For copies of live requests. A port of their own tells them from clients' whatever the gateway:
not all mark a copy, and Envoy Gateway switches Envoy's own mark off (``-shadow`` on the Host)."""
INTERNAL_PORT: Final = 9091
ADMIN_PORT: Final = 9901
"""On 127.0.0.1 only."""
TRITON_HTTP_PORT: Final = 8000
TRITON_GRPC_PORT: Final = 8001
TRITON_METRICS_PORT: Final = 8002
CONFIG_PATH: Final = "/etc/tidegate/sidecar/envoy.yaml"
PIN_HEADER: Final = "x-tidegate-pin"
"""Set by the route on requests that were sent to this revision by name, not by weight."""
REVISION_HEADER: Final = "x-tidegate-revision"
"""Of answers: which revision gave it, for whoever later reports how good it was."""
PRIORITY_HEADER: Final = "x-tidegate-priority"
"""Set to ``high`` by clients whose requests may use what ``traffic.overload.reserved`` adds."""
RETRY_AFTER_S: Final = 1
"""What a refused client is told to wait, at least. Overload of a pod that is about to get company
lasts longer, but a client that stays away longer than the backlog leaves capacity unused."""
SERVING_STATS: Final = "serving"
"""Prefix of the serving listener's own counters: ``http.serving.downstream_rq_active`` ..."""
DRAIN_FOLDER: Final = "/run/tidegate"
"""An emptyDir that Triton's and Envoy's containers share: the drain's signal (see `drain`)."""
DRAIN_SIGNAL: Final = "pressure"
"""File in it, moved there whole: 1.0 makes Envoy close idle connections, 0.0 takes that back."""
READY_PATH: Final = "/sidecar/ready"
"""Internal listener: 200 once Envoy itself serves, 503 again while it drains."""
LIVE_PATH: Final = "/sidecar/live"
"""Internal listener: 200 as long as Envoy's workers and its main thread answer."""
TRITON_LIVE_PATH: Final = "/v2/health/live"
TRITON_READY_PATH: Final = "/v2/health/ready"
TRITON_METRICS_PATH: Final = "/metrics"
SIDECAR_METRICS_PATH: Final = "/stats/prometheus"
REPOSITORY_INDEX_PATH: Final = "/v2/repository/index"
"""Internal listener, POST: the state of every model, with Triton's reason where one is missing."""
LATENCY_EDGES_MS: Final = (
    *(1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700),
    *(1_000, 1_500, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000),
    *(60_000, 120_000, 300_000, 600_000),
)
"""Bucket edges of every revision, whatever its SLO, so that revisions compare bucket by bucket.

Neighbours differ by a factor of at most 2 up to 20 s, which bounds the error of a quantile read
from them; all have at most two significant digits (see the module's text).
"""
STATS_FLUSH_MS: Final = 250
"""Histograms reach the statistics page this late; counters and gauges at once."""
CONNECTION_AGE_S: Final = 30
"""A client's connection is asked to close (GOAWAY, ``Connection: close``) at this age.

A ClusterIP spreads connections, not requests: without it a gRPC client stays with one pod for
ever and sees neither a new weight nor a scale-up. One reconnect in 30 s costs nothing measurable.
"""
GOAWAY_GRACE_S: Final = 5
"""Between the two GOAWAYs: a request on its way when the first was sent is still answered."""
DRAIN_IDLE_S: Final = 1
"""While draining, a connection idle for so long is closed, after `GOAWAY_GRACE_S` of notice."""


@dataclass(frozen=True)
class Ports:
    """Where everybody in a pod listens."""

    serving: int = SERVING_PORT
    mirror: int = MIRROR_PORT
    internal: int = INTERNAL_PORT
    admin: int = ADMIN_PORT
    triton_http: int = TRITON_HTTP_PORT
    triton_grpc: int = TRITON_GRPC_PORT
    triton_metrics: int = TRITON_METRICS_PORT


class TrafficClass(StrEnum):
    """Whose request it is; each is counted apart."""

    CLIENT = "client"
    """Sent by weight: its share is the rollout's share, and it is evidence."""
    PINNED = "pinned"
    """Sent to this revision by name (`PIN_HEADER`): says nothing about shares."""
    MIRRORED = "mirrored"
    """A gateway's copy of a client's request (it came by `MIRROR_PORT`): evidence only."""
    STREAMING = "streaming"
    """ModelStreamInfer and generate_stream: one stream is many requests, latency means nothing."""
    GOLDEN = "golden"
    """The operator's own, through the internal listener."""


class Protocol(StrEnum):
    """How a request came; gRPC has statuses of its own."""

    HTTP = "http"
    GRPC = "grpc"


def cluster_name(traffic: TrafficClass, protocol: Protocol) -> str:
    """The label ``envoy_cluster_name`` of one class and protocol, such as ``client_http``."""
    return f"{traffic}_{protocol}"


def latency_edges_ms(target_ms: int | None) -> list[int]:
    """The ladder of bucket edges in ms, ascending, with the SLO's target among them."""
    return sorted({*LATENCY_EDGES_MS, *([] if target_ms is None else [target_ms])})


def bucket_le(edge: int) -> float:
    """The label ``le`` of the bucket that counts answers faster than `edge` ms (module's text)."""
    return edge - 0.5


def edge_ms(le: float) -> int | None:
    """The inverse of `bucket_le`: milliseconds; None for the last bucket, ``+Inf``."""
    return None if math.isinf(le) else math.ceil(le)
