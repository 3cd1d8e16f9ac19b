"""What JSON cannot write reaches the model and comes back: halves, NaN, bytes that are no text."""

from typing import Any

import pytest

from tests.integration.golden.conftest import Golden
from tidegate.actions import ShortLoad

pytestmark = pytest.mark.integration


def repeat(name: str, datatype: str, data: list[Any], expected: list[Any]) -> dict[str, Any]:
    shape = [len(data) // 2, 2] if datatype == "BYTES" else [len(data)]
    return {
        "repeat.json": {
            "model": "repeat",
            "inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}],
            "expected": {"outputs": [{"name": f"{name}_again", "data": expected, "shape": shape}]},
        }
    }


@pytest.mark.parametrize(
    ("name", "datatype", "data", "other"),
    [
        ("real", "FP32", [0.1, "NaN", "Infinity", "-Infinity", -0.0], [0.1, 0, 0, 0, 0]),
        ("half", "FP16", [0.1, 65504, "NaN", 6e-8], [0.2, 65504, "NaN", 6e-8]),
        ("text", "BYTES", ["é", "", {"base64": "//4A"}, "\n"], ["é", "", "//4A", "\n"]),
    ],
)
def test_what_goes_out_comes_back(
    golden: Golden, name: str, datatype: str, data: list[Any], other: list[Any]
) -> None:
    assert golden(repeat(name, datatype, data, data)).passed
    result = golden(repeat(name, datatype, data, other))
    assert not result.passed
    assert f"output {name}_again: expected " in result.message


def test_bytes_are_shown_in_hex(golden: Golden) -> None:
    result = golden(repeat("text", "BYTES", ["a", {"base64": "//4A"}], ["a", "b"]))
    assert 'output text_again: expected "b" at [0, 1], got bytes fffe00' in result.message


def test_a_short_load_by_a_real_triton(golden: Golden) -> None:
    requests = repeat("real", "FP32", [1.0, 2.0], [1.0, 2.0])
    calm = golden(requests, load=ShortLoad(20, 1.0, 0.01, latency_target_ms=30_000))
    assert calm.passed
    assert "load test, 20 of 20 requests at 20 a second: 0 failed" in calm.message
    # Nothing answers in no time at all.
    hurried = golden(requests, load=ShortLoad(20, 1.0, 0.01, latency_target_ms=0))
    assert not hurried.passed
    assert "not within 0 ms" in hurried.message
