"""The end-to-end tests stand on the embedded cluster: real Triton, Envoy, S3, kubelet."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from e2e.cluster import lifecycle
from e2e.cluster.installation import install
from e2e.cluster.kube import KubeClient
from e2e.cluster.progress import Progress
from e2e.tests import artefacts
from e2e.tests.space import SETTINGS, Space

LAST: Final = ("test_idle", "test_chart")
"""Modules that want everything else over: one watches silence, one removes the operator."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all, and put the modules of `LAST` last."""

    def turn(item: pytest.Item) -> int:
        name = item.path.stem
        return LAST.index(name) + 1 if name in LAST else 0

    for item in items:
        item.add_marker(pytest.mark.e2e)
    items.sort(key=turn)


@pytest.fixture(scope="session")
def cluster() -> Iterator[KubeClient]:
    """The embedded cluster, as its administrator."""
    if not lifecycle.is_whole(SETTINGS):
        pytest.exit("no embedded cluster is up; run: make cluster", returncode=3)
    with KubeClient(SETTINGS.kubeconfig) as client:
        yield client


@pytest.fixture(scope="session")
def installed(cluster: KubeClient) -> None:
    """The chart with today's images and the values of these tests.

    ``TIDEGATE_E2E_INSTALLED=1``: it is there already, as a former run left it.
    """
    if os.environ.get("TIDEGATE_E2E_INSTALLED") == "1":
        return
    install(cluster, Progress())


@pytest.fixture(scope="session")
def spaces(cluster: KubeClient) -> Iterator[list[Space]]:
    """The namespaces that were made; each must end in the end: nothing of ours holds it back."""
    made: list[Space] = []
    yield made
    # Each takes seconds of waiting, and nothing else is under way any more.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Space.delete, made))


@pytest.fixture(scope="module")
def space(
    request: pytest.FixtureRequest, cluster: KubeClient, installed: None, spaces: list[Space]
) -> Iterator[Space]:
    """A namespace of this module."""
    name = request.path.stem.removeprefix("test_").replace("_", "-")
    found = Space(cluster, f"e2e-{name}")
    found.create()
    spaces.append(found)
    yield found
    found.empty()  # it drains while the next module runs


@pytest.fixture(scope="session")
def whoami() -> dict[str, str]:
    """URIs of a small model that says who it is, by the label that it answers."""
    return {
        label: artefacts.put(f"whoami/{label}", artefacts.whoami(label)) for label in ("one", "two")
    }


@pytest.fixture(scope="session")
def magika() -> dict[str, str]:
    """URIs of the two generations of Magika."""
    return artefacts.put_magika()


def pytest_report_header() -> list[Any]:
    """Say which cluster it is."""
    return [f"embedded cluster: {SETTINGS.kubeconfig}"]
