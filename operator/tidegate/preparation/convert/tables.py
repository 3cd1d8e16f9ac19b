"""What models of tables (scikit-learn, XGBoost, LightGBM) share: one float32 matrix goes in."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.preparation.errors import PreparationError
from tidegate.preparation.samples import Samples

OPSETS_OF_TREES = 15
"""The newest default-domain opset that onnxmltools' tree converters write."""


def matrix(samples: Samples, features: int | None, framework: str) -> NDArray[np.float32]:
    """The samples' one input as the matrix that the served model will get.

    The original is asked in float32, too: a tree's threshold that falls between a double and its
    float32 would else part the two for no fault of the conversion.

    Raises:
        PreparationError: there are more inputs, or another number of features.
    """
    if len(samples.inputs) != 1:
        raise PreparationError(
            f"a {framework} model takes one matrix, the samples have the inputs "
            f"{', '.join(samples.inputs)}"
        )
    name, array = next(iter(samples.inputs.items()))
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise PreparationError(
            f"a {framework} model takes a matrix of numbers, the samples' {name} has shape "
            f"{list(array.shape)} and type {array.dtype}"
        )
    if features is not None and array.shape[1] != features:
        raise PreparationError(
            f"the {framework} model takes {features} features, the samples have {array.shape[1]}"
        )
    return array.astype(np.float32)


def scores(found: Any) -> NDArray[Any]:
    """A booster's answers as the exporters give them: one column at least, two for two classes."""
    array = np.asarray(found)
    return array[:, None] if array.ndim == 1 else array


def classified(probabilities: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Labels and one column a class, of a booster's probabilities."""
    if probabilities.ndim == 1:
        probabilities = np.stack([1.0 - probabilities, probabilities], axis=1)
    return probabilities.argmax(axis=1).astype(np.int64), probabilities
