"""Makes .venv from the hashed lock; standard library only, for it runs before there is one.

With uv on PATH it takes seconds; without it Python's own venv and pip do the same slower. The
stamp .venv/.locked holds the lock's hash, so an unchanged lock is a no-op.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
VENV = REPOSITORY / ".venv"
LOCK = REPOSITORY / "requirements" / "dev.txt"
STAMP = VENV / ".locked"
MINIMUM = (3, 11)


def run(*command: str) -> None:
    """Run a command; its failure ends this script with its status."""
    done = subprocess.run(command, cwd=REPOSITORY, check=False)
    if done.returncode != 0:
        print(f"error: {' '.join(command)} failed", file=sys.stderr)
        sys.exit(done.returncode)


def need(problem: str, remedy: str) -> None:
    """End with what is missing and how to get it."""
    print(f"this machine lacks: {problem}\n  {remedy}", file=sys.stderr)
    sys.exit(1)


def make_venv() -> None:
    """Create .venv with uv or, without it, with the standard library."""
    if shutil.which("uv"):
        run("uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(VENV))
        return
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            need("Python's venv module", "apt-get install python3-venv, or install uv")
        run("apt-get", "-qq", "update")
        run("apt-get", "-qq", "-y", "install", "--no-install-recommends", "python3-venv")
    run(sys.executable, "-m", "venv", str(VENV))


def main() -> None:
    """Bring .venv to the lock's state."""
    if sys.version_info < MINIMUM:
        need(f"Python {'.'.join(map(str, MINIMUM))} or newer", "apt-get install python3")
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == digest:
        STAMP.touch()
        return
    begun = time.monotonic()
    print("making .venv from requirements/dev.txt ...", file=sys.stderr, flush=True)
    make_venv()
    python = str(VENV / "bin" / "python")
    if shutil.which("uv"):
        run(
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--require-hashes",
            "-r",
            str(LOCK),
        )
    else:
        run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(LOCK))
    STAMP.write_text(digest)
    print(f".venv is ready ({time.monotonic() - begun:.0f} s)", file=sys.stderr)


if __name__ == "__main__":
    main()
