"""All ModelDeployments that a reader may see, in a line each."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from weakref import WeakValueDictionary

from tidegate.dashboard.board import Board, Message
from tidegate.dashboard.feed import Changed, Fresh, Gone, Trouble, Whole, follow
from tidegate.dashboard.upstream import Document, Upstream, deployments
from tidegate.view import summary

MAX_CANDIDATES: Final = 500
CHECKS_AT_ONCE: Final = 8


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Scope:
    """Where a reader may list ModelDeployments.

    Attributes:
        everywhere: in all namespaces, also those that are yet to come.
        namespaces: in these, where not everywhere.
        refused: of those that were asked for, the ones without the right.
    """

    everywhere: bool = False
    namespaces: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def feeds(self) -> tuple[str, ...]:
        """The namespaces to read; '' means all in one."""
        return ("",) if self.everywhere else self.namespaces


async def scope_of(
    upstream: Upstream, token: str, user: str, asked: Sequence[str], known: Sequence[str]
) -> Scope:
    """Where the bearer may list ModelDeployments.

    Who may not list them everywhere is asked about namespace by namespace: the ones that the chart
    names, all where they may be listed, and the service account's own.

    Args:
        upstream: answers.
        token: the bearer's.
        user: the bearer's name.
        asked: only these; empty: all that there are.
        known: namespaces to try.

    Raises:
        UpstreamError: the token is not accepted, or there was no answer.
    """
    if not asked and await upstream.may(token, "list", ""):
        return Scope(everywhere=True)
    candidates = list(asked)
    if not candidates:
        own = user.split(":")[2:3] if user.startswith("system:serviceaccount:") else []
        candidates = [*known, *own, *await upstream.namespaces(token)]
    candidates = list(dict.fromkeys(candidates))[:MAX_CANDIDATES]
    gate = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def allowed(namespace: str) -> bool:
        async with gate:
            return await upstream.may(token, "list", namespace)

    answers = await asyncio.gather(*(allowed(n) for n in candidates))
    found = tuple(sorted(n for n, yes in zip(candidates, answers, strict=True) if yes))
    refused = tuple(n for n, yes in zip(candidates, answers, strict=True) if not yes)
    return Scope(namespaces=found, refused=refused if asked else ())


class _Summary(dict[str, Any]):
    """One that can be referred to weakly."""


_summaries: WeakValueDictionary[tuple[str, str], _Summary] = WeakValueDictionary()
"""By UID and version: what many readers were given is kept once."""


def _summary(document: Document, now: datetime) -> _Summary:
    meta = document["metadata"]
    key = str(meta.get("uid")), str(meta.get("resourceVersion"))
    found = _summaries.get(key)
    if found is None:
        found = _summaries[key] = _Summary(summary(document, now))
    return found


class Fleet(Board):
    """Summaries of all ModelDeployments of some namespaces.

    Args:
        upstream: where they are.
        token: with which they are read.
        namespaces: which; '' means all.
        now: the time.
    """

    def __init__(
        self,
        upstream: Upstream,
        token: str,
        namespaces: Sequence[str],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__()
        self._upstream = upstream
        self._token = token
        self._namespaces = tuple(namespaces)
        self._now = now
        self._found: dict[str, dict[str, Message]] = {}
        """By feed, then by namespace and name."""
        self._troubled: dict[str, str] = {}
        """By feed."""

    def greeting(self) -> Iterable[tuple[Hashable, Message]]:
        """All of it, once every feed has been read."""
        if len(self._found) == len(self._namespaces):
            yield "fleet", self._whole()
        if self._troubled:
            yield "state", self._state()

    async def run(self) -> None:
        """See `Board.run`."""
        if not self._namespaces:
            self.tell("fleet", self._whole())
        tasks = [asyncio.ensure_future(self._follow(n)) for n in self._namespaces]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, feed: str) -> None:
        async for news in follow(self._upstream, self._token, deployments(feed)):
            if isinstance(news, Trouble):
                if feed not in self._troubled:
                    self._troubled[feed] = news.message
                    self.tell("state", self._state())
                continue
            if self._troubled.pop(feed, None) is not None:
                self.tell("state", self._state())
            if isinstance(news, Whole):
                now = self._now()
                self._found[feed] = {_key(o): _summary(o, now) for o in news.objects}
                news.objects.clear()  # nor keep them while nothing happens
                if len(self._found) == len(self._namespaces):
                    self.tell("fleet", self._whole(), instead_of_all=True)
                    self.tell("state", self._state())
            elif isinstance(news, Changed):
                key, item = _key(news.object), _summary(news.object, self._now())
                if self._found[feed].get(key) != item:
                    self._found[feed][key] = item
                    self.tell(key, {"type": "change", "item": item})
            elif isinstance(news, Gone):
                key = _key(news.object)
                if self._found[feed].pop(key, None) is not None:
                    self.tell(key, {"type": "gone", **_where(news.object)})
            else:
                assert isinstance(news, Fresh)

    def _whole(self) -> Message:
        items = [item for found in self._found.values() for item in found.values()]
        return {"type": "fleet", "items": items, "at": _stamp(self._now())}

    def _state(self) -> Message:
        trouble = next(iter(self._troubled.values()), "")
        return {"type": "state", "trouble": trouble, "at": _stamp(self._now())}


def _where(document: Document) -> dict[str, str]:
    meta = document["metadata"]
    return {"namespace": str(meta.get("namespace") or ""), "name": str(meta["name"])}


def _key(document: Document) -> str:
    return "/".join(_where(document).values())


def _stamp(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
