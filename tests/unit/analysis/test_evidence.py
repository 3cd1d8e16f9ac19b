import base64
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.analysis.simulation import binomial
from tidegate.analysis.block import Block, Tally
from tidegate.analysis.evidence import Evidence
from tidegate.analysis.forecast import requests_for
from tidegate.analysis.judgement import Consequence, Judgement, Objective, Result, Test
from tidegate.api.spec import ErrorsAgainstStable

OBJECTIVE = Objective(
    max_error_rate=0.01,
    latency_target_ms=250,
    slow_share=0.01,
    false_rollback_rate=0.001,
    confidence=0.95,
)
ERRORS_ONLY = replace(OBJECTIVE, latency_target_ms=None, slow_share=0.0)
FOUND = {test: i for i, test in enumerate(Test)}


def tally(
    requests: int,
    failed: int = 0,
    *,
    client_errors: int = 0,
    given_up: int = 0,
    slow: int = 0,
    slower: tuple[int, ...] | None = None,
) -> Tally:
    if slower is None:
        slower = (requests, requests // 2, requests // 10, slow, 0)
    return Tally(requests, failed, client_errors, given_up, requests, slow, slower)


def block(canary: Tally | None = None, stable: Tally | None = None) -> Block:
    return Block(0.0, 1.0, canary or Tally(), stable or Tally())


def judged(objective: Objective, *blocks: Block) -> Judgement:
    evidence = Evidence(objective)
    for each in blocks:
        evidence.observe(each)
    return evidence.judge()


def result(judgement: Judgement, test: Test) -> Result:
    (found,) = (each for each in judgement.results if each.test is test)
    return found


GOOD = block(tally(10), tally(190))
STABLE_ONLY = block(None, tally(200))


# What is bad


def test_a_version_that_fails_everything_is_bad_after_two_requests() -> None:
    once = judged(OBJECTIVE, block(tally(1, 1), tally(19)))
    assert once.bad is None
    twice = judged(OBJECTIVE, block(tally(1, 1), tally(19)), block(tally(1, 1), tally(19)))
    assert twice.bad is not None
    assert twice.bad.test is Test.ERRORS
    assert twice.bad.consequence is Consequence.ROLL_BACK
    assert twice.bad.explanation == "2 of 2 requests failed (100 %), the limit is 1 %"
    assert twice.bad.evidence == pytest.approx(0.9 * 4006, rel=1e-3)
    assert twice.bad.needed == pytest.approx(2000)
    assert not twice.proven


def test_the_explanation_leads_with_what_was_counted() -> None:
    judgement = judged(OBJECTIVE, block(tally(200, 15), tally(3800, 3)))
    assert judgement.bad is not None
    assert judgement.bad.explanation == "15 of 200 requests failed (7.5 %), the limit is 1 %"
    against = result(judgement, Test.ERRORS_AGAINST_STABLE)
    assert against.explanation == (
        "15 of 200 requests failed (7.5 %), on stable 3 of 3800 (0.079 %)"
    )


def test_a_good_version_is_proven_and_carries_everything() -> None:
    judgement = judged(OBJECTIVE, *[GOOD] * 60)
    assert judgement.bad is None
    assert judgement.worse is None
    assert not judgement.stable_failing
    assert judgement.proven
    assert judgement.carries == 1.0
    assert judgement.requests == 600


def test_no_error_in_377_requests_is_the_proof() -> None:
    alone = [block(tally(1)) for _ in range(377)]
    assert not judged(ERRORS_ONLY, *alone[1:]).proven
    assert judged(ERRORS_ONLY, *alone).proven


def test_without_requests_nothing_is_said() -> None:
    for judgement in (judged(OBJECTIVE), judged(OBJECTIVE, block(), *[STABLE_ONLY] * 9)):
        assert (judgement.bad, judgement.worse, judgement.proven) == (None, None, False)
        assert (judgement.carries, judgement.requests) == (0.0, 0)
        assert {each.explanation for each in judgement.results} == {
            "no requests yet",
            "nothing to compare yet",
        }
        assert {each.observed for each in judgement.results} == {None}


def test_the_weight_carried_grows_with_the_evidence() -> None:
    carried = [judged(ERRORS_ONLY, *[GOOD] * n).carries for n in (1, 3, 10, 30)]
    assert carried == sorted(carried)
    assert 0.01 < carried[0] < 0.03
    assert carried[2] == pytest.approx(0.175, abs=0.01)


def test_latency_counts_for_the_weight_and_the_proof() -> None:
    slow = block(tally(10, slow=1), tally(190, slow=1))
    judgement = judged(OBJECTIVE, *[GOOD] * 30, *[slow] * 30)
    assert not judgement.proven
    assert judgement.carries < judged(OBJECTIVE, *[GOOD] * 60).carries
    assert not judged(OBJECTIVE, block(Tally(requests=9), Tally(requests=9))).carries > 0.01


# Latency


def test_a_version_too_slow_for_the_slo_is_bad() -> None:
    judgement = judged(OBJECTIVE, *[block(tally(10, slow=2), tally(190))] * 3)
    assert judgement.bad is not None
    assert judgement.bad.test is Test.LATENCY
    assert judgement.bad.explanation == (
        "6 of 30 requests took 250 ms or more (20 %), the limit is 1 %"
    )


SLOWER = [
    *[STABLE_ONLY] * 3,
    *[block(tally(10, slower=(10, 9, 4, 0, 0)), tally(190))] * 20,
]


def test_slower_than_stable_within_the_slo_holds() -> None:
    objective = replace(OBJECTIVE, latency_bounds_ms=(10, 20, 50, 250, 500))
    judgement = judged(objective, *SLOWER)
    assert judgement.bad is None
    assert judgement.worse is not None
    assert judgement.worse.test is Test.LATENCY_AGAINST_STABLE
    assert judgement.worse.consequence is Consequence.HOLD
    assert judgement.worse.explanation == (
        "80 of 200 requests took 50 ms or more (40 %), on stable 380 of 3800 (10 %)"
    )


def test_slower_than_stable_does_what_is_configured() -> None:
    roll_back = replace(OBJECTIVE, latency_against_stable=ErrorsAgainstStable.ROLL_BACK)
    bad = judged(roll_back, *SLOWER).bad
    assert bad is not None
    assert bad.test is Test.LATENCY_AGAINST_STABLE
    ignore = replace(OBJECTIVE, latency_against_stable=ErrorsAgainstStable.IGNORE)
    judgement = judged(ignore, *SLOWER)
    assert judgement.worse is None
    assert Test.LATENCY_AGAINST_STABLE not in {each.test for each in judgement.results}


# Against stable


WORSE_THAN_STABLE = [block(tally(100, 2), tally(1900))] * 15


def test_worse_than_stable_beyond_the_margin_is_bad() -> None:
    loose = replace(OBJECTIVE, max_error_rate=0.03, margin=0.3)
    bad = judged(loose, *WORSE_THAN_STABLE).bad
    assert bad is not None
    assert bad.test is Test.ERRORS_AGAINST_STABLE


def test_worse_than_stable_within_the_margin_is_not() -> None:
    judgement = judged(replace(OBJECTIVE, max_error_rate=0.05), *WORSE_THAN_STABLE)
    against = result(judgement, Test.ERRORS_AGAINST_STABLE)
    assert against.fired
    assert (judgement.bad, judgement.worse) == (None, None)


def test_worse_than_stable_does_what_is_configured() -> None:
    loose = replace(OBJECTIVE, max_error_rate=0.03, margin=0.3)
    hold = replace(loose, errors_against_stable=ErrorsAgainstStable.HOLD)
    judgement = judged(hold, *WORSE_THAN_STABLE)
    assert judgement.bad is None
    assert judgement.worse is not None
    assert judgement.worse.test is Test.ERRORS_AGAINST_STABLE
    ignore = replace(loose, errors_against_stable=ErrorsAgainstStable.IGNORE)
    judgement = judged(ignore, *WORSE_THAN_STABLE)
    assert (judgement.bad, judgement.worse) == (None, None)
    assert {each.test for each in judgement.results} == {
        Test.ERRORS,
        Test.LATENCY,
        Test.LATENCY_AGAINST_STABLE,
    }


@pytest.mark.parametrize("kind", ["client_errors", "given_up", "shed"])
def test_what_the_model_is_not_blamed_for_is_compared_with_stable(kind: str) -> None:
    def some(requests: int, times: int) -> Tally:
        changes: dict[str, Any] = {kind: times}
        return replace(tally(requests), **changes)

    bad = judged(OBJECTIVE, *[block(some(10, 5), tally(190))] * 3).bad
    assert bad is not None
    assert bad.test is Test.CLIENT_ERRORS
    usual = judged(OBJECTIVE, *[block(some(10, 1), some(190, 19))] * 60)
    assert usual.bad is None
    assert usual.proven


def test_overload_that_both_share_rolls_nothing_back() -> None:
    """At twice the capacity half is refused on both, and the rest answered well."""
    half = block(replace(tally(10), shed=10), replace(tally(190), shed=190))
    judgement = judged(OBJECTIVE, *[half] * 60)
    assert judgement.bad is None
    assert judgement.worse is None
    assert judgement.proven


# Stable to blame


def test_a_canary_that_fails_like_stable_is_not_to_blame() -> None:
    judgement = judged(OBJECTIVE, *[block(tally(2, 2), tally(38, 38))] * 2)
    assert result(judgement, Test.ERRORS).fired
    assert judgement.bad is None
    assert judgement.stable_failing
    assert not judgement.proven


def test_an_incident_of_both_is_no_ones_fault_when_it_is_over() -> None:
    evidence = Evidence(ERRORS_ONLY)
    incident = [block(tally(10, 5), tally(190, 95))] * 5
    for each in [*[STABLE_ONLY] * 100, *[GOOD] * 20, *incident, *[GOOD] * 1000]:
        evidence.observe(each)
        assert evidence.judge().bad is None
    assert evidence.judge().proven


def test_an_incident_late_at_a_high_weight_is_shared() -> None:
    early, late = block(tally(2), tally(398)), block(tally(200, 6), tally(200, 6))
    judgement = judged(ERRORS_ONLY, *[early] * 300, *[late] * 20)
    assert judgement.bad is None
    assert judgement.stable_failing


@pytest.mark.parametrize("requests", [20, 200])
def test_an_incident_of_both_after_a_long_time_is_no_ones_fault(requests: int) -> None:
    """Evidence of the latest requests alone asks what stable did in the same time."""
    stable = 400 - requests
    good = block(tally(requests), tally(stable))
    incident = block(tally(requests, requests // 5), tally(stable, stable // 5))
    evidence = Evidence(ERRORS_ONLY)
    for each in [*[good] * 100, *[incident] * 10, *[good] * 30, *[incident] * 10, *[good] * 30]:
        evidence.observe(each)
        assert evidence.judge().bad is None
    turned = block(tally(requests, requests // 5), tally(stable))
    seconds = 0
    while evidence.judge().bad is None:
        evidence.observe(turned)
        seconds += 1
    # Stable fails in bursts, so one of the canary's says less.
    assert 2 < seconds <= 60


def test_where_stable_has_few_requests_they_are_waited_for() -> None:
    """At 90 % an incident shows on the canary first, nine times in ten."""
    good = block(tally(54), tally(6))
    unlucky = block(tally(54, 11), tally(6))
    incident = block(tally(54, 11), tally(6, 2))
    judgement = judged(ERRORS_ONLY, *[good] * 200, unlucky, *[incident] * 9, *[good] * 100)
    assert judgement.bad is None
    assert not result(judgement, Test.ERRORS).fired
    assert judged(ERRORS_ONLY, *[good] * 200, unlucky).bad is None
    assert judged(ERRORS_ONLY, *[good] * 200, *[unlucky] * 3).bad is not None
    alone = block(tally(60, 12))
    assert judged(ERRORS_ONLY, *[good] * 200, alone).bad is not None


def test_a_canary_still_failing_when_stable_has_recovered_is_bad() -> None:
    incident = [block(tally(2, 2), tally(38, 38))] * 5
    broken = block(tally(2, 2), tally(38))
    for recovered in range(1, 40):
        judgement = judged(OBJECTIVE, *incident, *[broken] * recovered)
        if judgement.bad:
            break
    assert judgement.bad is not None


def test_a_canary_worse_than_a_failing_stable_is_bad() -> None:
    judgement = judged(OBJECTIVE, *[block(tally(10, 8), tally(190, 6))] * 10)
    assert judgement.bad is not None
    assert not judgement.stable_failing


def test_a_canary_clearly_better_than_a_failing_stable_may_be_promoted() -> None:
    judgement = judged(ERRORS_ONLY, *[block(tally(20), tally(20, 4))] * 10)
    assert judgement.proven
    assert judgement.carries == 1.0
    assert not judgement.stable_failing


def test_slow_like_stable_is_not_the_canarys_fault() -> None:
    judgement = judged(OBJECTIVE, *[block(tally(10, slow=3), tally(190, slow=57))] * 5)
    assert result(judgement, Test.LATENCY).fired
    assert judgement.bad is None
    assert judgement.stable_failing


def test_a_good_version_near_the_limit_is_proven_by_stable() -> None:
    source = random.Random(1)
    blocks = [
        block(Tally(50, binomial(source, 50, 0.009)), Tally(50, binomial(source, 50, 0.009)))
        for _ in range(300)
    ]
    judgement = judged(ERRORS_ONLY, *blocks)
    assert judgement.bad is None
    assert judgement.proven


# Late

LONG = [block(tally(60), tally(60))] * 100
BAKE = [block(tally(120))] * 100


@pytest.mark.parametrize(
    ("failed", "seconds"), [(120, 1), (60, 1), (24, 1), (12, 2), (6, 6), (3, 30)]
)
def test_a_version_that_turns_bad_in_the_bake_is_found_soon(failed: int, seconds: int) -> None:
    """Though 18,000 good requests are behind it, and stable has none any more."""
    before = judged(OBJECTIVE, *LONG, *BAKE)
    assert before.proven
    late = judged(OBJECTIVE, *LONG, *BAKE, *[block(tally(120, failed))] * seconds)
    assert late.bad is not None
    assert late.bad.test is Test.ERRORS
    assert late.bad.lately == (seconds * failed, seconds * 120)
    assert late.bad.canary_requests == before.requests + seconds * 120
    assert f"{seconds * failed} of the last {seconds * 120} requests failed" in (
        late.bad.explanation
    )


def test_a_version_that_turns_slow_in_the_bake_is_found_soon() -> None:
    late = judged(OBJECTIVE, *LONG, *BAKE, *[block(tally(120, slow=24))] * 2)
    assert late.bad is not None
    assert late.bad.test is Test.LATENCY
    assert late.bad.explanation == (
        "48 of the last 240 requests took 250 ms or more (20 %), the limit is 1 %"
    )


def test_a_version_that_refuses_late_is_found_soon() -> None:
    refusing = block(tally(60, client_errors=20), tally(60))
    late = judged(OBJECTIVE, *LONG, *LONG, *[refusing] * 3)
    assert late.bad is not None
    assert late.bad.test is Test.CLIENT_ERRORS
    assert late.bad.lately == (60, 180)


def test_what_was_bad_from_the_start_is_told_by_all_of_it() -> None:
    bad = judged(OBJECTIVE, *[block(tally(10, 2), tally(190))] * 5).bad
    assert bad is not None
    assert bad.lately is None


@pytest.mark.parametrize("failed", [1, 3])
def test_a_few_failures_after_a_long_time_are_chance(failed: int) -> None:
    judgement = judged(OBJECTIVE, *LONG, *BAKE, block(tally(120, failed)), *BAKE)
    assert judgement.bad is None
    assert not result(judgement, Test.ERRORS).fired


# Over time


def test_a_test_that_has_fired_stays_fired() -> None:
    judgement = judged(OBJECTIVE, block(tally(3, 3), tally(57)), *[GOOD] * 2000)
    assert judgement.bad is not None
    assert judgement.bad.test is Test.ERRORS
    assert judgement.bad.evidence >= judgement.bad.needed
    assert not judgement.proven


def test_the_budget_of_false_alarms_is_kept() -> None:
    for objective in (
        OBJECTIVE,
        ERRORS_ONLY,
        replace(OBJECTIVE, errors_against_stable=ErrorsAgainstStable.IGNORE),
        replace(OBJECTIVE, latency_against_stable=ErrorsAgainstStable.IGNORE),
    ):
        judgement = judged(objective, GOOD)
        shares = [1.0 / each.needed for each in judgement.results]
        assert sum(shares) == pytest.approx(objective.false_rollback_rate)
        assert 1.0 / result(judgement, Test.ERRORS).needed == pytest.approx(
            objective.false_rollback_rate / 2.0
        )


def test_few_canary_requests_wait_for_stables_next_one() -> None:
    alone, beside = block(Tally(1, 1)), block(None, Tally(9))
    split = judged(ERRORS_ONLY, *[STABLE_ONLY] * 5, *[alone, beside] * 7)
    whole = judged(ERRORS_ONLY, *[STABLE_ONLY] * 5, *[block(Tally(1, 1), Tally(9))] * 7)
    against = result(split, Test.ERRORS_AGAINST_STABLE)
    assert against == result(whole, Test.ERRORS_AGAINST_STABLE)
    assert against.fired


def test_false_alarms_of_good_versions_stay_within_the_budget() -> None:
    objective = replace(OBJECTIVE, false_rollback_rate=0.1)
    alarms = 0
    for seed in range(30):
        source = random.Random(seed)

        def side(requests: int, source: random.Random = source) -> Tally:
            slow, failed = (binomial(source, requests, 0.008) for _ in range(2))
            median = binomial(source, requests - slow, 0.5) + slow
            return tally(requests, failed, slow=slow, slower=(requests, median, slow, slow, 0))

        evidence = Evidence(objective)
        for _ in range(100):
            evidence.observe(block(side(4), side(16)))
        judgement = evidence.judge()
        alarms += judgement.bad is not None or judgement.worse is not None
    # At most 10 % of 30; 7 or more would have a chance of 3 %.
    assert alarms < 7


def test_evidence_of_clustered_requests_is_divided_by_their_size() -> None:
    def sticky(source: random.Random, clients: int) -> Tally:
        failed = binomial(source, clients, 0.009)
        return Tally(10 * clients, 10 * failed)

    alarms = 0
    objective = replace(ERRORS_ONLY, false_rollback_rate=0.1)
    for seed in range(30):
        source = random.Random(seed)
        evidence = Evidence(objective)
        for _ in range(120):
            evidence.observe(block(None, sticky(source, 9)))
        for _ in range(150):
            evidence.observe(block(sticky(source, 1), sticky(source, 9)))
        judgement = evidence.judge()
        assert 5.0 <= judgement.results[0].tempering <= judgement.results[0].accusing <= 25.0
        alarms += judgement.bad is not None
    assert alarms < 7


def test_bursts_within_the_target_do_not_hide_a_slow_tail() -> None:
    """A busy machine makes many answers a little later at once: that says nothing of the target."""
    evidence = Evidence(OBJECTIVE)
    source = random.Random(3)

    def stable() -> Tally:
        burst = 45 if source.random() < 0.02 else 0
        return tally(45, slow=0, slower=(45, burst, 0, 0, 0))

    for _ in range(100):
        evidence.observe(block(None, stable()))
    for _ in range(40):
        slow = binomial(source, 5, 6.0 * OBJECTIVE.slow_share)
        evidence.observe(block(tally(5, slow=slow, slower=(5, slow, slow, slow, 0)), stable()))
        if evidence.judge().bad:
            break
    bad = evidence.judge().bad
    assert bad is not None
    assert bad.test is Test.LATENCY
    assert bad.tempering == bad.accusing == 1.0


def test_clients_whose_requests_take_longer_warn_of_clusters_beyond_the_target() -> None:
    """A third of stable's answers is beyond a bound, by connections; next to none is slow."""
    evidence = Evidence(OBJECTIVE)
    source = random.Random(4)

    def stable() -> Tally:
        longer = 10 * binomial(source, 4, 0.3)
        return tally(40, slow=0, slower=(40, longer, 0, 0, 0))

    for _ in range(100):
        evidence.observe(block(None, stable()))
    evidence.observe(block(tally(10, slow=4, slower=(10, 4, 4, 4, 0)), stable()))
    judgement = evidence.judge()
    latency = judgement.results[FOUND[Test.LATENCY]]
    assert latency.tempering > 4.0
    assert judgement.bad is None


def test_clusters_seen_later_only_lower_the_evidence() -> None:
    evidence = Evidence(ERRORS_ONLY)
    sticky = block(None, Tally(100, 10))
    for each in [STABLE_ONLY, block(Tally(100, 3), Tally(100)), *[sticky, STABLE_ONLY] * 4]:
        before = evidence.judge().results[0]
        evidence.observe(each)
        after = evidence.judge().results[0]
        assert after.tempering >= before.tempering
    highest = after.tempering
    assert highest > 5.0
    assert after.evidence < 20.0
    for _ in range(40):
        evidence.observe(block(Tally(100, 1), Tally(100, 1)))
    assert evidence.judge().results[0].tempering == highest


# Kept


TALLIES = st.builds(
    lambda requests, failed, client, given, slow, slower: Tally(
        requests, failed, client, given, requests, slow, tuple(sorted(slower, reverse=True))
    ),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 60),
    st.lists(st.integers(0, 60), min_size=31, max_size=31),
)
BLOCKS = st.lists(st.builds(block, TALLIES, TALLIES), max_size=12)


@settings(max_examples=25)
@given(blocks=BLOCKS, cut=st.integers(0, 12))
def test_a_state_that_was_kept_judges_the_same(blocks: list[Block], cut: int) -> None:
    whole, part = Evidence(OBJECTIVE), Evidence(OBJECTIVE)
    for each in blocks[:cut]:
        whole.observe(each)
        part.observe(each)
    text = part.dump()
    assert len(text) <= 4096
    part = Evidence.load(OBJECTIVE, text)
    assert part.dump() == text
    assert part.judge() == whole.judge()
    for each in blocks[cut:]:
        whole.observe(each)
        part.observe(each)
    for ours, theirs in zip(whole.judge().results, part.judge().results, strict=True):
        assert ours.evidence == pytest.approx(theirs.evidence, rel=1e-3)
        assert (ours.fired, ours.canary_count) == (theirs.fired, theirs.canary_count)


def test_the_longest_state_fits() -> None:
    bounds = 40
    evidence = Evidence(OBJECTIVE)
    side = Tally(100, 1, 1, 1, 100, 1, tuple(100 - 2 * i for i in range(bounds)))
    for canary in (None, None, side, side):
        evidence.observe(block(canary, side))
        assert len(evidence.dump()) <= 4096
    evidence.observe(block(side))
    text = evidence.dump()
    assert len(text) <= 4096
    assert Evidence.load(OBJECTIVE, text).judge().requests == 300


def test_a_text_that_is_not_ours_starts_empty() -> None:
    evidence = Evidence(OBJECTIVE)
    for _ in range(5):
        evidence.observe(block(tally(10, 1), tally(90, 1)))
    text = evidence.dump()
    version, fingerprint, payload = text.split(".")
    packed = base64.b64decode(payload)
    foreign = [
        "",
        "nonsense",
        "1..",
        "\u00e9.\u00e9.\u00e9",
        f"9.{fingerprint}.{payload}",
        text[:-8],
        text[: len(text) // 2],
        text + "AAAA",
        text + "\n\x00",
        *(
            f"{version}.{fingerprint}.{base64.b64encode(odd).decode()}"
            for odd in (packed + bytes(8), b"\xff" * len(packed), bytes(len(packed)))
        ),
    ]
    empty = Evidence(OBJECTIVE).judge()
    for each in foreign:
        assert Evidence.load(OBJECTIVE, each).judge() == empty, each
    other = replace(OBJECTIVE, max_error_rate=0.02)
    assert Evidence.load(other, text).judge() == Evidence(other).judge()
    assert Evidence.load(OBJECTIVE, text).judge() == evidence.judge()


@given(damage=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4))
def test_a_damaged_text_never_raises(damage: list[tuple[int, int]]) -> None:
    evidence = Evidence(OBJECTIVE)
    for each in [STABLE_ONLY, GOOD, GOOD]:
        evidence.observe(each)
    version, fingerprint, payload = evidence.dump().split(".")
    packed = bytearray(base64.b64decode(payload))
    for at, value in damage:
        packed[at % len(packed)] = value
    text = f"{version}.{fingerprint}.{base64.b64encode(packed).decode()}"
    loaded = Evidence.load(OBJECTIVE, text)
    loaded.observe(GOOD)
    loaded.judge()
    loaded.dump()


# Whatever comes in


@settings(max_examples=25)
@given(blocks=BLOCKS)
def test_verdicts_agree_with_themselves(blocks: list[Block]) -> None:
    evidence = Evidence(OBJECTIVE)
    fired: set[Test] = set()
    for each in blocks:
        evidence.observe(each)
        judgement = evidence.judge()
        assert judgement == evidence.judge()
        assert 0.0 <= judgement.carries <= 1.0
        assert not (judgement.proven and judgement.bad)
        assert not (judgement.stable_failing and judgement.bad)
        assert (judgement.carries > 0.0) == (judgement.requests > 0)
        assert [FOUND[found.test] for found in judgement.results] == sorted(
            FOUND[found.test] for found in judgement.results
        )
        now = {found.test for found in judgement.results if found.fired}
        assert fired <= now
        fired = now
        for found in judgement.results:
            assert 0 <= found.canary_count <= found.canary_requests
            assert found.evidence >= 0.0
            assert not found.fired or found.evidence >= found.needed * (1.0 - 1e-9)
        if judgement.bad:
            assert judgement.bad.consequence is Consequence.ROLL_BACK


@settings(max_examples=25)
@given(blocks=BLOCKS, at=st.integers(0, 11))
def test_one_failure_more_never_speaks_for_the_canary(blocks: list[Block], at: int) -> None:
    if at >= len(blocks) or blocks[at].canary.failed >= blocks[at].canary.requests:
        return
    worse = list(blocks)
    canary = replace(blocks[at].canary, failed=blocks[at].canary.failed + 1)
    worse[at] = replace(blocks[at], canary=canary)
    before, after = judged(ERRORS_ONLY, *blocks), judged(ERRORS_ONLY, *worse)
    for test in (Test.ERRORS, Test.ERRORS_AGAINST_STABLE):
        assert result(after, test).evidence >= result(before, test).evidence * (1.0 - 1e-9)
    assert after.carries <= before.carries + 1e-9
    assert before.proven or not after.proven or before.bad


@pytest.mark.parametrize("limit", [0.0, 1e-12, 1.0])
def test_limits_at_the_edge_are_kept(limit: float) -> None:
    objective = replace(OBJECTIVE, max_error_rate=limit, slow_share=limit)
    good = judged(objective, *[GOOD] * 40)
    assert good.bad is None
    assert good.proven == (limit == 1.0)
    failing = judged(objective, *[block(tally(10, 3, slow=3), tally(190))] * 3)
    assert (failing.bad is not None) == (limit < 1.0)
    for judgement in (good, failing):
        for weight in (0.1, 1.0):
            wait = requests_for(judgement, objective, weight)
            assert wait is None or wait >= 0


def test_impossible_counts_are_made_possible() -> None:
    odd = Tally(-3, 7, -1, -1, 5, 9, (9, -2, 3))
    judgement = judged(OBJECTIVE, block(odd, odd), block(Tally(2, 9), Tally(40, 0)))
    assert result(judgement, Test.ERRORS).canary_count == 2
    assert result(judgement, Test.LATENCY).canary_count == 5
