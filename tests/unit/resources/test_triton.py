"""Triton's command line."""

import pytest

from tidegate.resources.sidecar import Ports
from tidegate.resources.triton import triton_args


def flags(arguments: list[str]) -> dict[str, str]:
    assert arguments[0] == "tritonserver"
    return dict(a.removeprefix("--").split("=", 1) for a in arguments[1:])


def test_behind_the_sidecar_it_listens_on_the_loopback_only() -> None:
    found = flags(triton_args(exit_timeout_s=30, gpu=True))
    assert {found[f"{p}-address"] for p in ("http", "grpc", "metrics")} == {"127.0.0.1"}
    assert (found["http-port"], found["grpc-port"], found["metrics-port"]) == (
        *("8000", "8001"),
        "8002",
    )
    assert not any("restricted" in name for name in found)


def test_a_model_that_does_not_load_leaves_its_reason() -> None:
    found = flags(triton_args(exit_timeout_s=7, gpu=True))
    assert found["exit-on-error"] == "false"
    assert found["strict-readiness"] == "true"
    assert found["model-control-mode"] == "none"
    assert found["exit-timeout-secs"] == "7"


def test_without_the_sidecar_triton_itself_closes_its_apis() -> None:
    found = flags(triton_args(exit_timeout_s=30, gpu=True, restricted_key="s3cret"))
    assert {found[f"{p}-address"] for p in ("http", "grpc", "metrics")} == {"0.0.0.0"}
    wanted = "model-repository,shared-memory,logging,trace:tidegate-key=s3cret"
    assert found["http-restricted-api"] == found["grpc-restricted-protocol"] == wanted


@pytest.mark.parametrize("key", ["", "a b", "a,b", "a\n", "é"])
def test_a_key_that_could_not_stand_in_a_header_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        triton_args(exit_timeout_s=30, gpu=True, restricted_key=key)


def test_cache_and_gpu_metrics() -> None:
    plain = flags(triton_args(exit_timeout_s=30, gpu=False))
    assert plain["allow-gpu-metrics"] == "false"
    assert "cache-config" not in plain
    cached = flags(triton_args(exit_timeout_s=30, gpu=True, response_cache=True))
    assert cached["allow-gpu-metrics"] == "true"
    assert cached["cache-config"] == f"local,size={128 << 20}"


def test_ports_can_be_moved() -> None:
    found = flags(triton_args(exit_timeout_s=30, gpu=True, ports=Ports(triton_http=18000)))
    assert found["http-port"] == "18000"
