"""The API server, asked with a reader's own token: objects, and what the reader may see."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from tidegate.api import names

READ_TIMEOUT_S: Final = 20.0
CONNECT_TIMEOUT_S: Final = 5.0
WATCH_S: Final = 60
"""So long runs a watch; the next one is authorised anew, so a lost right is felt within that."""
LISTS_AT_ONCE: Final = 3
"""A long list takes much memory while it is read; readers who come at once wait for each other."""
CHUNK: Final = 500
"""Objects in one answer to a list."""
MAX_EVENT_BYTES: Final = 8 << 20
"""An object of the API server is far smaller (etcd takes 1.5 MiB)."""
TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")
"""What RFC 6750 lets a bearer token be."""

Document = dict[str, Any]


class UpstreamError(Exception):
    """The API server refused, or could not be asked.

    Attributes:
        status: HTTP status; 0: there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def final(self) -> bool:
        """Whether asking again with the same token is in vain."""
        return self.status in (400, 401, 403, 404, 405)


@dataclass(frozen=True)
class Collection:
    """Objects of one kind, such as one namespace's pods with a label.

    Attributes:
        path: of the collection.
        params: selectors.
    """

    path: str
    params: Mapping[str, str] = field(default_factory=dict)


def deployments(namespace: str = "") -> Collection:
    """The ModelDeployments of a namespace; '' means of all."""
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return Collection(f"/apis/{names.API_VERSION}{scope}/{names.PLURAL}")


def one_deployment(namespace: str, name: str) -> Collection:
    """One ModelDeployment, as a collection: that can be watched."""
    return Collection(deployments(namespace).path, {"fieldSelector": f"metadata.name={name}"})


def pods(namespace: str, name: str) -> Collection:
    """The pods of a ModelDeployment, of all its revisions."""
    return Collection(
        f"/api/v1/namespaces/{quote(namespace, safe='')}/pods",
        {"labelSelector": f"{names.DEPLOYMENT_LABEL}={name}"},
    )


def events(namespace: str, name: str) -> Collection:
    """The events about a ModelDeployment."""
    chosen = f"involvedObject.kind={names.KIND},involvedObject.name={name}"
    return Collection(
        f"/api/v1/namespaces/{quote(namespace, safe='')}/events", {"fieldSelector": chosen}
    )


@dataclass(frozen=True)
class Change:
    """One event of a watch.

    Attributes:
        type: ADDED, MODIFIED, DELETED or BOOKMARK.
        object: as it is now, or was.
    """

    type: str
    object: Document


class Upstream:
    """The API server.

    Args:
        server: its address.
        session: without credentials; the caller closes it.
    """

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session
        self._lists = asyncio.Semaphore(LISTS_AT_ONCE)

    async def user(self, token: str) -> str:
        """The name by which the API server knows the token's bearer.

        Raises:
            UpstreamError: it does not accept the token (401), or there was no answer.
        """
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = await self._ask(token, "POST", path, body=body)
        return str(answer["status"]["userInfo"]["username"])

    async def may(self, token: str, verb: str, namespace: str) -> bool:
        """Whether the bearer may do this with ModelDeployments there; '' means everywhere.

        Raises:
            UpstreamError: it does not accept the token (401), or there was no answer.
        """
        attributes = {"group": names.GROUP, "resource": names.PLURAL, "verb": verb}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "namespace": namespace}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._ask(token, "POST", path, body=body)
        return bool(answer["status"].get("allowed"))

    async def namespaces(self, token: str) -> list[str]:
        """All namespaces; empty where the bearer may not list them.

        Raises:
            UpstreamError: it does not accept the token (401), or there was no answer.
        """
        try:
            found, _ = await self.list(token, Collection("/api/v1/namespaces"))
        except UpstreamError as error:
            if error.status == 403:
                return []
            raise
        return [str(n["metadata"]["name"]) for n in found]

    async def _list(self, token: str, collection: Collection) -> tuple[list[Document], str]:
        params = {**collection.params, "limit": str(CHUNK)}
        found: list[Document] = []
        while True:
            try:
                page = await self._ask(token, "GET", collection.path, params=params)
            except UpstreamError as error:
                if error.status != 410 or "continue" not in params:
                    raise
                # It changed for too long while it was read: once more, all in one.
                found, params = [], {**collection.params}
                continue
            meta = page.get("metadata") or {}
            found += page.get("items") or ()
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion") or "")
            params["continue"] = meta["continue"]

    async def list(self, token: str, collection: Collection) -> tuple[list[Document], str]:
        """Its objects, and the resource version from which to watch.

        Raises:
            UpstreamError: it may not be read, or there was no answer.
        """
        async with self._lists:
            return await self._list(token, collection)

    async def watch(
        self, token: str, collection: Collection, version: str
    ) -> AsyncIterator[Change]:
        """What changes from then on, for `WATCH_S` at most.

        Raises:
            UpstreamError: it may not be watched, the version is too old (410), or the connection
                broke.
        """
        params = {
            **collection.params,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        # A server that does not end the watch itself, nor says anything, is not there any more.
        timeout = aiohttp.ClientTimeout(
            total=WATCH_S + READ_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S
        )
        try:
            async with self._session.get(
                self._server + collection.path,
                params=params,
                headers=_headers(token),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise _refusal(response.status, await response.read())
                async for line in _lines(response.content):
                    said = json.loads(line)
                    if said.get("type") == "ERROR":
                        status = said.get("object") or {}
                        raise UpstreamError(
                            str(status.get("message") or "the watch broke"),
                            int(status.get("code") or 500),
                        )
                    yield Change(str(said["type"]), said["object"])
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
            raise UpstreamError(f"the API server does not answer: {_words(error)}") from error

    async def _ask(
        self,
        token: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Document | None = None,
    ) -> Document:
        try:
            async with (
                asyncio.timeout(READ_TIMEOUT_S),
                self._session.request(
                    method,
                    self._server + path,
                    params=params,
                    json=body,
                    headers=_headers(token),
                    timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S),
                    # A token goes to the API server and nowhere else.
                    allow_redirects=False,
                ) as response,
            ):
                raw = await response.read()
                if not 200 <= response.status < 300:
                    raise _refusal(response.status, raw)
                answer = json.loads(raw)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise UpstreamError(f"the API server does not answer: {_words(error)}") from error
        if not isinstance(answer, dict):
            raise UpstreamError("the API server's answer is not understood")
        return answer


def _headers(token: str) -> dict[str, str]:
    # Without a token the API server would answer as to an anonymous caller, who may have rights.
    if not TOKEN.fullmatch(token):
        raise UpstreamError("no bearer token, or none of the form that one has", 401)
    return {"Authorization": f"Bearer {token}", "Accept": "application/json"}


def _refusal(status: int, raw: bytes) -> UpstreamError:
    try:
        message = str(json.loads(raw).get("message") or "")
    except (ValueError, AttributeError):
        message = ""
    return UpstreamError(message or f"the API server answers {status}", status)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to `MAX_EVENT_BYTES`; aiohttp's own reader refuses long ones."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        *whole, last = rest.split(b"\n")
        rest = bytearray(last)
        if len(rest) > MAX_EVENT_BYTES:
            raise ValueError("an event that is too long")
        for line in whole:
            if line:
                yield bytes(line)
