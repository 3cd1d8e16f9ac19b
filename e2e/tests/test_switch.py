"""Moving from one version to the next, and losing pods on the way, costs no request."""

from typing import Final

import pytest

from e2e.cluster.kube import KubeError, wait_for
from e2e.load import Load, Orders, answers
from e2e.tests.kubectl import kubectl
from e2e.tests.load import ask_http
from e2e.tests.space import READY_SECONDS, Space, is_current, model_deployment, stable

NAME: Final = "magika"
TEXT: Final = (
    "import os\nimport sys\n\n\ndef main() -> None:\n    print(os.getcwd(), sys.argv)\n" * 4
)


@pytest.fixture(scope="module")
def magika_name(space: Space, magika: dict[str, str]) -> str:
    """The first generation of Magika."""
    space.apply(model_deployment(NAME, magika["v1"]))
    space.ready(NAME)
    return NAME


def load_on(space: Space, name: str) -> Load:
    """30 requests a second: three connections over HTTP, one over gRPC, all kept alive."""
    addresses = space.address(name), space.grpc_address(name)
    orders = Orders(*addresses, name, TEXT, http_clients=3, rate_hz=7.5, limit_s=240)
    return Load(orders)


def await_one_revision(space: Space, name: str, pods: int) -> None:
    """Wait until no pod of another revision is left, those on their way out included."""

    def settled() -> bool:
        found = space.kube.list("v1", "Pod", space.name, f"tidegate.dev/deployment={name}")
        hashes = {pod["metadata"]["labels"]["tidegate.dev/revision"] for pod in found}
        return len(found) == pods and hashes == {stable(space.live(name))["hash"]}

    wait_for(
        settled,
        f"{pods} pods of one revision",
        timeout_seconds=READY_SECONDS,
        state=lambda: space.told(name),
    )


def test_a_new_version_costs_no_request(
    space: Space, magika_name: str, magika: dict[str, str]
) -> None:
    before = ask_http(space.address(magika_name), magika_name, TEXT)
    with load_on(space, magika_name) as load:
        load.await_more(20)
        space.patch(magika_name, {"model": {"source": {"uri": magika["v3"]}}})
        found = space.ready(magika_name)
        assert stable(found)["source"] == magika["v3"]
        await_one_revision(space, magika_name, pods=1)
        load.await_more(20)
    load.assert_no_failure(at_least=160)
    after = ask_http(space.address(magika_name), magika_name, TEXT)
    assert (before["label"], after["label"]) == ("python", "python")
    assert before["score"] != after["score"], "the two generations cannot be told apart"
    for client in {request.client for request in load.requests}:
        told = answers([r for r in load.requests if r.client == client], "score")
        # From the old to the new, once, on every connection.
        expected = [before["score"], after["score"]]
        assert [round(s, 4) for s in dict.fromkeys(told)] == [round(s, 4) for s in expected]
        assert told == sorted(told, key=lambda s: s == told[-1]), f"{client} went back and forth"


def test_rollout_restart_costs_no_request(space: Space, magika_name: str) -> None:
    before, revision = set(space.restarts(magika_name)), stable(space.live(magika_name))
    with load_on(space, magika_name) as load:
        load.await_more(10)
        kubectl(space, "rollout", "restart", f"deployment/{revision['name']}")
        kubectl(
            *(space, "rollout", "status", f"deployment/{revision['name']}"),
            f"--timeout={READY_SECONDS:.0f}s",
        )
        space.until(
            magika_name,
            lambda f: is_current(f) and f["status"]["readyReplicas"] == 1,
            "a new pod",
        )
        assert not before & set(space.restarts(magika_name))
        await_one_revision(space, magika_name, pods=1)
        load.await_more(10)
    load.assert_no_failure(at_least=80)
    assert stable(space.live(magika_name))["hash"] == revision["hash"]


def test_evictions_keep_to_the_budget_and_cost_no_request(space: Space, magika_name: str) -> None:
    space.patch(magika_name, {"replicas": 2})
    space.ready(magika_name)
    first, second = [pod["metadata"]["name"] for pod in space.pods(magika_name)]
    before = set(space.restarts(magika_name))
    with load_on(space, magika_name) as load:
        load.await_more(10)
        evict(space, first)
        with pytest.raises(KubeError, match="disruption budget") as refused:
            evict(space, second)
        assert refused.value.status == 429

        def evicted() -> bool:
            try:
                evict(space, second)
            except KubeError as error:
                if error.status != 429:
                    raise
                return False
            return True

        # A drain tries again until the budget allows it: when the first one is replaced.
        wait_for(
            evicted,
            "the second eviction allowed",
            timeout_seconds=READY_SECONDS,
            state=lambda: space.told(magika_name),
        )
        serving = [
            p for p in space.pods(magika_name) if p["metadata"]["name"] not in (first, second)
        ]
        assert serving, "both were gone before another served"
        space.ready(magika_name)
        space.until(
            magika_name,
            lambda f: f["status"]["readyReplicas"] == 2 and not before & set(space.restarts(NAME)),
            "two other pods",
        )
        await_one_revision(space, magika_name, pods=2)
        load.await_more(10)
    load.assert_no_failure(at_least=80)


def evict(space: Space, pod: str) -> None:
    """What a node drain asks for."""
    path = space.kube.path("v1", "Pod", space.name, pod)
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": space.name},
    }
    space.kube.request("POST", f"{path}/eviction", body=body)
