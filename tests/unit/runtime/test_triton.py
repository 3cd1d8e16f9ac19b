"""Asking Triton why a model does not load: whom, how often, and what an answer says."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.unit.runtime.fakes import Clock
from tests.unit.runtime.server import serving
from tidegate.api.names import REVISION_LABEL
from tidegate.observed import Object
from tidegate.resources.pod import ENVOY, TRITON, restricted_key
from tidegate.resources.sidecar import REPOSITORY_INDEX_PATH
from tidegate.resources.triton import RESTRICTED_HTTP_HEADER
from tidegate.runtime.cache import Key
from tidegate.runtime.pods import PODS_ASKED
from tidegate.runtime.triton import (
    FIRST_AGAIN_S,
    LATER_AGAIN_S,
    MAX_ANSWER_BYTES,
    RepositoryIndex,
    why_not_loaded,
)

KEY = Key("models", "m")
BROKEN = {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "Internal: no file"}
WHY = "m version 1: Internal: no file"


def pod(name: str, revision: str = "f00", *, sidecar: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {REVISION_LABEL: revision}},
        "spec": {"initContainers": [{"name": ENVOY}] if sidecar else []},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "containerStatuses": [{"name": TRITON, "state": {"running": {}}}],
        },
    }


class Tritons:
    """Every pod's Triton.

    Attributes:
        answers: the next answers; the last is given again and again.
        asked: names of pods, by the order of requests.
        keys: the key that came with each request.
        index: asks them.
    """

    index: RepositoryIndex

    def __init__(self) -> None:
        self.answers: list[web.Response | str] = [json.dumps([BROKEN])]
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.woken: list[Key] = []
        self.clock = Clock()

    async def answer(self, request: web.Request) -> web.Response:
        name, _, path = request.path.removeprefix("/").partition("/")
        assert (request.method, f"/{path}") == ("POST", REPOSITORY_INDEX_PATH)
        self.asked.append(name)
        self.keys.append(request.headers.get(RESTRICTED_HTTP_HEADER))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(text=found) if isinstance(found, str) else found

    async def known(self, *pods: dict[str, Any]) -> tuple[dict[str, str], float | None]:
        """What a pass knows that comes when nobody is being asked any more."""
        self.index.models(KEY, pods)
        await self.index._asked.settled()
        return self.index.models(KEY, pods)


@pytest.fixture
async def tritons() -> AsyncIterator[Tritons]:
    found = Tritons()
    async with serving(found.answer) as address:

        def url(pod: Object) -> str:
            return f"http://{address}/{pod['metadata']['name']}"

        found.index = RepositoryIndex(found.woken.append, url=url, clock=found.clock)
        yield found
        await found.index.stop()


async def test_a_reason_wakes_and_is_looked_at_again_more_seldom(tritons: Tritons) -> None:
    tritons.answers = ["[]", json.dumps([BROKEN])]
    assert await tritons.known(pod("a")) == ({}, FIRST_AGAIN_S)
    assert tritons.woken == []
    tritons.clock.now += FIRST_AGAIN_S
    assert await tritons.known(pod("a")) == ({"uid-a": WHY}, LATER_AGAIN_S)
    assert (tritons.woken, tritons.asked, tritons.keys) == ([KEY], ["a", "a"], [None, None])


@pytest.mark.parametrize(
    "silence",
    [
        web.Response(status=503),
        "no JSON",
        "{}",
        " " * (MAX_ANSWER_BYTES + 1),
    ],
    ids=["refused", "no JSON", "no list", "too long"],
)
async def test_who_does_not_answer_is_unknown(tritons: Tritons, silence: Any) -> None:
    await tritons.known(pod("a"))
    tritons.answers = [silence]
    tritons.clock.now += LATER_AGAIN_S
    assert await tritons.known(pod("a")) == ({}, FIRST_AGAIN_S)


async def test_a_few_pods_of_each_revision_while_they_load(tritons: Tritons) -> None:
    ready = pod("ready")
    ready["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    stable = [pod(f"s{n}") for n in range(PODS_ASKED + 2)]
    known, _ = await tritons.known(ready, *stable, pod("c", "ba4"))
    names = {*(f"s{n}" for n in range(PODS_ASKED)), "c"}
    assert set(tritons.asked) == names
    assert set(known) == {f"uid-{name}" for name in names}
    assert await tritons.known(ready) == ({}, None)


async def test_without_a_sidecar_the_key_of_its_revision_opens(tritons: Tritons) -> None:
    await tritons.known(pod("a", sidecar=False))
    assert tritons.keys == [restricted_key("f00")]


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ([], ""),
        ([{"name": "m", "version": "1", "state": "READY"}], ""),
        ([{"name": "m", "state": "LOADING", "reason": "x"}, 3], ""),
        ([{"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}], ""),
        ([{"name": "m", "version": "1", "state": "UNAVAILABLE"}], ""),
        ([BROKEN, {**BROKEN, "version": ""}], f"{WHY}; m version ?: Internal: no file"),
    ],
)
def test_what_an_index_says(index: list[Any], why: str) -> None:
    assert why_not_loaded(index) == why
