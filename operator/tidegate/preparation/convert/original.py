"""A trained model as its own framework knows it."""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tidegate.preparation.session import Arrays

INPUT: Final = "input"
"""The one input of models that take a matrix."""
LABEL: Final = "label"
PROBABILITIES: Final = "probabilities"
VARIABLE: Final = "variable"
"""Outputs, as the exporters of classifiers and regressors name them."""


@dataclass(frozen=True)
class Original:
    """A loaded model.

    Attributes:
        framework: its name.
        versions: of the packages that load and export it.
        export: gives the ONNX model (`onnx.ModelProto`) for an opset.
        predict: the original's own answers to the samples it was opened with, by the names that
            the exported outputs have.
    """

    framework: str
    versions: Mapping[str, str]
    export: Callable[[int], Any]
    predict: Callable[[], Arrays]


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, by package."""
    return {name: importlib.metadata.version(name) for name in packages}
