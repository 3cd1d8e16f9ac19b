from dataclasses import replace

import pytest

from tests.unit.analysis.test_evidence import ERRORS_ONLY, GOOD, OBJECTIVE, block, judged, tally
from tidegate.analysis.block import Block, Tally
from tidegate.analysis.evidence import Evidence
from tidegate.analysis.forecast import requests_for
from tidegate.analysis.judgement import Objective


def test_before_the_first_request_all_are_taken_to_be_good() -> None:
    nothing = judged(OBJECTIVE)
    assert requests_for(nothing, OBJECTIVE, 1.0) == pytest.approx(377, rel=0.01)
    small = requests_for(nothing, OBJECTIVE, 0.05)
    large = requests_for(nothing, OBJECTIVE, 0.5)
    assert small is not None
    assert large is not None
    assert 0 < small < large <= 377


def test_what_is_allowed_needs_no_more() -> None:
    judgement = judged(OBJECTIVE, *[GOOD] * 60)
    assert judgement.proven
    for weight in (0.01, 0.5, 1.0):
        assert requests_for(judgement, OBJECTIVE, weight) == 0


@pytest.mark.parametrize(
    ("each", "objective"),
    [
        (block(tally(10), tally(190)), OBJECTIVE),
        (block(Tally(500, 1), Tally(9500, 19)), ERRORS_ONLY),
        (block(Tally(250, 2), Tally(4750, 38)), ERRORS_ONLY),
        (block(Tally(100, 1), Tally(900, 9)), ERRORS_ONLY),
        (block(Tally(200, 3), Tally(200, 3)), ERRORS_ONLY),
    ],
)
@pytest.mark.parametrize("weight", [0.05, 0.25, 1.0])
def test_the_forecast_comes_true(each: Block, objective: Objective, weight: float) -> None:
    evidence = Evidence(objective)
    evidence.observe(each)
    evidence.observe(each)
    forecast = requests_for(evidence.judge(), objective, weight)
    assert forecast is not None
    before = evidence.judge().requests
    for _ in range(2_000):
        judgement = evidence.judge()
        if judgement.proven or (weight < 1.0 and judgement.carries >= weight):
            break
        evidence.observe(each)
    took = judgement.requests - before
    assert took > 0 or forecast == 0
    assert forecast <= 1.4 * took
    assert forecast >= 0.6 * took - each.canary.requests


def test_too_many_failures_never_get_there() -> None:
    worse = judged(replace(ERRORS_ONLY, margin=0.01), *[block(Tally(50, 1), Tally(950, 2))] * 3)
    assert worse.bad is None
    assert requests_for(worse, replace(ERRORS_ONLY, margin=0.01), 1.0) is None
    assert requests_for(worse, ERRORS_ONLY, 0.9) is None
    assert requests_for(worse, ERRORS_ONLY, 0.1) is not None


def test_requests_without_a_known_latency_make_it_longer() -> None:
    half = block(Tally(10, 0, 0, 0, 5, 0), Tally(190, 0, 0, 0, 95, 0))
    whole = block(Tally(10, 0, 0, 0, 10, 0), Tally(190, 0, 0, 0, 190, 0))
    longer = requests_for(judged(OBJECTIVE, half), OBJECTIVE, 1.0)
    shorter = requests_for(judged(OBJECTIVE, whole), OBJECTIVE, 1.0)
    assert longer is not None
    assert shorter is not None
    assert 1.8 * shorter < longer < 2.3 * shorter
