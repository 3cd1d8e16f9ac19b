"""What a pass tells people: events, then status."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from tidegate.actions import Event, Plan, WriteStatus
from tidegate.observed import Object
from tidegate.runtime.apply import Carrier
from tidegate.runtime.cache import Key, uid_of
from tidegate.runtime.events import Teller
from tidegate.runtime.kube import ForbiddenError, InvalidError, NotFoundError
from tidegate.runtime.outcome import Outcome

log: Final = structlog.get_logger(__name__)

REMEMBERED: Final = 100_000
"""ModelDeployments that this process has told something of."""


class Reporter:
    """Tells what the last plan of a pass says.

    Args:
        carrier: writes status.
        teller: tells events.
        now: wall clock, UTC.
    """

    def __init__(
        self,
        carrier: Carrier,
        teller: Teller,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._carrier = carrier
        self._teller = teller
        self._now = now
        self._seen_uids: OrderedDict[str, None] = OrderedDict()

    async def tell(self, key: Key, deployment: Object, plan: Plan, this: Outcome) -> None:
        """Events first, then status: after a crash between the two, the events meet themselves."""
        for action in plan.actions:
            if isinstance(action, Event):
                this.events[action] = None
        statuses = [a for a in plan.actions if isinstance(a, WriteStatus)]
        uid = uid_of(deployment)
        first = uid not in self._seen_uids
        changes = this.wrote or any(
            self._carrier.status_would_change(key, deployment, s.status) for s in statuses
        )
        for event in this.events:
            if first and not changes:
                # Seen for the first time by this process, and all is as it was left: this was
                # told before.
                self._teller.remember(key, deployment, event)
                continue
            try:
                if await self._teller.tell(key, deployment, event, self._now()):
                    log.info(
                        "decision",
                        modeldeployment=str(key),
                        action="Event",
                        object=event.reason,
                        reason=event.message,
                    )
            except (ForbiddenError, InvalidError, NotFoundError) as error:
                # An event is a courtesy: status carries the truth.
                log.warning("event not told", modeldeployment=str(key), problem=str(error))
                self._teller.remember(key, deployment, event)
        for status in statuses:
            try:
                done = await self._carrier.carry_out(key, deployment, status)
            except (ForbiddenError, InvalidError) as error:
                this.refused(status, error)
                continue
            this.again(done.again_after_s)
            if done.wrote:
                this.changed(status, done.reason)
        self._seen_uids[uid] = None
        while len(self._seen_uids) > REMEMBERED:
            self._seen_uids.popitem(last=False)
