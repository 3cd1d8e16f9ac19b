"""Pods that can be asked for their counters: who they are, and which of them have answered."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tidegate.api.names import REVISION_LABEL
from tidegate.judging import epoch_of
from tidegate.observed import Object
from tidegate.resources.pod import ENVOY
from tidegate.resources.sidecar import INTERNAL_PORT
from tidegate.runtime.pages import PageError, Pages
from tidegate.sidecar_page import Reading, read_page

READS_AT_ONCE: Final = 128
"""Over all ModelDeployments."""
PODS_ASKED: Final = 3
"""Of one revision, why they do not serve."""


class PodAt(NamedTuple):
    """A pod that can be asked.

    Attributes:
        uid: its UID.
        name: its name.
        revision: hash of its revision.
        address: ``host:port`` of its internal listener.
    """

    uid: str
    name: str
    revision: str
    address: str


class ReadError(Exception):
    """A pod's counters could not be read; the text says why."""


def pods_at(pods: Iterable[Object], revisions: Iterable[str], started: str = "") -> list[PodAt]:
    """Pods of these revisions that have an address, whose sidecar began, and that are not over.

    Args:
        pods: all of a ModelDeployment.
        revisions: hashes.
        started: when the rollout began, RFC 3339. Pods that were told to leave before have no part
            in it: after an `undo` they are of the canary's revision, and what they still answer is
            no evidence.
    """
    wanted, found = set(revisions), []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status") or {}
        revision = (metadata.get("labels") or {}).get(REVISION_LABEL)
        ip = status.get("podIP")
        if revision not in wanted or not ip or status.get("phase") in ("Succeeded", "Failed"):
            continue
        if _fetches_still(status):
            continue
        told_to_leave = metadata.get("deletionTimestamp")
        grace_s = metadata.get("deletionGracePeriodSeconds") or 0
        if told_to_leave and _before(told_to_leave, grace_s, started):
            continue
        host = f"[{ip}]" if ":" in ip else ip
        found.append(PodAt(metadata["uid"], metadata["name"], revision, f"{host}:{INTERNAL_PORT}"))
    return found


def first_of_each_revision(pods: Iterable[Object], most: int = PODS_ASKED) -> list[Object]:
    """The first few pods of each revision: what one says of its model, the others say, too."""
    found: dict[str, list[Object]] = {}
    for pod in pods:
        revision = (pod["metadata"].get("labels") or {}).get(REVISION_LABEL, "")
        of_it = found.setdefault(revision, [])
        if len(of_it) < most:
            of_it.append(pod)
    return [pod for of_it in found.values() for pod in of_it]


def _fetches_still(status: Mapping[str, Any]) -> bool:
    """Whether the sidecar was never started: nobody can have asked such a pod anything."""
    for container in status.get("initContainerStatuses") or ():
        if container.get("name") == ENVOY:
            return "waiting" in (container.get("state") or {}) and not container.get("restartCount")
    return False


def _before(deletion: str, grace_s: float, started: str) -> bool:
    """Whether a pod was told to leave before that: deletionTimestamp is the end of its grace."""
    at, begun = epoch_of(deletion), epoch_of(started)
    return at is not None and begun is not None and at - grace_s < begun


async def read_sidecar(pages: Pages, pod: PodAt, at_s: Callable[[], float]) -> Reading:
    """The counters of a pod's sidecar now.

    Args:
        pages: reads the page.
        pod: whom to ask.
        at_s: seconds since the epoch, now.

    Raises:
        ReadError: they cannot be read.
    """
    try:
        page = await pages.get(pod.address)
        return read_page(
            page.decode("utf-8", "replace"),
            pod=pod.uid,
            revision=pod.revision,
            at_s=at_s(),
            name=pod.name,
        )
    except (PageError, ValueError) as error:
        raise ReadError(str(error)) from error


@dataclass
class Answers:
    """Which pods of one ModelDeployment answer, by UID. Times are monotonic seconds.

    Attributes:
        problems: why a pod was not read at the last look.
    """

    problems: dict[str, str] = field(default_factory=dict)
    _last_at: dict[str, float] = field(default_factory=dict)

    def looked(self, uids: Iterable[str], now: float) -> None:
        """A look at these is over, and `problems` says what came of it; others are forgotten."""
        asked = set(uids)
        for uid in asked:
            if uid in self.problems:
                self._last_at.setdefault(uid, now)
            else:
                self._last_at[uid] = now
        for by_uid in (self.problems, self._last_at):
            for gone in by_uid.keys() - asked:
                del by_uid[gone]

    def silent_s(self, uid: str, now: float) -> float:
        """Seconds since a pod answered, or was first tried; 0: it answered at the last look."""
        return now - self._last_at[uid] if uid in self.problems else 0.0
