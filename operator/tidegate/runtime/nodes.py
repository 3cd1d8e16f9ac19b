"""Reads the nodes for pods that wait for a GPU, where the chart grants it (`rbac.clusterRead`)."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from tidegate.nodes import Node, Nodes, node, waits_for
from tidegate.observed import Object
from tidegate.runtime.background import Background
from tidegate.runtime.cache import Key
from tidegate.runtime.kinds import Kind
from tidegate.runtime.kube import Kube, KubeError

log: Final = structlog.get_logger(__name__)

NODE: Final = Kind("v1", "Node", "nodes", selector="")
PERIOD_S: Final = 60.0
"""Nodes are read at most so often, for all ModelDeployments together."""
AT_ONCE: Final = 100
"""Nodes in one page: with their lists of images they are large."""


class NodeReader:
    """Reads nodes while pods wait, beside the passes, and keeps of them what says why.

    Args:
        kube: the client.
        wake: told of a ModelDeployment whose pods wait, when nodes offer something else.
        on: whether nodes may be read.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        kube: Kube,
        wake: Callable[[Key], None],
        *,
        on: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._on = on
        self._keys: set[str] = set()
        self._told = ""
        unknown: Nodes | None = None
        self._asked = Background(unknown, lambda _: PERIOD_S, wake, clock=clock)

    def look(self, key: Key, pods: Iterable[Object]) -> tuple[Nodes | None, float | None]:
        """What the nodes offer, where one of a ModelDeployment's pods waits for a GPU.

        Returns:
            The nodes (None: not read, or nobody needs them), and in how many seconds to look
            again; None: no wish.
        """
        asked = [found for found in map(waits_for, pods) if found is not None] if self._on else []
        self._keys |= {label.key for found in asked for label in found.labels}
        found = self._asked.take(key, {NODE: self._read} if asked else {})
        return found.answers.get(NODE), found.again_after_s

    async def stop(self) -> None:
        """Read nothing any more."""
        await self._asked.stop()

    async def _read(self) -> Nodes | None:
        keys, self._keys = frozenset(self._keys), set()
        found: list[Node] = []
        try:
            async for page in self._kube.pages(NODE, None, limit=AT_ONCE):
                kept = (node(item, keys) for item in page["items"])
                found += [n for n in kept if n.offers]
        except KubeError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning(
                    "nodes not read",
                    problem=self._told,
                    mend="let the operator list nodes, or set rbac.clusterRead to false",
                )
            return None
        self._told = ""
        return Nodes(tuple(found), keys)
