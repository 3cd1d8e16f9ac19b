"""Git repositories of the tests, served on this machine."""

import functools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder's files on this machine; gives the URL."""
    handler = functools.partial(_Quiet, directory=str(folder))
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
        return self._publish()

    def revert(self, commit: str) -> str:
        """Take a commit back by another; returns the new one."""
        git(self.folder, "revert", "--no-edit", commit)
        return self._publish()

    def _publish(self) -> str:
        git(self.folder, "update-server-info")
        return git(self.folder, "rev-parse", "HEAD")


@contextmanager
def repository(directory: Path, content: Path) -> Iterator[Repository]:
    """A new repository with a copy of the folder `content`, not committed yet."""
    work = directory / "models"
    shutil.copytree(content, work)
    git(work, "init", "--quiet", "--initial-branch=main")
    with serving(work) as url:
        yield Repository(work, f"{url}/.git")
