"""The order of an earlier run, from its report: the same inputs, or none."""

import json
from pathlib import Path
from typing import Any

from tidegate.preparation import lineage
from tidegate.preparation import samples as reading
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.order import Order
from tidegate.preparation.publish.report import FORMAT


def order_of(report: Path) -> Order:
    """What the report tells of.

    Raises:
        PreparationError: it is no report, or of a run that came to nothing, or what it was made
            from is not there any more as it was.
    """
    try:
        document = json.loads(report.read_text())
    except (OSError, ValueError) as error:
        raise PreparationError(f"{report} cannot be read ({error}): name a report.json") from error
    _check_finished(report, document)
    order = Order.of(document["order"])
    known = document["lineage"]
    for what, path in (
        ("model", order.model),
        ("training code", order.source),
        ("calibration", order.calibration),
    ):
        if path is None:
            continue
        if not path.exists() or lineage.digest(path) != known.get(what):
            raise PreparationError(
                f"{path} is not the {what} that {report} tells of: run it from the folder of the "
                "first run, with the same files"
            )
    if lineage.metric(order.metric) != known.get("metric", lineage.metric(order.metric)):
        raise PreparationError(
            f"the metric {order.metric} is not the one that {report} tells of: bring that file "
            "back, or start anew without --from-report"
        )
    if reading.read(order.data).digest() != known.get("data"):
        raise PreparationError(
            f"{order.data} holds other samples than those that {report} tells of: bring those "
            "back, or start anew without --from-report"
        )
    return order


def differences(report: Path) -> list[str]:
    """What the report was made with and is otherwise here, so that figures may differ: a line each.

    Args:
        report: one that `order_of` took.
    """
    then = json.loads(report.read_text())["lineage"]
    now = {
        "preparation code": lineage.code(),
        "versions": lineage.versions(),
        "machine": lineage.machine(),
    }
    found = []
    for what, here in now.items():
        was = then.get(what)
        if isinstance(here, dict) and isinstance(was, dict):
            names = [*here, *(n for n in was if n not in here)]
            pairs = [(n, was.get(n, "none"), here.get(n, "none")) for n in names]
            found += [f"{n} was {a}, is {b}" for n, a, b in pairs if a != b]
        elif was != here:
            found.append(f"{what} has changed")
    return found


def _check_finished(report: Path, document: Any) -> None:
    try:
        taken = [one for one in document["candidates"] if one["taken"]]
        finished = (
            document["format"] == FORMAT
            and len(taken) == 1
            and taken[0]["accepted"]
            and len(document["published"]["sha256"]) == 64
            and isinstance(document["order"], dict)
            and isinstance(document["lineage"], dict)
        )
    except (KeyError, TypeError) as error:
        raise PreparationError(f"{report} is no report of tidegate prepare: {error!r}") from error
    if not finished:
        raise PreparationError(
            f"{report} tells of no finished preparation (format {FORMAT}, one candidate that was "
            "accepted and published): start anew without --from-report"
        )
