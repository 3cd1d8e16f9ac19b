"""Identity and memory of a revision.

A revision is what shapes its pods: the model and the runtime as the user wrote them. Its identity
is a hash of that part of the spec, with values equal to defaults left out, so that neither an
operator upgrade nor a new defaulted field gives a running revision another name.

What it became (image, rendered manifests) is resolved once, at birth, and kept in a
ControllerRevision. A child that is deleted or edited is put back from there, by any version of the
operator. The revision's immutable ConfigMap carries the same record, so that either of the two
restores the other.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tidegate.api.names import (
    DIGEST_ANNOTATION,
    FAILED_ANNOTATION,
    GOLDEN_ANNOTATION,
    LIVE_SINCE_ANNOTATION,
    REVISION_HASH_LENGTH,
    REVISION_LABEL,
    SOURCE_ADDRESS_ANNOTATION,
    SOURCE_VERSION_ANNOTATION,
)
from tidegate.api.spec import Spec, parse
from tidegate.api.units import canonical_quantity
from tidegate.observed import Object, Observed, Ref
from tidegate.resources.meta import metadata

RECORD_KEY: Final = "revision.json"
"""In the revision's ConfigMap: the record without the ConfigMap itself."""
_NOT_POD_SHAPING: Final = {"source": {"on_change"}}
_QUANTITIES: Final = (
    *(("runtime", "resources", f) for f in ("cpu", "memory", "cpuLimit", "ephemeralStorage")),
    ("runtime", "sharedMemory"),
    ("runtime", "gpu", "minMemory"),
)


def pod_shape(spec: Spec) -> dict[str, Any]:
    """The part of a spec that shapes pods, in manifest form, without values equal to defaults.

    Quantities are in canonical form: ``1000m`` and ``1`` are one and the same revision.
    """
    shape: dict[str, Any] = {
        "model": spec.model.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude=_NOT_POD_SHAPING
        )
    }
    runtime = _canonical(spec).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if runtime:
        shape["runtime"] = runtime
    return shape


def _canonical(spec: Spec) -> Any:
    runtime = spec.runtime
    resources = runtime.resources
    gpu = runtime.gpu
    return runtime.model_copy(
        update={
            "resources": resources.model_copy(
                update={
                    name: canonical_quantity(value)
                    for name, value in resources
                    if value is not None
                }
            ),
            "shared_memory": canonical_quantity(runtime.shared_memory),
            "gpu": gpu
            if gpu.min_memory is None
            else gpu.model_copy(update={"min_memory": canonical_quantity(gpu.min_memory)}),
        }
    )


def revision_hash(shape: Mapping[str, Any], more: str | None = None) -> str:
    """Ten characters of base32 (50 bits) over the canonical JSON of a pod shape.

    Args:
        shape: from `pod_shape`.
        more: what tells this revision from others of the same shape: the version of the source,
            where changed bytes behind the same URI made it, or the `restart` that did.
    """
    text = json.dumps(shape, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if more is not None:
        text += f"\n{more}"
    raw = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(raw).decode().lower()[:REVISION_HASH_LENGTH]


def child_name(deployment: str, hash_: str) -> str:
    """Name of a revision's objects."""
    return f"{deployment}-{hash_}"


@dataclass(frozen=True)
class Revision:
    """One revision as it was born.

    Attributes:
        hash: its identity.
        number: counts up within one ModelDeployment.
        shape: the pod-shaping spec.
        manifests: what it became: Deployment (saying ``replicas: 0``), ConfigMap, Service and, with
            dynamic resource allocation, ResourceClaimTemplate; without namespace and owner.
        digest: digest of the model's bytes (``sha256:...``), once the first fetch reported it.
        source_version: of the source when they were fetched; empty: not told (yet).
        source_address: where they stay, though the spec's address may move on; empty: nowhere else.
        created: RFC 3339; empty before it exists.
        live_since: when it first served, RFC 3339; empty: it never has.
        failed: why it gets no traffic again by itself, as JSON; empty: that was forgiven; None:
            nothing is said here.
        golden: ConfigMap of the golden requests that were named together with it; empty: none were.
    """

    hash: str
    number: int
    shape: dict[str, Any]
    manifests: tuple[dict[str, Any], ...]
    digest: str | None = None
    source_version: str = ""
    source_address: str = ""
    created: str = ""
    live_since: str = ""
    failed: str | None = None
    golden: str = ""

    def manifest(self, kind: str) -> dict[str, Any]:
        """The one manifest of a kind.

        Raises:
            KeyError: it has none.
        """
        for manifest in self.manifests:
            if manifest["kind"] == kind:
                return manifest
        raise KeyError(kind)

    @property
    def name(self) -> str:
        """Name of its objects."""
        return str(self.manifest("Deployment")["metadata"]["name"])

    @property
    def deployment_ref(self) -> Ref:
        """Its Deployment."""
        return Ref("apps/v1", "Deployment", self.name)

    @property
    def source(self) -> str:
        """Where its model came from."""
        return str(self.shape["model"]["source"]["uri"])

    @property
    def image(self) -> str:
        """Triton's image, as it was resolved at birth."""
        pod = self.manifest("Deployment")["spec"]["template"]["spec"]
        return str(next(c["image"] for c in pod["containers"] if c["name"] == "triton"))


def spec_of(revision: Revision, spec: Spec) -> Spec:
    """A ModelDeployment's spec with what shaped this revision's pods, so as its pods serve."""
    if pod_shape(spec) == revision.shape:
        return spec
    document = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return parse({"runtime": {}} | document | revision.shape)


def failure_text(failed: str) -> str:
    """Why a revision failed, for people, from `Revision.failed`."""
    try:
        said = json.loads(failed)
        return f"{said['reason']}: {said['message']}"
    except (ValueError, TypeError, KeyError):
        return failed


def controller_revision(deployment: Object, revision: Revision) -> dict[str, Any]:
    """The ControllerRevision that keeps a revision."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata(deployment, revision.name, revision.hash),
        "revision": revision.number,
        "data": {"spec": revision.shape, "manifests": [_bare(m) for m in revision.manifests]},
    }


def _bare(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without the record that `with_record` adds."""
    if manifest["kind"] != "ConfigMap":
        return manifest
    return manifest | {"data": {k: v for k, v in manifest["data"].items() if k != RECORD_KEY}}


def with_record(
    manifests: Iterable[dict[str, Any]], shape: Mapping[str, Any], number: int
) -> tuple[dict[str, Any], ...]:
    """The manifests, with the record of all others inside the ConfigMap."""
    manifests = list(manifests)
    others = [m for m in manifests if m["kind"] != "ConfigMap"]
    record = json.dumps(
        {"spec": shape, "manifests": others, "revision": number},
        sort_keys=True,
        separators=(",", ":"),
    )
    return tuple(
        m | {"data": m["data"] | {RECORD_KEY: record}} if m["kind"] == "ConfigMap" else m
        for m in manifests
    )


def known_revisions(observed: Observed) -> dict[str, Revision]:
    """The revisions of a ModelDeployment by hash, oldest first.

    Read from its ControllerRevisions; where one is missing, from the ConfigMap beside it.
    """
    found: dict[str, Revision] = {}
    for obj in observed.of_kind("ControllerRevision"):
        meta, data = obj["metadata"], obj["data"]
        hash_ = meta["labels"][REVISION_LABEL]
        found[hash_] = Revision(
            hash=hash_,
            number=int(obj["revision"]),
            shape=data["spec"],
            manifests=with_record(data["manifests"], data["spec"], int(obj["revision"])),
            digest=(meta.get("annotations") or {}).get(DIGEST_ANNOTATION),
            source_version=(meta.get("annotations") or {}).get(SOURCE_VERSION_ANNOTATION, ""),
            source_address=(meta.get("annotations") or {}).get(SOURCE_ADDRESS_ANNOTATION, ""),
            created=meta.get("creationTimestamp", ""),
            live_since=(meta.get("annotations") or {}).get(LIVE_SINCE_ANNOTATION, ""),
            failed=(meta.get("annotations") or {}).get(FAILED_ANNOTATION),
            golden=(meta.get("annotations") or {}).get(GOLDEN_ANNOTATION, ""),
        )
    for obj in observed.of_kind("ConfigMap"):
        hash_ = (obj["metadata"].get("labels") or {}).get(REVISION_LABEL)
        text = (obj.get("data") or {}).get(RECORD_KEY)
        if hash_ is None or text is None or hash_ in found:
            continue
        record = json.loads(text)
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": obj["metadata"]["name"], "labels": obj["metadata"]["labels"]},
            "immutable": True,
            "data": obj["data"],
        }
        found[hash_] = Revision(
            hash=hash_,
            number=int(record["revision"]),
            shape=record["spec"],
            manifests=(config_map, *record["manifests"]),
            digest=pinned_digest(observed, obj["metadata"]["name"]),
        )
    return dict(sorted(found.items(), key=lambda item: (item[1].number, item[0])))


def pin_name(revision_name: str) -> str:
    """Name of the ConfigMap that pins a revision's bytes."""
    return f"{revision_name}-pin"


def pinned_digest(observed: Observed, revision_name: str) -> str | None:
    """The digest that the pin ConfigMap of a revision holds, if it is there."""
    pin = observed.children.get(Ref("v1", "ConfigMap", pin_name(revision_name)))
    return None if pin is None else (pin.get("data") or {}).get("digest")
