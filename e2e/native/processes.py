"""Starts and stops a real Triton and the sidecar's Envoy as processes on free ports."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.native import parts
from e2e.ports import free_ports
from tidegate.resources.envoy import envoy_args, envoy_config, render
from tidegate.resources.sidecar import Ports
from tidegate.resources.triton import triton_args

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60


@dataclass
class Process:
    """A child process with its log."""

    popen: "subprocess.Popen[bytes]"
    log: Path

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by id, with SIGKILL if it does not go; the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(sig)
        try:
            return self.popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()

    def rss_bytes(self) -> int:
        """Resident memory now."""
        for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"process {self.popen.pid} has no VmRSS")


@dataclass(frozen=True)
class Pod:
    """What runs inside one pod, natively: Triton, and Envoy in front of it."""

    triton: Process
    envoy: Process
    ports: Ports
    folder: Path
    """Of the logs; also the one in which the preStop command signals Envoy."""

    @property
    def serving(self) -> str:
        """Base URL of the door for clients; gRPC: the same host and port."""
        return f"http://127.0.0.1:{self.ports.serving}"

    @property
    def mirror(self) -> str:
        """Base URL of the door for copies of live requests."""
        return f"http://127.0.0.1:{self.ports.mirror}"

    @property
    def internal(self) -> str:
        """Base URL of the read-only listener."""
        return f"http://127.0.0.1:{self.ports.internal}"

    @property
    def admin(self) -> str:
        """Base URL of Envoy's admin."""
        return f"http://127.0.0.1:{self.ports.admin}"

    @property
    def triton_http(self) -> str:
        """Base URL of Triton itself, past the sidecar."""
        return f"http://127.0.0.1:{self.ports.triton_http}"


@contextlib.contextmanager
def pod(
    repository: Path,
    *,
    ready: bool = True,
    triton_arguments: tuple[str, ...] = (),
    exit_timeout_s: int = 30,
    change: Callable[[dict[str, Any]], None] = lambda config: None,
    **sidecar: Any,
) -> Iterator[Pod]:
    """A pod's processes over a model repository; both are stopped at the end.

    Args:
        repository: a Triton model repository.
        ready: wait until the models are ready; False: until the server answers at all.
        triton_arguments: appended to Triton's command line.
        exit_timeout_s: Triton's own.
        change: is given Envoy's configuration, to try another one.
        sidecar: arguments of `envoy_config`, such as ``latency_target_ms``.

    Raises:
        RuntimeError: a process ended or was not ready in time; the message holds its log.
    """
    install = parts.triton()
    ports = Ports(*free_ports(7))
    command = triton_args(
        exit_timeout_s=exit_timeout_s, gpu=False, repository=str(repository), ports=ports
    )
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-native-")))
        config = envoy_config(
            ports=ports, listen_address="127.0.0.1", drain_folder=str(folder), **sidecar
        )
        change(config)
        config_path = folder / "envoy.yaml"
        config_path.write_text(render(config))
        triton = stack.enter_context(
            _process(
                [str(install.server), *command[1:], *_native(install), *triton_arguments],
                folder / "triton.log",
                triton_environment(install),
            )
        )
        envoy = stack.enter_context(
            _process(
                [str(parts.envoy()), *envoy_args(str(config_path))],
                folder / "envoy.log",
                dict(os.environ),
            )
        )
        running = Pod(triton, envoy, ports, folder)
        wait_for(f"{running.internal}/sidecar/ready", envoy)
        path = "/v2/health/ready" if ready else "/v2/health/live"
        wait_for(f"{running.internal}{path}", triton)
        yield running


def _native(install: parts.TritonInstall) -> list[str]:
    return [f"--backend-directory={install.backends}", f"--cache-directory={install.caches}"]


def triton_environment(install: parts.TritonInstall) -> dict[str, str]:
    """The environment in which the unpacked server finds its libraries and its Python."""
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(install.libraries),
        "PATH": f"{install.python.parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(install.python.parent.parent),
    }


@contextlib.contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[Process]:
    with log.open("wb") as out:
        process = Process(
            subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment), log
        )
    try:
        yield process
    finally:
        process.stop()


def wait_for(url: str, process: Process, timeout_s: float = START_TIMEOUT_S) -> None:
    """Returns once the URL answers 200.

    Raises:
        RuntimeError: the process ended, or the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.popen.poll() is not None:
            raise RuntimeError(
                f"{process.popen.args!r} ended with {process.popen.returncode}:\n"
                f"{process.log.read_text(errors='replace')[-8000:]}"
            )
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(
        f"{url} was not ready in {timeout_s} s:\n{process.log.read_text(errors='replace')[-8000:]}"
    )
