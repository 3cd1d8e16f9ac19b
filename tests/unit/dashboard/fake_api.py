"""As much of an API server as the dashboard asks: reviews, lists, watches, rights."""

import asyncio
import copy
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Document = dict[str, Any]
MDEP = "modeldeployments"


@dataclass(frozen=True)
class Reader:
    """Who a token stands for.

    Attributes:
        user: name.
        namespaces: where ModelDeployments may be read; None: everywhere.
        pods: whether pods and events may be read there, too.
    """

    user: str
    namespaces: tuple[str, ...] | None = None
    pods: bool = True

    def may(self, resource: str, namespace: str) -> bool:
        if resource == "namespaces":
            return self.namespaces is None
        if resource != MDEP and not self.pods:
            return False
        return self.namespaces is None or namespace in self.namespaces


@dataclass
class FakeApi:
    """The server.

    Attributes:
        readers: by token.
        asked: token, method and path of each request, with the query.
        broken: answers 503 to all.
    """

    readers: dict[str, Reader]
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    broken: bool = False
    version: int = 1

    def __post_init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Document]] = {
            resource: {} for resource in (MDEP, "pods", "events", "namespaces")
        }
        self._watches: list[tuple[str, str, dict[str, str], asyncio.Queue[bytes | None]]] = []

    def app(self) -> web.Application:
        app = web.Application()
        md = "/apis/tidegate.dev/v1alpha1"
        app.add_routes(
            [
                web.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", self._who),
                web.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._may),
                web.get("/api/v1/{resource:namespaces}", self._read),
                web.get(f"{md}/{{resource:{MDEP}}}", self._read),
                web.get(f"{md}/namespaces/{{namespace}}/{{resource:{MDEP}}}", self._read),
                web.get("/api/v1/namespaces/{namespace}/{resource:pods|events}", self._read),
            ]
        )
        return app

    # What there is.

    def put(self, resource: str, document: Document) -> None:
        """Make or change an object; watches are told."""
        document = copy.deepcopy(document)
        meta = document["metadata"]
        key = str(meta.get("namespace", "")), str(meta["name"])
        type_ = "MODIFIED" if key in self._objects[resource] else "ADDED"
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        self._objects[resource][key] = document
        self._tell(resource, type_, document)

    def delete(self, resource: str, namespace: str, name: str) -> None:
        """Delete an object; watches are told."""
        self.version += 1
        self._tell(resource, "DELETED", self._objects[resource].pop((namespace, name)))

    def end_watches(self) -> None:
        """As when their time is over."""
        for *_, queue in self._watches:
            queue.put_nowait(None)

    def expire(self) -> None:
        """As when the version from which is watched has been compacted away."""
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        for *_, queue in self._watches:
            queue.put_nowait(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")

    @property
    def watches(self) -> int:
        """How many are open."""
        return len(self._watches)

    def _tell(self, resource: str, type_: str, document: Document) -> None:
        said = json.dumps({"type": type_, "object": document}).encode() + b"\n"
        for kind, namespace, selectors, queue in self._watches:
            if kind == resource and _chosen(document, namespace, selectors):
                queue.put_nowait(said)

    # Answers.

    def _reader(self, request: web.Request) -> tuple[str, Reader]:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.asked.append((token, request.method, request.path_qs))
        if self.broken:
            raise _status(503, "etcd is asleep")
        if token not in self.readers:
            raise _status(401, "Unauthorized")
        return token, self.readers[token]

    async def _who(self, request: web.Request) -> web.Response:
        _, reader = self._reader(request)
        info = {"username": reader.user, "groups": ["system:authenticated"]}
        return web.json_response({"status": {"userInfo": info}}, status=201)

    async def _may(self, request: web.Request) -> web.Response:
        _, reader = self._reader(request)
        asked = (await request.json())["spec"]["resourceAttributes"]
        allowed = reader.may(asked["resource"], asked["namespace"])
        return web.json_response({"status": {"allowed": allowed}}, status=201)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        _, reader = self._reader(request)
        resource = request.match_info["resource"]
        namespace = request.match_info.get("namespace", "")
        if not reader.may(resource, namespace):
            raise _status(403, f'User "{reader.user}" cannot list resource "{resource}"')
        selectors = {k: request.query.get(k, "") for k in ("fieldSelector", "labelSelector")}
        if request.query.get("watch"):
            return await self._watch(request, resource, namespace, selectors)
        found = [d for d in self._objects[resource].values() if _chosen(d, namespace, selectors)]
        meta = {"resourceVersion": str(self.version)}
        limit, first = int(request.query["limit"]), int(request.query.get("continue", "0"))
        if first + limit < len(found):
            meta["continue"] = str(first + limit)
        return web.json_response({"metadata": meta, "items": found[first : first + limit]})

    async def _watch(
        self, request: web.Request, resource: str, namespace: str, selectors: dict[str, str]
    ) -> web.StreamResponse:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        mine = (resource, namespace, selectors, queue)
        since = int(request.query["resourceVersion"])
        for document in self._objects[resource].values():
            # What changed between the list and this watch.
            if int(document["metadata"]["resourceVersion"]) > since and _chosen(
                document, namespace, selectors
            ):
                said = json.dumps({"type": "MODIFIED", "object": document}).encode() + b"\n"
                queue.put_nowait(said)
        self._watches.append(mine)
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            while (said_ := await queue.get()) is not None:
                await response.write(said_)
            return response
        except ConnectionError:
            return response  # nobody watches any more
        finally:
            self._watches.remove(mine)


def _chosen(document: Document, namespace: str, selectors: dict[str, str]) -> bool:
    meta = document["metadata"]
    if namespace and meta.get("namespace") != namespace:
        return False
    for part in selectors["fieldSelector"].split(","):
        path, _, value = part.partition("=")
        node: Any = document
        for key in path.split(".") if path else ():
            node = (node or {}).get(key)
        if path and node != value:
            return False
    label, _, value = selectors["labelSelector"].partition("=")
    return not label or (meta.get("labels") or {}).get(label) == value


def _status(code: int, message: str) -> web.HTTPException:
    body = json.dumps({"kind": "Status", "code": code, "message": message})
    found = {401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 503: web.HTTPServiceUnavailable}
    return found[code](text=body, content_type="application/json")
