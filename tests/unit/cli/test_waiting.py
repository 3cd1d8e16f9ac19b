"""`wait`: which documents end it, with which code, and how it bears a bad API server."""

from collections.abc import Iterator

import pytest

from tests.unit.cli import documents as d
from tidegate.cli import waiting
from tidegate.cli.client import ApiError, Unreachable
from tidegate.cli.trouble import Exit, Trouble
from tidegate.cli.waiting import Goal

REACHED, FAILED = Exit.REACHED, Exit.FAILED


@pytest.mark.parametrize(
    ("name", "available", "ready", "promoted"),
    [
        ("new", None, None, None),
        ("outdated", None, None, None),
        ("first", None, None, None),
        ("steady", REACHED, REACHED, REACHED),
        ("step", REACHED, None, None),
        ("needs-more", REACHED, None, None),
        ("paused", REACHED, None, None),
        ("baking", REACHED, None, None),
        ("rolled-back", REACHED, FAILED, FAILED),
        ("superseded", REACHED, REACHED, REACHED),
        ("stalled", FAILED, FAILED, FAILED),
    ],
)
def test_outcomes(
    name: str, available: Exit | None, ready: Exit | None, promoted: Exit | None
) -> None:
    found = [
        waiting.outcome(d.ALL[name], goal)[0]
        for goal in (Goal.AVAILABLE, Goal.READY, Goal.PROMOTED)
    ]
    assert found == [available, ready, promoted]


def test_ready_within_the_bake_is_not_promoted_yet() -> None:
    baking = d.rolling("Baking", weight=100)
    conditions = baking["status"]["conditions"]
    conditions[1] = d.condition("Ready", "True", "Ready")
    assert waiting.outcome(baking, Goal.READY)[0] is REACHED
    assert waiting.outcome(baking, Goal.PROMOTED)[0] is None


def test_after_a_revert_what_serves_is_what_was_asked_for() -> None:
    reverted = d.deployment({**d.ROLLED_BACK["status"], "conditions": d.conditions()})
    assert reverted["status"]["rollout"]["phase"] == "RolledBack"
    assert [waiting.outcome(reverted, goal)[0] for goal in Goal] == [REACHED] * 3


def test_the_words() -> None:
    assert waiting.outcome(d.STEADY, Goal.PROMOTED)[1] == (
        f"magika is promoted: revision {d.STABLE}"
    )
    assert waiting.outcome(d.ROLLED_BACK, Goal.READY)[1] == (
        "magika was rolled back: RolledBack: 15 of 200 requests failed (7.5 %), the limit is 1 %"
    )
    assert waiting.progress(d.NEEDS_MORE) == "Canary, step 2 of 4, 5%, holds: NeedsMoreRequests"
    assert waiting.progress(d.FIRST) == "Preparing; Available=Loading"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(
    answers: list[d.Document | Trouble], timeout_s: float = 60.0
) -> tuple[Exit, str, list[str], float]:
    """Wait for promotion; the last answer comes for ever."""
    clock, told = Clock(), list[str]()
    rest: Iterator[d.Document | Trouble] = iter(answers)
    last = answers[-1]

    def look() -> d.Document:
        answer = next(rest, last)
        if isinstance(answer, Trouble):
            raise answer
        return answer

    code, text = waiting.wait(
        look,
        lambda document: waiting.outcome(document, Goal.PROMOTED),
        timeout_s=timeout_s,
        tell=told.append,
        clock=clock,
        sleep=clock.sleep,
    )
    return code, text, told, clock.now


def test_it_tells_each_change_once() -> None:
    code, _, told, _ = run([d.PREPARING, d.PREPARING, d.STEP, d.STEP, d.NEEDS_MORE, d.STEADY])
    assert code is REACHED
    assert told == [
        "Preparing",
        "Canary, step 2 of 4, 5%",
        "Canary, step 2 of 4, 5%, holds: NeedsMoreRequests",
    ]


def test_it_ends_in_time() -> None:
    code, text, _, after = run([d.PAUSED], timeout_s=90)
    assert (code, after) == (Exit.TIMEOUT, 90.0)
    assert text == "not within 1m30s: Canary, step 2 of 4, 5%, holds: Paused"


def test_an_api_server_that_is_away_is_waited_for() -> None:
    away = Unreachable("https://api does not answer")
    busy = ApiError(429, "TooManyRequests", "slow down", retry_after_s=7)
    down = ApiError(503, "ServiceUnavailable", "etcd")
    code, _, told, after = run([d.STEP, away, busy, down, d.STEADY])
    assert code is REACHED
    assert after == 1 + 1 + 7 + 1
    assert told[1:] == ["https://api does not answer", "slow down", "etcd"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_it(status: int) -> None:
    with pytest.raises(ApiError):
        run([ApiError(status, "No", "no")])


def test_deleted_meanwhile() -> None:
    with pytest.raises(Trouble, match="deleted meanwhile") as caught:
        run([d.STEP, ApiError(404, "NotFound", "no ModelDeployment magika")])
    assert caught.value.code is Exit.NOT_FOUND


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1d2h3m4s", 93784), ("0s", 0)],
)
def test_lengths_of_time(text: str, expected: float) -> None:
    assert waiting.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-1s", "1.5h", "5 m", "10x", "1m1m", "3m2", "ten"])
def test_no_length_of_time(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        waiting.seconds(text)
