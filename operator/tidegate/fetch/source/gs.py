"""``gs://bucket/prefix`` (gcsfs).

Secret key: ``credentials.json`` (a service account's key; ``GOOGLE_APPLICATION_CREDENTIALS`` is
taken as another name for it). Without a Secret: anonymous.
"""

import json
import os
from collections.abc import AsyncIterator
from typing import Any

from tidegate.fetch.address import refusal_in
from tidegate.fetch.errors import (
    AccessDenied,
    FetchError,
    SourceNotFound,
    SourceUnreachable,
)
from tidegate.fetch.source import Context, Listing, RemoteFile
from tidegate.fetch.source.http import URI_FIELD
from tidegate.fetch.source.prefix import bucket_and_path, list_prefix

KEYS = "credentials.json"
BLOCK_BYTES = 8 << 20


def open_source(context: Context, uri: str | None = None) -> "GsSource":
    """See `tidegate.fetch.source.open_source`; ``uri`` instead of the request's own."""
    return GsSource(context, uri or context.request.uri)


class GsSource:
    """Objects below a prefix, or one object."""

    def __init__(self, context: Context, uri: str) -> None:
        """Check the URI and read the credentials."""
        self._uri = uri
        self._bucket, self._prefix = bucket_and_path(uri)
        self._context = context
        self._token = _token(context)
        self._fs: Any = None

    async def listing(self) -> Listing:
        """The objects; generations as versions."""
        try:
            return await list_prefix(self._open(), self._bucket, self._prefix, self._uri, _version)
        except Exception as exc:
            raise _translate(exc, self._context, self._uri) from exc

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """See `Source.read`; each piece is one request for a range of one generation."""
        end = file.size if length is None else offset + length
        assert end is not None
        while offset < end:
            stop = min(end, offset + BLOCK_BYTES)
            try:
                data = await self._open()._cat_file(
                    file.key, start=offset, end=stop, generation=file.version
                )
            except Exception as exc:
                raise _translate(exc, self._context, self._uri) from exc
            if not data:
                return
            yield bytes(data)
            offset += len(data)

    async def close(self) -> None:
        """Close the connections."""
        if self._fs is not None and self._fs._session is not None:
            await self._fs._session.close()

    def _open(self) -> Any:
        if self._fs is None:
            os.environ["NO_GCE_CHECK"] = "true"  # google-auth: no look for a metadata server
            # The plain JSON API: the extension speaks gRPC, whose sockets no policy reaches.
            os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
            from gcsfs.core import GCSFileSystem

            self._fs = GCSFileSystem(
                project="tidegate",  # only used when buckets are listed or made
                access="read_only",
                token=self._token,
                endpoint_url=self._context.request.endpoint,
                asynchronous=True,
                skip_instance_cache=True,
                use_listings_cache=False,
                session_kwargs={"trust_env": True},
            )
        return self._fs


def _token(context: Context) -> Any:
    """What gcsfs takes as token: a service account's key, or a word for a way to log in."""
    text = context.credentials.get(KEYS, "GOOGLE_APPLICATION_CREDENTIALS")
    if text is not None:
        try:
            key = json.loads(text)
        except ValueError:
            key = None
        # Other kinds of key (an external account's) may name files and programs to run.
        if not isinstance(key, dict) or key.get("type") != "service_account":
            raise context.credentials.missing(f"{KEYS} (JSON of a service account)", "gs")
        return key
    if context.credentials.mounted:
        raise context.credentials.missing(KEYS, "gs")
    return "anon"


def _version(info: dict[str, Any]) -> str | None:
    value = info.get("generation")
    return str(value) if value else None


def _translate(exc: Exception, context: Context, uri: str) -> FetchError:
    if known := refusal_in(exc):
        return known
    code = getattr(exc, "code", 0)
    names = {c.__name__ for c in type(exc).__mro__}
    if isinstance(exc, FileNotFoundError) or code == 404:
        return SourceNotFound(URI_FIELD, uri, "no such bucket or object", "Correct the address")
    if isinstance(exc, PermissionError) or code in (401, 403) or "RefreshError" in names:
        if not context.credentials.mounted:
            return context.credentials.missing(KEYS, uri)
        return AccessDenied(
            URI_FIELD,
            uri,
            f"the store refuses this account ({str(exc)[:120]})",
            "Give it the role Storage Object Viewer on the bucket",
        )
    return SourceUnreachable(
        URI_FIELD,
        uri,
        f"the store does not answer properly ({str(exc)[:200] or type(exc).__name__})",
        "Check the address and that pods may reach it",
    )
