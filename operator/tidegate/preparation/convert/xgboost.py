"""XGBoost models (``.json``, ``.ubj``), by onnxmltools."""

import json
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

CLASSIFIERS = ("binary:logistic", "multi:softprob", "multi:softmax")


def load(path: Path, samples: Samples) -> Original:
    """Load a booster.

    Raises:
        PreparationError: it is none, or the samples do not fit it.
    """
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    try:
        booster = xgboost.Booster(model_file=str(path))
    except Exception as problem:
        raise PreparationError(f"{path} is no XGBoost model: {one_line(problem)}") from problem
    features = matrix(samples, booster.num_features(), "XGBoost")
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    # The exporter knows columns by number only.
    booster.feature_names = None

    def export(opset: int) -> Any:
        return onnxmltools.convert_xgboost(
            booster,
            initial_types=[(INPUT, FloatTensorType([None, features.shape[1]]))],
            target_opset=min(opset, OPSETS_OF_TREES),
        )

    def predict() -> Arrays:
        found = booster.predict(xgboost.DMatrix(features))
        if objective not in CLASSIFIERS:
            return {VARIABLE: scores(found)}
        if objective == "multi:softmax":
            return {LABEL: np.asarray(found).astype(np.int64)}
        labels, probabilities = classified(np.asarray(found))
        return {LABEL: labels, PROBABILITIES: probabilities}

    packages = versions("onnxmltools", "onnx")
    return Original("XGBoost", {"xgboost": xgboost.__version__, **packages}, export, predict)
