"""Pages of counters as Envoy writes them, made from what happened."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tidegate.resources.sidecar import LATENCY_EDGES_MS, bucket_le


@dataclass
class Cluster:
    """What one class and protocol of a pod has seen.

    Attributes:
        by_status: answers by HTTP status.
        by_grpc_status: answers by gRPC status; HTTP's is 200 for all of them.
        took_ms: latency of each answer.
        in_flight: not answered yet.
        pending: of those, still without a connection to Triton.
        given_up: the client left.
        overflow: refused for overload; their 503 is in `by_status`.
        unconnected: refused for want of Triton; so is theirs.
    """

    by_status: dict[int, int] = field(default_factory=dict)
    by_grpc_status: dict[int, int] = field(default_factory=dict)
    took_ms: list[int] = field(default_factory=list)
    in_flight: int = 0
    pending: int = 0
    given_up: int = 0
    overflow: int = 0
    unconnected: int = 0

    def samples(self, name: str, edges_ms: Iterable[int]) -> Iterator[tuple[str, str, str]]:
        """Name, labels as on the page, value."""
        label = f'envoy_cluster_name="{name}"'
        answers = sum(self.by_status.values()) + sum(self.by_grpc_status.values())
        refused = self.overflow + self.unconnected
        handed = answers - refused + self.in_flight - self.pending + self.given_up
        for code, count in self.by_grpc_status.items():
            bridge = (
                'envoy_grpc_bridge_method="GRPCInferenceService",'
                'envoy_grpc_bridge_service="inference",'
            )
            yield f"envoy_cluster_grpc_ModelInfer_{code}", bridge + label, str(count)
        statuses = dict(self.by_status)
        if self.by_grpc_status:
            statuses[200] = statuses.get(200, 0) + sum(self.by_grpc_status.values())
        for code, count in statuses.items():
            code_label = f'envoy_response_code="{code}",'
            yield "envoy_cluster_upstream_rq", code_label + label, str(count)
        for counter, count in (
            ("total", handed),
            ("active_overflow", self.overflow),
            ("pending_failure_eject", self.unconnected),
            ("active", self.in_flight - self.pending),
            ("pending_active", self.pending),
            ("rx_reset", 3),
            ("timeout", 5),
        ):
            yield f"envoy_cluster_upstream_rq_{counter}", label, str(count)
        for edge in edges_ms:
            below = sum(ms < edge for ms in self.took_ms)
            bucket = f'{label},le="{bucket_le(edge):g}"'
            yield "envoy_cluster_upstream_rq_time_bucket", bucket, str(below)
        timed = str(len(self.took_ms))
        yield "envoy_cluster_upstream_rq_time_bucket", f'{label},le="+Inf"', timed
        yield "envoy_cluster_upstream_rq_time_sum", label, f"{sum(self.took_ms):.17f}"
        yield "envoy_cluster_upstream_rq_time_count", label, timed


def samples(
    clusters: Mapping[str, Cluster],
    uptime_s: float = 60,
    edges_ms: Iterable[int] = LATENCY_EDGES_MS,
) -> Iterator[tuple[str, str, str]]:
    """All samples of a pod: name, labels as on the page, value."""
    edges = tuple(edges_ms)
    for name, cluster in clusters.items():
        yield from cluster.samples(name, edges)
    prefix = 'envoy_http_conn_manager_prefix="serving"'
    yield "envoy_http_downstream_cx_length_ms_bucket", f'{prefix},le="0.5"', "59"
    yield "envoy_server_live", "", "1"
    yield "envoy_server_uptime", "", f"{uptime_s:g}"


def page(
    clusters: Mapping[str, Cluster],
    uptime_s: float = 60,
    edges_ms: Iterable[int] = LATENCY_EDGES_MS,
) -> str:
    """The page."""
    lines, named = [], ""
    for name, labels, value in samples(clusters, uptime_s, edges_ms):
        if name != named:
            lines.append(f"# TYPE {name} counter")
            named = name
        lines.append(f"{name}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"
