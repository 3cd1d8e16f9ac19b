"""``https://host/path``: one file, or one archive with a model folder.

Secret keys: ``token`` (sent as bearer), or ``username`` and ``password``.
"""

import base64
import re
from collections.abc import AsyncIterator
from urllib.parse import unquote, urlsplit

from tidegate.fetch.errors import ChangedWhileReading, ConfigInvalid, SourceUnreachable, redact
from tidegate.fetch.source import Context, Listing, RemoteFile
from tidegate.fetch.source.http import URI_FIELD, Http

KEYS = "token, or username and password"


def open_source(context: Context) -> "HttpsSource":
    """See `tidegate.fetch.source.open_source`."""
    return HttpsSource(context)


class HttpsSource:
    """A file on a web server."""

    def __init__(self, context: Context) -> None:
        """Check the address and read the credentials."""
        self._url = context.request.uri
        parts = urlsplit(self._url)
        self._name = unquote(parts.path).rpartition("/")[2]
        if not parts.hostname or not self._name or parts.username:
            raise ConfigInvalid(
                URI_FIELD,
                redact(self._url),
                "it must be https://host/path/file, without user name",
                "Name one file or one archive (.tar, .tar.gz, .tar.zst, .zip)",
            )
        self._secret_headers = auth_headers(context)
        self._http = Http(context.addresses, context.trust, context.credentials, KEYS)

    async def listing(self) -> Listing:
        """One file; its size and whether ranges work are learned by asking for one byte."""
        async with self._http.get(
            self._url, {"Range": "bytes=0-0"}, self._secret_headers, frozenset({200, 206, 416})
        ) as response:
            total = re.fullmatch(r"bytes .*/(\d+)", response.headers.get("Content-Range", ""))
            version = response.headers.get("ETag") or response.headers.get("Last-Modified")
            if response.status == 206 and total:
                size: int | None = int(total[1])
            elif response.status == 416:
                size = 0
            else:
                size = response.content_length
            file = RemoteFile(self._name, size, version, self._url)
            return Listing((file,), ranges=response.status == 206, single=True)

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """See `Source.read`."""
        async for chunk in read_range(self._http, file, offset, length, self._secret_headers):
            yield chunk

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def auth_headers(context: Context) -> dict[str, str]:
    """The Authorization header from ``token`` or ``username`` and ``password``; may be empty."""
    credentials = context.credentials
    if token := credentials.get("token"):
        return {"Authorization": f"Bearer {token}"}
    if user := credentials.get("username"):
        password = credentials.need("password", purpose="basic authentication")
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}


async def read_range(
    http: Http,
    file: RemoteFile,
    offset: int,
    length: int | None,
    secret_headers: dict[str, str],
    headers: dict[str, str] | None = None,
) -> AsyncIterator[bytes]:
    """Read a range of ``file.key``, sure that it is still the same version.

    Raises:
        ChangedWhileReading: the file changed meanwhile.
    """
    sent = dict(headers or {})
    whole = offset == 0 and (length is None or length == file.size)
    if not whole:
        sent["Range"] = f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))
        if file.version and file.version.startswith('"'):
            sent["If-Range"] = file.version  # strong ETags only, RFC 9110 section 13.1.5
    async with http.get(file.key, sent, secret_headers) as response:
        now = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if file.version and now and now != file.version:
            raise moved_while_reading(redact(file.key))
        if not whole and response.status != 206:
            raise SourceUnreachable(
                URI_FIELD, redact(file.key), "a range was answered with the whole", "Try again"
            )
        async for chunk in http.chunks(response, file.key):
            yield chunk


def moved_while_reading(shown: str) -> ChangedWhileReading:
    """The error for bytes that change between listing and reading."""
    return ChangedWhileReading(
        URI_FIELD,
        shown,
        "it was overwritten while it was being read",
        "Publish each version under an address of its own",
    )
