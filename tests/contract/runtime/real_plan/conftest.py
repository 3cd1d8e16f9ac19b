"""One API server for all modules here: Kubernetes' own controllers, and the real CRD."""

from collections.abc import AsyncIterator, Iterator

import pytest

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from tests.contract import runtime_harness as h
from tidegate.runtime.kube import Kube


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """Shared, for each test has a namespace of its own."""
    with start(controllers=True) as plane:
        yield plane


@pytest.fixture
async def kube(plane: ControlPlane) -> AsyncIterator[Kube]:
    async with h.client(plane) as kube:
        await h.install_crd(kube, h.real_crd())
        yield kube
