"""pytest, and once more those tests that failed beside others, alone.

The stages of `make test` share two cores, so a test may wait in vain for what a quiet machine does
at once. It has to pass by itself then, and is named; a run in which many fail is not tried again.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

MOST: Final = 3
"""Failed tests that are tried again; with more of them, something is wrong."""
TESTS_FAILED: Final = 1
"""pytest's status when all was collected and run, and some failed."""


def run(
    command: Sequence[str],
    *,
    alone: Sequence[str] = (),
    folder: Path,
    environment: Mapping[str, str],
) -> tuple[int, list[str]]:
    """Run a pytest command to its end.

    Args:
        command: with its interpreter.
        alone: options added at the second try, to end what runs at once.
        folder: in which it runs.
        environment: of its process.

    Returns:
        The status in the end, and the names of the tests that passed at the second try only.
    """
    with tempfile.TemporaryDirectory(prefix="tidegate-tests-") as cache:
        # A cache of its own: other stages run from the same folder at the same time.
        kept = [*command, "-o", f"cache_dir={cache}"]

        def once(*options: str) -> int:
            return subprocess.run(
                [*kept, *options], cwd=folder, env=environment, check=False
            ).returncode

        status = once()
        if status != TESTS_FAILED:
            return status, []
        failed = _failed(Path(cache))
        if not 1 <= len(failed) <= MOST:
            return status, []
        print(f"once more, alone: {', '.join(failed)}", flush=True)
        status = once("--last-failed", "--last-failed-no-failures=none", *alone)
        return status, failed if status == 0 else []


def _failed(cache: Path) -> list[str]:
    try:
        found: dict[str, bool] = json.loads((cache / "v/cache/lastfailed").read_text())
    except FileNotFoundError:
        return []
    return sorted(found)
