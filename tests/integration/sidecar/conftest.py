"""A real Triton behind the real sidecar."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc

from e2e.native.processes import Pod, pod

MODELS = Path(__file__).parent / "models"
TARGET_MS = 120
"""The SLO's target: no edge of the ladder, so it must have become one."""
REVISION = "abc123"


@pytest.fixture(scope="session")
def running() -> Iterator[Pod]:
    """One pod for all tests that only send requests."""
    with pod(MODELS, latency_target_ms=TARGET_MS, revision=REVISION) as started:
        yield started


@pytest.fixture
def grpc(running: Pod) -> Iterator["tritonclient.grpc.InferenceServerClient"]:
    """A tritonclient through the serving listener."""
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.ports.serving}") as client:
        yield client
