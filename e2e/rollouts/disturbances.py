"""What happens in the middle of a rollout."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from e2e.cluster import addons
from e2e.tests.leader import kill_leader, leader
from e2e.tests.space import SETTINGS

if TYPE_CHECKING:
    from e2e.rollouts.stage import Run

APPS: Final = "apps/v1"


def _nothing(_: "Run") -> None:
    pass


@dataclass(frozen=True)
class Disturbance:
    """One thing that happens once.

    Attributes:
        phase: in which phase of the rollout; it happens as soon as status says so.
        happen: does it.
        mend: undoes it when the scenario is over.
    """

    phase: str
    happen: Callable[["Run"], None]
    mend: Callable[["Run"], None] = _nothing


def _kill(run: "Run") -> None:
    kube = run.stage.space.kube
    kill_leader(kube, leader(kube))


def kill_operator(phase: str) -> Disturbance:
    """SIGKILL for the operator's leader."""
    return Disturbance(phase, _kill, _await_operator)


def _await_operator(run: "Run") -> None:
    addons.await_rollout(run.stage.space.kube, "tidegate-operator", addons.OPERATOR_NAMESPACE)


def _scale_prometheus(run: "Run", replicas: int) -> None:
    kube = run.stage.space.kube
    path = kube.path(APPS, "Deployment", SETTINGS.infra_namespace, "prometheus")
    body = {"spec": {"replicas": replicas}}
    kube.request("PATCH", path, body=body, content_type="application/merge-patch+json")


def _restart_gateway_controller(run: "Run") -> None:
    kube = run.stage.space.kube
    for pod in kube.list(
        "v1", "Pod", addons.GATEWAY_NAMESPACE, selector="control-plane=envoy-gateway"
    ):
        kube.delete("v1", "Pod", pod["metadata"]["name"], addons.GATEWAY_NAMESPACE)


def _await_gateway_controller(run: "Run") -> None:
    addons.await_rollout(run.stage.space.kube, "envoy-gateway", addons.GATEWAY_NAMESPACE)


def _kill_stable_pod(run: "Run") -> None:
    space = run.stage.space
    mark = run.stage.stable_hash
    pods = [
        pod["metadata"]["name"]
        for pod in space.pods(run.stage.name)
        if pod["metadata"]["labels"]["tidegate.dev/revision"] == mark
    ]
    path = space.kube.path("v1", "Pod", space.name, pods[0])
    space.kube.request("DELETE", path, body={"gracePeriodSeconds": 0})


def _supersede(run: "Run") -> None:
    run.stage.change_to("same", run.seed + 1)


SUPERSEDE: Final = Disturbance("Canary", _supersede)
REVERT: Final = Disturbance("Canary", lambda run: run.stage.revert())
PROMETHEUS_GONE: Final = Disturbance(
    "Canary", lambda run: _scale_prometheus(run, 0), lambda run: _scale_prometheus(run, 1)
)
GATEWAY_CONTROLLER_RESTARTED: Final = Disturbance(
    "Canary", _restart_gateway_controller, _await_gateway_controller
)
STABLE_POD_LOST: Final = Disturbance("Canary", _kill_stable_pod)
