"""docs/examples/release.sh: from a model to promoted, with the programs it starts written down."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.unit.architecture.test_commands import complaint

SCRIPT = Path(__file__).parents[3] / "docs/examples/release.sh"
GIVEN = {
    "MODEL": "clf.joblib",
    "DATA": "digits.npz",
    "SLO": "p99=50ms",
    "NAME": "digits",
    "STORE": "s3://models/digits",
}


def release(
    folder: Path, *, fails: str = "", code: int = 0, given: dict[str, str] = GIVEN
) -> tuple[int, list[list[str]]]:
    """Its status, and what it started; a program whose words hold `fails` ends with `code`."""
    for name in ("tidegate", "kubectl"):
        program = folder / name
        program.write_text(
            f'#!/bin/sh\necho {name} "$@" >> {folder}/started\n'
            f'case "$*" in {fails or "nothing"}*) exit {code};; esac\n'
        )
        program.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **given}
    done = subprocess.run(["sh", str(SCRIPT)], env=environment, capture_output=True, check=False)
    started = folder / "started"
    lines = started.read_text().splitlines() if started.exists() else []
    return done.returncode, [shlex.split(line) for line in lines]


def test_prepared_applied_and_waited_for(tmp_path: Path) -> None:
    code, started = release(tmp_path)
    assert code == 0
    assert [words[:2] for words in started] == [
        ["tidegate", "prepare"],
        ["kubectl", "apply"],
        ["kubectl", "apply"],
        ["kubectl", "tidegate"],
    ]
    # What golden requests a version must answer is there before the version.
    assert started[1][-1] == "prepared/manifests/golden.yaml"
    assert complaint(tuple(started[0][1:]), whole=True) == ""
    assert complaint(tuple(started[3][2:]), whole=True) == ""


@pytest.mark.parametrize("code", [3, 4])
def test_it_ends_as_the_wait_does_and_explains(tmp_path: Path, code: int) -> None:
    found, started = release(tmp_path, fails='"tidegate wait"', code=code)
    assert found == code
    assert started[-1] == ["kubectl", "tidegate", "explain", "digits"]


def test_nothing_is_applied_when_preparing_fails(tmp_path: Path) -> None:
    code, started = release(tmp_path, fails="prepare", code=1)
    assert code == 1
    assert [words[0] for words in started] == ["tidegate"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    code, started = release(tmp_path, given={k: v for k, v in GIVEN.items() if k != "SLO"})
    assert code != 0
    assert started == []
