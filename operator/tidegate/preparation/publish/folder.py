"""A folder that is there whole, or not at all: made beside its place, then renamed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tidegate.preparation.errors import PreparationError
from tidegate.preparation.writing import existing

REPORT: Final = "report.json"
"""By this a folder is known as one of ours, which may be replaced."""


class FolderError(PreparationError):
    """The folder cannot be written, or is somebody else's; the text says why."""


@contextlib.contextmanager
def whole(place: Path) -> Iterator[Path]:
    """A folder to write into; it takes its place when the block ends without an error.

    Args:
        place: where it is to be. What an earlier run published there is replaced; anything else
            that is not empty is refused.

    Raises:
        FolderError: that, or it cannot be written.
    """
    check(place)
    staging = place.with_name(f".{place.name}.partial")
    old = place.with_name(f".{place.name}.old")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _recover(place, old)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        yield staging
        _sync(staging)
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        staging.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise FolderError(f"{place} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check(place: Path) -> None:
    """Whether it may be written.

    Raises:
        FolderError: it holds what is not ours, or cannot be made.
    """
    if place.is_dir() and any(place.iterdir()) and not (place / REPORT).is_file():
        raise FolderError(f"{place} holds other files: name a new or empty folder")
    if place.exists() and not place.is_dir():
        raise FolderError(f"{place} is no folder")
    above = existing(place.absolute().parent)
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise FolderError(f"{place} cannot be made: {above} is no folder that can be written to")


def _recover(place: Path, old: Path) -> None:
    """A run that ended between its two renames: what was published before comes back."""
    if old.exists() and not place.exists():
        old.rename(place)


def _sync(folder: Path) -> None:
    """On the disc before it is named."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as f:
                os.fsync(f.fileno())
