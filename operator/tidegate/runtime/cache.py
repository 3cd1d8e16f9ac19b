"""What is known of the cluster: the objects that concern us, by kind and by ModelDeployment.

Fed by watch events and by the answers to our own writes, in whatever order they come. A document
never replaces a newer one (by resource version), so a plan never sees the world as it was before
the operator's own last write. What was deleted comes back by no late event; but a watch with a
selector also says "deleted" of an object that lost its label, and that one may return, newer.

The cache knows no IO. What a watch lost (deletions in a gap, a stream that died silently) is found
by comparing with a list, `Cache.compare`; `tidegate.runtime.sweep` does the listing.
"""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tidegate.api.names import DEPLOYMENT_LABEL, GROUP, KIND, SOURCE_LABEL, STATUS_MANAGER
from tidegate.observed import Object, Ref
from tidegate.runtime.kinds import MODEL_DEPLOYMENT, POD, Kind
from tidegate.scaling import owns_replicas

TOMBSTONES: Final = 4096
"""Deleted UIDs that are remembered; late events about them come within seconds."""
SHORT_TEXT: Final = 64
LONG_TEXT: Final = 4096
"""Characters up to which, and from which on, equal texts of different objects are kept once."""


class Key(NamedTuple):
    """A ModelDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Place(NamedTuple):
    """Where an object of some kind lies."""

    namespace: str
    name: str


class Listed(NamedTuple):
    """What a metadata-only list says of an object."""

    uid: str
    version: int


@dataclass(frozen=True)
class Comparison:
    """What comparing the cache with a list found.

    Attributes:
        ghosts: objects that were in the cache, but do not exist; they are dropped.
        behind: objects that the list has newer, or that the cache lacks.
        history_went_back: the API server knows less than the cache (a restored backup); all
            objects of the kind in that scope are dropped.
    """

    ghosts: tuple[Place, ...] = ()
    behind: Mapping[Place, Listed] = field(default_factory=dict)
    history_went_back: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    object: Object
    uid: str
    version: int
    key: Key | None


def version_of(obj: Object) -> int:
    """The resource version as a number; 0 where it is none (such documents are never older)."""
    text = obj.get("metadata", {}).get("resourceVersion", "")
    return int(text) if isinstance(text, str) and text.isdecimal() else 0


def uid_of(obj: Object) -> str:
    """The UID; empty if there is none."""
    return str(obj["metadata"].get("uid", ""))


def place_of(obj: Object) -> Place:
    """Where the object lies."""
    return Place(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def controller_of(obj: Object) -> Mapping[str, Any] | None:
    """The ModelDeployment that the object's owner references name as its controller, if any."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        group = str(reference.get("apiVersion", "")).partition("/")[0]
        if reference.get("controller") and group == GROUP and reference.get("kind") == KIND:
            found: Mapping[str, Any] = reference
            return found
    return None


def controlled_by(obj: Object, uid: str) -> bool:
    """Whether the ModelDeployment of that UID is the object's controller."""
    controller = controller_of(obj)
    return controller is not None and controller.get("uid") == uid


def key_of(kind: Kind, obj: Object) -> Key | None:
    """The ModelDeployment that an object is about."""
    namespace, name = place_of(obj)
    if kind == MODEL_DEPLOYMENT:
        return Key(namespace, name)
    controller = controller_of(obj)
    if controller is not None:
        return Key(namespace, str(controller["name"]))
    labels = obj["metadata"].get("labels") or {}
    label = labels.get(DEPLOYMENT_LABEL) or labels.get(SOURCE_LABEL)
    return Key(namespace, label) if label else None


_POD_SPEC: Final = ("nodeName", "schedulingGates", "resourceClaims")
_CONTAINER: Final = ("name", "image", "restartPolicy")
_POD_SPEC_WAITING: Final = (*_POD_SPEC, "nodeSelector", "affinity")
_CONTAINER_WAITING: Final = (*_CONTAINER, "resources")
_METADATA_DROPPED: Final = ("selfLink",)


def slim(kind: Kind, obj: Object) -> Object:
    """The part of a document that decisions need, its strings shared with all the others.

    Pods lose most of their spec and their field owners; one without a node keeps what it asks of
    one. A ModelDeployment keeps only the owner entry of the status manager, and who owns its
    replicas. The other kinds keep everything: drift is found by field owners.
    """
    slimmed = dict(obj)
    metadata = {k: v for k, v in obj["metadata"].items() if k not in _METADATA_DROPPED}
    if kind == POD:
        metadata.pop("managedFields", None)
        spec = obj.get("spec", {})
        waits = not spec.get("nodeName")
        of_pod = _POD_SPEC_WAITING if waits else _POD_SPEC
        of_container = _CONTAINER_WAITING if waits else _CONTAINER
        slimmed["spec"] = {k: spec[k] for k in of_pod if k in spec} | {
            group: [{k: c[k] for k in of_container if k in c} for c in spec[group]]
            for group in ("initContainers", "containers")
            if group in spec
        }
    elif kind == MODEL_DEPLOYMENT:
        metadata["managedFields"] = [
            e if e.get("manager") == STATUS_MANAGER else _of_replicas(e)
            for e in metadata.get("managedFields") or ()
            if e.get("manager") == STATUS_MANAGER or owns_replicas(e)
        ]
    slimmed["metadata"] = metadata
    # Lists have no kind and version in their items; kopf fills them in, an answer has its own.
    slimmed["apiVersion"], slimmed["kind"] = kind.api_version, kind.kind
    shared: Object = _shared(slimmed)
    return shared


def _of_replicas(entry: Mapping[str, Any]) -> Object:
    """An entry of field owners, without the other fields that it owns."""
    return {k: entry[k] for k in ("manager", "time") if k in entry} | {
        "fieldsV1": {"f:spec": {"f:replicas": {}}}
    }


def _shared(value: Any) -> Any:
    # json.loads shares equal keys within one document only; across thousands of documents the
    # same few hundred names are most of the memory.
    if isinstance(value, dict):
        return {sys.intern(k): _shared(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_shared(v) for v in value]
    # So are long texts: the sidecar's configuration is the same 45 KiB in each revision's ConfigMap
    # and again in its record. Between the two lies what is told once, such as messages.
    if isinstance(value, str) and not SHORT_TEXT < len(value) < LONG_TEXT:
        return sys.intern(value)
    return value


class Cache:
    """The observed objects.

    Args:
        changed: told of each ModelDeployment about which something changed; the second argument
            is true where its owner changed the ModelDeployment itself (spec or metadata).
    """

    def __init__(self, changed: Callable[[Key, bool], None] = lambda key, urgent: None) -> None:
        self._changed = changed
        self._entries: dict[Kind, dict[Place, _Entry]] = {}
        self._by_key: dict[Key, set[tuple[Kind, Place]]] = {}
        # UID to the version as of which it is gone.
        self._tombstones: OrderedDict[str, float] = OrderedDict()

    # Feeding.

    def observe(self, kind: Kind, type_: str | None, obj: Object) -> bool:
        """Take in a watch event (type None: from a list). Returns whether it was news."""
        if type_ == "DELETED":
            return self._deleted(kind, obj)
        return self.put(kind, obj)

    def put(self, kind: Kind, obj: Object) -> bool:
        """Take in a document. Returns whether it was news."""
        place, uid, version = place_of(obj), uid_of(obj), version_of(obj)
        if self._is_buried(uid, version):
            return False
        entries = self._entries.setdefault(kind, {})
        old = entries.get(place)
        if old is not None:
            if version and version < old.version:
                return False
            if old.uid == uid and version and version == old.version:
                return False
            if old.uid != uid:
                self._bury(old.uid, math.inf)
        entry = _Entry(slim(kind, obj), uid, version, key_of(kind, obj))
        entries[place] = entry
        if old is not None and old.key != entry.key:
            self._unlink(kind, place, old.key)
        if entry.key is not None:
            self._by_key.setdefault(entry.key, set()).add((kind, place))
        urgent = kind == MODEL_DEPLOYMENT and (
            old is None or _owners_part(old.object) != _owners_part(entry.object)
        )
        for key in {entry.key, None if old is None else old.key}:
            if key is not None:
                self._changed(key, urgent)
        return True

    def _deleted(self, kind: Kind, obj: Object) -> bool:
        place, uid, version = place_of(obj), uid_of(obj), version_of(obj)
        self._bury(uid, version)
        old = self._entries.get(kind, {}).get(place)
        # A name is free before it is used again: what is older than this deletion is gone too.
        if old is None or old.version > version or (old.uid != uid and old.version == version):
            return False
        self._drop(kind, place)
        return True

    def gone(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Our own deletion was carried out, or found nothing to delete."""
        self._bury(uid, math.inf)
        old = self._entries.get(kind, {}).get(Place(namespace, name))
        if old is not None and old.uid == uid:
            self._drop(kind, Place(namespace, name))

    def _is_buried(self, uid: str, version: int) -> bool:
        gone_at = self._tombstones.get(uid)
        return gone_at is not None and version <= gone_at

    def _bury(self, uid: str, version: float) -> None:
        if uid:
            self._tombstones[uid] = max(version, self._tombstones.get(uid, 0))
            while len(self._tombstones) > TOMBSTONES:
                self._tombstones.popitem(last=False)

    def _drop(self, kind: Kind, place: Place) -> None:
        entry = self._entries[kind].pop(place)
        self._unlink(kind, place, entry.key)
        if entry.key is not None:
            self._changed(entry.key, kind == MODEL_DEPLOYMENT)

    def _unlink(self, kind: Kind, place: Place, key: Key | None) -> None:
        if key is not None and key in self._by_key:
            self._by_key[key].discard((kind, place))
            if not self._by_key[key]:
                del self._by_key[key]

    # Comparing with a list.

    def newest(self, kind: Kind, namespace: str | None) -> int:
        """The highest resource version of the kind in a namespace (None: in all)."""
        return max((e.version for _, e in self._scope(kind, namespace)), default=0)

    def compare(
        self,
        kind: Kind,
        namespace: str | None,
        listed: Mapping[Place, Listed],
        list_version: int,
        newest_before: int,
    ) -> Comparison:
        """Compare with a list that shows the collection as it was at `list_version`.

        Args:
            kind: what was listed.
            namespace: where; None: everywhere.
            listed: what the list holds.
            list_version: the list's own resource version.
            newest_before: `newest` from before the list was asked for.
        """
        if list_version and newest_before > list_version:
            for place, _ in self._scope(kind, namespace):
                self._drop(kind, place)
            self._tombstones.clear()
            return Comparison(behind=dict(listed), history_went_back=True)
        ghosts = []
        for place, entry in self._scope(kind, namespace):
            found = listed.get(place)
            if entry.version <= list_version and (found is None or found.uid != entry.uid):
                ghosts.append(place)
                self._bury(entry.uid, list_version)
                self._drop(kind, place)
        return Comparison(tuple(ghosts), self.behind(kind, listed))

    def behind(self, kind: Kind, listed: Mapping[Place, Listed]) -> dict[Place, Listed]:
        """Which of these the cache lacks, or holds in an older form."""
        entries = self._entries.get(kind, {})
        return {
            place: found
            for place, found in listed.items()
            if not self._is_buried(found.uid, found.version)
            and ((e := entries.get(place)) is None or e.version < found.version)
        }

    def _scope(self, kind: Kind, namespace: str | None) -> list[tuple[Place, _Entry]]:
        return [
            (place, entry)
            for place, entry in self._entries.get(kind, {}).items()
            if namespace is None or place.namespace == namespace
        ]

    def drop_kind(self, kind: Kind) -> None:
        """Forget a kind that the cluster does not serve any more."""
        for place, _ in self._scope(kind, None):
            self._drop(kind, place)

    # Asking.

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """One object, or None."""
        entry = self._entries.get(kind, {}).get(Place(namespace, name))
        return None if entry is None else entry.object

    def deployment(self, key: Key) -> Object | None:
        """The ModelDeployment, or None."""
        return self.get(MODEL_DEPLOYMENT, key.namespace, key.name)

    def known(self) -> Iterable[Key]:
        """All ModelDeployments."""
        return [Key(*place) for place in self._entries.get(MODEL_DEPLOYMENT, {})]

    def children(self, key: Key, uid: str) -> dict[Ref, Object]:
        """The objects that the ModelDeployment of that UID controls."""
        return {
            Ref(kind.api_version, kind.kind, place.name): entry.object
            for kind, place, entry in self._about(key)
            if kind not in (MODEL_DEPLOYMENT, POD) and controlled_by(entry.object, uid)
        }

    def pods(self, key: Key) -> tuple[Object, ...]:
        """The model's pods, by name."""
        return tuple(p for p in self._pods(key) if not _looks(p))

    def looks(self, key: Key) -> tuple[Object, ...]:
        """The pods that look at the model's source, by name."""
        return tuple(p for p in self._pods(key) if _looks(p))

    def _pods(self, key: Key) -> list[Object]:
        return [e.object for kind, _, e in self._about(key) if kind == POD]

    def _about(self, key: Key) -> list[tuple[Kind, Place, _Entry]]:
        places = sorted(self._by_key.get(key, ()), key=lambda kp: (kp[0].kind, kp[1]))
        return [(kind, place, self._entries[kind][place]) for kind, place in places]

    def sizes(self) -> dict[Kind, int]:
        """How many objects of each kind are held."""
        return {kind: len(entries) for kind, entries in self._entries.items()}


def _looks(pod: Object) -> bool:
    return SOURCE_LABEL in (pod["metadata"].get("labels") or {})


def _owners_part(deployment: Object) -> tuple[Any, ...]:
    metadata = deployment["metadata"]
    return (
        metadata.get("uid"),
        metadata.get("generation"),
        metadata.get("labels"),
        metadata.get("annotations"),
        metadata.get("deletionTimestamp"),
    )
