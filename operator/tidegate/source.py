"""What a model's address holds now, where it is followed (`onChange: NewRevision`). Pure.

Pods of a CronJob look at the source and say which version it has (`tidegate.resources.look`). The
last version seen stays in the record of the rollout, so that neither a restart of the operator nor
a look that fails changes what is asked for. Each version is asked for as a revision of its own.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count

from tidegate.api.names import SOURCE_ANNOTATION
from tidegate.api.spec import OnChange, Spec
from tidegate.observed import Object, Observed
from tidegate.record import Record
from tidegate.resources.look import source_key
from tidegate.resources.pod import FETCH
from tidegate.revision import Revision, pod_shape, revision_hash

NOT_FOLLOWED = ("image",)
"""Schemes whose content belongs to the runtime image."""


@dataclass(frozen=True)
class Look:
    """What the last look at the source said.

    Attributes:
        version: of the source (`tidegate.fetch.source.Listing.version`); empty: unknown.
        began: when, RFC 3339, by the API server's clock as everything that it is compared with.
        reason: why it is unknown, CamelCase.
        message: the same for people.
    """

    version: str = ""
    began: str = ""
    reason: str = ""
    message: str = ""


def follows(spec: Spec) -> bool:
    """Whether changed bytes behind the same address are asked for as a new revision."""
    source = spec.model.source
    scheme = source.uri.partition("://")[0].lower()
    return source.on_change is OnChange.NEW_REVISION and scheme not in NOT_FOLLOWED


def last_look(observed: Observed, spec: Spec) -> Look:
    """What the newest finished look at this spec's source said."""
    key = source_key(spec)
    ended = [
        (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"], end)
        for pod in observed.looks
        if (pod["metadata"].get("annotations") or {}).get(SOURCE_ANNOTATION) == key
        and (end := _end(pod))
    ]
    if not ended:
        return Look("", "", "NotLookedYet", "the first look at the source has not ended yet")
    began, _, end = max(ended, key=lambda e: e[:2])
    said = _said(end.get("message"))
    if end.get("exitCode") != 0:
        reason, message = said.get("reason"), said.get("message")
        return Look(
            "",
            began,
            str(reason) if reason else "LookFailed",
            str(message) if message else "the pod that looks at the source ended with an error",
        )
    version = said.get("sourceVersion")
    if isinstance(version, str) and version:
        return Look(version, began)
    return Look(
        "",
        began,
        "SourceTellsNoVersion",
        "the server sends neither ETag nor date, so a change cannot be seen. Use a store "
        "that tells versions, or publish each version under an address of its own.",
    )


def brought_up(record: Record, spec: Spec, look: Look, known: Mapping[str, Revision]) -> Record:
    """The record with what was seen; a source that changed ends what a verb asked for.

    A version that is unknown changes nothing. One that was seen before is noted anew only where no
    revision has it: so a source that does not change costs no write.
    """
    before = seen(record, spec)
    if not follows(spec) or not look.version or look.began <= before.began:
        return record
    told = " ".join((source_key(spec), look.version, look.began))
    if not before.version:
        return replace(record, source=told)
    if look.version == before.version:
        versions = {r.source_version for r in known.values() if r.shape == pod_shape(spec)}
        unmade = all(comparable(v, look.version) and v != look.version for v in versions)
        return replace(record, source=told) if versions and unmade else record
    return replace(record, source=told, target="", target_for="")


def seen(record: Record, spec: Spec) -> Look:
    """The version of this spec's source that was last seen, and when it first was.

    It holds when the source is not followed any more, too: what serves goes on serving.
    """
    key, _, rest = record.source.partition(" ")
    version, _, began = rest.partition(" ")
    return Look(version, began) if key == source_key(spec) else Look()


def answering(
    shape: Mapping[str, object],
    look: Look,
    alike: Iterable[Revision],
    known: Mapping[str, Revision],
) -> str:
    """Hash of the revision that answers a version of the source; it may not exist yet.

    Args:
        shape: pod shape of the spec.
        look: the version last seen.
        alike: the revisions of that shape, at least one.
        known: all of them by hash.
    """
    revisions, version = sorted(alike, key=lambda r: r.number), look.version
    newest = revisions[-1]
    if not newest.created or newest.created >= look.began:
        return newest.hash  # it fetched, or fetches, later than anybody looked
    same = [r for r in revisions if r.source_version == version]
    if same:
        return same[-1].hash
    for attempt in count(1):
        name = revision_hash(shape, version if attempt == 1 else f"{version} {attempt}")
        born = known.get(name)
        if born is not None and not born.source_version:
            return name  # born for it; what it fetched, if anything, is not told yet
        if born is None:
            break
    if not comparable(newest.source_version, version) and (newest.digest or not newest.failed):
        # Either it fetches now, and then takes what is there; or nobody knows what it was made of.
        return newest.hash
    return name


def comparable(one: str, other: str) -> bool:
    """Whether two versions tell by being different that the source changed."""
    return one.partition("-")[0] == other.partition("-")[0]


def _end(pod: Object) -> Mapping[str, object]:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == FETCH:
            found: Mapping[str, object] = (status.get("state") or {}).get("terminated") or {}
            return found
    return {}


def _said(message: object) -> Mapping[str, object]:
    try:
        found = json.loads(str(message or ""))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
