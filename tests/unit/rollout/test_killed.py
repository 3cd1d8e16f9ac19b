"""The operator dies between any two writes, and goes on to the same end as if it had not."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.rollout.invariants import check_rest
from tests.unit.rollout.world import SEARCH, Quality, World
from tidegate.record import Phase

Script = Callable[[World], Iterator[None]]
"""Changes the world, and yields where the operator is to look; it may die there."""


def a_good_version(world: World) -> Iterator[None]:
    world.version(2)
    yield


def a_bad_version(world: World) -> Iterator[None]:
    world.version(2)
    yield
    world.until(lambda w: w.record.phase is Phase.CANARY)
    world.quality[world.record.canary] = Quality.BAD
    yield


def superseded_in_the_middle(world: World) -> Iterator[None]:
    world.version(2)
    yield
    world.until(lambda w: w.record.weight >= 0.25)
    world.version(3)
    yield


def reverted_in_the_middle(world: World) -> Iterator[None]:
    world.version(2)
    yield
    world.until(lambda w: w.record.weight >= 0.25)
    world.version(1)
    yield


def undone_in_the_middle(world: World) -> Iterator[None]:
    world.version(2)
    yield
    world.until(lambda w: w.record.weight >= 0.25)
    world.ask("undo")
    yield


def aborted_then_retried(world: World) -> Iterator[None]:
    world.version(2)
    yield
    world.until(lambda w: w.record.phase is Phase.CANARY)
    world.ask("abort")
    yield
    world.run(60)
    world.ask("retry")
    yield


def restarted(world: World) -> Iterator[None]:
    world.ask("restart")
    yield


def swapped_for_want_of_gpus(world: World) -> Iterator[None]:
    world.gpus = 3
    world.version(2)
    yield
    world.until(lambda w: w.record.gave_way > 0)
    yield


def recreated(world: World) -> Iterator[None]:
    world.edit(rollout={"strategy": "Recreate"})
    world.version(2)
    yield


def without_a_gateway(world: World) -> Iterator[None]:
    world.spec["traffic"] = {}
    world.generation += 1
    yield
    world.version(2)
    yield


SCRIPTS: tuple[Script, ...] = (
    a_good_version,
    a_bad_version,
    superseded_in_the_middle,
    reverted_in_the_middle,
    undone_in_the_middle,
    aborted_then_retried,
    restarted,
    swapped_for_want_of_gpus,
    recreated,
    without_a_gateway,
)


class Twice(World):
    """Each pass is followed by another one at the same instant."""

    def reconcile(self) -> int:
        writes = super().reconcile()
        assert super().reconcile() == 0, self.log[-1]
        return writes


def live(kind: type[World] = World) -> World:
    world = kind()
    world.settle(quiet=3)
    return world


STARTED = live()
TWICE = live(Twice)


def play(script: Script, started: World = STARTED, die_after: int | None = None) -> World:
    """The script; the operator dies once, after so many further writes."""
    world = copy.deepcopy(started)
    world.in_flight_per_stable = 0.1
    if die_after is not None:
        world.die_at = world.writes + die_after
    for _ in script(world):
        world.tick(5)
    world.settle(quiet=3)
    return world


def end(world: World) -> dict[str, Any]:
    """What is left, without what depends on time and on names drawn."""
    record = world.record
    return {
        "record": (record.stable, record.phase, record.reason, record.weight, record.target),
        "shares": world.shares(),
        "children": sorted((r.kind, r.name) for r in world.children),
        "replicas": {
            o["metadata"]["name"]: o["spec"]["replicas"] for o in world.of_kind("Deployment")
        },
        "conditions": {c["type"]: (c["status"], c["reason"]) for c in world.status["conditions"]},
        "failed": [f["hash"] for f in world.status["revisions"].get("failed") or ()],
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_the_same_end_wherever_it_died(script: Script) -> None:
    # Alive to the end, and planning again at once changes nothing.
    whole = play(script, TWICE)
    check_rest(whole)
    writes = whole.writes - TWICE.writes
    assert writes >= 5
    # One in seven, another one for each script; all of them with the profile `search`.
    first, stride = (0, 1) if SEARCH else (SCRIPTS.index(script) % 7, 7)
    for die_after in range(first, writes, stride):
        world = play(script, die_after=die_after)
        assert end(world) == end(whole), f"died after {die_after} of {writes} writes"


def test_a_rollback_is_the_first_write_of_its_pass() -> None:
    """Ahead of children to be put back, pods to be scaled and everything else."""
    world = copy.deepcopy(STARTED)
    world.version(2)
    world.until(lambda w: w.record.phase is Phase.CANARY)
    stable, canary = world.record.stable, world.record.canary
    for ref in [r for r in world.children if r.kind in ("ConfigMap", "NetworkPolicy")]:
        del world.children[ref]
    world.edit(replicas=5)
    world.quality[canary] = Quality.BAD
    world.die_at = world.writes + 1
    world.tick(5)
    assert world.record.phase is Phase.ROLLED_BACK
    assert world.shares() == {stable: 1.0}
