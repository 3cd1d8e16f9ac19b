"""What `tidegate simulate` tells of its results: a table, bars, JSON, a picture."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tidegate.api.spec import ScalingMode
from tidegate.cli.picture import three_axes
from tidegate.cli.simulating import Result, Wanted, one_pod_holds
from tidegate.simulation.world import Outcome

BARS: Final = "▁▂▃▄▅▆▇█"
WIDTH: Final = 60


def document_of(wanted: Wanted, results: Sequence[Result]) -> dict[str, Any]:
    """For ``-o json``."""
    return {
        "name": wanted.name,
        "requests": results[0].outcome.arrived,
        "seconds": wanted.load.duration_s,
        "capacityPerPod": round(one_pod_holds(wanted), 2),
        "laws": [
            {
                "law": each.law,
                "attainment": round(each.outcome.attainment, 6),
                "late": each.outcome.late,
                "refused": each.outcome.refused,
                "failed": each.outcome.failed,
                "gpuHours": round(gpu_hours(wanted, each.outcome), 3),
                **(
                    {}
                    if wanted.gpu_price is None
                    else {"cost": round(gpu_hours(wanted, each.outcome) * wanted.gpu_price, 2)}
                ),
                "changes": each.outcome.ups + each.outcome.downs,
                **(
                    {"set": {s.field: {"from": s.before, "to": s.value} for s in each.settings}}
                    if each.settings
                    else {}
                ),
                "replicas": [[m.at_s, m.desired, m.ready] for m in each.outcome.moments],
            }
            for each in results
        ],
    }


def gpu_hours(wanted: Wanted, outcome: Outcome) -> float:
    """Of all pods; of a model without a GPU, pod hours."""
    return outcome.gpu_s / 3600 * max(1, wanted.gpus)


def text_of(wanted: Wanted, results: Sequence[Result]) -> str:
    """For people: what was asked, a table, and how replicas followed the load."""
    model, load = wanted.model, wanted.load
    first = results[0].outcome
    lines = [*header(wanted, first.arrived), ""]
    unit = "GPU hours" if wanted.gpus else "pod hours"
    head = ["", "in time", "late", "refused", unit, "replicas", "changes"]
    if wanted.gpu_price is not None:
        head.insert(5, "cost")
    rows = [head]
    for each in results:
        o = each.outcome
        counts = [m.desired for m in o.moments]
        row = [
            each.law,
            f"{100 * o.attainment:.2f} %",
            f"{o.late:,}",
            f"{o.refused + o.failed:,}",
            f"{gpu_hours(wanted, o):.2f}",
            f"{min(counts)} to {max(counts)}",
            f"{o.ups + o.downs}",
        ]
        if wanted.gpu_price is not None:
            row.insert(5, f"{gpu_hours(wanted, o) * wanted.gpu_price:.2f}")
        rows.append(row)
    lines += aligned(rows)
    lines.append("")
    label = max(len(each.law) for each in results)
    rates = binned([load.rate(m.at_s - 1e-6) for m in first.moments])
    most_pods = max(max(m.desired for m in each.outcome.moments) for each in results)
    lines.append(f"{'requests/s':{label}}  {bars(rates, max(rates))}  {max(rates):.3g}")
    for each in results:
        pods = binned([float(m.desired) for m in each.outcome.moments])
        lines.append(f"{each.law:{label}}  {bars(pods, most_pods)}  {max(pods):.0f}")
        missed = _missed(each.outcome)
        if max(missed) > 0.0:
            lines.append(f"{'  missed':{label}}  {bars(missed, 1.0)}  {100 * max(missed):.0f} %")
    if results[0].outcome.attainment < model.quantile:
        lines += ["", _advice(wanted, results[0].outcome)]
    for each in results:
        if each.settings:
            lines += ["", _beside(wanted, results[0].outcome, each)]
    return "\n".join(lines)


def header(wanted: Wanted, arrived: int) -> list[str]:
    """What was asked: the load, the objective, one pod."""
    model, load = wanted.model, wanted.load
    seconds = load.duration_s
    length = f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min"
    batch = "a request" if model.max_batch == 1 else f"a batch of n (at most {model.max_batch})"
    time = (
        f"{wanted.alpha_ms:g} + {wanted.beta_ms:g} n ms"
        if wanted.beta_ms
        else (f"{wanted.alpha_ms:g} ms")
    )
    return [
        f"{wanted.name}: {arrived:,} requests in {length}, {arrived / seconds:.3g} a "
        f"second, {max(load.rates):.3g} at most; "
        f"{100 * model.quantile:g} % are to be answered within {model.target_ms:g} ms",
        f"one pod: {time} for {batch}, holds {one_pod_holds(wanted):.3g} a second; starts in "
        f"{wanted.cold_start_s:g} s",
    ]


def _beside(wanted: Wanted, manifest: Outcome, tried: Result) -> str:
    """What other settings give beside the manifest as it is."""
    hours = [gpu_hours(wanted, one) for one in (tried.outcome, manifest)]
    unit = "GPU hours" if wanted.gpus else "pod hours"
    more = f" ({100 * (hours[0] / hours[1] - 1):+.0f} %)" if hours[1] else ""
    told = ", ".join(map(str, tried.settings))
    note = ""
    if any(s.field.startswith("slo.") for s in tried.settings):
        note = "; each is held to its own objective"
    return (
        f"as set ({told}): {100 * tried.outcome.attainment:.2f} % in time instead of "
        f"{100 * manifest.attainment:.2f} %, {hours[0]:.2f} {unit} instead of {hours[1]:.2f}"
        f"{more}{note}"
    )


def _advice(wanted: Wanted, outcome: Outcome) -> str:
    most = wanted.spec.scaling.max_replicas
    if max(m.desired for m in outcome.moments) >= most and wanted.spec.scaling_mode is (
        ScalingMode.SLO
    ):
        return f"the SLO is missed, and maxReplicas ({most}) was reached: raise it"
    return (
        f"the SLO is missed: pods take {wanted.cold_start_s:g} s to start; a higher minReplicas "
        "or scaling.headroom bridges that, a model cache shortens it"
    )


def clock_of(seconds: float) -> str:
    """Minutes and seconds, as 12:05."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Cells in columns, to the right but for some columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def binned(values: Sequence[float]) -> list[float]:
    """At most `WIDTH` values; the highest of each bin."""
    n = min(WIDTH, len(values))
    cut = [len(values) * i // n for i in range(n + 1)]
    return [max(values[a:b]) for a, b in pairwise(cut)]


def _missed(outcome: Outcome) -> list[float]:
    moments = outcome.moments
    n = min(WIDTH, len(moments))
    cut = [len(moments) * i // n for i in range(n + 1)]
    shares = []
    for a, b in pairwise(cut):
        arrived = sum(m.arrived for m in moments[a:b])
        shares.append(min(1.0, sum(m.missed for m in moments[a:b]) / arrived) if arrived else 0.0)
    return shares


def bars(values: Sequence[float], most: float) -> str:
    """A line of bars; blank where there is nothing."""
    if most <= 0.0:
        return BARS[0] * len(values)
    top = len(BARS) - 1
    return "".join(
        " " if v <= 0.0 else BARS[max(0, min(top, math.ceil(v / most * (top + 1)) - 1))]
        for v in values
    )


def draw(wanted: Wanted, results: Sequence[Result], path: Path) -> None:
    """The same as a PNG: load, replicas and missed requests over time.

    Raises:
        Trouble: matplotlib is not installed, or the file cannot be written.
    """
    with three_axes(path, 8) as (top, middle, bottom):
        moments = results[0].outcome.moments
        minutes = [m.at_s / 60 for m in moments]
        top.plot(minutes, [wanted.load.rate(m.at_s - 1e-6) for m in moments], color="#555555")
        top.set_ylabel("requests/s")
        top.set_title(f"{wanted.name}: {wanted.load.name}")
        for each in results:
            o = each.outcome
            minutes = [m.at_s / 60 for m in o.moments]
            label = f"{each.law}: {100 * o.attainment:.2f} %, {gpu_hours(wanted, o):.2f} h"
            (line,) = middle.step(
                minutes, [m.desired for m in o.moments], where="post", label=label
            )
            missed = _missed(o)
            width = minutes[-1] / len(missed)
            bottom.plot(
                [(i + 0.5) * width for i in range(len(missed))],
                [100 * m for m in missed],
                color=line.get_color(),
            )
        middle.set_ylabel("replicas")
        middle.set_ylim(bottom=0)
        middle.legend(frameon=False, fontsize=9)
        bottom.set_ylabel("not in time, %")
