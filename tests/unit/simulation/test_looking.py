"""The simulated looks come to what the operator's own measuring task makes of the same pages."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tidegate.actions import Measure
from tidegate.analysis.judgement import Objective
from tidegate.api.names import REVISION_LABEL
from tidegate.measurement import Reading
from tidegate.runtime.cache import Key
from tidegate.runtime.measuring import Measurer, PodAt, ReadError
from tidegate.simulation.fleet import moment_of
from tidegate.simulation.law import EPOCH_S
from tidegate.simulation.looking import Trial
from tidegate.simulation.pod import Pod, Server
from tidegate.simulation.sidecar import Sidecar

KEY = Key("models", "detector")
EDGES_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
SERVER = Server(0.01, 0.0, cv=0.5, target_s=0.1)
STABLE, CANARY = "stable", "canary"
STARTED = moment_of(0.0).isoformat()
MEASURE = Measure(
    stable=STABLE,
    canary=CANARY,
    started=STARTED,
    since=STARTED,
    objective=Objective(0.01, 100, 0.01, 0.001, 0.95),
    interval_s=1.0,
)


class Queue:
    """Notes that the reconciler was woken."""

    woken = False

    def add(self, key: Key, *, urgent: bool = False) -> None:
        self.woken = True


class Pages:
    """The pods' pages as they are now; a pod without one does not answer."""

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}

    async def read(self, pod: PodAt, at_s: Callable[[], float]) -> Reading:
        if pod.uid not in self.readings:
            raise ReadError("no answer")
        return self.readings[pod.uid]

    async def close(self) -> None:
        pass


def document(pod: Pod, revision: str) -> dict[str, Any]:
    return {
        "metadata": {"uid": pod.name, "name": pod.name, "labels": {REVISION_LABEL: revision}},
        "status": {"phase": "Running", "podIP": "192.0.2.1"},
    }


@pytest.mark.parametrize("errors", [0.0, 0.02, 0.3])
async def test_the_same_pages_come_to_the_same(errors: float) -> None:
    chance, clock, queue, pages = random.Random(3), [0.0], Queue(), Pages()
    forever = asyncio.Event()

    async def sleep(_: float) -> None:
        await forever.wait()

    measurer = Measurer(
        queue,  # type: ignore[arg-type]
        pages,
        clock=lambda: clock[0],
        epoch_s=EPOCH_S,
        sleep=sleep,
    )
    pods = [
        (Pod(name, SERVER, EDGES_S, n, 0.0, 0.0), Sidecar(EDGES_S, 0.1), revision)
        for n, (name, revision) in enumerate(
            [("a", STABLE), ("b", STABLE), ("c", CANARY), ("d", CANARY)]
        )
    ]
    trial, measure, news = Trial(MEASURE), MEASURE, []
    at_s = 0.0
    for look in range(60):
        until_s = at_s + chance.choice((0.25, 1.0))
        unread = {}
        pages.readings = {}
        for pod, sidecar, revision in pods:
            pod.ended = [] if pod.ended is None else pod.ended
            pod.failing = errors if revision == CANARY else 0.0
            count = int((until_s - at_s) * (20 if revision == STABLE else 10))
            came = sorted(chance.uniform(at_s, until_s) for _ in range(count))
            # Copies for a while, then clients' requests.
            sidecar.arrived(len(came), copies=revision == CANARY and look < 20, since_s=at_s)
            pod.queue.extend(came)
            pod.advance(until_s)
            sidecar.take(pod.ended)
            if revision == CANARY and 30 <= look < 38 and chance.random() < 0.7:
                unread[pod.name] = revision
            else:
                pages.readings[pod.name] = sidecar.reading(
                    pod=pod.name, revision=revision, at_s=EPOCH_S + until_s, uptime_s=until_s
                )
        at_s = clock[0] = until_s
        if look == 40:  # a new step
            measure = replace(MEASURE, since=moment_of(at_s).isoformat())
        queue.woken = False
        trial.want(measure)
        measurer.want(KEY, measure, [document(pod, revision) for pod, _, revision in pods])
        if look:
            await measurer.look(KEY)
        else:
            await asyncio.sleep(0.01)  # its own task looks first
        news.append(trial.look(EPOCH_S + at_s, list(pages.readings.values()), unread))
        measured = measurer.measured(KEY)
        assert measured is not None
        assert trial.measured == replace(measured, state="")
        assert news[-1] == queue.woken
        live = measurer._live[KEY]
        assert trial.pause_s(EPOCH_S + at_s) == measurer._pause_s(live)
    assert any(news)
    assert not all(news)
    assert trial.measured is not None
    assert (trial.measured.judgement.bad is not None) == (errors > 0.1)
    await measurer.stop()
