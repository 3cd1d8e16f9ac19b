"""Samples: read, split, digested; and files that are there whole or not at all."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tidegate.preparation.errors import NoRoomError, PreparationError
from tidegate.preparation.samples import Samples, read
from tidegate.preparation.writing import BESIDE, COPIES, require_room, size_bytes, whole

PIXELS = np.arange(40, dtype=np.float32).reshape(10, 4)
LABELS = np.arange(10) % 3


def test_written_and_read(tmp_path: Path) -> None:
    samples = Samples({"pixels": PIXELS}, LABELS)
    samples.write(tmp_path / "s.npz")
    again = read(tmp_path / "s.npz")
    assert again.digest() == samples.digest()
    assert len(again) == 10
    assert list(again.inputs) == ["pixels"]


def test_labels_of_another_name_and_of_one_column(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", pixels=PIXELS, truth=LABELS[:, None])
    found = read(tmp_path / "s.npz", label="truth")
    assert found.labels is not None
    assert found.labels.tolist() == LABELS.tolist()


def test_the_digest_is_of_all_that_is_there() -> None:
    samples = Samples({"a": PIXELS, "b": PIXELS + 1}, LABELS)
    assert samples.digest() == Samples({"b": PIXELS + 1, "a": PIXELS}, LABELS.copy()).digest()
    other = PIXELS.copy()
    other[3, 2] += 1
    for changed in (
        Samples({"a": other, "b": PIXELS + 1}, LABELS),
        Samples({"a": PIXELS, "c": PIXELS + 1}, LABELS),
        Samples({"a": PIXELS, "b": PIXELS + 1}),
        Samples({"a": PIXELS.reshape(10, 2, 2), "b": PIXELS + 1}, LABELS),
        Samples({"a": PIXELS.astype(np.float64), "b": PIXELS + 1}, LABELS),
    ):
        assert changed.digest() != samples.digest()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_split_loses_and_doubles_nothing(share: float) -> None:
    samples = Samples({"a": PIXELS}, LABELS)
    calibration, held_out = samples.split(share)
    assert len(held_out) == 10 * share
    rows = [tuple(row) for part in (calibration, held_out) for row in part.inputs["a"]]
    assert sorted(rows) == sorted(tuple(row) for row in PIXELS)
    assert samples.split(share)[1].digest() == held_out.digest()
    for part in (calibration, held_out):
        assert part.labels is not None
        assert (part.labels == part.inputs["a"][:, 0] // 4 % 3).all()


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_a_split_leaves_neither_part_empty(share: float) -> None:
    with pytest.raises(PreparationError, match="cannot be split"):
        Samples({"a": PIXELS}).split(share)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"a": PIXELS, "b": PIXELS[:3]}, "differ in number: a 10, b 3"),
        ({"a": PIXELS, "label": LABELS[:4]}, "differ in number: a 10, label 4"),
        ({"a": PIXELS[:0]}, "no samples"),
        ({"label": LABELS}, "no input"),
        ({"a": PIXELS, "label": np.where(LABELS == 2, np.nan, 0.0)}, "label of sample 2"),
        ({"a": np.float32(1.0)}, "no axis of samples"),
        ({"a": np.array([{}, {}], dtype=object)}, "cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(PreparationError, match=told):
        read(tmp_path / "s.npz")


def test_what_is_no_file_of_samples(tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_bytes(b"not a zip")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "whole.npz", a=PIXELS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:100])
    for name, told in (
        ("s.npz", "cannot be read"),
        ("empty.npz", "cannot be read: No data left"),
        ("cut.npz", "cannot be read: File is not a zip file"),
        ("missing.npz", "cannot be read"),
        ("s.xlsx", "are read from .npz, .parquet and .csv"),
    ):
        with pytest.raises(PreparationError, match=told):
            read(tmp_path / name)
    with pytest.raises(PreparationError, match="have no labels"):
        Samples({"a": PIXELS}).require_labels()


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "models" / "m.onnx"
    with whole(out) as folder:
        (folder / "m.onnx").write_bytes(b"first")
        (folder / "m.onnx.data").write_bytes(b"beside")
    assert out.read_bytes() == b"first"
    with pytest.raises(FileNotFoundError), whole(out) as folder:
        (folder / "m.onnx.data").write_bytes(b"half")  # and no model
    assert out.read_bytes() == b"first"
    assert sorted(p.name for p in out.parent.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert size_bytes(out.parent) == 11


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "is full: nothing of m.onnx was kept"),
        (errno.EACCES, "cannot be written"),
        (errno.EEXIST, "cannot be written"),
    ],
)
def test_a_disc_that_does_not_take_it(tmp_path: Path, number: int, told: str) -> None:
    with pytest.raises(PreparationError, match=told), whole(tmp_path / "m.onnx"):
        raise OSError(number, "from the disc")
    assert list(tmp_path.iterdir()) == []


def test_a_step_needs_room_for_some_copies_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Any:
        asked.append(path)
        return SimpleNamespace(free=COPIES * 1_000_000 + BESIDE)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_room(1_000_000, tmp_path / "not" / "yet")
    assert asked == [tmp_path]
    with pytest.raises(NoRoomError, match=r"nearly full: 4\.8 MiB are free, 4\.8 are needed"):
        require_room(1_000_001, tmp_path)
