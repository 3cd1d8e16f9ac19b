"""Routes and entry Services against the API server, with Gateway API's own CRDs."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2e.cluster import gobuild
from e2e.cluster.kube import KubeClient
from tests.contract.manifests import COLLECTION, manifest
from tidegate.api import crd, units
from tidegate.api.names import CHILDREN_MANAGER
from tidegate.api.patterns import (
    HEADER_NAME_PATTERN,
    HEADER_VALUE_PATTERN,
    HOSTNAME_PATTERN,
)
from tidegate.api.spec import parse
from tidegate.record import Phase, Record
from tidegate.resources import route as r
from tidegate.resources.route import Split
from tidegate.resources.services import entry_service
from tidegate.runtime import drift

pytestmark = pytest.mark.contract

BUILD = {"HTTPRoute": r.http_route, "GRPCRoute": r.grpc_route}


@pytest.fixture(scope="module")
def api(kube: KubeClient) -> KubeClient:
    folder = gobuild.module_folder("envoy-gateway", "sigs.k8s.io/gateway-api")
    files = [
        folder / "config/crd/standard" / f"gateway.networking.k8s.io_{kind}s.yaml"
        for kind in ("httproute", "grpcroute")
    ]
    kube.apply_all([crd.crd(), *(yaml.safe_load(f.read_text(encoding="utf-8")) for f in files)])
    return kube


@pytest.fixture
def deployment(api: KubeClient) -> Iterator[dict[str, Any]]:
    yield api.request("POST", COLLECTION, body=manifest("routed"))
    for kind, version in (
        *((kind, r.API_VERSION) for kind in BUILD),
        ("Service", "v1"),
        ("ModelDeployment", "tidegate.dev/v1alpha1"),
    ):
        api.delete(version, kind, "routed")


def route(
    deployment: dict[str, Any], kind: str, blocks: dict[str, Any], split: Split, record: str = ""
) -> dict[str, Any]:
    asked = parse({**manifest("x")["spec"], **blocks})
    assert asked.traffic.gateway is not None
    return BUILD[kind](deployment, asked, asked.traffic.gateway, split, record)


def applied(api: KubeClient, wish: dict[str, Any], **params: str) -> tuple[int, dict[str, Any]]:
    """What a server-side apply like the operator's gets; unknown fields are refused."""
    response = api.http.patch(
        api.path_of(wish),
        json=wish,
        params={
            **{"fieldManager": CHILDREN_MANAGER, "force": "true", "fieldValidation": "Strict"},
            **params,
        },
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    return response.status_code, response.json()


SPLITS = {
    "one revision": Split("s"),
    "canary without traffic": Split("s", "c"),
    "mirror": Split("s", "c", mirror=0.1),
    "finer mirror": Split("s", "c", mirror=0.0125),
    "mirror of all": Split("s", "c", mirror=1.0),
    "step": Split("s", "c", 0.05),
    "finest step": Split("s", "c", 0.000_01),
    "step and mirror": Split("s", "c", 0.5, 0.25),
    "bake": Split("s", "c", 1.0),
}
GATEWAY = {
    "parentRefs": [{"name": "public", "namespace": "edge", "sectionName": "https"}, {"name": "b"}],
    "hostnames": ["magika.example.org", "*.magika.example.org"],
    "grpcHostnames": ["grpc.example.org"],
}
BLOCKS: dict[str, dict[str, Any]] = {
    "plain": {"traffic": {"gateway": {**GATEWAY, "hostnames": []}}},
    "pinned and limited": {
        "traffic": {"gateway": GATEWAY, "timeout": "1m30s500ms"},
        "rollout": {"pin": {"headers": {"X-Canary": "yes", "x-team": "a b;c=d"}}},
    },
}


@pytest.mark.parametrize("kind", BUILD)
def test_every_route_applies_over_every_other_and_then_there_is_nothing_to_do(
    api: KubeClient, deployment: dict[str, Any], kind: str
) -> None:
    wishes = [
        route(deployment, kind, blocks, split, Record("s", reason=name).dump())
        for (name, split), blocks in itertools.product(SPLITS.items(), BLOCKS.values())
    ]
    for wish in (*wishes, *reversed(wishes[:-1])):
        status, live = applied(api, wish)
        assert status in (200, 201), live
        assert drift.difference(wish, live, CHILDREN_MANAGER) is None
        assert drift.foreign_fields(wish, live) == []
        assert r.shares_of(live) == r.shares_of(wish)
        assert r.record_of(live) == r.record_of(wish)


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize(
    "patch",
    [
        pytest.param(
            [{"op": "replace", "path": "/spec/rules/0/backendRefs/0/weight", "value": 50_000}],
            id="weight",
        ),
        pytest.param([{"op": "remove", "path": "/spec/rules/0/filters"}], id="filters"),
        pytest.param([{"op": "remove", "path": "/spec/rules/1"}], id="pin rule"),
        pytest.param(
            [{"op": "remove", "path": "/metadata/annotations/tidegate.dev~1decision"}], id="record"
        ),
        pytest.param(
            [{"op": "add", "path": "/spec/hostnames/-", "value": "evil.example.org"}], id="host"
        ),
    ],
)
def test_what_somebody_changed_by_hand_is_seen_and_put_back(
    api: KubeClient, deployment: dict[str, Any], kind: str, patch: list[dict[str, Any]]
) -> None:
    wish = route(
        deployment,
        kind,
        BLOCKS["pinned and limited"],
        Split("s", "c", 0.05),
        Record("s", "c", Phase.CANARY, 0.05).dump(),
    )
    applied(api, wish)
    edited = api.request(
        "PATCH",
        api.path_of(wish),
        body=patch,
        params={"fieldManager": "somebody"},
        content_type="application/json-patch+json",
    )
    if patch[0]["path"].endswith("/weight"):
        assert r.shares_of(edited) != r.shares_of(wish)
    if patch[0]["path"].endswith("decision"):
        assert r.record_of(edited) is None
    assert drift.difference(wish, edited, CHILDREN_MANAGER) or drift.foreign_fields(wish, edited)
    _, live = applied(api, wish)
    foreign = drift.foreign_fields(wish, live)
    if foreign:
        live = api.request(
            "PATCH",
            api.path_of(wish),
            body=drift.removal(live, foreign),
            content_type="application/json-patch+json",
        )
    assert drift.difference(wish, live, CHILDREN_MANAGER) is None
    assert live["spec"]["rules"] == applied(api, wish)[1]["spec"]["rules"]


def test_the_entry_moves_between_nobody_and_revisions_and_its_record_comes_and_goes(
    api: KubeClient, deployment: dict[str, Any]
) -> None:
    hashes = (None, "0123456789", "bcdfghjklm", None)
    records = (None, Record("").dump(), Record("0123456789", reason="x").dump())
    for (hash_, record), sidecar in itertools.product(itertools.product(hashes, records), (0, 1)):
        wish = entry_service(deployment, hash_, sidecar=bool(sidecar), record=record)
        status, live = applied(api, wish)
        assert status in (200, 201), live
        assert drift.difference(wish, live, CHILDREN_MANAGER) is None
        assert live["spec"]["selector"] == wish["spec"]["selector"]
        assert r.record_of(live) == Record.load(record)


# Whatever is let through as a ModelDeployment makes a route that is let through, too.

ASCII = st.characters(codec="ascii")
DURATIONS = st.one_of(
    st.sampled_from(["1ms", "99999h", "1h30m", "90000s", "99999h99999h", "59m60s1000ms"]),
    st.from_regex(units.DURATION_PATTERN, fullmatch=True, alphabet=ASCII),
)
NAMES = st.one_of(
    st.sampled_from(["x-canary", "X-Tidegate-Pin", "a" * 256]), st.text(ASCII)
).flatmap(
    lambda name: st.one_of(
        st.just(name), st.from_regex(HEADER_NAME_PATTERN, fullmatch=True, alphabet=ASCII)
    )
)
VALUES = st.one_of(
    st.just("v" * 4096), st.from_regex(HEADER_VALUE_PATTERN, fullmatch=True, alphabet=ASCII)
)
WILD_HOSTS = st.from_regex(HOSTNAME_PATTERN, fullmatch=True, alphabet=ASCII)


def hosts(prefix: str) -> st.SearchStrategy[list[str]]:
    tame = st.sampled_from([f"{prefix}{n}.example.org" for n in range(50)])
    return st.lists(st.one_of(tame, tame, WILD_HOSTS), max_size=8, unique=True)


REFS = st.fixed_dictionaries(
    {"name": st.sampled_from(["gw", "a.b-c", "g" * 63])},
    optional={"namespace": st.just("edge"), "sectionName": st.sampled_from(["https", "x.y"])},
)
DRAWN = st.fixed_dictionaries(
    {
        "traffic": st.fixed_dictionaries(
            {
                "gateway": st.fixed_dictionaries(
                    {
                        "parentRefs": st.lists(REFS, min_size=1, max_size=4),
                        "hostnames": hosts("h"),
                        "grpcHostnames": hosts("g"),
                    }
                )
            },
            optional={"timeout": DURATIONS},
        )
    },
    optional={
        "rollout": st.fixed_dictionaries(
            {"pin": st.fixed_dictionaries({"headers": st.dictionaries(NAMES, VALUES, max_size=8)})}
        )
    },
)
DRAWN_SPLITS = st.builds(
    lambda weight, mirror: Split("s", "c", weight / 100_000, mirror / 100_000),
    st.integers(0, 100_000),
    st.integers(0, 100_000),
)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Counter[str]]:
    counted: Counter[str] = Counter()
    yield counted
    # Enough of each, or the property below was hardly tried.
    assert min(counted[kind] for kind in ("refused", *BUILD)) >= 20, counted


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(drawn=DRAWN, split=DRAWN_SPLITS)
def test_what_admission_lets_through_makes_a_route_that_gateway_api_takes(
    api: KubeClient, outcomes: Counter[str], drawn: dict[str, Any], split: Split
) -> None:
    body = manifest("drawn")
    body["spec"] |= drawn
    response = api.http.post(COLLECTION, json=body, params={"dryRun": "All"})
    if response.status_code != 201:
        outcomes["refused"] += 1
        return
    stored = response.json()
    asked = parse(stored["spec"])
    gateway = asked.traffic.gateway
    assert gateway is not None
    for kind, build in BUILD.items():
        if kind == "GRPCRoute" and not gateway.grpc_hostnames:
            continue
        wish = build(stored, asked, gateway, split, Record("s").dump())
        status, answer = applied(api, wish, dryRun="All")
        assert status == 201, (wish, answer)
        assert drift.difference(wish, answer, CHILDREN_MANAGER) is None
        outcomes[kind] += 1
