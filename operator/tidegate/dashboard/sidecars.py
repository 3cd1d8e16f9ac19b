"""Reads the sidecars of models that somebody looks at: however many look, once in a while."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tidegate.dashboard.measuring import Pod, Speeds
from tidegate.resources.sidecar import SIDECAR_METRICS_PATH
from tidegate.sidecar_page import Reading, read_page

EVERY_S: Final = 1.5
TIMEOUT_S: Final = 1.0
MAX_PAGE_BYTES: Final = 1 << 20
CONNECTIONS: Final = 64
DEPLOYMENTS: Final = 200
PAGE: Final = (
    rf"{SIDECAR_METRICS_PATH}?usedonly&filter=^(cluster\.(client|mirrored)_|server\.uptime)"
)


@dataclass
class _Looked:
    """What is known of one ModelDeployment.

    Attributes:
        speeds: its readings.
        lock: held while it is read.
        at_s: when it was last read, of the clock.
    """

    speeds: Speeds = field(default_factory=Speeds)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    at_s: float = float("-inf")


class Sidecars:
    """Reads sidecars.

    Args:
        session: with which; the caller closes it.
        clock: monotonic, seconds.
        epoch_s: the time, seconds since the epoch.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: Callable[[], float] = time.monotonic,
        epoch_s: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._clock = clock
        self._epoch_s = epoch_s
        self._looked: OrderedDict[str, _Looked] = OrderedDict()

    async def measured(
        self, uid: str, pods: Sequence[Pod], quantile: float
    ) -> dict[str, dict[str, Any]]:
        """What a ModelDeployment's sidecars count, by revision.

        Args:
            uid: its UID.
            pods: its pods.
            quantile: of the latency.
        """
        found = self._looked.setdefault(uid, _Looked())
        self._looked.move_to_end(uid)
        while len(self._looked) > DEPLOYMENTS:
            self._looked.popitem(last=False)
        async with found.lock:
            if self._clock() - found.at_s >= EVERY_S:
                found.at_s = self._clock()
                readings = await asyncio.gather(*(self._read(pod) for pod in pods))
                found.speeds.observe([r for r in readings if r is not None], self._epoch_s())
        return found.speeds.measured(quantile)

    async def _read(self, pod: Pod) -> Reading | None:
        """A pod's counters; None: it does not answer, which its state says well enough."""
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session.get(f"http://{pod.address}{PAGE}", allow_redirects=False) as response,
            ):
                if response.status != 200:
                    return None
                page = await response.content.read(MAX_PAGE_BYTES)
                while more := await response.content.read(MAX_PAGE_BYTES):
                    page += more
                    if len(page) > MAX_PAGE_BYTES:
                        return None
            return read_page(
                page.decode("utf-8", "replace"),
                pod=pod.uid,
                revision=pod.revision,
                at_s=self._epoch_s(),
                name=pod.name,
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
