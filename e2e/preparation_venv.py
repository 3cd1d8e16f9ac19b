"""The environment of the preparation's tests: apart from .venv, outside the clone, by its lock.

The frameworks that models are trained with are large, and `make check` needs none of them.
``python -m e2e.preparation_venv`` makes it and prints its interpreter; with ``--frameworks`` the
one with PyTorch, TensorFlow and OpenVINO, which is 6 GB.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from e2e.native.parts import cache_dir, locked

LOCKS = Path(__file__).resolve().parents[1] / "requirements"


def python(*, frameworks: bool = False) -> Path:
    """The interpreter; made the first time, about a minute.

    Raises:
        subprocess.CalledProcessError: a package could not be installed; its log was printed.
    """
    name = "preparation-frameworks" if frameworks else "preparation-tests"
    lock = LOCKS / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = cache_dir() / name / digest
    with locked(folder):
        return _made(folder, lock)


def _made(folder: Path, lock: Path) -> Path:
    interpreter, stamp = folder / "bin" / "python", folder / "installed"
    if stamp.exists():
        return interpreter
    print(f"installing {lock.name} into {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    locked = ["--quiet", "--require-hashes", "-r", str(lock)]
    if shutil.which("uv"):
        make = ["uv", "venv", "--quiet", "--python", sys.executable, str(folder)]
        install = ["uv", "pip", "install", "--python", str(interpreter), *locked]
    else:
        make = [sys.executable, "-m", "venv", str(folder)]
        install = [str(interpreter), "-m", "pip", "install", *locked]
    subprocess.run(make, check=True)
    subprocess.run(install, check=True)
    stamp.touch()  # last: a killed install starts over
    return interpreter


def main() -> None:
    """Make the environment; print its interpreter."""
    parser = argparse.ArgumentParser(prog="python -m e2e.preparation_venv", description=__doc__)
    parser.add_argument("--frameworks", action="store_true")
    print(python(frameworks=parser.parse_args().frameworks))


if __name__ == "__main__":
    main()
