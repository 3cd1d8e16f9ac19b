"""Somebody who types what a page says: a shell in a folder of its own, and a cluster."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.cluster import gobuild
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.kube import KubeClient, KubeError, NotReached
from e2e.cluster.progress import Progress
from tests.unit.architecture.test_docs import FENCE, pages
from tests.unit.cli import documents as d
from tidegate.api import names
from tidegate.verbs import parse

ROOT: Final = Path(__file__).resolve().parents[3]
LINKED: Final = ("crds", "docs", "helm", "install.yaml")
"""What of the repository commands name."""
INTERRUPTED: Final = (0, 1, 130, -signal.SIGINT)
LONGEST_S: Final = 180.0
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_COMMAND: Final = f"#!{sys.executable}\nfrom tidegate.cli.main import main\nmain()\n"


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


class Reader:
    """A folder, programs, a kubeconfig; what a page presumes is put there by its setup."""

    def __init__(
        self, plane: ControlPlane, kube: KubeClient, folder: Path, by_hand: set[str]
    ) -> None:
        self.plane, self.kube, self.folder, self.by_hand = plane, kube, folder, by_hand
        self.kubelet = 0
        """Port of the node's kubelet; 0: it has none."""
        programs = folder.parent / "programs"
        if not programs.exists():
            programs.mkdir()
            (programs / "helm").symlink_to(gobuild.build("helm", Progress(stream=sys.stderr)))
            (programs / "kubectl").symlink_to(ROOT / ".venv/bin/kubectl")
            for name in ("tidegate", "kubectl-tidegate"):
                (programs / name).write_text(_COMMAND)
                (programs / name).chmod(0o755)
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        self.programs = programs
        self.namespace = "default"

    # The folder.

    def write(self, name: str, text: str | bytes) -> None:
        """A file of the reader's own."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def block(self, page: str, contains: str) -> str:
        """The manifest of a page that has some text in it."""
        found = [b for kind, b in FENCE.findall(pages()[page]) if kind == "yaml" and contains in b]
        assert found, f"{page} shows no {contains}"
        return str(found[0])

    # The cluster.

    def space(self, name: str) -> None:
        """A namespace, which is the context's from now on."""
        self.kube.apply_all([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])
        self.namespace = name

    def model(self, document: d.Document, name: str = "magika") -> None:
        """A ModelDeployment in the namespace, with a status as if its times were of now."""
        shifted = as_of_now(document)
        path = collection(self.namespace)
        self.kube.delete(names.API_VERSION, names.KIND, name, self.namespace)
        body = {k: shifted[k] for k in ("apiVersion", "kind", "spec")}
        self.by_hand.add(name)
        made = self.kube.request("POST", path, body=body | {"metadata": {"name": name}})
        status = shifted["status"] | {"observedGeneration": 1}
        status = yaml.safe_load(yaml.safe_dump(status).replace("magika", name))
        self.kube.request("PUT", f"{path}/{name}/status", body=made | {"status": status})
        self.by_hand.discard(name)

    def config(self, user: str = "") -> Path:
        """A kubeconfig with the namespace as its context's; of an administrator by default."""
        plane = self.plane
        path = plane.kubeconfig_for(user, ["system:authenticated"]) if user else plane.kubeconfig
        config = yaml.safe_load(path.read_text())
        config["contexts"][0]["context"]["namespace"] = self.namespace
        made = self.folder / f"{user or 'admin'}.kubeconfig"
        made.write_text(yaml.safe_dump(config))
        return made

    # The shell.

    def must(self, command: str) -> None:
        """Run a command that has to succeed."""
        done = self.type(command)
        assert done.code == 0, f"{command}\n{done.out}{done.err}"

    def type(self, command: str, *, user: str = "", follows: bool = False) -> Done:
        """Run a command as bash does; one that goes on is interrupted after its first line."""
        home = self.folder / "home"
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "operator"),
            "PYTHONUNBUFFERED": "1",
            "KUBECONFIG": str(self.config(user)),
            "HOME": str(home),
        }
        process = subprocess.Popen(
            [shutil.which("bash") or "bash", "-o", "pipefail", "-c", command],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Whoever runs the tests in the background has it ignored, and bash hands that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        first = ""
        try:
            if follows:
                assert process.stdout is not None
                if select.select([process.stdout], [], [], LONGEST_S)[0]:
                    first = process.stdout.readline()
                os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Done(-9, out, f"{err}\nno end after {LONGEST_S:g} s")
        if follows and first and not err and process.returncode in INTERRUPTED:
            return Done(0, first + out, err)
        return Done(process.returncode, first + out, err)


def collection(namespace: str) -> str:
    """The path of a namespace's ModelDeployments."""
    return f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"


def as_of_now(document: d.Document) -> d.Document:
    """A document of `tests.unit.cli.documents` with its times as far back from now."""
    later = datetime.now(UTC) - d.NOW

    def moved(match: re.Match[str]) -> str:
        time_ = datetime.fromisoformat(match[0].replace("Z", "+00:00")) + later
        return time_.strftime("%Y-%m-%dT%H:%M:%SZ")

    class Plain(yaml.SafeDumper):
        """Without aliases, and times as the texts that they are."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    text = _TIME.sub(moved, yaml.dump(document, Dumper=Plain))
    found: d.Document = without_none(yaml.safe_load(text))
    return found


def without_none(value: Any) -> Any:
    """Without what the API server would not take."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    return [without_none(v) for v in value] if isinstance(value, list) else value


@contextmanager
def operating(kube: KubeClient, by_hand: set[str]) -> Iterator[None]:
    """While the block runs every new spec is live at once, and every verb handled.

    Not of those whose names are in `by_hand`.
    """
    stop = threading.Event()
    root = f"/apis/{names.API_VERSION}/{names.PLURAL}"

    def look() -> None:
        for found in kube.request("GET", root)["items"]:
            meta, status = found["metadata"], found.get("status") or {}
            if meta["name"] in by_hand:
                continue
            asked = parse((meta.get("annotations") or {}).get(names.REQUEST_ANNOTATION))
            if status.get("observedGeneration", 0) < meta["generation"]:
                status = as_of_now(d.STEADY)["status"] | {"observedGeneration": meta["generation"]}
            elif asked and status.get("lastRequest") != asked.id:
                status = status | {"lastRequest": asked.id}
            else:
                continue
            path = f"{collection(meta['namespace'])}/{meta['name']}/status"
            kube.request("PUT", path, body=found | {"status": status})

    def work() -> None:
        while not stop.wait(0.1):
            # Between two pages the definition may be gone, or an object be written meanwhile.
            with suppress(KubeError, NotReached):
                look()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
