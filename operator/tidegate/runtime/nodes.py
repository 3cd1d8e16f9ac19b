"""Reads the nodes for pods that wait for a GPU, where the chart grants it (`rbac.clusterRead`)."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from tidegate.nodes import Node, Nodes, node, waits_for
from tidegate.observed import Object
from tidegate.runtime.kinds import Kind
from tidegate.runtime.kube import Kube, KubeError

log: Final = structlog.get_logger(__name__)

NODE: Final = Kind("v1", "Node", "nodes", selector="")
PERIOD_S: Final = 60.0
"""Nodes are read at most so often, for all ModelDeployments together."""
AT_ONCE: Final = 100
"""Nodes in one page: with their lists of images they are large."""


class NodeReader:
    """Reads nodes while pods wait, and keeps of them what says why.

    Args:
        kube: the client.
        on: whether nodes may be read.
        clock: monotonic, seconds.
    """

    def __init__(
        self, kube: Kube, *, on: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._on = on
        self._clock = clock
        self._keys: set[str] = set()
        self._read_at: float | None = None
        self._nodes: Nodes | None = None
        self._told = ""

    async def look(self, pods: Iterable[Object]) -> tuple[Nodes | None, float | None]:
        """What the nodes offer, where one of a ModelDeployment's pods waits for a GPU.

        Returns:
            The nodes (None: not read, or nobody needs them), and in how many seconds to look
            again; None: no wish.
        """
        if not self._on:
            return None, None
        asked = [found for found in map(waits_for, pods) if found is not None]
        if not asked:
            return None, None
        self._keys |= {label.key for found in asked for label in found.labels}
        now = self._clock()
        if self._read_at is None or now - self._read_at >= PERIOD_S:
            # First, so that workers beside this one do not read as well.
            self._read_at = now
            await self._read()
        return self._nodes, max(1.0, PERIOD_S - (self._clock() - self._read_at))

    async def _read(self) -> None:
        keys, self._keys = frozenset(self._keys), set()
        found: list[Node] = []
        try:
            async for page in self._kube.pages(NODE, None, limit=AT_ONCE):
                kept = (node(item, keys) for item in page["items"])
                found += [n for n in kept if n.offers]
        except KubeError as error:
            # They explain; what is decided must not wait for them.
            self._nodes = None
            if str(error) != self._told:
                self._told = str(error)
                log.warning(
                    "nodes not read",
                    problem=self._told,
                    mend="let the operator list nodes, or set rbac.clusterRead to false",
                )
        else:
            self._nodes, self._told = Nodes(tuple(found), keys), ""
