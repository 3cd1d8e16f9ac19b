"""What object stores have in common: a bucket and a prefix, listed through fsspec."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from tidegate.fetch.errors import ConfigInvalid
from tidegate.fetch.source import Listing, RemoteFile
from tidegate.fetch.source.http import URI_FIELD


def bucket_and_path(uri: str) -> tuple[str, str]:
    """``("bucket", "a/b")`` of ``scheme://bucket/a/b/``.

    Raises:
        ConfigInvalid: it names no bucket or no path.
    """
    parts = urlsplit(uri)
    path = unquote(parts.path).strip("/")
    if not parts.netloc or not path or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigInvalid(
            URI_FIELD,
            uri,
            f"it must be {parts.scheme}://bucket/path",
            "Name a bucket and the model's folder or file in it",
        )
    return parts.netloc, path


async def list_prefix(
    fs: Any,
    bucket: str,
    prefix: str,
    uri: str,
    version: Callable[[dict[str, Any]], str | None],
) -> Listing:
    """The objects ``bucket/prefix/...``, or the one object ``bucket/prefix``.

    Args:
        fs: an asynchronous fsspec file system.
        bucket: without slashes.
        prefix: without slash at its ends.
        uri: for messages.
        version: the version that an entry's details tell.

    Raises:
        FileNotFoundError: there is nothing.
    """
    root = f"{bucket}/{prefix}"
    found: dict[str, dict[str, Any]] = await fs._find(root, detail=True)
    files = [
        RemoteFile("", int(info["size"]), version(info), key)
        for key, info in found.items()
        if info["type"] != "directory"
    ]
    return below_prefix(files, root, uri)


def below_prefix(found: Iterable[RemoteFile], root: str, uri: str) -> Listing:
    """The listing of what lies below a prefix.

    Args:
        found: with their keys; what does not lie below is left out.
        root: the prefix as it begins a key. It counts as a folder: ``v1`` never means ``v10``.
        uri: for messages.

    Raises:
        FileNotFoundError: there is nothing.
    """
    files, single = [], None
    for file in found:
        if file.key.endswith("/"):
            continue  # a marker that consoles write for an empty folder
        if file.key == root:
            single = replace(file, path=root.rpartition("/")[2])
        elif file.key.startswith(root + "/"):
            files.append(replace(file, path=file.key[len(root) + 1 :]))
    if files:
        return Listing(tuple(files))
    if single is None:
        raise FileNotFoundError(uri)
    return Listing((single,), single=True)
