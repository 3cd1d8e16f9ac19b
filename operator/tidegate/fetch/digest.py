r"""The digest of a file tree: canonical, and reproducible with ordinary tools.

For every regular file one line, sorted by path as bytes: the file's SHA-256 in hex, two blanks,
the path relative to the root, a newline. The digest is the SHA-256 of these lines. So it is what

    find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum

prints in the folder. Empty folders, times, owners and modes do not count.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

BLOCK = 1 << 20


def manifest_lines(files: Mapping[str, str]) -> str:
    """The canonical text of a tree.

    Args:
        files: path relative to the root, with ``/``, to SHA-256 in lower-case hex.
    """
    ordered = sorted(files.items(), key=lambda item: item[0].encode())
    return "".join(f"{sha256}  {path}\n" for path, sha256 in ordered)


def tree_digest(files: Mapping[str, str]) -> str:
    """The digest of a tree, as 64 hex characters; see `manifest_lines`."""
    return hashlib.sha256(manifest_lines(files).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes in hex, in constant memory."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
