"""The page's own files, read once: HTML, scripts, style."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "static"
INDEX: Final = "index.html"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Only these are served."""


@dataclass(frozen=True)
class File:
    """One file.

    Attributes:
        content: its bytes.
        packed: the same in gzip.
        type: its media type.
        tag: changes with its content.
    """

    content: bytes
    packed: bytes
    type: str
    tag: str


def load(folder: Path = FOLDER) -> dict[str, File]:
    """All files by their path below the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in TYPES:
            content = path.read_bytes()
            found[path.relative_to(folder).as_posix()] = File(
                content,
                gzip.compress(content, 9, mtime=0),
                TYPES[path.suffix],
                f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            )
    return found
