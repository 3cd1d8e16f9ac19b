"""Pods during a rollout: tables of single decisions, and whole rollouts on a toy cluster."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.placement.cluster import Run
from tidegate.api.spec import Strategy, Surge
from tidegate.placement import (
    EVEN,
    FULLEST,
    Load,
    Mode,
    Placement,
    Pods,
    can_carry,
    place,
    pods_for,
    uneven,
)
from tidegate.record import Phase

FULL = "no node has nvidia.com/gpu free."


def decide(**changes: Any) -> Placement:
    """A decision at the first step of a rollout with four replicas, all well."""
    arguments: dict[str, Any] = {
        "strategy": Strategy.CANARY,
        "surge": Surge.AUTO,
        "surge_wait_s": 300.0,
        "phase": Phase.PREPARING,
        "wanted": 4,
        "share": 0.0,
        "next_share": 0.05,
        "stable": Pods(4, 4),
        "canary": Pods(),
        "load": Load(0.3, 1),
        "start_s": 90.0,
    }
    return place(**(arguments | changes))


def numbers(found: Placement) -> tuple[int, int]:
    return found.stable, found.canary


def waiting(there: int, ready: int, waited_s: float = 400.0) -> Pods:
    return Pods(there, ready, waiting=FULL, waited_s=waited_s)


@pytest.mark.parametrize(
    ("share", "wanted", "pods"),
    [
        *((0.01, 1, 1), (0.01, 100, 1), (0.05, 4, 1), (0.25, 3, 1), (0.25, 4, 2), (0.26, 4, 2)),
        *((0.5, 2, 2), (0.5, 3, 3), (0.5, 20, 20), (0.75, 4, 4)),
        *((1.0, 3, 3), (0.0, 3, 1), (0.0, 0, 0), (0.5, 0, 0)),
    ],
)
def test_pods_that_a_share_needs(share: float, wanted: int, pods: int) -> None:
    assert pods_for(share, wanted) == pods
    assert can_carry(share, wanted, pods)
    assert pods == 0 or not can_carry(share, wanted, pods - 1)


@given(
    share=st.floats(0.0, 0.99),
    wanted=st.integers(1, 60),
    gave_way=st.integers(0, 59),
)
def test_a_canary_pod_carries_no_more_than_a_stable_pod(
    share: float, wanted: int, gave_way: int
) -> None:
    kept = 1.0 - min(gave_way, wanted - 1) / wanted
    pods = pods_for(share, wanted, kept)
    assert 1 <= pods <= wanted
    if pods < wanted:
        of_stable = (1.0 - share) / (kept * wanted)
        assert share / pods <= EVEN * of_stable * (1.0 + 1e-6)
    # Where pods give way one for one, its part of all the pods is enough.
    assert pods_for(share, wanted, 1.0 - share) <= math.ceil(round(share * wanted, 9)) or pods == 1


@pytest.mark.parametrize(
    ("weight", "mirror", "canary", "stable", "expected"),
    [
        (0.5, 0.0, 2, 2, None),
        (0.05, 0.0, 1, 2, None),
        (0.75, 0.0, 2, 2, 3.0),
        (0.75, 0.0, 6, 2, None),
        (0.5, 0.0, 3, 5, 1.67),  # it scales to fewer
        (0.25, 0.0, 1, 3, None),
        (0.0, 0.5, 1, 3, 1.5),
        (0.0, 0.1, 1, 3, None),
        (1.0, 0.0, 2, 2, math.inf),
        (0.75, 0.0, 0, 2, None),
        (0.75, 0.0, 2, 0, None),
    ],
)
def test_when_a_canary_pod_has_more_to_do_than_a_stable_one(
    weight: float, mirror: float, canary: int, stable: int, expected: float | None
) -> None:
    assert uneven(weight, mirror, canary, stable) == expected


@given(share=st.floats(0.001, 0.5), wanted=st.integers(1, 200))
def test_up_to_half_of_the_traffic_its_pods_keep_it_even(share: float, wanted: int) -> None:
    pods = pods_for(share, wanted)
    assert uneven(share, 0.0, pods, wanted) is None
    assert uneven(0.0, share, pods, wanted) is None


def test_the_whole_traffic_on_one_pod_less_where_the_last_stable_pod_stays() -> None:
    assert not can_carry(1.0, 4, 3)
    assert not can_carry(1.0, 4, 3, gave_way=2)
    assert can_carry(1.0, 4, 3, gave_way=3)
    assert not can_carry(1.0, 4, 2, gave_way=3)
    assert can_carry(1.0, 2, 1, gave_way=1)


@pytest.mark.parametrize(
    ("changes", "pods"),
    [
        ({}, (4, 1)),
        ({"next_share": 0.5, "share": 0.25, "phase": Phase.CANARY, "canary": Pods(2, 2)}, (4, 4)),
        ({"next_share": 1.0, "share": 0.5, "phase": Phase.CANARY, "canary": Pods(2, 2)}, (4, 4)),
        ({"next_share": 1.0, "share": 1.0, "phase": Phase.BAKING, "canary": Pods(4, 4)}, (4, 4)),
        # It does not shrink in a rollout, except with what is wanted at all.
        ({"canary": Pods(3, 3)}, (4, 3)),
        ({"canary": Pods(3, 3), "wanted": 2}, (2, 2)),
        ({"wanted": 6}, (6, 1)),
        ({"wanted": 0, "canary": Pods(2, 2)}, (0, 0)),
        ({"strategy": Strategy.BLUE_GREEN}, (4, 4)),
        # Recreate: the old pods are gone first, GPUs and all.
        ({"strategy": Strategy.RECREATE}, (0, 0)),
        ({"strategy": Strategy.RECREATE, "stable": Pods(0, 0, leaving=1)}, (0, 0)),
        ({"strategy": Strategy.RECREATE, "stable": Pods()}, (0, 4)),
        ({"phase": Phase.PROMOTED, "canary": Pods(4, 4)}, (4, 0)),
        ({"phase": Phase.ROLLED_BACK, "canary": Pods(2, 1)}, (4, 0)),
        ({"phase": Phase.SUPERSEDED, "canary": Pods(2, 1)}, (4, 0)),
        ({"phase": Phase.ROLLED_BACK, "canary": Pods(2, 1), "keep_failed": True}, (4, 2)),
        (
            {"phase": Phase.ROLLED_BACK, "strategy": Strategy.RECREATE, "stable": Pods()},
            (4, 0),
        ),
    ],
)
def test_with_room_stable_keeps_all_its_pods(
    changes: dict[str, Any], pods: tuple[int, int]
) -> None:
    found = decide(**changes)
    assert numbers(found) == pods
    assert (found.mode, found.reason, found.gave_way) == (Mode.SURGE, "", 0)
    assert found.swap_back_s is None


def test_auto_waits_for_room_first_and_says_for_how_long() -> None:
    found = decide(canary=waiting(1, 0, 120.0))
    assert numbers(found) == (4, 1)
    assert (found.mode, found.reason) == (Mode.SURGE, "WaitingForGPU")
    assert "After 300 s (rollout.surgeWait) one stable pod gives way" in found.message


def test_then_one_stable_pod_gives_way() -> None:
    found = decide(canary=waiting(1, 0))
    assert numbers(found) == (3, 1)
    assert (found.mode, found.gave_way, found.swap_back_s) == (Mode.SWAP, 1, 90.0)
    # The pod that leaves holds its GPU still, so no second one goes.
    again = decide(canary=waiting(1, 0), stable=Pods(3, 3, leaving=1), gave_way=1)
    assert numbers(again) == (3, 1)
    # The canary got it: swap stays, though nothing waits any more.
    after = decide(canary=Pods(1, 1), stable=Pods(3, 3), gave_way=1)
    assert (numbers(after), after.mode, after.reason) == ((3, 1), Mode.SWAP, "")
    assert "stable would be whole in about 90 s" in after.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"wanted": 1, "stable": Pods(1, 1)}, "the one stable pod cannot give way"),
        ({"surge": Surge.ALWAYS}, "rollout.surge is Always"),
        ({"load": Load(None, 1)}, "the load of stable is not known yet"),
        (
            {"load": Load(0.6, 1)},
            "does not fit on 3 pods of stable (0.8 requests in flight in each",
        ),
        ({"stable": Pods(4, 3)}, "only 3 of 4 pods of stable are ready"),
        (
            {"stable": Pods(3, 3), "gave_way": 1},
            "1 pod gave way already, and what that freed went elsewhere",
        ),
        (
            {"stable": Pods(1, 1), "gave_way": 3, "next_share": 1.0, "canary": waiting(3, 2)},
            "the last stable pod stays, as the way back",
        ),
    ],
)
def test_where_no_pod_may_give_way_it_waits_and_names_what_would_free_it(
    changes: dict[str, Any], words: str
) -> None:
    before = changes.get("gave_way", 0)
    found = decide(**({"canary": waiting(1, 0)} | changes))
    assert (found.mode, found.reason) == (Mode.WAITING, "WaitingForGPU")
    assert found.gave_way == before
    assert found.message.startswith(FULL)
    assert words in found.message
    for mend in ("rollout.strategy: Recreate", "one more GPU", "fewer replicas elsewhere"):
        assert mend in found.message


def test_always_says_from_the_start_that_it_waits() -> None:
    found = decide(surge=Surge.ALWAYS, canary=waiting(1, 0, 1.0))
    assert numbers(found) == (4, 1)
    assert "Always: it waits until there is room" in found.message


def test_the_load_is_littles_law_for_all_instances_of_a_pod() -> None:
    # Four pods with 2.1 each are three with 2.8: 70 % of four instances.
    assert decide(canary=waiting(1, 0), load=Load(2.09, 4)).gave_way == 1
    assert decide(canary=waiting(1, 0), load=Load(2.11, 4)).gave_way == 0


def test_never_has_no_pod_more_than_wanted_at_any_time() -> None:
    found = decide(surge=Surge.NEVER)
    assert (numbers(found), found.mode) == ((3, 1), Mode.SWAP)
    unknown = decide(surge=Surge.NEVER, load=Load(None, 1))
    assert (numbers(unknown), unknown.reason) == ((4, 0), "StableShort")
    assert "rollout.surge is Never, and the load of stable is not known yet" in unknown.message
    alone = decide(surge=Surge.NEVER, wanted=1, stable=Pods(1, 1))
    assert (numbers(alone), alone.mode) == ((1, 0), Mode.WAITING)


def test_surge_set_to_never_on_the_way_takes_no_pod_that_serves() -> None:
    found = decide(
        surge=Surge.NEVER, phase=Phase.CANARY, share=0.5, next_share=1.0, canary=Pods(2, 2)
    )
    assert found.canary >= 2


def test_a_second_pod_gives_way_only_after_a_while() -> None:
    state: dict[str, Any] = {
        "phase": Phase.CANARY,
        "share": 0.25,
        "next_share": 0.5,
        "stable": Pods(3, 3),
        "canary": waiting(2, 1),
        "gave_way": 1,
    }
    assert decide(**state, gave_way_s_ago=59.0).gave_way == 1
    assert decide(**state, gave_way_s_ago=60.0).gave_way == 2
    assert decide(**state).gave_way == 2


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.25, 1), (0.5, 2)])
def test_a_stable_pod_without_a_gpu_comes_before_further_canary_pods(
    share: float, kept: int
) -> None:
    phase = Phase.CANARY if share else Phase.PREPARING
    found = decide(
        phase=phase, share=share, next_share=1.0, stable=waiting(4, 3), canary=waiting(4, 2)
    )
    assert numbers(found) == (4, kept)
    assert (found.mode, found.reason) == (Mode.WAITING, "StableShort")
    assert "Stable comes first" in found.message


@pytest.mark.parametrize("phase", [Phase.ROLLED_BACK, Phase.SUPERSEDED])
def test_after_a_swap_stable_gets_its_pods_back_before_anything_is_kept(phase: Phase) -> None:
    found = decide(phase=phase, gave_way=2, stable=Pods(2, 2), canary=Pods(2, 2), keep_failed=True)
    assert numbers(found) == (4, 0)
    assert (found.reason, found.swap_back_s) == ("StableShort", 90.0)
    assert "2 of 4 are ready, all in about 90 s" in found.message
    whole = decide(phase=phase, gave_way=2, stable=Pods(4, 4))
    assert (numbers(whole), whole.gave_way, whole.reason) == ((4, 0), 0, "")


def test_failed_pods_are_kept_only_where_they_take_no_gpu_from_stable() -> None:
    state: dict[str, Any] = {
        "phase": Phase.ROLLED_BACK,
        "canary": Pods(2, 0),
        "keep_failed": True,
    }
    assert decide(**state).canary == 2
    assert decide(**state, gave_way=2).canary == 0
    assert decide(**state, stable=waiting(4, 3)).canary == 0


def test_a_scale_edit_in_a_swap_reaches_stable_at_once() -> None:
    state: dict[str, Any] = {"gave_way": 1, "canary": Pods(1, 1), "stable": Pods(3, 3)}
    assert decide(**state, wanted=6).stable == 5
    assert numbers(decide(**state, wanted=2)) == (1, 1)
    assert numbers(decide(**state, wanted=1)) == (1, 1)


# Whole rollouts.


@pytest.mark.parametrize(
    ("gpus", "wanted", "in_flight", "most_given"),
    [
        (8, 4, None, 0),  # room for both: no load needs to be known
        (5, 4, 1.2, 3),
        (7, 4, 1.2, 1),  # one give-way, and the canary gets all its pods
        (4, 4, 1.2, 3),
        (2, 2, 0.6, 1),
        (2, 1, None, 0),
    ],
)
def test_a_good_version_is_promoted(
    gpus: int, wanted: int, in_flight: float | None, most_given: int
) -> None:
    run = Run.begin(gpus, wanted, steps=(0.05, 0.25, 0.5), in_flight=in_flight).run()
    assert run.phase is Phase.PROMOTED
    assert wanted - min(stable for stable, _ in run.asked) == most_given
    assert run.cluster.view("canary").ready == wanted
    assert run.cluster.view("stable").there == 0


@pytest.mark.parametrize(
    ("gpus", "wanted", "in_flight"), [(1, 1, 0.1), (2, 2, 1.0), (2, 2, None), (4, 4, 2.5)]
)
def test_without_room_it_waits_and_serves_as_before(
    gpus: int, wanted: int, in_flight: float | None
) -> None:
    run = Run.begin(gpus, wanted, steps=(0.05, 0.5), in_flight=in_flight).run()
    assert run.last is not None
    assert (run.phase, run.last.reason) == (Phase.PREPARING, "WaitingForGPU")
    assert run.cluster.view("stable").ready == wanted
    run.cluster.gpus += wanted  # What it waits for comes.
    run.run()
    assert run.phase is Phase.PROMOTED


def test_recreate_needs_no_further_gpu() -> None:
    run = Run.begin(1, 1, steps=(0.5,), in_flight=None, strategy=Strategy.RECREATE).run()
    assert run.phase is Phase.PROMOTED
    assert run.cluster.view("canary").ready == 1


@st.composite
def rollouts(draw: st.DrawFn) -> Run:
    """A rollout on a cluster that is too small, just right or ample, under some load."""
    wanted = draw(st.integers(1, 6))
    steps = draw(
        st.lists(st.sampled_from((0.01, 0.05, 0.1, 0.25, 0.5, 0.75)), min_size=1, unique=True)
    )
    load = draw(st.none() | st.floats(0, FULLEST))
    strategy = draw(st.sampled_from((Strategy.CANARY, Strategy.CANARY, Strategy.BLUE_GREEN)))
    canary = strategy is Strategy.CANARY
    return Run.begin(
        wanted + draw(st.integers(0, wanted + 1)),
        wanted,
        steps=tuple(sorted(steps)),
        in_flight=None if load is None else load * wanted,
        surge=draw(st.sampled_from(tuple(Surge) if canary else (Surge.AUTO, Surge.ALWAYS))),
        strategy=strategy,
        surge_wait_s=draw(st.sampled_from((0, 30, 120))),
        bad_at=draw(st.none() | st.sampled_from((0.0, 0.05, 0.5, 1.0))),
    )


@given(rollouts())
def test_whatever_the_cluster_stable_keeps_what_its_load_needs(run: Run) -> None:
    given_before = 0
    for _ in range(250):
        run.tick()
        stable = run.cluster.view("stable")
        if run.over:
            continue
        # S1: under surge all; under swap at least one, and never fuller than taken to fit.
        assert stable.ready >= run.wanted - run.gave_way >= 1
        load = run.per_pod()
        if run.gave_way and load is not None:
            assert load <= FULLEST * run.instances + 1e-9
        assert run.gave_way >= given_before
        given_before = run.gave_way
        if run.surge is Surge.NEVER:
            assert sum(run.asked[-1]) <= run.wanted
    # Never back and forth: stable only gives, the canary only grows, but for the one pod that
    # never found a GPU and is not asked for any more once the last stable pod is left.
    stables = [s for s, _ in run.asked]
    canaries = [c for _, c in run.asked]
    assert stables == sorted(stables, reverse=True)
    assert sum(b < a for a, b in pairwise(canaries)) <= 1
    # It comes to an end, or says what it waits for.
    if run.over:
        name = "canary" if run.phase is Phase.PROMOTED else "stable"
        assert run.cluster.view(name).ready == run.wanted
    else:
        assert run.last is not None
        assert run.last.mode is Mode.WAITING
        assert run.last.reason in ("WaitingForGPU", "StableShort")
        assert "one more GPU" in run.last.message


@given(rollouts(), st.data())
def test_a_lost_stable_pod_comes_back_before_the_canary_grows(
    run: Run, data: st.DataObject
) -> None:
    lost_at = set(data.draw(st.lists(st.integers(0, 80), max_size=5)))
    for tick in range(400):
        if tick in lost_at:
            run.cluster.lose("stable" if run.phase is not Phase.PROMOTED else "canary")
        run.tick()
    name = "canary" if run.phase is Phase.PROMOTED else "stable"
    assert run.last is not None
    assert run.cluster.view(name).ready == run.last.stable
    assert run.last.stable == run.wanted - run.gave_way


@given(rollouts())
def test_the_same_world_gives_the_same_answer_after_a_restart_between_writes(run: Run) -> None:
    for _ in range(60):
        first = run.place()
        run.gave_way = first.gave_way  # The record is written, and the operator dies.
        assert numbers(run.place()) == numbers(first)
        run.tick()
