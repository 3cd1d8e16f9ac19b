"""Kubernetes events about a ModelDeployment. The same event is told once.

An event's name is made from what it says, so telling it again, by this process or the next one,
meets its own name and changes nothing.
"""

import hashlib
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, Final

from tidegate.actions import Event
from tidegate.api.names import API_VERSION, CHILDREN_MANAGER, GROUP, KIND
from tidegate.observed import Object
from tidegate.runtime.cache import Key, uid_of, version_of
from tidegate.runtime.kinds import EVENT, POD
from tidegate.runtime.kube import AlreadyExistsError, GoneError, Kube

MESSAGE_LIMIT: Final = 1024
"""Characters of an event's message that the API server accepts."""
REMEMBERED: Final = 8192
READ_LIMIT: Final = 50


def event_name(key: Key, uid: str, event: Event) -> str:
    """A name that is the same for the same event about the same object, and for no other."""
    text = "\0".join((uid, event.type, event.reason, event.message))
    return f"{key.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def event_document(
    key: Key, deployment: Object, event: Event, instance: str, now: datetime
) -> dict[str, Any]:
    """The event as a core/v1 document."""
    stamp = now.astimezone(UTC)
    seconds = stamp.strftime("%Y-%m-%dT%H:%M:%SZ")
    message = event.message
    if len(message) > MESSAGE_LIMIT:
        message = message[: MESSAGE_LIMIT - 3] + "..."
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "name": event_name(key, uid_of(deployment), event),
            "namespace": key.namespace,
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": key.namespace,
            "name": key.name,
            "uid": uid_of(deployment),
            "resourceVersion": str(deployment["metadata"].get("resourceVersion", "")),
        },
        "type": event.type,
        "reason": event.reason,
        "message": message,
        "action": event.reason,
        "source": {"component": CHILDREN_MANAGER},
        "reportingComponent": GROUP,
        "reportingInstance": instance[:128],
        "eventTime": stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "firstTimestamp": seconds,
        "lastTimestamp": seconds,
        "count": 1,
    }


class Teller:
    """Tells events, each once.

    Args:
        kube: the client.
        instance: this process.
    """

    def __init__(self, kube: Kube, instance: str) -> None:
        self._kube = kube
        self._instance = instance
        self._told: OrderedDict[str, None] = OrderedDict()

    def knows(self, key: Key, deployment: Object, event: Event) -> bool:
        """Whether this process told it already."""
        return f"{key.namespace}/{event_name(key, uid_of(deployment), event)}" in self._told

    def remember(self, key: Key, deployment: Object, event: Event) -> None:
        """Take it as told."""
        self._told[f"{key.namespace}/{event_name(key, uid_of(deployment), event)}"] = None
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)

    async def tell(self, key: Key, deployment: Object, event: Event, now: datetime) -> bool:
        """Tell it, unless it was told. Returns whether something was written.

        Raises:
            KubeError: it could not be told.
        """
        if self.knows(key, deployment, event):
            return False
        document = event_document(key, deployment, event, self._instance, now)
        written = False
        # Looked for first: after a restart a write that changes nothing is still a write.
        if await self._kube.find(EVENT, key.namespace, document["metadata"]["name"]) is None:
            try:
                await self._kube.create(EVENT, document, manager=CHILDREN_MANAGER)
                written = True
            except AlreadyExistsError:
                written = False
        self.remember(key, deployment, event)
        return written


async def events_about_pod(kube: Kube, pod: Object) -> list[Object]:
    """What the cluster tells about a pod, oldest first: mounts, pulls, sandboxes.

    Raises:
        KubeError: the events could not be read.
    """
    namespace = str(pod["metadata"]["namespace"])
    selector = f"involvedObject.uid={uid_of(pod)},involvedObject.kind={POD.kind}"
    found: list[Object] = []
    try:
        async for page in kube.pages(EVENT, namespace, field_selector=selector, limit=READ_LIMIT):
            found += page.get("items") or []
    except GoneError:
        return []
    return sorted(found, key=lambda e: (_last_seen(e), version_of(e)))


def _last_seen(event: Object) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )
