"""The chart, rendered without a cluster: for its tests, and for `install.yaml`.

Helm comes as a library (PyPI `helm-python-sdk`, Helm's own code in a wheel), so that neither the
fast tests nor a change of the chart need a Go toolchain or a `helm` on the machine. The
end-to-end tests install the chart with a real `helm`.
"""

import pickle
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import helm_python
import yaml

CHART: Final = Path(__file__).parent / "tidegate"
RELEASE: Final = "tidegate"
NAMESPACE: Final = "tidegate-system"
HOOK_ANNOTATION: Final = "helm.sh/hook"
NOTES: Final = "NOTES.txt"
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, in C where PyYAML has it: the custom resource definition is large."""


class ChartError(ValueError):
    """The chart refuses these values; the text is what a user of `helm` reads."""


def render(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    chart: Path = CHART,
) -> dict[str, str]:
    """The text that each template becomes, by the template's file name (NOTES.txt too).

    Raises:
        ChartError: the schema or a template refuses the values.
    """
    with helm_python.Chart.load(chart) as loaded:
        try:
            rendered = loaded.render(dict(values or {}), name=release, namespace=namespace)
        except helm_python.HelmError as error:
            raise ChartError(_plain(str(error))) from error
    return {Path(path).name: text for path, text in sorted(rendered.items())}


def documents(rendered: Mapping[str, str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each object of a rendered chart, with the text it came from (comments included)."""
    for name, text in rendered.items():
        if name == NOTES:
            continue
        for part in re.split(r"^---[ \t]*$", text, flags=re.MULTILINE):
            document = pickle.loads(_parsed(part))
            if document is not None:
                yield document, part.strip("\n") + "\n"


@lru_cache(maxsize=512)
def _parsed(text: str) -> bytes:
    """A document, pickled: most are the same whatever the values, and each caller wants its own."""
    return pickle.dumps(yaml.load(text, Loader=LOADER))


def objects(values: Mapping[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    """The objects of the chart with these values, hooks included; options as for `render`."""
    return [document for document, _ in documents(render(values, **options))]


def is_hook(document: Mapping[str, Any]) -> bool:
    """Whether an object exists only while Helm runs a hook, such as `helm test`."""
    return HOOK_ANNOTATION in (document["metadata"].get("annotations") or {})


def _plain(message: str) -> str:
    """The message of a `fail` in a template without the path to it."""
    found = re.search(r"execution error at \([^)]*\): (.*)$", message, flags=re.DOTALL)
    return found.group(1).strip() if found else message.strip()
