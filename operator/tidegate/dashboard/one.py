"""One ModelDeployment: its document, the explanations of its decisions, the charts' points."""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tidegate.dashboard.board import Board, Message
from tidegate.dashboard.feed import Changed, Gone, Trouble, Whole, follow
from tidegate.dashboard.measuring import DEFAULT_QUANTILE, in_ms, readable
from tidegate.dashboard.sidecars import Sidecars
from tidegate.dashboard.trail import Trails, point
from tidegate.dashboard.upstream import (
    Document,
    Upstream,
    UpstreamError,
    events,
    one_deployment,
    pods,
)
from tidegate.view import document, explanation

LOOK_EVERY_S: Final = 2.0
TELL_AT_MOST_EVERY_S: Final = 0.4
EVENTS_EVERY_S: Final = 15.0


def explanations(found: Document, told: Mapping[str, Any], now: datetime) -> Message:
    """Why each revision that the document names is where it is, by hash.

    Args:
        found: the ModelDeployment.
        told: its document.
        now: UTC.
    """
    hashes = [r["hash"] for r in told["revisions"]] + [h["revision"] for h in told["history"]]
    return {h: explanation(found, h, now).dump() for h in dict.fromkeys(hashes) if h}


class One(Board):
    """One ModelDeployment.

    Args:
        upstream: where it is.
        token: with which it is read.
        namespace: its own.
        name: its own.
        sidecars: read its pods' counters; None: nobody does.
        trails: keep the charts' points.
        epoch_s: the time, seconds since the epoch.
    """

    def __init__(
        self,
        upstream: Upstream,
        token: str,
        namespace: str,
        name: str,
        sidecars: Sidecars | None,
        trails: Trails,
        epoch_s: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._upstream = upstream
        self._token = token
        self._namespace = namespace
        self._name = name
        self._sidecars = sidecars
        self._trails = trails
        self._epoch_s = epoch_s
        self._deployment: Document | None = None
        self._read = False
        self._pods: dict[str, Document] = {}
        self._events: list[Document] = []
        self._events_at_s = -EVENTS_EVERY_S
        self._refused: dict[str, str] = {}
        """Which parts the reader may not see, and the API server's words."""
        self._troubled: dict[str, str] = {}
        self._measured: dict[str, dict[str, Any]] = {}
        self._trail_told = ""
        """UID of the one whose past the readers have been told."""
        self._news = asyncio.Event()

    def greeting(self) -> Iterable[tuple[Hashable, Message]]:
        """The past for the charts, and how it is now."""
        if self._deployment is not None:
            uid = self._deployment["metadata"]["uid"]
            yield "trail", {"type": "trail", "points": self._trails.past(uid)}
        if self._read:
            yield "deployment", self._message()

    async def run(self) -> None:
        """See `Board.run`."""
        tasks = [
            asyncio.ensure_future(work)
            for work in (self._follow_deployment(), self._follow_pods(), self._keep_telling())
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_deployment(self) -> None:
        collection = one_deployment(self._namespace, self._name)
        async for news in follow(self._upstream, self._token, collection):
            if isinstance(news, Trouble):
                self._troubled["deployment"] = news.message
            else:
                self._troubled.pop("deployment", None)
            if isinstance(news, Whole):
                self._deployment = next(iter(news.objects), None)
                self._read = True
            elif isinstance(news, Changed):
                self._deployment = news.object
            elif isinstance(news, Gone):
                self._deployment = None
            self._news.set()

    async def _follow_pods(self) -> None:
        collection = pods(self._namespace, self._name)
        try:
            async for news in follow(self._upstream, self._token, collection):
                if isinstance(news, Whole):
                    self._pods = {p["metadata"]["uid"]: p for p in news.objects}
                elif isinstance(news, Changed):
                    self._pods[news.object["metadata"]["uid"]] = news.object
                elif isinstance(news, Gone):
                    self._pods.pop(news.object["metadata"]["uid"], None)
                self._news.set()
        except UpstreamError as error:
            if error.status != 403:
                raise
            # The status says the most important; without pods the rest is shown all the same.
            self._refused["pods"] = str(error)

    async def _keep_telling(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            changed = self._news.is_set()
            self._news.clear()
            await self._look(changed)
            await asyncio.sleep(TELL_AT_MOST_EVERY_S)

    async def _look(self, changed: bool) -> None:
        """Read what is fresher than status, and tell the readers."""
        if not self._read:
            return
        found = self._deployment
        if found is None:
            self.tell("deployment", self._message(), instead_of_all=True)
            return
        uid = found["metadata"]["uid"]
        if self._sidecars is not None:
            slo = (found.get("spec") or {}).get("slo") or {}
            self._measured = await self._sidecars.measured(
                uid, readable(self._pods.values()), _quantile(slo)
            )
        now_s = self._epoch_s()
        if now_s - self._events_at_s >= (TELL_AT_MOST_EVERY_S if changed else EVENTS_EVERY_S):
            self._events_at_s = now_s
            await self._read_events()
        if self._deployment is not found:
            return  # it changed meanwhile, and the next look is due at once
        message = self._message()
        if self._trail_told != uid:
            # Those who joined before it was read have not seen its past.
            self._trail_told = uid
            self.tell("trail", {"type": "trail", "points": self._trails.past(uid)})
        new = point(message["document"], now_s)
        self._trails.add(uid, new)
        message["point"] = new
        self.tell("deployment", message)

    async def _read_events(self) -> None:
        try:
            self._events, _ = await self._upstream.list(
                self._token, events(self._namespace, self._name)
            )
            self._refused.pop("events", None)
        except UpstreamError as error:
            if error.status == 401:
                raise
            if error.status == 403:
                self._refused["events"] = str(error)

    def _message(self) -> Message:
        now = datetime.fromtimestamp(self._epoch_s(), UTC)
        message: Message = {
            "type": "deployment",
            "document": None,
            "explanations": {},
            "refused": sorted(self._refused),
            "trouble": next(iter(self._troubled.values()), ""),
            "at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if self._deployment is None:
            return message
        uid = self._deployment["metadata"]["uid"]
        told = document(
            self._deployment,
            now=now,
            pods=self._pods.values(),
            # Those of a namesake that was deleted tell of something else.
            events=[e for e in self._events if (e.get("involvedObject") or {}).get("uid") == uid],
            measured=self._measured,
        )
        message["document"] = told
        message["explanations"] = explanations(self._deployment, told, now)
        message["targetMs"] = in_ms(told["slo"]["latencyTarget"])
        return message


def _quantile(slo: Mapping[str, Any]) -> float:
    try:
        found = float((slo.get("latency") or {}).get("quantile") or DEFAULT_QUANTILE)
    except ValueError:
        return DEFAULT_QUANTILE
    return found if 0 < found < 1 else DEFAULT_QUANTILE
