"""Recreate: the old pods go first, so whatever is waited for is waited for with them."""

from typing import Any

import pytest

from tests.unit.rollout.test_gates import say
from tests.unit.rollout.test_regressions import at_step, live
from tests.unit.rollout.world import World
from tidegate.record import Phase

HELD: dict[str, tuple[dict[str, Any], str]] = {
    "by the spec": ({"paused": True}, "Paused"),
    "by a request": ({}, "Paused"),
    "by a gate": ({"gates": ["Accurate"]}, "WaitingForGates"),
}


def held(how: str) -> World:
    """Another version that is not to begin yet."""
    world = live()
    asked, hold = HELD[how]
    world.edit(rollout={"strategy": "Recreate", **asked})
    if how == "by a request":
        world.ask("pause")
        world.tick()
    world.version(2)
    world.run(1500, step=300)
    assert world.status["rollout"]["hold"] == hold
    assert "the old pods serve" in world.status["rollout"]["message"]
    return world


def serves_as_before(world: World) -> bool:
    record = world.record
    asked = world.asked(record.stable), world.asked(record.canary)
    return asked == (3, 0) and world.condition("Available")["status"] == "True"


@pytest.mark.parametrize("how", HELD)
def test_while_it_is_held_the_old_pods_serve_and_no_deadline_passes(how: str) -> None:
    world = held(how)
    assert world.record.phase is Phase.PREPARING
    assert serves_as_before(world)
    world.restart()
    world.run(40, step=20)
    assert serves_as_before(world)


@pytest.mark.parametrize("how", HELD)
def test_let_go_it_takes_over_and_has_its_whole_time_to_come_up(how: str) -> None:
    world = held(how)
    canary = world.record.canary
    if how == "by the spec":
        world.edit(rollout={"paused": False})
    elif how == "by a request":
        world.ask("resume")
    else:
        say(world, "True")
    world.until(lambda w: w.asked(w.record.stable) == 0)
    world.until(lambda w: w.record.weight == 1.0)
    assert (world.record.canary, world.ready(canary)) == (canary, 3)


@pytest.mark.parametrize(
    ("verb", "ends"), [("promote", Phase.BAKING), ("abort", Phase.ROLLED_BACK)]
)
@pytest.mark.parametrize("how", HELD)
def test_a_request_decides_it(how: str, verb: str, ends: Phase) -> None:
    world = held(how)
    world.ask(verb)
    world.until(lambda w: w.record.phase is not Phase.PREPARING)
    assert world.record.phase is ends


def test_a_gate_that_shuts_when_the_old_pods_are_gone_makes_the_gap_no_longer() -> None:
    world = held("by a gate")
    canary = world.record.canary
    say(world, "True")
    world.until(lambda w: w.ready(w.record.stable) == 0)
    say(world, "False")
    world.until(lambda w: w.record.weight == 1.0)
    assert world.ready(canary) == 3


def test_paused_while_the_old_pods_go_either_side_serves() -> None:
    world = live()
    world.edit(rollout={"strategy": "Recreate"})
    world.version(2)
    world.reconcile()
    world.edit(rollout={"paused": True})
    world.until(lambda w: serves_as_before(w) or w.record.weight == 1.0)


def test_paused_when_they_are_gone_it_makes_the_gap_no_longer() -> None:
    world = live()
    world.edit(rollout={"strategy": "Recreate"})
    world.version(2)
    world.until(lambda w: w.ready(w.record.stable) == 0)
    world.edit(rollout={"paused": True})
    world.until(lambda w: w.record.weight == 1.0)
    world.run(300, step=60)
    assert (world.record.phase, world.status["rollout"]["hold"]) == (Phase.BAKING, "Paused")


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_chosen_in_the_middle_it_takes_no_pod_that_has_traffic(weight: float) -> None:
    """The steps go on; only with all of the traffic gone the old pods go."""
    world = at_step(weight)
    stable = world.record.stable
    world.edit(rollout={"strategy": "Recreate"})
    while world.record.phase is Phase.CANARY:
        assert world.asked(stable) == 3
        assert world.condition("Available")["status"] == "True"
        world.tick(20)
    assert world.record.phase is Phase.BAKING
