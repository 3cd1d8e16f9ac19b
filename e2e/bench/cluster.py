"""How long the embedded cluster takes: up with warm caches, a second time, down; and cold.

`python -m e2e.bench.cluster [--rounds N] [--cold]` takes the running cluster down first and leaves
it down. A cold run uses empty caches of its own beside the usual ones (about 20 GiB, removed at
the end) and the network; Debian's packages and .venv stay as they are, and their share is told
apart by hand.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from e2e.bench.report import Report, parser
from e2e.cluster import lifecycle, paths
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

AIMS = {
    "up, cold": "at most 900",
    "up, empty image store": "",
    "up, warm": "at most 45",
    "up, when it is up": "no-op",
    "down": "at most 20",
}


def _timed(command: str, *options: str, cache: Path = paths.CACHE) -> float:
    """Run one command of the cluster as a user would and return its seconds."""
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "e2e.cluster", command, *options],
        cwd=paths.REPOSITORY,
        env={**os.environ, "TIDEGATE_CACHE": str(cache)},
        check=True,
    )
    return time.monotonic() - begun


def measure(*, cold: bool, rounds: int) -> dict[str, list[float]]:
    """Return {step: seconds of each run}; ends with the cluster down."""
    samples: dict[str, list[float]] = {step: [] for step in AIMS}
    lifecycle.down(Settings(), Progress())
    if cold:
        cache = paths.CACHE.with_name(paths.CACHE.name + "-cold")
        _timed("down", "--purge")
        try:
            samples["up, cold"].append(_timed("up", cache=cache))
            samples["down"].append(_timed("down", "--purge", cache=cache))
        finally:
            _remove(cache)
        samples["up, empty image store"].append(_timed("up"))
        samples["down"].append(_timed("down"))
    for _ in range(rounds):
        samples["up, warm"].append(_timed("up"))
        samples["up, when it is up"].append(_timed("up"))
        samples["down"].append(_timed("down"))
    return samples


def _remove(folder: Path) -> None:
    # Go's module cache is read-only on purpose.
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Measure and report. Returns the exit status."""
    made = parser(__doc__)
    made.add_argument("--cold", action="store_true", help="also with empty caches (minutes)")
    made.add_argument("--rounds", type=int, default=3)
    arguments = made.parse_args()
    report = Report("cluster", "the embedded cluster, from the command to the last part ready")
    report.await_quiet(arguments.patience)
    for step, values in measure(cold=arguments.cold, rounds=arguments.rounds).items():
        if values:
            report.add(step, "s", values, aim=AIMS[step])
    report.finish(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
