"""The operator as a process of its own against any API server: started, asked, stopped by id."""

import json
import os
import re
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from e2e.bench.report import Usage
from e2e.cluster import paths
from e2e.cluster.kube import NotReached
from e2e.cluster.processes import require_running, spawn
from e2e.ports import free_ports

START_SECONDS = 120.0
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? ([0-9.eE+-]+)$", re.MULTILINE)


def lines(log: Path) -> list[dict[str, Any]]:
    """The structured lines of an operator's log; others are left out."""
    found = []
    for text in log.read_text(errors="replace").splitlines():
        if text.startswith("{"):
            found.append(json.loads(text))
    return found


def seconds_of(stamp: str) -> float:
    """An RFC 3339 time as seconds since the epoch, fractions and all.

    Raises:
        ValueError: it is none.
    """
    # Nanoseconds, as container logs have them, are more than datetime reads.
    cut = re.sub(r"(\.\d{6})\d+", r"\1", stamp)
    return datetime.fromisoformat(cut).timestamp()


def total(exposition: str, name: str) -> float:
    """The sum of a metric's samples over all of its labels, in Prometheus' text format."""
    return sum(float(value) for found, _, value in _SAMPLE.findall(exposition) if found == name)


class OperatorProcess:
    """One operator of this checkout, as a process.

    Args:
        kubeconfig: as whom, and where.
        folder: of its log.
        python: the interpreter that has the operator's dependencies.
        namespace: of its Lease; must exist.
    """

    def __init__(self, kubeconfig: Path, folder: Path, python: str, namespace: str) -> None:
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"operator-{port}-{time.time_ns()}.log"
        self.spawned = time.time()
        self._process: subprocess.Popen[bytes] = spawn(
            "tidegate-operator",
            [python, "-m", "tidegate.runtime.main"],
            owner=str(folder),
            log=self.log,
            environment={
                "KUBECONFIG": str(kubeconfig),
                "POD_NAMESPACE": namespace,
                "PYTHONPATH": str(paths.REPOSITORY / "operator"),
                "PYTHONUNBUFFERED": "1",
                "TIDEGATE_HTTP_PORT": str(port),
                "TIDEGATE_LOG_FORMAT": "json",
            },
            die_with_parent=True,
        )

    def usage(self) -> Usage:
        """What it holds and used so far."""
        return Usage.of(self._process.pid)

    def said(self, event: str, *, timeout_seconds: float = START_SECONDS) -> float:
        """Seconds from the start of the process to the first log line of that event.

        Raises:
            NotReached: it was not said in time.
            ProcessFailed: the process ended.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            require_running(self._process, "tidegate-operator", self.log)
            for line in lines(self.log):
                if line.get("event") == event:
                    return seconds_of(line["timestamp"]) - self.spawned
            time.sleep(0.05)
        raise NotReached(f"the operator did not say {event!r} within {timeout_seconds:.0f} s")

    def metric(self, name: str) -> float:
        """A metric's sum over its labels."""
        return total(httpx.get(f"{self.url}/metrics", timeout=10.0).text, name)

    def looked_at(self, count: int, *, timeout_seconds: float = START_SECONDS) -> float:
        """Seconds from the start until `count` reconciles are done and none is due.

        Raises:
            NotReached: it takes longer.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            text = httpx.get(f"{self.url}/metrics", timeout=10.0).text
            done = total(text, "tidegate_reconcile_seconds_count")
            if done >= count and total(text, "tidegate_queue_working") == 0:
                return time.time() - self.spawned
            time.sleep(0.05)
        raise NotReached(f"{count} reconciles: not within {timeout_seconds:.0f} s")

    def stop(self) -> float:
        """SIGTERM, and SIGKILL after a minute. Returns the seconds that it took to go."""
        began = time.monotonic()
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(60.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return time.monotonic() - began
