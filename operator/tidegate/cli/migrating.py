"""From what serves a model now to a ModelDeployment: a Deployment, an InferenceService, a Rollout.

`migrate` is pure: documents in, manifests and notes out. The old objects are not touched, and the
new one has a name that none of theirs needs, so both can run side by side until the cut-over.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from pydantic import ValidationError

from tidegate.api import names
from tidegate.api.patterns import MODEL_NAME_PATTERN
from tidegate.api.spec import parse
from tidegate.api.units import DURATION_PATTERN, duration_ms
from tidegate.cli import from_argo, from_kserve, from_pods, from_triton
from tidegate.cli.common import text_of
from tidegate.cli.draft import ASK_SOURCE, NO_FIELD, Document, Draft, block, items
from tidegate.cli.starting import deployment_name
from tidegate.cli.trouble import Misuse, Trouble
from tidegate.resources.meta import labels

WORKLOADS: Final = {
    ("apps", "Deployment"): "Deployment",
    ("serving.kserve.io", "InferenceService"): "InferenceService",
    ("argoproj.io", "Rollout"): "Rollout",
}
SUFFIX: Final = "-tidegate"
_ORDER: Final = ("model", "runtime", "slo", "replicas", "scaling", "rollout")
_MODEL_ORDER: Final = ("name", "backend", "source", "config")
_READ: Final = frozenset(
    {
        *("Service", "HorizontalPodAutoscaler", "ScaledObject", "HTTPRoute", "ServiceAccount"),
        *("Secret", "AnalysisTemplate", "ClusterAnalysisTemplate", "Namespace"),
    }
)
_REPLACED: Final = frozenset(
    {"PodDisruptionBudget", "ServiceMonitor", "PodMonitor", "NetworkPolicy"}
)
_FORMER: Final = frozenset({"replicas", "selector", "template", "strategy", "revisionHistoryLimit"})
_DEPLOYMENT_READ: Final = _FORMER | {"progressDeadlineSeconds", "minReadySeconds"}
_ROLLOUT_READ: Final = _DEPLOYMENT_READ | {"workloadRef", "analysis", "rollbackWindow"}


@dataclass(frozen=True)
class Options:
    """What the author says beside the file; '' for nothing.

    Attributes:
        source: where the model's files will lie.
        name: of the ModelDeployment.
        model: name that clients ask for.
        container: the one that runs Triton.
        latency: target of the latency objective.
    """

    source: str = ""
    name: str = ""
    model: str = ""
    container: str = ""
    latency: str = ""


@dataclass(frozen=True)
class Migrated:
    """A manifest, and what it lacks.

    Attributes:
        manifest: the ModelDeployment.
        notes: what was not carried over, one line each with what to do about it.
    """

    manifest: Document
    notes: tuple[str, ...]


def read(file: str) -> list[Document]:
    """The objects of a file, ``-`` for standard input; Lists are opened.

    Raises:
        Trouble: it cannot be read, or holds no objects.
    """
    text = text_of(file, "FILE", "give manifests as YAML or JSON")
    try:
        documents = [d for d in yaml.safe_load_all(text) if d]
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise Trouble(f"{file} is no YAML{line}", "templates must be rendered first") from None
    opened = [d for one in documents for d in ((one.get("items") or [one]) if _is(one) else [one])]
    if not opened or not all(_is(d) and isinstance(d.get("kind"), str) for d in opened):
        raise Trouble(f"{file} holds no Kubernetes objects", "give manifests as YAML or JSON")
    return opened


def _is(one: object) -> bool:
    return isinstance(one, dict)


def migrate(documents: Iterable[Document], options: Options | None = None) -> list[Migrated]:
    """A ModelDeployment for each Deployment, InferenceService or Rollout.

    Args:
        documents: all that was read; Services, HPAs, AnalysisTemplates and so on belong to them.
        options: what the author says beside them.

    Raises:
        Trouble: there is no workload, or it cannot be served by Triton, or an option is bad.
    """
    options = options or Options()
    listed = list(documents)
    referred = {
        block(block(d, "spec"), "workloadRef").get("name") for d in listed if d["kind"] == "Rollout"
    }
    found = [
        d
        for d in listed
        if _workload(d) and not (d["kind"] == "Deployment" and _name(d) in referred)
    ]
    if not found:
        there = ", ".join(sorted({str(d["kind"]) for d in listed}))
        raise Trouble(
            f"no Deployment, InferenceService or Rollout, only {there}",
            "give the object that runs the pods",
        )
    if len(found) > 1 and (options.source or options.name or options.model or options.container):
        options_of_one = ("source", "name", "model", "container")
        given = next(name for name in options_of_one if getattr(options, name))
        raise Misuse(
            f"--{given} {getattr(options, given)!r} is about one object, there are {len(found)}",
            "give them one by one",
        )
    _check(options)
    made = []
    for document in found:
        try:
            made.append(_one(document, [o for o in listed if o is not document], options))
        except (AttributeError, TypeError):
            # The API server knows the shape of its objects better than a copy of it here would.
            raise Trouble(
                f"{document['kind']} {_name(document)}: a field has another form than it should",
                "kubectl apply --dry-run=server -f FILE says which",
            ) from None
    return made


def _workload(document: Mapping[str, Any]) -> str | None:
    group = str(document.get("apiVersion", "")).partition("/")[0]
    return WORKLOADS.get((group, str(document["kind"])))


def _name(document: Document) -> str:
    return str(block(document, "metadata").get("name") or "")


def _check(options: Options) -> None:
    if options.latency:
        good = re.fullmatch(DURATION_PATTERN, options.latency)
        ms = duration_ms(options.latency) if good else 0
        if not 1 <= ms <= 3_600_000 or len(str(ms).rstrip("0")) > 2:
            raise Misuse(
                f"--latency {options.latency} cannot be an objective",
                "two significant digits, such as 100ms, 250ms or 1500ms",
            )
    if options.model and not re.fullmatch(MODEL_NAME_PATTERN, options.model):
        raise Misuse(
            f"--model {options.model} is no model's name", "letters, digits, '_', '-', '.'"
        )
    if options.name and deployment_name(options.name) != options.name:
        raise Misuse(
            f"--name {options.name!r} cannot be a ModelDeployment's",
            "small letters, digits, dashes",
        )


def _one(document: Document, others: list[Document], options: Options) -> Migrated:
    old = _name(document)
    if not old:
        raise Trouble(f"a {document['kind']} without metadata.name", "add it")
    kind = str(document["kind"])
    draft = Draft(kind, old, "", str(block(document, "metadata").get("namespace") or ""))
    draft.name = options.name or _new_name(draft, document, others)
    if options.model:
        draft.put("model.name", options.model)
    if options.latency:
        draft.put("slo.latency", {"target": options.latency})
    draft.put("model.source", {})
    if kind == "InferenceService":
        from_kserve.fill(
            draft,
            document,
            others,
            given=options.source,
            container=options.container,
            latency=bool(options.latency),
        )
    else:
        _pods(draft, document, others, options)
    _name_of_model(draft)
    _objective(draft)
    _leftovers(draft, others)
    return Migrated(_manifest(draft), tuple(draft.notes))


def _new_name(draft: Draft, document: Document, others: list[Document]) -> str:
    """The old one, unless a Service or route of the old ones has it."""
    taken = {_name(o) for o in others if o["kind"] in ("Service", "HTTPRoute")}
    taken |= from_argo.addresses(block(document, "spec"))
    name = draft.old
    if draft.kind == "InferenceService" or name in taken:
        name += SUFFIX  # KServe makes a Service and a route of the same name
    good = re.fullmatch(r"[a-z][a-z0-9-]*", name)
    if not good or len(name) > names.MAX_NAME_LENGTH:
        raise draft.trouble(f"{name} cannot be a ModelDeployment's name", "give one: --name")
    return name


# A Deployment or a Rollout: pods from a template.


def _pods(draft: Draft, document: Document, others: list[Document], options: Options) -> None:
    spec = block(document, "spec")
    owner = spec
    if reference := block(spec, "workloadRef"):
        owner = next(
            (
                block(o, "spec")
                for o in others
                if o["kind"] == reference.get("kind", "Deployment")
                and _name(o) == reference.get("name")
            ),
            {},
        )
        if not owner:
            raise draft.trouble(
                f"workloadRef {reference.get('name')} is not in the file", "add that Deployment"
            )
    template = block(owner, "template")
    pod = block(template, "spec")
    if not items(pod, "containers"):
        raise draft.trouble("no pod template with containers", "give the whole object")
    container = from_triton.server(draft, pod, options.container)
    fetching = from_triton.source(draft, pod, container, options.source)
    from_pods.runtime(draft, pod, container, fetching=fetching)
    services = _services(block(template, "metadata"), others)
    selector = block(block(owner, "selector"), "matchLabels")
    from_pods.labels(
        draft, template, [selector, *(block(block(s, "spec"), "selector") for s in services)]
    )
    if queue := block(block(document, "metadata"), "labels").get("kueue.x-k8s.io/queue-name"):
        draft.put("runtime.queueName", queue)
    _replicas(draft, spec, others, bool(options.latency))
    for service in services:
        _service(draft, service)
    if draft.kind == "Rollout":
        from_argo.fill(draft, spec, others)
    elif block(spec, "strategy").get("type") == "Recreate":
        draft.put("rollout.strategy", "Recreate")
    elif str(block(block(spec, "strategy"), "rollingUpdate").get("maxSurge", "")) in ("0", "0%"):
        draft.put("rollout.surge", "Never")
    limit = spec.get("revisionHistoryLimit")
    if isinstance(limit, int) and limit != 10:
        draft.put("historyLimit", min(max(limit, 1), 50))
    for key in sorted(set(spec) - (_ROLLOUT_READ if draft.kind == "Rollout" else _DEPLOYMENT_READ)):
        draft.note(f"spec.{key}", NO_FIELD, "do without it")


def _services(meta: Document, others: list[Document]) -> list[Document]:
    """The Services that select the pods."""
    has = block(meta, "labels").items()
    return [
        o
        for o in others
        if o["kind"] == "Service"
        and (wanted := block(block(o, "spec"), "selector"))
        and wanted.items() <= has
    ]


def _service(draft: Draft, service: Document) -> None:
    kind = block(service, "spec").get("type", "ClusterIP")
    where = f"Service {_name(service)}"
    if kind in ("LoadBalancer", "NodePort"):
        draft.note(
            where,
            f"type {kind}: Tidegate's own Service is reached from inside only",
            "put a gateway in front: traffic.gateway",
        )
    if block(block(service, "spec"), "selector").items() <= labels(draft.name).items():
        draft.note(
            where,
            "selects the new pods, too, by labels that Tidegate sets itself",
            "before applying, let it select by a label that only the old pods have",
        )
    draft.note(
        where,
        "stays as it is, and leads to the old pods",
        f"the new address is Service {draft.name}, HTTP and gRPC both on 8000 and 8001",
    )


def _replicas(draft: Draft, spec: Document, others: list[Document], latency: bool) -> None:
    """Sets `replicas` and `scaling`, from the object and from who scales it."""
    own = spec.get("replicas")
    replicas = draft.whole("replicas", own) if own is not None else 1
    for one in others:
        target = block(block(one, "spec"), "scaleTargetRef")
        if (
            one["kind"] not in ("HorizontalPodAutoscaler", "ScaledObject")
            or target.get("name") != draft.old
            or target.get("kind", "Deployment") != draft.kind
        ):
            continue
        keda = one["kind"] == "ScaledObject"
        ends = block(one, "spec")
        where = f"{one['kind']} {_name(one)}"
        low = ends.get("minReplicaCount", 0) if keda else ends.get("minReplicas", 1)
        high = ends.get("maxReplicaCount", 100) if keda else ends.get("maxReplicas", 1)
        low = max(draft.whole(where, low), 1)
        high = max(draft.whole(where, high), low)
        if latency:
            draft.put("scaling", {"minReplicas": low, "maxReplicas": high})
            draft.note(
                where, "its bounds are kept, its metrics are not needed", "remove it at last"
            )
        else:
            draft.put("replicas", max(replicas, low))
            draft.put("scaling.mode", "External")
            draft.note(
                where,
                "scales the old object",
                f"let it scale apiVersion {names.API_VERSION}, kind {names.KIND}, name "
                f"{draft.name}; or give --latency, and replicas follow the load",
            )
        return
    if latency:
        draft.put("scaling", {"minReplicas": max(replicas, 1), "maxReplicas": max(replicas, 10)})
    elif own is not None:
        draft.put("replicas", replicas)


# What all have in common.


def _name_of_model(draft: Draft) -> None:
    model = draft.spec["model"]
    stated = "name" in model  # by --model, or by Triton's own --load-model
    if draft.name != draft.old and not stated:
        model["name"] = draft.old
    if model.get("name") == draft.name:
        del model["name"]
    asked = model.get("name", draft.name)
    if not re.fullmatch(MODEL_NAME_PATTERN, asked):
        raise draft.trouble(f"{asked} is no model's name", "give one: --model")
    if not stated:
        draft.note(
            "model.name",
            f"taken to be {asked}",
            "if clients ask for another: --model; a repository must hold it",
        )


def _objective(draft: Draft) -> None:
    slo = block(draft.spec, "slo")
    if "latency" not in slo:
        draft.note(
            "slo.latency", "not known", "give --latency; without it only errors decide on a version"
        )
    if "maxErrorRate" not in slo:
        draft.note("slo.maxErrorRate", "not known, so 1%", "set what clients are promised")


def _leftovers(draft: Draft, others: list[Document]) -> None:
    for one in others:
        kind, name = one["kind"], _name(one)
        if _workload(one) or kind in _READ:
            if kind == "HTTPRoute":
                draft.note(
                    f"HTTPRoute {name}", "not carried over", "split by it during the cut-over"
                )
        elif kind in _REPLACED:
            draft.note(f"{kind} {name}", "Tidegate makes its own", "remove it at last")
        else:
            draft.note(f"{kind} {name}", "not read", "keep it where something else needs it")


def _manifest(draft: Draft) -> Document:
    """The manifest; what the schema does not take becomes a note.

    Raises:
        Trouble: what it does not take cannot be left out.
    """
    for _ in range(50):
        try:
            parse(draft.spec)
            break
        except ValidationError as error:
            first = error.errors()[0]
            _drop(draft, [p for p in first["loc"] if p != "[key]"], first["msg"])
    model = draft.spec["model"]
    draft.spec["model"] = {k: model[k] for k in _MODEL_ORDER if k in model}
    order = [k for k in _ORDER if k in draft.spec] + [k for k in draft.spec if k not in _ORDER]
    meta: Document = {"name": draft.name}
    if draft.namespace:
        meta["namespace"] = draft.namespace
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": meta,
        "spec": {k: draft.spec[k] for k in order},
    }


def _drop(draft: Draft, place: list[str | int], why: str) -> None:
    """Take out the item or field that the schema does not take."""
    first = next((at for at, part in enumerate(place) if isinstance(part, int)), len(place) - 1)
    path = place[: first + 1]
    text = "spec." + ".".join(str(p) for p in path)
    node: Any = draft.spec
    try:
        for part in path[:-1]:
            node = node[part]
        value = node.pop(path[-1])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise draft.trouble(f"{text}: {why}", "mend it in the file") from None
    if path[:2] == ["model", "source"]:
        raise draft.trouble(f"{text} {value}: {why}", ASK_SOURCE)
    draft.note(text, f"{value} is not taken: {why}", "set it by hand")
