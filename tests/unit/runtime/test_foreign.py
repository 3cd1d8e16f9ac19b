"""Names that others have: met, asked about beside the passes, and let go of when they are free."""

from typing import Any, cast

import pytest

from tests.unit.runtime.fakes import Clock, FakeServer
from tidegate.api.names import API_VERSION, KIND
from tidegate.observed import Ref
from tidegate.runtime.cache import Key
from tidegate.runtime.foreign import AGAIN_S, LEAST_PAUSE_S, ForeignObjects
from tidegate.runtime.kinds import kind_of
from tidegate.runtime.kube import Kube, ServerError

KEY, UID = Key("models", "m"), "uid-of-m"
SERVICE, CONFIG = Ref("v1", "Service", "m"), Ref("v1", "ConfigMap", "m")


class World:
    """An API server in which both names are somebody else's."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.clock = Clock()
        self.woken: list[Key] = []
        self.foreign = ForeignObjects(cast(Kube, self.server), self.woken.append, self.clock)
        for ref in (SERVICE, CONFIG):
            self.put(ref)
            assert self.foreign.met(KEY, ref)

    def put(self, ref: Ref, **metadata: Any) -> None:
        kind = kind_of(ref.api_version, ref.kind)
        place = {"name": ref.name, "namespace": KEY.namespace}
        self.server.put(kind, {"metadata": place | metadata})

    def take_away(self, ref: Ref) -> None:
        kind = kind_of(ref.api_version, ref.kind)
        del self.server.objects[kind, KEY.namespace, ref.name]

    async def look(self, uid: str = UID) -> float | None:
        """What a pass does that comes when all was answered."""
        self.clock.now += LEAST_PAUSE_S
        self.foreign.look(KEY, uid)
        await self.foreign._asked.settled()
        return self.foreign.look(KEY, uid)


async def test_a_name_is_news_once_and_stays_while_it_is_taken() -> None:
    world = World()
    assert not world.foreign.met(KEY, SERVICE)
    for _ in range(3):
        assert await world.look() == AGAIN_S
    assert world.foreign.of(KEY) == {SERVICE, CONFIG}
    assert world.woken == []
    assert world.foreign.of(Key("models", "other")) == frozenset()


async def test_a_name_that_is_free_wakes_and_is_let_go_of() -> None:
    world = World()
    world.take_away(SERVICE)
    assert await world.look() == AGAIN_S
    assert world.woken == [KEY]
    assert world.foreign.of(KEY) == {CONFIG}
    world.take_away(CONFIG)
    assert await world.look() is None
    assert (world.woken, world.foreign.of(KEY)) == ([KEY, KEY], frozenset())
    assert await world.look() is None
    # Somebody takes it again, later.
    world.put(SERVICE)
    assert world.foreign.met(KEY, SERVICE)
    assert await world.look() == AGAIN_S


async def test_what_turns_out_to_be_its_own_is_free() -> None:
    world = World()
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": "m", "controller": True}
    world.put(SERVICE, ownerReferences=[{**owner, "uid": UID}])
    world.put(CONFIG, ownerReferences=[{**owner, "uid": "of-the-one-before"}])
    await world.look()
    assert world.foreign.of(KEY) == {CONFIG}
    await world.look("of-the-one-before")
    assert world.foreign.of(KEY) == frozenset()


@pytest.mark.parametrize("times", [1, 2])
async def test_who_cannot_be_asked_leaves_it_as_it_is(times: int) -> None:
    world = World()
    world.take_away(SERVICE)
    for _ in range(times):
        world.server.fail = [ServerError("no", code=503)] * 2
        assert await world.look() == AGAIN_S
    assert world.foreign.of(KEY) == {SERVICE, CONFIG}
    await world.look()
    assert world.foreign.of(KEY) == {CONFIG}


async def test_of_what_is_gone_nothing_is_kept() -> None:
    world = World()
    world.foreign.look(KEY, UID)
    world.foreign.forget(KEY)
    assert (world.foreign.of(KEY), world.server.reads) == (frozenset(), [])
    assert world.foreign.look(KEY, UID) is None
