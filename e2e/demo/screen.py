"""What the demo shows: a live view on a terminal, plain lines elsewhere, a picture of both."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from e2e.demo.story import Act, Tally
from tidegate.cli import render
from tidegate.view.facts import Tone

WIDTH: Final = 112
"""Of the picture, in characters."""
_TONES: Final = {"v1": "green", "v2": "cyan", "v3": "magenta", "v4": "yellow"}


def client_line(act: Tally, lately: Tally, seconds: float) -> RenderableType:
    """What the client sees: the act so far, and who answered in the last seconds.

    Args:
        act: since the act began.
        lately: of the last seconds.
        seconds: how many these are.
    """
    head = Text.assemble(
        ("client  ", Tone.FAINT),
        f"{lately.sent / seconds:.0f} requests/s, this act {act.sent:,} sent, ",
        (f"{act.failed:,} failed", Tone.BAD if act.failed else Tone.GOOD),
    )
    if lately.p50_ms is not None and lately.p99_ms is not None:
        head.append(f", p50 {lately.p50_ms:.0f} ms, p99 {lately.p99_ms:.0f} ms")
    answers = sum(count for name, count in lately.by.items() if name)
    if not answers:
        return head
    grid = Table.grid(padding=(0, 1))
    parts: list[RenderableType] = [Text(f"answers of the last {seconds:.0f} s:", Tone.FAINT)]
    for name, count in sorted(lately.by.items()):
        if name:
            tone = _TONES.get(name, "")
            parts += [
                Text(f" {name}", tone),
                render.Bar(count / answers, tone),
                Text(f"{100 * count / answers:.0f} %"),
            ]
    grid.add_row(*parts)
    return Group(head, Padding(grid, (0, 0, 0, 8)))


def tree(view: Mapping[str, Any]) -> RenderableType:
    """The tree of ``kubectl tidegate get -w``."""
    return render.deployment(view, datetime.now(UTC))


class Screen:
    """Tells the story, and keeps what a picture of it needs.

    Args:
        console: where it is told.
        live: whether there is a view that moves; otherwise lines only.

    Attributes:
        told: what a picture shows, in order.
    """

    def __init__(self, console: Console, *, live: bool) -> None:
        self.console = console
        self.told: list[RenderableType] = []
        self._moves = live
        self._live: Live | None = None

    def say(self, *what: RenderableType, pictured: bool = True) -> None:
        """Print for good, above what moves."""
        for one in what:
            self.console.print(one)
        if pictured:
            self.told += what

    def note(self, text: str) -> None:
        """A remark that a picture does without."""
        self.console.print(Text(text, Tone.FAINT))

    @contextmanager
    def act(self, act: Act, of: int) -> Iterator[None]:
        """The time of an act: its title, then what moves, then what stays."""
        title = Text.assemble((f"Act {act.number} of {of}  ", Tone.FAINT), (act.title, "bold"))
        self.say(Text(""), Rule(title, align="left", style=Tone.FAINT), Text(act.told, Tone.FAINT))
        if not self._moves:
            yield
            return
        with Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            vertical_overflow="ellipsis",
        ) as self._live:
            try:
                yield
            finally:
                self._live.update(Text(""))
                self._live = None

    def beat(self, at_s: float, text: str, tally: Tally | None = None) -> None:
        """One thing that happened, with what the client had counted by then."""
        line = Text.assemble((f"{at_s:6.1f} s  ", Tone.FAINT), f"{text:<44}")
        if tally is not None and tally.sent:
            line.append(f"  client: {tally}", Tone.FAINT)
        self.say(line)

    def show(self, *what: RenderableType) -> None:
        """Move the view on."""
        if self._live is not None:
            self._live.update(Group(Text(""), *what), refresh=True)

    def keep(self, *what: RenderableType, pictured: bool = True) -> None:
        """A moment of the view that stays to be seen."""
        self.say(Padding(Group(*what), (1, 0, 1, 4)), pictured=pictured)

    def results(self, lines: Sequence[str], wrong: Sequence[str]) -> None:
        """How an act ended."""
        good = not wrong
        grid = Table.grid(padding=(0, 1))
        for line in lines:
            grid.add_row(Text("  ✓" if good else "  -", Tone.GOOD if good else ""), Text(line))
        for line in wrong:
            grid.add_row(Text("  ✗", Tone.BAD), Text(f"not as told: {line}", f"bold {Tone.BAD}"))
        self.say(grid)


_FONT: Final = re.compile(r"@font-face\s*\{.*?\}|<!--.*?-->", re.DOTALL)
"""Fonts of another server, and the address of the program that drew it."""


def svg(told: Sequence[RenderableType], title: str) -> str:
    """A picture of a terminal with that on it, which asks nothing of any other server."""
    console = Console(
        record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    for one in told:
        console.print(one)
    drawn = _FONT.sub("", console.export_svg(title=title, unique_id="tidegate-demo"))
    # For those who do not see it, and for a browser's tab.
    named = drawn.replace(">", f"><title>{escape(title)} in a terminal</title>", 1)
    return "".join(f"{line.rstrip()}\n" for line in named.splitlines())


def record(told: Sequence[RenderableType], title: str, path: Path) -> None:
    """Write that picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg(told, title))
