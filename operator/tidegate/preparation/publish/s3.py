"""Model files in an S3 store, below a prefix that their digest names.

A manifest is written only after the last file has arrived, and what a prefix holds never changes,
so nobody can fetch half of a model. A run that was cut off goes on: what is there with the same
digest is not sent again.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tidegate.fetch.digest import file_sha256
from tidegate.preparation.errors import PreparationError

DIGEST: Final = "sha256"
"""Of an object, in its metadata."""
SHOWN: Final = 16
"""Digits of the tree's digest in the prefix."""


class StoreError(PreparationError):
    """The store refuses, or is not reached; the text says why."""


def place(prefix: str, sha256: str) -> str:
    """Where a tree lies below a prefix."""
    return f"{prefix.rstrip('/')}/{sha256[:SHOWN]}"


def upload(
    folder: Path,
    uri: str,
    *,
    endpoint: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> int:
    """Send a folder's files, and check that they are there.

    Credentials are those of the environment, as every S3 tool reads them.

    Args:
        folder: whose files.
        uri: ``s3://bucket/prefix``.
        endpoint: of the store, where it is not the public one.
        tell: is told what is sent.

    Returns:
        How many files were sent; those that were there already are not.

    Raises:
        StoreError: it did not work; sent files stay, and a later call goes on.
    """
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return asyncio.run(_upload(files, uri, endpoint, tell))


async def _upload(
    files: Mapping[str, Path], uri: str, endpoint: str, tell: Callable[[str], None]
) -> int:
    try:
        import s3fs
    except ModuleNotFoundError:
        raise StoreError("s3fs is not installed: pip install '.[cli,preparation,fetch]'") from None
    fs: Any = s3fs.S3FileSystem(
        asynchronous=True,
        skip_instance_cache=True,
        use_listings_cache=False,
        endpoint_url=endpoint or os.environ.get("AWS_ENDPOINT_URL") or None,
    )
    root = uri.removeprefix("s3://").rstrip("/")
    sent = 0
    try:
        for name, path in files.items():
            digest, size = file_sha256(path), path.stat().st_size
            if await _there(fs, f"{root}/{name}") == (size, digest):
                continue
            tell(f"sending {name}")
            await fs._put_file(str(path), f"{root}/{name}", Metadata={DIGEST: digest})
            sent += 1
            if await _there(fs, f"{root}/{name}") != (size, digest):
                raise StoreError(f"{uri}/{name} did not arrive whole: run it again")
    except StoreError:
        raise
    except Exception as error:  # botocore's, aiohttp's and s3fs's own have no common base
        raise StoreError(
            f"{uri}: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    finally:
        if fs._s3 is not None:
            await fs._s3.close()
    return sent


async def _there(fs: Any, key: str) -> tuple[int, str] | None:
    """Size and digest of an object; None: there is none."""
    bucket, _, name = key.partition("/")
    try:
        head = await fs._call_s3("head_object", Bucket=bucket, Key=name)
    except FileNotFoundError:
        return None
    return int(head["ContentLength"]), str(head.get("Metadata", {}).get(DIGEST, ""))
