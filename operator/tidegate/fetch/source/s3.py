"""``s3://bucket/prefix`` or ``s3://bucket/key``, on AWS or any store that speaks S3 (s3fs).

Secret keys: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, optional ``AWS_SESSION_TOKEN``.
Without a Secret: an identity that the cloud's webhook put into this container's environment (a web
identity, or the address of EKS' Pod Identity agent), in the region that it put there, too;
otherwise anonymous.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

from tidegate.fetch.address import AGENT_VARIABLE, refusal_in
from tidegate.fetch.errors import (
    AccessDenied,
    ArtifactInvalid,
    FetchError,
    SourceNotFound,
    SourceUnreachable,
)
from tidegate.fetch.source import Context, Listing, RemoteFile
from tidegate.fetch.source.http import CHUNK, URI_FIELD
from tidegate.fetch.source.https import moved_while_reading
from tidegate.fetch.source.prefix import bucket_and_path, list_prefix

KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
IDENTITY = ("AWS_WEB_IDENTITY_TOKEN_FILE", AGENT_VARIABLE)
"""Variables of this container that say that it has an identity of its own."""
DEFAULT_REGION = "us-east-1"  # what S3-compatible stores take when they have no regions
_NOT_FOUND = frozenset({"NoSuchKey", "NoSuchBucket", "404", "NotFound"})
_DENIED = frozenset(
    {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
    | {"ExpiredToken", "InvalidToken", "AllAccessDisabled", "AuthorizationHeaderMalformed"}
)


def open_source(context: Context) -> "S3Source":
    """See `tidegate.fetch.source.open_source`."""
    return S3Source(context)


class S3Source:
    """Objects below a prefix, or one object."""

    def __init__(self, context: Context, uri: str | None = None) -> None:
        """Read credentials and prepare the client.

        Args:
            context: the request.
            uri: instead of the request's own (an MLflow registry's answer).
        """
        self._uri = uri or context.request.uri
        self._bucket, self._prefix = bucket_and_path(self._uri)
        self._context = context
        self._fs: Any = None

    async def listing(self) -> Listing:
        """The objects; ETags as versions."""
        fs = self._open()
        try:
            return await list_prefix(fs, self._bucket, self._prefix, self._uri, _version)
        except Exception as exc:
            raise self._translate(exc) from exc

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """See `Source.read`; the store itself checks that the object is still the same."""
        end = "" if length is None else str(offset + length - 1)
        match = {"IfMatch": file.version} if file.version else {}
        fs = self._open()
        bucket, _, key = file.key.partition("/")
        try:
            answer = await fs._call_s3(
                "get_object", Bucket=bucket, Key=key, Range=f"bytes={offset}-{end}", **match
            )
            async with answer["Body"] as body:
                while chunk := await body.read(CHUNK):
                    yield chunk
        except Exception as exc:
            raise self._translate(exc) from exc

    async def close(self) -> None:
        """Close the connections."""
        if self._fs is not None and self._fs._s3 is not None:
            await self._fs._s3.close()

    def _open(self) -> Any:
        if self._fs is not None:
            return self._fs
        import s3fs

        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
        request, credentials = self._context.request, self._context.credentials
        options: dict[str, Any] = {}
        if credentials.mounted:
            options["key"] = credentials.need("AWS_ACCESS_KEY_ID", purpose="s3")
            options["secret"] = credentials.need("AWS_SECRET_ACCESS_KEY", purpose="s3")
            options["token"] = credentials.get("AWS_SESSION_TOKEN")
        else:
            options["anon"] = not any(os.environ.get(name) for name in IDENTITY)
        endpoint = request.endpoint or credentials.get("AWS_ENDPOINT_URL")
        region = request.region or credentials.get("AWS_REGION", "AWS_DEFAULT_REGION")
        if region is None and not options.get("anon", True):
            # The webhooks say where the cluster is; they know nothing of a Secret's store.
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._fs = s3fs.S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            use_listings_cache=False,
            endpoint_url=endpoint,
            client_kwargs={
                "region_name": region or DEFAULT_REGION,
                **({"verify": str(b)} if (b := self._context.trust.bundle) else {}),
            },
            # Trying again is done in one place, with its log line.
            config_kwargs={
                "retries": {"total_max_attempts": 1},
                "connect_timeout": 15,
                "read_timeout": 60,
                # Stores other than AWS know path-style addresses only.
                "s3": {"addressing_style": "path" if endpoint else "auto"},
            },
            **options,
        )
        self._fs.retries = 1
        return self._fs

    def _translate(self, exc: Exception) -> FetchError:
        if known := refusal_in(exc):
            return known
        code, status = _code(exc)
        shown = self._uri
        if isinstance(exc, FileNotFoundError) or code in _NOT_FOUND:
            return SourceNotFound(
                URI_FIELD, shown, "no such bucket or key", "Correct the address, or upload it"
            )
        if code in ("PreconditionFailed", "412") or status == 412:
            return moved_while_reading(shown)
        if isinstance(exc, PermissionError) or code in _DENIED:
            if not self._context.credentials.mounted:
                return self._context.credentials.missing(KEYS, shown)
            return AccessDenied(
                URI_FIELD,
                shown,
                f"the store refuses these credentials ({code or exc})",
                "Check the Secret's keys and that they may list and read this prefix",
            )
        if type(exc).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            return self._context.credentials.missing(KEYS, shown)
        if type(exc).__name__ in ("ParamValidationError", "InvalidRegionError"):
            return ArtifactInvalid(URI_FIELD, shown, str(exc), "Correct the address or region")
        endpoint = self._context.request.endpoint
        return SourceUnreachable(
            "spec.model.source.endpoint" if endpoint else URI_FIELD,
            endpoint or shown,
            f"the store does not answer properly ({str(exc)[:200] or type(exc).__name__})",
            "Check the address and that pods may reach it",
        )


def _version(info: dict[str, Any]) -> str | None:
    etag = info.get("ETag")
    return str(etag) if etag else None


def _code(exc: BaseException) -> tuple[str, int]:
    """S3's error code and the HTTP status, through s3fs's translation."""
    while exc is not None:
        response = getattr(exc, "response", None)
        if isinstance(response, dict):
            return (
                str(response.get("Error", {}).get("Code", "")),
                int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
            )
        if exc.__cause__ is None:
            break
        exc = exc.__cause__
    return "", 0
