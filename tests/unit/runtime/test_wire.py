"""What the operator sends is the same document as JSON and as YAML."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tidegate.runtime.kube import to_wire

TEXT = st.text(st.characters(codec="utf-8"))


@pytest.mark.parametrize(
    "text",
    ["plain", "é", "🌊", "\U00010000", "a\u2028b", "a\x85b", "\x7f", "\x00\t\r\n", "\ufeff", '"\\'],
    ids=ascii,
)
def test_text(text: str) -> None:
    wire = to_wire({"text": text})
    assert json.loads(wire) == {"text": text}
    assert yaml.safe_load(wire) == {"text": text}
    wire.encode()


@given(st.dictionaries(TEXT, TEXT | st.integers() | st.booleans() | st.none() | st.lists(TEXT)))
def test_any_document(document: dict[str, object]) -> None:
    wire = to_wire(document)
    assert json.loads(wire) == document
    assert "\n" not in wire
    for letter in "\u2028\u2029\x85\x7f\ufeff":
        assert letter not in wire
