"""The demo's story: what is counted, what an act must come to, and when it did not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.demo.story import (
    ACTS,
    FAILED,
    SCALING,
    VERSIONS,
    Act,
    Between,
    Tally,
    answered_by,
    chosen,
    differences,
    judged_by,
    late_percent,
    outcome,
    revision_of,
    since,
    stage,
)
from e2e.load import Request


def answer(by: str, at_s: float = 0.0, took_s: float = 0.01) -> Request:
    return Request(at_s, 0.0, took_s, answer={"label": "python", "served_by": by}, status="200")


def failure(error: str, at_s: float = 0.0) -> Request:
    return Request(at_s, 0.0, 0.01, error=error, status="500")


def test_the_client_counts_answers_and_failures_by_version() -> None:
    tally = Tally.of(
        [
            *(answer("v1", took_s=0.010 * (n + 1)) for n in range(3)),
            answer("v2", took_s=0.2),
            failure("500 {'error': 'v4: request 7 fails'}"),
            failure("TimeoutError()"),
        ]
    )
    assert (tally.sent, tally.failed) == (6, 2)
    assert dict(tally.by) == {"v1": 3, "v2": 1}
    assert dict(tally.failed_by) == {"v4": 1, "": 1}
    assert tally.p99_ms is not None
    assert tally.p50_ms is not None
    assert 10 <= tally.p50_ms <= tally.p99_ms <= 200
    assert dict(tally.errors) == {"TimeoutError()": 1}
    assert str(tally) == "6 requests, 2 failed; v1 3, v2 1"


def test_nothing_counted_has_no_latency() -> None:
    assert Tally.of([]) == Tally()
    assert Tally.of([failure("x")]).p99_ms is None


@given(st.lists(st.sampled_from(["v1", "v2", "v3", "", "!"]), max_size=50))
def test_every_request_is_counted_once(kinds: list[str]) -> None:
    tally = Tally.of([failure("x") if kind == "!" else answer(kind) for kind in kinds])
    assert tally.sent == len(kinds)
    assert sum(tally.by.values()) + tally.failed == tally.sent
    assert sum(tally.failed_by.values()) == tally.failed


def test_the_last_seconds_are_of_answers_that_came_in_them() -> None:
    requests = [answer("v1", at_s=float(n), took_s=2.0) for n in range(5)]
    assert [r.at_s for r in since(requests, 5.0)] == [3.0, 4.0]
    assert since(requests, 9.0) == []


@pytest.mark.parametrize(
    ("requests", "late"),
    [
        ([answer("", at_s=s / 4) for s in range(8)], 0.0),
        ([answer("", at_s=s / 4, took_s=0.5 if s == 0 else 0.1) for s in range(8)], 12.5),
        ([failure("x"), *[answer("", at_s=s / 4) for s in range(1, 8)]], 12.5),
        ([answer("", at_s=s / 4) for s in range(6)], 25.0),  # two are not answered
        ([answer("", at_s=2 + s / 4) for s in range(8)], 100.0),  # of another time
    ],
)
def test_late_is_what_missed_the_objective_or_has_no_answer(
    requests: list[Request], late: float
) -> None:
    assert late_percent(requests, 0.0, 2.0, rate_hz=4.0, target_ms=400) == late


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "text"),
    [
        (Between(1), (1, 1000), (0,), "at least 1"),
        (Between(0, 0), (0,), (1,), "0"),
        (Between(1, 25), (1, 25), (0, 26), "1 to 25"),
    ],
)
def test_bounds(
    bounds: Between, inside: tuple[int, ...], outside: tuple[int, ...], text: str
) -> None:
    assert all(bounds.holds(value) for value in inside)
    assert not any(bounds.holds(value) for value in outside)
    assert str(bounds) == text


def good(act: Act) -> dict[str, float]:
    """Figures with which an act goes as told."""
    return {name: bounds.least for name, bounds in act.expected.items()}


@pytest.mark.parametrize("act", ACTS, ids=lambda act: f"act-{act.number}")
def test_an_act_goes_as_told_or_says_what_differed(act: Act) -> None:
    figures = good(act)
    assert differences(act, act.outcome, figures) == []
    for name, bounds in act.expected.items():
        wrong = -1.0 if bounds.most is None else bounds.most + 1
        [said] = differences(act, act.outcome, figures | {name: wrong})
        assert said == f"{name}: {wrong:g}, expected {bounds}"
        # A figure that nobody took is not one that is well.
        [said] = differences(act, act.outcome, {k: v for k, v in figures.items() if k != name})
        assert "not counted" in said
    if act.outcome:
        [said] = differences(act, "", figures)
        assert said == f"{act.version} was to be {act.outcome}, it is undecided"


def test_a_client_that_sees_a_failure_spoils_the_act_of_the_mirror() -> None:
    act = ACTS[2]
    assert act.mirror
    figures = {**good(act), FAILED: 1.0, answered_by("v3"): 2.0}
    assert differences(act, "RolledBack", figures) == [
        "failed responses: 1, expected 0",
        "answers by v3: 2, expected 0",
    ]


def test_the_acts_are_in_order_and_name_versions_that_there_are() -> None:
    assert [act.number for act in ACTS] == list(range(1, len(ACTS) + 1))
    assert {act.version for act in ACTS} - {""} == set(VERSIONS)
    assert all(version.fault.says == name for name, version in VERSIONS.items())
    # In acts 3 and 4 the same fault meets clients or does not: the mirror makes the difference.
    assert VERSIONS["v3"].fault.fail_share == VERSIONS["v4"].fault.fail_share > 0
    assert (ACTS[2].mirror, ACTS[3].mirror) == (True, False)


@pytest.mark.parametrize(
    ("numbers", "quick", "found"),
    [
        ([], False, [1, 2, 3, 4, 5]),
        ([], True, [1, 2, 3, 4]),
        ([4, 2], False, [2, 4]),
        ([SCALING], False, [SCALING]),
    ],
)
def test_chosen_acts(numbers: list[int], quick: bool, found: list[int]) -> None:
    assert [act.number for act in chosen(numbers, quick=quick)] == found


def test_an_act_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no act 9; there are 1 to 5"):
        chosen([2, 9], quick=False)


STATUS: dict[str, Any] = {
    "revisions": {
        "stable": {"hash": "aaa", "source": "s3://m/v2"},
        "canary": {"hash": "bbb", "source": "s3://m/v3"},
        "failed": [{"hash": "ccc"}],
    },
    "history": [
        {"revision": "aaa", "outcome": "Promoted"},
        {"revision": "ccc", "outcome": "RolledBack"},
    ],
}


def test_what_became_of_a_version_is_read_from_status() -> None:
    assert revision_of(STATUS, "s3://m/v2") == "aaa"
    assert revision_of(STATUS, "s3://m/v3") == "bbb"
    assert revision_of(STATUS, "s3://m/v9") == revision_of({}, "s3://m/v9") == ""
    assert outcome(STATUS, "aaa") == "Promoted"
    assert outcome(STATUS, "bbb") == ""
    assert outcome(STATUS, "ccc") == "RolledBack"
    assert outcome(STATUS, "") == outcome({}, "aaa") == ""


@pytest.mark.parametrize(
    ("evidence", "requests"),
    [
        ("errors: 9/17 (53%) against 1%; e-value 1.2e+04, needed 5e+03", 17),
        ("", 0),
        (None, 0),
    ],
)
def test_by_how_many_requests_it_was_judged(evidence: str | None, requests: int) -> None:
    assert judged_by({"hash": "ccc", "evidence": evidence}) == requests


def view(**rollout: str) -> dict[str, Any]:
    found = {"phase": "", "step": "", "weight": "", "mirror": "", "hold": "", **rollout}
    return {"rollout": found, "current": True, "rolling": rollout.get("phase") != "RolledBack"}


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (view(phase="Mirroring", mirror="100%", weight="0%"), "Mirroring, 100% mirrored"),
        (
            view(phase="Canary", step="step 1 of 3", weight="5%"),
            "Canary, step 1 of 3, 5% of the traffic",
        ),
        (view(phase="Preparing", hold="WaitingForGPU"), "Preparing, held: WaitingForGPU"),
        (
            view(phase="Mirroring", mirror="100%", hold="NeedsMoreRequests"),
            "Mirroring, 100% mirrored",
        ),
        (view(phase="RolledBack", weight="0%", hold="RolledBack"), "RolledBack"),
        ({**view(phase="Canary"), "current": False}, ""),
        ({"rollout": {}, "current": True, "rolling": False}, ""),
    ],
)
def test_where_a_rollout_stands(seen: dict[str, Any], text: str) -> None:
    assert stage(seen) == text
