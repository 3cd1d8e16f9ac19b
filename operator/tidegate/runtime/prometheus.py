"""The same counters from Prometheus: for pods that the operator cannot reach itself.

A fixed query, with labels escaped, asks for the raw samples of the last seconds; of each pod the
newest scrape is taken whole, so that its counters belong together and have the scrape's own time.
What Prometheus adds to them (rates, extrapolation, staleness) is left out: both sources go through
the same formulas.

The pods are told apart by the labels ``namespace`` and ``pod``, which a PodMonitor sets.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
import structlog

from tidegate.api.names import DEPLOYMENT_LABEL
from tidegate.runtime.cache import Key
from tidegate.runtime.pods import PodAt, ReadError
from tidegate.sidecar_page import Reading, read_samples, sample_key

log: Final = structlog.get_logger(__name__)

TIMEOUT_S: Final = 5.0
STALE_S: Final = 30
"""Samples older than this are no data."""
MAX_ANSWER_BYTES: Final = 64 << 20
QUERY_PATH: Final = "/api/v1/query"
_NAMES: Final = (
    "envoy_server_uptime|envoy_cluster_(upstream_rq(_total|_active|_active_overflow|_pending_active"
    "|_pending_failure_eject|_time_bucket|_time_count)?|grpc_.+_[0-9]+)"
)
# The uptime has no cluster; of the others only what is evidence.
_CLUSTERS: Final = "(client|mirrored)_(http|grpc)|"
DEPLOYMENT: Final = "".join(c if c.isalnum() else "_" for c in DEPLOYMENT_LABEL)
# What tells one sample of a page from another; all other labels name the scraped pod.
OF_A_SAMPLE: Final = frozenset(
    {
        "__name__",
        "envoy_cluster_name",
        "envoy_response_code",
        "envoy_grpc_bridge_method",
        "envoy_grpc_bridge_service",
        "le",
    }
)

Target = tuple[tuple[str, str], ...]


class Prometheus:
    """Asks a Prometheus, or whatever speaks its HTTP API.

    Args:
        url: its address, such as ``http://prometheus.monitoring:9090``, with a path if it has one.
        now: wall clock, seconds since the epoch.
        timeout_s: of one question. None is asked twice.
    """

    def __init__(
        self, url: str, *, now: Callable[[], float] = time.time, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._url = url.rstrip("/") + QUERY_PATH
        self._now = now
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def readings(self, key: Key, pods: Sequence[PodAt]) -> list[Reading]:
        """Of those pods of one ModelDeployment that were scraped lately.

        Raises:
            ReadError: Prometheus does not answer, or not in its format.
        """
        return readings(await self.ask(query(key)), key.namespace, pods, self._now())

    async def close(self) -> None:
        """Close open connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, text: str) -> list[Any]:
        """The series that a question for a range of samples is answered with; errors as above."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s)
            )
        try:
            async with self._session.post(
                self._url, data={"query": text}, allow_redirects=False
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise ReadError(f"{self._url}: the answer is too long")
                status = response.status
        except TimeoutError:
            raise ReadError(f"{self._url}: no answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ReadError(f"{self._url}: {error}") from error
        # Large, and of one's own making only in part: off the event loop.
        return await asyncio.to_thread(_result, self._url, status, bytes(body))


def query(key: Key) -> str:
    """The question about one ModelDeployment."""
    matchers = [
        f'__name__=~"{_NAMES}"',
        f'envoy_cluster_name=~"{_CLUSTERS}"',
        f"namespace={quoted(key.namespace)}",
        f"{DEPLOYMENT}={quoted(key.name)}",
    ]
    return "{" + ",".join(matchers) + "}" + f"[{STALE_S}s]"


def readings(
    answer: Sequence[Any], namespace: str, pods: Sequence[PodAt], now_s: float
) -> list[Reading]:
    """Readings from the answer to `query`: for each pod its newest scrape.

    Raises:
        ReadError: the answer is not in Prometheus' format.
    """
    wanted = {pod.name: pod for pod in pods}
    by_pod: dict[str, dict[Target, list[Any]]] = {}
    newest: dict[tuple[str, Target], float] = {}
    try:
        for series in answer:
            labels = series["metric"]
            name = labels.get("pod")
            if name not in wanted or labels.get("namespace") != namespace:
                continue
            # The same pod may be scraped twice, by two jobs or two replicas.
            target = tuple(sorted((k, v) for k, v in labels.items() if k not in OF_A_SAMPLE))
            by_pod.setdefault(name, {}).setdefault(target, []).append(series)
            if labels["__name__"] == "envoy_server_uptime":
                newest[name, target] = float(series["values"][-1][0])
        found = []
        for name, targets in by_pod.items():
            times = {t: newest[name, t] for t in targets if (name, t) in newest}
            if not times:
                continue
            target, at_s = max(times.items(), key=lambda item: (item[1], item[0]))
            if now_s - at_s > STALE_S:
                continue
            samples = [
                (sample_key(s["metric"]["__name__"], s["metric"]), " ", str(value))
                for s in targets[target]
                for when, value in s["values"][-1:]
                if float(when) == at_s
            ]
            pod = wanted[name]
            found.append(
                read_samples(samples, pod=pod.uid, revision=pod.revision, at_s=at_s, name=pod.name)
            )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ReadError(f"an answer that is not Prometheus': {error!r}") from error
    return found


def quoted(text: str) -> str:
    """A string as PromQL writes it."""
    escaped = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'


def _result(url: str, status: int, body: bytes) -> list[Any]:
    try:
        document = json.loads(body)
        if status != 200 or document["status"] != "success":
            raise ReadError(f"{url}: {str(document.get('error') or f'status {status}')[:500]}")
        data = document["data"]
        if data["resultType"] != "matrix" or not isinstance(data["result"], list):
            raise ReadError(f"{url}: not the answer to a range of samples")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ReadError(f"{url}: status {status}, and no answer of Prometheus'") from None
    result: list[Any] = data["result"]
    return result
