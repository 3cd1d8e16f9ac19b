"""As much of a kubelet as `kubectl logs` needs: the API server asks it for a container's log."""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from e2e.cluster.control_plane import ControlPlane

ADDRESS = "127.0.0.1"


@contextmanager
def kubelet(plane: ControlPlane, logs: Mapping[str, str]) -> Iterator[int]:
    """While the block runs it answers; its port.

    Args:
        plane: whose authority signs its certificate.
        logs: what each container has written, by the container's name.
    """
    pair = plane.authority.issue("system:node:node-1", addresses=[ADDRESS])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.write(plane.directory / "kubelet", "kubelet"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # /containerLogs/NAMESPACE/POD/CONTAINER?...
            path, _, query = self.path.partition("?")
            lines = logs[path.rpartition("/")[2]].splitlines()
            stamp = "2026-03-06T17:30:00.000000000Z " if "timestamps=true" in query else ""
            body = "".join(f"{stamp}{line}\n" for line in lines).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((ADDRESS, 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
