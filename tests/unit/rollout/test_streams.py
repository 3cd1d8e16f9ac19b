"""Clients that stream: what cannot be judged is not judged."""

import pytest

from tests.unit.rollout.test_regressions import live
from tests.unit.rollout.world import Quality
from tidegate.record import Phase


@pytest.mark.parametrize("policy", ["Hold", "Promote", "RollBack"])
def test_streams_are_not_judged_and_nothing_goes_on_by_itself(policy: str) -> None:
    """A model that answers in streams would wait for ever, or be promoted on a few odd requests."""
    world = live()
    world.edit(rollout={"onInconclusive": {"action": policy, "deadline": "1m"}})
    world.streams = 10_000
    world.version(2)
    world.run(600)
    assert (world.record.phase, world.record.weight) == (Phase.MIRRORING, 0.0)
    held = world.status["rollout"]
    assert held["hold"] == "Unsupported"
    assert "10000 streams" in held["message"]
    (said,) = [c for c in world.status["conditions"] if c["type"] == "MetricsAvailable"]
    assert (said["status"], said["reason"]) == ("False", "Unsupported")
    world.ask("skip-step")
    world.run(300)
    assert (world.record.phase, world.record.weight) == (Phase.CANARY, 0.05)
    world.ask("promote")
    world.until(lambda w: w.record.phase is Phase.PROMOTED)


def test_single_requests_that_fail_speak_against_a_streaming_version_too() -> None:
    world = live()
    world.streams = 10_000
    world.version(2)
    world.until(lambda w: w.record.phase is Phase.MIRRORING)
    world.quality[world.record.canary] = Quality.BAD
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
