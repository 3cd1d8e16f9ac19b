"""The simulated world does what it says, and playing it asks the real evidence."""

from dataclasses import replace

import numpy as np
import pytest

from e2e.bench.verdict_simulation import (
    EDGES_MS,
    LATE_S,
    TARGET_MS,
    Burst,
    Counts,
    Side,
    Traffic,
    World,
    blocks,
    objective,
    play,
    single,
)
from e2e.bench.verdicts import clopper_pearson, point
from tidegate.analysis.evidence import Evidence
from tidegate.analysis.judgement import Test

GOOD = Traffic(rate=50.0, stable_errors=0.005, canary_errors=0.005, slow=0.005)


def world(traffic: Traffic, seed: int = 1) -> World:
    return World(traffic, np.random.default_rng(seed))


def share(counts: Counts, of: Counts) -> float:
    return float(counts.sum() / of.sum())


def test_shares_are_those_asked_for() -> None:
    traffic = Traffic(1000.0, 0.01, 0.05, 0.02, factor=2.0)
    canary, stable = world(traffic).take(600, 0.1)
    target = EDGES_MS.index(TARGET_MS)
    assert share(canary.requests, canary.requests + stable.requests) == pytest.approx(0.1, rel=0.02)
    assert share(stable.failed, stable.requests) == pytest.approx(0.01, rel=0.05)
    assert share(canary.failed, canary.requests) == pytest.approx(0.05, rel=0.05)
    assert share(stable.slower[:, target], stable.requests) == pytest.approx(0.02, rel=0.05)
    # Twice as slow is a shift of the logarithm: 2.05 standard deviations become 1.36.
    assert share(canary.slower[:, target], canary.requests) == pytest.approx(0.0868, rel=0.05)
    assert (np.diff(canary.slower, axis=1) <= 0).all()
    assert (canary.slower[:, 0] <= canary.requests).all()


def test_a_burst_hits_both_at_the_same_seconds() -> None:
    traffic = Traffic(1000.0, 0.0, 0.0, 0.0, burst=Burst(every_s=100.0, seconds=10, errors=0.5))
    played = world(traffic)
    parts = [played.take(seconds, 0.5) for seconds in (7, 30, 113, 450)]
    ours, theirs = (np.concatenate([p[i].failed for p in parts]) > 0 for i in (0, 1))
    assert (ours == theirs).all()
    lengths = np.diff(np.flatnonzero(np.diff(np.concatenate(([0], theirs, [0])))))[::2]
    assert len(lengths) >= 3
    assert set(lengths[:-1]) == {10}, "no call to take cuts a burst off"


def test_sticky_requests_come_one_a_second_with_one_outcome() -> None:
    traffic = Traffic(20.0, 0.1, 0.1, 0.0, cluster=10)
    played = world(traffic)
    sides = [played.take(seconds, 0.0)[1] for seconds in (3, 50, 400)]
    failed = np.concatenate([s.failed for s in sides])
    assert share(failed, np.concatenate([s.requests for s in sides])) == pytest.approx(0.1, rel=0.5)
    begun = failed.copy()
    for second in range(len(begun)):  # take each connection's ten away again
        begun[second + 1 : second + 10] -= begun[second]
    assert (begun >= 0).all()
    assert failed.sum() > 50


def test_blocks_lose_nothing() -> None:
    canary, stable = world(GOOD).take(300, 0.25)
    for merge in (False, True):
        found = list(blocks(canary, stable, merge))
        assert found[-1][0] == 300
        ours, theirs = [b.canary for _, _, b in found], [b.stable for _, _, b in found]
        for tallies, side in ((ours, canary), (theirs, stable)):
            assert sum(t.requests for t in tallies) == side.requests.sum()
            assert sum(t.failed for t in tallies) == side.failed.sum()
        for _, loud, block in found:
            assert loud == bool(block.canary.failed or block.canary.slow)


@pytest.mark.parametrize("seed", range(4))
def test_merging_quiet_seconds_changes_no_outcome(seed: int) -> None:
    for traffic in (replace(GOOD, rate=10.0), replace(GOOD, rate=10.0, canary_errors=0.1)):
        one, other = (
            play(world(traffic, seed), objective(0.05), merge=merge, bake_s=60)
            for merge in (True, False)
        )
        assert one.rolled_back == other.rolled_back
        assert one.promoted == other.promoted


def test_a_bad_version_is_taken_back_and_a_good_one_promoted() -> None:
    bad = play(world(replace(GOOD, canary_errors=1.0)), objective(0.001))
    assert bad.rolled_back
    assert bad.test is Test.ERRORS
    assert 2 <= bad.failed <= 10
    good = play(world(GOOD), objective(0.001))
    assert good.promoted
    assert not good.rolled_back
    assert good.at_s >= 4 * 30 + 600


def test_without_traffic_nothing_is_decided() -> None:
    ended = play(world(replace(GOOD, rate=1e-9)), objective(0.05))
    assert (ended.rolled_back, ended.promoted) == (False, False)


def test_asking_is_saved_only_where_nothing_has_fired() -> None:
    """The first time that the evidence says bad, it says that a test has fired, and not before."""
    traffic = replace(GOOD, canary_errors=0.04, slow=0.002)
    canary, stable = world(traffic).take(600, 0.25)
    evidence = Evidence(objective(0.05))
    for _, _, block in blocks(canary, stable):
        evidence.observe(block)
        assert evidence.fired == any(each.fired for each in evidence.judge().results)
        if evidence.judge().bad is not None:
            assert evidence.fired
            return
    raise AssertionError("never found")


@pytest.mark.parametrize("errors", [0.2, 1.0])
def test_a_version_that_turns_bad_late_is_taken_back_soon_after(errors: float) -> None:
    ended = play(
        world(replace(GOOD, stable_errors=0.0, canary_errors=0.0, late_errors=errors)),
        objective(0.001),
    )
    assert ended.rolled_back
    assert ended.promoted
    assert ended.turned_s is not None
    assert ended.turned_s - LATE_S >= 4 * 30
    assert 0 < ended.at_s - ended.turned_s <= 5
    assert ended.failed_before == 0
    assert ended.failed <= 5 * 50 * errors * 1.5


def test_a_single_test_counts_the_canarys_requests() -> None:
    random = np.random.default_rng(3)
    traffic = Traffic(1.0, 0.001, 1.0, 0.005)
    found = [single(Test.ERRORS, traffic, random) for _ in range(5)]
    assert all(2 <= n <= 10 for n in found)
    assert single(Test.ERRORS, replace(traffic, canary_errors=0.0), random, most=300) == 300


@pytest.mark.parametrize(
    ("count", "runs", "low", "high"),
    [(0, 20_000, 0.0, 0.000184), (5, 100, 0.0164, 0.1128), (10, 10, 0.6915, 1.0)],
)
def test_clopper_pearson(count: int, runs: int, low: float, high: float) -> None:
    found = clopper_pearson(count, runs)
    assert found.share == count / runs
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


def test_a_point_of_the_picture() -> None:
    found = point("Argo: 5 s, limit 0, 30 s steps", 500.0, 5)
    assert found.caught == 1.0
    assert found.delay_s is not None
    assert found.delay_s <= 60


def test_wider_counts_are_sums() -> None:
    one, two = (world(GOOD, 9).take(60, 0.5, width)[0] for width in (1, 10))
    assert isinstance(two, Side)
    assert two.requests.tolist() == one.requests.reshape(6, 10).sum(axis=1).tolist()
