"""Real models of each framework: converted, and checked against the original; bad ones refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.semi_supervised import LabelSpreading

from tests.integration.preparation.conftest import Save
from tidegate.preparation import running
from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.check import Tolerance
from tidegate.preparation.convert import Framework, convert, framework_of
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.samples import Samples

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

INPUT = TensorSpec("input", "FP32", (-1, 64))
LABEL = TensorSpec("label", "INT64", (-1,))
ROUNDS = 8


def probabilities(classes: int) -> TensorSpec:
    return TensorSpec("probabilities", "FP32", (-1, classes))


VARIABLE = TensorSpec("variable", "FP32", (-1, 1))


def test_a_pipeline_of_scikit_learn(original: Candidate, held_out: Samples) -> None:
    assert original.platform == "onnxruntime"
    assert original.steps == ("convert scikit-learn",)
    assert original.inputs == (INPUT,)
    assert original.outputs == (LABEL, probabilities(10))
    assert original.size_bytes == original.path.stat().st_size
    assert original.notes["batch"] == "any"
    assert "skl2onnx" in original.notes["versions"]
    assert "ai.onnx" in original.notes["opset"]
    assert "over 1797 samples (allowed 1e-05" in original.notes["check of probabilities"]
    found = running.answers(original, held_out)
    assert float((found["label"] == held_out.labels).mean()) > 0.85
    # One at a time, it says the same.
    alone = running.answers(original, held_out.take(slice(7, 8)))
    assert alone["probabilities"] == pytest.approx(found["probabilities"][7:8], abs=1e-6)


def test_no_newer_format_than_needed(original: Candidate) -> None:
    """Servers of some years ago must know it."""
    model = onnx.load(str(original.path))
    assert model.ir_version <= 9
    assert len({o.domain for o in model.opset_import}) == len(model.opset_import)
    assert {n.op_type for n in model.graph.node}.isdisjoint({"Scaler", "ZipMap"})


def test_labels_that_are_words(trained_on: Samples, save: Save, tmp_path: Path) -> None:
    assert trained_on.labels is not None
    words = np.array([f"digit {n}" for n in trained_on.labels])
    forest = RandomForestClassifier(10, random_state=0).fit(trained_on.inputs["pixels"], words)
    made = convert(save(forest, "forest.pkl"), trained_on, tmp_path / "m.onnx")
    assert made.outputs[0] == TensorSpec("label", "BYTES", (-1,))
    assert running.answers(made, trained_on)["label"][0] == "digit 0"


def test_a_regressor(trained_on: Samples, save: Save, tmp_path: Path) -> None:
    model = GradientBoostingRegressor(n_estimators=10, random_state=0)
    model.fit(trained_on.inputs["pixels"], trained_on.labels)
    made = convert(save(model, "regressor.joblib"), trained_on, tmp_path / "m.onnx")
    assert made.outputs == (VARIABLE,)


def boosted_by_xgboost(samples: Samples, path: Path, settings: dict[str, Any]) -> None:
    labels = samples.require_labels()
    if settings["objective"].startswith("binary"):
        labels = labels % 2
    data = xgboost.DMatrix(samples.inputs["pixels"], labels)
    xgboost.train({"max_depth": 3, "nthread": 1, **settings}, data, ROUNDS).save_model(path)


def boosted_by_lightgbm(samples: Samples, path: Path, settings: dict[str, Any]) -> None:
    labels = samples.require_labels()
    if settings["objective"] == "binary":
        labels = labels % 2
    data = lightgbm.Dataset(samples.inputs["pixels"], labels)
    quiet = {"verbose": -1, "num_threads": 1, "num_leaves": 7}
    lightgbm.train({**quiet, **settings}, data, ROUNDS).save_model(path)


@pytest.mark.parametrize(
    ("train", "name", "settings", "outputs"),
    [
        (
            boosted_by_xgboost,
            "m.ubj",
            {"objective": "multi:softprob", "num_class": 10},
            (LABEL, probabilities(10)),
        ),
        (
            boosted_by_xgboost,
            "m.json",
            {"objective": "binary:logistic"},
            (LABEL, probabilities(2)),
        ),
        (boosted_by_xgboost, "m.json", {"objective": "reg:squarederror"}, (VARIABLE,)),
        (
            boosted_by_lightgbm,
            "m.txt",
            {"objective": "multiclass", "num_class": 10},
            (LABEL, probabilities(10)),
        ),
        (boosted_by_lightgbm, "m.txt", {"objective": "binary"}, (LABEL, probabilities(2))),
        (boosted_by_lightgbm, "m.lgb", {"objective": "regression"}, (VARIABLE,)),
    ],
)
def test_boosted_trees(
    train: Callable[[Samples, Path, dict[str, Any]], None],
    name: str,
    settings: dict[str, Any],
    outputs: tuple[TensorSpec, ...],
    trained_on: Samples,
    tmp_path: Path,
) -> None:
    train(trained_on, tmp_path / name, settings)
    made = convert(tmp_path / name, trained_on, tmp_path / "m.onnx")
    assert (made.inputs, made.outputs) == ((INPUT,), outputs)
    for output in outputs:
        assert "over 1000 samples" in made.notes[f"check of {output.name}"]


def test_onnx_is_only_checked(original: Candidate, digits: Samples, tmp_path: Path) -> None:
    made = convert(original.path, digits, tmp_path / "again.onnx")
    assert (made.inputs, made.outputs) == (original.inputs, original.outputs)


def test_a_conversion_that_changes_answers_is_stopped(save: Save, tmp_path: Path) -> None:
    """Two large coefficients that cancel in 64 bits do not in 32."""
    x = np.linspace(1.0, 2.0, 200)
    model = LinearRegression()
    model.coef_, model.intercept_, model.n_features_in_ = np.array([1e8, -1e8]), 0.0, 2
    samples = Samples({"x": np.stack([x, x + 1e-7 * np.arange(200)], axis=1).astype(np.float32)})
    with pytest.raises(PreparationError) as told:
        convert(save(model, "m.joblib"), samples, tmp_path / "m.onnx")
    assert "the converted model answers otherwise: output variable: largest difference" in (
        str(told.value)
    )
    assert "samples differ by more, most of all sample" in str(told.value)


def test_the_stated_tolerance_is_what_counts(
    perceptron: Path, digits: Samples, tmp_path: Path
) -> None:
    with pytest.raises(PreparationError, match=r"output probabilities: .* \(allowed 0 \+ 0 x"):
        convert(perceptron, digits, tmp_path / "m.onnx", tolerance=Tolerance(0.0, 0.0))


def test_an_unsupported_operator_is_named(trained_on: Samples, save: Save, tmp_path: Path) -> None:
    model = LabelSpreading().fit(trained_on.inputs["pixels"], trained_on.labels)
    with pytest.raises(PreparationError, match=r"exporter cannot convert .*LabelSpreading"):
        convert(save(model, "m.joblib"), trained_on, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_what_cannot_be_loaded(trained_on: Samples, save: Save, tmp_path: Path) -> None:
    (tmp_path / "m.pmml").write_text("<PMML/>")
    (tmp_path / "m.bin").write_bytes(b"?")
    (tmp_path / "empty").mkdir()
    for name in ("torn.ubj", "torn.txt", "torn.joblib", "torn.onnx", "torn.pt"):
        (tmp_path / name).write_bytes(b"not a model")
    save({"a": 1}, "dict.joblib")
    for name, told in (
        ("m.pmml", "PMML is not converted: .*wrap a PMML scorer"),
        ("m.bin", "cannot be told from its name"),
        ("empty", "folder without saved_model.pb"),
        ("missing.joblib", "does not exist"),
        ("torn.ubj", "no XGBoost model"),
        ("torn.txt", "no LightGBM model"),
        ("torn.joblib", "cannot be loaded"),
        ("torn.onnx", "no ONNX model"),
        ("torn.pt", "torch.export.save"),
        ("dict.joblib", "holds a dict, not an estimator"),
    ):
        with pytest.raises(PreparationError, match=told):
            convert(tmp_path / name, trained_on, tmp_path / "m.onnx")
    assert framework_of(tmp_path / "torn.ubj") is Framework.XGBOOST


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"pixels": np.zeros((5, 63))}, "takes 64 features, the samples have 63"),
        ({"pixels": np.zeros((5, 8, 8))}, r"takes a matrix of numbers, .* shape \[5, 8, 8\]"),
        ({"pixels": np.full((5, 64), "?")}, "takes a matrix of numbers"),
        ({"a": np.zeros((5, 64)), "b": np.zeros((5, 64))}, "have the inputs a, b"),
    ],
)
def test_samples_that_do_not_fit(
    perceptron: Path, tmp_path: Path, inputs: dict[str, Any], told: str
) -> None:
    with pytest.raises(PreparationError, match=told):
        convert(perceptron, Samples(inputs), tmp_path / "m.onnx")


def test_served_samples_that_do_not_fit(original: Candidate) -> None:
    with pytest.raises(PreparationError, match=r"takes shape \[samples, 64\], .* \[5, 63\]"):
        running.answers(original, Samples({"pixels": np.zeros((5, 63))}))
    with pytest.raises(PreparationError, match="input input is missing"):
        running.answers(original, Samples({"a": np.zeros((5, 64)), "b": np.zeros((5, 64))}))
