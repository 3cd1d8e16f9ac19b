"""What differs between two revisions, or between two documents, in lines. Pure."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tidegate.api.names import (
    DIGEST_ANNOTATION,
    FAILED_ANNOTATION,
    LIVE_SINCE_ANNOTATION,
    REVISION_LABEL,
)

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """A revision as its ControllerRevision keeps it.

    Attributes:
        hash: its identity.
        number: counts up.
        spec: the part of the spec that shapes its pods.
        manifests: what it became.
        digest: of the model's bytes; '' before they were fetched.
        created: RFC 3339.
        live_since: when it first served, RFC 3339; '' if never.
        failed: why it gets no traffic by itself, as JSON; '' where it does.
    """

    hash: str
    number: int
    spec: Document
    manifests: tuple[Document, ...]
    digest: str = ""
    created: str = ""
    live_since: str = ""
    failed: str = ""

    @classmethod
    def of(cls, kept: Document) -> "Kept":
        """From a ControllerRevision."""
        meta, data = kept["metadata"], kept.get("data") or {}
        said = meta.get("annotations") or {}
        return cls(
            hash=str((meta.get("labels") or {}).get(REVISION_LABEL) or ""),
            number=int(kept.get("revision") or 0),
            spec=data.get("spec") or {},
            manifests=tuple(data.get("manifests") or ()),
            digest=said.get(DIGEST_ANNOTATION) or "",
            created=meta.get("creationTimestamp") or "",
            live_since=said.get(LIVE_SINCE_ANNOTATION) or "",
            failed=said.get(FAILED_ANNOTATION) or "",
        )

    def about(self, *, whole: bool) -> dict[str, Any]:
        """What is compared: the spec and the model's bytes, with `whole` all manifests, too."""
        found: dict[str, Any] = {"spec": self.spec}
        if self.digest:
            found["digest"] = self.digest
        if whole:
            found["manifests"] = {m["kind"]: self._bare(m) for m in self.manifests}
        return found

    def _bare(self, manifest: Document) -> Any:
        """Without what only names the revision."""

        def bare(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: bare(v) for k, v in value.items()}
            if isinstance(value, list):
                return [bare(v) for v in value]
            return value.replace(self.hash, "HASH") if isinstance(value, str) else value

        return bare(dict(manifest))


@dataclass(frozen=True)
class Change:
    """A place at which two documents differ.

    Attributes:
        path: such as ``spec.model.source.uri``.
        before: None: it was not there.
        after: None: it is gone.
    """

    path: str
    before: Any = None
    after: Any = None


def changes(before: Any, after: Any, path: str = "") -> list[Change]:
    """Every place at which two JSON documents differ, in the order of their paths."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found: list[Change] = []
        for key in sorted({*before, *after}):
            below = f"{path}.{key}" if path else str(key)
            found += changes(before.get(key), after.get(key), below)
        return found
    return [] if before == after else [Change(path, before, after)]


def unified(before: Any, after: Any, names: tuple[str, str]) -> list[str]:
    """Two documents as YAML, in the lines of a unified diff; none where they are the same."""
    return [
        line.rstrip("\n")
        for line in difflib.unified_diff(
            _text(before), _text(after), fromfile=names[0], tofile=names[1], n=3
        )
    ]


def _text(value: Any) -> list[str]:
    if not value:
        return []
    return yaml.safe_dump(value, sort_keys=True, allow_unicode=True, width=100).splitlines(True)


def newest(found: Iterable[Document]) -> list[Kept]:
    """The ControllerRevisions of a ModelDeployment, newest first."""
    return sorted((Kept.of(one) for one in found), key=lambda k: k.number, reverse=True)
