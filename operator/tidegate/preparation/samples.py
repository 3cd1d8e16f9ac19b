"""Samples to convert, calibrate and judge with: arrays by input, with labels.

Read from ``.npz`` (an array an input, labels under ``label``), ``.parquet`` or ``.csv`` (the
numeric columns together are one float32 input, in the file's order; a Parquet column of lists of
one length is an input of its own).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tidegate.preparation.errors import PreparationError, one_line

LABEL: Final = "label"
"""The labels' usual name in a file."""
INPUT: Final = "input"
"""The input that a table's numeric columns are, unless named otherwise."""


@dataclass(frozen=True)
class Samples:
    """Some samples.

    Attributes:
        inputs: by the input's name; the first axis is samples.
        labels: one a sample; None where unknown.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise PreparationError("the samples have no input")
        lengths = {name: len(array) for name, array in self.inputs.items()}
        if self.labels is not None:
            lengths[LABEL] = len(self.labels)
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {n}" for name, n in lengths.items())
            raise PreparationError(f"the samples differ in number: {told}")
        if not any(lengths.values()):
            raise PreparationError("there are no samples")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, places: NDArray[np.intp] | slice) -> "Samples":
        """Those at these places."""
        return Samples(
            {name: array[places] for name, array in self.inputs.items()},
            None if self.labels is None else self.labels[places],
        )

    def split(self, held_out: float, seed: int = 0) -> tuple["Samples", "Samples"]:
        """Two disjoint sets, the second with this share: to calibrate on, and to judge on.

        Raises:
            PreparationError: one of them would be empty.
        """
        count = round(len(self) * held_out)
        if not 0 < count < len(self):
            raise PreparationError(
                f"{len(self)} samples cannot be split with a share of {held_out} held out"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(np.sort(order[count:])), self.take(np.sort(order[:count]))

    def require_labels(self) -> NDArray[Any]:
        """The labels.

        Raises:
            PreparationError: there are none.
        """
        if self.labels is None:
            raise PreparationError(
                f"the samples have no labels: add them as {LABEL}, or judge by a function that "
                "needs none"
            )
        return self.labels

    def digest(self) -> str:
        """``sha256:...`` of all names, types, shapes and values."""
        whole = hashlib.sha256()
        arrays = {f"input {name}": array for name, array in self.inputs.items()}
        if self.labels is not None:
            arrays["labels"] = self.labels
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            whole.update(f"{name}\n{array.dtype.str}\n{array.shape}\n".encode())
            whole.update(array.tobytes())
        return f"sha256:{whole.hexdigest()}"

    def write(self, path: Path) -> None:
        """As ``.npz``."""
        labels = {} if self.labels is None else {LABEL: self.labels}
        np.savez_compressed(path, **self.inputs, **labels)  # type: ignore[arg-type]


def read(path: Path, *, label: str = LABEL, table_input: str = INPUT) -> Samples:
    """Read a file.

    Args:
        path: ends in .npz, .parquet or .csv.
        label: name of the array or column that is the truth.
        table_input: name of the input that a table's numeric columns are.

    Raises:
        PreparationError: it cannot be read, or holds what no tensor is.
    """
    readers = {".npz": _npz, ".parquet": _table, ".csv": _table}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PreparationError(f"{path}: samples are read from .npz, .parquet and .csv")
    try:
        columns = reader(path)
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, ArithmeticError) as problem:
        raise PreparationError(f"{path} cannot be read: {one_line(problem)}") from problem
    labels = columns.pop(label, None)
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels is not None and labels.dtype.kind == "f" and not np.isfinite(labels).all():
        first = int(np.flatnonzero(~np.isfinite(labels).reshape(len(labels), -1).all(axis=1))[0])
        raise PreparationError(f"{path}: the label of sample {first} is missing")
    if path.suffix.lower() != ".npz":
        columns = _packed(path, columns, table_input)
    return Samples(columns, labels)


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    # numpy leaves a file open that is no archive.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    scalars = [name for name, array in arrays.items() if array.ndim == 0]
    if scalars:
        raise PreparationError(f"{path}: {', '.join(scalars)} has no axis of samples")
    return arrays


def _table(path: Path) -> dict[str, NDArray[Any]]:
    import pyarrow.csv
    import pyarrow.parquet
    import pyarrow.types

    if path.suffix.lower() == ".csv":
        table = pyarrow.csv.read_csv(path)
    else:
        table = pyarrow.parquet.read_table(path)
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pyarrow.types.is_list(column.type) or pyarrow.types.is_fixed_size_list(column.type):
            columns[name] = np.array(column.to_pylist())
        else:
            columns[name] = np.asarray(column.to_numpy(zero_copy_only=False))
            if columns[name].dtype == object:
                columns[name] = np.array(column.to_pylist(), dtype=str)
    return columns


def _packed(
    path: Path, columns: dict[str, NDArray[Any]], table_input: str
) -> dict[str, NDArray[Any]]:
    """One input of all the columns that are a number a sample; text is refused."""
    words = [name for name, array in columns.items() if array.dtype.kind not in "biuf"]
    if words:
        raise PreparationError(
            f"{path}: column {words[0]} holds text: encode it as the model's training did, or give "
            ".npz with an array an input"
        )
    numbers = [array for array in columns.values() if array.ndim == 1]
    inputs = {name: array for name, array in columns.items() if array.ndim > 1}
    if numbers:
        inputs[table_input] = np.stack(numbers, axis=1).astype(np.float32)
    return inputs
