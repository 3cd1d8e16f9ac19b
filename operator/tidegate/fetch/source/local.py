"""``pvc://claim/path`` and ``image:///path``: files that are already in this container.

A claim is mounted whole and read-only at the request's ``source`` folder, the URI's path selects
in it. For a path in the runtime image an init container before this one has copied what lies
there, so the folder itself is the model.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tidegate.fetch.errors import (
    AccessDenied,
    ArtifactInvalid,
    ConfigInvalid,
    SourceNotFound,
    SourceUnreachable,
)
from tidegate.fetch.source import Context, Listing, RemoteFile
from tidegate.fetch.source.http import CHUNK, URI_FIELD

MAX_DEPTH = 32


def open_source(context: Context) -> "LocalSource":
    """See `tidegate.fetch.source.open_source`."""
    request = context.request
    if request.source is None:
        raise ConfigInvalid(
            "fetch.json source", "null", f"{request.scheme} needs a mount", "Report this as a bug"
        )
    root = request.source
    if request.scheme == "image":
        return LocalSource(root, "", request.uri)
    path = unquote(urlsplit(request.uri).path).strip("/")
    if any(part == ".." for part in path.split("/")):
        raise ConfigInvalid(URI_FIELD, request.uri, "the path holds '..'", "Correct the path")
    return LocalSource(root, path, request.uri)


class LocalSource:
    """A folder or a file below a mount; links are followed as long as they stay in the mount."""

    def __init__(self, root: Path, path: str, uri: str) -> None:
        """``root`` is the mount, ``path`` relative to it (empty: the whole)."""
        self._root = root.resolve()
        self._start = root / path if path else root
        self._uri = uri

    async def listing(self) -> Listing:
        """Files with size and time of change."""
        return await asyncio.to_thread(self._list)

    def _list(self) -> Listing:
        try:
            if self._inside(self._start).is_file():
                file = self._file(self._start, self._start.name)
                return Listing((file,), single=True)
            files = self._walk(self._start, "", 0)
        except FileNotFoundError:
            raise SourceNotFound(
                URI_FIELD, self._uri, "no such path", "Correct the path, or put the model there"
            ) from None
        except PermissionError as exc:
            raise AccessDenied(
                URI_FIELD,
                self._uri,
                f"{exc.filename} cannot be read by user {os.getuid()}",
                "Make the files readable to all, or to the pod's fsGroup",
            ) from exc
        return Listing(tuple(files))

    def _walk(self, folder: Path, prefix: str, depth: int) -> list[RemoteFile]:
        if depth > MAX_DEPTH:
            raise ArtifactInvalid(
                URI_FIELD, f"{self._uri} {prefix}", "folders too deep", "Look for a loop of links"
            )
        files: list[RemoteFile] = []
        for entry in sorted(self._inside(folder).iterdir(), key=lambda p: p.name):
            path = f"{prefix}{entry.name}"
            if entry.name == "lost+found":
                continue
            real = self._inside(entry)
            mode = real.stat().st_mode
            if stat.S_ISDIR(mode):
                files += self._walk(entry, path + "/", depth + 1)
            elif stat.S_ISREG(mode):
                files.append(self._file(entry, path))
            else:
                raise ArtifactInvalid(
                    URI_FIELD, path, "it is neither file nor folder", "Take it out of the model"
                )
        return files

    def _inside(self, path: Path) -> Path:
        """The real path.

        Raises:
            ArtifactInvalid: a link leads out of the mount.
        """
        try:
            real = path.resolve(strict=True)
        except RuntimeError:
            raise ArtifactInvalid(
                URI_FIELD, path.name, "a loop of links", "Take it out of the model"
            ) from None
        if real != self._root and self._root not in real.parents:
            raise ArtifactInvalid(
                URI_FIELD,
                path.name,
                "it is a link that leads out of the mounted volume",
                "Put the file itself there",
            )
        return real

    def _file(self, path: Path, name: str) -> RemoteFile:
        info = path.stat()
        version = f"{info.st_size}-{info.st_mtime_ns}-{info.st_ino}"
        return RemoteFile(name, info.st_size, version, str(path))

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """See `Source.read`."""
        left = length
        try:
            fd = os.open(self._inside(Path(file.key)), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            raise SourceUnreachable(
                URI_FIELD, file.path, f"cannot be opened ({exc.strerror})", "Check the volume"
            ) from exc
        try:
            while left is None or left > 0:
                want = CHUNK if left is None else min(CHUNK, left)
                try:
                    chunk = await asyncio.to_thread(os.pread, fd, want, offset)
                except OSError as exc:
                    raise SourceUnreachable(
                        URI_FIELD, file.path, f"cannot be read ({exc.strerror})", "Check the volume"
                    ) from exc
                if not chunk:
                    return
                yield chunk
                offset += len(chunk)
                left = None if left is None else left - len(chunk)
        finally:
            os.close(fd)

    async def close(self) -> None:
        """Nothing is open."""
