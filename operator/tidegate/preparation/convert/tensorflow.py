"""TensorFlow SavedModels (folders) and Keras models (``.keras``, ``.h5``), by tf2onnx."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.preparation.convert.original import Original, versions
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.samples import Samples
from tidegate.preparation.session import Arrays


def load(path: Path, samples: Samples) -> Original:
    """Load a model by its serving signature; a Keras model is exported to have one.

    Raises:
        PreparationError: it has none, or TensorFlow is not installed.
    """
    try:
        import tensorflow
        import tf2onnx.convert
    except ImportError:
        raise PreparationError(
            "TensorFlow is not installed here: install tidegate[preparation-frameworks]"
        ) from None
    try:
        loaded = _loaded(tensorflow, path)
        signature = loaded.signatures["serving_default"]
    except KeyError:
        raise PreparationError(
            f"{path} has no signature serving_default: save it with model.export(folder)"
        ) from None
    except Exception as problem:
        raise PreparationError(f"{path} cannot be loaded: {one_line(problem)}") from problem
    specs = signature.structured_input_signature[1]
    given = dict(samples.inputs)
    if len(specs) == 1 and len(given) == 1:
        given = {next(iter(specs)): next(iter(given.values()))}
    if missing := [name for name in specs if name not in given]:
        raise PreparationError(
            f"input {missing[0]} is missing in the samples, which have {', '.join(given)}"
        )

    def export(opset: int, _owner: Any = loaded) -> Any:  # the variables live while it does
        wanted = [
            tensorflow.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()
        ]
        function = tensorflow.function(
            lambda *args: signature(**dict(zip(specs, args, strict=True))), input_signature=wanted
        )
        model, _ = tf2onnx.convert.from_function(function, input_signature=wanted, opset=opset)
        return model

    def predict() -> Arrays:
        parts = []
        for begin in range(0, len(samples), 64):
            batch = {
                name: tensorflow.constant(given[name][begin : begin + 64], dtype=spec.dtype)
                for name, spec in specs.items()
            }
            parts.append(signature(**batch))
        return {name: np.concatenate([p[name].numpy() for p in parts]) for name in parts[0]}

    return Original(
        "TensorFlow",
        {**versions("tf2onnx", "onnx"), "tensorflow": tensorflow.__version__},
        export,
        predict,
    )


def _loaded(tensorflow: Any, path: Path) -> Any:
    if path.is_dir():
        return tensorflow.saved_model.load(str(path))
    model = tensorflow.keras.models.load_model(str(path))
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        return tensorflow.saved_model.load(folder)
