"""What `tidegate simulate --change` tells: the answer, each decision, what clients got."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from tidegate.cli.picture import three_axes
from tidegate.cli.simulated import aligned, bars, binned, clock_of, header
from tidegate.cli.simulating import Wanted
from tidegate.cli.simulating_rollout import Run
from tidegate.record import Phase
from tidegate.rollout import LIVE, percent
from tidegate.simulation.outcome import Decision, Moment, Outcome
from tidegate.simulation.rollout import Staging
from tidegate.simulation.sidecar import Class

MOST_TEXT: Final = 100
SMALL: Final = 9


def document_of(staging: Staging, runs: Sequence[Run]) -> dict[str, Any]:
    """For ``-o json``."""
    return {
        "name": staging.name,
        "changeSeconds": staging.change_s,
        "faults": [str(fault) for fault in staging.faults],
        "runs": [_run_of(run) for run in runs],
    }


def _run_of(run: Run) -> dict[str, Any]:
    o = run.outcome
    return {
        "seed": run.seed,
        "phase": None if o.phase is None else str(o.phase),
        "reason": o.reason,
        "message": o.message,
        "endedSeconds": _rounded(o.ended_s),
        "doneSeconds": _rounded(o.done_s),
        "firstClientSeconds": _rounded(o.first_s),
        "copies": o.copies,
        "old": _class_of(o.old),
        "new": _class_of(o.new),
        "newUntilEnded": _class_of(o.new_until_ended),
        "noPodReady": o.nowhere,
        "podHours": round(o.gpu_s / 3600, 3),
        "decisions": [
            {
                "seconds": round(d.at_s, 2),
                "phase": str(d.phase),
                "weight": d.weight,
                "mirror": d.mirror,
                "hold": d.hold,
                "message": d.message,
            }
            for d in o.decisions
        ],
        "moments": [
            {
                "seconds": m.at_s,
                "weight": m.weight,
                "old": [m.old.desired, m.old.ready, _rounded(m.old.latency_s, 4)],
                "new": [m.new.desired, m.new.ready, _rounded(m.new.latency_s, 4)],
            }
            for m in o.moments
        ],
    }


def _class_of(counted: Class) -> dict[str, int]:
    return {
        "requests": counted.started,
        "failed": counted.failed,
        "late": counted.late,
    }


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


def text_of(wanted: Wanted, staging: Staging, runs: Sequence[Run]) -> str:
    """For people: the answer, what was decided when, what clients got."""
    first = runs[0].outcome
    faults = "; ".join(map(str, staging.faults)) or "nothing is wrong with it"
    lines = [
        *header(wanted, first.arrived),
        f"the change comes at {clock_of(staging.change_s)}: {faults}",
        "",
        answer_of(staging, first),
    ]
    if first.phase is None:
        return "\n".join(lines)
    lines += ["", *aligned([_row(d) for d in first.decisions], left=(1, 3))]
    rows = [["clients of", "requests", "failed", "late", "until decided: requests", "failed"]]
    before, new = first.old, first.new
    rows.append(["the old version", *_numbers(before), "", ""])
    until = first.new_until_ended
    decided = first.ended_s is not None
    rows.append(
        [
            "the new version",
            *_numbers(new),
            f"{until.started:,}" if decided else "",
            f"{until.failed:,}" if decided else "",
        ]
    )
    if first.nowhere:
        rows.append(["no ready pod", f"{first.nowhere:,}", f"{first.nowhere:,}", "", "", ""])
    lines += ["", *aligned(rows)]
    lines += ["", *_curves(first.moments)]
    if len(runs) > 1:
        lines += ["", *_summary(staging, runs)]
    return "\n".join(line.rstrip() for line in lines)


def answer_of(staging: Staging, o: Outcome) -> str:
    """In a sentence or two: promoted, rolled back, or where it stands at the end of the load."""
    if o.phase is None:
        return "No rollout: the change makes no new revision, it is in force at once."
    if o.ended_s is None:
        last = o.decisions[-1] if o.decisions else None
        why = "" if last is None else f": {last.hold or last.phase}, {last.message}"
        return (
            f"Not decided when the load ends, with {percent(last.weight if last else 0.0)} of the "
            f"requests on the new version{why}"
        )
    after = clock_of(o.ended_s - staging.change_s)
    until = o.new_until_ended
    clients = (
        "no client was sent to it"
        if o.first_s is None
        else f"clients sent it {until.started:,} requests until then, {until.failed:,} failed and "
        f"{until.late:,} were late"
    )
    if o.phase in (Phase.ROLLED_BACK, Phase.SUPERSEDED):
        copies = f" ({o.copies:,} copies)" if o.copies else ""
        return f"{o.phase} {after} after the change; {clients}{copies}. {o.reason}: {o.message}"
    bake = (
        f"; the old pods go at {clock_of(o.done_s)}"
        if o.done_s is not None
        else "; it still bakes when the load ends"
    )
    why = o.message.removeprefix("promoted: ")
    return f"Promoted {after} after the change{bake}; {clients}. Decided by: {why}"


def _row(d: Decision) -> list[str]:
    share = percent(d.weight) + (f", {percent(d.mirror)} copied" if d.mirror else "")
    text = ": ".join(part for part in (d.hold, d.message) if part)
    if d.phase in (Phase.ROLLED_BACK,):
        text = d.message
    if len(text) > MOST_TEXT:
        text = text[: MOST_TEXT - 3].rsplit(" ", 1)[0] + " ..."
    return [clock_of(d.at_s), str(d.phase), share, text]


def _numbers(counted: Class) -> list[str]:
    return [f"{counted.started:,}", f"{counted.failed:,}", f"{counted.late:,}"]


def _curves(moments: Sequence[Moment]) -> list[str]:
    most = max(1, *(max(m.old.desired, m.new.desired) for m in moments))
    return [
        f"new version's share  {bars(binned([m.weight for m in moments]), 1.0)}",
        f"its pods             {bars(binned([float(m.new.desired) for m in moments]), most)}",
        f"the old one's pods   {bars(binned([float(m.old.desired) for m in moments]), most)}",
    ]


def _summary(staging: Staging, runs: Sequence[Run]) -> list[str]:
    """Of several runs: what happened how often, when, and at what cost to clients."""
    lines = [f"{len(runs)} runs, seeds {runs[0].seed} to {runs[-1].seed}:"]
    groups: dict[str, list[Outcome]] = {}
    for run in runs:
        o = run.outcome
        phase = "Undecided" if o.ended_s is None or o.phase is None else str(o.phase)
        if phase in ("Promoted", "Baking"):
            phase = "Promoted"
        groups.setdefault(phase, []).append(o)
    for phase, found in sorted(groups.items(), key=lambda item: -len(item[1])):
        text = f"  {phase} in {len(found)}"
        times = [o.ended_s - staging.change_s for o in found if o.ended_s is not None]
        if times:
            text += (
                f": {clock_of(median(times))} after the change "
                f"({clock_of(min(times))} to {clock_of(max(times))}), "
            )
            failed = [o.new_until_ended.failed for o in found]
            text += f"failed answers {median(failed):g} ({min(failed)} to {max(failed)})"
        else:
            holds = sorted({o.decisions[-1].hold or "no hold" for o in found if o.decisions})
            text += f": {', '.join(holds)}"
        lines.append(text)
    return lines


def draw(staging: Staging, outcome: Outcome, path: Path) -> None:
    """A PNG: the new version's share, replicas and latency of both versions over time.

    Raises:
        Trouble: matplotlib is not installed, or the file cannot be written.
    """
    with three_axes(path, 9) as (top, middle, bottom):
        moments = outcome.moments
        minutes = [m.at_s / 60 for m in moments]
        old, new = "#4c72b0", "#dd8452"
        top.step(minutes, [100 * m.weight for m in moments], where="post", color=new)
        top.fill_between(
            minutes, [100 * m.weight for m in moments], step="post", color=new, alpha=0.25
        )
        copies = [100 * m.mirror for m in moments]
        if any(copies):
            top.step(minutes, copies, where="post", color=new, linestyle=":", label="copied")
            top.legend(frameon=False, fontsize=SMALL)
        top.set_ylabel("to the new version, %")
        top.set_ylim(0, 105)
        _mark(top, outcome)
        for side, colour, name in (("old", old, "old version"), ("new", new, "new version")):
            sides = [getattr(m, side) for m in moments]
            middle.step(minutes, [s.ready for s in sides], where="post", color=colour, label=name)
            middle.step(
                minutes, [s.desired for s in sides], where="post", color=colour, linestyle=":"
            )
            latency = [float("nan") if s.latency_s is None else 1000 * s.latency_s for s in sides]
            bottom.plot(minutes, latency, color=colour)
        middle.set_ylabel("pods: ready, and asked for (dots)")
        middle.set_ylim(bottom=0)
        middle.yaxis.get_major_locator().set_params(integer=True)
        middle.legend(frameon=False, fontsize=SMALL)
        target_ms = 1000 * staging.old.target_s
        bottom.axhline(target_ms, color="#555555", linestyle="--", linewidth=1)
        bottom.text(0.0, target_ms, f" {target_ms:g} ms", va="bottom", fontsize=SMALL)
        bottom.set_ylabel(f"p{100 * staging.old.quantile:g} of 30 s, ms")
        bottom.set_ylim(bottom=0)
        said = "; ".join(map(str, staging.faults))
        top.set_title(f"{staging.name}: {staging.load.name}" + (f", {said}" if said else ""))
        for axis in (top, middle, bottom):
            axis.axvline(staging.change_s / 60, color="#555555", linewidth=1)
            axis.margins(x=0)


def _mark(axis: Any, outcome: Outcome) -> None:
    """What was decided when, above the share."""
    last = ""
    for decision in outcome.decisions:
        word = str(decision.phase)
        if decision.phase in LIVE and decision.hold in ("WorseThanStable", "StableFailing"):
            word = decision.hold
        if word not in (last, "Canary"):
            # To the right of its time; a word that ends the share stands clear of it.
            axis.annotate(
                word,
                (decision.at_s / 60, 102),
                xytext=(2, 0),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=SMALL,
                color="#555555",
            )
        last = word
