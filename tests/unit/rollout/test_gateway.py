"""A gateway that goes, or is not there: what cannot be sent is not said to be sent."""

from typing import Any

import pytest

from tests.unit.plan.world import copied
from tests.unit.rollout.test_regressions import at_step, live
from tests.unit.rollout.world import SPEC, World
from tidegate.record import Phase


def without_gateway(world: World) -> None:
    world.spec["traffic"] = {}
    world.generation += 1


def said(world: World) -> dict[str, Any]:
    return {t["revision"]: t["weight"] for t in world.status["traffic"]}


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_taken_out_in_a_step_stable_has_all_and_it_waits(weight: float) -> None:
    world = at_step(weight)
    record = world.record
    without_gateway(world)
    world.run(600, step=60)
    assert (world.record.phase, world.record.weight) == (Phase.CANARY, 0.0)
    assert world.shares() == {record.stable: 1.0}
    assert said(world) == {record.stable: 100, record.canary: 0}
    assert world.status["rollout"]["hold"] == "WaitingForRoute"
    assert "traffic.gateway is gone" in world.status["rollout"]["message"]
    world.edit(traffic=copied(SPEC["traffic"]))
    world.until(lambda w: w.record.weight > 0)
    world.settle()
    assert world.record.stable == record.canary


def test_then_promoted_by_hand() -> None:
    world = at_step(0.05)
    without_gateway(world)
    world.run(20)
    world.ask("promote")
    world.until(lambda w: w.record.phase is Phase.BAKING)


def test_taken_out_of_a_mirror_it_goes_the_way_without_a_gateway() -> None:
    world = live()
    world.version(2)
    world.until(lambda w: w.record.phase is Phase.MIRRORING)
    without_gateway(world)
    world.until(lambda w: w.record.phase is Phase.BAKING)
    assert world.record.mirror == 0.0


def test_asked_for_where_the_cluster_has_no_such_api_nothing_moves() -> None:
    """Else one who asked for steps would get everything at once."""
    world = live()
    world.present_kinds = frozenset()
    world.version(2)
    world.run(240, step=60)
    assert world.record.weight == 0.0
    assert world.status["rollout"]["hold"] == "WaitingForRoute"
    assert "does not serve HTTPRoutes" in world.status["rollout"]["message"]
