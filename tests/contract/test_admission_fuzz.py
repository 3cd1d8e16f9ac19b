"""Whatever the API server accepts, the operator can plan for.

Specs are drawn from the CRD's own schema: mostly well-formed values, bounds preferred, now and
then something wild. `TIDEGATE_FUZZ_EXAMPLES=20000` makes a long run of it, with other seeds.
"""

import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from e2e.cluster.kube import KubeClient
from tests.contract.manifests import COLLECTION, manifest
from tidegate import plan
from tidegate.actions import Apply
from tidegate.api import crd, formats, spec, units
from tidegate.api.rules.source import SCHEMES
from tidegate.observed import Observed
from tidegate.platform import Platform, Profile
from tidegate.runtime.kube import to_wire

pytestmark = pytest.mark.contract

EXAMPLES = int(os.environ.get("TIDEGATE_FUZZ_EXAMPLES", "0"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLATFORM = Platform(profiles={"gold": Profile()}, allowed_service_accounts=("reader",))
SCHEMA = crd.schema()["properties"]["spec"]

PATTERN_OF_RULE: dict[str, str] = {
    crd.format_rule(pattern, int_or_string)["rule"]: pattern
    for pattern in formats.FORMATS
    for int_or_string in (False, True)
}

WILD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["", " ", "0", "\u0000", "a\nb: c", '{{ x }} ${y} "} or vector(1)', "İ", "🌊"]),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)

ABSENT = object()
ADDRESS = st.characters(codec="ascii", categories=("L", "N"), include_characters="/._~+=@:,()?&$-")
URIS: list[st.SearchStrategy[str]] = [
    st.from_regex(pattern, fullmatch=True, alphabet=ADDRESS) for pattern, _ in SCHEMES.values()
]
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    # Values that mean something together more often than chance would have it.
    "uri": st.one_of(URIS),
    "profile": st.just("gold"),
    "serviceAccountName": st.just("reader"),
    "resource": st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "amd.com/gpu"]),
    "memory": st.sampled_from(["64Mi", "1Gi", "1.5Gi", "2000M", 4294967296, "64Ti"]),
    "cpuLimit": st.sampled_from(["4096", 4, "2", "1500m"]),
    "cpu": st.sampled_from(["1m", 1, "0.5", "2"]),
    "minMemory": st.sampled_from(["1Mi", "40Gi", "79.5Gi", "64Ti", 85899345920]),
    "sharedMemory": st.sampled_from(["1Mi", "64Mi", "1Gi"]),
    "ephemeralStorage": st.sampled_from(["1Mi", "10Gi", "64Ti"]),
    "target": st.sampled_from(["1ms", "100ms", "1500ms", "1s500ms", "1m", "1h", "99ms"]),
    "weight": st.sampled_from(["1%", "5%", "25%", "99.999%", "0.001%"]),
    "minReplicas": st.sampled_from([1, 1, 1, 1000]),
    "maxReplicas": st.sampled_from([1, 5, 1000, 1000]),
    "image": st.sampled_from(["nvidia/tritonserver:24.10-py3", f"a/b@sha256:{'0' * 64}"]),
    "override": st.sampled_from(["{}", "max_batch_size: 8", "\u00e9", "{{ not pbtxt"]) | st.text(),
}


def values(name: str, node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a node: nine of ten (or more) as its schema has them."""
    tame = well_formed(name, node)
    # Not a bound of the dice, which hypothesis throws far more often than the rest.
    return st.integers(0, 60).flatmap(lambda dice: WILD if dice == 37 else tame)


def well_formed(name: str, node: dict[str, Any]) -> st.SearchStrategy[Any]:
    if name in LIKELY:
        return LIKELY[name]
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            low, high = node.get("minimum", -(2**31)), node.get("maximum", 2**31)
            return st.sampled_from([low, high]) | st.integers(low, min(high, low + 10))
        case "array":
            return st.lists(
                values("", node["items"]),
                min_size=node.get("minItems", 0),
                max_size=min(node["maxItems"], 3),
            )
        case "object" if "properties" in node:
            return blocks(node)
        case "object":
            keys = st.sampled_from(["team", "example.com/tier", "a.b/c-d_e.f", "X"])
            return st.dictionaries(keys, values("", node["additionalProperties"]), max_size=3)
        case _:
            return texts(node)


def texts(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    patterns = [
        PATTERN_OF_RULE[r["rule"]]
        for r in node.get("x-kubernetes-validations", ())
        if r["rule"] in PATTERN_OF_RULE
    ]
    longest = node.get("maxLength", 64)
    if patterns == [units.DURATION_PATTERN]:
        return st.sampled_from(
            ["1ms", "30s", "1h30m", "99999h99999h99999h99999h", "10m"] * 3 + ["0s"]
        )
    if not patterns:
        return st.text(max_size=min(longest, 64))
    return st.from_regex(patterns[0], fullmatch=True).filter(lambda t: len(t) <= longest)


@st.composite
def blocks(draw: st.DrawFn, node: dict[str, Any]) -> dict[str, Any]:
    required = node.get("required", ())
    drawn = {
        name: draw(values(name, inner))
        for name, inner in node["properties"].items()
        if name in required or draw(st.integers(0, 4)) == 2
    }
    return {name: value for name, value in drawn.items() if value is not ABSENT}


SPECS = blocks(SCHEMA)


@pytest.fixture(scope="module")
def api(kube: KubeClient) -> KubeClient:
    kube.apply_all([crd.crd()])
    return kube


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Counter[str]]:
    counted: Counter[str] = Counter()
    yield counted
    # Enough of both, or the property below was hardly tried.
    assert counted["accepted"] >= 0.1 * counted.total(), counted
    assert counted["refused"] >= 0.1 * counted.total(), counted


@settings(
    max_examples=EXAMPLES or 150,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(drawn=SPECS)
def test_what_is_accepted_can_be_planned_for(
    api: KubeClient, outcomes: Counter[str], drawn: dict[str, Any]
) -> None:
    body = {**manifest("fuzz"), "spec": drawn}
    response = api.http.post(COLLECTION, json=body, params={"dryRun": "All"})
    document = response.json()
    if response.status_code != 201:
        outcomes["refused"] += 1
        event("refused")
        note(document["message"])
        assert response.status_code in (400, 422)
        # A rule that stumbles over a value tells its author nothing.
        for stumble in ("evaluating rule", "no such", "cost", "failed rule", "compile"):
            assert stumble not in document["message"]
        return
    outcomes["accepted"] += 1
    event("accepted")
    spec.parse(document["spec"])
    kinds = frozenset({"ResourceClaimTemplate"})
    made = plan.plan(Observed(document, present_kinds=kinds), PLATFORM, NOW)
    for action in made.actions:
        if isinstance(action, Apply):
            answer = api.http.patch(
                api.path_of(action.manifest, "default"),
                content=to_wire(action.manifest),
                params={"fieldManager": "fuzz", "dryRun": "All", "force": "true"},
                headers={"Content-Type": "application/apply-patch+yaml"},
            )
            assert answer.status_code in (200, 201), answer.text


ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=50)


@settings(max_examples=EXAMPLES or 60, derandomize=not EXAMPLES, deadline=None, database=None)
@given(
    text=ANY_TEXT | st.sampled_from(["🌊", "\u2028", "\x85", "\x7f", "\ufeff", "\uffff", "\x00"])
)
def test_the_api_server_reads_what_the_operator_sends(kube: KubeClient, text: str) -> None:
    """An apply is read as YAML, and JSON is not in every letter YAML."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "wire"},
        "data": {"text": text},
    }
    answer = kube.http.patch(
        kube.path_of(body, "default"),
        content=to_wire(body),
        params={"fieldManager": "fuzz", "dryRun": "All"},
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    assert answer.status_code in (200, 201), answer.text
    assert answer.json()["data"] == {"text": text}
