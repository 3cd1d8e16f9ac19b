"""Writes what follows from the chart: the table of its values, and `install.yaml`.

`python -m helm.generate` writes; with `--check` it says what is out of date and ends with 1.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from helm.chart import CHART, NAMESPACE, documents, is_hook, render

ROOT: Final = Path(__file__).parent.parent
INSTALL: Final = ROOT / "install.yaml"
REFERENCE: Final = ROOT / "docs" / "reference" / "helm-values.md"
README: Final = CHART / "README.md"
MARKER: Final = "# --"

ORDER: Final = (
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ConfigMap",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Deployment",
)
"""Kinds in the order in which they are applied: what others need comes first."""

HELM_LINES: Final = (
    "app.kubernetes.io/managed-by: Helm",
    "helm.sh/chart: ",
)
"""Lines that are true of a Helm release only."""


class UndocumentedValueError(ValueError):
    """A value without a comment."""


@dataclass(frozen=True)
class Value:
    """One documented value: its dotted name, its type, its default as JSON, what it means."""

    name: str
    type: str
    default: str
    description: str


def read_values(text: str, schema: Mapping[str, Any]) -> list[Value]:
    """The documented values of a values.yaml, in its order.

    A value is documented by the comment lines right above it, the first of which starts with
    ``# --``; a block without such a comment is looked into.

    Raises:
        UndocumentedValueError: a value that is no block has no such comment.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_values(root, (), text.splitlines(), schema, schema))


def _values(
    block: yaml.MappingNode,
    path: tuple[str, ...],
    lines: list[str],
    schema: Mapping[str, Any],
    whole: Mapping[str, Any],
) -> Iterator[Value]:
    for key, node in block.value:
        name = (*path, str(key.value))
        part = _resolve(schema["properties"][key.value], whole)
        description = _comment(lines, key.start_mark.line)
        if description is not None:
            default = yaml.safe_load(yaml.serialize(node))
            yield Value(".".join(name), _type(part), json.dumps(default), description)
        elif isinstance(node, yaml.MappingNode) and node.value:
            yield from _values(node, name, lines, part, whole)
        else:
            raise UndocumentedValueError(
                f"{'.'.join(name)} in values.yaml has no comment that starts with `{MARKER}`"
            )


def _comment(lines: list[str], line: int) -> str | None:
    """The text of the comment above a line (counted from 0), if it documents a value."""
    words: list[str] = []
    for above in reversed(lines[:line]):
        text = above.strip()
        if text.startswith(MARKER):
            return " ".join([text.removeprefix(MARKER).strip(), *words])
        if not text.startswith("#"):
            return None
        words.insert(0, text.removeprefix("#").strip())
    return None


def _resolve(part: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = part.get("$ref")
    if reference is None:
        return part
    return whole["definitions"][reference.removeprefix("#/definitions/")]  # type: ignore[no-any-return]


def _type(part: Mapping[str, Any]) -> str:
    return "string" if "enum" in part else str(part["type"])


def table(values: list[Value]) -> str:
    """A Markdown table of values."""
    rows = [
        f"| `{v.name}` | {v.type} | `{v.default}` | {v.description.replace('|', chr(92) + '|')} |"
        for v in values
    ]
    head = ["| value | type | default | what it does |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])


def _documented() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return table(read_values((CHART / "values.yaml").read_text(encoding="utf-8"), schema))


def readme() -> str:
    """The chart's README."""
    return f"""# The chart `tidegate`

Installs the operator, the custom resource `ModelDeployment` and its admission policy. Needs
Kubernetes 1.30 or later.

```console
$ helm install tidegate helm/tidegate --namespace tidegate-system --create-namespace
$ helm test tidegate --namespace tidegate-system
```

An upgrade or a rollback of the chart restarts the operator and never a model. `helm uninstall`
leaves the custom resource definition, and with it every model, serving (`crds.keep`).

## Values

Unknown names and values that contradict each other are refused, with a message that says what to
set instead. The table is made from the comments in `values.yaml` (`make generate`).

{_documented()}
"""


def reference() -> str:
    """The page of the documentation."""
    return f"""# Values of the Helm chart

Made from the comments in `helm/tidegate/values.yaml` by `make generate`; unknown names are
refused. How to use them: [Install on your own cluster](../guide/install.md).

{_documented()}
"""


def install() -> str:
    """The chart with its default values as one file for `kubectl apply --server-side`."""
    namespace = f"""apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    app.kubernetes.io/part-of: tidegate
    pod-security.kubernetes.io/enforce: restricted
"""
    parts = [(yaml.safe_load(namespace), namespace)]
    parts += [(d, t) for d, t in documents(render()) if not is_hook(d)]
    parts.sort(key=lambda part: (ORDER.index(part[0]["kind"]), part[0]["metadata"]["name"]))
    texts = ["\n".join(line for line in t.splitlines() if not _of_helm(line)) for _, t in parts]
    head = (
        "# Tidegate with the default values of its chart; made by `make generate`.\n"
        "# kubectl apply --server-side -f install.yaml\n"
    )
    return head + "".join(f"---\n{text}\n" for text in texts)


def _of_helm(line: str) -> bool:
    return line.strip().startswith(HELM_LINES)


def outputs() -> dict[Path, str]:
    """Each generated file and what it should hold."""
    return {README: readme(), REFERENCE: reference(), INSTALL: install()}


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(prog="python -m helm.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args(arguments).check
    stale = [
        (path, text)
        for path, text in outputs().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
