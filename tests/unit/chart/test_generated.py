"""What is made from the chart is what the repository holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import generate
from helm.chart import CHART, LOADER, NAMESPACE, is_hook, objects
from helm.generate import UndocumentedValueError, read_values

SCHEMA = {
    "properties": {
        "a": {"type": "string"},
        "b": {"type": "object", "properties": {"c": {"$ref": "#/definitions/size"}}},
    },
    "definitions": {"size": {"type": "integer"}},
}


@pytest.mark.parametrize("path", [generate.README, generate.REFERENCE, generate.INSTALL])
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate.outputs()[path], "run: make generate"


def test_values_are_read_with_their_comments_types_and_defaults() -> None:
    text = "# file\n\n# -- First\n# line two.\na: 'x'\n# block\nb:\n  # -- Size.\n  c: 3\n"
    found = [(v.name, v.type, v.default, v.description) for v in read_values(text, SCHEMA)]
    assert found == [
        ("a", "string", '"x"', "First line two."),
        ("b.c", "integer", "3", "Size."),
    ]


@pytest.mark.parametrize("text", ["a: x\n", "# about a\na: x\n", "# -- old\n\na: x\n"])
def test_a_value_without_a_comment_is_refused(text: str) -> None:
    with pytest.raises(UndocumentedValueError, match=r"^a in values\.yaml has no comment"):
        read_values(text, SCHEMA)


def test_every_value_is_in_the_table() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    names = {v.name for v in read_values(text, schema)}

    def leaves(values: object, path: str) -> set[str]:
        if path in names or not isinstance(values, dict):
            return {path}
        return {p for k, v in values.items() for p in leaves(v, f"{path}.{k}".lstrip("."))}

    assert leaves(yaml.safe_load(text), "") == names


def test_install_yaml_is_the_chart_with_a_namespace_and_without_hooks() -> None:
    def key(o: dict[str, Any]) -> tuple[Any, ...]:
        metadata = o["metadata"]
        return o["apiVersion"], o["kind"], metadata.get("namespace"), metadata["name"]

    found = list(yaml.load_all(generate.INSTALL.read_text(encoding="utf-8"), Loader=LOADER))
    assert found[0]["kind"] == "Namespace"
    assert found[0]["metadata"]["name"] == NAMESPACE
    assert {key(o) for o in found[1:]} == {key(o) for o in objects() if not is_hook(o)}
    assert "Helm" not in {
        (o["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") for o in found
    }
