"""Which failed tests are tried again, and what is said of them."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from e2e.second_try import MOST, TESTS_FAILED, run

LATE = """
import pathlib
def test_late():
    seen = pathlib.Path("seen")
    again = seen.exists()
    seen.touch()
    assert again
def test_well():
    with pathlib.Path("well").open("a") as sink:
        sink.write("x")
"""


def tried(folder: Path, text: str, alone: Sequence[str] = ()) -> tuple[int, list[str]]:
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "test_it.py"]
    return run(command, alone=alone, folder=folder, environment=dict(os.environ))


def test_what_passes_alone_is_named_and_what_had_passed_is_not_run_again(tmp_path: Path) -> None:
    assert tried(tmp_path, LATE) == (0, ["test_it.py::test_late"])
    assert (tmp_path / "well").read_text() == "x"
    assert not (tmp_path / ".pytest_cache").exists()


def test_what_fails_again_has_failed(tmp_path: Path) -> None:
    text = "def test_no():\n    open('n', 'a').write('x')\n    assert False\n"
    assert tried(tmp_path, text) == (TESTS_FAILED, [])
    assert (tmp_path / "n").read_text() == "xx"


@pytest.mark.parametrize(
    ("text", "status", "times"),
    [
        pytest.param(
            "import pytest\n"
            f"@pytest.mark.parametrize('n', range({MOST + 1}))\n"
            "def test_no(n):\n    open('n', 'a').write('x')\n    assert False\n",
            TESTS_FAILED,
            MOST + 1,
            id="too many",
        ),
        pytest.param("open('n', 'a').write('x')\n1 / 0\n", 2, 1, id="not collected"),
        pytest.param("open('n', 'a').write('x')\n", 5, 1, id="no tests"),
    ],
)
def test_there_is_no_second_try(tmp_path: Path, text: str, status: int, times: int) -> None:
    assert tried(tmp_path, text) == (status, [])
    assert (tmp_path / "n").read_text() == "x" * times
