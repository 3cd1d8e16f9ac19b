"""Values that the documentation shows are ones that the chart takes."""

import json
from typing import Any

import pytest
import yaml

from helm.chart import CHART, ChartError, render
from tests.unit.architecture.test_docs import blocks

NAMES = set(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"])


def shown() -> list[Any]:
    """Page and document of every YAML block that consists of the chart's values."""
    return [
        pytest.param(document, id=f"{page}: {', '.join(document)}")
        for page, body in blocks("yaml")
        for document in yaml.safe_load_all(body)
        if isinstance(document, dict) and document and set(document) <= NAMES
    ]


def test_there_are_some() -> None:
    assert len(shown()) >= 5


@pytest.mark.parametrize("values", shown())
def test_values_in_the_documentation_are_taken(values: dict[str, Any]) -> None:
    assert render(values)


def test_a_wrong_one_would_not_be() -> None:
    with pytest.raises(ChartError):
        render({"admission": {"allowedThings": []}})
