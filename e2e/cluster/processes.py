"""Native processes of the embedded cluster: started with a mark, stopped by pid, only its own.

A pid file alone is not enough: a run that is killed between fork and write leaves a process that
no file names, and a number may have been reused. So every process carries the mark of its owner
in its environment, and is found again by that.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OWNER_VARIABLE = "TIDEGATE_E2E_OWNER"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)


class ProcessFailed(RuntimeError):
    """A process ended although it should serve; the message holds the end of its log."""


@dataclass(frozen=True)
class Owned:
    """A running process that carries an owner's mark."""

    pid: int
    name: str
    """The base name of its executable."""
    started: int
    """Clock ticks since boot, so that a reused pid is not taken for the same process."""


def tool_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the folders of system tools on PATH; sudo may hide them."""
    merged = {**os.environ, **(more or {})}
    merged["PATH"] = merged.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    return merged


def die_with(parent: int) -> None:
    """In a new child: ask the kernel to kill it when the thread that forked it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    owner: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    die_with_parent: bool = False,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log`.

    With `die_with_parent` the kernel kills it when the starting thread ends, however that ends.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()

    with log.open("ab") as sink:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=(lambda: die_with(parent)) if die_with_parent else None,
            env={**tool_environment(environment), OWNER_VARIABLE: owner, "TIDEGATE_NAME": name},
        )


def run_tool(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end with its output caught; it does not outlive a killed caller."""
    parent = os.getpid()
    return subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env=tool_environment(environment),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: die_with(parent),
    )


def log_tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, or a note that there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return f"(no log at {log})"


def require_running(process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    """Raise ProcessFailed if the process has ended.

    Raises:
        ProcessFailed: with the exit status and the end of the log.
    """
    status = process.poll()
    if status is not None:
        raise ProcessFailed(f"{name} ended with status {status}; end of {log}:\n{log_tail(log)}")


def _stat(pid: int) -> tuple[str, str, int] | None:
    """Name, state letter and start time of a process, None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may itself hold some: cut at the last one.
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    return name, fields[0], int(fields[19])


def owned_by(owner: str) -> list[Owned]:
    """List the running processes that carry this owner's mark, oldest first."""
    mark = f"{OWNER_VARIABLE}={owner}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if mark not in environment.split(b"\0"):
            continue
        stat = _stat(int(entry.name))
        if stat is not None and stat[1] != "Z":
            found.append(Owned(int(entry.name), stat[0], stat[2]))
    return sorted(found, key=lambda process: (process.started, process.pid))


def alive(process: Owned) -> bool:
    """Say whether that very process (not another with its number) still runs."""
    stat = _stat(process.pid)
    return stat is not None and stat[1] != "Z" and stat[2] == process.started


def _signal(process: Owned, number: signal.Signals) -> None:
    if alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def stop(processes: Iterable[Owned], *, grace_seconds: float) -> None:
    """End the processes: SIGTERM, up to `grace_seconds` to leave, then SIGKILL; wait for each."""
    targets = list(processes)
    for process in targets:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and any(map(alive, targets)):
        time.sleep(0.02)
    for process in targets:
        _signal(process, signal.SIGKILL)
    while any(map(alive, targets)):
        time.sleep(0.02)
