"""config.pbtxt: layers, and what is refused before Triton sees it."""

import pytest
from google.protobuf import text_format

from tidegate.fetch import config as configs
from tidegate.fetch.errors import ArtifactInvalid, ConfigInvalid, FetchError, UnknownBackend
from tidegate.fetch.layout import BACKENDS
from tidegate.resources.model_config import ModelConfig

TENSORS = (
    'input { name: "i" data_type: TYPE_FP32 dims: [ -1, 3 ] } '
    'output { name: "o" data_type: TYPE_FP32 dims: [ 1 ] } '
)


def parse(text: str) -> object:
    return configs.parse(text, "m/config.pbtxt")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["max_batch_size: 8", "max_batch_size: 0"], "max_batch_size: 0"),
        (["max_batch_size: 8", ""], "max_batch_size: 8"),
        (
            [
                "instance_group { count: 1 } instance_group { count: 2 }",
                "instance_group { count: 3 }",
            ],
            "instance_group { count: 3 }",
        ),
        (
            [
                "dynamic_batching { preferred_batch_size: 4 preserve_ordering: true }",
                "dynamic_batching { max_queue_delay_microseconds: 5 }",
            ],
            "dynamic_batching { preferred_batch_size: 4 preserve_ordering: true "
            "max_queue_delay_microseconds: 5 }",
        ),
        (
            [
                'parameters { key: "a" value { string_value: "1" } }',
                'parameters { key: "b" value { string_value: "2" } }',
                'parameters { key: "a" value { string_value: "3" } }',
            ],
            'parameters { key: "a" value { string_value: "3" } } '
            'parameters { key: "b" value { string_value: "2" } }',
        ),
        (["sequence_batching {}", "dynamic_batching {}"], "dynamic_batching {}"),
    ],
)
def test_layers(layers: list[str], expected: str) -> None:
    messages = [parse(text) for text in layers]
    before = [str(m) for m in messages]
    assert configs.merge(*messages) == parse(expected)
    assert [str(m) for m in messages] == before


def test_an_ensemble_has_no_batcher() -> None:
    base = parse('ensemble_scheduling { step { model_name: "x" } }')
    with pytest.raises(ConfigInvalid, match="ensemble"):
        configs.merge(base, parse("dynamic_batching {}"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batchsize: 3", ["max_batch_size", "line 1"]),
        ("backend: 3", ["line 1"]),
        ("\n\n{", ["line 3"]),
        ("instance_group { kind: KIND_TPU }", ["KIND_TPU"]),
    ],
)
def test_text_that_is_no_configuration(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    for word in (*words, "m/config.pbtxt"):
        assert word in caught.value.message


def check(
    text: str,
    paths: tuple[str, ...] = ("1/model.onnx",),
    models: tuple[str, ...] = ("m",),
    stated: str | None = None,
) -> str:
    return configs.check(parse(text), "m", paths, models, stated)


@pytest.mark.parametrize(
    ("text", "paths", "stated", "backend"),
    [
        ('backend: "onnxruntime"', ("1/model.onnx",), None, "onnxruntime"),
        ("", ("1/model.onnx",), None, "onnxruntime"),
        ("", ("1/model.py", "1/x.onnx"), None, "python"),
        ("", ("1/model.savedmodel/saved_model.pb",), None, "tensorflow"),
        ('platform: "tensorrt_plan"', ("3/model.plan",), None, "tensorrt"),
        ('backend: "mine"', ("1/x",), "mine", "mine"),
        ('backend: "identity"', ("1/.",), None, "identity"),
        (
            'backend: "python" default_model_filename: "serve.py"',
            ("1/serve.py", "2/serve.py"),
            None,
            "python",
        ),
        ('name: "m" backend: "python"', ("1/model.py",), "python", "python"),
        (
            "version_policy { specific { versions: 2 } }",
            ("1/model.py", "2/model.py"),
            None,
            "python",
        ),
        ('backend: "pytorch" ' + TENSORS, ("1/model.pt",), None, "pytorch"),
        ('backend: "fil" ' + TENSORS, ("1/model.txt",), None, "fil"),
    ],
)
def test_good_ones(text: str, paths: tuple[str, ...], stated: str | None, backend: str) -> None:
    assert check(text, paths, stated=stated) == backend


@pytest.mark.parametrize(
    ("text", "paths", "error", "word"),
    [
        ('name: "other"', ("1/model.onnx",), ConfigInvalid, "'other'"),
        ('backend: "onnx"', ("1/model.onnx",), UnknownBackend, "'onnx'"),
        ('platform: "onnx"', ("1/model.onnx",), UnknownBackend, "'onnx'"),
        ("", ("1/model.onnx", "1/model.py"), UnknownBackend, "names no backend"),
        ("", ("1/.",), UnknownBackend, "no files"),
        ('backend: "python"', ("1/main.py",), ArtifactInvalid, "model.py"),
        ('backend: "python"', ("1/model.py", "2/main.py"), ArtifactInvalid, "m/2"),
        ('backend: "python"', ("1/.",), ArtifactInvalid, "no files"),
        ("max_batch_size: -1", ("1/model.onnx",), ConfigInvalid, "negative"),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 2, 8 ] }",
            ("1/model.onnx",),
            ConfigInvalid,
            "above max_batch_size",
        ),
        ("version_policy { specific { versions: 7 } }", ("1/model.onnx",), ConfigInvalid, "'7'"),
        ('default_model_filename: "x.onnx"', ("1/model.onnx",), ConfigInvalid, "x.onnx"),
        ("input { data_type: TYPE_FP32 dims: 1 }", ("1/model.onnx",), ConfigInvalid, "no name"),
        ('input { name: "i" dims: 1 }', ("1/model.onnx",), ConfigInvalid, "no data_type"),
        ('input { name: "i" data_type: TYPE_FP32 }', ("1/model.onnx",), ConfigInvalid, "no dims"),
        (
            'input { name: "i" data_type: TYPE_FP32 dims: [ 3, 0 ] }',
            ("1/model.onnx",),
            ConfigInvalid,
            "[3, 0]",
        ),
        (
            'output { name: "i" data_type: TYPE_FP32 dims: -2 }',
            ("1/model.onnx",),
            ConfigInvalid,
            "[-2]",
        ),
        (TENSORS + TENSORS, ("1/model.onnx",), ConfigInvalid, "comes twice"),
        ('backend: "pytorch"', ("1/model.pt",), ConfigInvalid, "spec.model.config.override"),
        ('backend: "fil"', ("1/xgboost.json",), ConfigInvalid, "input and output"),
        ('platform: "ensemble"', ("1/.",), ConfigInvalid, "needs steps"),
        (
            'platform: "ensemble" ensemble_scheduling { step { model_name: "gone" } }',
            ("1/.",),
            ConfigInvalid,
            "'gone'",
        ),
    ],
)
def test_bad_ones(text: str, paths: tuple[str, ...], error: type[FetchError], word: str) -> None:
    with pytest.raises(error) as caught:
        check(text, paths)
    assert word in caught.value.message


def test_a_stated_backend_that_the_configuration_contradicts() -> None:
    with pytest.raises(ConfigInvalid, match=r"spec\.model\.backend"):
        check('backend: "onnxruntime"', stated="python")


@pytest.mark.parametrize(
    ("parameters", "dims", "out"),
    [
        ({"model_type": "xgboost_json", "num_feature": "13", "num_class": "3"}, [13], [3]),
        ({"model_type": "lightgbm", "num_feature": "28", "num_class": "1"}, [28], [1]),
        ({"model_type": "xgboost_ubj", "num_feature": "5", "num_class": "0"}, [5], [1]),
        ({"model_type": "treelite_checkpoint"}, [], []),
    ],
)
def test_the_configuration_of_a_forest(
    parameters: dict[str, str], dims: list[int], out: list[int]
) -> None:
    config = configs.generated("fil", parameters)
    assert config.parameters["model_type"].string_value == parameters["model_type"]
    assert [d for i in config.input for d in i.dims] == dims
    assert [d for o in config.output for d in o.dims] == out
    if dims:
        files = ("1/xgboost.json", "1/model.txt")
        assert configs.check(config, "m", files, ("m",)) == "fil"


@pytest.mark.parametrize("backend", sorted(BACKENDS - {"ensemble", "fil"}))
def test_a_generated_configuration_reads_back(backend: str) -> None:
    text = configs.finish(configs.generated(backend, {}), "m")
    back = text_format.Parse(text, ModelConfig())
    assert (back.name, back.backend) == ("m", backend)


def test_a_warmup_needs_inputs() -> None:
    with pytest.raises(ConfigInvalid, match="warmup"):
        configs.finish(parse('model_warmup { name: "tidegate" batch_size: 1 }'), "m")
