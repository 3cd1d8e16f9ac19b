"""Fewer pods cost no request: those that leave answer what they have taken.

A request takes `SERVICE_S`, so a pod that is told to leave has some in its hands. Half of the load
goes to the Services on connections that are kept alive, half through the gateway.
"""

import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.cluster.kube import Object
from e2e.load import Load, Orders
from e2e.models.sleeper.build import MODEL as SLEEPER
from e2e.models.sleeper.build import Times, build
from e2e.rollouts.stage import gateway_address
from e2e.tests import artefacts
from e2e.tests.load import ask_http, await_answer
from e2e.tests.space import SETTINGS, Space, model_deployment

NAME: Final = "unhurried"
HOST: Final = "unhurried.example.test"
SERVICE_S: Final = 0.3
OUTPUTS: Final = ("label", "pod")
_MODEL: Final = f'''\
"""Says in which pod it is, after a while; any number of requests wait at once."""

import os
import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            content = pb_utils.get_input_tensor_by_name(request, "content").as_numpy()
            sender = request.get_response_sender()
            threading.Timer({SERVICE_S}, self._answer, (sender, content.shape)).start()

    def _answer(self, sender, shape):
        said = {{"label": "here", "pod": os.environ["HOSTNAME"]}}
        tensors = [
            pb_utils.Tensor(name, np.full(shape, text.encode(), dtype=object))
            for name, text in said.items()
        ]
        sender.send(
            pb_utils.InferenceResponse(tensors),
            flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
        )
'''


@pytest.fixture(scope="module")
def unhurried(space: Space) -> str:
    """A ModelDeployment with three pods."""
    files = {
        "config.pbtxt": artefacts.config(outputs=OUTPUTS),
        "1/model.py": _MODEL.encode(),
    }
    spec = {"replicas": 3, "traffic": behind_the_gateway(HOST)}
    space.apply(model_deployment(NAME, artefacts.put("unhurried", files), spec))
    await_service(space, NAME, HOST)
    return NAME


def behind_the_gateway(host: str) -> dict[str, Any]:
    """``spec.traffic``."""
    parent = {"name": "public", "namespace": SETTINGS.infra_namespace}
    return {"gateway": {"parentRefs": [parent], "hostnames": [host]}}


def await_service(space: Space, name: str, host: str) -> None:
    """Wait until all its pods are Ready and the gateway knows the way."""
    space.ready(name)
    address = gateway_address(space)
    await_answer(
        lambda: ask_http(address, name, "x", host),
        f"{host} through the gateway",
        lambda: space.told(name),
    )


def loads_on(
    space: Space, name: str = NAME, host: str = HOST, rate_hz: float = 60.0, limit_s: float = 300.0
) -> list[Load]:
    """HTTP and gRPC, half to the Services and half through the gateway."""
    gateway, services = gateway_address(space), (space.address(name), space.grpc_address(name))
    # One HTTP connection carries one request at a time, so it takes a few of them.
    said: dict[str, Any] = {"rate_hz": rate_hz / 4, "limit_s": limit_s, "connections": 8}
    return [
        Load(Orders(*services, name, "x", **said)),
        Load(Orders(gateway, gateway, name, "x", host=host, **said)),
    ]


class Leaving:
    """The pods that leave, watched.

    Attributes:
        since: when each was first seen on its way out, seconds since the epoch.
    """

    def __init__(self, space: Space, name: str = NAME) -> None:
        self._space = space
        self._name = name
        self.since: dict[str, float] = {}

    def over(self, found: Object) -> bool:
        """Whether one pod is there, those on their way out included."""
        pods = self._space.kube.list(
            "v1", "Pod", self._space.name, f"tidegate.dev/deployment={self._name}"
        )
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                self.since.setdefault(pod["metadata"]["name"], time.time())
        return len(pods) == 1 and found["status"]["replicas"] == 1


def test_two_of_three_pods_leave_and_no_request_is_lost(space: Space, unhurried: str) -> None:
    everyone = {pod["metadata"]["name"] for pod in space.pods(unhurried)}
    assert len(everyone) == 3
    leaving = Leaving(space)
    with ExitStack() as stack:
        loads = [stack.enter_context(load) for load in loads_on(space)]
        for load in loads:
            load.await_more(20)
        space.patch(unhurried, {"replicas": 1})
        space.until(unhurried, leaving.over, "one pod, the others gone")
        for load in loads:
            load.await_more(20)
    answered: Counter[str] = Counter()
    late: Counter[str] = Counter()
    for load in loads:
        for request in load.requests:
            pod = (request.answer or {}).get("pod", "nobody")
            answered[pod] += 1
            late[pod] += load.began + request.end_s > leaving.since.get(pod, float("inf"))
    print(f"answered by pod: {dict(answered)}; by those that leave, once told to: {dict(late)}")
    for load in loads:
        load.assert_no_failure(at_least=150)
    assert len(leaving.since) == 2
    # Else nothing was seen: each was at work, and still was when it had to go.
    assert everyone == set(answered)
    assert all(late[pod] for pod in leaving.since)
    [last] = [pod["metadata"]["name"] for pod in space.pods(unhurried)]
    assert last not in leaving.since


@pytest.mark.slow
def test_the_autoscaler_takes_a_pod_away_and_no_request_is_lost(space: Space) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder) / "repository", Times()) / SLEEPER
        files = {
            p.relative_to(built).as_posix(): p.read_bytes()
            for p in sorted(built.rglob("*"))
            if p.is_file()
        }
    host = f"{SLEEPER}.example.test"
    spec = {
        "slo": {"latency": {"quantile": "0.99", "target": "400ms"}},
        "scaling": {"mode": "SLO", "minReplicas": 2, "maxReplicas": 4, "headroom": "0"},
        "traffic": behind_the_gateway(host),
    }
    wanted = model_deployment(SLEEPER, artefacts.put("scaling-down-sleeper", files), spec)
    del wanted["spec"]["replicas"]
    space.apply(wanted)
    await_service(space, SLEEPER, host)
    assert len(space.pods(SLEEPER)) == 2
    leaving = Leaving(space, SLEEPER)
    with ExitStack() as stack:
        loads = [
            stack.enter_context(load) for load in loads_on(space, SLEEPER, host, 20.0, limit_s=600)
        ]
        space.patch(SLEEPER, {"scaling": {"minReplicas": 1}})
        # Fewer only after five minutes of measurements.
        space.until(SLEEPER, leaving.over, "one pod, the other gone", seconds=500.0)
        for load in loads:
            load.await_more(20)
    asked = [load.began + r.at_s for load in loads for r in load.requests]
    began = min(leaving.since.values())
    print(
        f"{len(asked)} requests, {sum(at > began for at in asked)} since the pod was told to leave"
    )
    for load in loads:
        load.assert_no_failure(at_least=2000)
    assert len(leaving.since) == 1
    events = space.kube.list("v1", "Event", space.name)
    assert [e for e in events if e["reason"] == "Scaled" and "2 -> 1 replicas" in e["message"]]
