"""Gates: conditions that another party sets hold a promotion, and open it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.rollout.test_regressions import live
from tests.unit.rollout.world import World
from tidegate.quality.policy import Policy
from tidegate.quality.report import Figures, report
from tidegate.record import Phase


def gated() -> World:
    """A canary at the last step, with all that the SLO asks for."""
    world = live()
    world.edit(rollout={"gates": ["Accurate"]})
    world.version(2)
    held(world)
    return world


def held(world: World) -> None:
    world.until(lambda w: w.status["rollout"].get("hold") == "WaitingForGates")


def say(world: World, status: str) -> None:
    """As another field manager does: the operator's next write leaves it."""
    others = [c for c in world.status["conditions"] if c["type"] != "Accurate"]
    told = {"type": "Accurate", "status": status, "reason": "Shown", "message": ""}
    world.status["conditions"] = [*others, told]


def test_it_is_held_at_the_last_step_until_the_condition_is_true() -> None:
    world = gated()
    canary = world.record.canary
    assert (world.record.phase, world.record.weight) == (Phase.CANARY, 0.5)
    assert world.status["rollout"]["message"] == "rollout.gates: Accurate not True"
    for status in ("Unknown", "False"):
        say(world, status)
        world.tick()
        assert world.record.phase is Phase.CANARY
    say(world, "True")
    world.tick()
    assert world.record.phase is Phase.BAKING
    world.settle()
    assert world.record.stable == canary


@pytest.mark.parametrize(("right", "open_"), [(990, True), (910, False), (700, False)])
def test_what_labels_show_opens_it_or_not(right: int, open_: bool) -> None:
    world = gated()
    canary = world.record.canary
    figures = {canary: Figures(right, 1000), world.record.stable: Figures(990, 1000)}
    found: Any = report(
        world.deployment, Policy(min_accuracy="90%"), {}, figures, datetime.now(UTC)
    )
    say(world, found.verdicts[0].status)
    world.tick()
    assert (world.record.phase is Phase.BAKING) is open_
