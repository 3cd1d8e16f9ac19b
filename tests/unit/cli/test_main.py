"""The commands as they are typed; how they meet an API server is tests/contract's."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tidegate.cli import deciding, main, waiting
from tidegate.cli.trouble import Exit
from tidegate.verbs import Verb


def test_every_verb_is_a_command() -> None:
    group: Any = typer.main.get_command(main.app)
    names = set(group.commands)
    assert names >= set(Verb)
    assert names - set(Verb) >= {"get", "list", "explain", "history", "logs", "wait"}


def test_the_goals_are_those_of_waiting() -> None:
    assert [g.value for g in deciding.Goal] == [g.value for g in waiting.Goal]


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explian", "magika"], "no such command 'explian'; did you mean explain or plan?"),
        (["golden", "recrd"], "no such command 'recrd'; did you mean record?"),
        (["xyzzy"], "no such command 'xyzzy'; see tidegate --help"),
        (
            ["list", "--contxt", "a"],
            "no such option: --contxt; did you mean --context or --output?",
        ),
        (["get"], "missing argument 'name'; see tidegate get --help"),
        (
            ["get", "a", "b"],
            "got unexpected extra argument(s) (b); see tidegate get --help",
        ),
        (
            ["wait", "magika", "--for", "x"],
            "invalid value for '--for': 'x' is not one of 'promoted', 'ready', 'available'; "
            "see tidegate wait --help",
        ),
        (["get", "-n"], "option '-n' requires an argument; see tidegate --help"),
    ],
)
def test_wrong_usage_is_one_line_too(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert ended.value.code == Exit.USAGE
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {said}\n")


@pytest.mark.parametrize("arguments", [[], ["golden"]])
def test_a_group_alone_shows_its_help(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert ended.value.code == Exit.USAGE
    assert "Usage: " in "".join(capsys.readouterr())


def test_what_is_no_misuse_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(main, "app", broken)
    with pytest.raises(KeyError):
        main.main([])
