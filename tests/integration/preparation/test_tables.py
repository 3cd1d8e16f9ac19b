"""Samples in Parquet and CSV."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tidegate.preparation.errors import PreparationError
from tidegate.preparation.samples import read

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("age,height,label\n3,1.5,yes\n4,1.25,no\n")
    found = read(path)
    assert found.inputs["input"].dtype == np.float32
    assert found.inputs["input"].tolist() == [[3.0, 1.5], [4.0, 1.25]]
    assert found.labels is not None
    assert found.labels.tolist() == ["yes", "no"]
    assert list(read(path, table_input="x").inputs) == ["x"]


def test_parquet_with_a_column_of_lists(tmp_path: Path) -> None:
    table = {"a": [1, 2], "vector": [[1.0, 2.0], [3.0, 4.0]], "b": [0.5, 1.5], "label": [0, 1]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "s.parquet")
    found = read(tmp_path / "s.parquet")
    assert found.inputs["vector"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert found.inputs["input"].tolist() == [[1.0, 0.5], [2.0, 1.5]]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]


def test_bad_tables(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(
        pyarrow.table({"v": [[1.0], [1.0, 2.0]]}), tmp_path / "ragged.parquet"
    )
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    (tmp_path / "words.csv").write_text("colour,label\nred,1\n")
    (tmp_path / "empty.csv").write_text("a,label\n")
    (tmp_path / "ragged.csv").write_text("a,label\n1,2,3\n")
    for name, told in (
        ("ragged.parquet", "cannot be read"),
        ("torn.parquet", "cannot be read"),
        ("words.csv", "column colour holds text"),
        ("empty.csv", "no samples|holds text"),
        ("ragged.csv", "cannot be read"),
    ):
        with pytest.raises(PreparationError, match=told):
            read(tmp_path / name)
