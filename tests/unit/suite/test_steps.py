"""Which stages `e2e.suite` runs, in which order, and what a failure ends."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from e2e import lanes, suite
from e2e.cluster import paths, preflight
from e2e.cluster.progress import Progress
from e2e.lanes import LaneFailed
from e2e.suite import StageFailed, rows, run

TEST = ["cluster/check", "e2e/contract,integration", "cluster-down", "integration-alone"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has run so far; of rows side by side their names."""
    found: list[str] = []

    def stage(name: str) -> Any:
        return lambda progress: found.append(name)

    def side_by_side(commands: Mapping[str, Sequence[str]], **_: object) -> None:
        found.append(" beside ".join(commands))
        assert [c[-len(n.split(",")) :] for n, c in commands.items()] == [
            n.split(",") for n in commands
        ]

    monkeypatch.setattr(suite, "STAGES", {name: stage(name) for name in suite.STAGES})
    monkeypatch.setattr(suite, "cluster_down", stage("cluster-down"))
    monkeypatch.setattr(lanes, "side_by_side", side_by_side)
    for part in ("build", "control_plane", "browser"):
        monkeypatch.setattr(preflight, f"for_{part}", lambda progress: None)
    return found


def failing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(progress: Progress) -> None:
        raise StageFailed(name)

    monkeypatch.setitem(suite.STAGES, name, fail)


def test_rows_run_side_by_side(ran: list[str]) -> None:
    run(TEST, Progress())
    assert ran == [
        "cluster beside check",
        "e2e beside contract,integration",
        "cluster-down",
        "integration-alone",
    ]


def test_a_row_alone_runs_here(ran: list[str]) -> None:
    run(["contract", "cluster,e2e"], Progress())
    assert ran == ["contract", "cluster", "e2e"]


def test_a_failure_ends_it_and_takes_the_cluster_down(
    ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "e2e")
    with pytest.raises(StageFailed, match="e2e"):
        run(["check", "cluster", "e2e", "cluster-down", "integration-alone"], Progress())
    assert ran == ["check", "cluster", "cluster-down"]


def test_so_does_a_failing_row(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LaneFailed("contract")

    monkeypatch.setattr(lanes, "side_by_side", fail)
    with pytest.raises(LaneFailed):
        run(TEST, Progress())
    assert ran == ["cluster-down"]


def test_a_cluster_that_was_not_begun_is_not_taken_down(
    ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "check")
    with pytest.raises(StageFailed, match="check"):
        run(["check", *TEST], Progress())
    assert ran == []


@pytest.mark.parametrize("step", ["nothing", "check,nothing", "check/nothing", "", "check,"])
def test_a_stage_that_is_none_is_named(step: str) -> None:
    with pytest.raises(ValueError, match=r"there is no stage '(nothing)?'"):
        rows(step)


def test_the_makefile_asks_for_stages_that_there_are() -> None:
    text = (paths.REPOSITORY / "Makefile").read_text(encoding="utf-8")
    asked = re.findall(r"-m e2e\.suite (.+)", text)
    assert len(asked) >= 8
    assert [rows(step) for line in asked for step in line.split()]
    # Whatever stands alone somewhere is in `make test`, but what takes too long for it.
    (test,) = re.findall(r"^test: .*\n\t.*-m e2e\.suite (.+)", text, re.MULTILINE)
    in_test = {name for step in test.split() for row in rows(step) for name in row}
    assert set(suite.STAGES) - in_test == {
        "integration-clouds",
        "integration-frameworks",
        "e2e-full",
    }
