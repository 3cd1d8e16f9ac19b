"""Versions of a classifier of scikit-learn's digits, as their author would save them.

``python -m e2e.models.digits FOLDER VERSION ...``, by the interpreter that
``python -m e2e.preparation_venv`` prints, writes ``FOLDER/VERSION.joblib``, and the held-out
samples as ``FOLDER/digits.npz``.
"""

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np

TRAINED_ON: Final = 900
UNITS: Final[Mapping[str, int]] = {"first": 32, "second": 64, "wrong": 64}


def train(version: str) -> Any:
    """A version: `wrong` learned each digit as the next one, as a mix-up of columns would do it."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    pixels, labels = load_digits(return_X_y=True)
    known = (labels + 1) % 10 if version == "wrong" else labels
    model = MLPClassifier((UNITS[version],), max_iter=200, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of passes that end before it has converged
        return model.fit(pixels[:TRAINED_ON].astype(np.float32), known[:TRAINED_ON])


def main() -> None:
    """Write what was asked for."""
    from sklearn.datasets import load_digits

    parser = argparse.ArgumentParser(prog="python -m e2e.models.digits", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("versions", nargs="+", choices=sorted(UNITS))
    said = parser.parse_args()
    said.folder.mkdir(parents=True, exist_ok=True)
    for version in said.versions:
        joblib.dump(train(version), said.folder / f"{version}.joblib")
    pixels, labels = load_digits(return_X_y=True)
    held_out = {"pixels": pixels[TRAINED_ON:].astype(np.float32), "label": labels[TRAINED_ON:]}
    np.savez(said.folder / "digits.npz", **held_out)


if __name__ == "__main__":
    main()
