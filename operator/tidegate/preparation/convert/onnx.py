"""A model that is ONNX already: nothing is converted, the same is checked."""

from pathlib import Path

from tidegate.preparation.convert.original import Original, versions
from tidegate.preparation.samples import Samples
from tidegate.preparation.session import read, run


def load(path: Path, samples: Samples) -> Original:
    """Load a model.

    Raises:
        PreparationError: it is no ONNX model.
    """
    model = read(path)
    return Original(
        "ONNX", versions("onnx", "onnxruntime"), lambda opset: model, lambda: run(path, samples)
    )
