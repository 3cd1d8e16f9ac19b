"""Copies of live requests come before any client, and what is required is not gone on without."""

from typing import Any

import pytest

from tests.unit.rollout.test_regressions import live
from tests.unit.rollout.world import Quality, World
from tidegate.record import Phase

REQUIRED = {"mode": "Required", "minRequests": 50, "deadline": "2m"}
AUTO = {**REQUIRED, "mode": "Auto"}


def tried(mirror: dict[str, Any] = AUTO, **blocks: Any) -> World:
    """Another version, tried so."""
    world = live()
    rollout = blocks.pop("rollout", {})
    if blocks.pop("gateway", True) is False:
        world.spec["traffic"] = {}
    world.edit(rollout={"mirror": mirror, **rollout}, **blocks)
    world.version(2)
    return world


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"gateway": False}, "there is no traffic.gateway"),
        ({"gateway": False, "rollout": {"strategy": "BlueGreen"}}, "there is no traffic.gateway"),
        ({"runtime": {"sidecar": "Off"}}, 'runtime.sidecar is "Off"'),
    ],
)
def test_required_where_nothing_can_copy_it_waits_and_says_why(
    how: dict[str, Any], why: str
) -> None:
    world = tried(REQUIRED, **how)
    world.run(240, step=30)
    assert world.record.weight == 0.0
    assert world.status["rollout"]["hold"] == "MirrorUnavailable"
    assert why in world.status["rollout"]["message"]
    world.edit(rollout={"mirror": {**REQUIRED, "mode": "Auto"}})
    world.until(lambda w: w.record.weight > 0)


@pytest.mark.parametrize("mode", ["Auto", "Required"])
def test_blue_green_switches_after_copies_did_well(mode: str) -> None:
    world = tried({**REQUIRED, "mode": mode}, rollout={"strategy": "BlueGreen"})
    world.until(lambda w: w.record.phase is Phase.MIRRORING)
    while world.record.phase is Phase.MIRRORING:
        assert world.record.weight == 0.0
        world.tick(5)
    assert (world.record.phase, world.record.weight) == (Phase.BAKING, 1.0)


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
def test_a_switch_without_a_request_says_what_it_goes_by(strategy: str) -> None:
    world = tried({"mode": "Off"}, rollout={"strategy": strategy})
    world.until(lambda w: w.record.phase is Phase.BAKING)
    assert world.record.message == "switched at once, its pods are ready"


def test_blue_green_takes_a_bad_version_back_before_any_client_sees_it() -> None:
    world = tried(rollout={"strategy": "BlueGreen"})
    world.until(lambda w: w.record.phase is Phase.MIRRORING)
    world.quality[world.record.canary] = Quality.BAD
    while world.record.phase is not Phase.ROLLED_BACK:
        assert world.record.weight == 0.0
        world.tick(5)


@pytest.mark.parametrize(
    ("mode", "ends", "hold"),
    [("Auto", Phase.BAKING, None), ("Required", Phase.MIRRORING, "NeedsMoreRequests")],
)
def test_blue_green_without_traffic_waits_for_the_deadline(
    mode: str, ends: Phase, hold: str | None
) -> None:
    world = tried({**REQUIRED, "mode": mode}, rollout={"strategy": "BlueGreen", "bake": "1h"})
    world.rps = 0.0
    world.until(lambda w: w.record.phase is Phase.MIRRORING)
    world.run(100, step=20)
    assert world.record.phase is Phase.MIRRORING
    world.run(60, step=20)
    assert world.record.phase is ends
    assert world.status["rollout"].get("hold") == hold


def test_a_refused_mirror_leaves_the_route_though_the_switch_waits() -> None:
    world = tried(rollout={"strategy": "BlueGreen", "gates": ["Approved"]})
    world.until(lambda w: w.record.mirror > 0)
    world.route_accepted = False
    world.tick(5)
    assert (world.record.phase, world.record.mirror) == (Phase.MIRRORING, 0.0)
    assert world.status["rollout"]["hold"] == "WaitingForGates"


@pytest.mark.parametrize("mirror", [{"mode": "Off"}, AUTO])
def test_no_client_is_sent_to_what_nobody_can_watch(mirror: dict[str, Any]) -> None:
    world = tried(mirror)
    world.metrics_down = True
    world.run(300, step=30)
    assert world.record.weight == 0.0
    assert world.status["rollout"]["hold"] == "MetricsUnavailable"
    world.metrics_down = False
    world.until(lambda w: w.record.weight > 0)
