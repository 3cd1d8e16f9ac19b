"""Where a prepared model comes from: digests, versions, the machine."""

import importlib.metadata
import math
import os
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

import tidegate
from tidegate.fetch.digest import file_sha256, tree_digest
from tidegate.preparation.candidate import Candidate

PACKAGES: Final = (
    "numpy",
    "onnx",
    "onnxruntime",
    "skl2onnx",
    "onnxmltools",
    "scikit-learn",
    "xgboost-cpu",
    "lightgbm",
    "torch",
    "tensorflow-cpu",
    "openvino",
)

LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")
"""Of this process's own cgroup, where a container sees it as the root."""


def digest(path: Path) -> str:
    """``sha256:...`` of a file, or of a folder's tree.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_file():
        return f"sha256:{file_sha256(path)}"
    files = (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return f"sha256:{_tree(path, files)}"


@cache
def code() -> str:
    """``sha256:...`` of the code that prepares, as it was when it was first asked for."""
    root = Path(tidegate.__file__).parent
    return f"sha256:{_tree(root, (root / 'preparation').rglob('*.py'))}"


def _tree(root: Path, files: Iterable[Path]) -> str:
    return tree_digest({p.relative_to(root).as_posix(): file_sha256(p) for p in files})


def of_candidate(candidate: Candidate) -> str:
    """Of its file and the weights beside it."""
    beside = candidate.path.with_name(f"{candidate.path.name}.data")
    files = [candidate.path, *([beside] if beside.exists() else [])]
    return f"sha256:{_tree(candidate.path.parent, files)}"


def metric(name: str) -> str:
    """A metric's name; of a function, the digest of its file, too."""
    path = Path(name.rpartition(":")[0])
    return f"{name} {digest(path)}" if path.suffix == ".py" and path.is_file() else name


def versions() -> dict[str, str]:
    """Of what took part, as far as it is installed."""
    found = {"python": platform.python_version(), "tidegate": tidegate.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int]:
    """What figures belong to."""
    names = []
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": cores(),
        "kernel": platform.release(),
    }


def cores() -> int:
    """Processors that this process may use: of a container, no more than its limit."""
    allowed = len(os.sched_getaffinity(0))
    try:
        limit = LIMIT.read_text()
    except OSError:
        return allowed
    return min(allowed, whole_cores(limit) or allowed)


def whole_cores(limit: str) -> int | None:
    """From a cgroup's ``cpu.max``, such as ``150000 100000``: 2; None: there is no limit."""
    quota, _, period = limit.strip().partition(" ")
    return None if quota == "max" else max(1, math.ceil(int(quota) / int(period or 100_000)))
