"""What a model waits for stands in Ready=False with the mend; it goes on by itself when that comes.

Each case holds something back, looks, gives it, and wants an answer of the model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from e2e.cluster.kube import Object, wait_for
from e2e.tests.load import ask_http, await_answer
from e2e.tests.space import (
    API,
    KIND,
    READY_SECONDS,
    SETTINGS,
    Space,
    condition,
    model_deployment,
)
from e2e.tests.volumes import claim, volume

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
OTHER_PORT: Final = 18333
RESTRICTED: Final[dict[str, Any]] = {
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
}


@pytest.fixture(autouse=True)
def tidy(space: Space) -> Iterator[None]:
    """No case leaves its model to the next."""
    yield
    for item in space.kube.list(API, KIND, space.name):
        space.kube.delete(API, KIND, item["metadata"]["name"], space.name)


def assert_goes_on(space: Space, name: str) -> None:
    """Nobody touches the ModelDeployment; it becomes Ready, and answers."""
    generation = space.live(name)["metadata"]["generation"]
    found = space.ready(name)
    assert found["metadata"]["generation"] == generation
    assert condition(found, "Stalled")["status"] == "False"
    answer = await_answer(
        lambda: ask_http(space.address(name), name, "x"), "an answer", lambda: space.told(name)
    )
    assert answer["label"] == "one"


def assert_waits(space: Space, name: str) -> None:
    """It waits for something: under way, not stalled, and nothing serves."""
    found = space.live(name)
    told = {c["type"]: c["status"] for c in found["status"]["conditions"]}
    assert (told["Reconciling"], told["Stalled"], told["Available"]) == ("True", "False", "False")


def test_missing_secret(space: Space, whoami: dict[str, str]) -> None:
    spec = {"model": {"source": {"secretName": "later"}}}
    space.apply(model_deployment("secret", whoami["one"], spec))
    space.not_ready("secret", "SecretNotFound", '"later"', "Create it")
    assert_waits(space, "secret")
    space.apply(space.s3_secret("later"))
    assert_goes_on(space, "secret")


def test_unreachable_source(space: Space, whoami: dict[str, str]) -> None:
    endpoint = f"http://{SETTINGS.s3_address}:{OTHER_PORT}"
    spec = {"model": {"source": {"endpoint": endpoint}}}
    space.apply(model_deployment("dead", whoami["one"], spec))
    space.not_ready("dead", "SourceUnreachable", SETTINGS.s3_address)
    assert_waits(space, "dead")
    with s3_port(space, OTHER_PORT):
        assert_goes_on(space, "dead")


@contextmanager
def s3_port(space: Space, port: int) -> Iterator[None]:
    """The S3 server listens on another port, too."""
    path = space.kube.path("v1", "Service", SETTINGS.infra_namespace, "s3")

    def ports(*numbers: int) -> None:
        entries = [{"name": f"s3-{n}", "port": n, "targetPort": 8333} for n in numbers]
        space.kube.request(
            "PATCH",
            path,
            body={"spec": {"ports": entries}},
            content_type="application/merge-patch+json",
        )

    before = space.kube.request("GET", path)["spec"]["ports"]
    ports(8333, port)
    try:
        yield
    finally:
        space.kube.request(
            "PATCH",
            path,
            body={"spec": {"ports": before}},
            content_type="application/merge-patch+json",
        )


def test_no_node_with_such_a_gpu(space: Space, whoami: dict[str, str]) -> None:
    spec = {"runtime": {"gpu": {"count": 1, "products": ["NVIDIA-H200"]}}}
    space.apply(model_deployment("product", whoami["one"], spec))
    space.not_ready("product", "NoMatchingNode", "runtime.gpu.products")
    assert_waits(space, "product")
    label_node(space, "NVIDIA-H200")
    try:
        assert_goes_on(space, "product")
    finally:
        label_node(space, SETTINGS.gpus.product)


def label_node(space: Space, product: str) -> None:
    """What GPU feature discovery does when other GPUs are put in."""
    space.kube.request(
        "PATCH",
        space.kube.path("v1", "Node", None, SETTINGS.node),
        body={"metadata": {"labels": {PRODUCT_LABEL: product}}},
        content_type="application/merge-patch+json",
    )


def test_all_gpus_taken(space: Space, whoami: dict[str, str]) -> None:
    taken = SETTINGS.gpus.count
    space.apply(holder(free_gpus(space)))
    wait_for(
        lambda: (
            (space.get("v1", "Pod", "holder") or {}).get("status", {}).get("phase") == "Running"
        ),
        f"a pod that holds what is free of {taken} GPUs",
        timeout_seconds=READY_SECONDS,
    )
    space.apply(model_deployment("fifth", whoami["one"], {"runtime": {"gpu": {"count": 1}}}))
    space.not_ready("fifth", "WaitingForGPU", SETTINGS.gpus.resource, "Free some")
    assert_waits(space, "fifth")
    assert condition(space.live("fifth"), "WaitingForGPU")["status"] == "True"
    space.kube.delete("v1", "Pod", "holder", space.name)
    assert_goes_on(space, "fifth")
    assert condition(space.live("fifth"), "WaitingForGPU")["status"] == "False"


def free_gpus(space: Space) -> int:
    """GPUs that no pod of the cluster holds."""
    resource = SETTINGS.gpus.resource
    held = 0
    for pod in space.kube.list("v1", "Pod"):
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        for container in pod["spec"]["containers"]:
            limits = (container.get("resources") or {}).get("limits") or {}
            held += int(limits.get(resource, 0)) if pod["spec"].get("nodeName") else 0
    free = SETTINGS.gpus.count - held
    assert free > 0, "somebody holds all GPUs of the cluster"
    return free


def holder(gpus: int) -> Object:
    """A pod that does nothing with so many GPUs."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "holder"},
        "spec": {
            **RESTRICTED,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "holder",
                    "image": "nvidia/tritonserver:24.10-py3",
                    "command": ["sleep", "infinity"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {"limits": {SETTINGS.gpus.resource: str(gpus)}},
                }
            ],
        },
    }


def test_quota(space: Space, whoami: dict[str, str]) -> None:
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "small"},
            "spec": {"hard": {"requests.memory": "100Mi"}},
        }
    )
    space.apply(model_deployment("quota", whoami["one"]))
    space.not_ready("quota", "QuotaExceeded", "small", "requests.memory", "Raise the quota")
    assert_waits(space, "quota")
    space.kube.delete("v1", "ResourceQuota", "small", space.name)
    assert_goes_on(space, "quota")


def test_missing_claim(space: Space, whoami: dict[str, str]) -> None:
    name = f"{space.name}-later"
    spec = {"runtime": {"cache": {"claimName": "later"}}}
    space.apply(model_deployment("claim", whoami["one"], spec))
    space.not_ready("claim", "ClaimNotFound", '"later"', "Create the claim")
    assert_waits(space, "claim")
    with volume(space.kube, name):
        space.apply(claim("later", name))
        assert_goes_on(space, "claim")
        space.kube.delete(API, KIND, "claim", space.name)
