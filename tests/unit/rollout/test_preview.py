"""BlueGreen: the new revision can be looked at before anything is switched."""

from tests.unit.rollout.test_regressions import live
from tests.unit.rollout.world import ENTRY, ROUTE, Quality, World
from tidegate.record import Phase
from tidegate.resources.services import revision_of


def preview() -> World:
    """All pods of another version beside the old ones; a gate holds the switch."""
    world = live()
    world.edit(
        rollout={
            "strategy": "BlueGreen",
            "gates": ["Approved"],
            "pin": {"headers": {"x-preview": "yes"}},
        },
        goldenRequests={"configMapName": "golden"},
    )
    world.version(2)
    world.until(lambda w: w.status["rollout"].get("hold") == "WaitingForGates")
    return world


def led_to(world: World) -> list[tuple[list[str], list[str]]]:
    """Of each rule of the route: the headers that it asks for, the revisions that it leads to."""
    return [
        (
            [f"{h['name']}={h['value']}" for m in rule["matches"] for h in m.get("headers", ())],
            [b["name"].rpartition("-")[2] for b in rule["backendRefs"]],
        )
        for rule in world.children[ROUTE]["spec"]["rules"]
    ]


def test_a_preview_is_reached_by_its_header_and_by_nobody_else() -> None:
    world = preview()
    stable, canary = world.record.stable, world.record.canary
    # Copies of live requests go on to it: what is looked at is judged meanwhile.
    assert world.record.phase is Phase.MIRRORING
    assert world.ready(canary) == 3
    before = [([], [stable]), (["x-preview=yes"], [canary])]
    assert led_to(world) == before
    assert revision_of(world.children[ENTRY]) == stable
    world.run(600)
    assert led_to(world) == before, "it stays as long as nobody decides"
    world.ask("promote")
    world.until(lambda w: w.record.phase is Phase.BAKING)
    assert led_to(world) == [([], [canary])]
    assert world.ready(stable) == 3
    world.quality[canary] = Quality.BAD  # the way back is instant
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    assert led_to(world) == [([], [stable])]


def test_a_preview_that_is_not_wanted_leaves_with_its_header() -> None:
    world = preview()
    world.ask("abort")
    world.settle()
    assert led_to(world) == [([], [world.record.stable])]


def test_wrong_golden_answers_are_never_shown_as_a_preview() -> None:
    world = live()
    world.edit(
        rollout={"strategy": "BlueGreen", "pin": {"headers": {"x-preview": "yes"}}},
        goldenRequests={"configMapName": "golden"},
    )
    world.version(2)
    world.tick()
    world.golden_wrong.add(world.record.canary)
    while world.record.phase is not Phase.ROLLED_BACK:
        assert len(led_to(world)) == 1
        world.tick()
