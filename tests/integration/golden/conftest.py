"""Both generations of Magika behind the real sidecar, and the operator's golden requests."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from e2e.models.magika.build import build
from e2e.native.processes import Pod, pod
from tests.unit.runtime.fakes import FakeServer
from tidegate.actions import ShortLoad, Verify
from tidegate.observed import GoldenResult
from tidegate.runtime.cache import Key
from tidegate.runtime.golden import CONFIG_MAP, GoldenRunner
from tidegate.runtime.golden_client import PodClient

MODELS = Path(__file__).parent / "models"


class Golden(Protocol):
    """Sends golden requests, by key, to a pod."""

    def __call__(
        self,
        requests: dict[str, Any],
        *,
        url: str | None = None,
        load: ShortLoad | None = None,
    ) -> GoldenResult:
        """What comes of them; `url`: not through the pod's internal listener."""


@pytest.fixture(scope="session", params=["v1", "v3"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Pod]]:
    """A generation's name and its pod, which has the models of this folder, too."""
    repository = build(tmp_path_factory.mktemp("repositories"))[request.param]
    shutil.copytree(MODELS, repository, dirs_exist_ok=True)
    with pod(repository) as started:
        yield request.param, started


@pytest.fixture
def generation(running: tuple[str, Pod]) -> str:
    """``v1`` or ``v3``."""
    return running[0]


@pytest.fixture
def magika(running: tuple[str, Pod]) -> Pod:
    """Its pod."""
    return running[1]


@pytest.fixture
def golden(magika: Pod) -> Golden:
    """Sends golden requests to the pod the way the operator does."""

    def send(
        requests: dict[str, Any], *, url: str | None = None, load: ShortLoad | None = None
    ) -> GoldenResult:
        data = {k: v if isinstance(v, str) else json.dumps(v) for k, v in requests.items()}
        return asyncio.run(verify(url or magika.internal, data, load))

    return send


async def verify(url: str, data: dict[str, str], load: ShortLoad | None = None) -> GoldenResult:
    """One pod's result, by the operator's own code."""
    key, kube, told = Key("ns", "magika"), FakeServer(), asyncio.Event()
    kube.put(CONFIG_MAP, {"metadata": {"name": "g", "namespace": "ns"}, "data": data})
    document = {
        "metadata": {"name": "pod", "uid": "uid"},
        "spec": {},
        "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    runner = GoldenRunner(kube, lambda key: told.set(), PodClient(lambda pod: url))
    try:
        runner.want(key, [Verify("g", "magika", ("uid",), None, load)], [document])
        await told.wait()
        assert runner.problems(key) == {}
        return runner.results(key)["uid"]
    finally:
        await runner.close()
