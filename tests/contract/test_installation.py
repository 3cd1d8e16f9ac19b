"""Bringing the chart up, as tests and benches do it: by Helm, beside pods that crash.

There is no node: what a kubelet would report of the pods is written by the tests.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from e2e.cluster import addons, installation
from e2e.cluster.control_plane import ControlPlane, control_plane
from e2e.cluster.kube import KubeClient, KubeError, Object, has_condition, wait_for
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings
from tests.contract.documentation.kubelet import ADDRESS, kubelet

pytestmark = pytest.mark.contract

NODE = "node-1"
WORDS = "KeyError: 'nobody thought of it'"
VALUES = {"dashboard.enabled": "true"}

READY = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
CRASHES = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A cluster of its own, for the chart changes all of it."""
    with control_plane(controllers=True) as plane:
        yield plane


@pytest.fixture(scope="module")
def kube(plane: ControlPlane) -> Iterator[KubeClient]:
    with plane.client() as client, kubelet(plane, {"operator": WORDS, "dashboard": ""}) as port:
        client.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        path = client.path("v1", "Node", None, NODE)
        node = client.request("GET", path)
        node["status"] |= {
            "addresses": [{"type": "InternalIP", "address": ADDRESS}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        client.request("PUT", f"{path}/status", body=node)
        yield client


def pods(kube: KubeClient) -> list[Object]:
    """The chart's that are not on their way out."""
    found = kube.list("v1", "Pod", addons.OPERATOR_NAMESPACE, installation.OF_THE_CHART)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def report(kube: KubeClient, pod: Object, status: dict[str, Any]) -> None:
    """What a kubelet would say of it."""
    path = kube.path("v1", "Pod", addons.OPERATOR_NAMESPACE, pod["metadata"]["name"])
    body, as_merge = {"status": status}, "application/merge-patch+json"
    kube.request("PATCH", f"{path}/status", body=body, content_type=as_merge)


def crash(kube: KubeClient, pod: Object) -> None:
    """It ends again and again."""
    name = pod["spec"]["containers"][0]["name"]
    container = {"name": name, "image": "x", "imageID": "", "ready": False, "restartCount": 7}
    report(kube, pod, {"containerStatuses": [container | {"state": CRASHES}], "conditions": None})


@contextmanager
def node(kube: KubeClient, start: Callable[[KubeClient, Object], None]) -> Iterator[None]:
    """While the block runs, a scheduler and a kubelet: each new pod is bound, and started so."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            with suppress(KubeError):  # it has just gone
                for pod in pods(kube):
                    if pod["spec"].get("nodeName"):
                        continue
                    path = kube.path("v1", "Pod", addons.OPERATOR_NAMESPACE)
                    name = pod["metadata"]["name"]
                    binding = {
                        "apiVersion": "v1",
                        "kind": "Binding",
                        "metadata": {"name": name},
                        "target": {"kind": "Node", "name": NODE},
                    }
                    start(kube, pod)
                    kube.request("POST", f"{path}/{name}/binding", body=binding)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def works(kube: KubeClient, pod: Object) -> None:
    report(kube, pod, READY)


def works_late(kube: KubeClient, pod: Object) -> None:
    """Not at once, so that who does not wait for it is found out."""
    time.sleep(1.0)
    works(kube, pod)


def crashes(kube: KubeClient, pod: Object) -> None:
    """The operator does; the dashboard works."""
    (crash if "operator" in pod["metadata"]["name"] else works)(kube, pod)


def bring_up(
    plane: ControlPlane, kube: KubeClient, *, renewed: bool = False, form: str = "usual"
) -> None:
    settings, values = Settings(state=plane.directory), VALUES | {"podAnnotations.form": form}
    installation.bring_up(kube, settings, Progress(), values=values, renewed=renewed)


def uids(kube: KubeClient) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods(kube)}


def form_of(pod: Object) -> str | None:
    """Annotation of the operator's pods; the dashboard's have none."""
    return (pod["metadata"].get("annotations") or {}).get("form")


def test_a_life_of_installations(plane: ControlPlane, kube: KubeClient) -> None:
    # One that crashes says why, at once.
    with node(kube, crashes), pytest.raises(installation.PodCrashes) as failed:
        bring_up(plane, kube)
    assert WORDS in str(failed.value)
    assert "operator crashes" in str(failed.value)

    # The next one is not held up by its pods, though nothing of the Deployment has changed.
    with node(kube, works):
        bring_up(plane, kube)
        first = uids(kube)
        assert len(first) == 3
        # Nothing to do: nothing is restarted.
        bring_up(plane, kube)
        assert uids(kube) == first
        # The same name with another content.
        bring_up(plane, kube, renewed=True)
        second = uids(kube)
        assert len(second) == 3
        assert not second & first

    # A new form that crashes is told of though the old pods run on,
    with node(kube, crashes), pytest.raises(installation.PodCrashes, match="nobody thought"):
        bring_up(plane, kube, form="new")
    assert second & uids(kube)

    # and goes without a word when another form is wanted; the old pods do not count as its.
    with node(kube, works_late):
        bring_up(plane, kube, form="better")
        better = [p for p in pods(kube) if form_of(p) == "better"]
        assert [has_condition(pod, "Ready") for pod in better] == [True, True]
    wait_for(
        lambda: not any(installation.crashing(pod) for pod in pods(kube)),
        "what crashed gone",
        timeout_seconds=120,
    )


def test_a_single_crash_is_none() -> None:
    state = {"name": "operator", "restartCount": 1, "state": CRASHES}
    assert installation.crashing({"status": {"containerStatuses": [state]}}) == ""
    state["restartCount"] = installation.RESTARTS
    assert installation.crashing({"status": {"containerStatuses": [state]}}) == "operator"
