"""Models trained here in seconds on scikit-learn's digits: 1,797 real pictures of 8 by 8.

Run by the preparation's own interpreter: ``python -m e2e.preparation_venv`` prints it.
"""

from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tidegate.preparation.candidate import Candidate
from tidegate.preparation.convert import convert
from tidegate.preparation.samples import Samples

TRAINED_ON = 1_000


@pytest.fixture(scope="session")
def digits() -> Samples:
    """All of them."""
    pixels, labels = load_digits(return_X_y=True)
    return Samples({"pixels": pixels.astype(np.float32)}, labels)


@pytest.fixture(scope="session")
def trained_on(digits: Samples) -> Samples:
    """Those that models are trained and calibrated on."""
    return digits.take(slice(0, TRAINED_ON))


@pytest.fixture(scope="session")
def held_out(digits: Samples) -> Samples:
    """Those that they are judged on."""
    return digits.take(slice(TRAINED_ON, None))


@pytest.fixture(scope="session")
def perceptron(trained_on: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A standardising pipeline with a neural network, as its author would save it."""
    model = make_pipeline(
        StandardScaler(), MLPClassifier((64, 32), max_iter=40, tol=0.01, random_state=0)
    )
    model.fit(trained_on.inputs["pixels"], trained_on.labels)
    path = tmp_path_factory.mktemp("trained") / "perceptron.joblib"
    joblib.dump(model, path)
    return path


@pytest.fixture(scope="session")
def original(
    perceptron: Path, digits: Samples, tmp_path_factory: pytest.TempPathFactory
) -> Candidate:
    """The same, converted."""
    return convert(perceptron, digits, tmp_path_factory.mktemp("converted") / "model.onnx")


Save = Callable[[object, str], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save an estimator under a name."""

    def saved(model: object, name: str) -> Path:
        joblib.dump(model, tmp_path / name)
        return tmp_path / name

    return saved
