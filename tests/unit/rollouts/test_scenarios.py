"""The table of scenarios is sound, and what was seen of one is told right."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from e2e.load import Request
from e2e.models.faulty.versions import NAMES
from e2e.rollouts.__main__ import read
from e2e.rollouts.scenarios import BY_NAME, SCENARIOS, Outcome, Scenario
from e2e.rollouts.stage import Result, Run, Seen, Stage, _result
from e2e.rollouts.table import page, table
from e2e.tests.space import Space
from tidegate.api.spec import parse

HASH = "abc123"


def stage_of(scenario: Scenario) -> Stage:
    """Without a cluster: nothing is asked of it here."""
    return Stage(Space(None, "nowhere"), scenario, name="plain-1")  # type: ignore[arg-type]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
@pytest.mark.parametrize("canary", [False, True])
def test_each_asks_for_a_valid_spec_and_known_versions(scenario: Scenario, canary: bool) -> None:
    spec = parse(stage_of(scenario).spec("s3://e2e/rollouts/x-1", canary))
    if scenario.steps:
        assert [step.weight for step in spec.rollout.steps] == list(scenario.steps)
    assert {scenario.canary, scenario.stable} <= set(NAMES)


def test_names_are_unique_and_all_of_the_issue_are_there() -> None:
    assert len(BY_NAME) == len(SCENARIOS)
    bad = {s.canary for s in SCENARIOS if s.expected is Outcome.ROLLED_BACK}
    assert bad >= {
        *("fails-all", "fails-20", "fails-5", "fails-2", "error-responses", "refuses-all"),
        *("2x-slower", "1.3x-slower", "slow-tail", "hangs", "leaks", "crashes", "never-ready"),
        *("wrong", "good-until-8"),
    }


def found(**status: Any) -> dict[str, Any]:
    return {"metadata": {"generation": 2}, "status": {"observedGeneration": 2, **status}}


def run_of(name: str = "fails-all") -> Run:
    return Run(stage_of(BY_NAME[name]), BY_NAME[name], seed=1, canary_hash=HASH)


def outcome(run: Run, **status: Any) -> Outcome:
    document = found(**status)
    run._keep(document)
    return run._outcome(document, document["status"], status.get("rollout") or {})


def entry(said: str, time: str, revision: str = HASH) -> dict[str, str]:
    return {"revision": revision, "outcome": said, "time": time, "reason": "why"}


@pytest.mark.parametrize("said", ["Promoted", "RolledBack", "Superseded"])
def test_history_tells_the_outcome_of_this_run_only(said: str) -> None:
    run = run_of()
    run._began = 1_000_000_000.0  # 2001-09-09T01:46:40Z
    new, old = "2001-09-09T01:46:41Z", "2001-09-09T01:46:39Z"
    assert outcome(run, history=[entry(said, new)]) == said
    assert outcome(run, history=[entry(said, old)]) is Outcome.UNDECIDED
    assert outcome(run, history=[entry(said, new, "other")]) is Outcome.UNDECIDED


def test_a_failed_revision_is_rolled_back() -> None:
    failed = {"hash": HASH, "reason": "ErrorRate", "message": "15 of 200 failed"}
    assert outcome(run_of(), revisions={"failed": [failed]}) is Outcome.ROLLED_BACK


def test_held_is_what_stays_so_for_the_expected_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("no-gpu")
    clock = [0.0]
    monkeypatch.setattr(Run, "now_s", property(lambda _: clock[0]))
    waiting = {"rollout": {"phase": "Preparing", "hold": "WaitingForGPU"}}
    other = {"rollout": {"phase": "Preparing", "hold": "CanaryShort"}}
    seen = []
    for at, status in ((0.0, waiting), (4.0, waiting), (4.5, other), (5.5, waiting), (11, waiting)):
        clock[0] = at
        seen.append(outcome(run, **status))
    assert seen == [*[Outcome.UNDECIDED] * 4, Outcome.HELD]


def result(**more: Any) -> Result:
    said = {
        **{"scenario": "fails-all", "outcome": Outcome.ROLLED_BACK, "good": True, "problem": ""},
        **{"explanation": "ErrorRate: 2 of 2 failed | limit 1%", "sent": 500, "failed": 2},
        **{"by_canary": 0, "first_failed_s": 8.0, "last_failed_s": 8.9, "live_s": 7.5},
        **{"decided_s": 9.0, "failed_before": 0, "errors": {}, "seen": ()},
    }
    return Result(**{**said, **more})


def test_the_table_has_one_row_a_scenario_with_medians() -> None:
    rows = table(
        [
            result(),
            result(failed=4, last_failed_s=9.5),
            result(failed=3, last_failed_s=9.0),
            result(scenario="same", outcome=Outcome.PROMOTED, failed=0, first_failed_s=None),
        ]
    ).splitlines()
    assert len(rows) == 4
    cells = [cell.strip() for cell in rows[2].replace("\\|", "/").strip("|").split("|")]
    assert cells == [
        "fails-all",
        "RolledBack, 3 of 3 as expected",
        "3 (2 to 4)",
        "1 (0.9 to 1.5)",
        "9",
        "ErrorRate: 2 of 2 failed / limit 1%",
    ]
    assert rows[3].startswith("| same (mirrored) | Promoted | 0 |  | 9 |")


def test_a_gap_is_told_beside_what_failed() -> None:
    gap = result(scenario="recreate", failed=2026, last_failed_s=40.0, unanswered_s=9.5)
    assert "| 2026 | 32; no answer for 9.5 |" in table([gap])


@pytest.mark.parametrize(
    ("ends", "problem"), [((1.0, 9.0), ""), ((1.0,), "clients are not served again")]
)
def test_after_a_gap_clients_must_be_served_again(
    monkeypatch: pytest.MonkeyPatch, ends: tuple[float, ...], problem: str
) -> None:
    monkeypatch.setattr(Run, "explanation", lambda _: "promoted")
    monkeypatch.setattr(Space, "told", lambda *_: "")
    answered = [Request(at, 0.0, 0.0) for at in ends]
    requests = [*answered, *(Request(2.0 + 0.1 * n, 0.0, 0.0, "503") for n in range(40))]
    found = _result(run_of("recreate"), Outcome.PROMOTED, 9.0, requests)
    assert (found.problem, found.failed) == (problem, 40)
    assert found.unanswered_s == (8.0 if problem == "" else None)


def test_results_of_earlier_runs_are_read_as_they_were(tmp_path: Path) -> None:
    kept = [result(seen=(Seen(1.5, {"phase": "Canary"}),), errors={"503": 2}), result(failed=4)]
    path = tmp_path / "rollouts.json"
    path.write_text(json.dumps({"machine": {}, "results": [asdict(r) for r in kept]}))
    assert read([path, path]) == kept + kept


def test_the_page_says_what_is_not_as_expected() -> None:
    wrong = result(outcome=Outcome.PROMOTED, good=False, problem="Promoted, expected RolledBack")
    assert "Promoted (**Promoted, expected RolledBack**)" in page([wrong])
