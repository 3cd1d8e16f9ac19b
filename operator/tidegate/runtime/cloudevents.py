"""Audit records as CloudEvents, posted to one address that the platform configures.

A courtesy to others: it never holds a decision up. What cannot be sent in time is dropped and
counted; the log has it all. Structured content mode, CloudEvents 1.0.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import structlog
from multidict import CIMultiDict

from tidegate.api.names import GROUP
from tidegate.runtime.telemetry import Metrics

log: Final = structlog.get_logger(__name__)

CONTENT_TYPE: Final = "application/cloudevents+json"
WAITING: Final = 1000
"""Events that wait to be sent; a newer one is dropped then."""
TIMEOUT_S: Final = 5.0
TRIES: Final = 3
PAUSE_S: Final = 1.0
"""Before the second try; twice as long before the third."""


def cloud_event(record: Mapping[str, Any]) -> dict[str, Any]:
    """An audit record as a CloudEvent."""
    return {
        "specversion": "1.0",
        "id": record["id"],
        "source": f"/{GROUP}/modeldeployments/{record['modeldeployment']}",
        "type": f"dev.tidegate.{record['decision']}",
        "subject": record.get("revision") or record["modeldeployment"],
        "time": record["at"],
        "datacontenttype": "application/json",
        "data": dict(record),
    }


class EventSink:
    """Posts events one after the other.

    Args:
        url: where.
        metrics: counts.
        headers: sent with each.
        timeout_s: of one try.
        pause_s: before the second try.
    """

    def __init__(
        self,
        url: str,
        metrics: Metrics,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._url = url
        self._metrics = metrics
        self._headers = CIMultiDict(headers or {})
        self._headers["Content-Type"] = CONTENT_TYPE
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._waiting: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(WAITING)
        self._unreachable = ""

    def put(self, record: Mapping[str, Any]) -> None:
        """Have a record sent some time; never waits."""
        try:
            self._waiting.put_nowait(record)
        except asyncio.QueueFull:
            self._metrics.cloud_events.labels("dropped").inc()

    async def drain(self) -> None:
        """Wait until each was sent or given up; `run` runs meanwhile."""
        await self._waiting.join()

    async def run(self) -> None:
        """Send what comes, for ever."""
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                record = await self._waiting.get()
                problem = await self._send(session, json.dumps(cloud_event(record), default=str))
                self._metrics.cloud_events.labels("failed" if problem else "sent").inc()
                if problem and problem != self._unreachable:
                    log.warning("event not sent", url=self._url, problem=problem)
                self._unreachable = problem
                self._waiting.task_done()

    async def _send(self, session: aiohttp.ClientSession, body: str) -> str:
        """Try some times. Returns what is wrong; empty: it was taken."""
        problem = ""
        for tried in range(TRIES):
            if tried:
                await asyncio.sleep(self._pause_s * 2 ** (tried - 1))
            try:
                async with session.post(
                    self._url,
                    data=body,
                    headers=self._headers,
                    allow_redirects=False,
                ) as response:
                    if response.status < 300:
                        return ""
                    problem = f"status {response.status}"
                    if response.status < 500 and response.status != 429:
                        return problem
            except TimeoutError:
                problem = f"no answer within {self._timeout_s:g} s"
            except (aiohttp.ClientError, OSError) as error:
                problem = str(error) or type(error).__name__
        return problem
