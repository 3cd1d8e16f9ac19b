"""Models trained here in seconds on scikit-learn's digits: 1,797 real pictures of 8 by 8.

Run by the preparation's own interpreter: ``python -m e2e.preparation_venv`` prints it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from e2e.native.program import triton_program
from tidegate.preparation import pipeline
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.convert import convert
from tidegate.preparation.order import Order, Place
from tidegate.preparation.samples import Samples
from tidegate.preparation.tuning.search import Objective

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


class Silent:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.shares: dict[str, list[float]] = {}
        """Of each stage, as they were told."""

    def stage(self, name: str) -> None:
        self.told.append(name)
        self.shares[name] = []

    def detail(self, text: str) -> None:
        self.told.append(text)

    def share(self, done: float) -> None:
        self.shares[list(self.shares)[-1]].append(done)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the digits, samples of several kinds, and a program that starts Triton."""
    found = tmp_path_factory.mktemp("digits")
    samples, labels = load_digits(return_X_y=True)
    samples = samples.astype(np.float32)
    model = MLPClassifier((32,), max_iter=400, random_state=0).fit(samples[:800], labels[:800])
    joblib.dump(model, found / "digits.joblib")
    np.savez(found / "digits.npz", input=samples[800:], label=labels[800:])
    np.savez(found / "few.npz", input=samples[800:830], label=labels[800:830])
    np.savez(found / "bare.npz", input=samples[800:])
    np.savez(found / "narrow.npz", input=samples[800:, :10], label=labels[800:])
    triton_program(found)
    return found


@pytest.fixture(scope="session")
def order(folder: Path) -> Order:
    """To prepare it, quickly."""
    return Order(
        name="digits",
        model=folder / "digits.joblib",
        data=folder / "digits.npz",
        objective=Objective(0.95, 200.0),
        place=Place(folder / "out"),
        work=folder / "work",
        framework="sklearn",
        max_drop=0.03,
        optimisations=("int8-dynamic", "pruned"),
        triton=str(folder / "tritonserver"),
        quick=True,
        licence="Apache-2.0",
    )


@pytest.fixture(scope="session")
def report(order: Order) -> dict[str, Any]:
    """Of the whole way, gone once; what came of each step lies in the order's working folder."""
    return pipeline.prepare(order, Silent())
