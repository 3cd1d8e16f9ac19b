"""What applying a manifest would do, before it is applied.

The operator's own `plan` is asked, with the ModelDeployment as the API server would store it (a
server-side dry run, so admission has its say) and with the children as they are. Nothing is
written. What the reader may not see is said, and left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import yaml
from pydantic import ValidationError

from tidegate.actions import Apply, Event, WriteStatus
from tidegate.api import names
from tidegate.api.spec import OnChange, Spec, parse
from tidegate.cli import expecting, fitting
from tidegate.cli.client import (
    APPLY,
    ApiError,
    Client,
    deployment_path,
    events_path,
    pods_path,
)
from tidegate.cli.common import text_of, yaml_text
from tidegate.cli.differing import Change, changes
from tidegate.cli.trouble import Trouble
from tidegate.observed import Observed, Ref
from tidegate.plan import plan
from tidegate.platform import Platform
from tidegate.resources import look
from tidegate.revision import known_revisions, pod_shape, revision_hash
from tidegate.view import facts

Document = dict[str, Any]

MANAGER: Final = "tidegate-plan"
_UNTYPED: Final = "failed to create typed patch object"
"""So the API server answers, with status 500, to a field that the schema does not have."""
_NEW_UID: Final = "00000000-0000-0000-0000-000000000000"
KINDS: Final = (
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "ControllerRevision", "controllerrevisions"),
    ("v1", "Service", "services"),
    ("v1", "ConfigMap", "configmaps"),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
    ("gateway.networking.k8s.io/v1", "GRPCRoute", "grpcroutes"),
    ("monitoring.coreos.com/v1", "PodMonitor", "podmonitors"),
    ("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates"),
    (look.API_VERSION, look.KIND, "cronjobs"),
)
"""What a ModelDeployment becomes, and where the API server keeps it."""


def path_of(api_version: str, plural: str, namespace: str, name: str = "") -> str:
    """The path of a namespaced collection, or of an object in it."""
    root = "/api" if "/" not in api_version else "/apis"
    tail = f"/{name}" if name else ""
    return f"{root}/{api_version}/namespaces/{namespace}/{plural}{tail}"


def manifests(file: str) -> list[Document]:
    """The ModelDeployments of a file, ``-`` for standard input.

    Raises:
        Trouble: there are none, or it cannot be read.
    """
    text = text_of(file, "-f", "name a manifest, or - for stdin")
    try:
        documents = [d for d in yaml.safe_load_all(text) if d]
    except yaml.YAMLError as error:
        raise Trouble(f"{file} is no YAML: {error}", "correct it") from None
    listed = [d for one in documents if isinstance(one, dict) for d in (one.get("items") or [one])]
    found = [d for d in listed if isinstance(d, dict) and d.get("kind") == names.KIND]
    if not found:
        raise Trouble(f"{file} holds no {names.KIND}", f"apiVersion: {names.API_VERSION}")
    for one in found:
        if not isinstance(one.get("spec"), dict) or not (one.get("metadata") or {}).get("name"):
            raise Trouble(f"{file}: a {names.KIND} without metadata.name or spec", "add it")
    return found


@dataclass
class Report:
    """What applying would do.

    Attributes:
        name: of the ModelDeployment.
        namespace: its.
        new: it does not exist yet.
        errors: why it would be refused, or could not be served.
        notes: what could not be looked at, and what else is to be known.
        changed: fields of the spec that would change.
        revision: hash of the revision that the spec asks for; '' where it cannot be made.
        before: hash of the revision that serves now; '' where none does.
        objects: what would be applied, whole.
        made: by ``Kind/name``, what would become of it: created, changed (with the places), same.
        route: what the routes would say, in lines.
        fit: room for its pods on the nodes; None: the nodes may not be read.
        pods: how many a rollout needs beside those that serve.
        stages: of the rollout; empty where there is none.
        rate_per_s: requests a second that the times are for; None: not known.
    """

    name: str
    namespace: str
    new: bool = False
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    revision: str = ""
    before: str = ""
    objects: list[Document] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    route: list[str] = field(default_factory=list)
    fit: fitting.Fit | None = None
    pods: int = 0
    stages: list[expecting.Stage] = field(default_factory=list)
    rate_per_s: float | None = None

    def document(self) -> Document:
        """As JSON."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "new": self.new,
            "errors": self.errors,
            "notes": self.notes,
            "changes": [{"path": c.path, "from": c.before, "to": c.after} for c in self.changed],
            "revision": self.revision,
            "before": self.before,
            "newRevision": bool(self.revision) and self.revision != self.before,
            "result": self.made,
            "route": self.route,
            "fit": None
            if self.fit is None
            else {
                "pods": self.fit.pods,
                "nodes": self.fit.nodes,
                "reasons": self.fit.reasons,
                "needed": self.pods,
            },
            "rollout": {
                "requestsPerSecond": self.rate_per_s,
                "seconds": expecting.total_s(self.stages) if self.stages else None,
                "stages": [
                    {
                        "name": s.name,
                        "weight": s.weight,
                        "requests": s.requests,
                        "seconds": s.seconds,
                    }
                    for s in self.stages
                ],
            },
            "objects": self.objects,
        }


def report(
    client: Client,
    namespace: str,
    manifest: Document,
    *,
    platform: Platform | None,
    rate_per_s: float | None,
    now: datetime | None = None,
) -> Report:
    """What applying a manifest would do.

    Args:
        client: reads, and asks for a dry run.
        namespace: where the manifest names none.
        manifest: the ModelDeployment.
        platform: the operator's settings; None: its ConfigMap's, or defaults.
        rate_per_s: requests a second; None: as measured.
        now: UTC.

    Raises:
        Trouble: the API server does not answer, or does not know Tidegate.
    """
    now = now or datetime.now(UTC)
    meta = manifest["metadata"]
    name, space = str(meta["name"]), str(meta.get("namespace") or namespace)
    found = Report(name, space)
    live = _live(client, space, name, found)
    stored = _stored(client, space, name, manifest, live, found)
    try:
        spec = parse(dict(stored["spec"]))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["spec", *map(str, first["loc"])])
        if not found.errors:
            found.errors.append(f"{where}: {first['msg']}")
        return found
    found.changed = changes(_whole(live["spec"]), _whole(stored["spec"]), "spec") if live else []
    observed = _observed(client, space, stored, found)
    if platform is None:
        platform = read_platform(client, found)
    _planned(observed, platform, now, spec, found)
    found.rate_per_s = rate_per_s if rate_per_s is not None else measured_rate(live)
    if found.revision and found.before and found.revision != found.before:
        found.stages = expecting.stages(spec, found.rate_per_s)
    _room(client, spec, found)
    return found


def _whole(spec: Mapping[str, Any]) -> Any:
    """A spec with its defaults, which an object that was not stored yet lacks."""
    try:
        return parse(dict(spec)).model_dump(mode="json", by_alias=True, exclude_none=True)
    except ValidationError:
        return spec


def may_lack(deployment: Mapping[str, Any], kind: str) -> bool:
    """Whether a ModelDeployment goes without a kind that a cluster may or may not serve."""
    spec = deployment.get("spec") or {}
    if kind in ("HTTPRoute", "GRPCRoute"):
        return not (spec.get("traffic") or {}).get("gateway")
    if kind == "ResourceClaimTemplate":
        return not ((spec.get("runtime") or {}).get("gpu") or {}).get("dra")
    if kind == look.KIND:
        return not follows(deployment)
    return kind == "PodMonitor"


def follows(deployment: Mapping[str, Any]) -> bool:
    """Whether a ModelDeployment follows its source, by a CronJob that looks at it."""
    source = ((deployment.get("spec") or {}).get("model") or {}).get("source") or {}
    return bool(source.get("onChange") == OnChange.NEW_REVISION)


def served(client: Client, api_version: str) -> bool:
    """Whether the API server serves a group's version; everybody may ask that."""
    if "/" not in api_version:
        return True
    try:
        client.request("GET", f"/apis/{api_version}")
    except ApiError as error:
        return error.status != 404
    return True


def _live(client: Client, space: str, name: str, found: Report) -> Document | None:
    try:
        return client.request("GET", deployment_path(space, name))
    except ApiError as error:
        if error.status == 404 and error.reason == "NotFound" and f'"{name}"' in error.message:
            found.new = True
            return None
        raise


def _stored(
    client: Client, space: str, name: str, manifest: Document, live: Document | None, found: Report
) -> Document:
    """The object as the API server would store it; as written, where it will not say."""
    body = {**manifest, "metadata": {**manifest["metadata"], "namespace": space}}
    for key in ("resourceVersion", "managedFields", "uid", "generation", "creationTimestamp"):
        body["metadata"].pop(key, None)
    body.pop("status", None)
    written = {**body, "metadata": {**((live or {}).get("metadata") or {}), **body["metadata"]}}
    written["metadata"].setdefault("uid", _NEW_UID)
    if live and "status" in live:
        written["status"] = live["status"]
    try:
        dry = client.request(
            "PATCH",
            deployment_path(space, name),
            body=body,
            params={"dryRun": "All", "force": "true", "fieldManager": MANAGER},
            content_type=APPLY,
        )
    except ApiError as error:
        denied = "denied request" in error.message
        if error.status == 403 and not denied:
            found.notes.append(
                f"admission not asked: you may not apply ModelDeployments in {space}; ask for the "
                "role edit there (a dry run needs the verb patch, and create for a new one)"
            )
        elif error.status in (400, 403, 404, 409, 422) or _UNTYPED in error.message:
            found.errors.append(refusal(error.message))
        else:
            raise
        return written
    dry["metadata"].setdefault("uid", _NEW_UID)
    if live and "status" in live:
        dry["status"] = live["status"]
    return dry


def refusal(message: str) -> str:
    """The API server's refusal without its preamble."""
    if _UNTYPED in message:
        return " ".join(message.rpartition("): ")[2].lstrip(".").split())
    _, said, rest = message.partition("denied request: ")
    text = rest if said else message
    _, invalid, rest = text.partition(" is invalid: ")
    return " ".join((rest if invalid else text).split())


def _observed(client: Client, space: str, stored: Document, found: Report) -> Observed:
    """The children as they are, as far as they may be read."""
    name, uid = stored["metadata"]["name"], stored["metadata"]["uid"]
    labels = {names.DEPLOYMENT_LABEL: name}
    children: dict[Ref, Document] = {}
    foreign: set[Ref] = set()
    present: set[str] = set()
    unread: list[str] = []
    for api_version, kind, plural in KINDS:
        try:
            objects = client.list(path_of(api_version, plural, space), labels=labels)
        except ApiError as error:
            if error.status == 403:
                if served(client, api_version):
                    present.add(kind)
                    unread += [] if may_lack(stored, kind) else [plural]
                continue
            if error.status == 404:
                continue
            raise
        present.add(kind)
        for one in objects:
            one = {"apiVersion": api_version, "kind": kind, **one}
            ref = Ref(api_version, kind, one["metadata"]["name"])
            owners = one["metadata"].get("ownerReferences") or ()
            if any(o.get("uid") == uid for o in owners):
                children[ref] = one
            else:
                foreign.add(ref)
    pods: list[Document] = []
    events: list[Document] = []
    try:
        pods = client.list(pods_path(space), labels=labels)
        events = client.list(events_path(space))
    except ApiError as error:
        if error.status != 403:
            raise
        unread.append("pods or events")
    if unread:
        found.notes.append(
            f"not read: {', '.join(unread)}; ask for the role view in {space}. Taken as absent."
        )
    return Observed(
        deployment=stored,
        children=children,
        pods=tuple(pods),
        foreign=frozenset(foreign),
        events=tuple(events),
        present_kinds=frozenset(present),
    )


def read_platform(client: Client, found: Report, namespace: str = "tidegate-system") -> Platform:
    """The operator's settings from the ConfigMap that the chart writes; else their defaults."""
    labels = {"app.kubernetes.io/part-of": "tidegate"}
    try:
        maps = client.list(path_of("v1", "configmaps", namespace), labels=labels)
    except ApiError:
        maps = []
    text = next(
        (d for m in maps if (d := (m.get("data") or {}).get("platform.yaml")) is not None), None
    )
    if text is None:
        found.notes.append(
            f"the operator's settings in {namespace} cannot be read: images and profiles are "
            "shown with their defaults; pass --platform FILE"
        )
        return Platform()
    return platform_of(text)


def platform_of(text: str) -> Platform:
    """The platform's settings from their YAML.

    Raises:
        Trouble: they are none.
    """
    try:
        return Platform.model_validate(yaml.safe_load(text) or {})
    except (yaml.YAMLError, ValidationError) as error:
        raise Trouble(f"the platform's settings cannot be read: {error}") from None


def _planned(
    observed: Observed, platform: Platform, now: datetime, spec: Spec, found: Report
) -> None:
    decided = plan(observed, platform, now)
    known = known_revisions(observed)
    shape = pod_shape(spec)
    target = revision_hash(shape)
    alike = [r for r in known.values() if revision_hash(r.shape) == target]
    found.revision = max(alike, key=lambda r: r.number).hash if alike else target
    found.before = facts.revision(observed.deployment, "stable").get("hash") or ""
    status = next((a.status for a in decided.actions if isinstance(a, WriteStatus)), {})
    for condition in status.get("conditions") or ():
        if (condition["type"], condition["status"]) == ("Stalled", "True"):
            if condition["reason"] != "RolledBack":
                found.errors.append(f"{condition['reason']}: {condition['message']}")
            else:
                found.notes.append(f"this revision was rolled back before: {condition['message']}")
    if any(e.startswith(("ProfileNotFound", "ServiceAccountNotAllowed")) for e in found.errors):
        found.revision = ""
    for field_ in status.get("inactive") or ():
        found.notes.append(f"spec.{field_['field']} has no effect yet: {field_['reason']}")
    for action in decided.actions:
        if isinstance(action, Event) and action.type == "Warning":
            text = f"{action.reason}: {action.message}"
            if not any(action.reason in e for e in found.errors):
                found.notes.append(text)
        if not isinstance(action, Apply):
            continue
        manifest = {
            **action.manifest,
            "metadata": {**action.manifest["metadata"], "namespace": found.namespace},
        }
        if observed.deployment["metadata"]["uid"] == _NEW_UID:
            manifest["metadata"].pop("ownerReferences", None)
        found.objects.append(manifest)
        key = f"{action.ref.kind}/{action.ref.name}"
        live = observed.children.get(action.ref)
        if action.ref in observed.foreign:
            found.errors.append(f"{key} exists and is somebody else's: rename one of them")
        elif live is None:
            found.made[key] = "created"
        else:
            places = [c.path for c in applied_changes(action.manifest, live)]
            shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" * (len(places) > 3))
            found.made[key] = f"changed: {shown}" if places else "same"
        if action.ref.kind.endswith("Route"):
            found.route += route_lines(action.manifest)


def applied_changes(manifest: Mapping[str, Any], live: Mapping[str, Any]) -> list[Change]:
    """What of a manifest is different in the live object; fields that it does not name stay."""

    def narrowed(want: Any, have: Any) -> Any:
        if isinstance(want, Mapping) and isinstance(have, Mapping):
            return {k: narrowed(v, have.get(k)) for k, v in want.items()}
        if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
            return [narrowed(w, h) for w, h in zip(want, have, strict=True)]
        return have

    parts = ("spec", "data")
    want = {k: manifest[k] for k in parts if k in manifest}
    if manifest.get("kind") == "Deployment":
        want = {"spec": {k: v for k, v in want["spec"].items() if k != "replicas"}}
    return changes(narrowed(want, {k: live.get(k) for k in want}), want)


def route_lines(route: Mapping[str, Any]) -> list[str]:
    """A route in lines: hosts, gateways, and who gets which share."""
    spec = route["spec"]
    parents = ", ".join(
        f"{p.get('namespace', '')}/{p['name']}".lstrip("/") for p in spec.get("parentRefs") or ()
    )
    hosts = ", ".join(spec.get("hostnames") or ()) or "all hosts"
    found = [f"{route['kind']} {route['metadata']['name']}: {hosts} by gateway {parents}"]
    for rule in spec.get("rules") or ():
        backends = rule.get("backendRefs") or ()
        total = sum(b.get("weight", 1) for b in backends) or 1
        shares = ", ".join(f"{b['name']} {100 * b.get('weight', 1) / total:g}%" for b in backends)
        headers = [
            f"{h['name']}: {h['value']}"
            for m in rule.get("matches") or ()
            for h in m.get("headers") or ()
        ]
        found.append(f"  {'with ' + ', '.join(headers) if headers else 'all'}: {shares}")
    return found


def measured_rate(live: Mapping[str, Any] | None) -> float | None:
    """Requests a second that the status tells of; None: it tells nothing."""
    status = (live or {}).get("status") or {}
    said = facts.number((status.get("scaling") or {}).get("arrivalRate"))
    if said is not None:
        return said
    found = status.get("rollout") or {}
    evidence = found.get("evidence") or {}
    needed, seconds = evidence.get("requestsNeeded"), evidence.get("secondsNeeded")
    weight = facts.number(str(found.get("weight") or "").rstrip("%"))
    if needed and seconds and weight:
        return float(needed) / float(seconds) / (weight / 100)
    return None


def _room(client: Client, spec: Spec, found: Report) -> None:
    """Whether the nodes have room for the new revision's pods."""
    template = next(
        (
            o["spec"]["template"]["spec"]
            for o in found.objects
            if o["kind"] == "Deployment" and o["metadata"]["name"].endswith(found.revision)
        ),
        None,
    )
    if template is None or not found.revision or found.revision == found.before:
        return
    found.pods = 1
    if spec.runtime.gpu.count and spec.runtime.gpu.dra is not None:
        found.notes.append("GPUs by claims: whether one is free only the scheduler can tell")
    try:
        nodes = client.list("/api/v1/nodes")
        pods = client.list("/api/v1/pods")
    except ApiError as error:
        if error.status != 403:
            raise
        found.notes.append(
            "room on the nodes not known: you may not list nodes and all pods; ask for that, or "
            "see the condition WaitingForGPU after applying"
        )
        return
    found.fit = fitting.fit(template, nodes, pods)


def lines(found: Report) -> list[str]:
    """For people."""
    verb = "would be created" if found.new else "would change" if found.changed else "is the same"
    said = [f"ModelDeployment {found.namespace}/{found.name} {verb}"]
    said += [f"  {c.path}: {_short(c.before)} -> {_short(c.after)}" for c in found.changed]
    if found.errors:
        said += [f"refused: {e}" for e in found.errors]
    if found.revision and not found.before:
        said.append(f"revision {found.revision}, the first: goes live when it is ready")
    elif found.revision and found.revision == found.before:
        said.append(f"revision {found.revision} as now: no pod is replaced")
    elif found.revision:
        said.append(f"revision {found.revision} on trial against {found.before}")
    changed = {k: v for k, v in found.made.items() if v != "same"}
    if found.made:
        said.append(
            f"objects: {sum(v == 'created' for v in changed.values())} created, "
            f"{sum(v.startswith('changed') for v in changed.values())} changed, "
            f"{len(found.made) - len(changed)} the same"
        )
        said += [f"  {key}  {what}" for key, what in changed.items()]
    said += [f"route: {found.route[0]}", *found.route[1:]] if found.route else []
    if found.fit is not None:
        said.append(f"nodes: {found.fit}")
        if not found.fit.pods:
            said.append(
                "  the first pods wait"
                if found.new or not found.before
                else "  the rollout waits for room (rollout.surgeWait), then swaps one of "
                "stable's pods, where stable has several"
            )
    if found.stages:
        said += _expected(found)
    said += [f"note: {n}" for n in found.notes]
    return said


def _expected(found: Report) -> list[str]:
    whole_s = expecting.total_s(found.stages)
    if found.rate_per_s is None:
        needed = sum(s.requests or 0 for s in found.stages)
        head = (
            f"rollout: {needed:,} canary requests if none fails; how long depends on the traffic, "
            "which is not measured now: --rate"
        )
    else:
        length = "never ends" if whole_s is None else f"about {facts.span(whole_s)}"
        head = f"rollout: {length} at {found.rate_per_s:g} requests a second, if none fails"
    said = [head]
    for stage in found.stages:
        requests = f"{stage.requests:,} requests" if stage.requests else ""
        length = "" if stage.seconds is None else facts.span(stage.seconds)
        parts = ", ".join(p for p in (requests, length) if p)
        said.append(f"  {stage.name}  {100 * stage.weight:g}%  {parts}")
    return said


def _short(value: Any) -> str:
    text = "(none)" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def ordered(objects: Iterable[Document]) -> str:
    """Manifests as YAML documents."""
    return yaml_text(objects)
