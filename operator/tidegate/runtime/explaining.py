"""What explains why pods do not serve, beyond their own status: asked beside the passes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tidegate.nodes import Nodes
from tidegate.observed import Object
from tidegate.runtime.cache import Key
from tidegate.runtime.kube import Kube
from tidegate.runtime.nodes import NodeReader
from tidegate.runtime.stuck import StuckPods
from tidegate.runtime.triton import RepositoryIndex


@dataclass(frozen=True)
class Explained:
    """What is known about a ModelDeployment's pods; what is not known is left out.

    Attributes:
        events: about pods of which no container starts.
        models: by pod UID, what Triton says of models that did not load.
        nodes: what nodes offer, while a pod waits for a GPU.
        again_after_s: look again at the latest in so many seconds; None: no wish.
    """

    events: tuple[Object, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    nodes: Nodes | None = None
    again_after_s: float | None = None


class Explainer:
    """Asks pods' Tritons, the API server about pods, and about nodes.

    Args:
        kube: the client.
        wake: told of a ModelDeployment about whose pods something else is known than before.
        read_nodes: whether nodes may be read.
        now: wall clock, UTC.
        clock: monotonic, seconds.
        index: asks Triton.
    """

    def __init__(
        self,
        kube: Kube,
        wake: Callable[[Key], None],
        *,
        read_nodes: bool,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        index: RepositoryIndex | None = None,
    ) -> None:
        self._stuck = StuckPods(kube, wake, now=now, clock=clock)
        self._index = index or RepositoryIndex(wake, clock=clock)
        self._nodes = NodeReader(kube, wake, on=read_nodes, clock=clock)

    def look(self, key: Key, pods: Sequence[Object]) -> Explained:
        """What is known now about these pods; without any, nothing is asked any more."""
        events, events_again_s = self._stuck.events(key, pods)
        models, models_again_s = self._index.models(key, pods)
        nodes, nodes_again_s = self._nodes.look(key, pods)
        again = (events_again_s, models_again_s, nodes_again_s)
        soonest = min((s for s in again if s is not None), default=None)
        return Explained(events, models, nodes, soonest)

    async def stop(self) -> None:
        """Ask nobody any more, and close open connections."""
        await self._stuck.stop()
        await self._index.stop()
        await self._nodes.stop()
