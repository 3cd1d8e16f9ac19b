"""Routes as the operator writes them, on real gateways, before two versions of a model.

The routes are written by this test, so that it decides when: two ModelDeployments stand for stable
and canary. What the pods' sidecars counted says what really arrived.
"""

import itertools
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from e2e.cluster import contour
from e2e.cluster.kube import KubeClient, Object, wait_for
from e2e.load import Load, Orders
from e2e.tests.space import READY_SECONDS, SETTINGS, Space, model_deployment, stable
from tidegate.api.spec import parse
from tidegate.record import Record
from tidegate.resources import route as routes
from tidegate.resources.route import RouteState, Split

MODEL: Final = "whoami"
PIN: Final = {"x-canary": "yes"}
GRPC_HOST: Final = "grpc-only"
LABELS: Final = {"stable": "one", "canary": "two"}
KINDS_OF_COPIES: Final = [f"{c}_{p}" for c in ("client", "mirrored") for p in ("http", "grpc")]
SIGMAS: Final = 5
"""Of a binomial: a good gateway misses this once in a million runs."""


@dataclass(frozen=True)
class Entrance:
    """A gateway to come in by.

    Attributes:
        name: of the implementation; also in the hostnames of its routes.
        parent: its parentRef.
        address: ``host:port``.
        controller: its controllerName.
    """

    name: str
    parent: dict[str, str]
    address: str
    controller: str


@dataclass(frozen=True)
class Stage:
    """Two versions behind one gateway.

    Attributes:
        space: where they are.
        entrance: the gateway.
        services: Services of the two, ``stable`` and ``canary``.
    """

    space: Space
    entrance: Entrance
    services: dict[str, str]

    @property
    def host(self) -> str:
        """Of the HTTPRoute."""
        return f"{self.entrance.name}.example.test"

    @property
    def grpc_host(self) -> str:
        """Of the GRPCRoute."""
        return f"{GRPC_HOST}.{self.host}"

    def split(self, weight: float = 0.0, mirror: float = 0.0, *, canary: bool = True) -> Split:
        """As `Split`, of these two."""
        if not canary:
            return Split(self.services["stable"])
        return Split(self.services["stable"], self.services["canary"], weight, mirror)

    def write(self, split: Split, kind: str = routes.KIND) -> Object:
        """Write a route, with a pin rule, as the operator does; but nobody owns it."""
        spec = parse(
            {
                "model": {"source": {"uri": "s3://a/b"}},
                "traffic": {
                    "gateway": {
                        "parentRefs": [self.entrance.parent],
                        "hostnames": [self.host],
                        "grpcHostnames": [self.grpc_host],
                    }
                },
                "rollout": {"pin": {"headers": PIN}},
            }
        )
        assert spec.traffic.gateway is not None
        build = {routes.KIND: routes.http_route, routes.GRPC_KIND: routes.grpc_route}[kind]
        owner = {"metadata": {"name": self.entrance.name, "uid": "none"}}
        wish = build(owner, spec, spec.traffic.gateway, split, Record(split.stable).dump())
        del wish["metadata"]["ownerReferences"], wish["metadata"]["labels"]
        return self.space.apply(wish)

    def state(self, kind: str = routes.KIND) -> RouteState:
        """What the gateway says of the route."""
        return routes.route_state(self.space.require(routes.API_VERSION, kind, self.entrance.name))

    def await_state(self, reason: str, kind: str = routes.KIND) -> RouteState:
        """Wait until it says that; empty: it accepts the route."""
        return wait_for(
            lambda: found if (found := self.state(kind)).reason == reason else None,
            f"{kind} of {self.entrance.name}: {reason or 'accepted'}",
            timeout_seconds=READY_SECONDS,
            state=lambda: str(self.state(kind)),
        )

    def http(self, count: int, headers: dict[str, str] | None = None) -> list[str]:
        """Labels that so many requests got; an error is its own label."""
        tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}
        url = f"http://{self.entrance.address}/v2/models/{MODEL}/infer"
        found = []
        with httpx.Client(trust_env=False, headers={"Host": self.host, **(headers or {})}) as asks:
            for _ in range(count):
                reply = asks.post(url, json={"inputs": [tensor]})
                outputs = {o["name"]: o["data"][0] for o in reply.json().get("outputs", [])}
                found.append(str(outputs.get("label", f"{reply.status_code} {reply.text}")))
        return found

    def grpc(
        self, count: int, headers: dict[str, str] | None = None, host: str | None = None
    ) -> list[str]:
        """The same over gRPC."""
        content = tritonclient.grpc.InferInput("content", [1, 1], "BYTES")
        content.set_data_from_numpy(np.array([[b"x"]], dtype=object))
        authority = [("grpc.default_authority", host or self.host)]
        found = []
        with tritonclient.grpc.InferenceServerClient(
            self.entrance.address, channel_args=authority
        ) as asks:
            for _ in range(count):
                try:
                    reply = asks.infer(MODEL, [content], headers=headers, client_timeout=30)
                except InferenceServerException as error:
                    found.append(str(error))
                else:
                    found.append(reply.as_numpy("label").reshape(-1)[0].decode())
        return found

    def counted(self, which: str, traffic: str) -> int:
        """Requests that arrived at the pods of one version, by their sidecars."""
        total = 0
        for pod in self.space.pods(which):
            path = self.space.kube.path("v1", "Pod", self.space.name, pod["metadata"]["name"])
            page = self.space.kube.text(f"{path}:9091/proxy/stats/prometheus")
            line = rf'^envoy_cluster_upstream_rq_total{{envoy_cluster_name="{traffic}"}} (\d+)$'
            total += sum(map(int, re.findall(line, page, re.MULTILINE)))
        return total

    def await_labels(self, load: Load, label: str) -> None:
        """Wait until the newest answers of a load all are of one version."""
        newest = 20
        began = len(load.requests)

        def arrived() -> bool:
            seen = load.requests[began:][-newest:]
            return len(seen) == newest and all((r.answer or {}).get("label") == label for r in seen)

        wait_for(
            arrived,
            f"all of {newest} answers from {label}",
            timeout_seconds=READY_SECONDS,
            state=lambda: str([r.answer or r.error for r in load.requests[-newest:]]),
        )


@pytest.fixture(scope="module")
def services(space: Space, whoami: dict[str, str]) -> dict[str, str]:
    """Both versions, serving; their Services."""
    for name, label in LABELS.items():
        item = model_deployment(name, whoami[label], {"model": {"name": MODEL}})
        space.apply(item)
    return {name: str(stable(space.ready(name))["name"]) for name in LABELS}


@pytest.fixture(
    scope="module", params=["envoy-gateway", pytest.param("contour", marks=pytest.mark.slow)]
)
def stage(
    request: pytest.FixtureRequest, cluster: KubeClient, space: Space, services: dict[str, str]
) -> Iterator[Stage]:
    """The two versions behind each gateway in turn."""
    if request.param == "contour":
        with contour.contour(SETTINGS, cluster, space.name) as address:
            parent = {"name": contour.NAME, "namespace": space.name}
            entrance = Entrance("contour", parent, address, contour.CONTROLLER)
            yield Stage(space, entrance, services)
        return
    gateway = cluster.get(routes.API_VERSION, "Gateway", "public", SETTINGS.infra_namespace)
    assert gateway is not None
    yield Stage(
        space,
        Entrance(
            "envoy-gateway",
            {"name": "public", "namespace": SETTINGS.infra_namespace},
            f"{gateway['status']['addresses'][0]['value']}:80",
            "gateway.envoyproxy.io/gatewayclass-controller",
        ),
        services,
    )


def orders(stage: Stage, expected: str = "") -> Orders:
    """50 requests a second: four clients over HTTP, one over gRPC, on one hostname."""
    address = stage.entrance.address
    return Orders(
        *(address, address, MODEL, "x"),
        http_clients=4,
        rate_hz=10.0,
        limit_s=280.0,
        host=stage.host,
        expected=expected,
    )


def serving(stage: Stage, split: Split) -> None:
    """Write the route and wait until it works, for HTTP and gRPC."""
    stage.write(split)
    stage.await_state("")
    wait_for(
        lambda: stage.http(1) == ["one"] and stage.grpc(1) == ["one"],
        f"{stage.host} serves",
        timeout_seconds=READY_SECONDS,
        state=lambda: f"{stage.http(1)} {stage.grpc(1)}",
    )


def near(seen: int, of: int, share: float) -> bool:
    """Whether that many may be a binomial's outcome."""
    return abs(seen - of * share) <= SIGMAS * math.sqrt(of * share * (1 - share))


def test_what_the_gateway_says_of_a_route_is_understood(stage: Stage) -> None:
    serving(stage, stage.split())
    state = stage.state()
    assert state.accepted
    assert state.controllers == (stage.entrance.controller,)
    assert state.can_mirror is (stage.entrance.name == "envoy-gateway")
    stage.write(Split("nowhere"))
    refused = stage.await_state("BackendNotFound")
    assert not refused.accepted
    assert "nowhere" in refused.message
    serving(stage, stage.split())


def test_twenty_changes_of_weight_lose_no_request(stage: Stage) -> None:
    serving(stage, stage.split(canary=False))
    weights = (0.05, 0.25, 0.5, 1.0, 0.5, 0.001, 0.0, 1.0, 0.25, 0.0) * 2
    with Load(orders(stage)) as load:
        load.await_more(20)
        for weight in weights:
            stage.write(stage.split(weight))
            load.await_more(8)
            if weight in (0.0, 1.0):
                stage.await_labels(load, LABELS["canary" if weight else "stable"])
        load.await_more(20)
    load.assert_no_failure(at_least=50 * 20)
    said = [(r.client, (r.answer or {}).get("label")) for r in load.requests]
    clients = {r.client for r in load.requests}
    assert set(said) == set(itertools.product(clients, LABELS.values())), "not all were moved"


def test_a_step_is_the_share_that_arrives(stage: Stage) -> None:
    serving(stage, stage.split(0.05))
    before = {which: stage.counted(which, "client_http") for which in LABELS}
    count = 2_000
    labels = stage.http(count)
    assert set(labels) == set(LABELS.values())
    seen = {which: stage.counted(which, "client_http") - before[which] for which in LABELS}
    assert seen == {which: labels.count(label) for which, label in LABELS.items()}
    assert near(seen["canary"], count, 0.05), seen


def test_the_pin_reaches_the_canary_and_nobody_else_does(stage: Stage) -> None:
    serving(stage, stage.split())
    count = 20
    kinds = [f"{c}_{p}" for c in ("client", "pinned") for p in ("http", "grpc")]
    before = {(w, k): stage.counted(w, k) for w in LABELS for k in kinds}
    for ask in (stage.http, stage.grpc):
        assert set(ask(count)) == {"one"}
        assert set(ask(count, PIN)) == {"two"}
        assert set(ask(count, {"x-canary": "no"})) == {"one"}
        # A client cannot mark its requests itself, and hide them from the share.
        assert set(ask(count, {"x-tidegate-pin": "mine"})) == {"one"}
    seen = {(w, k): stage.counted(w, k) - before[w, k] for w in LABELS for k in kinds}
    assert seen == {
        **{("stable", f"client_{p}"): 3 * count for p in ("http", "grpc")},
        **{("canary", f"pinned_{p}"): count for p in ("http", "grpc")},
        **{("stable", f"pinned_{p}"): 0 for p in ("http", "grpc")},
        **{("canary", f"client_{p}"): 0 for p in ("http", "grpc")},
    }


def test_a_pin_rule_that_comes_and_goes_touches_no_other_request(stage: Stage) -> None:
    serving(stage, stage.split(canary=False))
    with Load(orders(stage, expected="one")) as load:
        load.await_more(10)
        for turn in range(20):
            stage.write(stage.split(canary=turn % 2 == 0))
            load.await_more(3)
        load.await_more(10)
    load.assert_no_failure(at_least=300)


def test_a_mirror_copies_a_share_and_nobody_sees_its_answers(stage: Stage) -> None:
    share, count = 0.5, 400
    serving(stage, stage.split(mirror=share))
    # Where copies are all or none, as `can_mirror` has it, the share is not heeded.
    expected = share if stage.state().can_mirror else 1.0
    before = {(w, k): stage.counted(w, k) for w in LABELS for k in KINDS_OF_COPIES}
    assert set(stage.http(count)) == {"one"}
    assert set(stage.grpc(count)) == {"one"}
    time.sleep(1)  # a copy may be on its way after its original was answered
    seen = {(w, k): stage.counted(w, k) - before[w, k] for w in LABELS for k in KINDS_OF_COPIES}
    for protocol in ("http", "grpc"):
        assert seen["stable", f"client_{protocol}"] == count
        assert seen["stable", f"mirrored_{protocol}"] == 0
        assert seen["canary", f"client_{protocol}"] == 0
        assert near(seen["canary", f"mirrored_{protocol}"], count, expected), seen

    stage.write(stage.split())

    def over() -> bool:
        copies = stage.counted("canary", "mirrored_http")
        return set(stage.http(50)) == {"one"} and stage.counted("canary", "mirrored_http") == copies

    wait_for(over, "no copies any more", timeout_seconds=READY_SECONDS)


def test_hosts_of_grpc_alone_have_a_route_of_their_own(stage: Stage) -> None:
    serving(stage, stage.split())

    def ask(headers: dict[str, str] | None = None) -> set[str]:
        return set(stage.grpc(20, headers, stage.grpc_host))

    def leads_to(label: str) -> bool:
        return ask() == {label}

    for weight, label in ((0.0, "one"), (1.0, "two"), (0.0, "one")):
        stage.write(stage.split(weight), routes.GRPC_KIND)
        stage.await_state("", routes.GRPC_KIND)
        wait_for(
            partial(leads_to, label),
            f"{stage.grpc_host} leads to {label}",
            timeout_seconds=READY_SECONDS,
            state=lambda: str(ask()),
        )
    assert ask(PIN) == {"two"}
    assert set(stage.http(20)) == set(stage.grpc(20)) == {"one"}  # the HTTPRoute beside it
