"""What a pass waits for before it plans: nothing, whoever is silent."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

import kopf

from tests.unit.diagnosis.test_nodes import waiting
from tests.unit.runtime.test_triton import BROKEN, WHY
from tests.unit.runtime.test_triton import pod as loading
from tidegate.actions import Plan
from tidegate.api.names import DEPLOYMENT_LABEL
from tidegate.nodes import Node, Nodes
from tidegate.observed import Measurements, Observed, Ref
from tidegate.platform import Platform
from tidegate.runtime.cache import Key
from tidegate.runtime.explaining import Explainer
from tidegate.runtime.kinds import MODEL_DEPLOYMENT, POD
from tidegate.runtime.login import Connection
from tidegate.runtime.operator import Operator
from tidegate.runtime.settings import Settings
from tidegate.runtime.triton import RepositoryIndex

KEY = Key("models", "m")
TAKEN = Ref("v1", "Service", "m")
EVENT = {"metadata": {"name": "told"}}
NODES = {"items": [{"metadata": {}, "status": {"allocatable": {"nvidia.com/gpu": "4"}}}]}


class Silent:
    """A server that takes what it is sent and says nothing, until it is told to speak."""

    def __init__(self, log: list[str], answer: Callable[[str], Any]) -> None:
        self._log = log
        self._answer = answer
        self._speaks = asyncio.Event()
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.speak()
        self._server.close()

    def speak(self) -> None:
        self._speaks.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode().partition("?")[0]
        self._log.append(f"heard {path}")
        self.heard.put_nowait(path)
        await self._speaks.wait()
        found = self._answer(path)
        status = "404 Not Found" if found is None else "200 OK"
        body = json.dumps(found).encode()
        lines = [f"HTTP/1.1 {status}", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        self._log.append(f"answered {path}")
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()
        writer.close()


def cluster(path: str) -> Any:
    """What the API server answers; the name that was taken is free by now."""
    known = {"/api/v1/namespaces/models/events": {"items": [EVENT]}, "/api/v1/nodes": NODES}
    return known.get(path)


def stuck() -> dict[str, Any]:
    """A pod that has been on a node for long, with no container started."""
    since = "2020-01-01T00:00:00Z"
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": since}
    return {"metadata": {}, "status": {"phase": "Pending", "conditions": [scheduled]}}


def put_all(operator: Operator, of: str = "") -> None:
    """A ModelDeployment with a pod that loads, one that is stuck, and one that waits for a GPU."""
    deployment = {"metadata": {"name": "m", "namespace": "models", "uid": "u", "generation": 1}}
    operator.cache.put(MODEL_DEPLOYMENT, {**deployment, "spec": {}})
    pods = {"loads": loading("loads"), "is-stuck": stuck(), "waits": waiting()}
    for name, pod in pods.items():
        about = {"name": name, "uid": f"uid-{name}{of}", "namespace": "models"}
        labels = {**pod["metadata"].get("labels", {}), DEPLOYMENT_LABEL: "m"}
        operator.cache.put(POD, {**pod, "metadata": {**about, "labels": labels}})


async def test_a_pass_plans_before_any_answer_and_answers_are_used_when_they_come() -> None:
    log: list[str] = []
    seen: list[Observed] = []

    def planner(observed: Observed, *_: Platform | datetime | Measurements) -> Plan:
        log.append("planned")
        seen.append(observed)
        return Plan()

    async with Silent(log, cluster) as api, Silent(log, lambda _: [BROKEN]) as triton:
        connection = Connection(kopf.ConnectionInfo(server=api.url))
        operator = Operator(Settings(), Platform(), planner, connection)
        reconciler, queue = operator.reconciler, operator.queue
        index = RepositoryIndex(queue.add, url=lambda _: triton.url)
        reconciler._explainer = Explainer(operator.kube, queue.add, read_nodes=True, index=index)
        put_all(operator)
        reconciler._foreign.met(KEY, TAKEN)
        before = asyncio.all_tasks()
        async with operator.kube:
            for _ in range(2):
                await reconciler.reconcile(KEY)
            # Both, before as much as one question was heard; and no pass comes to ask it twice.
            assert log == ["planned", "planned"]
            heard = [await server.heard.get() for server in (triton, api, api, api)]
            await reconciler.reconcile(KEY)
            assert [entry for entry in log if not entry.startswith("heard")] == ["planned"] * 3
            assert sorted(heard) == [
                "/api/v1/namespaces/models/events",
                "/api/v1/namespaces/models/services/m",
                "/api/v1/nodes",
                "/v2/repository/index",
            ]
            assert {(bool(o.models), o.events, o.nodes) for o in seen} == {(False, (), None)}
            assert {o.foreign for o in seen} == {frozenset({TAKEN})}

            while await queue.get() == KEY:  # woken by what is told to it, and by nothing else
                await reconciler.reconcile(KEY)
                queue.succeeded(KEY)
                last = seen[-1]
                if last.models and last.events and last.nodes and not last.foreign:
                    break
                for server in (api, triton):
                    server.speak()
            assert last.models == {"uid-loads": WHY}
            assert last.events == (EVENT,)
            assert last.nodes == Nodes((Node({"nvidia.com/gpu": 4}),))
            await reconciler.stop()
        assert asyncio.all_tasks() == before


async def test_a_deployment_that_is_gone_asks_nothing_more_nor_does_an_operator_that_stops() -> (
    None
):
    log: list[str] = []
    async with Silent(log, cluster) as api, Silent(log, lambda _: [BROKEN]) as triton:
        connection = Connection(kopf.ConnectionInfo(server=api.url))
        operator = Operator(Settings(), Platform(), lambda *_: Plan(), connection)
        reconciler, queue = operator.reconciler, operator.queue
        index = RepositoryIndex(queue.add, url=lambda _: triton.url)
        reconciler._explainer = Explainer(operator.kube, queue.add, read_nodes=True, index=index)
        before = asyncio.all_tasks()

        def asking() -> set[str]:
            return {t.get_name() for t in asyncio.all_tasks() - before if t.get_name()[:3] == "ask"}

        put_all(operator)
        reconciler._foreign.met(KEY, TAKEN)
        async with operator.kube:
            await reconciler.reconcile(KEY)
            assert len(asking()) == 4
            operator.cache.drop_kind(POD)
            await reconciler.reconcile(KEY)
            await asyncio.sleep(0)
            assert len(asking()) == 1
            operator.cache.drop_kind(MODEL_DEPLOYMENT)
            await reconciler.reconcile(KEY)
            await asyncio.sleep(0)
            assert asking() == set()
            put_all(operator, of="-later")
            await reconciler.reconcile(KEY)
            assert len(asking()) == 2  # the nodes not so soon
            await reconciler.stop()
            assert asking() == set()
