"""LightGBM models (``.txt``, ``.lgb``), by onnxmltools."""

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
from tidegate.preparation.convert.tables import OPSETS_OF_TREES, classified, matrix, scores
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.samples import Samples
from tidegate.preparation.session import Arrays

CLASSIFIERS = ("binary", "multiclass", "multiclassova")


def load(path: Path, samples: Samples) -> Original:
    """Load a booster.

    Raises:
        PreparationError: it is none, or the samples do not fit it.
    """
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    try:
        booster = lightgbm.Booster(model_file=str(path))
    except Exception as problem:
        raise PreparationError(f"{path} is no LightGBM model: {one_line(problem)}") from problem
    features = matrix(samples, booster.num_feature(), "LightGBM")
    objective = str(booster.dump_model(num_iteration=1).get("objective", "")).split(" ")[0]
    classifier = objective in CLASSIFIERS

    def export(opset: int) -> Any:
        return onnxmltools.convert_lightgbm(
            booster,
            initial_types=[(INPUT, FloatTensorType([None, features.shape[1]]))],
            target_opset=min(opset, OPSETS_OF_TREES),
            zipmap=False,
        )

    def predict() -> Arrays:
        found = np.asarray(booster.predict(features))
        if not classifier:
            return {VARIABLE: scores(found)}
        labels, probabilities = classified(found)
        return {LABEL: labels, PROBABILITIES: probabilities}

    return Original("LightGBM", versions("lightgbm", "onnxmltools", "onnx"), export, predict)
