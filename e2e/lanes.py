"""Commands side by side, each of their lines with the lane's name in front."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

from e2e.cluster import processes

GRACE_S: Final = 60.0
"""For an interrupted lane to put away what it has started."""
TOLD_S: Final = 5.0
"""For an ended lane's last lines; not for ever: what it left behind may hold its output open."""
LEAVES: Final = 10
"""How much nicer the other lanes are than the first: they wait for servers most of their time."""
TAIL: Final = 12
"""Lines of a failed lane that are said once more at the end: the others' stand after them."""
WIDTH: Final = 200
_PRINTING: Final = threading.Lock()


class LaneFailed(RuntimeError):
    """A lane ended with another status than 0, its last words; the others were interrupted."""


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
    tellers = {}
    ends: dict[str, deque[str]] = {}
    try:
        for position, (name, command) in enumerate(lanes.items()):
            running[name] = _start(command, folder, environment, LEAVES if position else 0)
            ends[name] = deque(maxlen=TAIL)
            teller = threading.Thread(
                target=_tell, args=(name, running[name], ends[name], out or sys.stdout), daemon=True
            )
            teller.start()
            tellers[name] = teller
        for name, status in _ends(running):
            if status != 0:
                tellers[name].join(TOLD_S)
                said = "".join(f"\n  {line[:WIDTH]}" for line in ends[name])
                raise LaneFailed(f"{name} ended with status {status}, its last lines:{said}")
    finally:
        for process in running.values():
            _interrupt(process)
        for process in running.values():
            _see_off(process)
        for teller in tellers.values():
            teller.join(TOLD_S)


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
        # Not a session of its own: by default the kernel shares the processor between sessions
        # first (sched_autogroup), whatever the niceness of what is in them.
        process_group=0,
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


def _tell(name: str, process: "subprocess.Popen[str]", last: deque[str], out: TextIO) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            text = line.rstrip("\n")
            last.append(text)
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
