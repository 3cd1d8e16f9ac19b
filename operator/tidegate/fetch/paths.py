"""Names of files inside a model: what is accepted from a source or an archive."""

import re
from collections.abc import Iterable

from tidegate.fetch.errors import ArtifactInvalid

MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255  # NAME_MAX of Linux file systems
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def why_unsafe(path: str) -> str | None:
    """What is wrong with a relative path; None if it may be written below a folder."""
    if not path:
        return "it is empty"
    if _CONTROL.search(path) or "\\" in path:
        return "it holds a control character or a backslash"
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "it is absolute"
    parts = path.split("/")
    if any(p in ("", ".", "..") for p in parts):
        return "it holds an empty, '.' or '..' part"
    try:
        sizes = [len(p.encode()) for p in parts]
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if max(sizes) > MAX_NAME_BYTES or sum(sizes) + len(sizes) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes, or a part than {MAX_NAME_BYTES}"
    return None


def check_paths(paths: Iterable[str], where: str) -> None:
    """Refuse paths that cannot all be files below one folder.

    Raises:
        ArtifactInvalid: one is unsafe, comes twice, or is a file and a folder at once.
    """
    seen: set[str] = set()
    for path in paths:
        problem = why_unsafe(path) or ("it comes twice" if path in seen else None)
        if problem:
            raise ArtifactInvalid(where, path, problem, "Rename the file at the source")
        seen.add(path)
    for path in seen:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in seen:
                raise ArtifactInvalid(
                    where, parent, f"it is a file, and a folder of {path!r}", "Rename one of them"
                )
            parent = parent.rpartition("/")[0]
