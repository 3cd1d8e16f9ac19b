"""Commands side by side, each of their lines with the lane's name in front."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

from e2e.cluster import processes

GRACE_S: Final = 60.0
"""For an interrupted lane to put away what it has started."""
LEAVES: Final = 10
"""How much nicer the other lanes are than the first: they wait for servers most of their time."""
_PRINTING: Final = threading.Lock()


class LaneFailed(RuntimeError):
    """A lane ended with another status than 0; the others were interrupted."""


def side_by_side(
    lanes: Mapping[str, Sequence[str]],
    *,
    folder: Path,
    environment: Mapping[str, str],
    out: TextIO | None = None,
) -> None:
    """Run all of them to their ends, the first with the processor before the others.

    Args:
        lanes: commands by name.
        folder: in which they run.
        environment: of theirs.
        out: where their lines go, of both outputs; None: to this process's own.

    Raises:
        LaneFailed: by the first that fails.
    """
    running: dict[str, subprocess.Popen[str]] = {}
    tellers = []
    try:
        for position, (name, command) in enumerate(lanes.items()):
            running[name] = _start(command, folder, environment, LEAVES if position else 0)
            teller = threading.Thread(target=_tell, args=(name, running[name], out or sys.stdout))
            teller.daemon = True
            teller.start()
            tellers.append(teller)
        for name, status in _ends(running):
            if status != 0:
                raise LaneFailed(f"{name} ended with status {status}")
    finally:
        for process in running.values():
            _interrupt(process)
        for process in running.values():
            _see_off(process)
        for teller in tellers:
            # Not for ever: what a lane left behind may hold its output open.
            teller.join(5.0)


def _start(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], nicer: int
) -> "subprocess.Popen[str]":
    parent = os.getpid()

    def in_the_child() -> None:
        processes.die_with(parent)
        # Whoever runs this in the background has it ignored, and that is handed on.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.nice(nicer)

    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=in_the_child,
    )


def _ends(running: Mapping[str, "subprocess.Popen[str]"]) -> Iterator[tuple[str, int]]:
    """Name and status of each, as they end."""
    left = dict(running)
    while left:
        for name, process in list(left.items()):
            if (status := process.poll()) is not None:
                del left[name]
                yield name, status
        time.sleep(0.1)


def _tell(name: str, process: "subprocess.Popen[str]", out: TextIO) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            text = line.rstrip("\n")
            with _PRINTING:
                print(f"{name} | {text}", file=out, flush=True)


def _interrupt(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        # All of it, as a terminal does: tests put their servers away.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)


def _see_off(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
