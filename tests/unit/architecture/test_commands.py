"""Commands in the documentation can be typed: programs, verbs, options and values exist."""

import json
import re
import tomllib
from functools import cache
from itertools import pairwise
from typing import Any, Final

import pytest
import typer
from typer.exceptions import TyperException

from tests.unit.architecture.documented import Command, commands, split, typed
from tests.unit.architecture.test_tree import ROOT
from tidegate.cli.main import app

NOT_HELD: Final = {
    # Programs that are not ours, and of no command of which a test knows.
    *("cp", "curl", "echo", "export", "find", "git", "grep", "head", "jq", "npm", "openssl"),
    *("sha256sum", "skopeo", "sort", "tar", "xargs"),
}
HELD: Final = {
    # kubectl's own options: tests/integration/docs. Modules and targets: test_docs. sh runs
    # docs/examples/release.sh: tests/unit/cli. What model_signing writes: tests/unit/fetch.
    *("kubectl", "helm", "make", "pip", "tidegate", ".venv/bin/python", "sh", "model_signing"),
}
HELM: Final = {
    # Helm is here as a library, without its command line: what its manual says.
    "install": {"--namespace", "-n", "--create-namespace", "-f", "--set", "--wait", "--timeout"},
    "upgrade": {"--namespace", "-n", "-f", "--set", "--reuse-values", "--wait", "--timeout"},
    "rollback": {"--namespace", "-n", "--wait", "--timeout"},
    "uninstall": {"--namespace", "-n"},
    "template": {"--namespace", "-n", "-f", "--set"},
    "test": {"--namespace", "-n"},
}
FOREIGN_CHARTS: Final = {"./chart"}
"""Of the reader's own."""


def own() -> list[Command]:
    """The commands of Tidegate's command line, without the program's name."""
    found = []
    for command in commands():
        for name in (("kubectl", "tidegate"), ("tidegate",)):
            if command.words[: len(name)] == name:
                found.append(command._replace(words=command.words[len(name) :]))
    return found


@cache
def group() -> Any:
    """All commands of Tidegate's command line."""
    return typer.main.get_command(app)


def complaint(words: tuple[str, ...], *, whole: bool) -> str:
    """What the command line itself would say against these words; '' for nothing."""
    command, context, name, rest = group(), None, "tidegate", list(words)
    try:
        while below := getattr(command, "commands", {}):
            context = typer.Context(command, info_name=name, parent=context)
            if not rest:
                return ""
            name, *rest = rest
            if name not in below:
                return f"no command {name}"
            command = below[name]
        command.make_context(name, rest, parent=context)
    except TyperException as error:
        left_out = type(error).__name__ in ("MissingParameter", "BadOptionUsage")
        return "" if left_out and not whole else f"{type(error).__name__}: {error}"
    except typer.Exit:
        return ""
    return ""


def test_commands_of_our_own_are_understood() -> None:
    found = own()
    assert len(found) > 60
    wrong = [
        f"{page}: tidegate {' '.join(words)}: {said}"
        for page, words, whole in found
        if (said := complaint(words, whole=whole))
    ]
    assert wrong == []


def test_every_command_of_our_own_is_told_of() -> None:
    page = (ROOT / "docs/guide/command-line.md").read_text(encoding="utf-8")
    names = {name for name, command in group().commands.items() if not command.hidden}
    shown = {c.words[0] for c in own() if c.words}
    untold = {n for n in names - shown if not re.search(rf"`[^`]*\b{n}\b", page)}
    assert untold == set(), "show it in a guide"


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("tidegate gett magika", True),
        ("tidegate get magika --wach", True),
        ("tidegate get magika --wach", False),
        ("tidegate get", True),
        ("tidegate get magika -o xml", False),
        ("tidegate golden recrod magika", True),
    ],
)
def test_a_wrong_one_is_found(line: str, whole: bool) -> None:
    (words,) = split(line)
    assert complaint(words[1:], whole=whole)


def test_lines_are_split_as_a_shell_does() -> None:
    text = (
        "```console\n$ a 'b c' | d > e && f \\\n    --g   # h\nsaid\n```\n"
        "```sh\ni -p '[\n  1]'\nj &\n```\n```text\n$ k\n```\n"
    )
    assert [w for line in typed(text) for w in split(line)] == [
        *(("a", "b c"), ("d",), ("f", "--g")),
        *(("i", "-p", "[\n  1]"), ("j",)),
    ]


def test_every_program_is_known() -> None:
    programs = {c.words[0] for c in commands() if c.whole}
    assert programs - HELD - NOT_HELD == set(), "hold its commands by a test, or say that none does"
    assert {"kubectl", "helm", "make", "tidegate"} <= programs


def test_commands_of_helm_are_understood() -> None:
    found = [c for c in commands() if c.words[0] == "helm"]
    assert len(found) > 8
    for page, (_, verb, *words), _ in found:
        options = {w.partition("=")[0] for w in words if w.startswith("-")}
        assert options <= HELM[verb], (page, verb)
        for word in words:
            if "/" in word and not word.startswith("-"):
                assert word in FOREIGN_CHARTS or (ROOT / word / "Chart.yaml").exists(), (page, word)
        for option, value in pairwise(words):
            if option == "--set":
                assert schema_of(value.partition("=")[0]) is not None, (page, value)


def test_what_is_installed_is_this_project() -> None:
    """It is on no index: somebody else's project of that name would be."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(tomllib.loads(text)["project"]["optional-dependencies"])
    found = [c for c in commands() if c.words[0] == "pip"]
    assert len(found) >= 3
    for page, words, _ in found:
        (what,) = (w for w in words[2:] if "[" in w)
        name, wanted = re.fullmatch(r"(\.|tidegate)\[([\w,-]+)\]", what, re.ASCII).groups()  # type: ignore[union-attr]
        assert name == "." or "--no-index" in words, (page, what)
        assert set(wanted.split(",")) <= extras, (page, what)


def schema_of(path: str) -> Any:
    """The schema of one of the chart's values; None where there is no such value."""
    text = (ROOT / "helm/tidegate/values.schema.json").read_text(encoding="utf-8")
    node: Any = json.loads(text)
    for part in path.split("."):
        node = node.get("properties", {}).get(part)
        if node is None:
            return None
    return node


def test_a_wrong_value_is_found() -> None:
    assert schema_of("dashboard.enabled") is not None
    assert schema_of("dashboard.enbled") is None


def test_files_of_ours_that_commands_name_exist() -> None:
    missing = [
        f"{page}: {word}"
        for page, words, _ in commands()
        for word in words
        if re.match(r"(crds|docs|helm|install\.yaml)(/|$)", word) and not (ROOT / word).exists()
    ]
    assert missing == []
