"""Files that are there whole or not at all, on a disc that may be full."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tidegate.preparation.errors import PreparationError

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        PreparationError: it is full or not writable.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in FULL:
            raise PreparationError(
                f"the disc under {out.parent} is full: nothing of {out.name} was kept; what was "
                "made before is still there"
            ) from problem
        if problem.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise PreparationError(f"{out} cannot be written: {problem.strerror}") from problem
        raise


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all the files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
