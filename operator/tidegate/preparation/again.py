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
    for what, path in (("model", order.model), ("training code", order.source)):
        if path is None:
            continue
        if not path.exists() or lineage.digest(path) != known.get(what):
            raise PreparationError(
                f"{path} is not the {what} that {report} tells of: run it from the folder of the "
                "first run, with the same files"
            )
    if reading.read(order.data).digest() != known.get("data"):
        raise PreparationError(
            f"{order.data} holds other samples than those that {report} tells of: bring those "
            "back, or start anew without --from-report"
        )
    return order


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
