"""As much of an API server as the command line asks for, over a `World`; it stores nothing.

The real one is asked in tests/contract. This one is for what the commands make of its answers.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.unit.plan.world import World
from tidegate.cli.planning import KINDS

Document = dict[str, Any]
SPACE = "demo"
OPTIONAL = KINDS[6:]


@dataclass
class Server:
    """What it answers.

    Attributes:
        world: the ModelDeployment and its children.
        there: whether the ModelDeployment exists.
        more: other objects, by collection path.
        denied: plurals that the caller may not read, and verbs (``patch``) that it lacks.
        refusal: status, reason and message with which a dry run is refused.
        written: bodies of PATCH requests that were no dry run.
        dry: bodies of dry runs.
        services: answers by path below ``/proxy``, with ``?`` and its query before those without.
    """

    world: World = field(default_factory=World)
    there: bool = True
    more: dict[str, list[Document]] = field(default_factory=dict)
    denied: frozenset[str] = frozenset()
    refusal: tuple[int, str, str] | None = None
    written: list[Document] = field(default_factory=list)
    dry: list[Document] = field(default_factory=list)
    services: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)

    def collections(self) -> dict[str, list[Document]]:
        found: dict[str, list[Document]] = {}
        for version, kind, plural in KINDS:
            if (version, kind, plural) in OPTIONAL and kind not in self.world.present_kinds:
                continue
            root = f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/{SPACE}/{plural}"
            found[root] = [
                {**o, "metadata": {"namespace": SPACE, **o["metadata"]}}
                for r, o in self.world.children.items()
                if (r.api_version, r.kind) == (version, kind)
            ]
        found[f"/api/v1/namespaces/{SPACE}/pods"] = list(self.world.pods)
        found[f"/api/v1/namespaces/{SPACE}/events"] = []
        mine = [self.world.deployment] if self.there else []
        found[f"/apis/tidegate.dev/v1alpha1/namespaces/{SPACE}/modeldeployments"] = mine
        found["/apis/tidegate.dev/v1alpha1/modeldeployments"] = mine
        return found | self.more

    def answer(
        self, method: str, path: str, params: dict[str, str], body: Any
    ) -> tuple[int, Document]:
        parts = path.split("/")
        review = path.rpartition("/")[2]
        if review in ("selfsubjectaccessreviews", "subjectaccessreviews"):
            if review in self.denied:
                return _status(403, "Forbidden", _no("create", review))
            asked = body["spec"]["resourceAttributes"]
            allowed = not {asked["resource"], asked["verb"]} & self.denied
            return 201, {"status": {"allowed": allowed}}
        fixed: dict[str, Document] = {
            "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
            "/apis": {"groups": [{"name": "gateway.networking.k8s.io"}]},
            "/apis/tidegate.dev/v1alpha1": {
                "resources": [{"name": f"modeldeployments{s}"} for s in ("", "/status", "/scale")]
            },
        }
        if path in fixed:
            return 200, fixed[path]
        there = self.collections()
        if path in there:
            plural = parts[-1]
            if plural in self.denied:
                return _status(403, "Forbidden", _no("list", plural))
            wanted = [p.split("=") for p in params.get("labelSelector", "").split(",") if p]
            items = [
                o
                for o in there[path]
                if all((o["metadata"].get("labels") or {}).get(k) == v for k, v in wanted)
            ]
            return 200, {"items": items}
        folder, _, name = path.rpartition("/")
        plural = folder.rpartition("/")[2]
        if plural in self.denied:
            return _status(403, "Forbidden", _no("get", plural))
        if folder not in there:
            return _status(404, "NotFound", "the server could not find the requested resource")
        if method == "PATCH":
            if "patch" in self.denied:
                return _status(403, "Forbidden", _no("patch", plural))
            if params.get("dryRun") == "All":
                self.dry.append(body)
                if self.refusal:
                    return _status(*self.refusal)
                uid = self.world.deployment["metadata"]["uid"] if self.there else "new"
                return 200, {**body, "metadata": {**body["metadata"], "uid": uid, "generation": 2}}
            self.written.append(body)
            return 200, body
        for one in there[folder]:
            if one["metadata"]["name"] == name:
                return 200, one
        return _status(404, "NotFound", f'{plural} "{name}" not found')


def _no(verb: str, plural: str) -> str:
    return f'{plural} is forbidden: User "vera" cannot {verb} resource "{plural}" in API group ""'


def _status(code: int, reason: str, message: str) -> tuple[int, Document]:
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message}


@contextmanager
def serving(server: Server, folder: Path) -> Iterator[str]:
    """While the block runs it answers; the path of a kubeconfig for it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _do(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            headers: dict[str, str] = {}
            if "/proxy/" in parts.path:
                below = parts.path.partition("/proxy")[2]
                (query,) = parse_qs(parts.query).get("query") or [""]
                said = server.services.get(f"{below}?{query}") or server.services.get(below)
                code, headers, text = said or (404, {}, b"no such model")
            else:
                params = {k: v[0] for k, v in parse_qs(parts.query).items()}
                body = json.loads(raw) if raw else None
                code, found = server.answer(self.command, parts.path, params, body)
                text = json.dumps(found).encode()
            self.send_response(code)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = _do

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=lambda: http.serve_forever(poll_interval=0.01))
        thread.start()
        config = {
            "clusters": [
                {"name": "c", "cluster": {"server": f"http://127.0.0.1:{http.server_port}"}}
            ],
            "contexts": [{"name": "x", "context": {"cluster": "c", "namespace": SPACE}}],
            "current-context": "x",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        try:
            yield str(path)
        finally:
            http.shutdown()
            thread.join()
