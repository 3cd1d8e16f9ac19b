"""What the evidence does not decide, ``rollout.onInconclusive`` does, at its deadline."""

from copy import deepcopy

import pytest

from tests.unit.rollout.test_regressions import at_step, live
from tests.unit.rollout.world import Quality, World
from tidegate.record import Phase

DEADLINE_S = 600


def undecided(action: str) -> World:
    """A canary at its first step that gets no more requests."""
    world = live()
    decides = {"action": action, "deadline": f"{DEADLINE_S}s"}
    world.edit(rollout={"mirror": {"mode": "Off"}, "onInconclusive": decides})
    world.rps = 0.0
    world.version(2)
    world.until(lambda w: w.record.phase is Phase.CANARY)
    return world


def at(world: World) -> tuple[Phase, float]:
    return world.record.phase, world.record.weight


ENDS = {
    "Hold": (Phase.CANARY, 0.05),
    "Promote": (Phase.CANARY, 0.25),
    "RollBack": (Phase.ROLLED_BACK, 0.0),
}


@pytest.mark.parametrize("action", ENDS)
def test_too_few_requests(action: str) -> None:
    world = undecided(action)
    world.run(DEADLINE_S - 60, step=60)
    assert at(world) == ENDS["Hold"]
    world.run(120, step=60)
    assert at(world) == ENDS[action]
    if action == "RollBack":
        assert world.record.reason == "Inconclusive"
        assert "onInconclusive.deadline" in world.record.message


def test_promoted_so_it_goes_on_step_by_step_and_bakes() -> None:
    world = undecided("Promote")
    seen = []
    while world.record.phase is not Phase.BAKING:
        seen += [world.record.weight] if world.record.weight not in seen else []
        world.run(60, step=60)
    assert seen == [0.05, 0.25, 0.5]


@pytest.mark.parametrize("action", ENDS)
def test_counters_that_cannot_be_read_for_so_long(action: str) -> None:
    world = undecided(action)
    world.metrics_down = True
    world.run(DEADLINE_S - 60, step=60)
    assert at(world) == ENDS["Hold"]
    assert world.status["rollout"]["hold"] == "MetricsUnavailable"
    world.run(180, step=60)
    assert at(world) == ENDS[action]


@pytest.mark.parametrize("gap", ["restart", "silence"])
@pytest.mark.parametrize("action", ["Promote", "RollBack"])
def test_after_the_deadline_a_moment_without_counters_decides_nothing(
    action: str, gap: str
) -> None:
    """All is proved and a gate is waited for, longer than the deadline."""
    world = at_step(0.5)
    world.edit(
        rollout={
            "gates": ["Approved"],
            "onInconclusive": {"action": action, "deadline": f"{DEADLINE_S}s"},
        }
    )
    world.until(lambda w: w.status["rollout"].get("hold") == "WaitingForGates")
    world.run(2 * DEADLINE_S, step=300)
    if gap == "restart":
        world.restart()
        world.metrics_down = True  # until the first look
    else:
        world.metrics_down = True
    world.run(30)
    assert at(world) == (Phase.CANARY, 0.5)
    world.metrics_down = False
    world.run(20)
    assert at(world) == (Phase.CANARY, 0.5)
    assert world.status["rollout"]["hold"] == "WaitingForGates"


def test_out_of_sight_in_the_bake_the_old_pods_stay() -> None:
    world = live()
    world.version(2)
    world.until(lambda w: w.record.phase is Phase.BAKING)
    stable = world.record.stable
    world.metrics_down = True
    world.run(600, step=60)
    assert (world.record.phase, world.ready(stable)) == (Phase.BAKING, 3)
    assert world.status["rollout"]["hold"] == "MetricsUnavailable"
    assert "The old pods stay" in world.status["rollout"]["message"]
    if_seen, by_hand = deepcopy(world), world
    if_seen.metrics_down = False
    if_seen.until(lambda w: w.record.phase is Phase.PROMOTED)
    by_hand.ask("promote")
    by_hand.until(lambda w: w.record.phase is Phase.PROMOTED)


def test_a_bad_one_is_rolled_back_whatever_is_to_be_done_at_the_deadline() -> None:
    world = undecided("Promote")
    world.quality[world.record.canary] = Quality.BAD
    world.rps = 20.0
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    assert world.record.reason == "ErrorRate"
