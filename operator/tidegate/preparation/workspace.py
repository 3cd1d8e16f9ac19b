"""What a preparation has made so far, so that one that was stopped goes on where it was.

Each result has a key made of everything it depends on: sources, data, settings, versions. It is
written last, so a result without one is made again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.writing import whole


def digest(path: Path) -> str:
    """``sha256:...`` of a file, or of all the files in a folder with their names.

    Raises:
        PreparationError: there is nothing.
    """
    if not path.exists():
        raise PreparationError(f"{path} does not exist")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    made = hashlib.sha256()
    for file in files:
        if path.is_dir():
            made.update(f"{file.relative_to(path).as_posix()}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while part := stream.read(1 << 20):
                made.update(part)
    return f"sha256:{made.hexdigest()}"


def key(**parts: Any) -> str:
    """``sha256:...`` of what a result depends on; the order of the names does not matter."""
    told = json.dumps(parts, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"


def kept(
    folder: Path, file: str, depends_on: str, make: Callable[[Path], Candidate]
) -> tuple[Candidate, bool]:
    """The candidate in ``folder/file``, made anew unless it is there with the same key.

    Args:
        folder: of all the results.
        file: the name of the candidate's file.
        depends_on: its `key`.
        make: writes the file and gives the candidate.

    Returns:
        The candidate, and whether it was there already.

    Raises:
        PreparationError: as ``make``, or the disc is full.
    """
    out, stamp = folder / file, folder / f"{file}.candidate.json"
    found = _read(stamp, out, depends_on)
    if found is not None:
        return found, True
    stamp.unlink(missing_ok=True)
    candidate = make(out)
    document = {**described(candidate), "key": depends_on, "digest": digest(candidate.path)}
    with whole(stamp) as partial:
        (partial / stamp.name).write_text(json.dumps(document, indent=2), encoding="utf-8")
    return candidate, False


def described(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON; the path is only a name, so that the folder can be moved."""
    return {**dataclasses.asdict(candidate), "path": candidate.path.name}


def _read(stamp: Path, out: Path, depends_on: str) -> Candidate | None:
    try:
        document = json.loads(stamp.read_text(encoding="utf-8"))
        if document["key"] != depends_on or document["digest"] != digest(out):
            return None
        return Candidate(
            name=document["name"],
            path=out,
            platform=document["platform"],
            inputs=_tensors(document["inputs"]),
            outputs=_tensors(document["outputs"]),
            size_bytes=document["size_bytes"],
            steps=tuple(document["steps"]),
            notes=dict(document["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError, PreparationError):
        return None


def _tensors(found: list[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(t["name"], t["datatype"], tuple(t["shape"])) for t in found)
