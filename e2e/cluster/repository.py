"""Git repositories of the tests, served on this machine."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any


class _Backend(BaseHTTPRequestHandler):
    """Answers by git's own `http-backend`, a CGI program, as git's servers do."""

    folder: Path

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        asked = {
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"],
            env={**os.environ, **asked},
            input=body,
            capture_output=True,
            check=False,
        )
        answer = BytesIO(done.stdout)
        headers = parse_headers(answer)
        content = answer.read()
        self.send_response(int(headers.get("Status", "200").split()[0]))
        for name, value in headers.items():
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """Serve the repositories below a folder on this machine; gives the URL."""
    handler = type("Backend", (_Backend,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it printed.

    Raises:
        RuntimeError: with its own words.
    """
    user = ("-c", "user.name=tester", "-c", "user.email=tester@example.com")
    done = subprocess.run(
        ["git", *user, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Repository:
    """A git repository with one branch, `main`, served over HTTP.

    Attributes:
        folder: the working tree.
        url: where it can be cloned from.
    """

    folder: Path
    url: str

    def commit(self, message: str) -> str:
        """Commit all that changed; returns the commit."""
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--message", message)
        return git(self.folder, "rev-parse", "HEAD")

    def revert(self, commit: str) -> str:
        """Take a commit back by another; returns the new one."""
        git(self.folder, "revert", "--no-edit", commit)
        return git(self.folder, "rev-parse", "HEAD")


@contextmanager
def repository(directory: Path, content: Path) -> Iterator[Repository]:
    """A new repository with a copy of the folder `content`, not committed yet."""
    work = directory / "models"
    shutil.copytree(content, work)
    git(work, "init", "--quiet", "--initial-branch=main")
    with _serving(work) as url:
        yield Repository(work, f"{url}/.git")
