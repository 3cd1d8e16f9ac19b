"""Whose events are read, how often, and when to look again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tests.unit.runtime.fakes import Clock
from tidegate.api.names import REVISION_LABEL
from tidegate.observed import Object
from tidegate.runtime.cache import Key
from tidegate.runtime.kube import ForbiddenError, Kube, KubeError, ServerError
from tidegate.runtime.pods import PODS_ASKED
from tidegate.runtime.stuck import FRESH_S, STUCK_AFTER_S, StuckPods, stuck_for_s

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Key("models", "m")
WAITING = {"state": {"waiting": {"reason": "ContainerCreating"}}}


def pod(name: str, waited_s: float = 60.0, **status: Any) -> dict[str, Any]:
    since = (NOW - timedelta(seconds=waited_s)).isoformat()
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": since}
    return {
        "metadata": {"name": name, "namespace": "models", "uid": name},
        "status": {"phase": "Pending", "conditions": [scheduled], **status},
    }


@pytest.mark.parametrize(
    ("status", "stuck"),
    [
        ({}, True),
        ({"initContainerStatuses": [WAITING], "containerStatuses": [WAITING]}, True),
        ({"containerStatuses": [{}]}, True),
        ({"initContainerStatuses": [{"state": {"running": {}}}]}, False),
        ({"initContainerStatuses": [{"state": {"terminated": {}}}]}, False),
        ({"initContainerStatuses": [{**WAITING, "lastState": {"terminated": {}}}]}, False),
        ({"phase": "Running"}, False),
        ({"conditions": [{"type": "PodScheduled", "status": "False"}]}, False),
        ({"conditions": None}, False),
    ],
)
def test_stuck_is_on_a_node_with_nothing_started(status: dict[str, Any], stuck: bool) -> None:
    assert stuck_for_s(pod("a", **status), NOW) == (60.0 if stuck else None)


def test_what_leaves_is_not_stuck_and_clocks_that_differ_count_from_zero() -> None:
    leaving = pod("a")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert stuck_for_s(leaving, NOW) is None
    assert stuck_for_s(pod("a", waited_s=-5.0), NOW) == 0.0


@dataclass
class Events:
    """What `Kube` offers: one event about each pod."""

    error: Exception | None = None
    asked: list[str] = field(default_factory=list)

    async def pages(self, *_: Any, field_selector: str, **__: Any) -> AsyncIterator[dict[str, Any]]:
        uid = field_selector.removeprefix("involvedObject.uid=").partition(",")[0]
        self.asked.append(uid)
        if self.error is not None:
            raise self.error
        yield {"items": [{"metadata": {"name": uid}}]}


def reader(events: Events, clock: Clock) -> StuckPods:
    return StuckPods(cast(Kube, events), lambda _: None, now=lambda: NOW, clock=clock)


async def known(stuck: StuckPods, *pods: Object) -> tuple[tuple[Object, ...], float | None]:
    """What a pass knows that comes when nothing is being read any more."""
    stuck.events(KEY, pods)
    await stuck._asked.settled()
    return stuck.events(KEY, pods)


async def test_events_are_read_again_when_they_are_old() -> None:
    kube, clock = Events(), Clock()
    stuck = reader(kube, clock)
    for pause_s, asked in ((0.0, 1), (FRESH_S / 2, 1), (FRESH_S / 2, 2)):
        clock.now += pause_s
        found, again_after_s = await known(stuck, pod("a"))
        assert [e["metadata"]["name"] for e in found] == ["a"]
        assert again_after_s == (FRESH_S / 2 if pause_s and asked == 1 else FRESH_S)
        assert len(kube.asked) == asked


async def test_no_pass_waits_for_them_and_it_is_woken_by_news_alone() -> None:
    kube, clock, woken = Events(), Clock(), list[Key]()
    stuck = StuckPods(cast(Kube, kube), woken.append, now=lambda: NOW, clock=clock)
    assert stuck.events(KEY, [pod("a")]) == ((), FRESH_S)
    assert (kube.asked, woken) == ([], [])
    for read in (1, 2):
        await known(stuck, pod("a"))
        assert (len(kube.asked), woken) == (read, [KEY])
        clock.now += FRESH_S


async def test_a_few_of_each_revision_are_asked_and_a_young_one_is_waited_for() -> None:
    kube, clock = Events(), Clock()
    stuck = reader(kube, clock)
    pods = [pod(f"old-{n}") for n in range(9)]
    other = pod("z")
    other["metadata"]["labels"] = {REVISION_LABEL: "f00"}
    found, again_after_s = await known(stuck, *pods, other, pod("young", STUCK_AFTER_S - 1.0))
    assert kube.asked == [*(f"old-{n}" for n in range(PODS_ASKED)), "z"]
    assert len(found) == PODS_ASKED + 1
    assert again_after_s == pytest.approx(1.1)
    assert await known(stuck, pod("a", phase="Running")) == ((), None)


@pytest.mark.parametrize("error", [ForbiddenError("no", code=403), ServerError("no", code=503)])
async def test_what_cannot_be_read_is_not_asked_at_once_again_and_what_was_known_stays(
    error: KubeError,
) -> None:
    kube, clock = Events(error), Clock()
    stuck = reader(kube, clock)
    for _ in range(3):
        assert await known(stuck, pod("a")) == ((), FRESH_S)
    assert kube.asked == ["a"]
    kube.error = None
    clock.now += FRESH_S
    told, _ = await known(stuck, pod("a"))
    kube.error = error
    clock.now += FRESH_S
    assert await known(stuck, pod("a")) == (told, FRESH_S)
    assert kube.asked == ["a"] * 3
