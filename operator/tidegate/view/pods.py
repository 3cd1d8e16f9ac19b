"""What a pod does, and where the time of its start went. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from tidegate.api import names
from tidegate.view import facts
from tidegate.view.facts import Document, Tone

FETCH: Final = "fetch"
SERVER: Final = "triton"
_STATUSES: Final = ("initContainerStatuses", "containerStatuses")


def pod_state(pod: Document) -> tuple[str, str]:
    """A pod in a word, and its tone."""
    found = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating", Tone.FAINT
    if _condition(pod, "Ready").get("status") == "True":
        labels = pod["metadata"].get("labels") or {}
        if labels.get(names.SERVING_LABEL) != "true":
            return "OutOfService", Tone.HOLD
        return "Ready", Tone.GOOD
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason and reason not in ("PodInitializing", "ContainerCreating"):
            return str(reason), Tone.BAD
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("reason") or "Unscheduled"), Tone.HOLD
    return ("NotReady" if found.get("phase") == "Running" else str(found.get("phase"))), Tone.HOLD


def pod_view(pod: Document, now: datetime) -> dict[str, Any]:
    """A pod as JSON.

    Args:
        pod: the API server's.
        now: UTC.
    """
    word, tone = pod_state(pod)
    created = facts.moment(pod["metadata"].get("creationTimestamp"))
    return {
        "name": str(pod["metadata"]["name"]),
        "word": word,
        "tone": facts.MEANING[tone],
        "created": pod["metadata"].get("creationTimestamp") or "",
        "ageSeconds": None if created is None else max(0.0, (now - created).total_seconds()),
        "restarts": sum(c.get("restartCount") or 0 for c in _containers(pod)),
        "node": str((pod.get("spec") or {}).get("nodeName") or ""),
        "coldStart": cold_start(pod, now),
    }


def cold_start(pod: Document, now: datetime) -> list[dict[str, Any]]:
    """The phases of a pod's start so far, in order: schedule, image, fetch, load.

    *image* is all from the node's choice to the fetch's first instruction; *load* is from the
    server's start to Ready. Of a pod that has restarted nothing is told: its times are not those
    of its start. Whole seconds, as the API server keeps them.
    """
    if any(c.get("restartCount") for c in _containers(pod)):
        return []
    fetch = _container(pod, FETCH).get("state") or {}
    server = _container(pod, SERVER).get("state") or {}
    ended = fetch.get("terminated") or {}
    marks = (
        ("schedule", _since(pod, "PodScheduled")),
        ("image", facts.moment((fetch.get("running") or ended).get("startedAt"))),
        ("fetch", facts.moment(ended.get("finishedAt")) if ended.get("exitCode") == 0 else None),
        ("load", _since(pod, "Ready")),
    )
    started = facts.moment((server.get("running") or {}).get("startedAt"))
    begin = facts.moment(pod["metadata"].get("creationTimestamp"))
    found: list[dict[str, Any]] = []
    for phase, end in marks:
        if begin is None:
            break
        begin = started or begin if phase == "load" else begin
        length_s = ((end or now) - begin).total_seconds()
        found.append({"phase": phase, "seconds": max(0.0, length_s), "done": end is not None})
        if end is None:
            break
        begin = end
    return found


def _since(pod: Document, kind: str) -> datetime | None:
    """Since when a condition is True; None: it is not."""
    found = _condition(pod, kind)
    held = found.get("status") == "True"
    return facts.moment(found.get("lastTransitionTime")) if held else None


def _condition(pod: Document, kind: str) -> Document:
    found = (pod.get("status") or {}).get("conditions") or ()
    return next((c for c in found if c.get("type") == kind), {})


def _containers(pod: Document) -> Iterable[Document]:
    for key in _STATUSES:
        yield from (pod.get("status") or {}).get(key) or ()


def _container(pod: Document, name: str) -> Document:
    return next((c for c in _containers(pod) if c.get("name") == name), {})
