"""The comparison of autoscaling laws as it is typed: a table, JSON and a picture."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.bench.autoscaling_worlds import LAWS, ORACLE, OURS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


def test_a_quick_comparison_of_all_laws(tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    command = [sys.executable, "-m", "e2e.bench.autoscaling", "--quick", "--parts", "jobs"]
    done = subprocess.run(
        [*command, "--picture", str(picture), "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Held-out jobs, cold start 60 s" in done.stdout
    assert "Tuned for 99 % on the other jobs, each" in done.stdout
    for law in LAWS:
        assert law in done.stdout
    (written,) = tmp_path.glob("autoscaling-*.json")
    runs = json.loads(written.read_text(encoding="utf-8"))["facts"]["runs"]
    assert {run["setting"]["law"] for run in runs} == set(LAWS)
    for law in (OURS, ORACLE):
        reached = [r["in_time"] / r["arrived"] for r in runs if r["setting"]["law"] == law]
        assert max(reached) > 0.99
    assert picture.read_bytes().startswith(b"\x89PNG")
