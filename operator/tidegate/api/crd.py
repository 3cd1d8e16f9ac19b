"""The CustomResourceDefinition, made from the types and the rules.

Pure: the same types give the same document. The schema is structural (no references, no nulls,
closed objects), carries the defaults of the types, and says what is wrong with a value in words
(`tidegate.api.rules`) instead of by a regular expression.
"""

import re
from typing import Any, Final

from pydantic import BaseModel

from tidegate.api import names
from tidegate.api.cel import Rule, cel_string
from tidegate.api.formats import FORMATS, Shown
from tidegate.api.rules import RULES
from tidegate.api.spec import Spec
from tidegate.api.status import Status

Schema = dict[str, Any]

MAX_BYTES: Final = 100 * 1024
"""Of the CRD as YAML: client-side apply keeps a copy in an annotation of at most 262,144 bytes,
and every API server holds the schema in memory."""

_KEPT: Final = (
    "description",
    "type",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-int-or-string",
)

_PLACEHOLDER: Final = re.compile(r"\{((?:[^{}]|\{[^{}]*\})*)\}")
"""CEL between braces, which may hold one level of braces itself (a regular expression's)."""

PRINTER_COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "READY",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
        "description": "Whether the spec's revision is live.",
    },
    {
        "name": "STABLE",
        "type": "string",
        "jsonPath": ".status.revisions.stable.hash",
        "description": "The revision that serves.",
    },
    {
        "name": "CANARY",
        "type": "string",
        "jsonPath": ".status.revisions.canary.hash",
        "description": "The revision that is being tried.",
    },
    {
        "name": "WEIGHT",
        "type": "string",
        "jsonPath": ".status.rollout.weight",
        "description": "The canary's share of the traffic.",
    },
    {
        "name": "REPLICAS",
        "type": "integer",
        "jsonPath": ".status.replicas",
        "description": "Pods of all revisions.",
    },
    {
        "name": "P99/SLO",
        "type": "string",
        "jsonPath": ".status.slo.latency",
        "description": "Measured latency at the SLO's quantile / target.",
    },
    {
        "name": "ERRORS/SLO",
        "type": "string",
        "jsonPath": ".status.slo.errorRate",
        "description": "Measured share of errors / limit.",
    },
    {"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    *(
        {"name": name, "type": kind, "jsonPath": path, "description": text, "priority": 1}
        for name, kind, path, text in (
            (
                "REASON",
                "string",
                '.status.conditions[?(@.type=="Ready")].reason',
                "Why it is ready or not.",
            ),
            ("PHASE", "string", ".status.rollout.phase", "Where the rollout stands."),
            ("DESIRED", "integer", ".status.scaling.desired", "Replicas wanted."),
            ("PODS READY", "integer", ".status.readyReplicas", "Pods that serve."),
            ("SOURCE", "string", ".spec.model.source.uri", "Where the model comes from."),
            ("URL", "string", ".status.url", "Where it answers."),
        )
    ),
)


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    """The schema with references replaced by what they refer to, and null branches left out."""
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return _inline({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    if "anyOf" in node:
        branches = [b for b in node["anyOf"] if b != {"type": "null"}]
        if len(branches) != 1:
            raise TypeError(f"a field of several types has no structural schema: {node}")
        rest = {k: v for k, v in node.items() if k != "anyOf"}
        return _inline({**branches[0], **rest}, definitions)
    return {
        # Names of properties are not keywords.
        k: {n: _inline(p, definitions) for n, p in v.items()}
        if k == "properties"
        else _inline(v, definitions)
        for k, v in node.items()
        if k != "$defs"
    }


def _structural(node: Schema, defaults: bool) -> Schema:
    """One node of pydantic's schema in the form that the API server asks for."""
    out: Schema = {k: node[k] for k in _KEPT if k in node}
    pattern = node.get("pattern")
    if node.get("x-kubernetes-int-or-string"):
        # No type: the pair of branches is the form that the API server knows.
        del out["type"]
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if pattern is not None:
        out["x-kubernetes-validations"] = [format_rule(pattern, "anyOf" in out)]
    if "properties" in node:
        out["properties"] = {
            k: _with_default(_structural(v, defaults), v) if defaults else _structural(v, defaults)
            for k, v in node["properties"].items()
        }
        if node.get("required"):
            out["required"] = sorted(node["required"])
    elif isinstance(values := node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(values, defaults)
    elif "patternProperties" in node:
        # A pattern of keys has no structural form; `rules` says it in CEL.
        (values,) = node["patternProperties"].values()
        out["additionalProperties"] = _structural(values, defaults)
    if "items" in node:
        out["items"] = _structural(node["items"], defaults)
        out.setdefault("x-kubernetes-list-type", "atomic")
    return out


def _with_default(out: Schema, node: Schema) -> Schema:
    """A property with its default.

    A block whose fields all have one appears by itself. Its default is written out in full, since
    the API server checks a default against the block's rules before it fills in the fields' own.
    """
    default = node.get("default")
    if "default" not in node and "required" not in out:
        fields = out.get("properties", {}).items()
        default = {name: field["default"] for name, field in fields if "default" in field}
    return out if default in (None, [], {}, "") else {**out, "default": default}


def format_rule(pattern: str, int_or_string: bool) -> Schema:
    """The rule that says a pattern in words (`tidegate.api.formats.FORMATS`)."""
    text = FORMATS[pattern]
    value = "string(self)" if int_or_string else "self"
    rule: Schema = {"rule": f"{value}.matches({cel_string(pattern)})"}
    said = f"is not {text.name}; {text.mend}"
    if text.shown is Shown.NEVER:
        return {**rule, "message": f"this {said}"}
    shown = f"strings.quote({value})"
    if text.shown is Shown.WITHOUT_USER:
        shown = f"self.contains('@') ? 'this' : {shown}"
    return {**rule, "messageExpression": message_expression(f"{{{shown}}} {said}")}


def message_expression(message: str) -> str:
    """CEL that says the message, with what stands in ``{...}`` put in.

    By ``format``, since the API server bounds its cost where it cannot bound that of joining
    texts to numbers.
    """
    values = _PLACEHOLDER.findall(message)
    text = _PLACEHOLDER.sub("%s", message.replace("%", "%%"))
    return f"{cel_string(text)}.format([{', '.join(values)}])"


def literal_parts(message: str) -> list[str]:
    """A message without the values in it."""
    return _PLACEHOLDER.sub("\0", message).split("\0")


def _validation(rule: Rule) -> Schema:
    out: Schema = {"rule": rule.rule}
    if "{" in rule.message:
        out["messageExpression"] = message_expression(rule.message)
    else:
        out["message"] = rule.message
    if rule.field:
        out["fieldPath"] = rule.field
    return out


def node_at(schema: Schema, path: str) -> Schema:
    """The node of a schema at a path such as ``spec.rollout.steps[].weight``.

    Raises:
        KeyError: there is no such node.
    """
    for part in path.replace("[]", ".[]").replace("{}", ".{}").split(".") if path else ():
        if part == "[]":
            schema = schema["items"]
        elif part == "{}":
            schema = schema["additionalProperties"]
        else:
            schema = schema["properties"][part]
    return schema


def block_schema(model: type[BaseModel], *, defaults: bool) -> Schema:
    """The structural schema of a block; rules of the formats included, `RULES` not yet."""
    raw = model.model_json_schema(by_alias=True)
    node: Schema = _inline(raw, raw.get("$defs", {}))
    return _structural(node, defaults)


UNSEEN: Final = {"observedGeneration": 0}
"""The status of an object that the operator has not looked at yet."""


def schema() -> Schema:
    """The OpenAPI schema of a ModelDeployment, with all its rules."""
    spec = block_schema(Spec, defaults=True)
    root: Schema = {
        "description": "A model that Tidegate ships to Triton, one version after another.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # Named here so that a rule can point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec,
            # What kstatus takes for "in progress": without it, an object that nobody has looked
            # at yet counts as current, so Flux and Helm would go on. The API server puts it in
            # whenever it reads one.
            "status": block_schema(Status, defaults=False) | {"default": UNSEEN},
        },
    }
    for rule in RULES:
        node_at(root, rule.at).setdefault("x-kubernetes-validations", []).append(_validation(rule))
    return root


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition as the API server takes it."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": list(PRINTER_COLUMNS),
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": schema()},
                }
            ],
        },
    }
