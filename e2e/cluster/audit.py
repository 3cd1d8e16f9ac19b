"""Reads the API server's audit log: who wrote what, so that writes can be counted.

The policy (control_plane.AUDIT_POLICY) logs only writes, and only those that the cluster's own
parts did not make.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Write:
    """One write request as the API server saw it."""

    verb: str
    user: str
    user_agent: str
    resource: str
    """Plural, with the subresource: `deployments/scale`."""
    namespace: str
    name: str
    code: int
    at: str
    """Time of arrival, RFC 3339 with microseconds, UTC: sorts as text."""
    dry_run: bool
    done_at: str = ""
    """Time of the answer, in the same form."""


def parse(event: dict[str, Any]) -> Write:
    """Turn one audit event into a Write."""
    target = event.get("objectRef", {})
    subresource = target.get("subresource", "")
    return Write(
        verb=event["verb"],
        user=event["user"].get("username", ""),
        user_agent=event.get("userAgent", ""),
        resource=target.get("resource", "") + (f"/{subresource}" if subresource else ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        at=event["requestReceivedTimestamp"],
        dry_run="dryRun=" in event.get("requestURI", ""),
        done_at=event.get("stageTimestamp", ""),
    )


@dataclass
class AuditLog:
    """The writes from a moment on; the moment is the making of this object or a `mark()`.

    The file is never rotated by the harness, so a byte offset is a moment.
    """

    path: Path
    offset: int = -1

    def __post_init__(self) -> None:
        if self.offset < 0:
            self.mark()

    def mark(self) -> None:
        """Count from now on."""
        self.offset = self.path.stat().st_size if self.path.exists() else 0

    def writes(self, *, user: str = "", user_agent: str = "") -> list[Write]:
        """Return the writes since the mark whose user and user agent contain the given texts."""
        return [
            write
            for write in self._events()
            if user in write.user and user_agent in write.user_agent
        ]

    def _events(self) -> Iterator[Write]:
        if not self.path.exists():
            return
        with self.path.open("rb") as log:
            log.seek(self.offset)
            for line in log:
                if line.endswith(b"\n"):  # the last line may still be being written
                    yield parse(json.loads(line))


def by_kind(writes: Iterable[Write]) -> Counter[str]:
    """Count writes by `verb resource`, for a message that says what they were."""
    return Counter(f"{write.verb} {write.resource}" for write in writes)


def besides_leases(writes: Iterable[Write]) -> list[Write]:
    """Leave out the writes of Leases: who leads renews its Lease for ever."""
    return [write for write in writes if write.resource != "leases"]
