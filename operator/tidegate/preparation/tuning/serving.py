"""A real Triton as a process: started, asked what it did and what it cost, stopped."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tidegate.autoscaling.reading import TritonStats, read_stats
from tidegate.cli.inference import Address
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.tuning.grid import Setting
from tidegate.preparation.tuning.repository import Backend, write
from tidegate.preparation.writing import require_room, writable
from tidegate.resources.sidecar import Ports
from tidegate.resources.triton import triton_args

COMMAND: Final = "TIDEGATE_TRITON"
"""Environment variable: what starts Triton, if it is not ``tritonserver`` on the path."""
LACKING: Final = "unable to find backend library"
"""What Triton says of a backend that it does not have."""
START_S: Final = 120.0
STOP_S: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class TritonError(PreparationError):
    """Triton is not there, does not start, or refuses the model; the text says why."""


def command(given: str = "") -> str:
    """What starts Triton.

    Args:
        given: a program; '' means the environment's, or ``tritonserver``.

    Raises:
        TritonError: there is no such program.
    """
    wanted = given or os.environ.get(COMMAND) or "tritonserver"
    found = shutil.which(wanted)
    if found is None:
        raise TritonError(
            f"{wanted} is not on this machine: run this inside a Triton image, or name the "
            f"program with --triton or {COMMAND}"
        )
    return found


@dataclass
class Server:
    """A Triton that runs.

    Attributes:
        address: of its HTTP port.
        model: that it serves.
    """

    address: str
    model: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def stats(self) -> TritonStats:
        """What it counted so far.

        Raises:
            TritonError: it does not say.
        """
        door = Address(self.address)
        try:
            status, _, raw = door("GET", f"/v2/models/{quote(self.model)}/stats", None, {})
            if status != 200:
                raise TritonError(f"Triton's statistics: HTTP {status}")
            return read_stats(json.loads(raw), model=self.model)
        except (OSError, ValueError) as error:
            raise TritonError(f"Triton's statistics cannot be read: {error}") from error
        finally:
            door.close()

    def cpu_s(self) -> float:
        """Processor time of its processes so far."""
        return _cpu_s(self.process.pid)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]


def _cpu_s(pid: int) -> float:
    """Of a process and those below it that still run."""
    ticks: dict[int, tuple[int, int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                # After the command, which may hold blanks: state, ppid, ..., utime, stime.
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                ticks[int(entry)] = (int(fields[1]), int(fields[11]) + int(fields[12]))
    family, spent = {pid}, 0
    for _ in range(8):
        family |= {child for child, (parent, _) in ticks.items() if parent in family}
    for member in family:
        spent += ticks.get(member, (0, 0))[1]
    return spent / _TICKS


@contextlib.contextmanager
def serve(
    candidate: Candidate, name: str, setting: Setting, backend: Backend, triton: str
) -> Iterator[Server]:
    """Serve a candidate; stopped at the end.

    Args:
        candidate: what is served.
        name: of the model.
        setting: how.
        backend: what runs it.
        triton: see `command`.

    Raises:
        TritonError: it does not start, or does not load the model.
        NoRoomError: the disc for temporary files is full.
    """
    with tempfile.TemporaryDirectory(prefix="tidegate-prepare-") as made:
        folder = Path(made)
        with writable(folder / "models"):
            require_room(candidate.size_bytes, folder)
            write(folder / "models", candidate, name, setting, backend)
        with start(folder / "models", name, triton, folder / "triton.log") as server:
            yield server


@contextlib.contextmanager
def start(
    repository: Path, name: str, triton: str, log: Path, *, response_cache: bool = False
) -> Iterator[Server]:
    """Serve a model repository that is there; as `serve`."""
    http, grpc, metrics = _free_ports(3)
    ports = Ports(triton_http=http, triton_grpc=grpc, triton_metrics=metrics)
    arguments = triton_args(
        exit_timeout_s=5,
        gpu=False,
        response_cache=response_cache,
        repository=str(repository),
        ports=ports,
    )
    with log.open("wb") as out:
        process = subprocess.Popen([triton, *arguments[1:]], stdout=out, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{http}", name, process, log)
    try:
        _await(server)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(server: Server) -> None:
    """Until the model is ready."""
    deadline = time.monotonic() + START_S
    door = Address(server.address, timeout_s=5.0)
    try:
        while time.monotonic() < deadline:
            if server.process.poll() is not None:
                words = _last_words(server.tail()) or f"status {server.process.returncode}"
                raise TritonError(f"Triton ended by itself: {words}")
            with contextlib.suppress(OSError):
                if door("GET", "/v2/health/ready", None, {})[0] == 200:
                    return
                _, _, raw = door("POST", "/v2/repository/index", b"{}", {})
                for entry in json.loads(raw or b"[]"):
                    if isinstance(entry, dict) and entry.get("state") == "UNAVAILABLE":
                        raise TritonError(f"Triton does not load it: {entry.get('reason')}")
            time.sleep(0.1)
    finally:
        door.close()
    raise TritonError(f"Triton was not ready in {START_S:.0f} s: {_last_words(server.tail())}")


def _last_words(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return " ".join(lines[-3:])[-500:]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def backend_of(candidate: Candidate, name: str, triton: str) -> Backend:
    """What this Triton can run the candidate with: its own backend, or Python where it has none.

    Raises:
        TritonError: it does not start, or does not take the model; its own reason.
    """
    try:
        with serve(candidate, name, Setting(1, 1, 0.0, 1), Backend.ONNXRUNTIME, triton):
            return Backend.ONNXRUNTIME
    except TritonError as error:
        if LACKING not in str(error):
            raise
        return Backend.PYTHON
