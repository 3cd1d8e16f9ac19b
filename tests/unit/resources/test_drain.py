"""The drain's timeouts and probes; the script itself runs in tests/integration."""

import subprocess
from pathlib import Path

from tidegate.platform import Platform
from tidegate.resources.drain import (
    IN_FLIGHT_S,
    MARGIN_S,
    QUIET_S,
    drain_limit_s,
    grace_period_s,
    liveness_probe,
    post_start_command,
    pre_stop_command,
    readiness_probe,
    sidecar_liveness_probe,
    sidecar_startup_probe,
    startup_probe,
)
from tidegate.resources.envoy import envoy_config
from tidegate.resources.sidecar import DRAIN_IDLE_S, GOAWAY_GRACE_S


def test_the_grace_period_covers_all_that_happens_in_it() -> None:
    for spread, exit_timeout in ((0, 1), (10, 30), (60, 300)):
        assert grace_period_s(spread, exit_timeout) >= (
            drain_limit_s(spread) + exit_timeout + MARGIN_S
        )
        assert drain_limit_s(spread) >= spread + IN_FLIGHT_S


def test_idle_connections_are_closed_within_the_default_spread() -> None:
    assert Platform().pre_stop_seconds > DRAIN_IDLE_S + GOAWAY_GRACE_S + 1


def test_no_connection_to_triton_is_left_when_it_is_told_to_go() -> None:
    # Triton waits for idle ones until its exit timeout, and holds the GPU for that long.
    for cluster in envoy_config()["static_resources"]["clusters"]:
        [options] = cluster["typed_extension_protocol_options"].values()
        idle = options["common_http_protocol_options"]["idle_timeout"]
        assert 0 < float(idle.removesuffix("s")) < QUIET_S, cluster["name"]


def test_startup_never_kills_a_long_load() -> None:
    probe = startup_probe()
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 24 * 3600
    assert probe["httpGet"]["path"] == "/v2/health/live"


def test_probes_go_where_the_kubelet_can_reach() -> None:
    for probe in (startup_probe, readiness_probe, liveness_probe):
        assert probe()["httpGet"]["port"] == 9091
        assert probe(sidecar=False)["httpGet"]["port"] == 8000
    assert sidecar_startup_probe()["httpGet"] == {"path": "/sidecar/ready", "port": 9091}
    # Not /sidecar/ready: that says 503 while draining, and a draining Envoy must live on.
    assert sidecar_liveness_probe()["httpGet"] == {"path": "/sidecar/live", "port": 9091}


def test_a_restarting_envoy_does_not_cost_triton_its_models() -> None:
    def patience(probe: dict[str, int]) -> int:
        return probe["periodSeconds"] * probe["failureThreshold"]

    assert patience(liveness_probe()) > patience(sidecar_liveness_probe()) + 30


def test_without_the_sidecar_it_waits_for_the_spread() -> None:
    assert pre_stop_command(spread_s=10, sidecar=False) == ["bash", "-c", "sleep 10"]


def test_post_start_never_fails(tmp_path: Path) -> None:
    command = post_start_command(admin_port=9, drain_folder=str(tmp_path / "missing"))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
