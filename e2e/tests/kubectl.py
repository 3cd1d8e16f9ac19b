"""The real kubectl, as people use it."""

import os
import subprocess

from e2e.tests.space import SETTINGS, Space


def kubectl(space: Space, *arguments: str) -> str:
    """Run kubectl in a namespace and return what it printed.

    Raises:
        RuntimeError: with its own words.
    """
    done = subprocess.run(
        ["kubectl", "--namespace", space.name, *arguments],
        env=os.environ | {"KUBECONFIG": str(SETTINGS.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
