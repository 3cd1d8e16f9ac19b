"""A client of each module's own API server, and a namespace of each test's own."""

from collections.abc import AsyncIterator

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.contract import runtime_harness as h
from tidegate.runtime.kube import Kube


@pytest.fixture
async def kube(plane: ControlPlane) -> AsyncIterator[Kube]:
    async with h.client(plane) as kube:
        await h.install_crd(kube)
        yield kube


@pytest.fixture
async def namespace(kube: Kube) -> str:
    return await h.new_namespace(kube)
