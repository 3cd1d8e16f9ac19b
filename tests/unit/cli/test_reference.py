"""The generated reference of the commands."""

import re
from typing import Any

import typer

from tidegate.api import generate
from tidegate.cli import reference
from tidegate.cli.main import app


def leaves(command: Any, path: str) -> list[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    return [
        found
        for name, inner in below.items()
        if not inner.hidden
        for found in leaves(inner, f"{path} {name}")
    ] or [(path, command)]


def test_the_page_is_up_to_date() -> None:
    assert generate.stale(contents={reference.PATH: reference.markdown()}) == [], (
        "run `make generate`"
    )


def test_every_command_and_every_option_is_on_the_page() -> None:
    text = reference.markdown()
    commands = leaves(typer.main.get_command(app), "tidegate")
    assert {path for path, _ in commands} >= {"tidegate get", "tidegate golden record"}
    for path, command in commands:
        assert text.count(f"### {path}\n") == 1
        section = text.partition("# Commands")[2].partition(f"### {path}\n")[2].partition("\n#")[0]
        common = text.partition("## Options of all commands")[2].partition("\n##")[0]
        for parameter in command.params:
            written = parameter.opts if parameter.param_type_name == "option" else [parameter.name]
            for text_ in written:
                row = rf"^\| `[^`]*{re.escape(text_)}[ ,`]"
                assert re.search(row, section + common, re.MULTILINE), (path, text_)


def test_hidden_commands_are_left_out() -> None:
    assert "__complete" not in reference.markdown()


def test_no_cell_breaks_its_table() -> None:
    for line in reference.markdown().splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") == 3, line
