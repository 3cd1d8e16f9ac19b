"""What one pod says of its load: the page of its sidecar, and Triton's own statistics.

With the sidecar both come by its internal listener, over one connection that is kept. Without it
Triton itself is asked: its statistics for batches, its metrics for what waits.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from tidegate.api.names import REVISION_LABEL
from tidegate.autoscaling.reading import Look, TritonStats, read_metrics, read_stats
from tidegate.observed import Object
from tidegate.resources.pod import ENVOY
from tidegate.resources.sidecar import (
    SIDECAR_METRICS_PATH,
    TRITON_HTTP_PORT,
    TRITON_METRICS_PATH,
    TRITON_METRICS_PORT,
    TrafficClass,
)
from tidegate.runtime.pages import PageError, Pages
from tidegate.runtime.pods import PodAt, ReadError, pods_at, read_sidecar

TIMEOUT_S: Final = 1.0
"""Of each page."""
# All that runs on the server, whoever sent it; only what was ever used. Golden requests are ours.
PAGE: Final = (
    f"{SIDECAR_METRICS_PATH}?usedonly&filter="
    r"^(cluster\.(client|pinned|mirrored|streaming)_(http|grpc)\."
    r"(upstream_rq_([0-9]%2B|total|active|active_overflow|time|pending_(active|failure_eject))"
    r"|grpc\..*\.[0-9]%2B)|server\.uptime)$"
)


class LoadPod(NamedTuple):
    """A pod whose load is read.

    Attributes:
        at: whom to ask; the address is that of the sidecar's internal listener.
        sidecar: whether it has one.
    """

    at: PodAt
    sidecar: bool

    @property
    def host(self) -> str:
        """Its address without a port."""
        return self.at.address.rpartition(":")[0]


class LoadSource(Protocol):
    """Reads pods."""

    async def look(self, pod: LoadPod, model: str, at_s: Callable[[], float]) -> Look:
        """What a pod says now.

        Args:
            pod: whom to ask.
            model: whose statistics to read beside the sidecar's page; empty: no model's.
            at_s: seconds since the epoch, now.

        Raises:
            ReadError: it does not answer.
        """

    async def config(self, pod: LoadPod, model: str) -> Mapping[str, Any]:
        """Triton's configuration of the model; errors as above."""

    async def close(self) -> None:
        """Close open connections."""


def load_pods(pods: Iterable[Object]) -> list[LoadPod]:
    """Pods of every revision that have an address and are not over."""
    by_uid = {pod["metadata"]["uid"]: pod for pod in pods}
    revisions = {(p["metadata"].get("labels") or {}).get(REVISION_LABEL) for p in by_uid.values()}
    found = pods_at(by_uid.values(), {r for r in revisions if r})
    return [LoadPod(at, _has_sidecar(by_uid[at.uid])) for at in found]


def _has_sidecar(pod: Object) -> bool:
    return any(c["name"] == ENVOY for c in (pod.get("spec") or {}).get("initContainers") or ())


def in_flight(look: Look) -> int | None:
    """Requests that the pod owes answers for, whoever sent them; None: not known."""
    if look.reading is not None:
        classes = look.reading.classes.items()
        return sum(c.in_flight for traffic, c in classes if traffic is not TrafficClass.GOLDEN)
    return None if look.triton is None else look.triton.pending


class LoadPages:
    """The pods themselves.

    Args:
        timeout_s: of each page.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._pages = Pages(PAGE, timeout_s)

    async def look(self, pod: LoadPod, model: str, at_s: Callable[[], float]) -> Look:
        """See `LoadSource.look`."""
        if not pod.sidecar:
            return await self._look_at_triton(pod, model, at_s)
        reading = await read_sidecar(self._pages, pod.at, at_s)
        triton = None
        if model:
            # While the model loads there is no such page, and the sidecar's is what there is.
            try:
                triton = await self._stats(pod.at.address, model)
            except ReadError:
                triton = None
        return Look(pod.at.uid, at_s(), reading, triton)

    async def config(self, pod: LoadPod, model: str) -> Mapping[str, Any]:
        """See `LoadSource.config`."""
        address = pod.at.address if pod.sidecar else f"{pod.host}:{TRITON_HTTP_PORT}"
        document = await self._json(address, f"/v2/models/{model}/config")
        if not isinstance(document, dict):
            raise ReadError("a model configuration is an object")
        return document

    async def close(self) -> None:
        """See `LoadSource.close`."""
        self._pages.close()

    async def _look_at_triton(self, pod: LoadPod, model: str, at_s: Callable[[], float]) -> Look:
        if not model:
            raise ReadError("without the sidecar nothing counts what clients get")
        try:
            page = await self._pages.get(f"{pod.host}:{TRITON_METRICS_PORT}", TRITON_METRICS_PATH)
            known = read_metrics(page.decode("utf-8", "replace"), model=model)
        except (PageError, ValueError) as error:
            raise ReadError(str(error)) from error
        when_s = at_s()
        # Only the batches: what flow balance adds up has to be of one instant.
        try:
            stats = await self._stats(f"{pod.host}:{TRITON_HTTP_PORT}", model)
            known = replace(known, batches=stats.batches)
        except ReadError:
            pass
        return Look(pod.at.uid, when_s, None, known)

    async def _stats(self, address: str, model: str) -> TritonStats:
        document = await self._json(address, f"/v2/models/{model}/stats")
        try:
            if isinstance(document, dict) and document.get("model_stats") == []:
                raise ValueError("no statistics")  # which is not the same as nothing done
            return read_stats(document)
        except ValueError as error:
            raise ReadError(str(error)) from error

    async def _json(self, address: str, path: str) -> Any:
        try:
            return json.loads(await self._pages.get(address, path))
        except (PageError, ValueError) as error:
            raise ReadError(f"{path}: {error}") from error
