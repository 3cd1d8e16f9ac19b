"""Looks into files just far enough to tell what they are; the judgement is `layout`'s."""

import os
import zipfile
from pathlib import Path

from tidegate.fetch.layout import Probe

HEAD_BYTES = 64 << 10
TEXT_BYTES = 1 << 20
"""Scripts are read whole up to this size: the class they are known by may stand at their end."""
MAX_MEMBERS = 10_000


def probe_tree(root: Path, sizes: dict[str, int]) -> tuple[Probe, ...]:
    """Head, tail and (for zip files) member names of each file.

    Args:
        root: of the tree.
        sizes: path below the root to bytes.
    """
    return tuple(_probe(root / path, path, size) for path, size in sorted(sizes.items()))


def _probe(file: Path, path: str, size: int) -> Probe:
    head_bytes = TEXT_BYTES if path.endswith(".py") else HEAD_BYTES
    with file.open("rb") as f:
        head = f.read(head_bytes)
        tail = b""
        if size > len(head):
            f.seek(-min(HEAD_BYTES, size - len(head)), os.SEEK_END)
            tail = f.read(HEAD_BYTES)
    members: tuple[str, ...] = ()
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(file) as z:
                members = tuple(z.namelist()[:MAX_MEMBERS])
        except (zipfile.BadZipFile, OSError, NotImplementedError):
            members = ()
    return Probe(path, size, head, tail, members)
