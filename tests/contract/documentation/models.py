"""ModelDeployments as the operator would have left them, with what it makes for them."""

import copy
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from tests.contract.documentation.reader import Reader, collection
from tests.unit.autoscaling.test_decision import loaded
from tests.unit.cli import documents as d
from tidegate.actions import Apply, WriteStatus
from tidegate.api import names
from tidegate.api.names import (
    CHILDREN_MANAGER,
    DECISION_ANNOTATION,
    DIGEST_ANNOTATION,
    LIVE_SINCE_ANNOTATION,
)
from tidegate.autoscaling.explanation import required
from tidegate.cli.planning import KINDS, path_of
from tidegate.observed import Observed, Ref
from tidegate.plan import plan
from tidegate.platform import Platform
from tidegate.record import Phase, Record

MADE: Final = KINDS[:7]
"""With HTTPRoute."""
V1, V3 = "s3://cli/magika/v1", "s3://cli/magika/v3"
STEP: Final = copy.deepcopy(d.STEP)
STEP["status"]["rollout"]["nextDecision"] = "180 more requests"
SCALED: Final = copy.deepcopy(d.STEADY)
SCALED["status"]["scaling"] = {"reason": required(loaded(85.3, capacity_per_pod=52.5), 2, 85.3)}
SCALED["status"]["scaling"]["desired"] = 2


def spec(uri: str, **more: Any) -> dict[str, Any]:
    """That of the command line's page."""
    source = {"uri": uri, "endpoint": "http://10.96.0.30:8333", "secretName": "s3"}
    return {
        "model": {"source": source},
        "runtime": {"gpu": {"count": 0}},
        "slo": {"latency": {"quantile": "0.99", "target": "100ms"}, "maxErrorRate": "1%"},
        "traffic": {
            "gateway": {
                "parentRefs": [{"name": "public", "namespace": "gateways"}],
                "hostnames": ["magika.example.com"],
            }
        },
        "rollout": {"bake": "1m"},
        **more,
    }


def document(uri: str, name: str = "magika", **more: Any) -> str:
    """A manifest."""
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}}
    return yaml.safe_dump(body | {"spec": spec(uri, **more)})


def decided(reader: Reader, name: str) -> None:
    """One pass of the operator's plan, carried out."""
    kube, space = reader.kube, reader.namespace
    live = kube.request("GET", f"{collection(space)}/{name}")
    children: dict[Ref, Any] = {}
    for api_version, kind, plural in MADE:
        for one in kube.request("GET", path_of(api_version, plural, space))["items"]:
            owners = one["metadata"].get("ownerReferences") or ()
            if any(o["uid"] == live["metadata"]["uid"] for o in owners):
                children[Ref(api_version, kind, one["metadata"]["name"])] = one
    present = frozenset(kind for _, kind, _ in MADE)
    for action in plan(
        Observed(live, children, present_kinds=present), Platform(), datetime.now(UTC)
    ).actions:
        if isinstance(action, Apply):
            meta = {**action.manifest["metadata"], "namespace": space}
            made = {**action.manifest, "metadata": meta}
            kube.apply(made, field_manager=CHILDREN_MANAGER)
        elif isinstance(action, WriteStatus):
            status(reader, name, action.status)


def status(reader: Reader, name: str, found: d.Document) -> None:
    """Put a status, whole."""
    path = f"{collection(reader.namespace)}/{name}"
    live = reader.kube.request("GET", path)
    body = live | {"status": {**found, "observedGeneration": live["metadata"]["generation"]}}
    reader.kube.request("PUT", f"{path}/status", body=body)


def serving(reader: Reader) -> None:
    """Magika's v1, with all that the operator makes for it, as stable."""
    path = collection(reader.namespace)
    reader.by_hand.add("magika")
    reader.kube.delete(names.API_VERSION, names.KIND, "magika", reader.namespace)
    for version, kind, plural in MADE:
        for one in reader.kube.request("GET", path_of(version, plural, reader.namespace))["items"]:
            if (one["metadata"].get("labels") or {}).get(names.DEPLOYMENT_LABEL) == "magika":
                reader.kube.delete(version, kind, one["metadata"]["name"], reader.namespace)
    reader.kube.request("POST", path, body=yaml.safe_load(document(V1)))
    for _ in range(3):
        decided(reader, "magika")
    live = reader.kube.request("GET", f"{path}/magika")
    revisions = path_of("apps/v1", "controllerrevisions", reader.namespace)
    (kept,) = [
        r
        for r in reader.kube.request("GET", revisions)["items"]
        if r["metadata"]["labels"][names.DEPLOYMENT_LABEL] == "magika"
    ]
    meta = kept["metadata"]
    stable = {"name": meta["name"], "hash": meta["labels"][names.REVISION_LABEL]}
    # It served, so all of the traffic stays there.
    annotated(reader, meta["name"], LIVE_SINCE_ANNOTATION, "2026-01-01T00:00:00Z")
    revised = {"revisions": {"stable": stable}, "rollout": {"phase": "Promoted"}}
    status(reader, "magika", live["status"] | revised)
    # Where a rollout stands is written on the route.
    route_ = path_of(*MADE[-1][::2], reader.namespace, "magika")
    record = Record(phase=Phase.PROMOTED, stable=stable["hash"], canary="", weight=1.0)
    body = {"metadata": {"annotations": {DECISION_ANNOTATION: record.dump()}}}
    reader.kube.request("PATCH", route_, body=body, content_type="application/merge-patch+json")
    decided(reader, "magika")


def changed(reader: Reader) -> None:
    """Magika's v3 on trial against v1."""
    serving(reader)
    reader.kube.request(
        "PATCH",
        f"{collection(reader.namespace)}/magika",
        body={"spec": {"model": {"source": {"uri": V3}}}},
        content_type="application/merge-patch+json",
    )
    decided(reader, "magika")
    path = path_of("apps/v1", "controllerrevisions", reader.namespace)
    for one in reader.kube.request("GET", path)["items"]:
        digest = "sha256:" + hashlib.sha256(one["metadata"]["name"].encode()).hexdigest()
        annotated(reader, one["metadata"]["name"], DIGEST_ANNOTATION, digest)


def annotated(reader: Reader, revision: str, key: str, value: str) -> None:
    """An annotation of a ControllerRevision."""
    path = path_of("apps/v1", "controllerrevisions", reader.namespace, revision)
    body = {"metadata": {"annotations": {key: value}}}
    reader.kube.request("PATCH", path, body=body, content_type="application/merge-patch+json")


def named(reader: Reader) -> None:
    """Magika names its golden requests, as the page says."""
    reader.kube.request(
        "PATCH",
        f"{collection(reader.namespace)}/magika",
        body={"spec": {"goldenRequests": {"configMapName": "magika-golden"}}},
        content_type="application/merge-patch+json",
    )


def rolling(reader: Reader) -> None:
    """Magika in a step, with its pods."""
    reader.by_hand.discard("magika")
    reader.model(STEP)
    for one in d.PODS:
        running(reader, one["metadata"]["name"], one["metadata"]["labels"])


def running(
    reader: Reader,
    name: str,
    labels: Mapping[str, str],
    *,
    space: str = "",
    containers: tuple[str, ...] = ("triton", "envoy", "fetch"),
) -> None:
    """A pod that is ready."""
    space = space or reader.namespace
    path = path_of("v1", "pods", space, name)
    meta = {"name": name, "namespace": space, "labels": dict(labels)}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
    spec_ = {"nodeName": "node-1", "containers": [{"name": c, "image": c} for c in containers]}
    reader.kube.apply_all([made | {"spec": spec_}])
    ready = [{"type": "Ready", "status": "True"}]
    live = reader.kube.request("GET", path)
    body = live | {"status": {"phase": "Running", "conditions": ready}}
    reader.kube.request("PUT", f"{path}/status", body=body)
