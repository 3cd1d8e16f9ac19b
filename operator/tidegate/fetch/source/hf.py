"""``hf://org/name[@revision][/folder]``: a repository of a Hugging Face hub.

The hub's API is asked through huggingface-hub; the bytes come through this package's own HTTP, so
that they resume, run in parallel, and every redirect to the hub's file servers is judged. (The
library's own fast path, hf-xet, opens sockets outside Python, where no policy reaches.)
All files come from the one commit that the revision pointed at when it was listed.

Secret key: ``HF_TOKEN`` (or ``token``). ``endpoint``: another hub, or a mirror of one.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from tidegate.fetch.address import refusal_in
from tidegate.fetch.errors import (
    AccessDenied,
    ConfigInvalid,
    FetchError,
    SourceNotFound,
    SourceUnreachable,
)
from tidegate.fetch.source import Context, Listing, RemoteFile
from tidegate.fetch.source.http import URI_FIELD, Http
from tidegate.fetch.source.https import read_range

KEYS = "HF_TOKEN"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_URI = re.compile(
    rf"hf://(?P<repo>{_PART}/{_PART})(@(?P<revision>[A-Za-z0-9][^/@?#]*))?(/(?P<path>[^?#]*))?",
    re.IGNORECASE,
)


def open_source(context: Context) -> "HfSource":
    """See `tidegate.fetch.source.open_source`."""
    return HfSource(context)


class HfSource:
    """A hub's model repository at one commit."""

    def __init__(self, context: Context) -> None:
        """Check the URI and read the token."""
        uri = context.request.uri
        match = _URI.fullmatch(uri)
        if match is None:
            raise ConfigInvalid(
                URI_FIELD,
                uri,
                "it must be hf://org/name, with @revision and /folder if wanted",
                "Correct it",
            )
        self._uri = uri
        self._repo = match["repo"]
        self._revision = match["revision"]
        path = (match["path"] or "").strip("/")
        self._prefix = f"{path}/" if path else ""
        self._context = context
        self._token = context.credentials.get("HF_TOKEN", "token")
        self._http = Http(context.addresses, context.trust, context.credentials, KEYS)
        self._api: Any = None

    async def listing(self) -> Listing:
        """The files of the commit, with SHA-256 where the hub stores them as large files."""
        try:
            info = await asyncio.to_thread(self._info)
        except Exception as exc:
            raise self._translate(exc) from exc
        headers_url = f"{self._api.endpoint}/{self._repo}/resolve/{info.sha}"
        files = []
        for entry in info.siblings or ():
            name = entry.rfilename
            if not name.startswith(self._prefix) and name != self._prefix.rstrip("/"):
                continue
            path = name[len(self._prefix) :] or name.rpartition("/")[2]
            lfs = entry.lfs
            files.append(
                RemoteFile(
                    path,
                    entry.size,
                    # The commit is in the address, so the file behind it cannot change.
                    version=None if entry.blob_id is None else str(entry.blob_id),
                    key=f"{headers_url}/{quote(name)}",
                    sha256=None if lfs is None else str(lfs.sha256),
                )
            )
        if not files:
            raise SourceNotFound(
                URI_FIELD, self._uri, f"commit {info.sha} has no files there", "Correct the path"
            )
        folder = f"/{self._prefix.rstrip('/')}" if self._prefix else ""
        return Listing(
            tuple(files),
            single=len(files) == 1 and bool(self._prefix),
            address=f"hf://{self._repo}@{info.sha}{folder}" if info.sha else None,
        )

    def _info(self) -> Any:
        # No cache, token file or statistics of the library's own: its home is not writable.
        os.environ.update(
            HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_IMPLICIT_TOKEN="1", HF_HUB_DISABLE_XET="1"
        )
        import httpx2
        import huggingface_hub

        if self._api is None:
            context = self._context.trust.ssl_context()
            huggingface_hub.set_client_factory(
                lambda: httpx2.Client(verify=context, follow_redirects=True, timeout=60)
            )
            self._api = huggingface_hub.HfApi(
                endpoint=self._context.request.endpoint, token=self._token or False
            )
        return self._api.model_info(
            self._repo, revision=self._revision, files_metadata=True, timeout=60
        )

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """See `Source.read`."""
        secret = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        # ETags here are those of the file servers behind redirects, not blob ids.
        plain = RemoteFile(file.path, file.size, None, file.key)
        async for chunk in read_range(self._http, plain, offset, length, secret):
            yield chunk

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()
        if self._api is not None:
            import huggingface_hub

            huggingface_hub.close_session()

    def _translate(self, exc: Exception) -> FetchError:
        if known := refusal_in(exc):
            return known
        names = {c.__name__ for c in type(exc).__mro__}
        status = getattr(getattr(exc, "response", None), "status_code", 0)
        if "GatedRepoError" in names or status == 403:
            if self._token is None:
                return self._context.credentials.missing(KEYS, self._uri)
            return AccessDenied(
                URI_FIELD,
                self._uri,
                "the token's owner may not read this repository",
                "Ask for access on the repository's page, or use another token",
            )
        if "RevisionNotFoundError" in names:
            return SourceNotFound(URI_FIELD, self._uri, "no such revision", "Correct it")
        if "RepositoryNotFoundError" in names or status in (401, 404):
            hint = "" if self._token else "; a private one needs a Secret with HF_TOKEN"
            return SourceNotFound(
                URI_FIELD, self._uri, f"no such repository{hint}", "Correct the name"
            )
        if "HFValidationError" in names:
            return ConfigInvalid(URI_FIELD, self._uri, str(exc)[:200], "Correct the name")
        return SourceUnreachable(
            URI_FIELD,
            self._uri,
            f"the hub does not answer properly ({str(exc)[:200] or type(exc).__name__})",
            "Check the endpoint and that pods may reach it",
        )
