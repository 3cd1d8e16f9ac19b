"""One writer at a time: leadership by a Lease.

Every replica watches and keeps its cache warm; only the holder's workers run. A standby takes
over when the Lease was released, or when it was not renewed for its whole duration *as seen on the
standby's own clock* (clocks of two nodes are never compared). The holder's `Fence` falls earlier
than that. A holder that loses the Lease does not go on as a standby: the process ends, and the
next one begins from a clean state.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from tidegate.runtime.fence import Fence
from tidegate.runtime.kinds import LEASE
from tidegate.runtime.kube import AlreadyExistsError, ConflictError, Kube, KubeError, NotFoundError
from tidegate.runtime.settings import Settings

log: Final = structlog.get_logger(__name__)


class LeadershipLostError(RuntimeError):
    """Another process holds the Lease, or it could not be renewed in time."""


@dataclass(frozen=True)
class _Seen:
    """A Lease's record, and when it was first seen so (monotonic seconds)."""

    record: tuple[Any, ...]
    at: float


class Leadership:
    """Competes for the Lease, and keeps it.

    Args:
        kube: the client.
        fence: raised here, asked by the client before each write.
        settings: names and times.
        clock: monotonic, seconds; the fence's.
        sleep: waits, seconds.
        now: wall clock, for the Lease's record only.
    """

    def __init__(
        self,
        kube: Kube,
        fence: Fence,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._fence = fence
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._now = now
        self._seen: _Seen | None = None
        self._lease: dict[str, Any] | None = None
        self.held = False

    async def acquire(self) -> None:
        """Wait until this process holds the Lease."""
        waiting_for = ""
        while True:
            try:
                if await self._try():
                    self.held = True
                    return
            except KubeError as error:
                log.warning("lease", lease=self._name, problem=str(error), mend=self._mend(error))
            holder = _holder(self._lease)
            if holder != waiting_for:
                log.info("standby", lease=self._name, holder=holder)
                waiting_for = holder
            await self._sleep(self._settings.retry_period_s)

    async def keep(self) -> None:
        """Renew for as long as it works.

        Raises:
            LeadershipLostError: it does not work any more; nothing may be written.
        """
        while True:
            await self._sleep(self._settings.retry_period_s)
            try:
                renewed = await self._try()
            except KubeError as error:
                remaining = self._fence.remaining_s(self._clock())
                log.warning(
                    "lease renewal failed",
                    lease=self._name,
                    problem=str(error),
                    remaining_s=round(remaining, 1),
                )
                if remaining <= 0.0:
                    self._lost()
                    raise LeadershipLostError("the Lease could not be renewed in time") from error
                continue
            if not renewed:
                self._lost()
                raise LeadershipLostError(f"the Lease is held by {_holder(self._lease)}")

    async def release(self) -> None:
        """Give the Lease back, so that a standby need not wait. Nothing is written after that."""
        self._fence.close()
        if not self.held or self._lease is None:
            return
        self.held = False
        document = {
            **self._lease,
            "spec": {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1},
        }
        try:
            await self._put(document)
            log.info("lease released", lease=self._name)
        except KubeError as error:
            log.warning("lease not released", lease=self._name, problem=str(error))

    def _lost(self) -> None:
        self.held = False
        self._fence.close()

    async def _try(self) -> bool:
        """Look once, and take or renew the Lease if that is right. Returns whether it is ours."""
        began = self._clock()
        settings = self._settings
        if not self.held or self._lease is None:
            try:
                self._lease = await self._kube.get(
                    LEASE, settings.lease_namespace, settings.lease_name
                )
            except NotFoundError:
                self._lease = None
        spec = dict((self._lease or {}).get("spec") or {})
        ours = spec.get("holderIdentity") == settings.identity
        if not ours and self._lease is not None and not self._expired(spec, began):
            return False
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record = {
            "holderIdentity": settings.identity,
            "leaseDurationSeconds": max(1, round(settings.lease_duration_s)),
            "renewTime": stamp,
            "acquireTime": spec.get("acquireTime") if ours else stamp,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0)
            + (self._lease is not None and not ours),
        }
        metadata: dict[str, Any] = {
            "name": settings.lease_name,
            "namespace": settings.lease_namespace,
        }
        if self._lease is not None:
            metadata = dict(self._lease["metadata"])
        document = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": {**spec, **record},
        }
        began = self._clock()
        try:
            self._lease = await self._put(document)
        except (AlreadyExistsError, ConflictError, NotFoundError):
            # Somebody else wrote it; whether it is still ours, the API server must say.
            self._lease = None
            if not self.held:
                return False
            self._lease = await self._kube.get(LEASE, settings.lease_namespace, settings.lease_name)
            return _holder(self._lease) == settings.identity
        self._fence.renewed(began)
        return True

    async def _put(self, document: dict[str, Any]) -> dict[str, Any]:
        return await self._kube.lease(
            LEASE,
            self._settings.lease_namespace,
            document,
            timeout_s=self._settings.renew_deadline_s / 2,
        )

    def _expired(self, spec: dict[str, Any], now: float) -> bool:
        if not spec.get("holderIdentity"):
            return True
        record = tuple(sorted((k, str(v)) for k, v in spec.items()))
        if self._seen is None or self._seen.record != record:
            self._seen = _Seen(record, now)
        duration = float(spec.get("leaseDurationSeconds") or self._settings.lease_duration_s)
        return now - self._seen.at >= duration

    @property
    def _name(self) -> str:
        return f"{self._settings.lease_namespace}/{self._settings.lease_name}"

    def _mend(self, error: KubeError) -> str:
        if error.code == 403:
            return "grant create on leases, and get and update on this one"
        return "the operator goes on trying"


def _holder(lease: dict[str, Any] | None) -> str:
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
