"""Applies that change nothing, though the documents differ."""

import hashlib
import json
from typing import Any, Final

import structlog

from tidegate.observed import Object
from tidegate.runtime import drift
from tidegate.runtime.cache import place_of, uid_of, version_of

log: Final = structlog.get_logger(__name__)

REMEMBERED: Final = 10_000


class Settled:
    """Applies that the API server took without changing anything.

    What differs is only how it writes the same thing. That is so for one version of the object and
    one wish.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, str]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether each apply so far was known to change something."""
        return not self._known

    def knows(self, live: Object, manager: str, document: dict[str, Any]) -> bool:
        """Whether applying that document to the object as it lives changes nothing."""
        return self._known.get((uid_of(live), manager)) == (version_of(live), digest(document))

    def add(self, live: Object, manager: str, document: dict[str, Any]) -> None:
        """Applying that document made no new version of the object."""
        if len(self._known) > REMEMBERED:
            self._known.clear()
        self._known[uid_of(live), manager] = (version_of(live), digest(document))
        log.debug(
            "apply changed nothing",
            object=f"{live['kind']}/{place_of(live).name}",
            difference=str(drift.difference(document, live, manager)),
        )


def digest(document: dict[str, Any]) -> str:
    """Of a wish: the same for the same document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
