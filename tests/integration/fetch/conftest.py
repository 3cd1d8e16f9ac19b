"""Real servers for the fetch container's tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fetch.models import PYTHON_MODEL, write
from tests.integration.fetch.pod import Pod
from tests.integration.fetch.registry import Registry
from tests.integration.fetch.seaweed import Seaweed
from tests.integration.fetch.web import WebServer
from tidegate.preparation.publish.target import Files, files_in


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path / "pod")


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[Seaweed]:
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-weed-") as folder,
        Seaweed(Path(folder)) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def model(tmp_path: Path) -> Files:
    """A model's folder, as it is published."""
    write(tmp_path / "model", PYTHON_MODEL)
    return files_in(tmp_path / "model")
