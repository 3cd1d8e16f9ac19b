"""Writes what is made from the types: the CRD and its copies, the admission policies, the docs.

``python -m tidegate.api.generate`` writes; with ``--check`` it only tells what is out of date
(exit status 1). A test does the same. The references of the command line and of the metrics are
written alike, by `tidegate.cli.reference` and `tidegate.runtime.reference`.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tidegate.api import admission, crd, names, reference

ROOT: Final = Path(__file__).resolve().parents[3]
"""The repository, where the module runs from a checkout."""

HEADER: Final = "# Generated from operator/tidegate/api by `make generate`. Do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Never writes anchors; rules and plain fields on one line: half of the CRD was indentation."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(
        self, tag: str, mapping: Any, flow_style: bool | None = None
    ) -> yaml.MappingNode:
        on_one_line = "rule" in mapping or _is_plain_field(mapping)
        return super().represent_mapping(tag, mapping, on_one_line or flow_style)


def _is_plain_field(mapping: Any) -> bool:
    """Whether this is the schema of a field with no fields, items or rules of its own."""
    return isinstance(mapping.get("type"), str) and all(
        not isinstance(value, dict | list) or key == "enum" for key, value in mapping.items()
    )


def to_yaml(document: dict[str, Any]) -> str:
    """A document as YAML: keys in their order, a line for each text."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True)


def chart_crd() -> str:
    """The CRD as a chart template: under ``templates``, since Helm never upgrades ``crds``."""
    text = to_yaml(crd.crd())
    if "{{" in text:
        raise ValueError("the CRD holds '{{', which Helm would read as a template")
    head, rest = text.split("metadata:\n", 1)
    keep = (
        "metadata:\n"
        "  labels:\n"
        '    {{- include "tidegate.labels" . | nindent 4 }}\n'
        "  {{- if .Values.crds.keep }}\n"
        "  annotations:\n"
        "    helm.sh/resource-policy: keep\n"
        "  {{- end }}\n"
    )
    return f"{{{{- if .Values.crds.enabled }}}}\n{HEADER}{head}{keep}{rest}{{{{- end }}}}\n"


def chart_admission() -> str:
    """The admission policies as a chart template; lists and namespaces come from its values."""
    fullname = "TIDEGATE-FULLNAME"
    parts = []
    for document in admission.objects(fullname, watch_namespaces=("TIDEGATE-WATCHED",)):
        document["metadata"]["labels"] = "TIDEGATE-LABELS"
        text = to_yaml(document)
        if "{{" in text:
            raise ValueError("a policy holds '{{', which Helm would read as a template")
        parts.append(text)
    text = "---\n".join(parts)
    for key in admission.LISTS:
        entries = f"{{{{ toJson .Values.admission.{key} | quote }}}}"
        empty = f"- name: {key}\n    expression: '{admission.literal(())}'\n"
        if empty not in text:
            raise ValueError(f"the policy has no list {key} to fill in")
        text = text.replace(empty, f"- name: {key}\n    expression: {entries}\n")
    text = re.sub(
        r"  matchResources:\n(.*\n)*?.*- TIDEGATE-WATCHED\n",
        "  {{- with .Values.watchNamespaces }}\n"
        "  matchResources:\n"
        "    namespaceSelector:\n"
        "      matchExpressions:\n"
        "      - key: kubernetes.io/metadata.name\n"
        "        operator: In\n"
        "        values: {{ toJson . }}\n"
        "  {{- end }}\n",
        text,
    )
    text = text.replace(
        "labels: TIDEGATE-LABELS", 'labels:\n    {{- include "tidegate.labels" . | nindent 4 }}'
    )
    text = text.replace(fullname, '{{ include "tidegate.fullname" . }}')
    return f"{{{{- if .Values.admission.enabled }}}}\n{HEADER}{text}{{{{- end }}}}\n"


def files() -> dict[str, str]:
    """Path in the repository -> content, of everything that is generated."""
    return {
        f"crds/{names.PLURAL}.yaml": HEADER + to_yaml(crd.crd()),
        "helm/tidegate/templates/crd.yaml": chart_crd(),
        "helm/tidegate/templates/admission.yaml": chart_admission(),
        "docs/reference/modeldeployment.md": reference.markdown(),
    }


def stale(root: Path = ROOT, contents: Mapping[str, str] | None = None) -> list[str]:
    """Paths whose content is not as it should be.

    Args:
        root: of the repository.
        contents: path in it -> content; `files` where not given.
    """
    return [
        path
        for path, content in (files() if contents is None else contents).items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != content
    ]


def write(root: Path = ROOT, contents: Mapping[str, str] | None = None) -> list[str]:
    """Write what is stale, and tell which paths that were; arguments as above."""
    contents = files() if contents is None else contents
    written = stale(root, contents)
    for path in written:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(contents[path], encoding="utf-8")
    return written


def main(arguments: Sequence[str] | None = None, contents: Mapping[str, str] | None = None) -> int:
    """The command; ``contents`` as above."""
    parser = argparse.ArgumentParser(description="Writes generated files.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    if parser.parse_args(arguments).check:
        for path in (found := stale(contents=contents)):
            print(f"{path} is out of date: run `make generate`", file=sys.stderr)
        return 1 if found else 0
    for path in write(contents=contents):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
