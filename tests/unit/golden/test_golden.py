"""Golden requests: what is refused and with which words, what is sent, what counts as equal."""

import contextlib
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.golden import (
    DATATYPES,
    MAX_REQUESTS,
    Answer,
    GoldenError,
    GoldenRequest,
    Output,
    Tensor,
    check_against_metadata,
    compare,
    decode,
    encode,
    parse,
)

INPUT = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": ["import os\n"]}
LABEL = {"name": "label", "data": ["python"]}
GOOD = {"inputs": [INPUT], "expected": {"outputs": [LABEL]}}
METADATA = {
    "name": "magika",
    "versions": ["1"],
    "platform": "python",
    "inputs": [{"name": "content", "datatype": "BYTES", "shape": [-1, 1]}],
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "score", "datatype": "FP32", "shape": [-1, 1]},
    ],
}


def config_map(**data: Any) -> dict[str, Any]:
    """Of requests by name, as text or as what is to be its JSON."""
    texts = {f"{k}.json": v if isinstance(v, str) else json.dumps(v) for k, v in data.items()}
    return {"metadata": {"name": "golden"}, "data": texts}


def one(document: Any) -> GoldenRequest:
    (found,) = parse(config_map(a=document))
    return found


def with_input(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "inputs": [{**INPUT, **changes}]}


def with_output(output: dict[str, Any]) -> dict[str, Any]:
    return {**GOOD, "expected": {"outputs": [{"name": "label", **output}]}}


def with_expected(expected: Any) -> dict[str, Any]:
    return {**GOOD, "expected": expected}


def numbers(datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return with_input(datatype=datatype, data=data, shape=shape or [len(data)])


REFUSED = {
    "no-json": ('{\n "inputs": [}', "a.json: is not JSON: Expecting value in line 2, column 13."),
    "twice": ('{"model": "a", "model": "b"}', 'field "model" stands twice in one object.'),
    "deep": ("[" * 100_000, "is nested too deeply. Write data as a flat list."),
    "long-integer": ("9" * 5_000, "is not JSON: Exceeds the limit"),
    "list": ([GOOD], "it must be an object."),
    "unknown-field": ({**GOOD, "input": []}, "input is no field. Fields here: name, model, inputs"),
    "no-inputs": ({"expected": {}}, "inputs is missing."),
    "no-expected": ({"inputs": [INPUT]}, "expected is missing."),
    "empty-inputs": ({**GOOD, "inputs": []}, "inputs is []; it must be a list with an entry"),
    "input-twice": ({**GOOD, "inputs": [INPUT, INPUT]}, 'inputs name "content" twice. Keep one.'),
    "no-name": ({**GOOD, "name": ""}, 'name is ""; it must be a text of 1 to 253 characters.'),
    "no-model": ({**GOOD, "model": 3}, "model is 3; it must be a text"),
    "tensor-field": (with_input(dtype="FP32"), "inputs[0].dtype is no field."),
    "tensor-incomplete": (
        {**GOOD, "inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]},
        "inputs[0].data is missing. It needs name, datatype, shape, data.",
    ),
    "numpy-datatype": (
        with_input(datatype="float32"),
        'inputs[0].datatype is "float32"; it must be one of BOOL, INT8,',
    ),
    "unhashable-datatype": (with_input(datatype=[]), "inputs[0].datatype is []"),
    "length": (
        with_input(shape=[2, 1]),
        "inputs[0].data has 1 elements, but shape [2, 1] has room for 2.",
    ),
    "negative-size": (with_input(shape=[-1, 1]), "inputs[0].shape is [-1, 1]; it must be a list"),
    "bool-size": (with_input(shape=[True]), "inputs[0].shape is [true]"),
    "giant": (with_input(shape=[1 << 20, 2]), "with at most 1048576 elements in all."),
    "int8": (numbers("INT8", [1, 128]), "element 1 is 128; INT8 holds whole numbers from -128 to"),
    "uint8": (numbers("UINT8", [-1]), "element 0 is -1; UINT8 holds whole numbers from 0 to 255."),
    "int-of-half": (numbers("INT32", [1.5]), "element 0 is 1.5; INT32 holds whole numbers"),
    "int-of-bool": (numbers("INT32", [True]), "element 0 is true; INT32 holds whole numbers"),
    "float-of-text": (numbers("FP32", ["1"]), 'element 0 is "1"; FP32 holds numbers, "NaN"'),
    "float-too-large": (numbers("FP16", [1e6]), "holds a number too large for FP16."),
    "fp32-too-large": (numbers("FP32", [1e39]), "holds a number too large for FP32."),
    "bf16-too-large": (numbers("BF16", [1e39]), "holds a number too large for BF16."),
    "fp64-too-large": (numbers("FP64", [10**400]), "it is too large for FP64."),
    "bool-of-int": (numbers("BOOL", [1]), "element 0 is 1; a BOOL is true or false."),
    "bytes-of-int": (with_input(data=[1]), 'it must be a value, or bytes as {"base64": "..."}.'),
    "bad-base64": (with_input(data=[{"base64": "%"}]), "that is no base64."),
    "lone-surrogate": (with_input(data=["\ud800"]), "inputs[0].data element 0 is"),
    "parameters": ({**GOOD, "parameters": []}, "parameters is []; it must be an object."),
    "parameter": ({**GOOD, "parameters": {"a": [1]}}, "parameters.a is [1]; it must be a text, a"),
    "wire": (
        {**GOOD, "parameters": {"binary_data_output": False}},
        "parameters.binary_data_output is set by Tidegate itself. Leave it out.",
    ),
    "nothing-expected": (with_expected({}), "expected must have outputs or error, and one"),
    "both-expected": (
        with_expected({"outputs": [LABEL], "error": {"status": 400}}),
        "expected must have outputs or error, and one of them only.",
    ),
    "success-expected": (
        with_expected({"error": {"status": 200}}),
        "expected.error.status is 200; it must be an HTTP status from 400 to 599.",
    ),
    "no-outputs": (with_expected({"outputs": []}), "expected.outputs is []; it must be a list"),
    "output-twice": (
        with_expected({"outputs": [LABEL, LABEL]}),
        'expected.outputs name "label" twice. Keep one.',
    ),
    "output-field": (with_output({"datatype": "FP32"}), "expected.outputs[0].datatype is no field"),
    "output-says-nothing": (with_output({}), "expected.outputs[0] says nothing."),
    "ignore-not-bool": (with_output({"ignore": "no"}), 'expected.outputs[0].ignore is "no"'),
    "ignore-and-data": (
        with_output({"ignore": True, "data": [1]}),
        "expected.outputs[0].ignore contradicts data. Leave one of them out.",
    ),
    "data-and-one-of": (
        with_output({"data": [1], "oneOf": [1]}),
        "expected.outputs[0] has data and oneOf. Leave one of them out.",
    ),
    "expected-length": (
        with_output({"data": [1, 2], "shape": [3]}),
        "expected.outputs[0].data has 2 elements, but shape [3] has room for 3.",
    ),
    "expected-null": (with_output({"data": [None]}), "expected.outputs[0].data element 0 is null"),
    "expected-huge": (with_output({"data": [1 << 70]}), "expected.outputs[0].data element 0 is 11"),
    "tolerance-alone": (
        with_output({"tolerance": {"absolute": 1}, "shape": [1]}),
        "expected.outputs[0].tolerance has nothing to compare. Add data or oneOf.",
    ),
    "tolerance-negative": (
        with_output({"data": [1], "tolerance": {"relative": -0.1}}),
        "expected.outputs[0].tolerance.relative is -0.1; it must be a number from 0.",
    ),
    "tolerance-nan": (
        with_output({"data": [1], "tolerance": {"absolute": math.nan}}),
        "expected.outputs[0].tolerance.absolute is NaN",
    ),
    "tolerance-field": (
        with_output({"data": [1], "tolerance": {"abs": 1}}),
        "expected.outputs[0].tolerance.abs is no field. Fields here: absolute, relative.",
    ),
    "tolerance-empty": (
        with_output({"data": [1], "tolerance": {}}),
        "expected.outputs[0].tolerance says nothing.",
    ),
}


@pytest.mark.parametrize(("document", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_named(document: Any, words: str) -> None:
    with pytest.raises(GoldenError) as refused:
        one(document)
    text = str(refused.value)
    assert text.startswith("ConfigMap golden, a.json: ")
    assert words in text
    assert text.endswith(".")
    assert len(text) < 500


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"metadata": {"name": "g"}}, "ConfigMap g: has no key that ends in .json."),
        ({"metadata": {"name": "g"}, "data": {"a.yaml": "{}"}}, "has no key that ends in .json"),
        (
            {"metadata": {"name": "g"}, "binaryData": {"a.json": "/w=="}},
            "ConfigMap g, a.json: is not UTF-8 text.",
        ),
        (
            config_map(**{f"k{i}": GOOD for i in range(MAX_REQUESTS + 1)}),
            "has 65 golden requests, at most 64.",
        ),
        (config_map(a=" " * (1 << 20) + "{}"), "bytes of golden requests, at most 1048576."),
    ],
)
def test_a_config_map_that_is_refused(found: dict[str, Any], words: str) -> None:
    with pytest.raises(GoldenError, match=words.replace(".", r"\.")):
        parse(found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "inputs", "expected", "outputs", "data", "shape", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_nothing_but_a_golden_error_comes_of_any_json(document: Any) -> None:
    for text in (document, {**GOOD, "inputs": [document]}, with_expected(document)):
        with contextlib.suppress(GoldenError):
            parse(config_map(a=text))


def test_requests_come_by_key_and_other_keys_are_left_out() -> None:
    found = config_map(b=GOOD, a={**GOOD, "name": "a python file", "model": "other"})
    found["data"]["README"] = "not JSON"
    a, b = parse(found)
    assert (a.key, a.model, str(a)) == ("a.json", "other", "a python file (a.json)")
    assert (b.key, b.model, str(b)) == ("b.json", "", "b.json")


def test_nested_data_is_flattened() -> None:
    flat, nested = (
        one(numbers("INT32", data, [2, 2])) for data in ([1, 2, 3, 4], [[1, 2], [3, 4]])
    )
    assert flat == nested


def test_bytes_that_are_no_text() -> None:
    request = one(with_input(data=[{"base64": "/wA="}]))
    assert request.inputs == (Tensor("content", "BYTES", (1, 1), (b"\xff\x00",)),)


def test_a_fitting_model_is_fine() -> None:
    assert check_against_metadata([one(GOOD)], METADATA) == ()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            with_input(name="text"),
            'a.json: inputs[0].name is "text", but model magika has inputs content.',
        ),
        (
            numbers("INT32", [1]),
            "a.json: inputs[0].datatype is INT32, but input content of model magika is BYTES.",
        ),
        (
            with_expected({"outputs": [{"name": "lable", "data": [1]}]}),
            'a.json: expected.outputs[0].name is "lable", but model magika has outputs label, '
            "score.",
        ),
    ],
)
def test_what_the_model_lacks_is_named(document: Any, words: str) -> None:
    assert check_against_metadata([one(document)], METADATA) == (words,)


def test_a_request_that_is_to_be_refused_may_name_what_the_model_lacks() -> None:
    document = {**with_input(name="text"), "expected": {"error": {"status": 400}}}
    assert check_against_metadata([one(document)], METADATA) == ()


# The wire.


def test_a_request_on_the_wire() -> None:
    document = {**GOOD, "parameters": {"priority": 1}, "inputs": [{**INPUT, "data": ["é"]}]}
    body, length = encode(one(document))
    assert json.loads(body[:length]) == {
        "inputs": [
            {
                "name": "content",
                "datatype": "BYTES",
                "shape": [1, 1],
                "parameters": {"binary_data_size": 6},
            }
        ],
        "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
        "parameters": {"priority": 1},
    }
    assert body[length:] == b"\x02\x00\x00\x00" + "é".encode()


@pytest.mark.parametrize(
    ("datatype", "data", "raw"),
    [
        ("BOOL", [True, False], "0100"),
        ("INT8", [-1], "ff"),
        ("UINT16", [258], "0201"),
        ("INT64", [-2], "feffffffffffffff"),
        ("UINT64", [2**64 - 1], "ffffffffffffffff"),
        ("FP16", [1, "-Infinity"], "003c00fc"),
        ("BF16", [1.0, 1.00390625, 1.01171875], "803f803f823f"),  # ties go to even
        ("FP32", [0.5], "0000003f"),
        ("FP64", [1], "000000000000f03f"),
    ],
)
def test_how_numbers_are_packed(datatype: str, data: list[Any], raw: str) -> None:
    body, length = encode(one(numbers(datatype, data)))
    assert body[length:].hex() == raw


def answer_to(request: GoldenRequest, name: str = "content") -> Answer:
    """Of a server that gives the first input back as an output."""
    body, length = encode(request)
    (tensor,) = json.loads(body[:length])["inputs"]
    head = json.dumps({"model_name": "m", "outputs": [{**tensor, "name": name}]}).encode()
    return decode(200, head + body[length:], len(head))


ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(max_size=5),
    "FP16": st.floats(width=16),
    "BF16": st.floats(width=16).map(lambda x: float(round(x)) if math.isfinite(x) else x),
    "FP32": st.floats(width=32),
    "FP64": st.floats(),
    **{
        f"{sign}{bits}": st.integers(
            -(1 << (bits - 1)) if sign == "INT" else 0,
            (1 << (bits - 1 if sign == "INT" else bits)) - 1,
        )
        for sign in ("INT", "UINT")
        for bits in (8, 16, 32, 64)
    },
}


@given(st.data(), st.sampled_from(DATATYPES))
def test_what_comes_back_as_it_was_sent_is_as_expected(data: st.DataObject, datatype: str) -> None:
    values = data.draw(st.lists(ELEMENTS[datatype], max_size=6))
    document = numbers(datatype, values, [len(values)])
    expected = {"name": "content", "data": values, "shape": [len(values)]}
    request = one({**document, "expected": {"outputs": [expected]}})
    assert compare(request, answer_to(request)) == ""


@given(st.data(), st.sampled_from(["INT8", "UINT64", "BYTES", "BOOL"]))
def test_one_other_element_is_found(data: st.DataObject, datatype: str) -> None:
    values = data.draw(st.lists(ELEMENTS[datatype], min_size=1, max_size=6))
    at = data.draw(st.integers(0, len(values) - 1))
    other = data.draw(ELEMENTS[datatype].filter(lambda x: x != values[at]))
    expected = [*values[:at], other, *values[at + 1 :]]
    document = numbers(datatype, values)
    outputs = [{"name": "content", "data": expected}]
    request = one({**document, "expected": {"outputs": outputs}})
    assert f"expected {json.dumps(other, ensure_ascii=False)} at [{at}]" in compare(
        request, answer_to(request)
    )


def test_outputs_in_json_are_understood() -> None:
    """Of a server that does not know the binary extension."""
    output = {"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": ["python"]}
    body = json.dumps({"outputs": [output]}).encode()
    assert compare(one(GOOD), decode(200, body, None)) == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"outputs": [3]}',
        b'{"outputs": [{"name": "label"}]}',
        b'{"outputs": [{"name": "label", "datatype": "INT8", "shape": [1], "data": [300]}]}',
        b'{"outputs": [{"name": "label", "datatype": "X", "shape": [1], "data": [3]}]}',
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match="the answer is no v2 inference response"):
        decode(200, body, None)


def test_an_answer_cut_short() -> None:
    request = one({**numbers("FP32", [1, 2]), "expected": {"outputs": [{**LABEL, "data": [1, 2]}]}})
    short = Answer(200, {"label": Output("FP32", (2,), bytes(7))})
    assert compare(request, short) == "output label: 7 bytes are no FP32[2]"


# Comparing.


def output(datatype: str, values: list[Any], shape: tuple[int, ...] | None = None) -> Answer:
    codes = {"FP32": "f", "INT32": "i", "FP16": "e"}
    if datatype == "BYTES":
        raw = b"".join(struct.pack("<I", len(v)) + v for v in values)
    else:
        raw = struct.pack(f"<{len(values)}{codes[datatype]}", *values)
    return Answer(200, {"label": Output(datatype, shape or (len(values),), raw)})


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ({"data": ["python"]}, output("BYTES", [b"python"])),
        ({"data": [{"base64": "/w=="}]}, output("BYTES", [b"\xff"])),
        ({"oneOf": ["txt", "python"]}, output("BYTES", [b"python", b"txt"])),
        ({"oneOf": [1, 2]}, output("INT32", [2, 1, 2])),
        ({"data": [0.1]}, output("FP32", [0.1])),
        ({"data": [0.1], "tolerance": {"absolute": 0}}, output("FP32", [0.1])),
        ({"data": [1]}, output("FP32", [1.00001])),
        ({"data": [1.0]}, output("FP16", [1.009])),
        ({"data": [3.0]}, output("INT32", [3])),
        ({"data": [100], "tolerance": {"relative": 0.01}}, output("INT32", [101])),
        ({"data": [-1], "tolerance": {"relative": 0.5}}, output("FP32", [-1.5])),
        ({"data": [10], "tolerance": {"absolute": 1, "relative": 0.1}}, output("FP32", [12])),
        ({"data": ["NaN", "Infinity", "-Infinity"]}, output("FP32", [NAN, INF, -INF])),
        ({"data": [NAN]}, output("FP32", [NAN])),
        ({"data": [1e39]}, output("FP32", [INF])),
        ({"ignore": True}, output("FP32", [7])),
        ({"shape": [1, 2]}, output("FP32", [7, 8], (1, 2))),
        ({"data": [[1, 2]]}, output("INT32", [1, 2], (2, 1))),
        ({"data": []}, output("INT32", [], (0, 3))),
    ],
)
def test_fits(expected: dict[str, Any], got: Answer) -> None:
    assert compare(one(with_output(expected)), got) == ""


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        (
            {"data": ["python"]},
            output("BYTES", [b"txt"], (1, 1)),
            'expected "python" at [0, 0], got "txt"',
        ),
        ({"data": ["a"]}, output("BYTES", [b"\xff"]), 'expected "a" at [0], got bytes ff'),
        (
            {"oneOf": ["txt", "python"]},
            output("BYTES", [b"c"]),
            'expected one of txt, python at [0], got "c"',
        ),
        (
            {"data": [0.9], "tolerance": {"absolute": 0.05}},
            output("FP32", [0.7]),
            "expected 0.9 at [0], got 0.699999988 (tolerance absolute 0.05, relative 0)",
        ),
        # The one that lies furthest outside is named.
        (
            {"data": [[1, 2], [3, 4]], "tolerance": {"absolute": 0.5}},
            output("FP32", [1, 3, 0, 5], (2, 2)),
            "expected 3 at [1, 0], got 0 (tolerance absolute 0.5, relative 0); 3 of 4 elements "
            "differ",
        ),
        (
            {"data": [1, 0]},
            output("FP32", [100, NAN]),
            "expected 0 at [1], got NaN (tolerance absolute 1e-06, relative 1e-05); 2 of 2 "
            "elements differ",
        ),
        ({"data": ["NaN"]}, output("FP32", [1]), 'expected "NaN" at [0], got 1 (tolerance'),
        ({"data": ["Infinity"]}, output("FP32", [-INF]), "got -Infinity"),
        ({"data": [1.5]}, output("INT32", [1]), "expected 1.5 at [0], got 1"),
        ({"data": [True]}, output("INT32", [1]), "expected true at [0], got 1"),
        ({"data": [1]}, output("BYTES", [b"1"]), 'expected 1 at [0], got "1"'),
        ({"data": ["1"]}, output("INT32", [1]), 'expected "1" at [0], got 1'),
        ({"data": [1, 2]}, output("INT32", [1]), "expected 2 elements, got 1 (shape [1])"),
        ({"shape": [2]}, output("INT32", [1]), "expected shape [2], got [1]"),
        ({"ignore": True}, Answer(200), "is not in the answer"),
        ({"data": [1]}, Answer(200, {"label": Output("X", (1,), b"")}), "unknown datatype"),
        ({"data": ["x" * 500]}, output("BYTES", [b"y" * 500]), 'expected "xxx'),
    ],
)
def test_does_not_fit(expected: dict[str, Any], got: Answer, words: str) -> None:
    found = compare(one(with_output(expected)), got)
    assert found.startswith("output label: ")
    assert words in found
    assert len(found) < 300


def test_a_refusal_is_not_an_answer() -> None:
    got = decode(500, b'{"error": "out of\\nmemory"}', None)
    assert compare(one(GOOD), got) == "answered HTTP 500: out of memory"


@pytest.mark.parametrize(
    ("error", "got", "words"),
    [
        ({"status": 400}, Answer(400, error="x"), ""),
        ({"status": 400, "contains": "shape"}, Answer(400, error="unexpected shape"), ""),
        ({"status": 400}, Answer(200), "expected HTTP 400, got HTTP 200"),
        ({"status": 400}, Answer(500, error="x"), "expected HTTP 400, got HTTP 500: x"),
        (
            {"status": 400, "contains": "shape"},
            Answer(400, error="x"),
            'expected an error that contains "shape", got x',
        ),
    ],
)
def test_an_expected_refusal(error: dict[str, Any], got: Answer, words: str) -> None:
    assert compare(one(with_expected({"error": error})), got) == words
