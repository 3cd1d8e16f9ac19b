"""What may come next on a command line."""

import subprocess
from collections.abc import Iterable

import pytest
import typer

from tidegate.cli.completion import FILES, NO_FILES, SCRIPTS, candidates
from tidegate.cli.main import app

GROUP = typer.main.get_command(app)


def known(parameter: str, given: dict[str, str]) -> Iterable[tuple[str, str]]:
    if parameter == "name":
        space = given.get("namespace", "default")
        return [(f"magika-{space}", "Ready"), (f"ranker-{space}", "Canary")]
    return [("7f3c1a2b9d", ""), ("9ab14c2d3e", "")] if parameter == "revision" else []


@pytest.mark.parametrize(
    ("line", "expected", "directive"),
    [
        ("hist", ["history"], NO_FILES),
        ("get ", ["magika-default", "ranker-default"], NO_FILES),
        ("get mag", ["magika-default"], NO_FILES),
        ("-n lab get ma", ["magika-lab"], NO_FILES),
        ("get --namespace=lab ma", ["magika-lab"], NO_FILES),
        ("get -w ra", ["ranker-default"], NO_FILES),
        ("explain magika 9", ["9ab14c2d3e"], NO_FILES),
        ("get magika ", [], NO_FILES),
        ("get magika -o ", ["json", "yaml", "name", "view"], NO_FILES),
        ("list -o ", ["json", "yaml", "name"], NO_FILES),
        ("--color n", ["never"], NO_FILES),
        ("wait --for re", ["ready"], NO_FILES),
        ("plan -f ", [], FILES),
        ("init ", [], FILES),
        ("golden re", ["record"], NO_FILES),
        ("golden record ma", ["magika-default"], NO_FILES),
        ("get --wat", ["--watch"], NO_FILES),
        ("__comp", [], NO_FILES),
    ],
)
def test_candidates(line: str, expected: list[str], directive: str) -> None:
    *words, incomplete = line.split(" ")
    found, said = candidates(GROUP, words, incomplete, known)
    assert ([text for text, _ in found], said) == (expected, directive)


def test_every_command_but_the_hidden_one_is_offered() -> None:
    found, _ = candidates(GROUP, [], "", known)
    assert {text for text, _ in found} == {
        name
        for name, command in GROUP.commands.items()  # type: ignore[attr-defined]
        if not command.hidden
    }
    assert all(about for _, about in found)


@pytest.mark.parametrize("shell", ["bash", "kubectl"])
def test_the_scripts_are_scripts(shell: str) -> None:
    program = "bash" if shell == "bash" else "sh"
    subprocess.run([program, "-n"], input=SCRIPTS[shell], text=True, check=True)


def test_bash_completes() -> None:
    """The script as bash runs it, with a `tidegate` that answers by itself."""
    script = (
        "tidegate() { printf 'history\\tPast revisions\\n:4\\n'; }\n"
        f"{SCRIPTS['bash']}\n"
        'COMP_WORDS=(tidegate hi); COMP_CWORD=1; _tidegate; echo "${COMPREPLY[*]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "history\n"
