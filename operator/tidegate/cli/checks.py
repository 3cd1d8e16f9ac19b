"""What is checked of a cluster: documents in, findings out, but where rights are asked for."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tidegate import __version__
from tidegate.api import names
from tidegate.cli.client import deployment_path
from tidegate.cli.permitted import Denied, Look
from tidegate.view import facts, summary

Document = Mapping[str, Any]
GOOD: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
MIN_VERSION: Final = (1, 30)
"""Native sidecars and ValidatingAdmissionPolicy, both on by default."""
LEASE_FRESH_S: Final = 30.0
_PRODUCT: Final = "nvidia.com/gpu.product"
_MEMORY: Final = "nvidia.com/gpu.memory"
MIRROR_FEATURES: Final = ("HTTPRouteRequestMirror", "HTTPRouteRequestPercentageMirror")
_LOOK: Final = (
    (names.GROUP, names.PLURAL, ""),
    ("", "pods", ""),
    ("", "pods", "log"),
    ("", "events", ""),
    ("apps", "controllerrevisions", ""),
)
_OPERATES: Final = (
    (names.GROUP, names.PLURAL, "", "list"),
    (names.GROUP, names.PLURAL, "status", "patch"),
    ("apps", "deployments", "", "create"),
    ("apps", "deployments", "scale", "patch"),
    ("apps", "controllerrevisions", "", "create"),
    ("", "services", "", "patch"),
    ("", "configmaps", "", "create"),
    ("", "pods", "", "delete"),
    ("", "events", "", "create"),
    ("policy", "poddisruptionbudgets", "", "create"),
    ("networking.k8s.io", "networkpolicies", "", "create"),
    ("gateway.networking.k8s.io", "httproutes", "", "patch"),
    ("monitoring.coreos.com", "podmonitors", "", "create"),
)


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: what was looked at.
        result: ok, warning, failed or unknown.
        message: what is so.
        mend: what to do; '' where nothing is to be done.
    """

    check: str
    result: str
    message: str
    mend: str = ""

    def document(self) -> dict[str, str]:
        """As JSON."""
        return {
            "check": self.check,
            "result": self.result,
            "message": self.message,
            "mend": self.mend,
        }


def version(found: Document) -> Iterable[Finding]:
    """The API server's version."""
    digits = [re.sub(r"\D.*", "", str(found.get(k) or "")) for k in ("major", "minor")]
    said = str(found.get("gitVersion") or "unknown")
    if not all(digits):
        yield Finding("kubernetes", UNKNOWN, f"version {said}")
    elif tuple(map(int, digits)) < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        yield Finding("kubernetes", FAILED, f"{said} is too old", f"upgrade to {least} or later")
    else:
        yield Finding("kubernetes", GOOD, said)


def api(found: Document | None) -> Iterable[Finding]:
    """Whether ModelDeployments are served."""
    served = {r.get("name") for r in (found or {}).get("resources") or ()}
    if names.PLURAL not in served:
        yield Finding(
            "api",
            FAILED,
            f"{names.API_VERSION} is not served",
            "install the chart: helm install tidegate helm/tidegate -n tidegate-system",
        )
        return
    missing = {f"{names.PLURAL}/{s}" for s in ("status", "scale")} - served
    if missing:
        yield Finding(
            "api",
            FAILED,
            f"{names.API_VERSION} lacks {', '.join(sorted(missing))}",
            "upgrade the CRD to the operator's version",
        )
    else:
        yield Finding("api", GOOD, f"{names.API_VERSION} with status and scale")


def optional_apis(found: Document) -> Iterable[Finding]:
    """What the cluster serves beside what must be there."""
    groups = {g.get("name") for g in found.get("groups") or ()}
    uses = {
        "gateway.networking.k8s.io": ("exact weights and mirroring", "install a Gateway API"),
        "monitoring.coreos.com": ("PodMonitors", "scrape the pods' port metrics by hand"),
        "resource.k8s.io": ("GPUs by claims (runtime.gpu.dra)", ""),
    }
    for group, (use, mend) in uses.items():
        if group in groups:
            yield Finding(group, GOOD, f"served: {use}")
        else:
            text = f"not served: no {use}"
            yield Finding(group, WARNING if mend else GOOD, text, mend)


def own_rights(look: Look, namespace: str) -> Iterable[Finding]:
    """What the caller may read and ask for."""
    lacking = [
        f"{resource}{'/' + sub if sub else ''}"
        for group, resource, sub in _LOOK
        if not look.may(group, resource, sub, "get" if sub else "list", namespace)
    ]
    if lacking:
        yield Finding(
            "your rights",
            FAILED if names.PLURAL in lacking else WARNING,
            f"you may not read {', '.join(lacking)} in {namespace}",
            "ask for the role view there; the chart adds ModelDeployments to it",
        )
    else:
        yield Finding("your rights", GOOD, f"all that the views read in {namespace}")
    verbs = [v for v in _verbs() if look.may(names.GROUP, names.PLURAL, "", v, namespace)]
    writes = look.may(names.GROUP, names.PLURAL, "", "patch", namespace)
    said = ", ".join(verbs) if verbs and writes else "none"
    yield Finding("your rights", GOOD, f"verbs that you may ask for in {namespace}: {said}")


def _verbs() -> Iterable[str]:
    from tidegate.verbs import Verb

    return [v.value for v in Verb]


def operator_of(look: Look, namespace: str) -> Document | None:
    """The operator's Deployment; None where there is none, or it may not be read."""
    try:
        found = look.list(
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            labels={"app.kubernetes.io/component": "operator"},
        )
    except Denied:
        return None
    ours = [
        d
        for d in found or ()
        if any(
            e.get("name") == "TIDEGATE_LEASE_NAME"
            for c in d["spec"]["template"]["spec"]["containers"]
            for e in c.get("env") or ()
        )
    ]
    return ours[0] if ours else None


def installed(found: Document | None, namespace: str) -> Iterable[Finding]:
    """The operator's Deployment, and its version."""
    if found is None:
        yield Finding(
            "operator",
            UNKNOWN,
            f"no operator to be seen in {namespace}",
            "name its namespace: --operator-namespace; or ask for the role view there",
        )
        return
    wanted = found["spec"].get("replicas") or 0
    ready = (found.get("status") or {}).get("readyReplicas") or 0
    labels = found["metadata"].get("labels") or {}
    its = str(labels.get("app.kubernetes.io/version") or "")
    name = f"{namespace}/{found['metadata']['name']}"
    if not ready:
        yield Finding(
            "operator",
            FAILED,
            f"{name}: 0 of {wanted} replicas ready",
            f"kubectl -n {namespace} describe deployment {found['metadata']['name']}",
        )
    elif ready < wanted:
        yield Finding(
            "operator", WARNING, f"{name}: {ready} of {wanted} replicas ready", "see its pods"
        )
    else:
        yield Finding("operator", GOOD, f"{name} {its}: {ready} of {wanted} replicas ready")
    if its and its.split(".")[:2] != __version__.split(".")[:2]:
        yield Finding(
            "versions",
            WARNING,
            f"operator {its}, this command {__version__}",
            "use the command of the operator's version",
        )
    else:
        yield Finding("versions", GOOD, f"operator {its or 'unknown'}, command {__version__}")


def told(deployment: Document, name: str) -> str:
    """What the operator's Deployment says in a variable of its environment; '' where nothing."""
    return next(
        (
            str(e.get("value") or "")
            for c in deployment["spec"]["template"]["spec"]["containers"]
            for e in c.get("env") or ()
            if e.get("name") == name
        ),
        "",
    )


def watched(deployment: Document | None, namespace: str) -> Iterable[Finding]:
    """Whether the operator looks at the models' namespace; nothing is said where it does."""
    named = "" if deployment is None else told(deployment, "TIDEGATE_WATCH_NAMESPACES")
    spaces = [space.strip() for space in named.split(",") if space.strip()]
    if spaces and namespace not in spaces:
        yield Finding(
            "operator",
            FAILED,
            f"it looks at {', '.join(spaces)}, and at nothing in {namespace}",
            f"add {namespace} to the chart's watchNamespaces",
        )


def leases(look: Look, namespace: str) -> list[dict[str, Any]]:
    """By which replicas of the operator lead."""
    return look.list(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases") or []


def leader(leases: Iterable[Document], namespace: str, now: datetime) -> Iterable[Finding]:
    """Whether an operator leads."""
    mine = [item for item in leases if str(item["metadata"]["name"]).endswith("-operator")]
    for lease in mine:
        spec = lease.get("spec") or {}
        at = facts.moment(spec.get("renewTime"))
        holder = str(spec.get("holderIdentity") or "").partition("_")[0]
        if at is not None and holder and (now - at).total_seconds() < LEASE_FRESH_S:
            yield Finding("leader", GOOD, f"{holder} leads")
            return
    yield Finding(
        "leader",
        FAILED,
        f"no operator leads in {namespace}: nothing is decided",
        f"kubectl -n {namespace} logs deployment/tidegate-operator",
    )


def operator_rights(
    look: Look, deployment: Document | None, operator: str, namespace: str
) -> Iterable[Finding]:
    """What the operator may do in the models' namespace."""
    if deployment is None:
        yield Finding("operator's rights", UNKNOWN, "the operator cannot be seen")
        return
    account = deployment["spec"]["template"]["spec"].get("serviceAccountName") or "default"
    user = f"system:serviceaccount:{operator}:{account}"
    lacking = [
        f"{verb} {resource}{'/' + sub if sub else ''}"
        for group, resource, sub, verb in _OPERATES
        if not look.may_other(user, group, resource, sub, verb, namespace)
    ]
    if lacking:
        yield Finding(
            "operator's rights",
            FAILED,
            f"{account} may not {', '.join(lacking)} in {namespace}",
            f"add {namespace} to the chart's watchNamespaces, or leave rbac.create on",
        )
    else:
        yield Finding("operator's rights", GOOD, f"all that it needs in {namespace}")
    if look.may_other(user, "", "secrets", "", "get", namespace):
        yield Finding(
            "operator's rights",
            WARNING,
            f"{account} may read Secrets in {namespace}, which it never needs",
            "take that right away",
        )


def policies(look: Look) -> list[dict[str, Any]] | None:
    """The cluster's admission policies."""
    return look.list("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies")


def bindings(look: Look) -> list[dict[str, Any]] | None:
    """What puts them in force."""
    return look.list("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings")


def admission(
    policies: Iterable[Document] | None, bindings: Iterable[Document] | None
) -> Iterable[Finding]:
    """Whether the admission policies are there, bound, and sound."""
    mine = {
        str(p["metadata"]["name"]): p
        for p in policies or ()
        if any(
            names.GROUP in (r.get("apiGroups") or ())
            for r in (((p.get("spec") or {}).get("matchConstraints") or {}).get("resourceRules"))
            or ()
        )
    }
    bound = {str((b.get("spec") or {}).get("policyName")) for b in bindings or ()}
    wanted = ("references", "platform", "requests")
    missing = [w for w in wanted if not any(n.endswith(f"-{w}") for n in mine.keys() & bound)]
    if missing:
        yield Finding(
            "admission",
            FAILED,
            f"no policy in force for {', '.join(missing)}: a manifest may name what its author "
            "may not read, and anybody may promote",
            "install the chart with admission.enabled",
        )
        return
    warnings = [
        w.get("warning", "")
        for p in mine.values()
        for w in ((p.get("status") or {}).get("typeChecking") or {}).get("expressionWarnings") or ()
    ]
    if warnings:
        yield Finding(
            "admission",
            WARNING,
            f"the API server finds fault with a policy: {' '.join(warnings[0].split())}",
            "bring CRD and chart to the same version",
        )
    else:
        yield Finding("admission", GOOD, f"{len(mine)} policies in force")


def gpus(nodes: Iterable[Document]) -> Iterable[Finding]:
    """GPUs that nodes offer, and whether their labels say which."""
    total, labelled, having = 0, 0, 0
    for node in nodes:
        there = (node.get("status") or {}).get("allocatable") or {}
        number = sum(int(v) for k, v in there.items() if k.startswith("nvidia.com/"))
        if not number:
            continue
        having, total = having + 1, total + number
        labels = node["metadata"].get("labels") or {}
        labelled += _PRODUCT in labels and _MEMORY in labels
    if not total:
        yield Finding(
            "GPUs",
            WARNING,
            "no node offers nvidia.com/*: only models with runtime.gpu.count: 0 will run",
            "install the NVIDIA device plugin (or GPU operator) on GPU nodes",
        )
    elif labelled < having:
        yield Finding(
            "GPUs",
            WARNING,
            f"{total} on {having} nodes; {having - labelled} nodes do not say which "
            f"({_PRODUCT}, {_MEMORY})",
            "install GPU feature discovery; runtime.gpu.products and minMemory need its labels",
        )
    else:
        yield Finding("GPUs", GOOD, f"{total} on {having} nodes, labelled")


def gateways(look: Look) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]] | None]:
    """Gateways and their classes."""
    gateways = look.list("/apis/gateway.networking.k8s.io/v1/gateways")
    if gateways is None:
        return None, None
    return gateways, look.list("/apis/gateway.networking.k8s.io/v1/gatewayclasses")


def gateway(
    gateways: Iterable[Document] | None, classes: Iterable[Document] | None
) -> Iterable[Finding]:
    """Gateways, whether they work, and what their classes can do."""
    if gateways is None:
        yield Finding(
            "gateway",
            WARNING,
            "no Gateway API: traffic moves all at once, by Services",
            "install a Gateway API implementation for weights and mirroring",
        )
        return
    there = list(gateways)
    if not there:
        yield Finding("gateway", WARNING, "there is no Gateway", "make one, and name it in traffic")
    for one in there:
        meta = one["metadata"]
        name = f"{meta.get('namespace')}/{meta['name']}"
        conditions = {c.get("type"): c for c in (one.get("status") or {}).get("conditions") or ()}
        programmed = conditions.get("Programmed") or conditions.get("Accepted") or {}
        if programmed.get("status") == "True":
            yield Finding("gateway", GOOD, f"{name} is programmed")
        else:
            yield Finding(
                "gateway",
                FAILED,
                f"{name} does not work: {programmed.get('reason') or 'no status'} "
                f"{programmed.get('message') or ''}".rstrip(),
                "see its controller",
            )
    for one in classes or ():
        status = one.get("status") or {}
        said = [
            f["name"] if isinstance(f, Mapping) else str(f)
            for f in status.get("supportedFeatures") or ()
        ]
        name = str(one["metadata"]["name"])
        if not said:
            yield Finding(
                "gateway", UNKNOWN, f"class {name} does not say what it supports", "see its docs"
            )
        elif lacking := [f for f in MIRROR_FEATURES if f not in said]:
            yield Finding(
                "gateway",
                WARNING,
                f"class {name} lacks {', '.join(lacking)}: no share of live requests is mirrored",
                "rollout.mirror.mode: Off, or another implementation",
            )
        else:
            yield Finding("gateway", GOOD, f"class {name} splits and mirrors")


def models(look: Look, namespace: str, now: datetime) -> Iterable[Finding]:
    """ModelDeployments, those first that need somebody."""
    try:
        found = look.list(deployment_path(None))
        where = "in the cluster"
    except Denied:
        found = look.list(deployment_path(namespace))
        where = f"in {namespace}"
    rows = [summary(one, now) for one in found or ()]
    bad = [r for r in rows if r["state"]["tone"] == "bad"]
    shown = ", ".join(f"{r['namespace']}/{r['name']} {r['state']['word']}" for r in bad[:5])
    if bad:
        yield Finding(
            "models",
            WARNING,
            f"{len(bad)} of {len(rows)} {where} need somebody: {shown}",
            f"tidegate explain {bad[0]['name']} -n {bad[0]['namespace']}",
        )
    else:
        yield Finding("models", GOOD, f"{len(rows)} {where}, none needs somebody")
