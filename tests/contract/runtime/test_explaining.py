"""What explains pods, by a real API server: no plan waits for it, and it is used once known."""

import asyncio
import itertools
import json
import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Self

import pytest

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from tests.contract import runtime_harness as h
from tests.contract.runtime.test_take_out import make_pod
from tidegate.actions import Plan, WriteStatus
from tidegate.api.names import MANAGED_BY, MANAGED_BY_LABEL
from tidegate.observed import Measurements, Observed
from tidegate.platform import Platform
from tidegate.resources.sidecar import TRITON_HTTP_PORT
from tidegate.runtime.kinds import EVENT, MODEL_DEPLOYMENT, POD
from tidegate.runtime.kube import Kube

pytestmark = pytest.mark.contract

BROKEN = {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "Internal: no file"}
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with start() as plane:
        yield plane


class Triton:
    """A pod without a sidecar: it takes questions, and answers none until it is told to.

    Attributes:
        address: of the pod.
        open: numbers of the questions that it owes an answer.
    """

    def __init__(self) -> None:
        self.address = f"127.{random.randrange(64, 192)}.{random.randrange(256)}.1"
        self.open: set[int] = set()
        self._numbers = itertools.count()
        self.speaks = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.address, TRITON_HTTP_PORT)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        number = next(self._numbers)
        self.open.add(number)
        hung_up = asyncio.create_task(reader.read())
        speaks = asyncio.create_task(self.speaks.wait())
        await asyncio.wait([hung_up, speaks], return_when=asyncio.FIRST_COMPLETED)
        self.open.discard(number)
        if speaks.done():
            body = json.dumps([BROKEN])
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write((head + body).encode())
        hung_up.cancel()
        speaks.cancel()
        writer.close()


async def make_pod_that_says(kube: Kube, namespace: str, status: dict[str, Any]) -> str:
    """A pod of the model, and what a kubelet would say of it. Returns its UID."""
    labels = {MANAGED_BY_LABEL: MANAGED_BY}
    made = await make_pod(kube, namespace)
    await kube.merge(POD, namespace, "p", {"metadata": {"labels": labels}}, manager="kubelet")
    await kube._write(
        "merge",
        POD,
        "PATCH",
        POD.path(namespace, "p", "status"),
        {"status": status},
        content_type="application/merge-patch+json",
    )
    return str(made["metadata"]["uid"])


def says(observed: Observed, *_: Platform | datetime | Measurements) -> Plan:
    """A plan that writes down what is known."""
    told = [str(event["message"]) for event in observed.events]
    generation = observed.deployment["metadata"]["generation"]
    known = {"models": list(observed.models.values()), "events": told}
    return Plan((WriteStatus({"observedGeneration": generation, **known}),))


async def test_a_rollback_waits_for_no_triton_that_is_silent(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    open_at: dict[int, set[int]] = {}

    async def known() -> dict[str, Any]:
        found: dict[str, Any] = (await kube.get(MODEL_DEPLOYMENT, namespace, "m")).get("status", {})
        return found

    async with Triton() as triton:

        def planner(observed: Observed, *more: Platform | datetime | Measurements) -> Plan:
            open_at.setdefault(observed.deployment["metadata"]["generation"], set(triton.open))
            return says(observed, *more)

        running = {"name": "triton", "image": "triton", "imageID": "", "restartCount": 0}
        running |= {"ready": False, "state": {"running": {"startedAt": LONG_AGO}}}
        status = {"phase": "Running", "podIP": triton.address, "containerStatuses": [running]}
        await make_pod_that_says(kube, namespace, status)
        await h.create_model(kube, namespace)
        async with h.running(plane, namespace, planner):
            # What is decided anew is decided and written while one and the same question is open.
            for image in range(1, 100):
                await h.until(lambda: triton.open, "a question")
                made = await kube.merge(
                    MODEL_DEPLOYMENT, namespace, "m", {"spec": {"image": str(image)}}, manager="u"
                )
                generation = made.document["metadata"]["generation"]

                async def written(generation: int = generation) -> bool:
                    return bool((await known()).get("observedGeneration") == generation)

                await h.until(written, f"generation {generation}")
                if open_at[generation] & triton.open:
                    break
            else:
                raise AssertionError("every plan waited until nobody was asked any more")
            assert (await known())["models"] == []
            triton.speaks.set()

            async def explained() -> bool:
                return bool((await known())["models"] == ["m version 1: Internal: no file"])

            await h.until(explained, "Triton's reason")


async def test_what_events_tell_of_a_stuck_pod_is_used_once_it_is_read(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": LONG_AGO}
    status = {"phase": "Pending", "conditions": [scheduled]}
    uid = await make_pod_that_says(kube, namespace, status)
    about = {"kind": "Pod", "name": "p", "namespace": namespace, "uid": uid}
    event = {
        "metadata": {"name": "p.1", "namespace": namespace},
        "involvedObject": about,
        "reason": "FailedMount",
        "message": "no such claim",
        "type": "Warning",
    }
    await kube.create(EVENT, event, manager="kubelet")
    await h.create_model(kube, namespace)
    async with h.running(plane, namespace, says):

        async def told() -> bool:
            live = await kube.get(MODEL_DEPLOYMENT, namespace, "m")
            return bool(live.get("status", {}).get("events") == ["no such claim"])

        await h.until(told, "what the event tells")
