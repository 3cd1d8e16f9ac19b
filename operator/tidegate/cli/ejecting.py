"""Plain manifests of what serves now: the same pods, without Tidegate.

The Deployment keeps its name, selector and pod template, so that applying the manifests after the
ModelDeployment was deleted with ``--cascade=orphan`` replaces no pod.

The CronJob that looks at a followed source is left out: what it sees it tells the operator only.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tidegate.api.names import (
    DECISION_ANNOTATION,
    DEPLOYMENT_LABEL,
    GROUP,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    REVISION_LABEL,
)
from tidegate.cli.client import ApiError, Client
from tidegate.cli.common import yaml_text
from tidegate.cli.planning import KINDS, follows, may_lack, path_of, served
from tidegate.cli.trouble import Exit, Trouble
from tidegate.resources.look import look_name
from tidegate.resources.services import revision_of
from tidegate.revision import RECORD_KEY
from tidegate.view import facts

Document = dict[str, Any]

_SERVERS_OWN: Final = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "ownerReferences",
    "selfLink",
)
_ORDER: Final = (
    *("ConfigMap", "ResourceClaimTemplate", "Deployment", "Service", "PodDisruptionBudget"),
    *("NetworkPolicy", "PodMonitor", "HTTPRoute", "GRPCRoute"),
)
_ASSIGNED: Final = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
"""Of a Service's spec: given by the API server, and the same Service keeps them."""


def children(
    client: Client, namespace: str, deployment: Mapping[str, Any]
) -> tuple[list[Document], list[str]]:
    """What goes on serving of what Tidegate made; and kinds that may not be read.

    Raises:
        Trouble: what it cannot do without may not be read.
    """
    name = deployment["metadata"]["name"]
    unread: list[str] = []
    found: list[Document] = []
    for api_version, kind, plural in KINDS:
        if kind not in _ORDER:
            continue
        try:
            objects = client.list(
                path_of(api_version, plural, namespace), labels={DEPLOYMENT_LABEL: name}
            )
        except ApiError as error:
            if error.status == 404 or (error.status == 403 and not served(client, api_version)):
                continue
            if error.status == 403 and may_lack(deployment, kind):
                unread += ["PodMonitor"] if kind == "PodMonitor" else []
                continue
            raise
        found += [{"apiVersion": api_version, "kind": kind, **one} for one in objects]
    return found, unread


def plain(deployment: Mapping[str, Any], found: Iterable[Mapping[str, Any]]) -> list[Document]:
    """The manifests.

    Args:
        deployment: the ModelDeployment.
        found: its children.

    Raises:
        Trouble: nothing serves, or a canary is on trial.
    """
    name = deployment["metadata"]["name"]
    if facts.rolling(deployment) and facts.revision(deployment, "canary"):
        raise Trouble(
            f"a canary of {name} is on trial", f"wait, or: tidegate abort {name}; then eject"
        )
    serves = facts.revision(deployment, "stable").get("hash")
    listed = list(found)
    if not serves:
        entry = next(
            (o for o in listed if o["kind"] == "Service" and o["metadata"]["name"] == name), {}
        )
        serves = revision_of(entry) if entry else None
    if not serves:
        raise Trouble(f"no revision of {name} serves", "nothing to eject", code=Exit.NOT_FOUND)
    kept = [
        _bare(one)
        for one in listed
        if (one["metadata"].get("labels") or {}).get(REVISION_LABEL) in (None, serves)
    ]
    return sorted(kept, key=lambda o: (_ORDER.index(o["kind"]), o["metadata"]["name"]))


def _bare(one: Mapping[str, Any]) -> Document:
    meta = {k: v for k, v in one["metadata"].items() if k not in _SERVERS_OWN}
    labels = dict(meta.get("labels") or {})
    if labels.get(MANAGED_BY_LABEL) == MANAGED_BY:
        labels.pop(MANAGED_BY_LABEL)
    meta["labels"] = labels
    notes = {
        k: v
        for k, v in (meta.pop("annotations", None) or {}).items()
        if k != DECISION_ANNOTATION and not k.startswith((f"{GROUP}/", "deployment.kubernetes.io/"))
    }
    if notes:
        meta["annotations"] = notes
    found = {**one, "metadata": meta}
    found.pop("status", None)
    if one["kind"] == "ConfigMap":
        found["data"] = dict(one.get("data") or {})
        if not one.get("immutable"):
            found["data"].pop(RECORD_KEY, None)
    if one["kind"] == "Service":
        found["spec"] = {k: v for k, v in one["spec"].items() if k not in _ASSIGNED}
    return found


def text(deployment: Mapping[str, Any], namespace: str, manifests: Iterable[Document]) -> str:
    """The manifests as YAML, with what to do on top."""
    name = deployment["metadata"]["name"]
    looks = f"#   3. kubectl -n {namespace} delete cronjob {look_name(deployment)}\n"
    head = f"""\
# {name}, as it serves now, without Tidegate. Its pods go on serving, none is replaced:
#   1. kubectl -n {namespace} delete {GROUP_NAME} {name} --cascade=orphan
#   2. kubectl -n {namespace} apply --server-side --force-conflicts -f THIS_FILE
{looks if follows(deployment) else ""}\
# From then on nothing watches, scales or rolls back: a changed pod template is a plain rolling
# update.
"""
    return head + yaml_text(manifests)


GROUP_NAME: Final = f"modeldeployments.{GROUP}"
