"""Where requests go, and what gateways say of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.api.names import DECISION_ANNOTATION
from tidegate.api.spec import Spec, parse
from tidegate.record import Phase, Record
from tidegate.resources import route as r
from tidegate.resources.route import Split
from tidegate.resources.services import MIRROR_PORT

DEPLOYMENT = {"metadata": {"name": "magika", "namespace": "models", "uid": "u"}}
GATEWAY = {
    "parentRefs": [{"name": "public", "namespace": "edge"}],
    "hostnames": ["magika.example.org"],
    "grpcHostnames": ["grpc.example.org"],
}
PIN = {"X-Canary": "yes", "x-team": "ml"}
ENVOY_GATEWAY = "gateway.envoyproxy.io/gatewayclass-controller"


def spec(pin: dict[str, str] | None = None, **traffic: Any) -> Spec:
    return parse(
        {
            "model": {"source": {"uri": "s3://a/b"}},
            "traffic": {"gateway": GATEWAY, **traffic},
            "rollout": {"pin": {"headers": pin or {}}},
        }
    )


def made(split: Split, kind: str = "HTTPRoute", *, pin: bool = True, **more: Any) -> dict[str, Any]:
    asked = spec(PIN if pin else None, **more)
    assert asked.traffic.gateway is not None
    build = {"HTTPRoute": r.http_route, "GRPCRoute": r.grpc_route}[kind]
    return build(DEPLOYMENT, asked, asked.traffic.gateway, split, Record("a").dump())


def rules(split: Split, kind: str = "HTTPRoute", **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made(split, kind, **more)["spec"]["rules"]
    return found


def backends(rule: dict[str, Any]) -> dict[str, int]:
    return {b["name"]: b["weight"] for b in rule["backendRefs"]}


def filters(rule: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for item in rule["filters"]:
        (field,) = [name for name in item if name != "type"]
        assert field == item["type"][0].lower() + item["type"][1:]
        found[item["type"]] = item[field]
    return found


shares = st.one_of(st.sampled_from([0, 100_000]), st.integers(0, 100_000)).map(
    lambda n: n / 100_000
)
splits = st.builds(
    lambda canary, weight, mirror: Split(
        "s", "c" if canary else None, weight if canary else 0.0, mirror if canary else 0.0
    ),
    st.booleans(),
    shares,
    shares,
)
kinds = st.sampled_from(["HTTPRoute", "GRPCRoute"])


@given(split=splits, kind=kinds, pin=st.booleans())
def test_the_main_rule_gives_each_its_share_and_nobody_a_weight_of_zero(
    split: Split, kind: str, pin: bool
) -> None:
    found = made(split, kind, pin=pin)
    weights = backends(found["spec"]["rules"][0])
    assert sum(weights.values()) == r.TOTAL_WEIGHT
    assert all(weights.values())
    assert weights.get("c", 0) == round(split.weight * r.TOTAL_WEIGHT)
    # Read back as decided, to the finest percentage that a spec can name.
    read = r.shares_of(found)
    assert read.get("c", 0.0) == pytest.approx(split.weight, abs=1e-9)
    assert read.get("s", 0.0) == pytest.approx(1 - split.weight, abs=1e-9)


@given(split=splits, kind=kinds, pin=st.booleans())
def test_the_pin_rule_is_there_just_while_it_leads_somewhere_else(
    split: Split, kind: str, pin: bool
) -> None:
    main, *rest = rules(split, kind, pin=pin)
    assert bool(rest) == (pin and split.canary is not None and split.weight < 1)
    assert filters(main)["RequestHeaderModifier"] == {"remove": ["x-tidegate-pin"]}
    for rule in rest:
        assert backends(rule) == {"c": 1}
        assert list(filters(rule)) == ["RequestHeaderModifier"]
        said = filters(rule)["RequestHeaderModifier"]["set"]
        assert [h["name"] for h in said] == ["x-tidegate-pin"]
        (match,) = rule["matches"]
        assert {h["name"]: h["value"] for h in match["headers"]} == PIN
        assert {h["type"] for h in match["headers"]} == {"Exact"}


@given(weights=st.lists(shares.filter(lambda w: w < 1), min_size=2, max_size=4), kind=kinds)
def test_no_weight_changes_the_pin_rule_or_its_place(weights: list[float], kind: str) -> None:
    found = {json.dumps(rules(Split("s", "c", weight), kind)[1]) for weight in weights}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("mirror", "said"),
    [
        (1.0, {"percent": 100}),
        (0.1, {"percent": 10}),
        (0.01, {"percent": 1}),
        (0.005, {"fraction": {"numerator": 500, "denominator": 100_000}}),
        (0.125, {"fraction": {"numerator": 12_500, "denominator": 100_000}}),
        (0.000_001, {"fraction": {"numerator": 1, "denominator": 100_000}}),  # asked for: some
        (0.0, None),
    ],
)
@pytest.mark.parametrize(("kind", "port"), [("HTTPRoute", 8000), ("GRPCRoute", 8001)])
def test_a_mirror_copies_a_share_of_what_the_weights_split(
    mirror: float, said: dict[str, Any] | None, kind: str, port: int
) -> None:
    main, pin = rules(Split("s", "c", mirror=mirror), kind)
    found = filters(main).get("RequestMirror")
    if said is not None:
        backend = {"group": "", "kind": "Service", "name": "c", "port": MIRROR_PORT}
        said = {"backendRef": backend, **said}
    assert found == said
    assert backends(main) == {"s": r.TOTAL_WEIGHT}
    assert {b["port"] for rule in (main, pin) for b in rule["backendRefs"]} == {port}
    assert "RequestMirror" not in filters(pin)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"canary": None, "weight": 0.1}, "without a canary"),
        ({"canary": None, "mirror": 0.1}, "without a canary"),
        ({"canary": "c", "weight": 1.1}, "weight 1.1 is no share"),
        ({"canary": "c", "weight": -0.1}, "weight -0.1 is no share"),
        ({"canary": "c", "mirror": float("nan")}, "mirror nan is no share"),
        ({"canary": "s"}, "both stable and canary"),
    ],
)
def test_a_split_that_no_route_can_say_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Split("s", **wrong)


def test_http_and_grpc_have_their_own_hosts_and_one_decision() -> None:
    split = Split("s", "c", 0.05)
    http, grpc = made(split, timeout="90s"), made(split, "GRPCRoute", timeout="90s")
    assert http["spec"]["hostnames"] == ["magika.example.org"]
    assert grpc["spec"]["hostnames"] == ["grpc.example.org"]
    assert [rule["timeouts"] for rule in http["spec"]["rules"]] == [{"request": "1m30s"}] * 2
    assert all("timeouts" not in rule for rule in grpc["spec"]["rules"])
    assert all(rule["matches"][0]["path"]["value"] == "/" for rule in http["spec"]["rules"])
    assert "matches" not in grpc["spec"]["rules"][0]
    for found in (http, grpc):
        assert r.record_of(found) == Record("a")
        (owner,) = found["metadata"]["ownerReferences"]
        assert owner["uid"] == "u"
        (parent,) = found["spec"]["parentRefs"]
        assert (parent["name"], parent["namespace"]) == ("public", "edge")


def test_a_grpc_route_without_hosts_of_its_own_would_take_everybodys() -> None:
    asked = parse(
        {
            "model": {"source": {"uri": "s3://a/b"}},
            "traffic": {"gateway": {"parentRefs": [{"name": "public"}]}},
        }
    )
    assert asked.traffic.gateway is not None
    with pytest.raises(ValueError, match="grpcHostnames"):
        r.grpc_route(DEPLOYMENT, asked, asked.traffic.gateway, Split("s"), "")


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (1, "1ms"),
        (90_500, "1m30s500ms"),
        (3_600_000, "1h"),
        (99_999 * 3_600_000, "99999h"),
        (2 * 99_999 * 3_600_000, "99999h"),  # six digits are refused, eleven years are no limit
    ],
)
def test_a_timeout_in_the_words_of_gateway_api(ms: int, text: str) -> None:
    assert r.gateway_duration(ms) == text


# What a live route says.


def test_a_weight_edited_by_hand_is_seen_as_it_is() -> None:
    found = made(Split("s", "c", 0.05))
    assert r.shares_of(found) == {"s": 0.95, "c": 0.05}
    for backend in found["spec"]["rules"][0]["backendRefs"]:
        backend["weight"] = 7
    assert r.shares_of(found) == {"s": 0.5, "c": 0.5}
    del found["spec"]["rules"][0]["backendRefs"][0]["weight"]
    assert r.shares_of(found) == {"c": 1 / 8, "s": 7 / 8}
    found["spec"]["rules"][0]["backendRefs"] = []
    assert r.shares_of(found) == {}
    assert r.shares_of({"metadata": {}}) == {}


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", '{"phase":"Unheard"}', '{"weight":', "null", '"x"']
)
def test_a_record_that_nobody_can_read_is_none(text: str) -> None:
    assert r.record_of({"metadata": {"annotations": {DECISION_ANNOTATION: text}}}) is None
    assert r.record_of({"metadata": {}}) is None


def test_a_record_comes_back_whole() -> None:
    record = Record("a", "b", Phase.CANARY, 0.05, step=1, reason="x", evidence={"ü": [1, "2/3"]})
    asked = spec()
    assert asked.traffic.gateway is not None
    split = Split("s", "c", 0.05)
    found = r.http_route(DEPLOYMENT, asked, asked.traffic.gateway, split, record.dump())
    assert r.record_of(json.loads(json.dumps(found))) == record


def condition(kind: str, status: str, generation: int = 3, reason: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "observedGeneration": generation,
        "reason": reason or kind,
        "message": f"{reason} because",
    }


def entry(
    *conditions: dict[str, Any], controller: str = ENVOY_GATEWAY, **ref: Any
) -> dict[str, Any]:
    return {
        "parentRef": {"name": "public", "namespace": "edge", **ref},
        "controllerName": controller,
        "conditions": [dict(c) for c in conditions],
    }


def live(*parents: dict[str, Any]) -> dict[str, Any]:
    found = made(Split("s"))
    found["metadata"] |= {"namespace": "models", "generation": 3}
    return found | {"status": {"parents": list(parents)}}


GOOD = (condition("Accepted", "True"), condition("ResolvedRefs", "True"))


@pytest.mark.parametrize(
    ("parents", "reason"),
    [
        pytest.param([entry(*GOOD)], "", id="good"),
        pytest.param([entry(*GOOD, group="gateway.networking.k8s.io")], "", id="said in full"),
        pytest.param([], r.PENDING, id="nobody spoke"),
        pytest.param([entry()], r.PENDING, id="no condition"),
        pytest.param([entry(GOOD[0])], r.PENDING, id="refs not looked at"),
        pytest.param([entry(*GOOD, name="other")], r.PENDING, id="of another Gateway"),
        pytest.param([entry(*GOOD, namespace="models")], r.PENDING, id="of another namespace"),
        pytest.param([entry(*GOOD, sectionName="https")], r.PENDING, id="of one listener"),
        pytest.param(
            [entry(condition("Accepted", "True", 2), GOOD[1])], r.PENDING, id="of an older route"
        ),
        *(
            pytest.param([entry(condition("Accepted", "False", reason=why), GOOD[1])], why, id=why)
            for why in ("NotAllowedByListeners", "UnsupportedValue", "NoMatchingParent")
        ),
        *(
            pytest.param(
                [entry(GOOD[0], condition("ResolvedRefs", "False", reason=why))], why, id=why
            )
            for why in ("BackendNotFound", "RefNotPermitted", "UnsupportedProtocol")
        ),
        pytest.param(
            [entry(*GOOD, condition("PartiallyInvalid", "True", reason="UnsupportedValue"))],
            "UnsupportedValue",
            id="a rule was dropped",
        ),
        pytest.param(
            [
                entry(condition("Accepted", "False", reason="Foreign"), controller="traefik"),
                entry(*GOOD),
            ],
            "",
            id="another controller disowns it",
        ),
        pytest.param(
            [
                entry(condition("Accepted", "False", reason="Foreign"), controller="traefik"),
                entry(condition("Accepted", "True", 2), GOOD[1]),
            ],
            r.PENDING,
            id="another disowns it while its own still thinks",
        ),
    ],
)
def test_accepted_is_what_every_gateway_says_of_this_very_generation(
    parents: list[dict[str, Any]], reason: str
) -> None:
    state = r.route_state(live(*parents))
    assert (state.accepted, state.reason) == (not reason, reason)
    assert state.message.startswith("Gateway public: " if reason else "")
    assert state.accepted or reason == r.PENDING or f"{reason} because" in state.message


def test_all_wanted_gateways_must_accept() -> None:
    found = live(entry(*GOOD))
    other = {"name": "private"}
    assert not r.route_state(found, [*found["spec"]["parentRefs"], other]).accepted
    found["status"]["parents"].append(entry(*GOOD, name="private", namespace="models"))
    assert r.route_state(found, [*found["spec"]["parentRefs"], other]).accepted
    found["status"]["parents"][1]["conditions"][0]["status"] = "False"
    assert r.route_state(found).accepted  # a Gateway that is not named any more has no say


@pytest.mark.parametrize(
    ("controllers", "can"),
    [
        ((), None),
        ((ENVOY_GATEWAY,), True),
        ((ENVOY_GATEWAY, "istio.io/gateway-controller"), True),
        ((ENVOY_GATEWAY, "traefik.io/gateway-controller"), False),
        ((ENVOY_GATEWAY, "example.org/own"), None),
        (("traefik.io/gateway-controller", "example.org/own"), False),
    ],
)
def test_a_mirror_needs_every_gateway(controllers: tuple[str, ...], can: bool | None) -> None:
    assert r.can_mirror(controllers) is can


def test_only_the_controllers_that_own_the_gateways_decide_on_the_mirror() -> None:
    stranger = entry(
        condition("Accepted", "False", reason="Foreign"), controller="traefik.io/gateway-controller"
    )
    state = r.route_state(live(stranger, entry(*GOOD)))
    assert state.controllers == (ENVOY_GATEWAY,)
    assert state.can_mirror is True
    assert r.route_state(live(stranger)).can_mirror is False
    assert r.route_state(live()).can_mirror is None
