"""config.pbtxt: reading, merging, the typed tuning, the override."""

import base64
import importlib
import textwrap
import zlib
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from tidegate.api.spec import Model, ModelTuning
from tidegate.resources.model_config import (
    ModelConfig,
    merge,
    parse_json,
    parse_pbtxt,
    to_pbtxt,
    triton_descriptor,
)
from tidegate.resources.triton_config import (
    complete_warmup,
    override_pbtxt,
    tuning_pbtxt,
    uses_response_cache,
)


def config(text: str) -> Any:
    return parse_pbtxt(text, where="test")


def model(**fields: Any) -> Model:
    return Model.model_validate({"source": {"uri": "s3://b/m"}, **fields})


def test_descriptor_is_tritonclients() -> None:
    theirs = importlib.import_module("tritonclient.grpc.model_config_pb2").DESCRIPTOR.serialized_pb
    ours = triton_descriptor().SerializeToString()
    text = base64.b85encode(zlib.compress(theirs, 9)).decode()
    lines = "\n".join(f'    "{line}"' for line in textwrap.wrap(text, 92, break_on_hyphens=False))
    assert ours == theirs, f"DESCRIPTOR: Final = (\n{lines}\n)"


def test_triton_reads_what_we_write() -> None:
    theirs = importlib.import_module("tritonclient.grpc.model_config_pb2")
    ours = config('max_batch_size: 0 input { name: "x" data_type: TYPE_FP32 dims: [-1, 3] }')
    read = text_format.Parse(to_pbtxt(ours), theirs.ModelConfig())
    assert (read.max_batch_size, read.input[0].name, list(read.input[0].dims)) == (0, "x", [-1, 3])


MERGES = [
    ("max_batch_size: 8", "max_batch_size: 4", "max_batch_size: 4"),
    # Zero is a value.
    ("max_batch_size: 8", "max_batch_size: 0", "max_batch_size: 0"),
    ("max_batch_size: 8", "", "max_batch_size: 8"),
    ('name: "a"', "max_batch_size: 2", 'name: "a" max_batch_size: 2'),
    # A list replaces the list.
    (
        "instance_group { count: 1 }",
        "instance_group { count: 2 } instance_group { count: 3 }",
        "instance_group { count: 2 } instance_group { count: 3 }",
    ),
    # A message merges.
    (
        "dynamic_batching { preferred_batch_size: [1, 2] preserve_ordering: true }",
        "dynamic_batching { preferred_batch_size: 4 }",
        "dynamic_batching { preferred_batch_size: 4 preserve_ordering: true }",
    ),
    ("", "dynamic_batching {}", "dynamic_batching {}"),
    # A oneof displaces.
    ("sequence_batching {}", "dynamic_batching {}", "dynamic_batching {}"),
    (
        "version_policy { latest { num_versions: 2 } }",
        "version_policy { specific { versions: 3 } }",
        "version_policy { specific { versions: 3 } }",
    ),
    # A map merges by key.
    (
        'parameters { key: "a" value { string_value: "1" } }',
        'parameters { key: "b" value { string_value: "2" } }'
        'parameters { key: "a" value { string_value: "3" } }',
        'parameters { key: "a" value { string_value: "3" } }'
        'parameters { key: "b" value { string_value: "2" } }',
    ),
    (
        'cc_model_filenames { key: "7.0" value: "a" }',
        'cc_model_filenames { key: "7.0" value: "b" }',
        'cc_model_filenames { key: "7.0" value: "b" }',
    ),
]


@pytest.mark.parametrize(("base", "overlay", "wanted"), MERGES)
def test_merge(base: str, overlay: str, wanted: str) -> None:
    merged = config(base)
    merge(merged, config(overlay))
    assert to_pbtxt(merged) == to_pbtxt(config(wanted))


sizes = st.integers(0, 100)
overlays = st.builds(
    lambda batch, counts, delay: " ".join(
        [
            *([] if batch is None else [f"max_batch_size: {batch}"]),
            *(f"instance_group {{ count: {c} }}" for c in counts),
            *(
                []
                if delay is None
                else [f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}"]
            ),
        ]
    ),
    st.none() | sizes,
    st.lists(sizes, max_size=3),
    st.none() | sizes,
)


@given(overlays, overlays)
def test_merging_twice_is_merging_once_and_the_overlay_wins(base: str, overlay: str) -> None:
    once, twice = config(base), config(base)
    merge(once, config(overlay))
    merge(twice, config(overlay))
    merge(twice, config(overlay))
    assert to_pbtxt(once) == to_pbtxt(twice)
    for field, value in config(overlay).ListFields():
        assert getattr(once, field.name) == value


TUNINGS: list[tuple[dict[str, Any], int, str]] = [
    ({}, 1, ""),
    ({"config": {"maxBatchSize": 0}}, 1, "max_batch_size: 0"),
    ({"tritonVersion": 3}, 1, "version_policy { specific { versions: 3 } }"),
    (
        {"config": {"dynamicBatching": {"queueTimeout": "250ms"}}},
        1,
        "dynamic_batching { default_queue_policy { default_timeout_microseconds: 250000 "
        "timeout_action: REJECT } }",
    ),
    # How late says nothing without how long.
    ({"config": {"dynamicBatching": {"timeoutAction": "Delay"}}}, 1, "dynamic_batching {}"),
    (
        {
            "config": {
                "dynamicBatching": {
                    "priorities": [
                        {"maxQueueSize": 0},
                        {"queueTimeout": "1s", "timeoutAction": "Delay"},
                        {},
                    ],
                    "defaultPriority": 2,
                }
            }
        },
        1,
        "dynamic_batching { priority_levels: 3 default_priority_level: 2 "
        "priority_queue_policy { key: 1 value { max_queue_size: 0 } } "
        "priority_queue_policy { key: 2 value { timeout_action: DELAY "
        "default_timeout_microseconds: 1000000 } } "
        "priority_queue_policy { key: 3 value {} } }",
    ),
    # Who does not say is the least urgent.
    (
        {"config": {"dynamicBatching": {"priorities": [{}, {}]}}},
        1,
        "dynamic_batching { priority_levels: 2 default_priority_level: 2 "
        "priority_queue_policy { key: 1 value {} } priority_queue_policy { key: 2 value {} } }",
    ),
    ({"config": {"dynamicBatching": {}}}, 1, "dynamic_batching {}"),
    (
        {
            "config": {
                "dynamicBatching": {
                    "preferredSizes": [4, 8],
                    "maxQueueDelay": "5ms",
                    "maxQueueSize": 100,
                }
            }
        },
        1,
        "dynamic_batching { preferred_batch_size: [4, 8] max_queue_delay_microseconds: 5000 "
        "default_queue_policy { max_queue_size: 100 } }",
    ),
    ({"config": {"instances": {"count": 2}}}, 1, "instance_group { count: 2 kind: KIND_GPU }"),
    ({"config": {"instances": {"count": 2}}}, 0, "instance_group { count: 2 kind: KIND_CPU }"),
    (
        {"config": {"instances": {"kind": "CPU"}}},
        1,
        "instance_group { count: 1 kind: KIND_CPU }",
    ),
    (
        {"config": {"optimization": {"graphLevel": "Basic", "accelerators": ["TensorRT"]}}},
        1,
        "optimization { graph { level: -1 } execution_accelerators { "
        'gpu_execution_accelerator { name: "tensorrt" } } }',
    ),
    (
        {"config": {"optimization": {"accelerators": ["OpenVINO", "CUDAGraphs"]}}},
        1,
        "optimization { cuda { graphs: true } execution_accelerators { "
        'cpu_execution_accelerator { name: "openvino" } } }',
    ),
    ({"config": {"responseCache": False}}, 1, "response_cache { enable: false }"),
    (
        {"config": {"warmup": {"requests": 5, "batchSize": 2}}},
        1,
        'model_warmup { name: "tidegate" batch_size: 2 count: 5 }',
    ),
]


@pytest.mark.parametrize(("fields", "gpus", "wanted"), TUNINGS)
def test_tuning(fields: dict[str, Any], gpus: int, wanted: str) -> None:
    assert tuning_pbtxt(model(**fields), gpu_count=gpus) == to_pbtxt(config(wanted))


def test_every_field_of_the_tuning_reaches_triton() -> None:
    """A field added to ModelTuning and forgotten here would silently do nothing."""
    samples: dict[str, Any] = {
        "max_batch_size": 3,
        "dynamic_batching": {},
        "instances": {},
        "optimization": {"graphLevel": "Basic"},
        "response_cache": True,
        "warmup": {},
    }
    assert samples.keys() | {"override"} == ModelTuning.model_fields.keys()
    for name, value in samples.items():
        tuning = ModelTuning.model_validate({name: value})
        assert tuning_pbtxt(model(config=tuning), gpu_count=1), name


@pytest.mark.parametrize(
    "override",
    [
        '{"max_batch_size": 0, "instance_group": [{"count": 2, "kind": "KIND_CPU"}]}',
        '{"maxBatchSize": 0, "instanceGroup": [{"count": 2, "kind": "KIND_CPU"}]}',
        "max_batch_size: 0\ninstance_group { count: 2 kind: KIND_CPU }",
        "\n  max_batch_size: 0 instance_group [{ count: 2 kind: KIND_CPU }] # a note\n",
    ],
)
def test_override_reads_json_and_pbtxt_alike(override: str) -> None:
    assert override_pbtxt(override, model_name="m") == (
        "max_batch_size: 0\ninstance_group {\n  count: 2\n  kind: KIND_CPU\n}\n"
    )


@pytest.mark.parametrize("override", [None, "", "  \n", "# only a note\n"])
def test_no_override(override: str | None) -> None:
    assert override_pbtxt(override, model_name="m") == ""


WRONG = [
    (
        "max_batchsize: 3",
        "model.config.override, line 1 column 1: ModelConfig has no field 'max_batchsize'; "
        "did you mean max_batch_size?",
    ),
    (
        'max_batch_size: 1\ninput { name: "x" data_type: TYPE_FLOAT32 }',
        "model.config.override, line 2 column 30: DataType has no value 'TYPE_FLOAT32'; "
        "did you mean TYPE_FP32 or TYPE_INT32 or TYPE_UINT32?",
    ),
    (
        '{"input": [{"dataType": "TYPE_FLOAT"}]}',
        "model.config.override: DataType has no value 'TYPE_FLOAT'; did you mean",
    ),
    ('{"maxBatchsize": 3}', "model.config.override: ModelConfig has no field 'maxBatchsize'; did"),
    ('{"max_batch_size": 3', "model.config.override, line 1 column 21: Expecting ',' delimiter"),
    ("[1, 2]", "model.config.override: a JSON object is wanted, not list"),
    ("[" * 60_000, "model.config.override: nested too deeply"),
    ('{"max_batch_size": "many"}', "model.config.override: Failed to parse max_batch_size field"),
    ('{"max_batch_size": 9999999999}', "Value out of range"),
    ("dynamic_batching {", 'model.config.override, line 1 column 18: Expected "}"'),
    ('name: "other"', "name is 'other', but the model is served as 'm'; leave name out, or set"),
    ("max_batch_size: -1", "max_batch_size is -1; write 0 for a model without a batch dimension"),
    ("\x00", "model.config.override"),
]


@pytest.mark.parametrize(("override", "message"), WRONG)
def test_a_wrong_override_names_field_value_and_mend(override: str, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is checked below)
        override_pbtxt(override, model_name="m")
    assert message in str(error.value)
    assert len(str(error.value)) < 1000


@given(st.text(max_size=200) | st.text('{}[]":,ab 0_<>\n', max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_pbtxt, parse_json):
        try:
            once = to_pbtxt(read(text, where="test"))
        except ValueError as error:
            refusal = str(error)
            once = None
        if once is None:
            assert refusal.startswith("test")
        else:
            assert to_pbtxt(parse_pbtxt(once, where="test")) == once


@pytest.mark.parametrize(
    ("tuning", "override", "wanted"),
    [
        (None, None, False),
        (True, None, True),
        (False, "response_cache { enable: true }", True),
        (True, "response_cache { enable: false }", False),
        (True, "max_batch_size: 2", True),
    ],
)
def test_response_cache(tuning: bool | None, override: str | None, wanted: bool) -> None:
    found = model(config={"responseCache": tuning, "override": override})
    assert uses_response_cache(found, model_name="m") is wanted


def warmed(text: str) -> Any:
    merged = config(text)
    merge(merged, config(tuning_pbtxt(model(config={"warmup": {"requests": 2}}), gpu_count=0)))
    complete_warmup(merged)
    return merged


def test_warmup_gets_the_inputs() -> None:
    merged = warmed(
        'max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: [-1, 3] }'
        'input { name: "s" data_type: TYPE_STRING dims: 1 }'
    )
    [warmup] = merged.model_warmup
    assert (warmup.count, warmup.batch_size) == (2, 1)
    assert list(warmup.inputs["x"].dims) == [1, 3]
    assert (
        warmup.inputs["s"].data_type
        == ModelConfig.DESCRIPTOR.file.pool.FindEnumTypeByName("inference.DataType")
        .values_by_name["TYPE_STRING"]
        .number
    )
    assert all(sample.zero_data for sample in warmup.inputs.values())


def test_warmup_without_inputs_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"warmup needs the model's inputs; name them"):
        warmed("max_batch_size: 4")


def test_warmup_batch_must_fit() -> None:
    merged = config(
        'input { name: "x" data_type: TYPE_FP32 dims: 1 } '
        'model_warmup { name: "tidegate" batch_size: 2 }'
    )
    with pytest.raises(ValueError, match=r"batchSize is 2, but the model takes at most 1"):
        complete_warmup(merged)


def test_the_users_own_warmup_is_left_alone() -> None:
    merged = config('model_warmup { name: "mine" batch_size: 2 }')
    complete_warmup(merged)
    assert not merged.model_warmup[0].inputs
