"""A real Triton behind the real sidecar, as a pod that the operator reads."""

from collections.abc import Iterator

import pytest

from e2e.native.processes import Pod, pod
from tests.integration.sidecar.conftest import MODELS, TARGET_MS


@pytest.fixture(scope="module")
def running() -> Iterator[Pod]:
    """One pod for all tests that only send requests."""
    with pod(MODELS, latency_target_ms=TARGET_MS) as started:
        yield started
