"""Golden requests as a warm-up: what fits, what Triton is given; zeros are the fallback."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tidegate.fetch import config as configs
from tidegate.fetch.warmup import MOST, read_golden, warm_up_with
from tidegate.golden import GoldenRequest, parse

ASKED = 'model_warmup { name: "tidegate" batch_size: 2 count: 3 } '
INPUTS = (
    'input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] } '
    'input { name: "text" data_type: TYPE_STRING dims: 1 optional: true } '
)


def config(text: str = "max_batch_size: 4 ") -> Any:
    return configs.parse(ASKED + INPUTS + text, "m/config.pbtxt")


def x(shape: list[int], **changes: Any) -> dict[str, Any]:
    size = 1
    for each in shape:
        size *= each
    data = [float(i) for i in range(size)]
    return {"name": "x", "datatype": "FP32", "shape": shape, "data": data} | changes


OUTPUTS = {"expected": {"outputs": [{"name": "y", "ignore": True}]}}


def golden(*documents: dict[str, Any]) -> tuple[GoldenRequest, ...]:
    data = {
        f"{i}.json": json.dumps(
            {"expected": {"outputs": [{"name": "y", "ignore": True}]}} | document
        )
        for i, document in enumerate(documents)
    }
    return parse({"metadata": {"name": "g"}, "data": data})


def test_an_items_bytes_and_shape_reach_triton() -> None:
    text = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": ["hé", "other"]}
    made = config()
    files, unfit = warm_up_with(made, golden({"inputs": [x([2, 3, 2]), text]}), "m")
    assert unfit == {}
    [warmup] = made.model_warmup
    assert (warmup.name, warmup.batch_size, warmup.count) == ("tidegate-1", 2, 3)
    assert list(warmup.inputs["x"].dims) == [3, 2]  # of one item, without the batch
    assert files == {
        f"warmup/{warmup.inputs['x'].input_data_file}": struct.pack("<6f", *range(6)),
        f"warmup/{warmup.inputs['text'].input_data_file}": struct.pack("<I", 3) + "hé".encode(),
    }
    assert "zero_data" not in configs.finish(made, "m")


def test_without_a_batch_the_whole_tensor_is_the_item() -> None:
    made = config("max_batch_size: 0 ")
    files, _ = warm_up_with(made, golden({"inputs": [x([3, 2])]}), "m")
    assert list(made.model_warmup[0].inputs["x"].dims) == [3, 2]
    assert [len(raw) for raw in files.values()] == [24]


GOOD = {"inputs": [x([1, 3, 2])]}
UNFIT: list[tuple[dict[str, Any], str, str]] = [
    (GOOD | {"model": "other"}, "", "it asks other"),
    (
        {"inputs": GOOD["inputs"], "expected": {"error": {"status": 400}}},
        "",
        "it expects an error",
    ),
    (GOOD | {"parameters": {"temperature": 1}}, "", "parameters"),
    (GOOD, "sequence_batching {} ", "sequences"),
    ({"inputs": [x([1, 3, 2], name="z")]}, "", "no input x"),
    ({"inputs": [x([1, 3, 2]), x([1, 3, 2], name="z")]}, "", "the model has no input z"),
    ({"inputs": [x([1, 3, 2], datatype="FP64")]}, "", "x is FP64, the model takes FP32"),
    ({"inputs": [x([1, 3, 3])]}, "", "x is [3, 3] an item, the model takes [-1, 2]"),
    ({"inputs": [x([3, 2])]}, "", "x is [2] an item"),
    ({"inputs": [x([1, 0, 2])]}, "", "x is empty"),
]


@pytest.mark.parametrize(("document", "more", "why"), UNFIT)
def test_what_does_not_fit_leaves_the_zeros(document: dict[str, Any], more: str, why: str) -> None:
    made = config("max_batch_size: 4 " + more)
    files, unfit = warm_up_with(made, golden(document), "m")
    assert files == {}
    assert why in unfit["0.json"]
    assert 'name: "tidegate"' in configs.finish(made, "m")
    assert made.model_warmup[0].inputs["x"].zero_data


def test_a_model_that_names_no_inputs_takes_none() -> None:
    bare = configs.parse(ASKED, "m/config.pbtxt")
    assert warm_up_with(bare, golden(GOOD), "m") == (
        {},
        {"0.json": "the configuration names no inputs"},
    )


def test_not_all_of_many() -> None:
    made = config()
    warm_up_with(made, golden(*[GOOD] * (MOST + 3)), "m")
    assert len(made.model_warmup) == MOST


def test_the_models_own_warm_up_stays_and_nothing_is_added_unasked() -> None:
    own = 'model_warmup { name: "own" batch_size: 1 inputs { key: "x" value { zero_data: true } } }'
    unasked = configs.parse(INPUTS + own, "m/config.pbtxt")
    assert warm_up_with(unasked, golden(GOOD), "m") == ({}, {})
    both = configs.parse(ASKED + INPUTS + "max_batch_size: 4 " + own, "m/config.pbtxt")
    warm_up_with(both, golden(GOOD), "m")
    assert [w.name for w in both.model_warmup] == ["own", "tidegate-1"]


def test_a_config_map_that_is_missing_or_broken_warms_up_nothing(tmp_path: Path) -> None:
    assert read_golden(tmp_path / "none") == ()
    (tmp_path / "a.json").write_text("{")
    assert read_golden(tmp_path) == ()
    (tmp_path / "a.json").write_bytes(b"\xff")
    assert read_golden(tmp_path) == ()
    (tmp_path / "a.json").write_text(json.dumps(GOOD | OUTPUTS))
    assert len(read_golden(tmp_path)) == 1
