"""The reference of the commands, ``docs/reference/command-line.md``, made from typer's own help.

``python -m tidegate.cli.reference`` writes it, ``--check`` compares.
"""

import sys
from collections.abc import Iterator
from typing import Any, Final

import typer

from tidegate.api import generate
from tidegate.cli.main import app

PATH: Final = "docs/reference/command-line.md"
HEAD: Final = """\
<!-- Generated from operator/tidegate/cli by `make generate`. Do not edit. -->
# Commands

What they are for, with examples: [The command line](../guide/command-line.md). `kubectl tidegate`
and `tidegate` are the same.
"""


def markdown() -> str:
    """The page."""
    group: Any = typer.main.get_command(app)
    root = typer.Context(group, info_name="tidegate")
    common = _options(group, root)
    lines = [HEAD, "## Options of all commands", "", *_table(common), ""]
    lines += ["They stand before the command, and most of them after it as well.", ""]
    lines += [_plain(group.epilog), ""]
    panels: dict[str, list[str]] = {}
    for top in (c for c in group.commands.values() if not c.hidden):
        for command, context in _commands(top, typer.Context(top, info_name=top.name, parent=root)):
            panels.setdefault(top.rich_help_panel, []).extend(_section(command, context, common))
    for panel, sections in panels.items():
        lines += [f"## {panel}", "", *sections]
    return "\n".join(lines).rstrip() + "\n"


def _commands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """The commands that do something: itself or those below it; with contexts that name them."""
    below = getattr(command, "commands", {})
    if not below:
        yield command, context
    for name, inner in below.items():
        yield from _commands(inner, typer.Context(inner, info_name=name, parent=context))


def _section(command: Any, context: Any, common: list[tuple[str, str]]) -> list[str]:
    usage = [piece.strip("{}").upper() for piece in command.collect_usage_pieces(context)]
    lines = [f"### {context.command_path}", "", "```text"]
    lines += [" ".join([context.command_path, *usage]), "```", ""]
    paragraphs = (_plain(part) for part in (command.help or "").split("\n\n"))
    lines += [line for part in paragraphs for line in (part, "")]
    own = [row for row in _options(command, context) if row not in common]
    return [*lines, *_table(own), ""] if own else lines


def _options(command: Any, context: Any) -> list[tuple[str, str]]:
    """How each argument and option is written, and what it is for."""
    records = (p.get_help_record(context) for p in command.params)
    return [(record[0], record[1]) for record in records if record]


def _table(rows: list[tuple[str, str]]) -> list[str]:
    head = ["| argument or option | |", "| --- | --- |"]
    return [*head, *(f"| `{_cell(syntax)}` | {_plain(about)} |" for syntax, about in rows)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(text: str) -> str:
    """Text in one line that Markdown takes as it stands."""
    return _cell(" ".join(text.split())).replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    sys.exit(generate.main(contents={PATH: markdown()}))
