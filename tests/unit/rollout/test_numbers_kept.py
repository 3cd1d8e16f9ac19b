"""The numbers behind a decision are kept where people look: status, Event, history, explain."""

import re
from dataclasses import replace

from tests.unit.rollout.test_regressions import at_step
from tests.unit.rollout.world import Quality, World
from tidegate import view
from tidegate.record import Phase
from tidegate.rollout import REFRESH_S

SEEN = "2026-01-01T00:02:00Z/2026-01-01T00:02:09Z"


def rolled_back() -> World:
    world = at_step(0.05)
    world.seen = {"errors": SEEN}
    world.clusters = (4.0, 2.5)
    world.quality[world.record.canary] = Quality.BAD
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    world.run(30)
    return world


def test_in_status_history_and_event() -> None:
    world = rolled_back()
    (failed,) = world.status["revisions"]["failed"]
    numbers = failed["evidence"]
    for part in ("errors: ", "against 1%", "e-value", "needed", "clusters 4/2.5", f"seen {SEEN}"):
        assert part in numbers
    newest = world.status["history"][0]
    assert newest["outcome"] == "RolledBack"
    assert newest["reason"].endswith(f"Evidence, {numbers}.")
    (event,) = [e for e in world.events if e.reason == "RolledBack"]
    assert f"Evidence, {numbers}. Mend the model and change the spec" in event.message
    assert len(event.message) < 1024, "more is cut off"


def test_what_was_promoted_keeps_them_too() -> None:
    """The weights, the time and the evidence, also when the next version serves."""
    world = at_step(0.05)
    promoted = world.record.canary
    world.until(lambda w: w.record.phase is Phase.BAKING)
    steps = world.record.walked
    assert re.fullmatch(r"[0-9.]+%(, [0-9.]+%)+", steps)
    assert len(set(steps.split(", "))) == len(steps.split(", ")), "each weight once"
    world.settle()

    def kept() -> str:
        (one,) = [h for h in world.status["history"] if h["revision"] == promoted]
        assert one["outcome"] == "Promoted"
        return str(one["reason"])

    said = kept()
    assert re.search(rf"\. Weights {re.escape(steps)} in [0-9:]+\. Evidence, errors: ", said)
    assert re.search(r"Evidence, errors: [0-9]+/[0-9]+ .* against 1%; e-value .*, needed ", said)
    assert len(said) < 1024, "more is cut off"
    world.version(3)
    world.settle()
    assert world.record.stable != promoted
    assert kept() == said
    told = view.explanation(world.deployment, promoted, world.now).lines
    assert any(f"Weights {steps} in " in line for line in told)


def test_what_was_rolled_back_says_how_far_it_came() -> None:
    reason = rolled_back().status["history"][0]["reason"]
    assert re.search(r"Weights ([0-9.]+%, )*5% in [0-9:]+\. Evidence, ", reason)


def test_explained_after_the_next_version_went_live() -> None:
    world = rolled_back()
    canary = world.record.canary
    lines = view.explanation(world.deployment, canary, world.now).lines
    assert "Seen first " in lines[2]
    world.version(3)
    world.settle()
    past = view.explanation(world.deployment, canary, world.now)
    assert any(f"seen {SEEN}" in line or line.startswith("Seen first") for line in past.lines)


def test_a_later_process_is_told_since_when() -> None:
    world = at_step(0.05)
    world.seen = {"errors": SEEN}
    world.run(2 * int(REFRESH_S))
    assert world.status["rollout"]["evidence"]["tests"][0]["seen"] == SEEN
    world.restart()
    world.seen = {}
    world.reconcile()
    assert world.last.measure is not None
    assert world.last.measure.seen == {"errors": SEEN}


def test_what_was_rolled_back_by_no_test_says_no_numbers() -> None:
    world = at_step(0.05)
    world.ask("abort")
    world.settle()
    (failed,) = world.status["revisions"]["failed"]
    assert "evidence" not in failed
    assert "Evidence" not in world.status["history"][0]["reason"]


def test_a_start_that_cannot_be_read_is_left_out() -> None:
    world = rolled_back()
    said = replace(world.record, started="yesterday").outcome()["reason"]
    assert "5%. Evidence, " in said
