"""What the sidecar lets through, to where, and what it closes. Pure."""

import json
from typing import Any, Final

from tidegate.resources.envoy_answers import (
    headers_to_add,
)
from tidegate.resources.sidecar import (
    LIVE_PATH,
    PIN_HEADER,
    PRIORITY_HEADER,
    READY_PATH,
    REPOSITORY_INDEX_PATH,
    SIDECAR_METRICS_PATH,
    TRITON_METRICS_PATH,
    Protocol,
    TrafficClass,
    cluster_name,
)

_NO_LIMITS: Final[dict[str, Any]] = {"timeout": "0s", "idle_timeout": "0s"}
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


def serving_routes(*, urgent: bool) -> list[dict[str, Any]]:
    """Of the serving listener; with `urgent`, `PRIORITY_HEADER` says something."""
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


def mirror_routes() -> list[dict[str, Any]]:
    """Of the listener for a gateway's copies: inference and nothing else."""
    return [*_inference_routes(TrafficClass.MIRRORED, []), *_closed_routes()]


def internal_routes() -> list[dict[str, Any]]:
    """Of the internal listener."""
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


def _refusal(match: dict[str, Any], status: int, why: str) -> dict[str, Any]:
    return {
        "match": match,
        "direct_response": {
            "status": status,
            # The shape of Triton's own errors.
            "body": {"inline_string": json.dumps({"error": why})},
        },
        "response_headers_to_add": headers_to_add({"content-type": "application/json"}),
    }
