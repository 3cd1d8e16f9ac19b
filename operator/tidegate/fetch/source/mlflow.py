"""``mlflow://model/version`` or ``mlflow://model/@alias``: an MLflow registry, by its REST API.

``endpoint`` is the tracking server. The registry says where the version's files are: with the
server itself (``mlflow-artifacts:``), or in an object store, which is then read with the same
Secret.

Secret keys: ``MLFLOW_TRACKING_TOKEN``, or ``MLFLOW_TRACKING_USERNAME`` and
``MLFLOW_TRACKING_PASSWORD``; and those of the object store.
"""

import base64
import importlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from tidegate.fetch.errors import (
    ArtifactInvalid,
    ConfigInvalid,
    SourceNotFound,
    SourceUnreachable,
    redact,
)
from tidegate.fetch.source import Context, Listing, RemoteFile, Source
from tidegate.fetch.source.http import URI_FIELD, Http
from tidegate.fetch.source.https import read_range

KEYS = "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
API = "api/2.0/mlflow"
ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"
MAX_ANSWER_BYTES = 16 << 20
MAX_FOLDERS = 10_000
_STORES = {"s3": "s3", "gs": "gs"}
_URI = re.compile(r"mlflow://(?P<name>[^/?#]+)/(?P<version>[0-9]+|@[A-Za-z0-9_.-]+)", re.IGNORECASE)


def open_source(context: Context) -> "MlflowSource":
    """See `tidegate.fetch.source.open_source`."""
    return MlflowSource(context)


class MlflowSource:
    """One registered version."""

    def __init__(self, context: Context) -> None:
        """Check the URI and read the credentials."""
        request, credentials = context.request, context.credentials
        match = _URI.fullmatch(request.uri)
        if match is None:
            raise ConfigInvalid(
                URI_FIELD,
                request.uri,
                "it must be mlflow://model/version or mlflow://model/@alias",
                "Correct it",
            )
        if request.endpoint is None:
            raise ConfigInvalid(
                "spec.model.source.endpoint", "<none>", "mlflow needs one", "Name the server"
            )
        self._context = context
        self._uri = request.uri
        self._name, self._version = unquote(match["name"]), match["version"]
        self._server = request.endpoint.rstrip("/")
        self._secret: dict[str, str] = {}
        if token := credentials.get("MLFLOW_TRACKING_TOKEN"):
            self._secret = {"Authorization": f"Bearer {token}"}
        elif user := credentials.get("MLFLOW_TRACKING_USERNAME"):
            password = credentials.need("MLFLOW_TRACKING_PASSWORD", purpose=self._uri)
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._secret = {"Authorization": f"Basic {pair}"}
        self._http = Http(context.addresses, context.trust, credentials, KEYS)
        self._store: Source | None = None

    async def listing(self) -> Listing:
        """The files of the version, wherever the registry keeps them."""
        version = await self._number()
        listing = await self._files(version)
        return replace(listing, address=f"mlflow://{quote(self._name, safe='')}/{version}")

    async def _number(self) -> str:
        """The version's number, which is never given to another."""
        version = self._version
        if version.startswith("@"):
            try:
                answer = await self._ask(
                    f"{API}/registered-models/alias", name=self._name, alias=version[1:]
                )
            except ArtifactInvalid as exc:  # the server answers 400 for an alias it does not know
                raise SourceNotFound(
                    URI_FIELD, self._uri, "no such model or alias", "Set the alias, or correct it"
                ) from exc
            version = str(answer.get("model_version", {}).get("version", ""))
        return version

    async def _files(self, version: str) -> Listing:
        answer = await self._ask(
            f"{API}/model-versions/get-download-uri", name=self._name, version=version
        )
        location = str(answer.get("artifact_uri", ""))
        parts = urlsplit(location)
        if parts.scheme in ("mlflow-artifacts", "http", "https"):
            return await self._proxied(location, f"{self._name}/{version}")
        if parts.scheme in _STORES:
            if self._store is None:
                module = importlib.import_module(f"tidegate.fetch.source.{_STORES[parts.scheme]}")
                self._store = (
                    module.S3Source(_without_endpoint(self._context), location)
                    if parts.scheme == "s3"
                    else module.open_source(_without_endpoint(self._context), location)
                )
            return await self._store.listing()
        raise ArtifactInvalid(
            URI_FIELD,
            self._uri,
            f"the registry keeps its files at {redact(location)!r}, where no pod can read them",
            "Run the server with --serve-artifacts, or with an s3 or gs artifact root",
        )

    async def _proxied(self, location: str, version: str) -> Listing:
        """Files that the tracking server itself hands out."""
        path = urlsplit(location).path.strip("/")
        marker = f"{ARTIFACTS}/"
        root = path.rpartition(marker)[2] if marker in path else path
        files: list[RemoteFile] = []
        folders = [""]
        for count, folder in enumerate(folders):
            if count > MAX_FOLDERS:
                raise ArtifactInvalid(URI_FIELD, self._uri, "too many folders", "Log it anew")
            where = f"{root}/{folder}".rstrip("/")
            answer = await self._ask(ARTIFACTS, path=where)
            for entry in answer.get("files", []):
                # The path is relative to what was asked for.
                name = f"{folder}/{str(entry.get('path', '')).rpartition('/')[2]}".lstrip("/")
                if entry.get("is_dir"):
                    folders.append(name)
                    continue
                size = entry.get("file_size")
                files.append(
                    RemoteFile(
                        name,
                        None if size is None else int(size),
                        # A registered version's files are not changed, as far as MLflow tells.
                        f"{version}:{root}:{size}",
                        f"{self._server}/{ARTIFACTS}/{quote(f'{root}/{name}')}",
                    )
                )
        # The server answers a range with the whole file.
        return Listing(tuple(files), ranges=False)

    async def _ask(self, path: str, /, **query: str) -> dict[str, Any]:
        url = f"{self._server}/{path}?{urlencode(query)}"
        body = bytearray()
        async with self._http.get(url, {}, self._secret) as response:
            async for chunk in self._http.chunks(response, url):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ArtifactInvalid(URI_FIELD, self._uri, "too long an answer", "Check it")
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SourceUnreachable(
                "spec.model.source.endpoint",
                redact(self._server),
                "its answer is not JSON",
                "Name the tracking server's address",
                retryable=False,
            )
        return answer

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """See `Source.read`."""
        if self._store is not None:
            async for chunk in self._store.read(file, offset, length):
                yield chunk
            return
        plain = RemoteFile(file.path, file.size, None, file.key)
        async for chunk in read_range(self._http, plain, offset, length, self._secret):
            yield chunk

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()
        if self._store is not None:
            await self._store.close()


def _without_endpoint(context: Context) -> Context:
    """For the object store: ``endpoint`` is the tracking server's, not the store's."""
    request = context.request.model_copy(update={"endpoint": None})
    return Context(request, context.credentials, context.addresses, context.trust)
