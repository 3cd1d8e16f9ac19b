"""What each optimisation does to real models: size, accuracy, speed, and the gate's word.

``python -m e2e.bench.candidates``, with the interpreter that ``python -m e2e.preparation_venv``
prints, trains a network of scikit-learn's, an XGBoost and a LightGBM model on scikit-learn's
digits, converts them, and optimises each in every way that `tidegate prepare` knows. Held out are
the 797 digits that nothing was trained or calibrated on. Speed is ONNX Runtime's in this process,
on one thread, in turn with the original; under load, on a real Triton, `tidegate prepare` measures.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import joblib
import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from e2e.bench.report import Report, parser, table
from tidegate.preparation import metrics, running, timing
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.choices import CHOICES
from tidegate.preparation.convert import convert
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.gate import Allowed, share_bounds
from tidegate.preparation.samples import Samples

TRAINED_ON: Final = 1_000
BATCHES: Final = (1, 64)
HEAD: Final = ("model", "bytes", "accuracy", "95 %", "time, batch 1", "time, batch 64", "gate")


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__)
    arguments.add_argument("--max-drop", type=float, default=0.02)
    said = arguments.parse_args()
    report = Report("candidates", f"optimised digits models; a drop of {said.max_drop:g} allowed")
    report.await_quiet(said.patience)
    pixels, labels = load_digits(return_X_y=True)
    samples = Samples({"pixels": pixels.astype(np.float32)}, labels)
    allowed = Allowed(said.max_drop, candidates=len(CHOICES))
    lines: list[tuple[str, ...]] = [HEAD]
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        for name, path in _trained(Path(folder), samples.take(slice(0, TRAINED_ON))):
            lines += _told(report, name, path, samples, allowed)
    print(table(lines, left=(0, 6)))
    report.facts["table"] = [dict(zip(HEAD, line, strict=True)) for line in lines[1:]]
    report.finish(said.out)


def _trained(folder: Path, samples: Samples) -> Iterator[tuple[str, Path]]:
    pixels, labels = samples.inputs["pixels"], samples.require_labels()
    network = MLPClassifier((256, 128), max_iter=60, tol=0.001, random_state=0)
    joblib.dump(make_pipeline(StandardScaler(), network).fit(pixels, labels), folder / "m.joblib")
    yield "scikit-learn", folder / "m.joblib"
    settings: dict[str, Any] = {"num_class": 10, "objective": "multi:softprob", "nthread": 1}
    xgboost.train(settings, xgboost.DMatrix(pixels, labels), 30).save_model(folder / "m.ubj")
    yield "XGBoost", folder / "m.ubj"
    settings = {"num_class": 10, "objective": "multiclass", "num_threads": 1, "verbose": -1}
    lightgbm.train(settings, lightgbm.Dataset(pixels, labels), 30).save_model(folder / "m.txt")
    yield "LightGBM", folder / "m.txt"


def _told(
    report: Report, name: str, path: Path, samples: Samples, allowed: Allowed
) -> Iterator[tuple[str, ...]]:
    seen, held_out = samples.take(slice(0, TRAINED_ON)), samples.take(slice(TRAINED_ON, None))
    original = convert(path, samples, path.with_suffix(".fp32.onnx"))
    report.add(f"{name}: converted", "bytes", [original.size_bytes])
    yield (name, f"{original.size_bytes:,}", *_accuracy(original, held_out), "1", "1", "")
    for choice, how in CHOICES.items():
        try:
            made = how.make(original, path.with_suffix(f".{choice}.onnx"), seen)
        except PreparationError as error:
            report.notes.append(f"{name}, {choice}: not made: {error}")
            continue
        judged = metrics.judge(original, made, held_out, allowed)
        speeds = [timing.compare(original, made, held_out, batch) for batch in BATCHES]
        report.facts[f"{name} {choice}"] = [judged.sentence(), *(s.sentence() for s in speeds)]
        ratios = [f"{s.ratio:.2f} ({s.low:.2f} to {s.high:.2f})" for s in speeds]
        label, size = f"{name}, {choice}", f"{made.size_bytes:,}"
        yield (label, size, *_accuracy(made, held_out), *ratios, judged.verdict)


def _accuracy(one: Candidate, held_out: Samples) -> tuple[str, str]:
    labels: NDArray[Any] = held_out.require_labels()
    hits = int((metrics.classes(running.answers(one, held_out), labels) == labels).sum())
    low, high = share_bounds(hits, len(labels), 0.025)
    return f"{hits / len(labels):.3f}", f"{low:.3f} to {high:.3f}"


if __name__ == "__main__":
    main()
