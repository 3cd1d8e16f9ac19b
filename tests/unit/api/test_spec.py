"""The types: what they read, and that they agree with the patterns the API server applies."""

import re
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from tidegate.api import formats
from tidegate.api.rules.source import SCHEMES
from tidegate.api.spec import ScalingMode, Spec, Strategy, parse

URI = "s3://models/magika/v3"


def spec(**blocks: Any) -> Spec:
    return parse({"model": {"source": {"uri": URI}}, **blocks})


def test_the_least_spec_has_safe_defaults() -> None:
    least = spec()
    assert least.replicas is None
    assert least.model.name is None
    assert least.runtime.gpu.count == 1
    assert least.runtime.gpu.resource == "nvidia.com/gpu"
    assert [s.weight for s in least.rollout.steps] == ["1%", "5%", "25%", "50%"]
    assert least.rollout.strategy is Strategy.CANARY
    assert least.slo.max_error_rate == "1%"
    assert least.scaling_mode is ScalingMode.FIXED


@pytest.mark.parametrize(
    ("blocks", "mode"),
    [
        ({}, ScalingMode.FIXED),
        ({"slo": {"latency": {"target": "100ms"}}}, ScalingMode.SLO),
        ({"slo": {"latency": {"target": "100ms"}}, "scaling": {"mode": "Fixed"}}, "Fixed"),
        ({"scaling": {"mode": "External"}, "replicas": 2}, ScalingMode.EXTERNAL),
    ],
)
def test_scaling_mode_in_force(blocks: dict[str, Any], mode: str) -> None:
    assert spec(**blocks).scaling_mode == mode


def test_numbers_where_people_write_numbers() -> None:
    read = spec(runtime={"resources": {"cpu": 2, "memory": 4294967296}}, scaling={"headroom": 3})
    assert read.runtime.resources.cpu == "2"
    assert read.runtime.resources.memory == "4294967296"
    assert read.scaling.headroom == "3"
    assert read == spec(
        runtime={"resources": {"cpu": "2", "memory": "4294967296"}}, scaling={"headroom": "3"}
    ), "one revision, however it is written"


@pytest.mark.parametrize(
    "blocks",
    [
        {"runtime": {"resources": {"cpu": True}}},
        {"runtime": {"resources": {"cpu": -2}}},
        {"runtime": {"resources": {"memory": "4GB"}}},
        {"runtime": {"sidecar": False}},
        {"runtime": {"hostNetwork": True}},
        {"runtime": {"env": [{"name": "A", "value": "a\x00b"}]}},
        {"rollout": {"steps": []}},
        {"rollout": {"steps": [{"weight": 5}]}},
        {"rollout": {"pin": {"headers": {"x a": "1"}}}},
        {"slo": {"latency": {"target": "100ms\n"}}},
        {"slo": {"latency": {"target": "100ms", "quantile": 0.99}}},
        {"scaling": {"minReplicas": 1.5}},
        {"replicas": float("nan")},
        {"replicas": 10**30},
        {"unknown": 1},
    ],
    ids=str,
)
def test_refused(blocks: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**blocks)


def test_nothing_of_a_spec_can_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().replicas = 3  # type: ignore[misc]


def test_a_spec_survives_its_own_manifest() -> None:
    full = spec(
        runtime={"gpu": {"dra": {"selectors": ["true"]}}, "tolerations": [{"operator": "Exists"}]},
        traffic={"gateway": {"parentRefs": [{"name": "a"}], "hostnames": ["*.example.com"]}},
        goldenRequests={"configMapName": "golden"},
    )
    assert parse(full.model_dump(mode="json", by_alias=True)) == full


NEAR = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="abcAZ019-_./:@*%\n\x00 İ٣", max_size=40),
)
# What an engine that does not look at both ends lets through.
AROUND = st.sampled_from(("", "\n", " ", "%", "٣"))


@pytest.mark.parametrize("pattern", formats.FORMATS)
def test_patterns_mean_the_same_to_all_engines(pattern: str) -> None:
    """Python's `re` and pydantic's engine; the contract tests have the API server's."""
    pydantic = TypeAdapter(Annotated[str, Field(pattern=pattern)])

    matching = st.from_regex(pattern, fullmatch=True)

    @settings(max_examples=25)
    @given(NEAR | matching | st.builds("{}{}{}".format, AROUND, matching, AROUND))
    def agree(text: str) -> None:
        if re.fullmatch(pattern, text):
            assert pydantic.validate_python(text) == text
        else:
            with pytest.raises(ValidationError):
                pydantic.validate_python(text)

    agree()


@pytest.mark.parametrize(("scheme", "entry"), SCHEMES.items())
def test_the_example_of_a_scheme_is_one(scheme: str, entry: tuple[str, str]) -> None:
    pattern, example = entry
    for text in re.findall(rf"{scheme}://[^\s,]+", example):
        assert re.fullmatch(pattern, text.replace("<64", "0" * 64)), text
