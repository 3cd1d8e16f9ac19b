"""Pods that a process of its own plays: their sidecars' pages, over connections kept open."""

import asyncio
import resource

from tidegate.resources.sidecar import bucket_le, latency_edges_ms


def cluster_lines(
    name: str, count: int, failed: int, *, target_ms: int, by_target: float, open_requests: int
) -> list[str]:
    """One cluster's lines on a sidecar's page, as the operator asks for it.

    Args:
        name: of the cluster; one that ends with ``grpc`` counts as Envoy's bridge does.
        count: requests so far.
        failed: of them.
        target_ms: a bucket edge besides the usual ones.
        by_target: share of the answers that the target has beyond the usual course, which has half
            of them by 20 ms.
        open_requests: unanswered.
    """
    label = f'envoy_cluster_name="{name}"'
    lines = []
    if name.endswith("grpc"):
        bridge = (
            'envoy_grpc_bridge_method="GRPCInferenceService",envoy_grpc_bridge_service="inference",'
        )
        lines.append(f"envoy_cluster_grpc_ModelInfer_0{{{bridge}{label}}} {count}")
    else:
        for code, answers in ((200, count - failed), (500, failed)):
            status = f'envoy_response_code="{code}",'
            lines.append(f"envoy_cluster_upstream_rq{{{status}{label}}} {answers}")
    lines.append(f"envoy_cluster_upstream_rq_total{{{label}}} {count}")
    for gauge in ("active", "pending_active"):
        lines.append(f"envoy_cluster_upstream_rq_{gauge}{{{label}}} {open_requests}")
    for edge in latency_edges_ms(target_ms):
        faster = round(count * min(1.0, edge / (edge + 20.0) + by_target * (edge >= target_ms)))
        bucket = f'{label},le="{bucket_le(edge):g}"'
        lines.append(f"envoy_cluster_upstream_rq_time_bucket{{{bucket}}} {faster}")
    bucket = f'{label},le="+Inf"'
    lines.append(f"envoy_cluster_upstream_rq_time_bucket{{{bucket}}} {count}")
    lines.append(f"envoy_cluster_upstream_rq_time_sum{{{label}}} {count * 23.489361702127659}")
    lines.append(f"envoy_cluster_upstream_rq_time_count{{{label}}} {count}")
    return lines


def page_of(lines: list[str], uptime_s: int) -> bytes:
    """The whole page."""
    return ("\n".join([*lines, f"envoy_server_uptime{{}} {uptime_s}"]) + "\n").encode()


class PlayedPod(asyncio.Protocol):
    """Answers each request on a kept connection, as Envoy does."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.opened(transport.get_extra_info("sockname")[0])

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            self._transport.write(self.answer(request.split(b" ", 2)[1]))

    def opened(self, address: str) -> None:
        """A connection came to this address of the pod's."""

    def answer(self, path: bytes) -> bytes:
        """To a request for that path: head and body."""
        raise NotImplementedError


def chunked(body: bytes) -> bytes:
    """A body in one chunk."""
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def many_files() -> None:
    """One connection to each pod."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
