"""Why a revision's pods do not serve yet: one reason, one message with the mend.

Read from what the cluster and the containers themselves say: scheduling conditions, container
states, the fetch container's termination message, Triton's repository index, Kubernetes events.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from tidegate.nodes import FREE, Nodes, room_for
from tidegate.observed import Object
from tidegate.resources.pod import COPY_MODEL, ENVOY, FETCH, TRITON


class Severity(IntEnum):
    """How far a finding is from serving; the worst one speaks for a revision."""

    READY = 0
    PROGRESSING = 1
    WAITING = 2
    """Needs something that may still come by itself: a free GPU, a Secret, a source."""
    FAILING = 3
    """Needs somebody to mend something; tried again all the same."""


@dataclass(frozen=True)
class Finding:
    """What holds a pod, or a whole revision.

    Attributes:
        severity: see `Severity`.
        state: a word for status, such as ``Fetching`` or ``Failed``.
        reason: CamelCase, for conditions and events.
        message: value and mend.
    """

    severity: Severity
    state: str
    reason: str
    message: str


@dataclass(frozen=True)
class FetchResult:
    """What the fetch container reported of a model that it laid out.

    Attributes:
        digest: ``sha256:...`` of the file tree.
        seconds: how long it took.
        cached: whether the bytes came from the cache.
        version: of the source when it was listed; empty: not told.
        address: where the bytes stay, though the spec's address may move on; empty: nowhere else.
    """

    digest: str
    seconds: float = 0.0
    cached: bool = False
    version: str = ""
    address: str = ""


READY: Final = Finding(Severity.READY, "Ready", "Ready", "")
_GPU_WORDS: Final = re.compile(r"Insufficient ([a-z0-9.-]+/[A-Za-z0-9._-]*[A-Za-z0-9])")
_PULL_ERRORS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
_PASSING_FETCH_REASONS: Final = frozenset({"SourceUnreachable", "FetchFailed"})
_TELLING_EVENTS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})


def fetch_result(pod: Object) -> FetchResult | None:
    """What the pod's fetch container reported; None while it has not succeeded."""
    status = _container(pod, FETCH)
    terminated = (status.get("state") or {}).get("terminated") or {}
    if terminated.get("exitCode") != 0:
        return None
    report = _json(terminated.get("message"))
    digest = report.get("digest")
    if not isinstance(digest, str):
        return None
    return FetchResult(
        digest,
        float(report.get("seconds") or 0.0),
        bool(report.get("cached")),
        str(report.get("sourceVersion") or ""),
        str(report.get("sourceAddress") or ""),
    )


def is_ready(pod: Object) -> bool:
    """Whether the pod is Ready and not on its way out."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return _condition(pod, "Ready").get("status") == "True"


def is_loading(pod: Object) -> bool:
    """Whether Triton runs in the pod and is not ready: it loads, or could not load."""
    if pod["metadata"].get("deletionTimestamp") or is_ready(pod):
        return False
    return _runs(pod, TRITON) and bool((pod.get("status") or {}).get("podIP"))


def diagnose_revision(
    deployment: Object | None,
    pods: Sequence[Object],
    wanted: int,
    events: Iterable[Object] = (),
    models: Mapping[str, str] | None = None,
    nodes: Nodes | None = None,
) -> Finding:
    """What holds a revision: the worst finding among its pods.

    Args:
        deployment: its Deployment as it lives; None: it is not there yet.
        pods: its pods.
        wanted: replicas that it should have.
        events: Kubernetes events about its pods.
        models: by pod UID, what Triton says of a model that is not ready.
        nodes: what nodes offer; None: not read.
    """
    if deployment is None:
        return Finding(Severity.PROGRESSING, "Pending", "Creating", "its Deployment is made")
    pods = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
    refused = _replica_failure(deployment)
    said = models or {}
    findings = [diagnose_pod(p, events, said.get(p["metadata"]["uid"], ""), nodes) for p in pods]
    ready = sum(f.severity is Severity.READY for f in findings)
    if ready >= wanted:
        return READY
    if refused is not None and len(pods) < wanted:
        findings.append(refused)
    worst = max(findings, key=lambda f: f.severity, default=None)
    if worst is None or worst.severity is Severity.READY:
        return Finding(
            Severity.PROGRESSING, "Pending", "Creating", f"{len(pods)} of {wanted} pods are made"
        )
    return worst


def diagnose_pod(
    pod: Object, events: Iterable[Object] = (), model: str = "", nodes: Nodes | None = None
) -> Finding:
    """What holds one pod.

    Args:
        pod: the pod.
        events: Kubernetes events; those about other pods are left out.
        model: what Triton says of a model that is not ready; empty: nothing.
        nodes: what nodes offer; None: not read.
    """
    if is_ready(pod):
        return READY
    found = _scheduling(pod, nodes)
    if found is not None:
        return found
    for name in (COPY_MODEL, FETCH, ENVOY, TRITON):
        found = _container_finding(name, _container(pod, name))
        if found is not None:
            return found
    if model:
        return Finding(
            Severity.FAILING,
            "Failed",
            "ModelNotLoaded",
            f"Triton cannot load the model: {model}",
        )
    if _runs(pod, TRITON):
        return Finding(
            Severity.PROGRESSING, "Loading", "Loading", "Triton is running and loads the model"
        )
    told = _told_by_events(pod, events)
    if told is not None:
        return told
    if _runs(pod, FETCH):
        return Finding(Severity.PROGRESSING, "Fetching", "Fetching", "the model is being fetched")
    return Finding(Severity.PROGRESSING, "Pending", "Starting", "its containers are being started")


def _scheduling(pod: Object, nodes: Nodes | None) -> Finding | None:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    text = str(scheduled.get("message") or "")
    if scheduled.get("reason") == "SchedulingGated":
        return Finding(
            Severity.WAITING,
            "Waiting",
            "WaitingForQuota",
            "the pod is held by a scheduling gate; with Kueue it waits for quota of its queue",
        )
    missing = _GPU_WORDS.search(text)
    room = room_for(pod, nodes)
    if missing:
        why = f"no node has {missing[1]} free" if room is None else room.text
        mend = FREE if room is None else room.mend
        return Finding(
            Severity.WAITING,
            "Waiting",
            "WaitingForGPU",
            f"{why}: {text} {mend}",
        )
    if "persistentvolumeclaim" in text:
        return Finding(
            Severity.WAITING,
            "Waiting",
            "ClaimNotFound",
            f"{text}. Create the claim, or correct its name.",
        )
    if "resource claim" in text.lower() or "cannot allocate all claims" in text:
        return Finding(
            Severity.WAITING, "Waiting", "WaitingForGPU", f"no device satisfies the claim: {text}"
        )
    if "node affinity" in text or "node selector" in text or "nodes are available" in text:
        if room is not None and not room.taken:
            told = f"{room.text}: {text} {room.mend}"
            return Finding(Severity.WAITING, "Waiting", "NoMatchingNode", told)
        return Finding(
            Severity.WAITING,
            "Waiting",
            "NoMatchingNode",
            f"no node fits: {text} Check runtime.gpu.products, runtime.gpu.minMemory, "
            "runtime.nodeSelector and runtime.tolerations against the nodes' labels and taints.",
        )
    return Finding(Severity.WAITING, "Waiting", "Unschedulable", text or "no node fits")


def _container_finding(name: str, status: Mapping[str, Any]) -> Finding | None:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _PULL_ERRORS:
        return Finding(
            Severity.WAITING,
            "Waiting",
            "ImageUnavailable",
            f"image {status.get('image') or 'of ' + name} cannot be had: "
            f"{waiting.get('message') or reason}. Check its name and runtime.imagePullSecrets.",
        )
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return Finding(
            Severity.FAILING, "Failed", reason, f"container {name}: {waiting.get('message')}"
        )
    ended = _last_end(status)
    if ended is None:
        return None
    if name in (FETCH, COPY_MODEL):
        return _fetch_failure(name, ended)
    if "running" in state and name == ENVOY:
        return None
    if ended.get("reason") == "OOMKilled":
        return Finding(
            Severity.FAILING,
            "Failed",
            "OutOfMemory",
            f"container {name} was killed for memory (restarts: {status.get('restartCount', 0)}). "
            "Raise runtime.resources.memory.",
        )
    return Finding(
        Severity.FAILING,
        "Failed",
        "Crashing",
        f"container {name} ended with code {ended.get('exitCode')} "
        f"(restarts: {status.get('restartCount', 0)}): {_tail(ended.get('message'))}",
    )


def _fetch_failure(name: str, ended: Mapping[str, Any]) -> Finding:
    report = _json(ended.get("message"))
    if report.get("reason"):
        reason, text = str(report["reason"]), str(report.get("message") or "")
        if reason in _PASSING_FETCH_REASONS:
            return Finding(Severity.WAITING, "Waiting", reason, text)
        return Finding(Severity.FAILING, "Failed", reason, text)
    if ended.get("reason") == "OOMKilled":
        text = "it was killed for memory"
    elif name == COPY_MODEL:
        return Finding(
            Severity.FAILING,
            "Failed",
            "SourceNotFound",
            "model.source.uri: the path cannot be copied from the runtime image: "
            f"{_tail(ended.get('message'))}",
        )
    else:
        text = f"it ended with code {ended.get('exitCode')}: {_tail(ended.get('message'))}"
    return Finding(Severity.FAILING, "Failed", "FetchFailed", f"container {name}: {text}")


def _last_end(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a container last failed, while it has not succeeded since; None: it has not failed."""
    state = status.get("state") or {}
    ended = state.get("terminated")
    if ended is None and not status.get("ready"):
        ended = (status.get("lastState") or {}).get("terminated")
    if ended is None or ended.get("exitCode") == 0:
        return None
    return dict(ended)


def _replica_failure(deployment: Object) -> Finding | None:
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            text = str(condition.get("message") or "")
            if "exceeded quota" in text:
                return Finding(
                    Severity.WAITING,
                    "Waiting",
                    "QuotaExceeded",
                    f"{text}. Raise the quota, free some of it, or ask for less.",
                )
            return Finding(Severity.FAILING, "Failed", "PodRefused", text)
    return None


def _told_by_events(pod: Object, events: Iterable[Object]) -> Finding | None:
    uid = pod["metadata"]["uid"]
    for event in reversed(list(events)):
        about = event.get("involvedObject") or event.get("regarding") or {}
        if about.get("uid") != uid or event.get("type") != "Warning":
            continue
        text = str(event.get("message") or event.get("note") or "")
        if event.get("reason") not in _TELLING_EVENTS:
            continue
        if "not found" in text:
            kinds = {"secret": "Secret", "configmap": "ConfigMap"}
            kind = next((k for word, k in kinds.items() if word in text), "Volume")
            return Finding(
                Severity.WAITING,
                "Waiting",
                f"{kind}NotFound",
                f"{text}. Create it, or correct its name.",
            )
        return Finding(Severity.WAITING, "Waiting", str(event["reason"]), text)
    return None


def _container(pod: Object, name: str) -> Mapping[str, Any]:
    status = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        for found in status.get(key) or ():
            if found.get("name") == name:
                return dict(found)
    return {}


def _runs(pod: Object, name: str) -> bool:
    return "running" in (_container(pod, name).get("state") or {})


def _condition(obj: Object, kind: str) -> Mapping[str, Any]:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind:
            return dict(condition)
    return {}


def _json(text: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tail(text: Any, limit: int = 600) -> str:
    """The end of a log, on one line."""
    joined = " ".join(str(text or "no message").split())
    return joined if len(joined) <= limit else "..." + joined[-limit:]
