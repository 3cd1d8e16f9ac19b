"""Is the cluster fit for Tidegate, and is Tidegate well in it? Each finding with what to do.

Everything is read as the caller. What the caller may not see is *unknown*, never *well*: the role
view is enough for the first checks, and each unknown names the right that it lacks.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from tidegate.api import names
from tidegate.cli import check_prometheus, checks
from tidegate.cli.checks import FAILED, GOOD, UNKNOWN, WARNING, Finding
from tidegate.cli.client import Client
from tidegate.cli.permitted import Denied, Look, right
from tidegate.cli.trouble import Trouble


def examine(client: Client, namespace: str, operator: str, now: datetime) -> list[Finding]:
    """Look at everything.

    Args:
        client: reads as the caller.
        namespace: of the models.
        operator: namespace of the operator.
        now: UTC.

    Raises:
        Trouble: the API server does not answer.
    """
    look = Look(client)
    deployment = checks.operator_of(look, operator)
    listed: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("kubernetes", lambda: checks.version(look.get("/version") or {})),
        ("api", lambda: checks.api(look.get(f"/apis/{names.API_VERSION}"))),
        ("optional APIs", lambda: checks.optional_apis(look.get("/apis") or {})),
        ("your rights", lambda: checks.own_rights(look, namespace)),
        ("operator", lambda: checks.installed(deployment, operator)),
        ("operator", lambda: checks.watched(deployment, namespace)),
        ("leader", lambda: checks.leader(checks.leases(look, operator), operator, now)),
        (
            "operator's rights",
            lambda: checks.operator_rights(look, deployment, operator, namespace),
        ),
        ("admission", lambda: checks.admission(checks.policies(look), checks.bindings(look))),
        ("GPUs", lambda: checks.gpus(look.list("/api/v1/nodes") or [])),
        ("gateway", lambda: checks.gateway(*checks.gateways(look))),
        ("metrics", lambda: check_prometheus.examine(look, deployment, namespace)),
        ("models", lambda: checks.models(look, namespace, now)),
    )
    found: list[Finding] = []
    for check, run in listed:
        try:
            found += run()
        except Denied as error:
            found.append(Finding(check, UNKNOWN, right(str(error)), "ask for that right"))
    return found


def failed(found: Iterable[Finding]) -> bool:
    """Whether anything must be mended."""
    return any(f.result == FAILED for f in found)


def lines(found: Iterable[Finding]) -> list[tuple[str, str, str]]:
    """Result, check and words of each finding."""
    return [
        (f.result, f.check, f.message + (f"; {f.mend}" if f.mend and f.result != GOOD else ""))
        for f in found
    ]


__all__ = ["FAILED", "GOOD", "WARNING", "Finding", "Trouble", "examine", "failed", "lines"]
