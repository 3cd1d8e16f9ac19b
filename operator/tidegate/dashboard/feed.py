"""A collection kept up to date: listed, then watched, again and again."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from tidegate.dashboard.upstream import Collection, Document, Upstream, UpstreamError

LEAST_PAUSE_S: Final = 0.5
MOST_PAUSE_S: Final = 15.0


@dataclass(frozen=True)
class Whole:
    """All objects, after a list."""

    objects: list[Document]


@dataclass(frozen=True)
class Changed:
    """One object is new or different."""

    object: Document


@dataclass(frozen=True)
class Gone:
    """One object was deleted."""

    object: Document


@dataclass(frozen=True)
class Trouble:
    """The API server cannot be asked just now; what is known grows old."""

    message: str


@dataclass(frozen=True)
class Fresh:
    """What is known is what the API server knows: after a trouble, or a sign of life."""


News = Whole | Changed | Gone | Trouble | Fresh


@dataclass
class Backoff:
    """Pauses that grow while it fails, with a random part, so that not all readers come at once.

    Attributes:
        failures: in a row.
        random: uniform in [0, 1).
    """

    failures: int = 0
    random: Callable[[], float] = field(default=random.random)

    def next_s(self) -> float:
        """Seconds to wait after one more failure."""
        self.failures += 1
        pause_s = min(MOST_PAUSE_S, LEAST_PAUSE_S * 2.0 ** (self.failures - 1))
        return pause_s * (0.5 + self.random() / 2)


async def follow(
    upstream: Upstream,
    token: str,
    collection: Collection,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[News]:
    """A collection's news, until its reader may not read it any more.

    Raises:
        UpstreamError: the token or the right is gone, or there is no such kind.
    """
    backoff, version = Backoff(), ""
    while True:
        try:
            if not version:
                found, version = await upstream.list(token, collection)
                yield Whole([_slim(one) for one in found])
                found = []  # a watch is long, and a thousand documents are large
            async for change in upstream.watch(token, collection, version):
                version = str(change.object["metadata"].get("resourceVersion") or version)
                backoff.failures = 0
                if change.type == "BOOKMARK":
                    yield Fresh()
                elif change.type == "DELETED":
                    yield Gone(_slim(change.object))
                else:
                    yield Changed(_slim(change.object))
            backoff.failures = 0
            yield Fresh()
        except UpstreamError as error:
            if error.status == 410:
                version = ""
                continue
            if error.final:
                raise
            yield Trouble(str(error))
            await sleep(backoff.next_s())
            # What was missed meanwhile: a list tells it for certain, and that all is fresh again.
            version = ""


def _slim(document: Document) -> Document:
    """Without what no view shows and much memory goes to."""
    document["metadata"].pop("managedFields", None)
    (document["metadata"].get("annotations") or {}).pop(
        "kubectl.kubernetes.io/last-applied-configuration", None
    )
    return document
