"""Sweeps against a fake API server and a clock that only moves when told."""

from typing import Any

import pytest

from tests.unit.runtime.fakes import Clock, FakeServer
from tidegate.runtime.cache import Cache
from tidegate.runtime.kinds import kind_of
from tidegate.runtime.kube import ServerError
from tidegate.runtime.sweep import CATCH_UP_S, Sweeper, WatchHealth
from tidegate.runtime.telemetry import Metrics

CONFIG_MAP = kind_of("v1", "ConfigMap")


def document(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns"}}


class World:
    def __init__(self) -> None:
        self.server, self.clock, self.cache = FakeServer(), Clock(), Cache()
        self.health = WatchHealth()
        self.sweeper = Sweeper(
            self.server,  # type: ignore[arg-type]
            self.cache,
            self.health,
            Metrics(),
            (None,),
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def make(self, name: str, *, seen: bool) -> None:
        made = self.server.put(CONFIG_MAP, document(name))
        if seen:
            self.cache.put(CONFIG_MAP, made)

    def has(self, name: str) -> bool:
        return self.cache.get(CONFIG_MAP, "ns", name) is not None


async def test_nothing_to_do_is_synced_at_once() -> None:
    world = World()
    world.make("a", seen=True)
    assert await world.sweeper.sweep(CONFIG_MAP)
    assert CONFIG_MAP in world.health.synced
    assert world.clock.now == 1000.0
    assert world.server.reads == []


async def test_what_the_watch_does_not_bring_is_read_and_noted() -> None:
    world = World()
    world.make("a", seen=True)
    world.make("b", seen=False)
    assert not await world.sweeper.sweep(CONFIG_MAP)
    assert world.has("b")
    assert world.server.reads == ["b"]
    assert world.clock.now >= 1000.0 + CATCH_UP_S
    assert world.health.age_s(CONFIG_MAP, world.clock.now + 7.0) == pytest.approx(7.0)
    assert await world.sweeper.sweep(CONFIG_MAP)
    assert world.health.age_s(CONFIG_MAP, world.clock.now) == 0.0


async def test_a_watch_that_makes_progress_is_waited_for() -> None:
    world = World()
    made = [world.server.put(CONFIG_MAP, document(f"o{n}")) for n in range(10)]
    pause = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal pause
        world.clock.now += seconds
        pause += seconds
        if pause > CATCH_UP_S * 0.9 and made:
            pause = 0.0
            world.cache.put(CONFIG_MAP, made.pop())

    world.sweeper._sleep = sleep
    assert await world.sweeper.sweep(CONFIG_MAP)
    assert world.server.reads == []


async def test_ghosts_go_and_what_vanishes_meanwhile_is_no_trouble() -> None:
    world = World()
    world.make("ghost", seen=True)
    world.make("brief", seen=False)
    del world.server.objects[CONFIG_MAP, "ns", "ghost"]

    async def sleep(seconds: float) -> None:
        world.clock.now += seconds
        world.server.objects.pop((CONFIG_MAP, "ns", "brief"), None)

    world.sweeper._sleep = sleep
    await world.sweeper.sweep(CONFIG_MAP)
    assert not world.has("ghost")
    assert not world.has("brief")


async def test_a_list_that_fails_says_nothing_about_the_watch() -> None:
    world = World()
    world.make("a", seen=True)
    world.server.fail = [ServerError("500", code=500)]
    with pytest.raises(ServerError):
        await world.sweeper.sweep(CONFIG_MAP)
    assert world.health.synced == set()
    assert world.has("a")


async def test_a_restored_backup_is_taken_in_anew() -> None:
    world = World()
    for n in range(5):
        world.make(f"o{n}", seen=True)
    restored = FakeServer()
    restored.put(CONFIG_MAP, document("o0"))
    world.sweeper._kube = restored  # type: ignore[assignment]
    await world.sweeper.sweep(CONFIG_MAP)
    assert [world.has(f"o{n}") for n in range(5)] == [True, False, False, False, False]
