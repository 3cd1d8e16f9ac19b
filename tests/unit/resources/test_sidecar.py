"""The sidecar's configuration as data; what Envoy makes of it is tested in tests/integration."""

import itertools
import json
import re
from typing import Any

import pytest

from tidegate.resources.envoy import envoy_args, envoy_config, render
from tidegate.resources.sidecar import (
    CONFIG_PATH,
    LATENCY_EDGES_MS,
    STATS_FLUSH_MS,
    Ports,
    Protocol,
    TrafficClass,
    bucket_le,
    cluster_name,
    edge_ms,
    latency_edges_ms,
)


def routes(listener: str, **arguments: Any) -> list[dict[str, Any]]:
    config = envoy_config(**arguments)
    [found] = [x for x in config["static_resources"]["listeners"] if x["name"] == listener]
    manager = found["filter_chains"][0]["filters"][0]["typed_config"]
    return list(manager["route_config"]["virtual_hosts"][0]["routes"])


def matches(match: dict[str, Any], headers: dict[str, str]) -> bool:
    """Envoy's route matching, as far as this configuration uses it."""
    path = headers[":path"].split("?")[0]
    if "path" in match and path != match["path"]:
        return False
    if "prefix" in match and not path.startswith(match["prefix"]):
        return False
    if "safe_regex" in match and not re.fullmatch(match["safe_regex"]["regex"], path):
        return False
    if "grpc" in match and not headers.get("content-type", "").startswith("application/grpc"):
        return False
    for wanted in match.get("headers", []):
        value = headers.get(wanted["name"])
        if wanted.get("present_match"):
            ok = value is not None
        elif "exact" in wanted["string_match"]:
            ok = value == wanted["string_match"]["exact"]
        else:
            regex = wanted["string_match"]["safe_regex"]["regex"]
            ok = value is not None and re.fullmatch(regex, value) is not None
        if not ok:
            return False
    return True


def goes_to(listener: str, method: str, path: str, **headers: str) -> str | int:
    """The cluster's name, or the status of a refusal."""
    request = {":method": method, ":path": path, ":authority": "magika", **headers}
    for route in routes(listener):
        if matches(route["match"], request):
            if "route" in route:
                return str(route["route"]["cluster"])
            return int(route["direct_response"]["status"])
    raise AssertionError("no route, not even a refusal")


HTTP_CASES = [
    ("POST", "/v2/models/m/infer", "client_http"),
    ("POST", "/v2/models/m/versions/3/infer", "client_http"),
    ("POST", "/v2/models/m/infer?x=1", "client_http"),
    ("POST", "/v2/models/m/generate", "client_http"),
    ("POST", "/v2/models/m/versions/3/generate", "client_http"),
    ("POST", "/v2/models/m/generate_stream", "streaming_http"),
    ("GET", "/v2", "reads_http"),
    ("GET", "/v2/health/live", "reads_http"),
    ("GET", "/v2/health/ready", "reads_http"),
    ("GET", "/v2/models/m", "reads_http"),
    ("GET", "/v2/models/m/versions/3", "reads_http"),
    ("GET", "/v2/models/m/ready", "reads_http"),
    ("GET", "/v2/models/m/versions/3/config", "reads_http"),
    ("GET", "/v2/models/m/stats", "reads_http"),
    ("GET", "/v2/models/stats", "reads_http"),
    ("GET", "/v2/models/m/infer", 405),
    ("POST", "/v2/models/m/config", 405),
    ("POST", "/v2/repository/index", 403),
    ("POST", "/v2/repository/models/m/load", 403),
    ("POST", "/v2/repository/models/m/unload", 403),
    ("GET", "/v2/systemsharedmemory/status", 403),
    ("POST", "/v2/systemsharedmemory/region/r/register", 403),
    ("POST", "/v2/cudasharedmemory/region/r/register", 403),
    ("GET", "/v2/logging", 403),
    ("POST", "/v2/logging", 403),
    ("GET", "/v2/trace/setting", 403),
    ("POST", "/v2/models/m/trace/setting", 403),
    ("GET", "/metrics", 404),
    ("GET", "/stats/prometheus", 404),
    ("POST", "/quitquitquit", 404),
    ("POST", "/invocations", 404),
    ("GET", "/", 404),
    ("POST", "/v2/models/a/b/infer", 404),
    ("POST", "/v2/models//infer", 404),
]


@pytest.mark.parametrize(("method", "path", "to"), HTTP_CASES)
def test_serving_http(method: str, path: str, to: str | int) -> None:
    assert goes_to("serving", method, path) == to


GRPC = "/inference.GRPCInferenceService/"
GRPC_CASES = [
    ("ModelInfer", "client_grpc"),
    ("ModelStreamInfer", "streaming_grpc"),
    ("ServerLive", "reads_grpc"),
    ("ServerReady", "reads_grpc"),
    ("ModelReady", "reads_grpc"),
    ("ServerMetadata", "reads_grpc"),
    ("ModelMetadata", "reads_grpc"),
    ("ModelStatistics", "reads_grpc"),
    ("ModelConfig", "reads_grpc"),
    ("RepositoryIndex", 403),
    ("RepositoryModelLoad", 403),
    ("RepositoryModelUnload", 403),
    ("SystemSharedMemoryStatus", 403),
    ("SystemSharedMemoryRegister", 403),
    ("CudaSharedMemoryRegister", 403),
    ("TraceSetting", 403),
    ("LogSettings", 403),
    ("SomethingNew", 404),
]


@pytest.mark.parametrize(("method", "to"), GRPC_CASES)
def test_serving_grpc(method: str, to: str | int) -> None:
    headers = {"content-type": "application/grpc+proto"}
    assert goes_to("serving", "POST", GRPC + method, **headers) == to


@pytest.mark.parametrize(
    ("headers", "to"),
    [
        ({}, "client"),
        ({"x-tidegate-pin": "magika-abc"}, "pinned"),
    ],
)
def test_classes_are_told_apart(headers: dict[str, str], to: str) -> None:
    assert goes_to("serving", "POST", "/v2/models/m/infer", **headers) == f"{to}_http"
    # A copy is a copy, also of a pinned request.
    assert goes_to("mirror", "POST", "/v2/models/m/infer", **headers) == "mirrored_http"
    grpc = {"content-type": "application/grpc", **headers}
    assert goes_to("serving", "POST", GRPC + "ModelInfer", **grpc) == f"{to}_grpc"


@pytest.mark.parametrize(
    ("method", "path", "to"),
    [
        ("POST", "/v2/models/m/infer", "golden_http"),
        ("GET", "/v2/health/ready", "reads_http"),
        ("GET", "/v2/models/m/stats", "reads_http"),
        ("POST", "/v2/repository/index", "reads_http"),
        ("GET", "/metrics", "triton_metrics"),
        ("GET", "/stats/prometheus", "admin"),
        ("GET", "/stats/prometheus?filter=client", "admin"),
        ("GET", "/sidecar/ready", "admin"),
        ("GET", "/sidecar/live", "admin"),
        ("POST", "/v2/repository/models/m/unload", 403),
        ("POST", "/v2/models/m/generate_stream", 405),
        ("POST", "/stats/prometheus", 404),
        ("GET", "/stats", 404),
        ("POST", "/healthcheck/fail", 404),
        ("POST", "/quitquitquit", 404),
    ],
)
def test_internal_listener_only_reads(method: str, path: str, to: str | int) -> None:
    assert goes_to("internal", method, path) == to


def test_only_the_admin_pages_meant_are_reachable() -> None:
    paths = {
        (r["match"]["safe_regex"]["regex"], r["route"].get("prefix_rewrite"))
        for listener in ("serving", "internal")
        for r in routes(listener)
        if r.get("route", {}).get("cluster") == "admin"
    }
    assert paths == {
        ("/stats/prometheus", None),
        ("/sidecar/ready", "/ready"),
        ("/sidecar/live", "/hot_restart_version"),
    }


def test_every_class_and_protocol_has_its_cluster() -> None:
    clusters = {c["name"]: c for c in envoy_config()["static_resources"]["clusters"]}
    for traffic in TrafficClass:
        for protocol in Protocol:
            cluster = clusters[cluster_name(traffic, protocol)]
            [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            address = endpoint["endpoint"]["address"]["socket_address"]
            assert address["address"] == "127.0.0.1"
            assert address["port_value"] == {"http": 8000, "grpc": 8001}[protocol]


def limits(priority: str, **arguments: Any) -> dict[str, int]:
    """The most requests in flight of each cluster."""
    return {
        c["name"]: t["max_requests"]
        for c in envoy_config(**arguments)["static_resources"]["clusters"]
        for t in c["circuit_breakers"]["thresholds"]
        if t["priority"] == priority
    }


def test_max_pending_limits_clients_but_never_golden_requests() -> None:
    most = limits("DEFAULT", max_pending=7)
    assert most["client_http"] == most["client_grpc"] == most["mirrored_http"] == 7
    assert most["golden_http"] == most["golden_grpc"] == most["reads_http"] == 1_000_000


def test_urgent_requests_have_room_of_their_own() -> None:
    most = limits("HIGH", max_pending=7, reserved=2)
    assert most["client_http"] == most["client_grpc"] == most["pinned_grpc"] == 2
    urgent = [r for r in routes("serving", reserved=2) if r.get("route", {}).get("priority")]
    assert [r["route"]["cluster"] for r in urgent] == [
        *("pinned_grpc", "pinned_http", "client_grpc", "client_http"),
    ]
    infer = {":method": "POST", ":path": "/v2/models/m/infer", "x-tidegate-priority": "high"}
    assert matches(urgent[3]["match"], infer)
    assert not matches(urgent[3]["match"], infer | {"x-tidegate-priority": "low"})
    assert not any(r.get("route", {}).get("priority") for r in routes("serving", max_pending=7))


def test_a_refusal_says_when_to_come_back() -> None:
    for listener in ("serving", "mirror"):
        [found] = [
            x for x in envoy_config()["static_resources"]["listeners"] if x["name"] == listener
        ]
        manager = found["filter_chains"][0]["filters"][0]["typed_config"]
        grpc, http = manager["local_reply_config"]["mappers"]
        added = {h["header"]["key"]: h["header"]["value"] for h in grpc["headers_to_add"]}
        assert added == {"grpc-status": "8", "retry-after": "1", "grpc-retry-pushback-ms": "1000"}
        assert [h["header"]["key"] for h in http["headers_to_add"]] == ["retry-after"]


@pytest.mark.parametrize("listener", ["serving", "mirror", "internal"])
def test_clients_are_told_which_revision_answered(listener: str) -> None:
    config = envoy_config(revision="abc123")
    [found] = [x for x in config["static_resources"]["listeners"] if x["name"] == listener]
    manager = found["filter_chains"][0]["filters"][0]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    added = {
        h["header"]["key"]: h["header"]["value"] for h in host.get("response_headers_to_add", ())
    }
    assert added == ({"x-tidegate-revision": "abc123"} if listener == "serving" else {})


def test_no_limit_of_envoys_shows() -> None:
    for listener in ("serving", "internal"):
        for route in routes(listener):
            if "route" in route:
                assert route["route"]["timeout"] == "0s"
                assert route["route"]["idle_timeout"] == "0s"
    for listener in envoy_config()["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        assert manager["stream_idle_timeout"] == manager["request_timeout"] == "0s"
        assert manager["http2_protocol_options"]["max_concurrent_streams"] >= 2000


def test_ladder() -> None:
    """Ascending, at most two significant digits each, neighbours at most a factor of 2 apart."""
    assert list(LATENCY_EDGES_MS) == sorted(set(LATENCY_EDGES_MS))
    for edge in LATENCY_EDGES_MS:
        assert len(str(edge).rstrip("0")) <= 2
    below_20_s = [e for e in LATENCY_EDGES_MS if e <= 20_000]
    assert max(b / a for a, b in itertools.pairwise(below_20_s)) <= 2


@pytest.mark.parametrize(("target", "added"), [(None, 0), (100, 0), (120, 1), (45_000, 1)])
def test_target_becomes_an_edge(target: int | None, added: int) -> None:
    edges = latency_edges_ms(target)
    assert edges == sorted(edges)
    assert len(edges) == len(LATENCY_EDGES_MS) + added
    assert target is None or target in edges
    [setting] = envoy_config(latency_target_ms=target)["stats_config"]["histogram_bucket_settings"]
    assert [edge_ms(le) for le in setting["buckets"]] == edges


def test_an_edge_lies_inside_no_bin_of_envoys() -> None:
    """A bin [b, b + width) belongs to a bucket if b <= le: the bin at the edge must not."""
    for edge in latency_edges_ms(120):
        below = edge - 10 ** max(0, len(str(edge - 1)) - 2)  # of two significant digits
        assert below <= bucket_le(edge) < edge
    assert edge_ms(float("inf")) is None


def test_statistics_are_fresh() -> None:
    assert STATS_FLUSH_MS <= 250
    assert envoy_config()["stats_flush_interval"] == "0.25s"


@pytest.mark.parametrize(
    ("stat", "kept"),
    [
        ("cluster.client_http.upstream_rq_200", True),
        ("cluster.client_http.upstream_rq_time", True),
        ("cluster.client_http.upstream_rq_total", True),
        ("cluster.client_http.upstream_rq_active", True),
        ("cluster.mirrored_grpc.grpc.inference.GRPCInferenceService.ModelInfer.13", True),
        ("cluster.client_http.upstream_rq_pending_overflow", True),
        ("http.serving.downstream_rq_active", True),
        ("cluster.client_http.upstream_cx_total", False),
        ("cluster.client_http.upstream_rq_2xx", False),
        ("cluster.reads_http.upstream_rq_total", False),
        ("http.internal.downstream_rq_active", False),
        ("listener.0.0.0.0_8080.downstream_cx_total", False),
    ],
)
def test_statistics_page_is_small(stat: str, kept: bool) -> None:
    patterns = envoy_config()["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    [pattern] = patterns
    assert bool(re.fullmatch(pattern["safe_regex"]["regex"], stat)) is kept


def test_admin_is_on_the_loopback() -> None:
    address = envoy_config()["admin"]["address"]["socket_address"]
    assert address == {"address": "127.0.0.1", "port_value": 9901}


def test_render_is_canonical() -> None:
    one, two = envoy_config(latency_target_ms=100), envoy_config(latency_target_ms=100)
    assert render(one) == render(two)
    assert json.loads(render(one)) == one
    assert render(one) != render(envoy_config(latency_target_ms=120))
    # It goes into a ConfigMap (1 MiB) that every revision has.
    assert len(render(one)) < 64 << 10


def test_ports_can_be_moved() -> None:
    text = render(envoy_config(ports=Ports(*range(40001, 40008))))
    for port in range(40001, 40008):
        assert f'"port_value": {port}' in text
    for port in (8080, 8081, 9091, 9901, 8000, 8001, 8002):
        assert f'"port_value": {port}' not in text


def test_arguments() -> None:
    arguments = envoy_args()
    assert arguments[arguments.index("--config-path") + 1] == CONFIG_PATH
    assert "--disable-hot-restart" in arguments
