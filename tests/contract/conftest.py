"""A real kube-apiserver, one per test session."""

from collections.abc import Iterator

import pytest

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start_control_plane
from e2e.cluster.kube import KubeClient


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with start_control_plane() as plane:
        yield plane


@pytest.fixture(scope="session")
def kube(control_plane: ControlPlane) -> Iterator[KubeClient]:
    with control_plane.client() as client:
        yield client
