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


def say(world: World, status: str, revision: str | None = None) -> None:
    """As another field manager does: the operator's next write leaves it.

    Args:
        world: whose condition.
        status: True, False or Unknown.
        revision: of which; None: of the canary; empty: of none by name.
    """
    others = [c for c in world.status["conditions"] if c["type"] != "Accurate"]
    told = {"type": "Accurate", "status": status, "reason": "Shown", "message": ""}
    named = world.record.canary if revision is None else revision
    world.status["conditions"] = [*others, told | ({"revision": named} if named else {})]


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


def test_a_true_of_another_revision_opens_nothing() -> None:
    world = gated()
    stable, first = world.record.stable, world.record.canary
    say(world, "True", stable)
    world.run(300)
    assert (world.record.phase, world.record.canary) == (Phase.CANARY, first)
    message = f"rollout.gates: Accurate True of revision {stable}, not of {first}"
    assert world.status["rollout"]["message"] == message
    assert world.condition("Ready")["message"].startswith(message)
    # The one that was given for this canary does not open the next one's gate.
    say(world, "True")
    world.version(3)
    world.until(lambda w: w.record.canary != first)
    held(world)
    world.run(300)
    assert (world.record.phase, world.record.stable) == (Phase.CANARY, stable)
    assert f"not of {world.record.canary}" in world.status["rollout"]["message"]
    say(world, "True")
    world.tick()
    assert world.record.phase is Phase.BAKING


def test_a_true_of_no_revision_opens_nothing() -> None:
    world = gated()
    say(world, "True", "")
    world.run(300)
    assert world.record.phase is Phase.CANARY
    assert f"has to be {world.record.canary}" in world.status["rollout"]["message"]


def test_a_switch_at_once_asks_for_the_same() -> None:
    world = live()
    world.edit(rollout={"strategy": "BlueGreen", "gates": ["Accurate"]})
    world.version(2)
    held(world)
    for revision in (world.record.stable, ""):
        say(world, "True", revision)
        world.tick()
        assert world.record.weight == 0.0
    say(world, "True")
    world.tick()
    assert world.record.phase is Phase.BAKING


@pytest.mark.parametrize(("right", "open_"), [(990, True), (910, False), (700, False)])
def test_what_labels_show_opens_it_or_not(right: int, open_: bool) -> None:
    world = gated()
    canary = world.record.canary
    figures = {canary: Figures(right, 1000), world.record.stable: Figures(990, 1000)}
    found: Any = report(
        world.deployment, Policy(min_accuracy="90%"), {}, figures, datetime.now(UTC)
    )
    say(world, found.verdicts[0].status, found.verdicts[0].revision)
    world.tick()
    assert (world.record.phase is Phase.BAKING) is open_
