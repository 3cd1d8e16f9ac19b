"""How long does the command line take to start?

``python -m e2e.bench.command_line`` runs each command as a process of its own, from its start to
its end, several times: ``--help``, completion, ``list`` of 100 ModelDeployments and ``get`` of one.
No cluster: the API server is a server on this machine that answers at once from memory, so that
what is measured is the command itself. Files are warm: one run of each comes before.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from e2e.bench.report import Report, parser

RUNS: Final = 20
LISTED: Final = 100
AIMS: Final = {"--help": 0.3, "list": 0.7}
"""Seconds at most."""
COMMANDS: Final = {
    "--help": ["--help"],
    "completion": ["__complete", "ge"],
    "list": ["list"],
    "get": ["get", "model-0"],
}


def deployment(number: int) -> dict[str, Any]:
    """A ModelDeployment in the middle of a rollout."""
    now = "2026-03-06T17:30:00Z"
    test = {
        "test": "errors",
        "observed": "0.48%",
        "bound": "1%",
        "canary": "2/420",
        "evidence": "0.31",
        "needed": "2000",
        "verdict": "Clear",
    }
    evidence = {
        "verdict": "NotYet",
        "requests": 420,
        "requestsNeeded": 180,
        "secondsNeeded": 72,
        "tests": [test, {**test, "test": "latency"}],
        "state": "v1:" + "x" * 500,
    }
    conditions = [
        {
            "type": kind,
            "status": status,
            "reason": "Canary",
            "message": "",
            "lastTransitionTime": now,
        }
        for kind, status in (("Available", "True"), ("Ready", "False"), ("Reconciling", "True"))
    ]
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": f"model-{number}",
            "namespace": "default",
            "generation": 2,
            "creationTimestamp": now,
        },
        "spec": {"model": {"source": {"uri": "s3://models/magika/v3"}}},
        "status": {
            "observedGeneration": 2,
            "replicas": 4,
            "readyReplicas": 4,
            "conditions": conditions,
            "revisions": {
                "stable": {"name": "m-a", "hash": "7f3c1a2b9d", "replicas": 3, "readyReplicas": 3},
                "canary": {"name": "m-b", "hash": "9ab14c2d3e", "replicas": 1, "readyReplicas": 1},
            },
            "traffic": [{"revision": "7f3c1a2b9d", "weight": 95}],
            "rollout": {
                "phase": "Canary",
                "weight": "5%",
                "step": 1,
                "steps": 4,
                "since": now,
                "started": now,
                "evidence": evidence,
            },
        },
    }


@contextmanager
def api_server() -> Iterator[str]:
    """Answers what the commands ask, at once. Its address."""
    root = "/apis/tidegate.dev/v1alpha1/namespaces/default/modeldeployments"
    items = [deployment(i) for i in range(LISTED)]
    answers = {
        root: json.dumps({"items": items}).encode(),
        f"{root}/model-0": json.dumps(items[0]).encode(),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            body = answers.get(self.path.partition("?")[0], b'{"items": []}')
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(arguments: list[str], kubeconfig: Path) -> tuple[float, float]:
    """Seconds from the start of a command to its end, and of a processor.

    Raises:
        CalledProcessError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": "operator", "KUBECONFIG": str(kubeconfig)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "tidegate.cli", *arguments],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    took_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and report."""
    made = parser(__doc__)
    made.add_argument(
        "--runs", type=int, default=RUNS, help="of each command (default: %(default)s)"
    )
    options = made.parse_args()
    report = Report(
        "command_line", f"start to end of a command, {options.runs} times each; list has {LISTED}"
    )
    report.await_quiet(options.patience)
    with api_server() as address, tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "config"
        kubeconfig.write_text(
            json.dumps(
                {
                    "clusters": [{"name": "c", "cluster": {"server": address}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c"}}],
                    "current-context": "x",
                }
            )
        )
        for name, arguments in COMMANDS.items():
            run(arguments, kubeconfig)
            found = [run(arguments, kubeconfig) for _ in range(options.runs)]
            aim = f"at most {AIMS[name]:g}" if name in AIMS else ""
            report.add(name, "s", [took_s for took_s, _ in found], aim=aim)
            report.add(f"{name}, of a processor", "s", [cpu_s for _, cpu_s in found])
    report.finish(options.out)


if __name__ == "__main__":
    main()
