"""Fewer pods cost no request: those that leave answer what they have taken.

A request takes `SERVICE_S`, so a pod that is told to leave has some in its hands. Half of the load
goes to the Services on connections that are kept alive, half through the gateway.
"""

import time
from collections import Counter
from contextlib import ExitStack
from typing import Final

import pytest

from e2e.cluster.kube import Object
from e2e.load import Load, Orders
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
    gateway = {
        "parentRefs": [{"name": "public", "namespace": SETTINGS.infra_namespace}],
        "hostnames": [HOST],
    }
    spec = {"replicas": 3, "traffic": {"gateway": gateway}}
    space.apply(model_deployment(NAME, artefacts.put("unhurried", files), spec))
    space.ready(NAME)
    address = gateway_address(space)
    await_answer(
        lambda: ask_http(address, NAME, "x", HOST),
        f"{HOST} through the gateway",
        lambda: space.told(NAME),
    )
    return NAME


def loads_on(space: Space) -> list[Load]:
    """60 requests a second, HTTP and gRPC, half to the Services and half through the gateway."""
    gateway, services = gateway_address(space), (space.address(NAME), space.grpc_address(NAME))
    return [
        # One HTTP connection carries one request at a time, so it takes a few of them.
        Load(Orders(*services, NAME, "x", rate_hz=15.0, connections=8)),
        Load(Orders(gateway, gateway, NAME, "x", rate_hz=15.0, host=HOST, connections=8)),
    ]


class Leaving:
    """The pods that leave, watched.

    Attributes:
        since: when each was first seen on its way out, seconds since the epoch.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self.since: dict[str, float] = {}

    def over(self, found: Object) -> bool:
        """Whether one pod is there, those on their way out included."""
        pods = self._space.kube.list(
            "v1", "Pod", self._space.name, f"tidegate.dev/deployment={NAME}"
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
