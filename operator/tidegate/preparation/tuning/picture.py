"""Latency against throughput, as a picture."""

import io
from collections.abc import Sequence

from tidegate.preparation.errors import PreparationError
from tidegate.preparation.tuning.search import Held, Objective, Stretch

Point = tuple[float, float]
"""Requests a second, milliseconds."""


def draw(
    objective: Objective,
    best: Held,
    curve: Sequence[Stretch],
    others: Sequence[Held],
    modelled: Sequence[Point],
) -> bytes:
    """A PNG.

    Args:
        objective: its line is drawn.
        best: the setting that was taken.
        curve: stretches of that setting.
        others: other settings that were measured.
        modelled: what the capacity model expects of it, the objective's quantile.

    Raises:
        PreparationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise PreparationError(
            "there is no picture without matplotlib: pip install matplotlib"
        ) from None
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for held in others:
        points = _p99(held.stretches)
        axes.plot(*_columns(points), "o", color="#bbbbbb", markersize=4)
    ordered = sorted(curve, key=lambda s: s.rate_per_s)
    points = _p99(ordered)
    axes.plot(*_columns(points), "o-", color="#0b6e99", label=f"p99, {best.setting}")
    halves = [(s.rate_per_s, s.p50_ms) for s in ordered if s.p50_ms is not None]
    axes.plot(*_columns(halves), "o-", color="#74b3ce", label="p50")
    if modelled:
        label = f"p{100 * objective.quantile:g} by the capacity model"
        axes.plot(*_columns(modelled), "--", color="#444444", linewidth=1, label=label)
    axes.axhline(objective.target_ms, color="#c0392b", linewidth=1, label=f"SLO {objective}")
    if best.rate_per_s:
        axes.axvline(best.rate_per_s, color="#c0392b", linewidth=0.7, linestyle=":")
    axes.set_ylim(0, 3 * objective.target_ms)
    axes.set_xlim(left=0)
    axes.set_xlabel("requests a second (Poisson arrivals)")
    axes.set_ylabel("latency from when a request was due, ms")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _p99(stretches: Sequence[Stretch]) -> list[Point]:
    return [(s.rate_per_s, s.p99_ms) for s in stretches if s.p99_ms is not None]


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
