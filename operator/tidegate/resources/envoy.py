"""Envoy's configuration; `tidegate.resources.sidecar` says what the sidecar is for. Pure."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from tidegate.resources.envoy_answers import (
    ERROR_MESSAGE,
    FAILURE_LOG,
    LOCAL_REPLIES,
    headers_to_add,
)
from tidegate.resources.envoy_routes import internal_routes, mirror_routes, serving_routes
from tidegate.resources.sidecar import (
    CONFIG_PATH,
    CONNECTION_AGE_S,
    DRAIN_FOLDER,
    DRAIN_IDLE_S,
    DRAIN_SIGNAL,
    GOAWAY_GRACE_S,
    REVISION_HEADER,
    SERVING_STATS,
    STATS_FLUSH_MS,
    Ports,
    Protocol,
    TrafficClass,
    bucket_le,
    cluster_name,
    latency_edges_ms,
)

CONNECTION_AGE_JITTER: Final = 20.0
"""Per cent: clients that connected together do not come back together."""
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
_URGENT: Final = frozenset({TrafficClass.CLIENT, TrafficClass.PINNED})
"""Classes whose requests may say that they are urgent."""
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
                    serving_routes(urgent=reserved is not None),
                    answered={REVISION_HEADER: revision} if revision else {},
                    manager={
                        "stat_prefix": SERVING_STATS,
                        "access_log": [FAILURE_LOG],
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
                    mirror_routes(),
                    manager={
                        "stat_prefix": "mirror",
                        "access_log": [FAILURE_LOG],
                        "common_http_protocol_options": {"max_headers_count": MAX_HEADERS},
                    },
                ),
                _listener(
                    "internal",
                    listen_address,
                    ports.internal,
                    internal_routes(),
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


@lru_cache(maxsize=32)
def envoy_file(
    latency_target_ms: int | None, max_pending: int | None, reserved: int | None, revision: str
) -> str:
    """Envoy's file in one revision's pods: `render` of `envoy_config` with these, remembered.

    Until a revision is recorded each pass lets it be born again, and this is most of that.
    """
    return render(
        envoy_config(
            latency_target_ms=latency_target_ms,
            max_pending=max_pending,
            reserved=reserved,
            revision=revision,
        )
    )


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
        virtual_host["response_headers_to_add"] = headers_to_add(answered)
    connection_manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO",
        "route_config": {
            "name": name,
            "virtual_hosts": [virtual_host],
        },
        "http_filters": [
            ERROR_MESSAGE,
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
        "local_reply_config": LOCAL_REPLIES,
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
