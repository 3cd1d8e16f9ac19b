"""etcd and kube-apiserver: their command lines, and both alone on free ports for contract tests.

`control_plane()` gives a real API server with fresh data in a few seconds::

    with control_plane() as plane:
        client = plane.client()
        client.apply_all(documents(crd_yaml))

It needs no root. The servers die with the process that started them, however it ends.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import gobuild, pki
from e2e.cluster.kube import KubeClient, NotReached, wait_for
from e2e.cluster.processes import ProcessFailed, require_running, spawn
from e2e.cluster.progress import Progress
from e2e.ports import free_ports

START_SECONDS = 90.0
"""A bound, not an expectation (3 s is usual): two busy cores must not fail a test run."""

AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: None
  users:
  - system:apiserver
  - system:kube-controller-manager
  - system:kube-scheduler
  - system:kube-proxy
- level: None
  userGroups: [system:nodes, system:serviceaccounts:kube-system]
- level: Metadata
"""
"""Every write that the cluster's own parts did not make, one line each."""


@dataclass(frozen=True)
class EtcdSettings:
    """Where one etcd keeps its data and listens; addresses are host:port."""

    data: Path
    client: str
    peer: str

    def command(self, binary: Path) -> list[str]:
        """Return the command line; without fsync, for nothing here outlives the machine."""
        return [
            str(binary),
            f"--data-dir={self.data}",
            f"--listen-client-urls=http://{self.client}",
            f"--advertise-client-urls=http://{self.client}",
            f"--listen-peer-urls=http://{self.peer}",
            f"--initial-advertise-peer-urls=http://{self.peer}",
            f"--initial-cluster=default=http://{self.peer}",
            "--unsafe-no-fsync",
            "--log-outputs=stderr",
            "--logger=zap",
            "--log-level=warn",
        ]


@dataclass(frozen=True)
class ApiServerSettings:
    """What shapes one kube-apiserver; `pki_directory` holds ca, apiserver, admin, sa files."""

    pki_directory: Path
    etcd: str
    address: str
    port: int
    audit_policy: Path
    audit_log: Path
    service_range: str = "10.96.0.0/16"
    extra: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The base URL that clients use."""
        return f"https://{self.address}:{self.port}"

    def command(self, binary: Path) -> list[str]:
        """Return the command line."""
        pki_file = self.pki_directory.joinpath
        return [
            str(binary),
            f"--etcd-servers=http://{self.etcd}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={self.service_range}",
            f"--tls-cert-file={pki_file('apiserver.crt')}",
            f"--tls-private-key-file={pki_file('apiserver.key')}",
            f"--client-ca-file={pki_file('ca.crt')}",
            f"--service-account-key-file={pki_file('sa.pub')}",
            f"--service-account-signing-key-file={pki_file('sa.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--kubelet-client-certificate={pki_file('admin.crt')}",
            f"--kubelet-client-key={pki_file('admin.key')}",
            # The default order asks DNS for the node's name first, and nothing answers.
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            f"--audit-policy-file={self.audit_policy}",
            f"--audit-log-path={self.audit_log}",
            # Debian 12's etcd (3.4.23) knows no progress requests, so a list by watch never ends;
            # newer clients ask for one first, and only a plain refusal makes them list at once.
            "--feature-gates=WatchList=false",
            # Writes are counted from this file, so a request must not end before its line.
            "--audit-log-mode=blocking-strict",
            *self.extra,
        ]


def write_pki(directory: Path, *, addresses: Sequence[str]) -> pki.Authority:
    """Make an authority, the API server's and the administrator's certificates, and the token key.

    Files: ca, apiserver, admin (.crt, .key), sa.key, sa.pub.
    """
    authority = pki.Authority.create()
    authority.pair.write(directory, "ca")
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    authority.issue(
        "kube-apiserver",
        dns_names=[*names, "kubernetes.default.svc.cluster.local", "localhost"],
        addresses=addresses,
    ).write(directory, "apiserver")
    authority.issue("admin", organizations=["system:masters"]).write(directory, "admin")
    private, public = pki.key_pair()
    (directory / "sa.key").touch(mode=0o600)
    (directory / "sa.key").write_bytes(private)
    (directory / "sa.pub").write_bytes(public)
    return authority


def etcd_binary() -> Path:
    """Return etcd as Debian's etcd-server installs it.

    Raises:
        FileNotFoundError: naming the package.
    """
    found = shutil.which("etcd", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin")
    if found is None:
        raise FileNotFoundError("etcd is missing: apt-get install etcd-server")
    return Path(found)


@dataclass(frozen=True)
class ControlPlane:
    """A running API server without nodes."""

    url: str
    kubeconfig: Path
    """Of an administrator (group system:masters)."""
    audit_log: Path
    """One JSON event a line; read it with e2e.cluster.audit."""
    directory: Path
    authority: pki.Authority

    def client(self) -> KubeClient:
        """Return a new client as the administrator; the caller closes it."""
        return KubeClient(self.kubeconfig)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Write and return a kubeconfig for any user and groups, say of a RBAC test.

        A service account is user `system:serviceaccount:NAMESPACE:NAME`, groups
        `system:serviceaccounts` and `system:serviceaccounts:NAMESPACE`.
        """
        path = self.directory / f"{user.replace('/', '_')}.kubeconfig"
        pair = self.authority.issue(user, organizations=groups)
        path.touch(mode=0o600)
        path.write_text(pki.kubeconfig(server=self.url, authority=self.authority, user=pair))
        return path


@contextmanager
def _running(
    name: str, command: Sequence[str], directory: Path, *, stop_seconds: float = 5.0
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = directory / f"{name}.log"
    process = spawn(name, command, owner=str(directory), log=log, die_with_parent=True)
    try:
        yield process, log
    finally:
        process.terminate()
        try:
            process.wait(stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _started(directory: Path, *, controllers: bool, extra: Sequence[str]) -> Iterator[ControlPlane]:
    progress = Progress(stream=sys.stderr)
    apiserver = gobuild.build("kube-apiserver", progress)
    etcd_client, etcd_peer, port = free_ports(3)
    authority = write_pki(directory / "pki", addresses=["127.0.0.1", "10.96.0.1"])
    policy = directory / "audit-policy.yaml"
    policy.write_text(AUDIT_POLICY)
    etcd = EtcdSettings(directory / "etcd", f"127.0.0.1:{etcd_client}", f"127.0.0.1:{etcd_peer}")
    settings = ApiServerSettings(
        pki_directory=directory / "pki",
        etcd=etcd.client,
        address="127.0.0.1",
        port=port,
        audit_policy=policy,
        audit_log=directory / "audit.log",
        extra=(
            # No controller makes default service accounts here, and 127.0.0.1 is no endpoint.
            *(() if controllers else ("--disable-admission-plugins=ServiceAccount",)),
            "--endpoint-reconciler-type=none",
            "--shutdown-delay-duration=0s",
            *extra,
        ),
    )
    with ExitStack() as stack:
        started = [
            stack.enter_context(_running("etcd", etcd.command(etcd_binary()), directory)),
            stack.enter_context(_running("kube-apiserver", settings.command(apiserver), directory)),
        ]
        plane = ControlPlane(
            url=settings.url,
            kubeconfig=directory / "admin.kubeconfig",
            audit_log=settings.audit_log,
            directory=directory,
            authority=authority,
        )
        pair = pki.Pair(
            (directory / "pki" / "admin.crt").read_bytes(),
            (directory / "pki" / "admin.key").read_bytes(),
        )
        plane.kubeconfig.touch(mode=0o600)
        plane.kubeconfig.write_text(
            pki.kubeconfig(server=settings.url, authority=authority, user=pair)
        )

        def ready(client: KubeClient) -> bool:
            for process, log in started:
                require_running(process, log.stem, log)
            return client.text("/readyz") == "ok"

        with plane.client() as client:
            wait_for(
                lambda: ready(client),
                f"kube-apiserver at {plane.url} ready (log: {directory / 'kube-apiserver.log'})",
                timeout_seconds=START_SECONDS,
                interval_seconds=0.05,
            )
        if controllers:
            manager = gobuild.build("kube-controller-manager", progress)
            stack.enter_context(
                _running(
                    "kube-controller-manager",
                    [
                        *controller_manager_command(
                            manager, plane.kubeconfig, directory / "pki", port=free_ports(1)[0]
                        ),
                        # Tests wait for it; without any HPA it does nothing.
                        "--horizontal-pod-autoscaler-sync-period=2s",
                    ],
                    directory,
                )
            )
        yield plane


def controller_manager_command(
    binary: Path, kubeconfig: Path, pki_directory: Path, *, port: int
) -> list[str]:
    """Return the command line of kube-controller-manager, alone and thus without an election."""
    return [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={pki_directory / 'sa.key'}",
        f"--root-ca-file={pki_directory / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki_directory / 'ca.crt'}",
        f"--cluster-signing-key-file={pki_directory / 'ca.key'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--allocate-node-cidrs=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
    ]


@contextmanager
def control_plane(
    *, controllers: bool = False, extra: Sequence[str] = (), attempts: int = 3
) -> Iterator[ControlPlane]:
    """Run etcd and kube-apiserver on free ports with fresh data until the block ends.

    With `controllers` a kube-controller-manager runs too, for garbage collection, namespace
    deletion and service accounts. `extra` are further flags of kube-apiserver. The folder with
    data and logs is removed at the end. Another process may take a port between the asking and
    the listening, so the start is tried `attempts` times.

    Raises:
        ProcessFailed: a server ended at once, every time; the message holds its log's end.
        NotReached: it did not become ready.
    """
    for attempt in range(1, attempts + 1):
        directory = Path(tempfile.mkdtemp(prefix="tidegate-plane-"))
        running = _started(directory, controllers=controllers, extra=extra)
        try:
            try:
                plane = running.__enter__()
            except (ProcessFailed, NotReached):
                if attempt == attempts:
                    raise
                continue
            try:
                yield plane
            finally:
                running.__exit__(None, None, None)
            return
        finally:
            shutil.rmtree(directory, ignore_errors=True)
