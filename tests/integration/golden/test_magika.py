"""Golden requests to a real model: right answers pass, wrong ones are found and named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.native.processes import Pod
from tests.integration.golden.conftest import Golden
from tests.integration.sidecar.wire import quiet

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "golden.yaml"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><title>Tides</title></head>
<body>
<h1>Tides</h1>
<p>High water at noon.</p>
</body>
</html>
"""
# What each generation says of that page.
SEEN = {"v1": ("html", 0.9503), "v3": ("twig", 0.6959)}


def page(*outputs: dict[str, Any], name: str = "content") -> dict[str, Any]:
    content = {"name": name, "datatype": "BYTES", "shape": [1, 1], "data": [PAGE]}
    return {"page.json": {"inputs": [content], "expected": {"outputs": list(outputs)}}}


def test_the_documented_example_passes(golden: Golden) -> None:
    config_map, _ = yaml.safe_load_all(EXAMPLE.read_text())
    result = golden(config_map["data"])
    assert (result.passed, result.message) == (
        True,
        "3 of 3 golden requests answered as expected",
    )


def test_a_version_that_answers_otherwise_is_found(golden: Golden, generation: str) -> None:
    """The newer generation takes this page for a Twig template: a real regression."""
    result = golden(page({"name": "label", "data": ["html"]}))
    if generation == "v1":
        assert result.passed
    else:
        assert not result.passed
        assert result.message == (
            "1 of 1 golden requests failed; page.json: output label: "
            'expected "html" at [0, 0], got "twig"'
        )


@pytest.mark.parametrize("off", [0.004, 0.006])
def test_the_tolerance_of_a_score(golden: Golden, generation: str, off: float) -> None:
    label, score = SEEN[generation]
    result = golden(
        page(
            {"name": "label", "oneOf": [label, "unknown"]},
            {"name": "score", "data": [score - off], "tolerance": {"absolute": 0.005}},
        )
    )
    assert result.passed == (off < 0.005)
    if not result.passed:
        assert f"output score: expected {score - off:.4g} at [0, 0], got {score}" in result.message
        assert "(tolerance absolute 0.005, relative 0)" in result.message


def test_a_tensor_that_the_model_lacks_is_named_and_nothing_is_sent(
    golden: Golden, magika: Pod
) -> None:
    before = quiet(magika, "golden_http").started
    result = golden(page({"name": "lable", "data": ["html"]}, name="contents"))
    assert (result.passed, result.message) == (
        False,
        'page.json: inputs[0].name is "contents", but model magika has inputs content. '
        "(1 more like it)",
    )
    assert quiet(magika, "golden_http").started == before


def test_tritons_own_words(golden: Golden) -> None:
    requests = page({"name": "label", "data": ["html"]})
    requests["page.json"]["inputs"][0]["shape"] = [1]
    result = golden(requests)
    assert not result.passed
    assert "page.json: answered HTTP 400: " in result.message
    assert "Expected [-1,1], got [1]" in result.message


def test_a_model_that_is_not_there(golden: Golden) -> None:
    requests = page({"name": "label", "data": ["html"]})
    requests["page.json"]["model"] = "magica"
    result = golden(requests)
    assert not result.passed
    assert "model magica cannot be asked: HTTP 404: Request for unknown model" in result.message


def test_they_are_counted_apart_from_clients(golden: Golden, magika: Pod) -> None:
    before = quiet(magika, "golden_http"), quiet(magika, "client_http")
    golden(page({"name": "label", "ignore": True}))
    assert quiet(magika, "golden_http").since(before[0]).by_status == {200: 1}
    assert quiet(magika, "client_http").since(before[1]).started == 0


def test_without_a_sidecar(golden: Golden, magika: Pod) -> None:
    assert golden(page({"name": "label", "ignore": True}), url=magika.triton_http).passed
