"""What the Prometheus that the operator asks knows of the models. Pure."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from tidegate.api import names

Document = Mapping[str, Any]
Model = tuple[str, str]
"""Namespace and name of a ModelDeployment."""

LABEL: Final = "".join(c if c.isalnum() else "_" for c in names.DEPLOYMENT_LABEL)
QUERY: Final = f'count by (namespace, {LABEL}) (envoy_server_uptime{{pod!="",{LABEL}!=""}})'
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


def scraped(raw: bytes) -> set[Model]:
    """The models of which it has scraped pods lately.

    Args:
        raw: the answer to `QUERY`.

    Raises:
        ValueError: it is none of Prometheus' HTTP API.
    """
    try:
        series = [one["metric"] for one in json.loads(raw)["data"]["result"]]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"no answer of Prometheus' HTTP API: {words(raw)}") from None
    return {(str(m.get("namespace") or ""), str(m[LABEL])) for m in series if LABEL in m}


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
