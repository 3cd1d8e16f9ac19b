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

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

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
CONNECTION_AGE_JITTER: Final = 20.0
"""Per cent: clients that connected together do not come back together."""
GOAWAY_GRACE_S: Final = 5
"""Between the two GOAWAYs: a request on its way when the first was sent is still answered."""
DRAIN_IDLE_S: Final = 1
"""While draining, a connection idle for so long is closed, after `GOAWAY_GRACE_S` of notice."""
UPSTREAM_IDLE_S: Final = 1
"""A connection to Triton idle for so long is closed. At SIGTERM Triton waits for every open
connection, idle ones too, until its exit timeout: without this each pod would hold its GPU for that
long after its last request. Less than the drain's quiet time, and a new one on the loopback costs
less than 0.1 ms."""
CONNECT_TIMEOUT_S: Final = 30
"""To Triton on the loopback: longer than the 1 + 2 + 4 + 8 s of retries of a SYN that a full
accept queue dropped, so that a burst waits instead of failing."""
BUFFER_BYTES: Final = 256 << 10
"""Per connection and direction. Bodies of any size stream through; this bounds the memory."""
MAX_HEADERS_KIB: Final = 1024
MAX_HEADERS: Final = 1000
UNLIMITED: Final = 1_000_000
"""For limits that Envoy insists on: more than one pod can have in flight."""
MAX_STREAMS: Final = 2**31 - 1
LISTEN_BACKLOG: Final = 4096
"""Connections that may wait for accept: the kernel's own default ceiling (somaxconn)."""
WORKERS: Final = 2
"""Threads: a large tensor on one does not hold up the requests on the other."""


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


_URGENT: Final = frozenset({TrafficClass.CLIENT, TrafficClass.PINNED})
"""Classes whose requests may say that they are urgent."""

_GRPC_PREFIX = "/inference.GRPCInferenceService/"
_MODEL = r"/v2/models/[^/]+(/versions/[0-9]+)?"
_INFER = rf"{_MODEL}/(infer|generate)"
_STREAM = rf"{_MODEL}/generate_stream"
_READS = rf"/v2/?|/v2/health/(live|ready)|/v2/models/stats|{_MODEL}(/(ready|config|stats))?"
_CLOSED = (
    r"/v2/(repository|systemsharedmemory|cudasharedmemory|logging|trace)(/.*)?"
    r"|/v2/models/.*(sharedmemory|trace/setting|/load|/unload)"
)
_GRPC_READS = (
    r"/inference\.GRPCInferenceService/(ServerLive|ServerReady|ModelReady|ServerMetadata"
    r"|ModelMetadata|ModelStatistics|ModelConfig)|/grpc\.health\.v1\.Health/(Check|Watch)"
)
_GRPC_CLOSED = (
    r"/inference\.GRPCInferenceService/(Repository|SystemSharedMemory|CudaSharedMemory"
    r"|TraceSetting|LogSettings).*"
)

_STATS = (
    # Per class and protocol. Envoy's statuses are upstream_rq_<code>; the rest is named.
    r"cluster\.(client|pinned|mirrored|streaming|golden)_(http|grpc)\."
    r"(upstream_rq_([0-9]+|total|active|active_overflow|time|timeout|tx_reset|rx_reset"
    r"|pending_(active|overflow|failure_eject))|grpc\..*\.[0-9]+)"
    # The serving listener: what the drain waits for, and connections.
    rf"|http\.{SERVING_STATS}\.downstream_(rq_(active|total)|cx_(active|total|length_ms)"
    r"|cx_(drain_close|max_duration_reached))"
    r"|server\.(live|state|uptime|memory_allocated|memory_physical_size)"
)


def envoy_config(
    *,
    latency_target_ms: int | None = None,
    max_pending: int | None = None,
    reserved: int | None = None,
    revision: str = "",
    connection_age_s: int = CONNECTION_AGE_S,
    ports: Ports | None = None,
    listen_address: str = "0.0.0.0",
    drain_folder: str = DRAIN_FOLDER,
) -> dict[str, Any]:
    """Envoy's bootstrap for one revision's pods, as plain data; `render` makes the file.

    Args:
        latency_target_ms: the SLO's target; becomes one more bucket edge. None: no objective.
        max_pending: ``traffic.overload.max_pending``: requests in flight in one pod, for each
            class and protocol, before 503. None: no limit.
        reserved: ``traffic.overload.reserved``: the same for clients' requests with
            `PRIORITY_HEADER`, which Envoy counts apart. None: that header says nothing.
        revision: each answer to a client says so in `REVISION_HEADER`; empty: none does.
        connection_age_s: see `CONNECTION_AGE_S`.
        ports: others than those of a pod.
        listen_address: of both listeners; ``0.0.0.0`` in a pod.
        drain_folder: where the drain's signal appears.
    """
    ports = ports or Ports()
    clusters = [
        _cluster(
            cluster_name(traffic, protocol),
            {Protocol.HTTP: ports.triton_http, Protocol.GRPC: ports.triton_grpc}[protocol],
            http2=protocol is Protocol.GRPC,
            max_requests=None if traffic is TrafficClass.GOLDEN else max_pending,
            max_urgent=reserved if traffic in _URGENT else None,
        )
        for traffic in TrafficClass
        for protocol in Protocol
    ]
    return {
        "node": {"id": "tidegate-sidecar", "cluster": "tidegate"},
        "admin": {"address": _address("127.0.0.1", ports.admin)},
        "layered_runtime": {
            "layers": [
                {
                    "name": "tidegate",
                    # Envoy's guard against costly regexes of strangers; these are our own.
                    "static_layer": {"re2": {"max_program_size": {"error_level": 10_000}}},
                }
            ]
        },
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                {
                    # Envoy has no other way to be told "close what is idle", GOAWAY first.
                    "name": "envoy.resource_monitors.injected_resource",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
                        ".injected_resource.v3.InjectedResourceConfig",
                        "filename": f"{drain_folder}/{DRAIN_SIGNAL}",
                    },
                },
                {
                    # Said only because Envoy warns at every start of a limit left unsaid.
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": UNLIMITED,
                    },
                },
            ],
            "actions": [
                {
                    "name": "envoy.overload_actions.reduce_timeouts",
                    "triggers": [
                        {
                            "name": "envoy.resource_monitors.injected_resource",
                            "threshold": {"value": 0.5},
                        }
                    ],
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.config.overload.v3"
                        ".ScaleTimersOverloadActionConfig",
                        "timer_scale_factors": [
                            {
                                "timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE",
                                "min_timeout": f"{DRAIN_IDLE_S}s",
                            }
                        ],
                    },
                }
            ],
        },
        "stats_flush_interval": f"{STATS_FLUSH_MS / 1000}s",
        "stats_config": {
            "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": _STATS}}]}},
            "histogram_bucket_settings": [
                {
                    "match": {"suffix": "upstream_rq_time"},
                    "buckets": [bucket_le(edge) for edge in latency_edges_ms(latency_target_ms)],
                }
            ],
        },
        "static_resources": {
            "listeners": [
                _listener(
                    "serving",
                    listen_address,
                    ports.serving,
                    _serving_routes(urgent=reserved is not None),
                    answered={REVISION_HEADER: revision} if revision else {},
                    manager={
                        "stat_prefix": SERVING_STATS,
                        "access_log": [_FAILURE_LOG],
                        # Safe: says `Connection: close` with the next answer, never cuts one off.
                        "http1_safe_max_connection_duration": True,
                        "common_http_protocol_options": {
                            "max_connection_duration": f"{connection_age_s}s",
                            "max_connection_duration_jitter": {"value": CONNECTION_AGE_JITTER},
                            "max_headers_count": MAX_HEADERS,
                        },
                    },
                ),
                _listener(
                    "mirror",
                    listen_address,
                    ports.mirror,
                    [*_inference_routes(TrafficClass.MIRRORED, []), *_closed_routes()],
                    manager={
                        "stat_prefix": "mirror",
                        "access_log": [_FAILURE_LOG],
                        "common_http_protocol_options": {"max_headers_count": MAX_HEADERS},
                    },
                ),
                _listener(
                    "internal",
                    listen_address,
                    ports.internal,
                    _internal_routes(),
                    manager={
                        "stat_prefix": "internal",
                        "common_http_protocol_options": {"max_headers_count": MAX_HEADERS},
                    },
                )
                # Goes on answering probes and scrapes while the serving one drains.
                | {"drain_type": "MODIFY_ONLY"},
            ],
            "clusters": [
                *clusters,
                _cluster("reads_http", ports.triton_http, http2=False),
                _cluster("reads_grpc", ports.triton_grpc, http2=True),
                _cluster("triton_metrics", ports.triton_metrics, http2=False),
                _cluster("admin", ports.admin, http2=False),
            ],
        },
    }


def latency_edges_ms(target_ms: int | None) -> list[int]:
    """The ladder of bucket edges in ms, ascending, with the SLO's target among them."""
    return sorted({*LATENCY_EDGES_MS, *([] if target_ms is None else [target_ms])})


def bucket_le(edge: int) -> float:
    """The label ``le`` of the bucket that counts answers faster than `edge` ms (module's text)."""
    return edge - 0.5


def edge_ms(le: float) -> int | None:
    """The inverse of `bucket_le`: milliseconds; None for the last bucket, ``+Inf``."""
    return None if math.isinf(le) else math.ceil(le)


def render(config: dict[str, Any]) -> str:
    """Envoy's file: canonical JSON (keys sorted), which is YAML too. Equal data, equal bytes."""
    return json.dumps(config, sort_keys=True, indent=1) + "\n"


def envoy_args(config_path: str = CONFIG_PATH) -> list[str]:
    """Arguments of the ``envoy`` binary."""
    return [
        *("--config-path", config_path),
        *("--concurrency", str(WORKERS)),
        # Hot restart wants shared memory, and a pod's Envoy is never restarted in place.
        "--disable-hot-restart",
        *("--drain-time-s", str(GOAWAY_GRACE_S)),
        *("--drain-strategy", "immediate"),
        *("--log-level", "warning"),
        # Failed requests show in the log within a second (otherwise ten).
        *("--file-flush-interval-msec", "1000"),
    ]


def _serving_routes(*, urgent: bool) -> list[dict[str, Any]]:
    classes: tuple[tuple[TrafficClass, list[dict[str, Any]]], ...] = (
        (TrafficClass.PINNED, [{"name": PIN_HEADER, "present_match": True}]),
        (TrafficClass.CLIENT, []),
    )
    inference = [r for traffic, headers in classes for r in _inference_routes(traffic, headers)]
    return [
        *(_urgent(route) for route in inference if urgent),
        *inference,
        _grpc_route(
            {"path": f"{_GRPC_PREFIX}ModelStreamInfer"},
            cluster_name(TrafficClass.STREAMING, Protocol.GRPC),
        ),
        _http_route(_STREAM, "POST", cluster_name(TrafficClass.STREAMING, Protocol.HTTP)),
        *_read_routes(),
        *_closed_routes(),
    ]


def _urgent(route: dict[str, Any]) -> dict[str, Any]:
    """The same route for urgent requests: Envoy counts and limits a priority by itself."""
    match = route["match"]
    says_so = {"name": PRIORITY_HEADER, "string_match": {"exact": "high"}}
    return {
        "match": match | {"headers": [*match.get("headers", []), says_so]},
        "route": route["route"] | {"priority": "HIGH"},
    }


def _internal_routes() -> list[dict[str, Any]]:
    return [
        *_inference_routes(TrafficClass.GOLDEN, []),
        *_read_routes(),
        _http_route(REPOSITORY_INDEX_PATH, "POST", "reads_http"),
        _grpc_route({"path": f"{_GRPC_PREFIX}RepositoryIndex"}, "reads_grpc"),
        _http_route(TRITON_METRICS_PATH, "GET", "triton_metrics"),
        _http_route(SIDECAR_METRICS_PATH, "GET", "admin"),
        _http_route(READY_PATH, "GET", "admin", prefix_rewrite="/ready"),
        # Any admin page that costs nothing and never says no.
        _http_route(LIVE_PATH, "GET", "admin", prefix_rewrite="/hot_restart_version"),
        *_closed_routes(),
    ]


def _inference_routes(traffic: TrafficClass, headers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        _grpc_route(
            {"path": f"{_GRPC_PREFIX}ModelInfer", "headers": headers},
            cluster_name(traffic, Protocol.GRPC),
        ),
        _http_route(_INFER, "POST", cluster_name(traffic, Protocol.HTTP), headers),
    ]


def _read_routes() -> list[dict[str, Any]]:
    return [
        _http_route(_READS, "GET", "reads_http"),
        _grpc_route({"safe_regex": {"regex": _GRPC_READS}}, "reads_grpc"),
    ]


def _closed_routes() -> list[dict[str, Any]]:
    """403 for what is closed on purpose, 405 for a known path, 404 for the rest.

    Envoy turns them into gRPC statuses for gRPC clients: PERMISSION_DENIED and UNIMPLEMENTED.
    """
    return [
        _refusal({"safe_regex": {"regex": f"{_CLOSED}|{_GRPC_CLOSED}"}}, 403, "closed by Tidegate"),
        _refusal({"safe_regex": {"regex": f"{_INFER}|{_STREAM}"}}, 405, "use POST"),
        _refusal({"safe_regex": {"regex": _READS}}, 405, "use GET"),
        _refusal({"prefix": "/"}, 404, "no such path"),
    ]


def _grpc_route(match: dict[str, Any], cluster: str) -> dict[str, Any]:
    return {"match": match | {"grpc": {}}, "route": _NO_LIMITS | {"cluster": cluster}}


def _http_route(
    path_regex: str,
    method: str,
    cluster: str,
    headers: list[dict[str, Any]] | None = None,
    **action: Any,
) -> dict[str, Any]:
    exact_method = {"name": ":method", "string_match": {"exact": method}}
    return {
        "match": {
            "safe_regex": {"regex": path_regex},
            "headers": [exact_method, *(headers or [])],
        },
        "route": _NO_LIMITS | {"cluster": cluster} | action,
    }


def _headers(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "header": {"key": key, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for key, value in values.items()
    ]


def _refusal(match: dict[str, Any], status: int, why: str) -> dict[str, Any]:
    return {
        "match": match,
        "direct_response": {
            "status": status,
            # The shape of Triton's own errors.
            "body": {"inline_string": json.dumps({"error": why})},
        },
        "response_headers_to_add": _headers({"content-type": "application/json"}),
    }


_NO_LIMITS: Final[dict[str, Any]] = {"timeout": "0s", "idle_timeout": "0s"}

MESSAGE_BYTES: Final = 512
"""Of an error's text that reaches the log."""
_MESSAGE_METADATA: Final = "tidegate"
_ERROR_MESSAGE: Final[dict[str, Any]] = {
    # Triton says in the body of an error what is wrong. Envoy's log has no field for a body, so
    # that of an error is read on its way; answers that are none pass untouched. A 503 of Triton's
    # (its queue is full, or a request waited too long) says when to come back, too.
    "name": "envoy.filters.http.lua",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {
            "inline_string": f"""function envoy_on_response(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(":status"))
  if status == nil or status < 400 then
    return
  end
  if status == 503 and not headers:get("retry-after") then
    headers:add("retry-after", "{RETRY_AFTER_S}")
  end
  local length = tonumber(headers:get("content-length") or "")
  if length == nil or length > {MESSAGE_BYTES * 32} then
    return
  end
  local body = handle:body()
  if body ~= nil then
    local text = body:getBytes(0, math.min(body:length(), {MESSAGE_BYTES}))
    handle:streamInfo():dynamicMetadata():set("{_MESSAGE_METADATA}", "message", text)
  end
end
"""
        },
    },
}

_OVERLOADED: Final = (
    "as many requests are in flight as this pod takes (traffic.overload.maxPending); try again"
)


def _overload_reply(extra: list[dict[str, Any]], headers: dict[str, str]) -> dict[str, Any]:
    """What a request beyond the limit of its cluster is answered (flag UO)."""
    return {
        "filter": {
            "and_filter": {
                "filters": [{"response_flag_filter": {"flags": ["UO"]}}, *extra],
            }
        }
        if extra
        else {"response_flag_filter": {"flags": ["UO"]}},
        "body": {"inline_string": _OVERLOADED},
        "headers_to_add": _headers(headers),
    }


_IS_GRPC: Final[dict[str, Any]] = {
    "header_filter": {
        "header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    }
}
_LOCAL_REPLIES: Final[dict[str, Any]] = {
    "mappers": [
        # The first that fits. Envoy's own status would be UNAVAILABLE; the second header is what
        # gRPC's own retries read.
        _overload_reply(
            [_IS_GRPC],
            {
                "grpc-status": "8",
                "retry-after": f"{RETRY_AFTER_S}",
                "grpc-retry-pushback-ms": f"{RETRY_AFTER_S * 1000}",
            },
        ),
        # The shape of Triton's own errors.
        _overload_reply([], {"retry-after": f"{RETRY_AFTER_S}"})
        | {"body_format_override": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}},
    ]
}

_FAILURE_LOG: Final[dict[str, Any]] = {
    "name": "envoy.access_loggers.stdout",
    # Statuses from 400, gRPC statuses other than OK, and whatever Envoy flags (a client that
    # left, a broken connection). Successes cost nothing.
    "filter": {
        "or_filter": {
            "filters": [
                {
                    "status_code_filter": {
                        "comparison": {
                            "op": "GE",
                            "value": {"default_value": 400, "runtime_key": "log.least_status"},
                        }
                    }
                },
                {"response_flag_filter": {}},
                {
                    "and_filter": {
                        "filters": [
                            {
                                "header_filter": {
                                    "header": {
                                        "name": "content-type",
                                        "string_match": {"prefix": "application/grpc"},
                                    }
                                }
                            },
                            {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}},
                        ]
                    }
                },
            ]
        }
    },
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {
            "json_format": {
                "time": "%START_TIME%",
                "id": "%REQ(X-REQUEST-ID):128%",
                "class": "%UPSTREAM_CLUSTER_RAW%",
                "method": "%REQ(:METHOD)%",
                "path": "%PATH(NQ):256%",
                "code": "%RESPONSE_CODE%",
                "grpc": "%GRPC_STATUS%",
                "message": f"%DYNAMIC_METADATA({_MESSAGE_METADATA}:message)%",
                "grpc_message": f"%TRAILER(GRPC-MESSAGE):{MESSAGE_BYTES}%",
                "grpc_error": f"%RESP(GRPC-MESSAGE):{MESSAGE_BYTES}%",
                "duration_ms": "%DURATION%",
                "flags": "%RESPONSE_FLAGS%",
                "detail": "%RESPONSE_CODE_DETAILS%",
                "bytes_in": "%BYTES_RECEIVED%",
                "bytes_out": "%BYTES_SENT%",
            },
            "omit_empty_values": True,
        },
    },
}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(
    name: str,
    host: str,
    port: int,
    routes: list[dict[str, Any]],
    *,
    manager: dict[str, Any],
    answered: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    virtual_host: dict[str, Any] = {"name": name, "domains": ["*"], "routes": routes}
    if answered:
        virtual_host["response_headers_to_add"] = _headers(answered)
    connection_manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO",
        "route_config": {
            "name": name,
            "virtual_hosts": [virtual_host],
        },
        "http_filters": [
            _ERROR_MESSAGE,
            {
                "name": "envoy.filters.http.grpc_stats",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http"
                    ".grpc_stats.v3.FilterConfig",
                    "individual_method_stats_allowlist": {
                        "services": [
                            {
                                "name": "inference.GRPCInferenceService",
                                "method_names": ["ModelInfer", "ModelStreamInfer"],
                            }
                        ]
                    },
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "http_protocol_options": {"accept_http_10": True},
        "http2_protocol_options": {"max_concurrent_streams": MAX_STREAMS},
        "max_request_headers_kb": MAX_HEADERS_KIB,
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "drain_timeout": f"{GOAWAY_GRACE_S}s",
        "normalize_path": True,
        "merge_slashes": True,
        "server_header_transformation": "PASS_THROUGH",
        "local_reply_config": _LOCAL_REPLIES,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        **manager,
    }
    return {
        "name": name,
        "address": _address(host, port),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "tcp_backlog_size": LISTEN_BACKLOG,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": connection_manager,
                    }
                ]
            }
        ],
    }


def _cluster(
    name: str,
    port: int,
    *,
    http2: bool,
    max_requests: int | None = None,
    max_urgent: int | None = None,
) -> dict[str, Any]:
    # Only requests are limited by `max_pending`; connections follow them.
    thresholds = [
        {
            "priority": priority,
            "max_connections": UNLIMITED,
            "max_pending_requests": UNLIMITED,
            "max_requests": UNLIMITED if limit is None else limit,
            "max_retries": 0,
        }
        for priority, limit in (("DEFAULT", max_requests), ("HIGH", max_urgent))
    ]
    protocol = (
        {"http2_protocol_options": {"max_concurrent_streams": MAX_STREAMS}}
        if http2
        else {"http_protocol_options": {}}
    )
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "circuit_breakers": {"thresholds": thresholds},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address("127.0.0.1", port)}}]}
            ],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3"
                ".HttpProtocolOptions",
                "common_http_protocol_options": {
                    "max_headers_count": MAX_HEADERS,
                    "max_response_headers_kb": MAX_HEADERS_KIB,
                    "idle_timeout": f"{UPSTREAM_IDLE_S}s",
                },
                "explicit_http_config": protocol,
            }
        },
    }
