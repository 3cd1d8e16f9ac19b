"""What the Prometheus that the operator asks knows of the models and of the operator. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from tidegate.api import names

Document = Mapping[str, Any]
Model = tuple[str, str]
"""Namespace and name of a ModelDeployment."""

LABEL: Final = "".join(c if c.isalnum() else "_" for c in names.DEPLOYMENT_LABEL)
Series = Mapping[str, str]
"""The labels of a series, its name among them."""
MODELS: Final = f'count by (namespace, {LABEL}) (envoy_server_uptime{{pod!="",{LABEL}!=""}})'
"""Pods by model, with the labels that the operator asks by; other Envoys have none of them."""
MAX_NAMED: Final = 5
MEND: Final = "scrape their port metrics with the labels of docs/guide/own-prometheus.md"


def service(url: str) -> tuple[str, str] | None:
    """Namespace of the Service behind a URL, and the path to ask it through the API server.

    None: it is none of this cluster's.
    """
    parts = urlsplit(url)
    name, _, rest = (parts.hostname or "").partition(".")
    space = rest.partition(".")[0]
    # prometheus.example.com is somebody else's.
    if not space or rest not in (space, f"{space}.svc", f"{space}.svc.cluster.local"):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    proxy = f"/api/v1/namespaces/{space}/services/{parts.scheme}:{name}:{port}/proxy"
    return space, f"{proxy}{quote(parts.path.rstrip('/'))}/api/v1/query"


def words(raw: bytes) -> str:
    """How an answer begins, in one line."""
    return " ".join(raw[:120].decode("utf-8", "replace").split())


def refused(status: int, raw: bytes) -> str:
    """Why the API server itself did not pass the question on; '' where it did."""
    try:
        said = json.loads(raw) if status >= 400 else {}
    except ValueError:
        return ""
    ours = isinstance(said, dict) and said.get("kind") == "Status"
    return " ".join(str(said.get("message") or said.get("reason")).split()) if ours else ""


def series(raw: bytes) -> list[Series]:
    """The series of an answer.

    Raises:
        ValueError: it is none of Prometheus' HTTP API.
    """
    try:
        return [dict(one["metric"]) for one in json.loads(raw)["data"]["result"]]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"no answer of Prometheus' HTTP API: {words(raw)}") from None


def models(found: Iterable[Series]) -> set[Model]:
    """The models of which it has scraped pods lately, by what `MODELS` found."""
    return {(m.get("namespace", ""), m[LABEL]) for m in found if LABEL in m}


@dataclass(frozen=True)
class Seen:
    """What it has of the operator.

    Attributes:
        replicas: how many it has scraped lately.
        unanswered: addresses that it is to scrape, and that do not answer it.
        relabelled: whether the models' labels were renamed in favour of the target's.
    """

    replicas: int
    unanswered: tuple[str, ...]
    relabelled: bool


def operator(name: str) -> str:
    """The query about the operator whose Deployment has this name.

    Its job is called so too, in a scrape configuration as in docs/guide/own-prometheus.md, or
    ``namespace/name`` by the chart's PodMonitor.
    """
    return (
        "tidegate_leader "
        f'or (up{{job=~"(.*/)?{name}"}} == 0) '
        'or topk(1, tidegate_modeldeployment_condition{exported_namespace!=""})'
    )


def seen(found: Iterable[Series]) -> Seen:
    """What the query `operator` found."""
    by_name: dict[str, list[Series]] = {}
    for one in found:
        by_name.setdefault(one.get("__name__", ""), []).append(one)
    return Seen(
        len(by_name.get("tidegate_leader", ())),
        tuple(sorted(one.get("instance", "?") for one in by_name.get("up", ()))),
        "tidegate_modeldeployment_condition" in by_name,
    )


def serving(deployments: Iterable[Document]) -> set[Model]:
    """The models that it ought to know: those with ready pods that have a sidecar."""
    return {
        (str(d["metadata"].get("namespace") or ""), str(d["metadata"]["name"]))
        for d in deployments
        if (d.get("status") or {}).get("readyReplicas")
        and ((d["spec"].get("runtime") or {}).get("sidecar") or "On") == "On"
    }


def lacking(wanted: set[Model], known: set[Model]) -> str:
    """What it does not know, in words; '' if nothing."""
    missing = sorted(wanted - known)
    if not missing:
        return ""
    shown = ", ".join(f"{space}/{name}" for space, name in missing[:MAX_NAMED])
    more = ", ..." if len(missing) > MAX_NAMED else ""
    return f"nothing of {len(missing)} of {len(wanted)} models that serve: {shown}{more}"
