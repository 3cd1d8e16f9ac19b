"""What is lost with what is lost, as `docs/operations/disaster-recovery.md` tells it."""

from collections.abc import Callable

import pytest

from tests.unit.rollout.invariants import check_rest
from tests.unit.rollout.test_regressions import at_step, rolled_back
from tests.unit.rollout.world import ENTRY, ROUTE, World
from tidegate.record import Phase

Loss = Callable[[World], None]


def children(*kinds: str) -> Loss:
    """All children of these kinds are deleted at once."""

    def lose(world: World) -> None:
        for ref in [r for r in world.children if r.kind in kinds]:
            del world.children[ref]

    return lose


def both_carriers(world: World) -> None:
    """The two objects that hold the decision; what is left of it is status."""
    del world.children[ROUTE], world.children[ENTRY]


def status(world: World) -> None:
    world.status = {}


ONE: dict[str, Loss] = {
    "status": status,
    "HTTPRoute": children("HTTPRoute"),
    "entry and revisions' Services": children("Service"),
    "route and entry": both_carriers,
    "ControllerRevisions": children("ControllerRevision"),
    "ConfigMaps and pins": children("ConfigMap"),
    "Deployments": children("Deployment"),
}


@pytest.mark.parametrize("loss", ONE.values(), ids=ONE)
def test_a_rollout_goes_on(loss: Loss) -> None:
    world = at_step(0.05)
    stable, canary = world.record.stable, world.record.canary
    loss(world)
    world.restart()
    world.tick(1)
    assert (world.record.stable, world.record.canary) == (stable, canary)
    assert world.record.phase is Phase.CANARY
    assert world.shares()[canary] == pytest.approx(0.05)
    world.settle()
    assert world.shares() == {canary: 1.0}
    check_rest(world)


@pytest.mark.parametrize("loss", ONE.values(), ids=ONE)
def test_a_failed_version_stays_out(loss: Loss) -> None:
    world = rolled_back()
    stable, failed = world.record.stable, world.record.canary
    world.run(60)
    loss(world)
    world.restart()
    world.run(120)
    assert world.shares() == {stable: 1.0}
    assert failed in [f["hash"] for f in world.status["revisions"]["failed"]]
    assert world.condition("Stalled")["reason"] == "RolledBack"


def test_the_failed_version_keeps_its_name_when_only_status_knows_it() -> None:
    world = rolled_back()
    failed = world.record.canary
    world.run(60)
    both_carriers(world)
    world.restart()
    world.tick(1)
    assert [f["hash"] for f in world.status["revisions"]["failed"]] == [failed]
    assert (world.record.phase, world.record.canary) == (Phase.ROLLED_BACK, failed)


def test_what_served_serves_again_when_only_the_revisions_remember() -> None:
    world = rolled_back()
    stable, failed = world.record.stable, world.record.canary
    world.run(60)
    both_carriers(world)
    status(world)
    world.restart()
    world.run(120)
    assert world.shares() == {stable: 1.0}
    assert failed in [f["hash"] for f in world.status["revisions"]["failed"]]


def test_of_the_manifest_alone_its_version_starts_as_the_first() -> None:
    """As in a new cluster: nobody knows that it failed, or that another one served."""
    world = rolled_back()
    stable, failed = world.record.stable, world.record.canary
    world.children.clear()
    status(world)
    world.restart()
    world.settle()
    assert world.shares() == {failed: 1.0}
    assert stable not in world.shares()
    assert world.record.phase is Phase.PROMOTED
