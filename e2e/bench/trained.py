"""Real models, trained here in seconds or taken from a package: what preparing is measured with.

Scikit-learn's digits are 1,797 pictures of 8 by 8. Magika, in two generations, tells a file's type
from its bytes; its files are those of this interpreter's packages, and what they are is told by the
end of their names. Run by the interpreter that ``python -m e2e.preparation_venv --frameworks``
prints.
"""

import json
import sys
import sysconfig
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import joblib
import numpy as np
from numpy.typing import NDArray

from e2e.models.magika.build import GENERATIONS, Generation, build
from tidegate.preparation import session
from tidegate.preparation.convert import convert
from tidegate.preparation.samples import Samples

TRAINED_ON: Final = 1_000
"""Digits that models are trained and calibrated on; the other 797 are held out."""
UNITS: Final = (1000, 1000)
"""Of the network's layers: so large that computing it is more than asking for it."""
ROUNDS: Final = 200
"""Of boosting."""
FILES_A_TYPE: Final = 48
TYPES: Final[Mapping[str, str]] = {
    ".py": "python",
    ".h": "c",
    ".js": "javascript",
    ".json": "json",
    ".html": "html",
    ".css": "css",
    ".svg": "svg",
    ".md": "markdown",
    ".rst": "rst",
    ".csv": "csv",
    ".png": "png",
    ".so": "elf",
    ".pyc": "pythonbytecode",
    ".gz": "gzip",
}
"""The network's word for a file, by the end of its name."""


@dataclass(frozen=True)
class Trained:
    """A model, and the samples it is judged with.

    Attributes:
        title: for people.
        what: how it came to be, for people.
        path: the framework's file.
        seen: samples that it may be calibrated on.
        held_out: samples with labels that it is judged on.
        max_drop: of accuracy, that an optimisation may cost.
        served: whether it is measured under load; what is made to fail is not.
    """

    title: str
    what: str
    path: Path
    seen: Samples
    held_out: Samples
    max_drop: float = 0.02
    served: bool = True

    def all(self) -> Samples:
        """Both: what the conversion is checked with."""
        labels = [self.seen.require_labels(), self.held_out.require_labels()]
        inputs = {
            name: np.concatenate([array, self.held_out.inputs[name]])
            for name, array in self.seen.inputs.items()
        }
        return Samples(inputs, np.concatenate(labels))


def digits() -> tuple[Samples, Samples]:
    """Those that models are trained on, and those that are held out."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    samples = Samples({"pixels": pixels.astype(np.float32)}, labels)
    return samples.take(slice(0, TRAINED_ON)), samples.take(slice(TRAINED_ON, None))


def sklearn_network(folder: Path) -> Trained:
    """A neural network of scikit-learn's."""
    path = _network(folder)
    what = (
        f"scikit-learn's MLPClassifier, {UNITS[0]} and {UNITS[1]} units, 8 passes over the digits"
    )
    return Trained("scikit-learn, digits", what, path, *digits())


def made_to_hurt(folder: Path) -> Trained:
    """The same network with enormous weights on a pixel that no picture has.

    In 32 bits they change nothing. In 8 bits they set the scale, and all else rounds to nothing.
    """
    import onnx
    from onnx import numpy_helper

    seen, held_out = digits()
    assert not seen.inputs["pixels"][:, 0].any()
    assert not held_out.inputs["pixels"][:, 0].any()
    path = folder / "made-to-hurt.onnx"
    if not path.exists():
        plain = convert(_network(folder), seen, folder / "plain.onnx")
        model = onnx.load(str(plain.path))
        first = next(n for n in model.graph.node if n.op_type in ("MatMul", "Gemm")).input[1]
        weights = next(i for i in model.graph.initializer if i.name == first)
        array = numpy_helper.to_array(weights).copy()
        array[0, :] = 1e4
        weights.CopyFrom(numpy_helper.from_array(array, first))
        session.write(model, path)
    what = "the same network with weights of 10,000 on a pixel that is blank in every picture"
    return Trained("made to be hurt", what, path, seen, held_out, served=False)


def _network(folder: Path) -> Path:
    from sklearn.neural_network import MLPClassifier

    path = folder / "network.joblib"
    if not path.exists():
        seen, _ = digits()
        model = MLPClassifier(UNITS, max_iter=8, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of passes that end before it has converged
            model.fit(seen.inputs["pixels"], seen.require_labels())
        joblib.dump(model, path)
    return path


def xgboost_trees(folder: Path) -> Trained:
    """Boosted trees of XGBoost's."""
    import xgboost

    seen, held_out = digits()
    path = folder / "trees.ubj"
    if not path.exists():
        data = xgboost.DMatrix(seen.inputs["pixels"], seen.require_labels())
        settings: dict[str, Any] = {"num_class": 10, "objective": "multi:softprob", "nthread": 1}
        xgboost.train(settings, data, ROUNDS).save_model(path)
    return Trained("XGBoost, digits", f"{ROUNDS} rounds, 10 classes", path, seen, held_out)


def lightgbm_trees(folder: Path) -> Trained:
    """Boosted trees of LightGBM's."""
    import lightgbm

    seen, held_out = digits()
    path = folder / "trees.txt"
    if not path.exists():
        data = lightgbm.Dataset(seen.inputs["pixels"], seen.require_labels())
        settings: dict[str, Any] = {"num_class": 10, "objective": "multiclass"}
        settings |= {"num_threads": 1, "verbose": -1}
        lightgbm.train(settings, data, ROUNDS).save_model(path)
    return Trained("LightGBM, digits", f"{ROUNDS} rounds, 10 classes", path, seen, held_out)


def torch_network(folder: Path) -> Trained:
    """A small convolutional network of PyTorch's."""
    import torch
    from torch import nn

    seen, held_out = (_pictures(samples) for samples in digits())
    path = folder / "cnn.pt2"
    if not path.exists():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10)),
        )
        x = torch.from_numpy(seen.inputs["pixels"])
        y = torch.from_numpy(seen.require_labels().astype(np.int64))
        optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(8):
            for begin in range(0, len(x), 50):
                optimiser.zero_grad()
                answers = model(x[begin : begin + 50])
                nn.functional.cross_entropy(answers, y[begin : begin + 50]).backward()
                optimiser.step()
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(model.eval(), (x[:2],), dynamic_shapes=shapes), path)
    what = "two convolutions of 32 and 64 channels, 145,000 parameters, trained for 8 passes"
    return Trained("PyTorch CNN, digits", what, path, seen, held_out)


def _pictures(samples: Samples) -> Samples:
    pixels = samples.inputs["pixels"].reshape(-1, 1, 8, 8) / np.float32(16.0)
    return Samples({"pixels": pixels}, samples.labels)


def magika(folder: Path, *, generation: Generation) -> Trained:
    """A generation of Magika, its network as published."""
    sys.modules.setdefault("triton_python_backend_utils", ModuleType("not inside Triton"))
    from e2e.models.magika.model import Settings

    repository = build(folder / "magika")[generation.name] / "magika" / "1"
    settings = Settings(json.loads((repository / "magika.json").read_text()))
    rows: list[NDArray[Any]] = []
    labels: list[int] = []
    for path, kind in _files():
        features = settings.features(path.read_bytes())
        if features is not None and kind in settings.labels:
            rows.append(features)
            labels.append(settings.labels.index(kind))
    samples = Samples({"bytes": np.stack(rows)}, np.array(labels))
    seen, held_out = samples.split(0.8)
    what = (
        f"{generation.network} of magika {generation.package_version}, judged on "
        f"{len(held_out)} files of {len(set(labels))} types"
    )
    title = f"Magika, {generation.network}"
    return Trained(title, what, repository / "model.onnx", seen, held_out, max_drop=0.05)


def _files() -> list[tuple[Path, str]]:
    """Files of each type, spread over this interpreter's packages, and what they are."""
    root = Path(sysconfig.get_paths()["purelib"])
    found: dict[str, list[Path]] = {end: [] for end in TYPES}
    for path in sorted(root.rglob("*")):
        if path.suffix in found and path.is_file() and 256 <= path.stat().st_size < 1 << 22:
            found[path.suffix].append(path)
    return [
        (path, TYPES[end])
        for end, paths in found.items()
        for path in paths[:: max(1, len(paths) // FILES_A_TYPE)][:FILES_A_TYPE]
    ]


MODELS: Final[Mapping[str, Callable[[Path], Trained]]] = {
    "sklearn": sklearn_network,
    "xgboost": xgboost_trees,
    "lightgbm": lightgbm_trees,
    "torch": torch_network,
    **{f"magika-{g.name}": partial(magika, generation=g) for g in GENERATIONS},
    "made-to-hurt": made_to_hurt,
}
"""By a name for the command line."""
