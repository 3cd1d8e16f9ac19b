"""Up and down of the embedded cluster.

Up is all or nothing: either a cluster is whole, and up does nothing, or what is left of one is
taken down first. Down finds what is ours by marks in the kernel (environment of processes,
cgroup, mount point, name of interface and table), never by memory of what was started, so it also
cleans up after a run that was killed at any point.
"""

import fcntl
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import (
    addons,
    cgroups,
    gobuild,
    images,
    mounts,
    network,
    node,
    node_images,
    paths,
    pki,
    preflight,
    processes,
)
from e2e.cluster.control_plane import (
    AUDIT_POLICY,
    ApiServerSettings,
    EtcdSettings,
    controller_manager_command,
    etcd_binary,
    write_pki,
)
from e2e.cluster.kube import KubeClient, has_condition, wait_for
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

START_SECONDS = 120.0
"""A bound for each part's readiness, far above what is usual (15 s for all)."""

EXPECTED = frozenset(
    {
        "etcd",
        "kube-apiserver",
        "kube-controller",  # the kernel keeps 15 characters of a name
        "kube-scheduler",
        "containerd",
        "kubelet",
        "kube-proxy",
        "coredns",
        "deviceplugin",
    }
)
"""Process names of a whole cluster."""


LOCK = Path("/run/tidegate-e2e.lock")
"""One for the machine: bridge, cgroups and nft tables have the same names for every state."""


@contextmanager
def exclusive(settings: Settings, progress: Progress) -> Iterator[None]:
    """Hold the machine's lock; another run is waited for.

    Raises:
        Unfit: without root, or while a cluster of another state folder is up.
    """
    preflight.need_root()
    with LOCK.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("waiting for another run of this script")
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        other = handle.read().strip()
        if other not in ("", settings.owner) and processes.owned_by(other):
            raise preflight.Unfit(
                f"a cluster with its state in {other} is up on this machine; only one can be: "
                f"TIDEGATE_STATE={other} make cluster-down"
            )
        handle.truncate(0)
        handle.write(settings.owner)
        handle.flush()
        yield


def _names(settings: Settings) -> set[str]:
    return {process.name[:15] for process in processes.owned_by(settings.owner)}


def _marker(settings: Settings) -> Path:
    return settings.state / "ready.json"


def is_whole(settings: Settings) -> bool:
    """Say whether a cluster is up: its start ended well, all parts run, the node is Ready."""
    if not _marker(settings).exists() or not _names(settings) >= EXPECTED:
        return False
    with KubeClient(settings.kubeconfig) as client:
        try:
            item = wait_for(
                lambda: client.get("v1", "Node", settings.node), "node", timeout_seconds=5
            )
        except TimeoutError:
            return False
        return has_condition(item, "Ready")


def build_everything(progress: Progress) -> None:
    """Build all programs and images that are not in the cache.

    Compiling uses all cores, making images mostly waits for downloads: so one lane each, and one
    that fetches sources ahead of the compiler.
    """
    programs = [name for name in gobuild.PROGRAMS if name not in gobuild.ON_DEMAND]
    with ThreadPoolExecutor(3) as lanes:
        lanes.submit(gobuild.fetch_sources, programs)
        compiled = lanes.submit(lambda: [gobuild.build(name, progress) for name in programs])
        packed = lanes.submit(
            lambda: [images.build_archive(n, progress) for n in images.for_node()]
        )
        # Both are awaited before either error is told, or the other would go on unseen.
        errors = [error for error in (compiled.exception(), packed.exception()) if error]
    if errors:
        raise errors[0]


class _Starter:
    """Starts native parts and watches that those already started stay."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def start(self, part: node.Part) -> None:
        for path, text in part.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        log = self.settings.state / "log" / f"{part.name}.log"
        process = processes.spawn(part.name, part.command, owner=self.settings.owner, log=log)
        self.running[part.name] = (process, log)

    def stop(self, name: str) -> None:
        process, _ = self.running.pop(name)
        process.terminate()
        process.wait(30)

    def until(self, probe: Callable[[], object], what: str) -> None:
        """Wait for `probe` while every part started so far goes on running."""

        def checked() -> object:
            for name, (process, log) in self.running.items():
                processes.require_running(process, name, log)
            return probe()

        wait_for(checked, what, timeout_seconds=START_SECONDS, interval_seconds=0.1)


def _write_credentials(settings: Settings) -> None:
    """Make all certificates and kubeconfigs anew; they take milliseconds."""
    directory = settings.state / "pki"
    address = settings.network.address
    authority = write_pki(directory, addresses=[address, "127.0.0.1", "10.96.0.1"])
    users = {
        "controller-manager": ("system:kube-controller-manager", []),
        "scheduler": ("system:kube-scheduler", []),
        "proxy": ("system:kube-proxy", []),
        "node": (f"system:node:{settings.node}", ["system:nodes"]),
        "admin": ("admin", ["system:masters"]),
    }
    server = f"https://{address}:{settings.api_port}"
    for name, (user, groups) in users.items():
        pair = authority.issue(
            user, organizations=groups, dns_names=[settings.node], addresses=[address, "127.0.0.1"]
        )
        pair.write(directory, name)
        path = settings.state / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(pki.kubeconfig(server=server, authority=authority, user=pair))


def _start_containerd(starter: _Starter, settings: Settings) -> None:
    def answers() -> bool:
        if not settings.containerd_socket.exists():
            return False
        try:
            node_images.ctr(settings, "version")
        except RuntimeError:
            return False
        return True

    part = node.containerd(settings)
    starter.start(part)
    starter.until(answers, "containerd answers")
    if node_images.forget_containers(settings):
        starter.stop(part.name)
        shutil.rmtree(settings.state / "containerd" / "root" / "io.containerd.grpc.v1.cri", True)
        starter.start(part)
        starter.until(answers, "containerd answers")


def _has_upstream_dns() -> bool:
    path = Path("/etc/resolv.conf")
    return path.exists() and any(
        line.startswith("nameserver") for line in path.read_text().splitlines()
    )


def _start(settings: Settings, progress: Progress) -> None:
    programs = {
        name: gobuild.build(name, progress)
        for name in gobuild.PROGRAMS
        if name not in gobuild.ON_DEMAND
    }
    state = settings.state
    state.mkdir(parents=True, exist_ok=True)
    network.up(settings.network, state / "ip_forward")
    cgroups.create()
    _write_credentials(settings)
    (state / "audit-policy.yaml").write_text(AUDIT_POLICY)
    starter = _Starter(settings)

    etcd = EtcdSettings(
        state / "etcd",
        f"127.0.0.1:{settings.etcd_port}",
        f"127.0.0.1:{settings.etcd_peer_port}",
    )
    api = ApiServerSettings(
        pki_directory=state / "pki",
        etcd=etcd.client,
        address=settings.network.address,
        port=settings.api_port,
        audit_policy=state / "audit-policy.yaml",
        audit_log=settings.audit_log,
        service_range=settings.network.services,
    )
    with progress.step("etcd, kube-apiserver, containerd"):
        starter.start(node.Part("etcd", tuple(etcd.command(etcd_binary()))))
        starter.start(node.Part("kube-apiserver", tuple(api.command(programs["kube-apiserver"]))))
        _start_containerd(starter, settings)
    manager = controller_manager_command(
        programs["kube-controller-manager"],
        state / "controller-manager.kubeconfig",
        state / "pki",
        port=settings.controller_manager_port,
    )
    with ThreadPoolExecutor(1) as lane, KubeClient(settings.kubeconfig) as client:
        importing = lane.submit(node_images.bring_in, settings, images.for_node(), progress)
        with progress.step("API server ready"):
            starter.until(lambda: client.text("/readyz") == "ok", "kube-apiserver ready")
        with progress.step(f"node {settings.node} Ready with {settings.gpus.count} GPUs"):
            starter.start(node.Part("kube-controller-manager", tuple(manager)))
            starter.start(node.scheduler(settings, programs["kube-scheduler"]))
            starter.start(node.kubelet(settings, programs["kubelet"]))
            starter.start(node.kube_proxy(settings, programs["kube-proxy"]))
            starter.start(node.coredns(settings, programs["coredns"], forward=_has_upstream_dns()))
            starter.start(node.device_plugin(settings, programs["deviceplugin"]))
            starter.until(lambda: _node_ready(client, settings), "node Ready with its GPUs")
        client.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": settings.node, "labels": settings.gpus.labels()},
            }
        )
        # A pod whose image is not there yet would be tried again only after ten seconds.
        importing.result()
    _install_addons(settings, progress)
    _marker(settings).write_text(json.dumps({"since": time.time()}))


def _node_ready(client: KubeClient, settings: Settings) -> bool:
    item = client.get("v1", "Node", settings.node)
    if item is None or not has_condition(item, "Ready"):
        return False
    offered = item["status"].get("allocatable", {}).get(settings.gpus.resource, "0")
    return int(offered) == settings.gpus.count


def _install_addons(settings: Settings, progress: Progress) -> None:
    def infra() -> None:
        with progress.step("S3 server and Prometheus"), KubeClient(settings.kubeconfig) as client:
            addons.install_infra(settings, client)

    def gateway() -> None:
        with progress.step("Envoy Gateway"), KubeClient(settings.kubeconfig) as client:
            addons.install_gateway(settings, client, progress)

    with ThreadPoolExecutor(2) as lanes:
        started = [lanes.submit(infra), lanes.submit(gateway)]
    for one in started:
        one.result()


def up(settings: Settings, progress: Progress) -> None:
    """Bring the cluster up, or do nothing if it is.

    If it does not come up, it is tried once more from nothing, and what was wrong is said: what a
    former cluster left in the node's image store is the one thing that outlives a tear-down.

    Raises:
        Unfit: the machine lacks something; nothing was started.
    """
    with exclusive(settings, progress):
        if is_whole(settings):
            progress.say("the cluster is up already")
            return
        if leftovers(settings):
            with progress.step("removing what an unfinished run left"):
                _take_down(settings)
        preflight.for_cluster(settings, progress)
        build_everything(progress)
        try:
            _start(settings, progress)
        except Exception as error:
            _tell(settings, error, progress)
            progress.say("a second and last try, without the node's image store")
            _take_down(settings)
            _remove(settings.state / "containerd")
            _start(settings, progress)
        progress.say(f"up: export KUBECONFIG={settings.kubeconfig}")


def _tell(settings: Settings, error: Exception, progress: Progress) -> None:
    """Say why the cluster did not come up; the logs themselves go with it."""
    progress.say(f"the cluster did not come up: {type(error).__name__}: {error}")
    for log in sorted((settings.state / "log").glob("*.log")):
        progress.say(f"the end of {log.name}:\n{processes.log_tail(log, 4)}")


def leftovers(settings: Settings) -> list[str]:
    """Name everything of ours that exists outside the caches and the image store."""
    return [
        *(f"process {p.pid} {p.name}" for p in processes.owned_by(settings.owner)),
        *cgroups.leftovers(),
        *(f"mount {point}" for point in mounts.below(settings.state, paths.CACHE / "buildah")),
        *network.leftovers(settings.network),
    ]


def _take_down(settings: Settings) -> None:
    running = processes.owned_by(settings.owner)

    def named(*names: str) -> list[processes.Owned]:
        return [p for p in running if p.name in names]

    # First whoever would restart something, then the containers, then what they stood on.
    processes.stop(named("kubelet"), grace_seconds=2)
    cgroups.kill_all()
    last = named("etcd", "kube-apiserver", "containerd")
    processes.stop([p for p in running if p not in last and p.name != "kubelet"], grace_seconds=1)
    processes.stop(last, grace_seconds=1)
    # Whatever was started while we looked.
    processes.stop(processes.owned_by(settings.owner), grace_seconds=0)
    cgroups.kill_all()
    mounts.unmount(settings.state)
    with images.storage():
        pass  # waits for a build of another run, then unmounts what a killed one left
    cgroups.remove()
    network.down(settings.network, settings.state / "ip_forward")
    _remove_state(settings)


def _remove_state(settings: Settings) -> None:
    """Remove all files of the cluster but the node's image store, which costs half a minute."""
    keep = {"root", "imported.json"}
    for path in settings.state.iterdir() if settings.state.exists() else ():
        if path.name == "containerd":
            for inner in path.iterdir():
                if inner.name not in keep:
                    _remove(inner)
        else:
            _remove(path)
    _remove(node.DEVICE_PLUGINS)
    parent = node.DEVICE_PLUGINS.parent
    if parent.exists() and not any(parent.iterdir()):
        parent.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class NotClean(RuntimeError):
    """Something of ours outlived the tear-down; the message names it."""


def down(settings: Settings, progress: Progress, *, purge: bool = False) -> None:
    """Stop the cluster and remove all it made; with `purge` also the node's image store.

    Raises:
        NotClean: naming what remains.
    """
    with exclusive(settings, progress):
        with progress.step("cluster down"):
            _take_down(settings)
            if purge and settings.state.exists():
                shutil.rmtree(settings.state)
        if remains := leftovers(settings):
            raise NotClean("left after the tear-down:\n  " + "\n  ".join(remains))
