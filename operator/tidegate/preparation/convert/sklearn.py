"""scikit-learn estimators and pipelines (``.joblib``, ``.pkl``), by skl2onnx.

Such a file runs code when it is loaded: only your own may be prepared.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tidegate.preparation.convert.original import (
    INPUT,
    LABEL,
    PROBABILITIES,
    VARIABLE,
    Original,
    versions,
)
from tidegate.preparation.convert.tables import matrix
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.samples import Samples
from tidegate.preparation.session import Arrays

MACHINE_LEARNING_OPSET = 3
"""Of the domain ai.onnx.ml; any Triton of these years knows it."""


def load(path: Path, samples: Samples) -> Original:
    """Load an estimator.

    Raises:
        PreparationError: it is none, or the samples do not fit it.
    """
    import joblib
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    try:
        model = joblib.load(path)
    except Exception as problem:  # whatever the pickled classes raise
        raise PreparationError(f"{path} cannot be loaded: {one_line(problem)}") from problem
    if not hasattr(model, "predict"):
        raise PreparationError(
            f"{path} holds a {type(model).__name__}, not an estimator with predict"
        )
    features = matrix(samples, getattr(model, "n_features_in_", None), "scikit-learn")
    classifier = hasattr(model, "classes_")

    def export(opset: int) -> Any:
        return skl2onnx.convert_sklearn(
            model,
            initial_types=[(INPUT, FloatTensorType([None, features.shape[1]]))],
            target_opset={"": opset, "ai.onnx.ml": MACHINE_LEARNING_OPSET},
            options={id(model): {"zipmap": False}} if classifier else None,
        )

    def predict() -> Arrays:
        found = np.asarray(model.predict(features))
        if not classifier:
            return {VARIABLE: found.reshape(len(found), -1)}
        answers: Arrays = {LABEL: found}
        if hasattr(model, "predict_proba"):
            answers[PROBABILITIES] = np.asarray(model.predict_proba(features))
        return answers

    return Original("scikit-learn", versions("scikit-learn", "skl2onnx", "onnx"), export, predict)
