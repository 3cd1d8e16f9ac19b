"""The field reference, ``docs/reference/modeldeployment.md``, made from the types and rules."""

from collections.abc import Iterator
from typing import Any, Final

from tidegate.api import crd, names
from tidegate.api.formats import FORMATS
from tidegate.api.rules import RULES
from tidegate.api.rules.source import SCHEMES

HEAD: Final = f"""\
<!-- Generated from operator/tidegate/api by `make generate`. Do not edit. -->
# ModelDeployment

`apiVersion: {names.API_VERSION}`, `kind: {names.KIND}`, short name `{names.SHORT_NAME}`, category
`{names.CATEGORY}`, namespaced, with `/status` and `/scale`. Examples: [docs/examples](../examples).

Everything but `model.source.uri` has a safe default. The API server fills the defaults in, refuses
what cannot work and says how to mend it. A field that this version of Tidegate accepts and does not
act on yet is named in `status.inactive`. What the API server cannot know (whether a file exists,
what stands in an override, whether a node has such a GPU) becomes a condition in status.

Apply manifests with `kubectl apply --server-side`: the copy that client-side apply keeps in an
annotation ends at 262,144 bytes. `kubectl` refuses unknown fields; a client that sends no
`fieldValidation=Strict` gets a warning instead. In YAML, `Off` without quotes is the boolean false,
and `0.99` a number: write `"Off"`, `"0.99"`, `"1%"`.

**Fixed for life:** `model.name`, since clients ask for it (with none set, that is `metadata.name`).
All else may be changed; what shapes the pods becomes a new revision.

A default in [brackets] in a description is not filled in: the field stays absent and the operator
takes that value when it needs one.
"""

STATUS_HEAD: Final = """\
## status

Written by the operator. Conditions have kstatus semantics: `Ready` is False early, `Reconciling`
and `Stalled` are true while something is under way or stuck.
"""


def _cell(text: str) -> str:
    """Text that a table can hold."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _kind(node: crd.Schema) -> str:
    """What a value of a node looks like, in a few words."""
    if "enum" in node:
        return " \\| ".join(f"`{v}`" for v in node["enum"])
    name = _format_name(node)
    if "anyOf" in node:
        return f"{name} or number"
    match node.get("type"):
        case "integer" if "minimum" in node and "maximum" in node:
            return f"integer, {node['minimum']:,} to {node['maximum']:,}"
        case "string":
            longest = node.get("maxLength")
            if name and longest and longest > 128:
                return f"{name}, at most {longest:,} characters"
            return name or (f"text, at most {longest:,} characters" if longest else "text")
        case "array":
            unique = ", each once" if node.get("x-kubernetes-list-type") == "set" else ""
            bound = f" of at most {node['maxItems']:,}" if "maxItems" in node else ""
            return f"list{bound}: {_kind(node['items'])}{unique}"
        case "object" if "additionalProperties" in node:
            bound = f" of at most {node['maxProperties']:,}" if "maxProperties" in node else ""
            return f"map{bound}: {_kind(node['additionalProperties'])}"
        case "object":
            return "block"
        case other:
            return str(other)


def _format_name(node: crd.Schema) -> str:
    rules = [v["rule"] for v in node.get("x-kubernetes-validations", ())]
    for pattern, text in FORMATS.items():
        if any(crd.format_rule(pattern, either)["rule"] in rules for either in (False, True)):
            return text.name.split(" ", 1)[1]
    return ""


def _default(name: str, node: crd.Schema, required: list[str]) -> str:
    if name in required:
        return "**required**"
    default = node.get("default")
    if isinstance(default, dict) or default is None:
        return ""
    if isinstance(default, list):
        return ", ".join(f"`{item['weight']}`" for item in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _blocks(path: str, node: crd.Schema) -> Iterator[tuple[str, crd.Schema]]:
    """A block and the blocks below it, each with its path."""
    yield path, node
    for name, inner in node["properties"].items():
        below, suffix = inner, ""
        if inner.get("type") == "array":
            below, suffix = inner["items"], "[]"
        if "properties" in below:
            yield from _blocks(f"{path}.{name}{suffix}", below)


def _table(path: str, node: crd.Schema) -> list[str]:
    required = node.get("required", [])
    lines = [f"### `{path}`", "", "| field | value | default | |", "| --- | --- | --- | --- |"]
    for name, inner in node["properties"].items():
        text = _cell(inner.get("description", ""))
        cells = (f"`{name}`", _kind(inner), _default(name, inner, required), text)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _example(message: str) -> str:
    """A message with an ellipsis for each value in it."""
    return _cell("…".join(crd.literal_parts(message)))


def _formats(schema: dict[str, Any]) -> list[str]:
    used = {_format_name(node) for _, node in _leaves(schema)}
    lines = ["## Formats", "", "| a … | is written |", "| --- | --- |"]
    lines += [
        f"| {name} | {_cell(text.mend)} |"
        for text in FORMATS.values()
        if (name := text.name.split(" ", 1)[1]) in used
    ]
    return [*dict.fromkeys(lines), ""]


def _leaves(node: crd.Schema) -> Iterator[tuple[str, crd.Schema]]:
    for name, inner in node.get("properties", {}).items():
        yield name, inner
        yield from _leaves(inner)
    for below in ("items", "additionalProperties"):
        if isinstance(inner := node.get(below), dict):
            yield below, inner
            yield from _leaves(inner)


def markdown() -> str:
    """The page."""
    root = crd.schema()["properties"]
    lines = [HEAD]
    for path, node in _blocks("spec", root["spec"]):
        lines += _table(path, node)
    lines += _formats(root["spec"])
    lines += ["## Where a model comes from", "", "| scheme | `model.source.uri` |", "| --- | --- |"]
    lines += [f"| `{scheme}` | {example} |" for scheme, (_, example) in SCHEMES.items()]
    lines += [
        "",
        "## What is refused",
        "",
        "Beside what the tables say. The API server puts the field before the message and the "
        "value where … stands.",
        "",
        "| at | message |",
        "| --- | --- |",
    ]
    lines += [
        f"| `{(rule.at + rule.field).lstrip('.')}` | {_example(rule.message)} |" for rule in RULES
    ]
    lines += ["", STATUS_HEAD]
    for path, node in _blocks("status", root["status"]):
        lines += _table(path, node)
    lines += [
        "## Columns",
        "",
        "`kubectl get mdep`; those below the line by `-o wide`.",
        "",
        "| column | |",
        "| --- | --- |",
    ]
    columns = [c for c in crd.PRINTER_COLUMNS if "priority" not in c]
    wide = [c for c in crd.PRINTER_COLUMNS if "priority" in c]
    lines += [f"| {c['name']} | {c.get('description', '')} |" for c in columns]
    lines += ["| | |"]
    lines += [f"| {c['name']} | {c['description']} |" for c in wide]
    return "\n".join(lines).rstrip() + "\n"
