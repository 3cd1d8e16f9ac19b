"""Model files in an S3 store, below a prefix that their digest names.

A manifest is written only after the last file has arrived, and what a prefix holds never changes,
so nobody can fetch half of a model. A run that was cut off goes on: what is there with the same
digest is not sent again.
"""

import asyncio
import os
from typing import Any, Final

from tidegate.fetch.digest import file_sha256
from tidegate.preparation.errors import INSTALL
from tidegate.preparation.publish.target import (
    REPORT_SUFFIX,
    Files,
    Sent,
    StoreError,
    Tell,
    below,
    parsed,
)

DIGEST: Final = "sha256"
"""Of an object, in its metadata."""


class Store:
    """A prefix of a bucket. Nothing in it can be followed but by its name: announces nothing.

    Args:
        uri: ``s3://bucket/prefix``.
        endpoint: of the store, where it is not the public one.
        tell: is told what is sent.
    """

    def __init__(self, uri: str, endpoint: str, tell: Tell) -> None:
        parsed(uri)
        self._prefix, self._endpoint, self._tell = uri, endpoint, tell
        self._uri = ""

    def send(self, files: Files, sha256: str) -> Sent:
        """See `Target.send`."""
        self._uri = below(self._prefix, sha256)
        sent = upload(files, self._uri, endpoint=self._endpoint, tell=self._tell)
        return Sent(self._uri, self._endpoint, sent)

    def file(self, papers: Files) -> None:
        """See `Target.file`: below a prefix beside the model's; those of the last run stay."""
        upload(papers, f"{self._uri}{REPORT_SUFFIX}", endpoint=self._endpoint, tell=self._tell)

    def announce(self) -> str:
        """See `Target.announce`."""
        return ""


def upload(
    files: Files,
    uri: str,
    *,
    endpoint: str = "",
    tell: Tell = lambda text: None,
) -> int:
    """Send files, and check that they are there.

    Credentials are those of the environment, as every S3 tool reads them.

    Args:
        files: by path below the prefix.
        uri: ``s3://bucket/prefix``.
        endpoint: of the store, where it is not the public one.
        tell: is told what is sent.

    Returns:
        How many files were sent; those that were there already are not.

    Raises:
        StoreError: it did not work; sent files stay, and a later call goes on.
    """
    return asyncio.run(_upload(files, uri, endpoint, tell))


async def _upload(files: Files, uri: str, endpoint: str, tell: Tell) -> int:
    try:
        import s3fs
    except ModuleNotFoundError:
        raise StoreError(f"s3fs is not installed: {INSTALL}") from None
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
