"""The drain's commands, run by a real bash against a pretend admin port."""

import http.server
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.resources.drain import post_start_command, pre_stop_command
from tidegate.resources.sidecar import DRAIN_SIGNAL

pytestmark = pytest.mark.integration


class Admin(http.server.BaseHTTPRequestHandler):
    """Envoy's admin as the drain sees it: what is in flight falls by one with each look."""

    protocol_version = "HTTP/1.1"
    calls: list[str]
    in_flight: int

    def do_POST(self) -> None:
        type(self).calls.append(self.path)
        self.answer(b"OK\n")

    def do_GET(self) -> None:
        type(self).in_flight = max(0, self.in_flight - 1)
        self.answer(
            f"cluster.client_http.upstream_rq_active: {self.in_flight}\n"
            "cluster.client_http.upstream_rq_pending_active: 0\n"
            "cluster.client_http.upstream_rq_total: 41\n".encode()
        )

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def admin() -> Iterator[tuple[type[Admin], int]]:
    handler = type("Handler", (Admin,), {"calls": [], "in_flight": 0})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield handler, server.server_address[1]
        server.shutdown()


def run(command: list[str]) -> float:
    """Seconds that a command took; it must succeed without a word."""
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
    return time.monotonic() - start


def test_it_waits_for_what_is_in_flight(admin: tuple[type[Admin], int], tmp_path: Path) -> None:
    handler, port = admin
    handler.in_flight = 4
    took_s = run(pre_stop_command(spread_s=0, admin_port=port, drain_folder=str(tmp_path)))
    assert handler.calls == ["/healthcheck/fail"]
    assert handler.in_flight == 0
    assert took_s >= 3 * 0.5 + 2  # three looks with something in flight, then the quiet
    assert (tmp_path / DRAIN_SIGNAL).read_text() == "1.0"


def test_it_waits_at_least_for_the_spread(admin: tuple[type[Admin], int], tmp_path: Path) -> None:
    assert run(pre_stop_command(spread_s=4, admin_port=admin[1], drain_folder=str(tmp_path))) >= 4


def test_it_ends_although_envoy_is_gone(tmp_path: Path) -> None:
    took_s = run(pre_stop_command(spread_s=1, admin_port=9, drain_folder=str(tmp_path)))
    assert took_s >= 1


def test_a_restarted_container_takes_the_drain_back(
    admin: tuple[type[Admin], int], tmp_path: Path
) -> None:
    handler, port = admin
    run(post_start_command(admin_port=port, drain_folder=str(tmp_path)))
    assert handler.calls == ["/healthcheck/ok"]
    assert (tmp_path / DRAIN_SIGNAL).read_text() == "0.0"
