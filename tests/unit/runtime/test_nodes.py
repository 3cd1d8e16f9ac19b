"""When nodes are read, and when not."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tests.unit.diagnosis.test_nodes import GPU, PRODUCT, waiting
from tests.unit.runtime.fakes import Clock
from tidegate.nodes import Node, Nodes
from tidegate.runtime.cache import Key
from tidegate.runtime.kube import ForbiddenError, Kube, KubeError, ServerError
from tidegate.runtime.nodes import PERIOD_S, NodeReader

KEY = Key("models", "m")
RUNNING: dict[str, Any] = {"metadata": {}, "status": {"phase": "Running"}}


def document(labels: dict[str, str], **allocatable: str) -> dict[str, Any]:
    offers = {GPU if k == "gpus" else k: v for k, v in allocatable.items()}
    return {"metadata": {"labels": labels}, "status": {"allocatable": offers}}


@dataclass
class Pages:
    """What `Kube` offers: three nodes in two pages, one of them without GPUs."""

    error: KubeError | None = None
    asked: list[int] = field(default_factory=list)

    async def pages(self, *_: Any, limit: int) -> AsyncIterator[dict[str, Any]]:
        self.asked.append(limit)
        yield {"items": [document({PRODUCT: "L4", "x": "y"}, gpus="4"), document({}, cpu="8")]}
        if self.error is not None:
            raise self.error
        yield {"items": [document({}, gpus="1")]}


def reader(pages: Pages, clock: Clock, *, on: bool = True) -> NodeReader:
    return NodeReader(cast(Kube, pages), lambda _: None, on=on, clock=clock)


async def known(nodes: NodeReader, *pods: dict[str, Any]) -> tuple[Nodes | None, float | None]:
    """What a pass knows that comes when nothing is being read any more."""
    nodes.look(KEY, pods)
    await nodes._asked.settled()
    return nodes.look(KEY, pods)


async def test_nothing_is_read_without_the_right_or_while_no_pod_waits_for_a_gpu() -> None:
    pages = Pages()
    assert await known(reader(pages, Clock(), on=False), waiting()) == (None, None)
    assert await known(reader(pages, Clock()), RUNNING, waiting(count=0)) == (None, None)
    assert pages.asked == []
    assert (await known(reader(pages, Clock()), RUNNING, waiting()))[0] is not None


async def test_no_pass_waits_for_them_and_all_whose_pods_wait_are_woken() -> None:
    pages, woken = Pages(), list[Key]()
    nodes = NodeReader(cast(Kube, pages), woken.append, on=True, clock=Clock())
    other = Key("models", "other")
    assert [nodes.look(key, [waiting()]) for key in (KEY, other)] == [(None, PERIOD_S)] * 2
    assert pages.asked == []
    await nodes._asked.settled()
    assert sorted(woken) == [KEY, other]
    assert len(pages.asked) == 1
    await nodes.stop()


async def test_once_a_minute_for_all_and_kept_is_what_waiting_pods_ask_for() -> None:
    pages, clock = Pages(), Clock()
    nodes = reader(pages, clock)
    bare = Nodes((Node({GPU: 4}), Node({GPU: 1})))
    assert await known(nodes, waiting()) == (bare, PERIOD_S)
    clock.now += PERIOD_S / 3
    # Of another ModelDeployment: what its pods ask for is kept from the next time on.
    labelled = waiting(In=(PRODUCT, "L4"))
    assert await known(nodes, labelled) == (bare, PERIOD_S * 2 / 3)
    clock.now += PERIOD_S * 2 / 3
    with_labels = Nodes((Node({GPU: 4}, {PRODUCT: "L4"}), Node({GPU: 1})), frozenset({PRODUCT}))
    assert await known(nodes, waiting()) == (with_labels, PERIOD_S)
    clock.now += PERIOD_S
    assert await known(nodes, waiting()) == (bare, PERIOD_S)
    assert len(pages.asked) == 3


@pytest.mark.parametrize("error", [ForbiddenError("no", code=403), ServerError("no", code=503)])
async def test_what_cannot_be_read_is_not_known_and_not_asked_again_at_once(
    error: KubeError,
) -> None:
    pages, clock = Pages(error), Clock()
    nodes = reader(pages, clock)
    for _ in range(3):
        assert await known(nodes, waiting()) == (None, PERIOD_S)
    assert len(pages.asked) == 1
    pages.error = None
    clock.now += PERIOD_S
    assert (await known(nodes, waiting()))[0] is not None
