"""The CRD: what the API server and its rules need of a schema, and what a reader does."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from helm.chart import LOADER
from tidegate.api import cel, crd, formats, generate, names, reference, rules
from tidegate.api.spec import Spec, parse

SCHEMA = crd.schema()
SPEC = SCHEMA["properties"]["spec"]


def nodes(node: crd.Schema, path: str) -> Iterator[tuple[str, crd.Schema]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


ALL = dict(nodes(SPEC, "spec"))
EVERYWHERE = {**ALL, **dict(nodes(SCHEMA["properties"]["status"], "status"))}


@functools.cache
def made() -> dict[str, str]:
    return generate.files()


def test_all_copies_are_what_the_types_say() -> None:
    assert generate.stale(contents=made()) == [], "run `make generate`"


def test_a_stale_copy_is_noticed_and_mended(tmp_path: Any) -> None:
    assert set(generate.stale(tmp_path, made())) == set(made())
    assert set(generate.write(tmp_path, made())) == set(made())
    assert generate.stale(tmp_path, made()) == []
    copy = tmp_path / "crds/modeldeployments.yaml"
    copy.write_text(copy.read_text().replace("maxItems: 20", "maxItems: 21"))
    assert generate.stale(tmp_path, made()) == ["crds/modeldeployments.yaml"]


def test_the_chart_copy_is_the_same_crd() -> None:
    """Helm's lines taken away, nothing but the chart's labels and the keep annotation is new."""
    lines = [x for x in generate.chart_crd().splitlines() if "{{" not in x]
    document = yaml.load("\n".join(lines), Loader=LOADER)
    assert document["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    document["metadata"].pop("labels", None)
    assert document == crd.crd()


def test_it_is_small() -> None:
    assert len(generate.to_yaml(crd.crd()).encode()) <= crd.MAX_BYTES


def test_names() -> None:
    spec = crd.crd()["spec"]
    assert spec["names"] == {
        "kind": "ModelDeployment",
        "listKind": "ModelDeploymentList",
        "plural": "modeldeployments",
        "singular": "modeldeployment",
        "shortNames": ["mdep"],
        "categories": ["tidegate"],
    }
    assert crd.crd()["metadata"]["name"] == f"{names.PLURAL}.{names.GROUP}"


@pytest.mark.parametrize("path", EVERYWHERE)
def test_nodes_are_structural(path: str) -> None:
    node = EVERYWHERE[path]
    assert not {"$ref", "allOf", "oneOf", "title", "$defs", "propertyNames"} & node.keys()
    assert ("type" in node) != ("anyOf" in node)
    assert ("anyOf" in node) == ("x-kubernetes-int-or-string" in node)
    if "default" in node:
        assert node["default"] not in (None, [], {})


@pytest.mark.parametrize("path", ALL)
def test_what_rules_read_is_bounded(path: str) -> None:
    node = ALL[path]
    match node.get("type", "string"):
        case "array":
            assert node["maxItems"] <= 64
            assert node["x-kubernetes-list-type"] in ("atomic", "set", "map")
        case "object":
            assert "properties" in node or node["maxProperties"] <= 16
        case "string":
            assert "enum" in node or node["maxLength"] <= 65536
        case "integer":
            assert {"minimum", "maximum"} <= node.keys()


@pytest.mark.parametrize("path", [p for p in EVERYWHERE if not p.endswith(("]", "}"))])
def test_every_field_says_what_it_is(path: str) -> None:
    assert EVERYWHERE[path].get("description"), path


def test_no_pattern_answers_with_a_regular_expression() -> None:
    assert [path for path, node in ALL.items() if "pattern" in node] == []
    used = {r["rule"] for node in ALL.values() for r in node.get("x-kubernetes-validations", ())}
    for pattern in formats.FORMATS:
        written = {crd.format_rule(pattern, either)["rule"] for either in (False, True)}
        of_keys = cel.cel_string(pattern)
        assert written & used or any(of_keys in rule for rule in used), pattern


def test_defaults_are_those_of_the_types() -> None:
    """Whatever the schema fills in, the types would have taken by themselves."""
    least = {"model": {"source": {"uri": "s3://a/b"}}}
    assert parse(filled(SPEC, least)) == parse(least)
    assert filled(SPEC, least)["rollout"]["mirror"]["minRequests"] == 200


def filled(node: crd.Schema, value: Any) -> Any:
    """Defaults as the API server puts them in: the whole default, then those within."""
    if isinstance(value, list):
        return [filled(node["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in node:
        return value
    value = dict(value)
    for name, inner in node["properties"].items():
        if name not in value and "default" in inner:
            value[name] = inner["default"]
        if name in value:
            value[name] = filled(inner, value[name])
    return value


def test_every_field_of_the_types_is_there() -> None:
    aliases = {f.alias or name for name, f in Spec.model_fields.items()}
    assert SPEC["properties"].keys() == aliases
    assert SPEC["required"] == ["model"]
    assert ALL["spec.model"]["required"] == ["source"]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda r: f"{r.at}: {r.message[:40]}")
class TestRules:
    def test_it_stands_at_a_node_and_blames_a_field(self, rule: cel.Rule) -> None:
        at = crd.node_at(SCHEMA, rule.at)
        assert crd.node_at(at, rule.field.lstrip("."))
        written = at["x-kubernetes-validations"]
        assert rule.rule in [r["rule"] for r in written]

    def test_its_message_names_the_mend(self, rule: cel.Rule) -> None:
        said = "".join(crd.literal_parts(rule.message))
        assert ";" in said, "what is wrong; what to do"
        mend = said.split(";", 1)[1]
        assert re.search(
            r"\b(write|use|leave|lower|raise|set|name|turn|put|begin|sort|ask|make|pick|round"
            r"|percent-encode|give)\b",
            mend,
        ), mend
        assert not said.endswith(".")
        assert "\n" not in said, "the API server drops a message of several lines"

    def test_it_never_reads_what_may_be_absent(self, rule: cel.Rule) -> None:
        """A field without a default is asked for with has() first."""
        at = crd.node_at(SCHEMA, rule.at)
        for path in set(re.findall(r"(?<!has\()\bself((?:\.[a-zA-Z]\w*)+)(?!\w*\()", rule.rule)):
            node, walked = at, "self"
            for part in path.strip(".").split("."):
                inner = node.get("properties", {}).get(part)
                if inner is None:
                    break
                walked += f".{part}"
                given = part in node.get("required", ()) or walked.startswith("self.metadata")
                if "default" not in inner and not given:
                    assert f"has({walked})" in rule.rule, f"{walked} in {rule.rule}"
                node = inner


@pytest.mark.parametrize("pattern", formats.FORMATS)
def test_format_messages_name_value_and_mend(pattern: str) -> None:
    text = formats.FORMATS[pattern]
    rule = crd.format_rule(pattern, False)
    if text.shown is formats.Shown.NEVER:
        assert rule["message"] == f"this is not {text.name}; {text.mend}"
    else:
        assert "strings.quote(self)" in rule["messageExpression"]
        assert text.mend.split(",")[0].replace("%", "%%") in rule["messageExpression"]
        hidden = "contains('@')" in rule["messageExpression"]
        assert hidden == (text.shown is formats.Shown.WITHOUT_USER)


@pytest.mark.parametrize(
    ("message", "expression"),
    [
        ("plain", "'plain'.format([])"),
        ("{self} is 5% of it", "'%s is 5%% of it'.format([self])"),
        ("{a} and {b}", "'%s and %s'.format([a, b])"),
        ("{self.filter(k, k.matches('^a{1,3}$'))[0]}!", None),
        ("it's {self}", '"it\'s %s".format([self])'),
    ],
)
def test_message_expression(message: str, expression: str | None) -> None:
    if expression is None:
        expression = "'%s!'.format([self.filter(k, k.matches('^a{1,3}$'))[0]])"
    assert crd.message_expression(message) == expression


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("a", "'a'"),
        (r"\d", r"r'\d'"),
        ("it's", '''"it's"'''),
        (r"it's \d", '''r"it's \\d"'''),
        ("""'"'""", r"""'\'"\''"""),
        ("""\\'" """, """'\\\\\\'" '"""),
    ],
)
def test_cel_string(text: str, literal: str) -> None:
    assert cel.cel_string(text) == literal


def test_the_reference_names_every_field_and_message() -> None:
    page = reference.markdown()
    for path, node in EVERYWHERE.items():
        if "properties" in node:
            assert f"### `{path}`" in page
            for name in node["properties"]:
                assert f"| `{name}` |" in page
    for rule in rules.RULES:
        longest = max(crd.literal_parts(rule.message), key=len)
        assert longest.strip().replace("<", "&lt;") in page
