"""Each revision is asked the golden requests that were named together with it."""

from typing import Any

import pytest

from tests.unit.rollout.world import World
from tidegate.api.names import GOLDEN_ANNOTATION
from tidegate.record import Phase
from tidegate.rollout import LIVE


def named(name: str) -> dict[str, Any]:
    return {"configMapName": name, "every": "10m"}


def serving(golden: str = "golden-1") -> World:
    """A first version that serves, with known answers or without."""
    world = World()
    if golden:
        world.edit(goldenRequests=named(golden))
    world.settle()
    assert world.record.phase is Phase.PROMOTED
    return world


def asked(world: World) -> dict[str, set[str]]:
    """Revisions whose pods are asked, by ConfigMap."""
    revision_of = {p.uid: p.revision for p in world.pods}
    return {v.config_map: {revision_of[uid] for uid in v.pods} for v in world.last.verify}


def on_trial(world: World) -> None:
    world.until(lambda w: w.record.phase in LIVE and w.ready(w.record.canary) > 0)
    world.reconcile()


def test_on_trial_beside_the_stable_one() -> None:
    world = serving()
    world.edit(goldenRequests=named("golden-2"))
    world.version(2)
    on_trial(world)
    stable, canary = world.record.stable, world.record.canary
    assert asked(world) == {"golden-1": {stable}, "golden-2": {canary}}
    assert {v.every_s for v in world.last.verify} == {600.0}
    world.settle()
    assert (world.record.phase, world.record.stable) == (Phase.PROMOTED, canary)
    assert asked(world) == {"golden-2": {canary}}


@pytest.mark.parametrize("restarted", [False, True])
def test_after_a_rollback_stable_is_asked_its_own(restarted: bool) -> None:
    world = serving()
    stable = world.record.stable
    world.edit(goldenRequests=named("golden-2"))
    world.version(2)
    on_trial(world)
    world.golden_wrong.add(world.record.canary)
    world.settle()
    assert (world.record.phase, world.record.stable) == (Phase.ROLLED_BACK, stable)
    if restarted:
        world.restart()
        world.settle()
    assert asked(world) == {"golden-1": {stable}}
    assert world.condition("AnswersRight")["status"] == "True"


def test_after_undo_too() -> None:
    world = serving()
    first = world.record.stable
    world.edit(goldenRequests=named("golden-2"))
    world.version(2)
    world.settle()
    world.ask("undo")
    world.settle()
    assert world.record.stable == first
    assert asked(world) == {"golden-1": {first}}


def test_edited_alone_it_is_that_of_what_serves() -> None:
    world = serving()
    world.edit(goldenRequests=named("golden-1b"))
    world.settle()
    assert asked(world) == {"golden-1b": {world.record.stable}}
    world.edit(goldenRequests=named("golden-2"))
    world.version(2)
    on_trial(world)
    assert asked(world)["golden-1b"] == {world.record.stable}


def test_one_without_known_answers_is_not_asked_the_next_ones() -> None:
    world = serving("")
    world.edit(goldenRequests=named("golden-2"))
    world.version(2)
    on_trial(world)
    assert asked(world) == {"golden-2": {world.record.canary}}
    assert "AnswersRight" not in {c["type"] for c in world.status["conditions"]}


def test_without_any_nobody_is_asked_and_what_was_named_is_kept() -> None:
    world = serving()
    stable = world.record.stable
    del world.spec["goldenRequests"]
    world.version(2)
    on_trial(world)
    assert asked(world) == {}
    (keeper,) = (
        k for k in world.of_kind("ControllerRevision") if k["metadata"]["name"].endswith(stable)
    )
    assert keeper["metadata"]["annotations"][GOLDEN_ANNOTATION] == "golden-1"
