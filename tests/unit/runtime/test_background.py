"""Questions beside the passes: who is asked, how often, what is known, and what ends them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

import pytest

from tests.unit.runtime.fakes import Clock
from tidegate.runtime import background
from tidegate.runtime.background import Background, UnansweredError
from tidegate.runtime.cache import Key

M, N = Key("models", "m"), Key("models", "n")
PAUSE_S = 10.0
UNKNOWN = "unknown"
CONTEXT: ContextVar[str] = ContextVar("CONTEXT", default="none")


@dataclass
class Pods:
    """Who is asked: each answers when it is told to.

    Attributes:
        began: who was asked, in that order.
        asked: who is being asked.
        cancelled: who was asked in vain.
    """

    began: list[str] = field(default_factory=list)
    asked: dict[str, asyncio.Future[str]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    def ask(self, *names: str) -> dict[str, Callable[[], Awaitable[str]]]:
        """How to ask these."""

        def asking(name: str) -> Callable[[], Awaitable[str]]:
            async def ask() -> str:
                assert name not in self.asked, "by two at once"
                self.began.append(name)
                self.asked[name] = asyncio.get_running_loop().create_future()
                try:
                    return await self.asked[name]
                except asyncio.CancelledError:
                    self.cancelled.append(name)
                    raise
                finally:
                    del self.asked[name]

            return ask

        return {name: asking(name) for name in names}


@dataclass
class World:
    """Background questions, with all around them."""

    pods: Pods = field(default_factory=Pods)
    clock: Clock = field(default_factory=Clock)
    woken: list[Key] = field(default_factory=list)
    at_once: int = 16
    background: Background[str] = field(init=False)

    def __post_init__(self) -> None:
        self.background = Background(
            UNKNOWN, lambda _: PAUSE_S, self.woken.append, at_once=self.at_once, clock=self.clock
        )

    async def look(self, *names: str, key: Key = M) -> list[str]:
        """A pass that wants to know these; and whoever is to be asked is asked then."""
        taken = self.background.take(key, self.pods.ask(*names))
        await ticks()
        return [taken.answers[name] for name in names]

    async def answer(self, name: str, answer: str | Exception) -> None:
        future = self.pods.asked[name]
        if isinstance(answer, str):
            future.set_result(answer)
        else:
            future.set_exception(answer)
        await ticks()


async def ticks() -> None:
    """Let all that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_not_known_is_unknown_and_an_answer_wakes_and_is_taken() -> None:
    world = World()
    assert await world.look("a") == [UNKNOWN]
    assert await world.look("a") == [UNKNOWN]
    assert (world.pods.began, world.woken) == (["a"], [])
    await world.answer("a", "bad")
    assert world.woken == [M]
    assert await world.look("a") == ["bad"]


async def test_it_is_asked_again_after_a_pause_and_only_news_wakes() -> None:
    world = World()
    await world.look("a")
    world.clock.now += 60.0  # it took so long: the pause begins with the answer
    await world.answer("a", "bad")
    for waited_s, began in ((0.0, 1), (PAUSE_S - 1.0, 1), (1.0, 2)):
        world.clock.now += waited_s
        assert await world.look("a") == ["bad"]
        assert len(world.pods.began) == began
    await world.answer("a", "bad")
    assert world.woken == [M]
    world.clock.now += PAUSE_S
    await world.look("a")
    await world.answer("a", "good")
    assert world.woken == [M, M]
    assert await world.look("a") == ["good"]


async def test_when_to_look_again() -> None:
    world = World()
    take = world.background.take
    assert take(M, {}).again_after_s is None
    assert take(M, world.pods.ask("a")).again_after_s == PAUSE_S
    await ticks()
    await world.answer("a", "bad")
    world.clock.now += 4.0
    assert take(M, world.pods.ask("a")).again_after_s == PAUSE_S - 4.0
    assert take(M, world.pods.ask("a", "b")).again_after_s == PAUSE_S - 4.0
    world.clock.now += PAUSE_S - 4.0 - 1e-9
    assert take(M, world.pods.ask("a")).again_after_s == background.AGAIN_LEAST_S
    await world.background.stop()


@pytest.mark.parametrize("error", [UnansweredError(), ValueError("a defect")])
async def test_without_an_answer_what_was_known_stays(error: Exception) -> None:
    world = World()
    await world.look("a")
    await world.answer("a", error)
    assert await world.look("a") == [UNKNOWN]
    world.clock.now += PAUSE_S
    await world.look("a")
    await world.answer("a", "bad")
    world.clock.now += PAUSE_S
    await world.look("a")
    await world.answer("a", error)
    assert await world.look("a") == ["bad"]
    assert (len(world.pods.began), world.woken) == (3, [M])


async def test_who_is_wanted_no_more_is_asked_no_more_and_no_oftener_when_back() -> None:
    world = World()
    await world.look("a", "b", "c")
    await world.answer("c", "bad")
    await world.look("b")
    assert world.pods.cancelled == ["a"]
    assert list(world.pods.asked) == ["b"]
    # Back at once: what was known is no older than it may be, and nobody is asked the oftener.
    assert await world.look("a", "b", "c") == [UNKNOWN, UNKNOWN, "bad"]
    assert world.pods.began == ["a", "b", "c"]
    await world.look()
    assert world.pods.asked == {}
    # Back later: it may be true no more.
    world.clock.now += PAUSE_S
    assert await world.look("c") == [UNKNOWN]
    assert world.pods.began == ["a", "b", "c", "c"]


async def test_one_question_of_two_is_asked_once_and_wakes_both() -> None:
    world = World()
    for key in (M, N):
        await world.look("nodes", key=key)
    assert world.pods.began == ["nodes"]
    await world.look(key=M)
    assert list(world.pods.asked) == ["nodes"]
    await world.look("nodes", key=M)
    await world.answer("nodes", "four")
    assert sorted(world.woken) == [M, N]
    await world.look(key=M)
    assert await world.look("nodes", key=N) == ["four"]


async def test_so_many_at_once_and_no_more() -> None:
    world = World(at_once=2)
    await world.look("a", "b", "c")
    assert world.pods.began == ["a", "b"]
    await world.answer("a", UnansweredError())
    assert world.pods.began == ["a", "b", "c"]
    # One that waits for its turn is let go of, too.
    await world.look("a", "b", "c", "d")
    await world.look("b", "c")
    await world.answer("b", "bad")
    assert world.pods.began == ["a", "b", "c"]


async def test_after_the_end_nothing_is_left_and_nothing_is_asked() -> None:
    world = World(at_once=1)
    before = asyncio.all_tasks()
    await world.look("a", "b")
    await world.look("c", key=N)
    await world.background.stop()
    assert asyncio.all_tasks() == before
    assert world.pods.cancelled == ["a"]
    assert await world.look("a") == [UNKNOWN]
    assert world.pods.began == ["a"]
    assert world.woken == []


async def test_what_nobody_wants_is_remembered_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "REMEMBERED", 5)
    world = World()
    for number in range(20):
        await world.look(f"pod-{number}")
    await world.look()
    found = world.background
    assert (len(found._questions), len(found._left), len(found._of_key)) == (0, 5, 0)
    assert len(world.pods.cancelled) == 20


async def test_it_is_no_part_of_the_pass_that_asked() -> None:
    """Of its trace, that is, which ends with the pass."""
    world, found = World(), list[str]()

    async def ask() -> str:
        found.append(CONTEXT.get())
        return "x"

    CONTEXT.set("the pass")
    world.background.take(M, {"a": ask})
    await world.background.settled()
    assert found == ["none"]
