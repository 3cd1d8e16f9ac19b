"""The commands as they are typed; how they meet an API server is tests/contract's."""

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tidegate.cli import main, waiting
from tidegate.verbs import Verb


def test_every_verb_is_a_command() -> None:
    names = {
        c.name or (c.callback.__name__ if c.callback else "") for c in main.app.registered_commands
    }
    assert names >= set(Verb)
    assert names - set(Verb) >= {"get", "list", "explain", "history", "logs", "wait"}


def test_the_goals_are_those_of_waiting() -> None:
    assert [g.value for g in main.Goal] == [g.value for g in waiting.Goal]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], *([v, "--help"] for v in Verb)])
def test_help(arguments: list[str]) -> None:
    done = CliRunner().invoke(main.app, arguments)
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_version() -> None:
    assert CliRunner().invoke(main.app, ["--version"]).output.startswith("tidegate ")


def test_both_names_are_installed() -> None:
    scripts = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["tidegate"] == scripts["kubectl-tidegate"] == "tidegate.cli.main:main"
