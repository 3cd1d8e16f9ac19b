"""Mounts below the cluster's folders, found in the kernel's own list."""

import ctypes
import os
from pathlib import Path

_MNT_DETACH = 2  # linux/fs.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def parse(mountinfo: str) -> list[Path]:
    """Return the mount points of a /proc/PID/mountinfo, in the order of mounting.

    The kernel writes blanks and backslashes in a path as octal escapes.
    """
    points = []
    for line in mountinfo.splitlines():
        field = line.split(" ")[4]
        for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            field = field.replace(escaped, plain)
        points.append(Path(field))
    return points


def below(*roots: Path) -> list[Path]:
    """Return the mount points at or below any of the folders, the newest first."""
    points = parse(Path("/proc/self/mountinfo").read_text())
    return [point for point in reversed(points) if any(point.is_relative_to(r) for r in roots)]


def unmount(*roots: Path) -> None:
    """Unmount everything at or below the folders.

    Raises:
        OSError: if the kernel refuses one; detaching lazily, it does not for being busy.
    """
    for point in below(*roots):
        if _LIBC.umount2(os.fsencode(point), _MNT_DETACH) != 0:
            number = ctypes.get_errno()
            if point in below(*roots):
                raise OSError(number, os.strerror(number), str(point))
