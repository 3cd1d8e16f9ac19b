"""What the Prometheus that the operator asks says of the models' pods, and of the operator."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tidegate.cli import scraping
from tidegate.cli.checks import FAILED, GOOD, UNKNOWN, WARNING, Finding, told
from tidegate.cli.client import deployment_path
from tidegate.cli.permitted import Denied, Look

Document = Mapping[str, Any]
MODELS: Final = "metrics"
OPERATOR: Final = "operator's metrics"


class _NoAnswerError(Exception):
    """There is nothing to judge by; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def examine(look: Look, deployment: Document | None, namespace: str) -> Iterable[Finding]:
    """Whether it answers, knows the pods that serve, and scrapes the operator.

    Args:
        look: reads as the caller.
        deployment: the operator's; None where it cannot be seen.
        namespace: of the models, for who may not list those of the whole cluster.
    """
    if deployment is None:
        yield Finding(MODELS, UNKNOWN, "the operator cannot be seen")
        return
    url = told(deployment, "TIDEGATE_PROMETHEUS_URL")
    if not url:
        yield Finding(MODELS, GOOD, "no Prometheus is asked: the operator reads the pods itself")
        return
    try:
        known = scraping.models(_ask(MODELS, look, url, scraping.MODELS))
        yield _models(look, url, known, namespace)
        name = str(deployment["metadata"]["name"])
        ready = int((deployment.get("status") or {}).get("readyReplicas") or 0)
        found = _ask(OPERATOR, look, url, scraping.operator(name))
        yield _operator(url, scraping.seen(found), ready)
    except _NoAnswerError as error:
        yield error.finding


def _ask(check: str, look: Look, url: str, query: str) -> list[scraping.Series]:
    """The series that a query finds.

    Raises:
        _NoAnswerError: there is none.
    """
    found = scraping.service(url)
    if found is None:
        raise _NoAnswerError(Finding(check, UNKNOWN, f"{url} is no Service of this cluster"))
    space, path = found
    status, _, raw = look.client.raw("GET", path, params={"query": query})
    if status == 403:
        raise _NoAnswerError(
            Finding(
                check,
                UNKNOWN,
                f"you may not get services/proxy in {space}, to ask {url}",
                "ask for that right",
            )
        )
    if refused := scraping.refused(status, raw):
        raise _NoAnswerError(
            Finding(
                check,
                WARNING,
                f"{url} is not to be reached through the API server: {refused}",
                "is there a pod behind it? else the operator may still reach it, and doctor "
                "does not",
            )
        )
    try:
        if status != 200:
            raise ValueError(f"HTTP {status}: {scraping.words(raw)}")
        return scraping.series(raw)
    except ValueError as error:
        raise _NoAnswerError(
            Finding(
                check,
                FAILED,
                f"{url} does not answer ({error})",
                "correct the chart's prometheus.url, or leave it empty",
            )
        ) from None


def _models(look: Look, url: str, known: set[scraping.Model], namespace: str) -> Finding:
    """Whether it knows the pods of all models that serve."""
    try:
        wanted = scraping.serving(look.list(deployment_path(None)) or ())
    except Denied:
        wanted = scraping.serving(look.list(deployment_path(namespace)) or ())
    if lacking := scraping.lacking(wanted, known):
        return Finding(MODELS, WARNING, f"{url} answers, and knows {lacking}", scraping.MEND)
    return Finding(MODELS, GOOD, f"{url} knows the pods of all {len(wanted)} that serve")


def _operator(url: str, seen: scraping.Seen, ready: int) -> Finding:
    """Whether it scrapes the operator's own metrics, which its alerts and dashboards need."""
    if seen.unanswered:
        return Finding(
            OPERATOR,
            WARNING,
            f"{url} does not reach the operator at {', '.join(seen.unanswered)}",
            "let it in: networkPolicy.ingressFrom of the chart, port 8080",
        )
    if not seen.replicas:
        return Finding(
            OPERATOR,
            WARNING,
            f"{url} does not scrape the operator: alerts and dashboards about it stay empty",
            "metrics.podMonitor.enabled of the chart, or the job of docs/guide/own-prometheus.md",
        )
    if seen.replicas < ready:
        return Finding(
            OPERATOR,
            WARNING,
            f"{url} scrapes {seen.replicas} of the operator's {ready} replicas",
            "scrape each pod, not the Service: the one that leads has what is decided",
        )
    if seen.relabelled:
        return Finding(
            OPERATOR,
            WARNING,
            f"{url} has the models' namespace as exported_namespace: alerts name the wrong one",
            "scrape the operator with honor_labels: true",
        )
    return Finding(OPERATOR, GOOD, f"{url} scrapes all {seen.replicas} of the operator's replicas")
