"""The cgroups that hold every container of the node, in cgroup v1 and v2.

kubelet gets a root of its own below which all pods lie. So all of the cluster's containers can be
ended by what the kernel says is in there, with or without a living containerd.
"""

import os
import signal
import time
from pathlib import Path

ROOT = "tidegate-e2e"
_MOUNT = Path("/sys/fs/cgroup")


def _hierarchies() -> list[Path]:
    """Return the folder of each hierarchy: one for v2, one a controller for v1."""
    if (_MOUNT / "cgroup.controllers").exists():
        return [_MOUNT]
    seen: dict[tuple[int, int], Path] = {}
    for path in sorted(_MOUNT.iterdir()):
        # Joined controllers (cpu, cpuacct) are links to one folder.
        if path.is_dir() and (path / "cgroup.procs").exists():
            status = path.stat()
            seen.setdefault((status.st_dev, status.st_ino), path)
    return list(seen.values())


def create() -> None:
    """Make the root in every hierarchy, with what v1's cpuset and v2's controllers ask for."""
    for hierarchy in _hierarchies():
        folder = hierarchy / ROOT
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / name).exists() and (folder / name).exists():
                (folder / name).write_text((hierarchy / name).read_text())
        if (hierarchy / "cgroup.controllers").exists() and hierarchy == _MOUNT:
            enabled = (hierarchy / "cgroup.controllers").read_text().split()
            (hierarchy / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in enabled))


def _folders() -> list[Path]:
    """Return all cgroups below our roots, the deepest first."""
    found: list[Path] = []
    for hierarchy in _hierarchies():
        root = hierarchy / ROOT
        if root.is_dir():
            found += [Path(folder) for folder, _, _ in os.walk(root, topdown=False)]
    return found


def processes() -> set[int]:
    """Return the pids in our cgroups."""
    found: set[int] = set()
    for folder in _folders():
        try:
            found |= {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
        except OSError:
            continue  # removed meanwhile
    return found


def kill_all(timeout_seconds: float = 10.0) -> None:
    """Kill every process in our cgroups and wait until they are gone.

    Raises:
        TimeoutError: naming the pids that stay.
    """
    deadline = time.monotonic() + timeout_seconds
    while pids := processes():
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes in the cluster's cgroups do not end: {sorted(pids)}")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def remove(timeout_seconds: float = 5.0) -> None:
    """Remove our cgroups; a dying process may hold one a moment longer."""
    deadline = time.monotonic() + timeout_seconds
    while folders := _folders():
        for folder in folders:
            try:
                folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.01)


def leftovers() -> list[str]:
    """Name the roots of ours that still exist."""
    return [f"cgroup {h / ROOT}" for h in _hierarchies() if (h / ROOT).is_dir()]
