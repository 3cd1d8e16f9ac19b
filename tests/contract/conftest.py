"""A real kube-apiserver, one per test session."""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start_control_plane
from e2e.cluster.kube import KubeClient

HERE = Path(__file__).parent
UNRAISABLE = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the garbage of kopf's own tasks be.

    Where a test makes the API server answer 500, kopf leaves tasks and connections behind. They
    come to light whenever the collector runs: in another test, which has nothing to do with it.
    """
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(UNRAISABLE)


def pytest_sessionfinish() -> None:
    """Collect such garbage of the last test, too: pytest would fail the whole run for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with start_control_plane() as plane:
        yield plane


@pytest.fixture(scope="session")
def kube(control_plane: ControlPlane) -> Iterator[KubeClient]:
    with control_plane.client() as client:
        yield client
