"""Files that are there whole or not at all, on a disc that may be full."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tidegate.preparation.errors import NoRoomError, PreparationError

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
COPIES: Final = 4
"""Of the model, that a step may write at most while it works."""
BESIDE: Final = 1 << 20
"""Bytes for everything else."""


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder to write in; what was written as ``folder / out.name`` becomes ``out`` at the end.

    Nothing is left of it when the block fails; a former ``out`` is then still there.

    Raises:
        PreparationError: the disc is full or not writable.
    """
    partial = out.parent / f".{out.name}.partial"
    with writable(out):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            if out.is_dir():
                shutil.rmtree(out)
            (partial / out.name).replace(out)
            for beside in partial.iterdir():
                beside.replace(out.parent / beside.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def writable(out: Path) -> Iterator[None]:
    """Say in a sentence that the disc under ``out`` cannot be written.

    Raises:
        NoRoomError: it is full.
        PreparationError: it is not writable.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in FULL:
            raise NoRoomError(
                f"the disc under {out.parent} is full: nothing of {out.name} was kept; what was "
                "made before is still there"
            ) from problem
        if problem.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.EEXIST, errno.ENOTDIR):
            raise PreparationError(f"{out} cannot be written: {problem.strerror}") from problem
        raise


def require_room(model_bytes: int, *folders: Path) -> None:
    """Stop where a step on a model of this size could fill a disc.

    Other people's libraries say of a full disc whatever they like, or nothing.

    Args:
        model_bytes: of the model.
        folders: that are written to; those that do not exist yet count as what they will lie in.

    Raises:
        NoRoomError: one of them lies on a disc with too little room.
    """
    needed = COPIES * model_bytes + BESIDE
    for folder in folders:
        free = shutil.disk_usage(existing(folder)).free
        if free < needed:
            raise NoRoomError(
                f"the disc under {folder} is nearly full: {free / (1 << 20):.1f} MiB are free, "
                f"{needed / (1 << 20):.1f} are needed; what was made before is still there"
            )


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all the files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
