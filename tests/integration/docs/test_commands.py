"""kubectl commands in the documentation are known to kubectl itself, and so are their options."""

import subprocess

import pytest

from e2e.documentation import ROOT
from tests.unit.architecture.documented import commands

pytestmark = pytest.mark.integration
KUBECTL = ROOT / ".venv" / "bin" / "kubectl"


def asked_for_help(words: tuple[str, ...]) -> str:
    """What kubectl says against a command and its options; '' for nothing. Nothing is done."""
    # kubectl reads all options before it gives help.
    done = subprocess.run(
        [KUBECTL, *words, "--help"], capture_output=True, text=True, check=False, env={}
    )
    return done.stderr if done.returncode else ""


def test_commands_of_kubectl_are_understood() -> None:
    found = {}
    for page, words, _ in commands():
        if words[0] == "kubectl" and words[1] != "tidegate":
            # One of those that differ in names and values only.
            options = {word.partition("=")[0] for word in words if word.startswith("-")}
            found[words[1], *sorted(options)] = (page, words[1:])
    assert len(found) > 20
    wrong = {
        f"{page}: kubectl {' '.join(words)}": said
        for page, words in found.values()
        if (said := asked_for_help(words))
    }
    assert wrong == {}


@pytest.mark.parametrize("line", ["get mdep --wach", "gett mdep", "wait mdep/x --fro=ready"])
def test_a_wrong_one_is_found(line: str) -> None:
    assert asked_for_help(tuple(line.split()))
