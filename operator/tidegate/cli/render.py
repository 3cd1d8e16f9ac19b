"""Views as text for a terminal. Pure: what `tidegate.view` says in, renderables out."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from io import StringIO
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tidegate.view import Explanation, facts
from tidegate.view.facts import Tone
from tidegate.view.reasons import NOBODY_LOOKS

BAR_WIDTH: Final = 12
MAX_PODS: Final = 8
"""Of one revision; the rest is counted."""
PLAIN_WIDTH: Final = 10_000
"""Lines that nobody looks at on a terminal are not broken."""


class Bar:
    """How far something is, as a bar of fixed width."""

    def __init__(self, fraction: float, tone: str) -> None:
        self.fraction = min(1.0, max(0.0, fraction))
        self.tone = tone

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Blocks; signs of ASCII where the terminal knows no others."""
        full, empty = ("#", "-") if options.ascii_only else ("█", "░")
        done = int(self.fraction * BAR_WIDTH + 0.5)
        if 0 < self.fraction < 1:
            done = min(max(done, 1), BAR_WIDTH - 1)  # neither nothing nor all
        yield Segment(full * done, Style.parse(self.tone))
        yield Segment(empty * (BAR_WIDTH - done), Style.parse(Tone.FAINT))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Always the same width."""
        return Measurement(BAR_WIDTH, BAR_WIDTH)


def natural_width(renderable: RenderableType, console: Console) -> int:
    """The width at which nothing is cut off."""
    options = console.options.update(max_width=PLAIN_WIDTH)
    return Measurement.get(console, options, renderable).maximum


def plain(renderable: RenderableType, *, width: int = PLAIN_WIDTH) -> str:
    """As plain text, without trailing blanks."""
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


# get

STYLES: Final = {meaning: style for style, meaning in facts.MEANING.items()} | {"": ""}
"""How a tone is drawn."""


def deployment(view: Mapping[str, Any], now: datetime) -> RenderableType:
    """The tree of ``get``.

    Args:
        view: from `tidegate.view.document`.
        now: UTC.
    """
    title = Text.assemble(
        (view["name"], "bold"),
        (f"  in {view['namespace']}  ", Tone.FAINT),
        (view["state"]["word"], f"bold {STYLES[view['state']['tone']]}"),
    )
    tree = Tree(title, guide_style=Tone.FAINT)
    if view["rollout"]:
        _rollout(tree, view, now)
    for one in view["revisions"]:
        _revision(tree, one, now)
    _measured(tree, view)
    _quality(tree, view["quality"])
    _conditions(tree, view)
    if view["url"]:
        tree.add(Text.assemble(("url  ", Tone.FAINT), view["url"]))
    if not view["current"]:
        what = "it" if view["state"]["word"] == "New" else "the changed spec"
        tree.add(Text(f"the operator has not looked at {what} yet; {NOBODY_LOOKS}", Tone.FAINT))
    return tree


def _rollout(tree: Tree, view: Mapping[str, Any], now: datetime) -> None:
    found, rolling = view["rollout"], view["rolling"]
    phase = found["phase"]
    parts = [phase, found["step"]]
    if rolling:
        parts.append(
            f"{found['weight']} of the traffic" if found["weight"] not in ("", "0%") else ""
        )
        parts.append(f"{found['mirror']} mirrored" if found["mirror"] else "")
    if age := facts.since(found["since"], now):
        parts.append(f"for {age}")
    began = found["started"] if found["started"] != found["since"] else None
    if rolling and (age := facts.since(began, now)):
        parts.append(f"began {age} ago")
    tone = {"Promoted": Tone.GOOD, "RolledBack": Tone.BAD}.get(phase, Tone.BUSY)
    branch = tree.add(
        Text.assemble(("rollout  ", Tone.FAINT), (", ".join(p for p in parts if p), tone))
    )
    message = found["message"]
    if found["hold"] and rolling:
        colon = ": " if message else ""
        branch.add(Text(f"holds, {found['hold']}{colon}{message}", Tone.HOLD))
    elif message:
        branch.add(Text(message))
    if found["next"]["text"]:
        branch.add(Text.assemble(("next decision  ", Tone.FAINT), found["next"]["text"]))
    if found["forward"] or found["tests"]:
        branch.add(_evidence(found))


def _evidence(rollout: Mapping[str, Any]) -> RenderableType:
    """Bars: requests towards the next step up, and each test's evidence towards going back."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column()
    if forward := rollout["forward"]:
        requests, more = forward["requests"], forward["needed"]
        text = f"{requests:,} of {requests + more:,} requests" if more else f"{requests:,} requests"
        word = {"NotYet": "not yet", "Good": "good", "Bad": "bad"}.get(forward["verdict"])
        text += f": {word}" if word else ""
        grid.add_row("forward", Bar(forward["fraction"], Tone.GOOD), text)
    for test in rollout["tests"]:
        tone = STYLES[test["tone"]]
        grid.add_row(
            Text(test["test"], tone),
            Bar(test["fraction"], Tone.HOLD if tone == Tone.HOLD else Tone.BAD),
            Text.assemble(
                (test["sentence"], tone),
                (f"; evidence {test['evidence']} of {test['needed']}", Tone.FAINT),
                (f"; {test['clusters']}" if test["clusters"] else "", Tone.FAINT),
            ),
        )
    legend = "evidence  towards the next step, and, test by test, towards going back"
    return Group(Text(legend, Tone.FAINT), grid)


_ROLES: Final = {
    "stable": Tone.GOOD,
    "canary": Tone.BUSY,
    "failed": Tone.BAD,
    "leaving": Tone.FAINT,
}


def _revision(tree: Tree, one: Mapping[str, Any], now: datetime) -> None:
    text = Text.assemble((f"{one['role']}  ", _ROLES[one["role"]]), (one["hash"], "bold"))
    if one["role"] == "failed":
        ago = facts.since(one["time"], now)
        text.append(f"  {one['reason']}" + (f", {ago} ago" if ago else ""))
    elif one["role"] != "leaving":
        ready, there = one["ready"], one["there"]
        text.append("  ")
        text.append(f"{ready}/{there} pods ready", Tone.HOLD if ready < there or not there else "")
        if one["weight"] is not None:
            text.append(f"  weight {one['weight']}%")
            text.append(f", observed {one['observedShare']}" if one["observedShare"] else "")
        if one["state"] not in ("", "Ready"):
            text.append(f"  {one['state']}", Tone.HOLD)
        if one["source"]:
            text.append(f"  {one['source']}", Tone.FAINT)
    branch = tree.add(text)
    if one["message"]:
        failed = one["role"] == "failed"
        words = one["message"] if failed else f"{one['reason']}: {one['message']}"
        branch.add(Text(words, "" if failed else Tone.HOLD))
    _pods(branch, one["pods"])


def _pods(branch: Tree, pods: Sequence[Mapping[str, Any]]) -> None:
    # Those that need attention first.
    ordered = sorted(pods, key=lambda p: (p["tone"] == "good", p["name"]))
    for pod in ordered[:MAX_PODS]:
        age = "" if pod["ageSeconds"] is None else facts.span(pod["ageSeconds"])
        text = Text.assemble(
            ("pod  ", Tone.FAINT), pod["name"], "  ", (pod["word"], STYLES[pod["tone"]]), f"  {age}"
        )
        if pod["restarts"]:
            text.append(f"  {pod['restarts']} restarts", Tone.HOLD)
        if pod["coldStart"] and pod["tone"] != "good":
            steps = [f"{s['phase']} {facts.span(s['seconds'])}" for s in pod["coldStart"]]
            text.append(f"  {', '.join(steps)}", Tone.FAINT)
        branch.add(text)
    if len(ordered) > MAX_PODS:
        branch.add(Text(f"and {len(ordered) - MAX_PODS} more pods", Tone.FAINT))


def _measured(tree: Tree, view: Mapping[str, Any]) -> None:
    """What is measured against what is promised; nothing where nothing measures."""
    slo, scaling = view["slo"], view["scaling"]
    parts = []
    if slo["latency"] and not slo["latency"].startswith("-/"):
        parts.append(f"p{100 * (facts.number(slo['latencyQuantile']) or 0):g} {slo['latency']}")
    if slo["errorRate"] and not slo["errorRate"].startswith("-/"):
        parts.append(f"errors {slo['errorRate']}")
    if parts:
        window = f" over {slo['window']}" if slo["window"] else ""
        tone = {"True": Tone.GOOD, "False": Tone.BAD}.get(slo["met"], "")
        tree.add(Text.assemble(("slo  ", Tone.FAINT), (", ".join(parts), tone), window))
    if scaling.get("requiredReplicas") is not None:
        words = f"{scaling['requiredReplicas']} replicas required, {scaling.get('desired')} asked"
        for key, name in (("arrivalRate", "arrivals"), ("capacityPerPod", "a pod carries")):
            words += f", {name} {scaling[key]}" if scaling.get(key) else ""
        tree.add(Text.assemble(("scaling  ", Tone.FAINT), words))


_MET: Final = {"True": Tone.GOOD, "False": Tone.BAD}


def _quality(tree: Tree, quality: Mapping[str, Any]) -> None:
    """How good the answers are; nothing where nobody asks."""
    golden = quality["golden"]
    if golden["met"]:
        word = {"True": "as expected", "False": "wrong"}.get(golden["met"], "not known yet")
        text = Text.assemble(("golden requests  ", Tone.FAINT), (word, _MET.get(golden["met"], "")))
        tree.add(text.append(f", {golden['message']}" if golden["met"] == "True" else ""))
    for one in quality["revisions"]:
        words = [
            f"{name} {one[key]}"
            for key, name in (("accuracy", "accuracy"), ("shift", "shift"))
            if one[key]
        ]
        tree.add(
            Text.assemble(
                ("quality  ", Tone.FAINT), (one["revision"], "bold"), f"  {'; '.join(words)}"
            )
        )


def _conditions(tree: Tree, view: Mapping[str, Any]) -> None:
    for one in view["concerns"]:
        text = Text.assemble(
            ("condition  ", Tone.FAINT),
            (f"{one.get('type')}={one.get('status')}", Tone.HOLD),
            f" {one.get('reason')}",
        )
        if one.get("message") and one["message"] != view["message"]:
            text.append(f": {one['message']}")
        tree.add(text)


# explain


def explanation(found: Explanation) -> RenderableType:
    """The page of ``explain``."""
    parts: list[RenderableType] = [Text(found.head)]
    if found.revision:
        parts = [
            Text.assemble(
                "Revision ",
                (found.revision, "bold"),
                " ",
                (found.verb, f"bold {found.tone}"),
                f"{found.rest}.",
            )
        ]
    parts += [Padding(Text(line), (0, 0, 0, 2)) for line in found.lines]
    if found.mends:
        parts.append(Text("What you can do:"))
        parts += [Padding(Text(f"- {mend}"), (0, 0, 0, 2)) for mend in found.mends]
    parts += [Text(line, Tone.FAINT) for line in found.evidence]
    return Group(*parts)


# list, history


def listing(
    summaries: Sequence[Mapping[str, Any]], now: datetime, *, namespaces: bool
) -> RenderableType:
    """The table of ``list``, from `tidegate.view.summary`; with the namespace where asked."""
    columns = ["NAME", "STATE", "STABLE", "CANARY", "WEIGHT", "STEP", "PODS", "AGE"]
    rows = []
    for one in sorted(summaries, key=lambda s: (s["namespace"], s["name"])):
        row: list[str | Text] = [
            one["name"],
            Text(one["state"]["word"], STYLES[one["state"]["tone"]]),
            one["stable"] or "-",
            one["canary"] or "-",
            one["weight"] or "-",
            one["step"] or "-",
            f"{one['pods']['ready']}/{one['pods']['there']}",
            facts.since(one["created"], now),
        ]
        rows.append([one["namespace"], *row] if namespaces else row)
    return table((["NAMESPACE"] if namespaces else []) + columns, rows)


def history(past: Sequence[Mapping[str, Any]], now: datetime) -> RenderableType:
    """The table of ``history``, newest first, from the document's ``history``."""
    rows: list[list[str | Text]] = []
    for one in past:
        ago = facts.since(one["time"], now)
        rows.append(
            [
                one["revision"] + (" *" if one["serving"] else ""),
                Text(one["outcome"], "" if one["tone"] == "faint" else STYLES[one["tone"]]),
                f"{ago} ago" if ago else "-",
                one["reason"],
            ]
        )
    return table(["REVISION", "OUTCOME", "WHEN", "WHY"], rows)


def timeline(told: Sequence[Mapping[str, Any]], now: datetime) -> RenderableType:
    """The table of ``history --events``, from `tidegate.view.timeline`."""
    rows: list[list[str | Text]] = []
    for one in told:
        ago = facts.since(one["time"], now)
        tone = "" if one["tone"] == "faint" else STYLES[one["tone"]]
        rows.append([f"{ago} ago" if ago else "-", Text(one["what"], tone), one["why"]])
    return table(["WHEN", "WHAT", "WHY"], rows)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without lines; only the column WHY may be broken."""
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        found.add_column(column, no_wrap=column not in ("WHY",))
    for row in rows:
        found.add_row(*row)
    return found
