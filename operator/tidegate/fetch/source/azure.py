"""``as://account/container/prefix``: Azure Blob Storage, as Triton itself writes it.

Through Azure's own client library: adlfs leaves its clean-up to interpreter shutdown, where it
fails, and cannot ask for one version of a blob.

Secret keys: ``AZURE_STORAGE_KEY``, or ``AZURE_STORAGE_SAS_TOKEN``, or
``AZURE_STORAGE_CONNECTION_STRING``, or ``AZURE_TENANT_ID``, ``AZURE_CLIENT_ID`` and
``AZURE_CLIENT_SECRET``. Without a Secret: anonymous. ``endpoint``: another blob endpoint.
"""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote, urlsplit

from tidegate.fetch.address import refusal_in
from tidegate.fetch.errors import (
    AccessDenied,
    ConfigInvalid,
    FetchError,
    SourceNotFound,
    SourceUnreachable,
)
from tidegate.fetch.source import Context, Listing, RemoteFile
from tidegate.fetch.source.http import URI_FIELD
from tidegate.fetch.source.https import moved_while_reading
from tidegate.fetch.source.prefix import below_prefix

KEYS = "AZURE_STORAGE_KEY"


def open_source(context: Context, uri: str | None = None) -> "AzureSource":
    """See `tidegate.fetch.source.open_source`; ``uri`` instead of the request's own."""
    return AzureSource(context, uri or context.request.uri)


class AzureSource:
    """Blobs below a prefix, or one blob."""

    def __init__(self, context: Context, uri: str) -> None:
        """Check the URI and that the Secret has what it needs."""
        parts = urlsplit(uri)
        container, _, prefix = unquote(parts.path).strip("/").partition("/")
        if not parts.netloc or not container or not prefix or parts.query or "@" in parts.netloc:
            raise ConfigInvalid(
                URI_FIELD, uri, "it must be as://account/container/path", "Name all three"
            )
        self._uri = uri
        self._account, self._container, self._prefix = parts.netloc, container, prefix
        self._context = context
        self._credential: Any = None
        self._client: Any = None
        _check(context, parts.netloc)

    async def listing(self) -> Listing:
        """The blobs; ETags as versions."""
        found = []
        try:
            async for blob in self._open().list_blobs(name_starts_with=self._prefix):
                if not (blob.metadata or {}).get("hdi_isfolder"):
                    found.append(RemoteFile("", int(blob.size), str(blob.etag), blob.name))
            return below_prefix(found, self._prefix, self._uri)
        except Exception as exc:
            raise self._translate(exc) from exc

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """See `Source.read`; the store itself checks that the blob is still the same."""
        from azure.core import MatchConditions

        if length == 0 or file.size == 0:
            return
        try:
            stream = await self._open().download_blob(
                file.key,
                offset=offset,
                length=length,
                max_concurrency=1,
                etag=file.version,
                match_condition=MatchConditions.IfNotModified,
            )
            async for chunk in stream.chunks():
                yield chunk
        except Exception as exc:
            raise self._translate(exc) from exc

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
        if hasattr(self._credential, "close"):
            await self._credential.close()

    def _open(self) -> Any:
        if self._client is not None:
            return self._client
        from azure.storage.blob.aio import ContainerClient

        bundle = self._context.trust.bundle
        options: dict[str, Any] = {
            "connection_timeout": 15,
            "read_timeout": 60,
            "retry_total": 0,  # trying again is done in one place, with its log line
            "connection_verify": str(bundle) if bundle else True,
            "max_single_get_size": 4 << 20,
            "max_chunk_get_size": 4 << 20,
        }
        text = self._context.credentials.get("AZURE_STORAGE_CONNECTION_STRING")
        if text is not None:
            self._client = ContainerClient.from_connection_string(text, self._container, **options)
            return self._client
        endpoint = self._context.request.endpoint
        self._credential = self._make_credential()
        self._client = ContainerClient(
            endpoint or f"https://{self._account}.blob.core.windows.net",
            self._container,
            credential=self._credential,
            **options,
        )
        return self._client

    def _make_credential(self) -> Any:
        get = self._context.credentials.get
        if text := get("AZURE_STORAGE_SAS_TOKEN"):
            return text.removeprefix("?")
        if text := get(KEYS, "AZURE_STORAGE_ACCOUNT_KEY"):
            return {"account_name": self._account, "account_key": text}
        if text := get("AZURE_CLIENT_ID"):
            from azure.identity.aio import ClientSecretCredential

            return ClientSecretCredential(
                get("AZURE_TENANT_ID") or "", text, get("AZURE_CLIENT_SECRET") or ""
            )
        return None

    def _translate(self, exc: Exception) -> FetchError:
        if known := refusal_in(exc):
            return known
        status = getattr(exc, "status_code", 0)
        names = {c.__name__ for c in type(exc).__mro__}
        uri = self._uri
        if isinstance(exc, FileNotFoundError) or status == 404:
            return SourceNotFound(
                URI_FIELD, uri, "no such account, container or blob", "Correct the address"
            )
        if status == 412:
            return moved_while_reading(uri)
        if "ClientAuthenticationError" in names or status in (401, 403, 409):
            if not self._context.credentials.mounted:
                return self._context.credentials.missing(KEYS, uri)
            return AccessDenied(
                URI_FIELD,
                uri,
                "the store refuses these credentials",
                "Check the Secret; a SAS token must allow read and list",
            )
        if isinstance(exc, ValueError):  # a key that is not base64, a broken connection string
            return self._context.credentials.missing(f"{KEYS} (well formed)", uri)
        return SourceUnreachable(
            URI_FIELD,
            uri,
            f"the store does not answer properly ({str(exc)[:200] or type(exc).__name__})",
            "Check the address and that pods may reach it",
        )


def _check(context: Context, account: str) -> None:
    """Refuse a Secret without any of the keys.

    Raises:
        CredentialsMissing: see the module.
    """
    credentials = context.credentials
    known = ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", KEYS)
    if not credentials.mounted or credentials.get(*known, "AZURE_STORAGE_ACCOUNT_KEY"):
        return
    if credentials.get("AZURE_CLIENT_ID"):
        credentials.need("AZURE_TENANT_ID", purpose=account)
        credentials.need("AZURE_CLIENT_SECRET", purpose=account)
        return
    raise credentials.missing(KEYS, f"storage account {account}")
