"""A thin client of the Kubernetes API: raw documents in and out, typed errors.

Every write goes through `Kube._write`: there stands the fence, there it is counted, and its
timeout never reaches beyond the time in which this process may write.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

import aiohttp

from tidegate.runtime.fence import Fence
from tidegate.runtime.kinds import Kind
from tidegate.runtime.login import Connection, close
from tidegate.runtime.tracing import OFF, Tracer

READ_TIMEOUT_S: Final = 30.0
WRITE_TIMEOUT_S: Final = 10.0
CHUNK: Final = 500
"""Objects in one answer to a list."""
CONNECTIONS: Final = 32

_UNPRINTABLE_IN_YAML: Final = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML, see `to_wire`
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Document = dict[str, Any]


def to_wire(body: Document | list[Document]) -> str:
    """A body as JSON that is YAML, too, since the API server reads an apply as YAML.

    Two differences: YAML knows no surrogate pairs, JSON's escape for a letter beyond U+FFFF, so
    such letters stand for themselves; and it takes some that JSON allows for the end of a line, or
    for an error, so those are escaped.
    """
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return _UNPRINTABLE_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class KubeError(Exception):
    """The API server refused, or could not be asked.

    Attributes:
        code: HTTP status; 0 if there was no answer.
        reason: the API server's machine-readable reason.
        retry_after_s: how long it asks to wait, in seconds.
    """

    def __init__(
        self, message: str, *, code: int = 0, reason: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after_s = retry_after_s


class NotFoundError(KubeError):
    """404: no such object, or no such kind."""


class ConflictError(KubeError):
    """409: somebody else was first, or owns a field."""


class AlreadyExistsError(ConflictError):
    """409: an object of that name exists."""


class ForbiddenError(KubeError):
    """403: no right to do this, a quota, or a namespace that is going away."""


class UnauthorizedError(KubeError):
    """401: the credentials are not accepted."""


class InvalidError(KubeError):
    """422 or 400: the document was refused."""


class GoneError(KubeError):
    """410: a resource version or continue token is too old."""


class TooManyRequestsError(KubeError):
    """429: come back later."""


class ServerError(KubeError):
    """5xx: the API server failed; a write may have happened or not."""


class UnreachableError(KubeError):
    """No answer: a write may have happened or not."""


_BY_CODE: Final[dict[int, type[KubeError]]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


def error_of(code: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> KubeError:
    """The error that an answer of 400 or more stands for."""
    reason = str(body.get("reason", ""))
    message = str(body.get("message", "")) or f"HTTP {code}"
    cls = _BY_CODE.get(code, ServerError if code >= 500 else KubeError)
    if reason == "AlreadyExists":
        cls = AlreadyExistsError
    details = body.get("details") or {}
    after = headers.get("Retry-After") or details.get("retryAfterSeconds") or 0
    try:
        retry_after_s = float(after)
    except (TypeError, ValueError):  # an HTTP date, which the API server does not send
        retry_after_s = 0.0
    return cls(message, code=code, reason=reason, retry_after_s=retry_after_s)


class Requests(Protocol):
    """Where requests are counted."""

    def request(self, verb: str, kind: str, code: str, seconds: float, *, write: bool) -> None:
        """One request was answered, or not (`code` is then the error's name)."""


class Written(NamedTuple):
    """The answer to a write: what is stored now, and whether the write made it."""

    document: Document
    created: bool


class Kube:
    """The client. Its session is opened by entering it.

    Args:
        connection: where and as whom.
        fence: asked before each write.
        requests: counts.
        clock: the fence's monotonic clock, seconds.
        tracer: is told of requests.
    """

    def __init__(
        self,
        connection: Connection,
        fence: Fence,
        requests: Requests,
        clock: Callable[[], float] = time.monotonic,
        tracer: Tracer = OFF,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._requests = requests
        self._clock = clock
        self._tracer = tracer
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = self._connection.session(connections=CONNECTIONS)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the session."""
        if self._session is not None:
            await close(self._session)

    # Reading.

    async def get(self, kind: Kind, namespace: str, name: str) -> Document:
        """One object; `NotFoundError` if there is none."""
        return await self._read("get", kind, kind.path(namespace, name))

    async def find(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """One object, or None."""
        try:
            return await self.get(kind, namespace, name)
        except NotFoundError:
            return None

    async def pages(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        limit: int = CHUNK,
    ) -> AsyncIterator[Document]:
        """The pages of a list; each has ``items`` and the list's ``metadata``.

        Raises:
            GoneError: the list took so long that its snapshot is gone; begin again.
        """
        params = {"limit": str(limit)}
        if selector:
            params["labelSelector"] = selector
        if field_selector:
            params["fieldSelector"] = field_selector
        headers = {"Accept": METADATA_LIST} if metadata_only else {}
        while True:
            page = await self._read(
                "list", kind, kind.path(namespace), params=params, headers=headers
            )
            yield page
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            params["continue"] = token

    async def document(self, path: str) -> Document:
        """Any document of the API server, such as the index of an API group."""
        return await self._request("get", "", "GET", path, timeout_s=READ_TIMEOUT_S)

    # Writing.

    async def create(self, kind: Kind, document: Document, *, manager: str) -> Written:
        """Make an object; `AlreadyExistsError` if the name is taken."""
        return await self._write(
            "create",
            kind,
            "POST",
            kind.path(document["metadata"]["namespace"]),
            document,
            params={"fieldManager": manager},
        )

    async def apply(
        self, kind: Kind, document: Document, *, manager: str, force: bool, sub: str | None = None
    ) -> Written:
        """Server-side apply of an object or a subresource.

        Raises:
            ConflictError: without `force`, others own fields with other values; or the
                ``uid`` or ``resourceVersion`` in the document is not the stored one.
        """
        metadata = document["metadata"]
        return await self._write(
            "apply",
            f"{kind}/{sub}" if sub else kind,
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"], sub),
            document,
            params={"fieldManager": manager, "force": "true" if force else "false"},
            content_type=APPLY,
        )

    async def merge(
        self, kind: Kind, namespace: str, name: str, document: Document, *, manager: str
    ) -> Written:
        """Merge patch."""
        return await self._write(
            "merge",
            kind,
            "PATCH",
            kind.path(namespace, name),
            document,
            params={"fieldManager": manager},
            content_type=MERGE,
        )

    async def patch(
        self, kind: Kind, namespace: str, name: str, operations: list[Document], *, manager: str
    ) -> Written:
        """JSON patch; `InvalidError` if one of its tests does not hold."""
        return await self._write(
            "patch",
            kind,
            "PATCH",
            kind.path(namespace, name),
            operations,
            params={"fieldManager": manager},
            content_type=JSON_PATCH,
        )

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> Written:
        """Delete an object if it still has this UID.

        Raises:
            NotFoundError: it is gone.
            ConflictError: another object has its name now.
        """
        return await self._write(
            "delete",
            kind,
            "DELETE",
            kind.path(namespace, name),
            {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": {"uid": uid},
                "propagationPolicy": "Background",
            },
        )

    async def lease(
        self, kind: Kind, namespace: str, document: Document, *, timeout_s: float
    ) -> Document:
        """Create or replace the Lease itself: the one write that does not need to hold it."""
        name = document["metadata"]["name"]
        new = "resourceVersion" not in document["metadata"]
        return await self._request(
            "create" if new else "update",
            str(kind),
            "POST" if new else "PUT",
            kind.path(namespace, None if new else name),
            body=document,
            timeout_s=timeout_s,
            write=True,
        )

    # The two places through which everything goes.

    async def _read(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Document:
        with self._tracer.request(verb, str(kind), "GET", path):
            return await self._request(
                verb,
                str(kind),
                "GET",
                path,
                params=params,
                headers=headers,
                timeout_s=READ_TIMEOUT_S,
            )

    async def _write(
        self,
        verb: str,
        kind: Kind | str,
        method: str,
        path: str,
        body: Document | list[Document],
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Written:
        remaining_s = self._fence.check(self._clock())
        created: list[bool] = []
        with self._tracer.request(verb, str(kind), method, path):
            document = await self._request(
                verb,
                str(kind),
                method,
                path,
                body=body,
                params=params,
                headers={"Content-Type": content_type},
                timeout_s=min(WRITE_TIMEOUT_S, remaining_s),
                write=True,
                created=created,
            )
        return Written(document, bool(created))

    async def _request(
        self,
        verb: str,
        kind: str,
        method: str,
        path: str,
        *,
        timeout_s: float,
        body: Document | list[Document] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        write: bool = False,
        created: list[bool] | None = None,
    ) -> Document:
        if self._session is None:
            raise RuntimeError("the client is used outside of its `async with`")
        began = self._clock()
        code = "unreachable"
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(
                    method,
                    self._connection.server + path,
                    params=params,
                    headers={"Content-Type": "application/json", **(headers or {})},
                    data=None if body is None else to_wire(body),
                ) as response,
            ):
                raw = await response.read()
                code = str(response.status)
                try:
                    answer = json.loads(raw) if raw else {}
                except ValueError:
                    answer = {"message": raw[:200].decode("utf-8", "replace")}
                if not isinstance(answer, dict):
                    answer = {"message": str(answer)[:200]}
                if response.status >= 400:
                    raise error_of(response.status, answer, response.headers)
                if created is not None and response.status == 201:
                    created.append(True)
                return answer
        except TimeoutError as error:
            raise UnreachableError(
                f"{method} {path}: no answer within {timeout_s:.1f} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"{method} {path}: {error}") from error
        finally:
            self._requests.request(verb, kind, code, self._clock() - began, write=write)
