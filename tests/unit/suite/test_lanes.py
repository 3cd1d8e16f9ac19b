"""Commands side by side: what is printed, and what a failure ends."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.lanes import LEAVES, LaneFailed, side_by_side


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(**commands: list[str]) -> str:
        out = io.StringIO()
        try:
            side_by_side(commands, folder=tmp_path, environment=dict(os.environ), out=out)
        finally:
            (tmp_path / "out").write_text(out.getvalue())
        return out.getvalue()

    return call


def test_each_line_says_whose_it_is(run: Run) -> None:
    said = run(
        one=python("import sys; print('a'); print('b', file=sys.stderr); sys.stdout.write('end')"),
        two=python("print('c')"),
    )
    assert sorted(said.splitlines()) == ["one | a", "one | b", "one | end", "two | c"]
    assert said.endswith("\n")


def test_they_run_at_the_same_time_and_the_first_comes_first(run: Run, tmp_path: Path) -> None:
    """Each waits for the other's file."""
    wait = "import os, pathlib, time\npathlib.Path({0!r}).touch()\n" + (
        "while not pathlib.Path({1!r}).exists(): time.sleep(0.01)\nprint(os.nice(0))"
    )
    said = run(one=python(wait.format("a", "b")), two=python(wait.format("b", "a")))
    found = dict(line.split(" | ") for line in said.splitlines())
    assert int(found["two"]) == min(19, int(found["one"]) + LEAVES)


def test_a_failure_interrupts_the_others_which_put_things_away(run: Run, tmp_path: Path) -> None:
    patient = (
        "import pathlib, time\npathlib.Path('begun').touch()\n"
        "try:\n time.sleep(60)\n pathlib.Path('slept').touch()\n"
        "finally: pathlib.Path('away').touch()"
    )
    hasty = (
        "import pathlib, sys, time\n"
        "while not pathlib.Path('begun').exists(): time.sleep(0.01)\n"
        "time.sleep(0.2)\nprint('no'); sys.exit(3)"
    )
    with pytest.raises(LaneFailed, match=r"two ended with status 3, its last lines:\n  no$"):
        run(one=python(patient), two=python(hasty))
    assert (tmp_path / "away").exists()
    assert not (tmp_path / "slept").exists()
    assert "two | no" in (tmp_path / "out").read_text()
