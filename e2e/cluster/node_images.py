"""Images inside the node's containerd: what is there, and bringing in what changed."""

import json
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster import images
from e2e.cluster.processes import run_tool
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

NAMESPACE = "k8s.io"
"""Where the kubelet's side of containerd keeps images and containers."""


def ctr(settings: Settings, *arguments: str) -> str:
    """Run ctr in the kubelet's namespace and return its output.

    Raises:
        RuntimeError: with ctr's own words.
    """
    done = run_tool(
        ["ctr", "--address", str(settings.containerd_socket), "--namespace", NAMESPACE, *arguments],
    )
    if done.returncode != 0:
        raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _record(settings: Settings) -> Path:
    # Beside the store it describes, so that they are removed together.
    return settings.state / "containerd" / "imported.json"


def imported(settings: Settings) -> dict[str, str]:
    """Return {image name: content key} of what was imported, as far as containerd still has it."""
    try:
        record: dict[str, str] = json.loads(_record(settings).read_text())
    except FileNotFoundError:
        return {}
    listed = ctr(settings, "images", "list", "--quiet").split()
    return {
        name: content
        for name, content in record.items()
        if any(images.same(entry, name) for entry in listed)
    }


def bring_in(settings: Settings, names: Sequence[str], progress: Progress) -> list[str]:
    """Build and import the images whose content the node does not hold; return their names."""
    record = imported(settings)
    changed = []
    for name in names:
        content = images.key(name)
        if record.get(name) == content:
            continue
        archive = images.build_archive(name, progress)
        with progress.step(f"import {name}"):
            ctr(settings, "images", "import", str(archive))
        record[name] = content
        changed.append(name)
        partial = _record(settings).with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=2))
        partial.replace(_record(settings))
    return changed


def forget_containers(settings: Settings) -> bool:
    """Remove the containers that a former cluster left in the store; say whether there were any.

    Their processes are gone; kubelet would find them and spend its first seconds on them.
    """
    left = ctr(settings, "containers", "list", "--quiet").split()
    if left:
        ctr(settings, "containers", "delete", *left)
    return bool(left)
