"""What each verb does in each phase, and why not."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import pytest

from tests.unit.rollout.test_gates import say
from tests.unit.rollout.test_inconclusive import undecided
from tests.unit.rollout.test_regressions import at_step, live
from tests.unit.rollout.world import World
from tidegate.record import Phase


def tried(phase: Phase) -> World:
    world = live()
    world.version(2)
    world.until(lambda w: w.record.phase is phase)
    return world


def blue_green() -> World:
    world = live()
    world.edit(rollout={"strategy": "BlueGreen"})
    world.version(2)
    world.until(lambda w: w.record.phase is Phase.MIRRORING)
    return world


PHASES: dict[str, Callable[[], World]] = {
    "mirroring": lambda: tried(Phase.MIRRORING),
    "first step": lambda: at_step(0.05),
    "last step": lambda: at_step(0.5),
    "baking": lambda: tried(Phase.BAKING),
    "at rest": live,
    "the first": World,
    "blue-green": blue_green,
}


@cache
def _come_to(where: str) -> World:
    return PHASES[where]()


def come_to(where: str) -> World:
    return deepcopy(_come_to(where))


GRANTED: dict[tuple[str, str], tuple[Phase, float]] = {
    ("promote", "mirroring"): (Phase.BAKING, 1.0),
    ("promote", "first step"): (Phase.BAKING, 1.0),
    ("promote", "blue-green"): (Phase.BAKING, 1.0),
    ("skip-step", "mirroring"): (Phase.CANARY, 0.05),
    ("skip-step", "first step"): (Phase.CANARY, 0.25),
    ("skip-step", "last step"): (Phase.BAKING, 1.0),
    ("abort", "mirroring"): (Phase.ROLLED_BACK, 0.0),
    ("abort", "first step"): (Phase.ROLLED_BACK, 0.0),
    ("abort", "baking"): (Phase.ROLLED_BACK, 0.0),
    ("undo", "first step"): (Phase.SUPERSEDED, 0.0),
    ("undo", "baking"): (Phase.SUPERSEDED, 0.0),
}
REFUSED = {
    ("promote", "baking"): "all of the traffic already",
    ("promote", "at rest"): "no rollout is under way (Promoted)",
    ("promote", "the first"): "it is the first revision",
    ("abort", "at rest"): "no rollout is under way (Promoted)",
    ("abort", "the first"): "it is the first revision",
    ("skip-step", "baking"): "not at a step",
    ("skip-step", "blue-green"): "does not go by steps",
    ("retry", "first step"): "on trial already",
    ("retry", "at rest"): "has not failed",
    ("undo", "at rest"): "no such kept revision",
}


@pytest.mark.parametrize(("verb", "where"), GRANTED)
def test_granted(verb: str, where: str) -> None:
    world = come_to(where)
    reached = GRANTED[verb, where]
    world.ask(verb)
    for _ in range(6):  # until its pods can carry that, no step by itself
        world.tick(5)
        if (world.record.phase, world.record.weight) == reached:
            break
    assert (world.record.phase, world.record.weight) == reached
    assert [e.reason for e in world.events if e.reason.startswith("Request")] == (
        [] if verb == "abort" else ["RequestGranted"]
    )


@pytest.mark.parametrize(("verb", "where"), REFUSED)
def test_refused_with_the_reason_and_nothing_changes(verb: str, where: str) -> None:
    world = come_to(where)
    world.reconcile()
    before = world.record
    world.ask(verb)
    world.reconcile()
    (event,) = [e for e in world.events if e.reason == "RequestRefused"]
    assert REFUSED[verb, where] in event.message
    after = world.record
    assert (after.phase, after.weight, after.canary) == (before.phase, before.weight, before.canary)


@pytest.mark.parametrize("how", ["skip-step", "onInconclusive: Promote", "promote"])
def test_a_gate_is_passed_by_promote_alone(how: str) -> None:
    world = live()
    decides = {"action": "Promote", "deadline": "10m"}
    world.edit(rollout={"gates": ["Accurate"], "onInconclusive": decides})
    world.version(2)
    world.until(lambda w: w.record.weight == 0.5)
    world.rps = 0.0
    if how == "onInconclusive: Promote":
        world.run(900, step=300)
    else:
        world.ask(how)
        world.tick(30)
    assert (world.record.phase is Phase.BAKING) == (how == "promote")
    if how != "promote":
        say(world, "True")
        world.ask("skip-step")
        world.until(lambda w: w.record.phase is Phase.BAKING)


def test_handled_once() -> None:
    world = undecided("Hold")
    world.ask("skip-step")
    world.run(60, step=20)
    assert world.record.weight == 0.25
    world.restart()
    world.run(60, step=20)
    assert world.record.weight == 0.25


def test_paused_it_still_falls_and_goes_on_when_resumed() -> None:
    world = at_step(0.05)
    world.ask("pause")
    world.run(120, step=30)
    assert (world.record.phase, world.record.weight) == (Phase.CANARY, 0.05)
    assert world.status["rollout"]["hold"] == "Paused"
    world.ask("resume")
    world.until(lambda w: w.record.weight > 0.05)
