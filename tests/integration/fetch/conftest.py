"""Real servers for the fetch container's tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fetch.pod import Pod
from tests.integration.fetch.seaweed import Seaweed
from tests.integration.fetch.web import WebServer


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
