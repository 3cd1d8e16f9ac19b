"""Documents as text for a terminal. Pure: documents in, renderables out."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from io import StringIO
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tidegate.api import names
from tidegate.cli import facts
from tidegate.cli.facts import Document, Tone

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


def deployment(document: Document, pods: Iterable[Document], now: datetime) -> RenderableType:
    """The tree of ``get``.

    Args:
        document: the ModelDeployment.
        pods: its pods; none where they may not be read.
        now: UTC.
    """
    meta, found = document["metadata"], facts.state(document)
    title = Text.assemble(
        (meta["name"], "bold"),
        (f"  in {meta.get('namespace')}  ", Tone.FAINT),
        (found.word, f"bold {found.tone}"),
    )
    tree = Tree(title, guide_style=Tone.FAINT)
    by_revision: dict[str, list[Document]] = {}
    for pod in pods:
        label = (pod["metadata"].get("labels") or {}).get(names.REVISION_LABEL, "")
        by_revision.setdefault(label, []).append(pod)
    if facts.rollout(document):
        _rollout(tree, document, now)
    for role, tone in (("stable", Tone.GOOD), ("canary", Tone.BUSY)):
        one = facts.revision(document, role)
        if one:
            branch = tree.add(_revision(document, role, tone))
            if one.get("message"):
                branch.add(Text(f"{one.get('reason')}: {one['message']}", Tone.HOLD))
            _pods(branch, by_revision.pop(one.get("hash") or "", []), now)
    for one in facts.failed(document):
        ago = facts.since(one.get("time"), now)
        branch = tree.add(
            Text.assemble(
                ("failed  ", Tone.BAD),
                (one.get("hash") or "", "bold"),
                f"  {one.get('reason')}" + (f", {ago} ago" if ago else ""),
            )
        )
        if one.get("message"):
            branch.add(Text(one["message"]))
        _pods(branch, by_revision.pop(one.get("hash") or "", []), now)
    _others(tree, by_revision, now)
    _conditions(tree, document)
    if url := facts.status(document).get("url"):
        tree.add(Text.assemble(("url  ", Tone.FAINT), str(url)))
    if not facts.status(document):
        tree.add(Text("the operator has not looked at it yet", Tone.FAINT))
    return tree


def _rollout(tree: Tree, document: Document, now: datetime) -> None:
    found = facts.rollout(document)
    phase = str(found.get("phase"))
    parts = [phase, facts.step(document)]
    if facts.rolling(document):
        weight = found.get("weight")
        parts.append(f"{weight} of the traffic" if weight not in (None, "0%") else "")
        parts.append(f"{found['mirror']} mirrored" if found.get("mirror") else "")
    if age := facts.since(found.get("since"), now):
        parts.append(f"for {age}")
    began = found.get("started") if found.get("started") != found.get("since") else None
    if facts.rolling(document) and (age := facts.since(began, now)):
        parts.append(f"began {age} ago")
    tone = {"Promoted": Tone.GOOD, "RolledBack": Tone.BAD}.get(phase, Tone.BUSY)
    branch = tree.add(
        Text.assemble(("rollout  ", Tone.FAINT), (", ".join(p for p in parts if p), tone))
    )
    message = str(found.get("message") or "")
    if found.get("hold") and facts.rolling(document):
        colon = ": " if message else ""
        branch.add(Text(f"holds, {found['hold']}{colon}{message}", Tone.HOLD))
    elif message:
        branch.add(Text(message))
    evidence = found.get("evidence") or {}
    waits = [w for w in (facts.needs(document), facts.next_decision(document, now)) if w]
    if facts.rolling(document) and waits:
        branch.add(Text.assemble(("next decision  ", Tone.FAINT), "; ".join(waits)))
    if evidence and (facts.rolling(document) or facts.tests(document)):
        branch.add(_evidence(document))


def _evidence(document: Document) -> RenderableType:
    """Bars: requests towards the next step up, and each test's evidence towards going back."""
    evidence = facts.rollout(document)["evidence"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column()
    requests, more = evidence.get("requests") or 0, evidence.get("requestsNeeded")
    if facts.rolling(document):
        good = evidence.get("verdict") == "Good"
        part = 1.0 if good else requests / (requests + more) if requests and more else 0.0
        text = f"{requests:,} of {requests + more:,} requests" if more else f"{requests:,} requests"
        word = {"NotYet": "not yet", "Good": "good", "Bad": "bad"}.get(str(evidence.get("verdict")))
        grid.add_row("forward", Bar(part, Tone.GOOD), f"{text}{f': {word}' if word else ''}")
    for test in facts.tests(document):
        tone = {"Bad": Tone.BAD, "Worse": Tone.HOLD}.get(str(test.get("verdict")), "")
        got, needed = facts.figure(test.get("evidence")), facts.figure(test.get("needed"))
        grid.add_row(
            Text(str(test.get("test")), tone),
            Bar(facts.towards(test), Tone.HOLD if tone == Tone.HOLD else Tone.BAD),
            Text.assemble(
                (facts.sentence(test, facts.target(document)), tone),
                (f"; evidence {got} of {needed}", Tone.FAINT),
            ),
        )
    legend = "evidence  towards the next step, and, test by test, towards going back"
    return Group(Text(legend, Tone.FAINT), grid)


def _revision(document: Document, role: str, tone: str) -> Text:
    one = facts.revision(document, role)
    ready, pods = one.get("readyReplicas") or 0, one.get("replicas") or 0
    traffic = facts.share(document, one.get("hash") or "")
    text = Text.assemble(
        (f"{role}  ", tone),
        (one.get("hash") or "", "bold"),
        "  ",
        (f"{ready}/{pods} pods ready", Tone.HOLD if ready < pods or not pods else ""),
    )
    if "weight" in traffic:
        observed = traffic.get("observedShare")
        text.append(f"  weight {traffic['weight']}%")
        text.append(f", observed {observed}" if observed else "")
    if one.get("state") not in (None, "Ready"):
        text.append(f"  {one['state']}", Tone.HOLD)
    if one.get("source"):
        text.append(f"  {one['source']}", Tone.FAINT)
    return text


def _pods(branch: Tree, pods: Sequence[Document], now: datetime) -> None:
    # Those that need attention first.
    ordered = sorted(pods, key=lambda p: (pod_state(p)[1] == Tone.GOOD, p["metadata"]["name"]))
    for pod in ordered[:MAX_PODS]:
        word, tone = pod_state(pod)
        restarts = sum(
            c.get("restartCount") or 0
            for key in ("initContainerStatuses", "containerStatuses")
            for c in (pod.get("status") or {}).get(key) or ()
        )
        age = facts.since(pod["metadata"].get("creationTimestamp"), now)
        text = Text.assemble(
            ("pod  ", Tone.FAINT), pod["metadata"]["name"], "  ", (word, tone), f"  {age}"
        )
        if restarts:
            text.append(f"  {restarts} restarts", Tone.HOLD)
        branch.add(text)
    if len(ordered) > MAX_PODS:
        branch.add(Text(f"and {len(ordered) - MAX_PODS} more pods", Tone.FAINT))


def pod_state(pod: Document) -> tuple[str, str]:
    """A pod in a word, and its style."""
    found = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating", Tone.FAINT
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in found.get("conditions") or ()
    )
    if ready:
        labels = pod["metadata"].get("labels") or {}
        if labels.get(names.SERVING_LABEL) != "true":
            return "OutOfService", Tone.HOLD
        return "Ready", Tone.GOOD
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in found.get(key) or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason")
            if reason and reason not in ("PodInitializing", "ContainerCreating"):
                return str(reason), Tone.BAD
    for entry in found.get("conditions") or ():
        if entry.get("type") == "PodScheduled" and entry.get("status") == "False":
            return str(entry.get("reason") or "Unscheduled"), Tone.HOLD
    return ("NotReady" if found.get("phase") == "Running" else str(found.get("phase"))), Tone.HOLD


def _others(tree: Tree, by_revision: dict[str, list[Document]], now: datetime) -> None:
    for hash_, pods in sorted(by_revision.items()):
        if pods:
            branch = tree.add(Text.assemble(("leaving  ", Tone.FAINT), (hash_, "bold")))
            _pods(branch, pods, now)


def _conditions(tree: Tree, document: Document) -> None:
    said = facts.rollout(document).get("message")
    for one in facts.concerns(document):
        text = Text.assemble(
            ("condition  ", Tone.FAINT),
            (f"{one.get('type')}={one.get('status')}", Tone.HOLD),
            f" {one.get('reason')}",
        )
        if one.get("message") and one["message"] != said:
            text.append(f": {one['message']}")
        tree.add(text)


# list, history


def listing(documents: Sequence[Document], now: datetime, *, namespaces: bool) -> RenderableType:
    """The table of ``list``; with a column for the namespace where several are shown."""
    columns = ["NAME", "STATE", "STABLE", "CANARY", "WEIGHT", "STEP", "PODS", "AGE"]
    rows = []
    for one in sorted(
        documents, key=lambda d: (d["metadata"].get("namespace") or "", d["metadata"]["name"])
    ):
        found, rollout = facts.state(one), facts.rollout(one)
        under_way = facts.rolling(one)
        status = facts.status(one)
        row: list[str | Text] = [
            one["metadata"]["name"],
            Text(found.word, found.tone),
            facts.revision(one, "stable").get("hash") or "-",
            facts.revision(one, "canary").get("hash") or "-",
            (rollout.get("weight") or "-") if under_way else "-",
            facts.step(one).removeprefix("step ").replace(" of ", "/") or "-",
            f"{status.get('readyReplicas') or 0}/{status.get('replicas') or 0}",
            facts.since(one["metadata"].get("creationTimestamp"), now),
        ]
        rows.append([one["metadata"].get("namespace") or "", *row] if namespaces else row)
    return _table((["NAMESPACE"] if namespaces else []) + columns, rows)


def history(document: Document, now: datetime) -> RenderableType:
    """The table of ``history``, newest first."""
    serving = facts.revision(document, "stable").get("hash")
    rows: list[list[str | Text]] = []
    for one in facts.status(document).get("history") or ():
        outcome = str(one.get("outcome"))
        tone = {"RolledBack": Tone.BAD, "Promoted": Tone.GOOD, "Live": Tone.GOOD}.get(outcome, "")
        ago = facts.since(one.get("time"), now)
        rows.append(
            [
                str(one.get("revision")) + (" *" if one.get("revision") == serving else ""),
                Text(outcome, tone),
                f"{ago} ago" if ago else "-",
                str(one.get("reason") or ""),
            ]
        )
    return _table(["REVISION", "OUTCOME", "WHEN", "WHY"], rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column not in ("WHY",))
    for row in rows:
        table.add_row(*row)
    return table
