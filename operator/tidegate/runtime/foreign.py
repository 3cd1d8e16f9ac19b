"""Names that a ModelDeployment wants for its children, and that somebody else's objects have."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from tidegate.observed import Ref
from tidegate.runtime.background import Background, UnansweredError
from tidegate.runtime.cache import Key, controlled_by
from tidegate.runtime.kinds import kind_of
from tidegate.runtime.kube import Kube, KubeError

log: Final = structlog.get_logger(__name__)

AGAIN_S: Final = 30.0
"""No watch shows such an object, so nobody tells when it goes: look so often."""
LEAST_PAUSE_S: Final = 1.0
"""A pass that comes sooner than that looks, too, and no oftener."""


class ForeignObjectError(Exception):
    """An object of the wanted name exists, and the ModelDeployment does not control it."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"{ref.kind} {ref.name} is not controlled by this ModelDeployment")
        self.ref = ref


class ForeignObjects:
    """Remembers such names, and looks beside the passes whether they are still taken.

    Args:
        kube: the client.
        wake: told of a ModelDeployment when a name that it wants is free.
        clock: monotonic, seconds.
    """

    def __init__(
        self, kube: Kube, wake: Callable[[Key], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._known: dict[Key, set[Ref]] = {}
        self._asked = Background(True, lambda _: LEAST_PAUSE_S, wake, clock=clock)

    def met(self, key: Key, ref: Ref) -> bool:
        """An object of that name is somebody else's. Returns whether that is news."""
        known = self._known.setdefault(key, set())
        if ref in known:
            return False
        known.add(ref)
        return True

    def of(self, key: Key) -> frozenset[Ref]:
        """The names that are taken, as far as is known."""
        return frozenset(self._known.get(key, ()))

    def look(self, key: Key, uid: str) -> float | None:
        """Let go of names that turned out to be free, and ask about the others.

        Args:
            key: the ModelDeployment.
            uid: its UID.

        Returns:
            In how many seconds to look again; None: there are none.
        """
        names = {(key, uid, ref): ref for ref in sorted(self.of(key))}
        found = self._asked.take(key, {name: partial(self._is_taken, *name) for name in names})
        taken = {ref for name, ref in names.items() if found.answers[name]}
        if not taken:
            self._known.pop(key, None)
            return None
        self._known[key] = taken
        return AGAIN_S

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone, and wants no name."""
        self._known.pop(key, None)
        self._asked.take(key, {})

    async def stop(self) -> None:
        """Look no more."""
        await self._asked.stop()

    async def _is_taken(self, key: Key, uid: str, ref: Ref) -> bool:
        try:
            live = await self._kube.find(
                kind_of(ref.api_version, ref.kind), key.namespace, ref.name
            )
        except KubeError as error:
            log.warning("not looked at again", modeldeployment=str(key), problem=str(error))
            raise UnansweredError from error
        return live is not None and not controlled_by(live, uid)
