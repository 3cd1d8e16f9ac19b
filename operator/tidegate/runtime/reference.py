"""The reference of the operator's metrics, ``docs/reference/metrics.md``, made from `telemetry`.

``python -m tidegate.runtime.reference`` writes it, ``--check`` compares.
"""

import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import Collector

from tidegate.api import generate
from tidegate.runtime.telemetry import Metrics

PATH: Final = "docs/reference/metrics.md"
HEAD: Final = """\
<!-- Generated from operator/tidegate/runtime by `make generate`. Do not edit. -->
# Metrics of the operator

`/metrics` on port 8080 of each operator pod. What to watch, and the alerts:
[Monitoring](../operations/monitoring.md). A histogram `x` has the series `x_bucket`, `x_sum` and
`x_count`. Beside these stand the metrics of the process and of Python as `prometheus_client` makes
them (`process_...`, `python_info`).
"""


class Metric(NamedTuple):
    """One family: its name as queries write it, its type, its labels, what it tells."""

    name: str
    type: str
    labels: tuple[str, ...]
    about: str


def families(metrics: Metrics) -> Iterator[Metric]:
    """All of them, but those of the process; each ModelDeployment's last."""
    for own in vars(metrics).values():
        if not isinstance(own, Counter | Gauge | Histogram):
            continue
        for family in own.describe():
            yield _metric(family.name, family.type, tuple(own._labelnames), family.documentation)
    fleet: Collector = metrics.fleet
    for family in fleet.collect():
        labels = tuple(getattr(family, "_labelnames", ()))
        yield _metric(family.name, family.type, labels, family.documentation)


def _metric(name: str, type_: str, labels: tuple[str, ...], about: str) -> Metric:
    # The client library leaves out the ending that queries need.
    return Metric(f"{name}_total" if type_ == "counter" else name, type_, labels, about)


def buckets(metrics: Metrics) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Name and bounds in seconds of each histogram."""
    for own in vars(metrics).values():
        if isinstance(own, Histogram):
            name = next(iter(own.describe())).name
            yield name, tuple(b for b in own._upper_bounds if b != float("inf"))


def markdown() -> str:
    """The page."""
    metrics = Metrics()
    found = sorted(families(metrics))
    fleet = {m.name for m in found if "modeldeployment" in m.labels}
    lines = [HEAD, "## The operator", "", *_table(m for m in found if m.name not in fleet), ""]
    lines += [
        "## Each ModelDeployment",
        "",
        "Only the operator that leads shows these.",
        "",
        *_table(m for m in found if m.name in fleet),
        "",
        "## Bounds of the histograms",
        "",
        "| metric | bounds, in seconds |",
        "| --- | --- |",
    ]
    lines += [
        f"| `{name}` | {', '.join(f'{b:,g}' for b in bounds)} |"
        for name, bounds in sorted(buckets(metrics))
    ]
    return "\n".join(lines) + "\n"


def _table(metrics: Iterator[Metric]) -> list[str]:
    lines = ["| metric | type | labels | |", "| --- | --- | --- | --- |"]
    for m in metrics:
        labels = ", ".join(f"`{label}`" for label in m.labels)
        lines.append(f"| `{m.name}` | {m.type} | {labels} | {m.about} |")
    return lines


if __name__ == "__main__":
    sys.exit(generate.main(contents={PATH: markdown()}))
