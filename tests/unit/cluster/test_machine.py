"""Processes, mounts, certificates: what the harness does to the machine, in small and real."""

import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from e2e import ports
from e2e.cluster import lifecycle, mounts, network, node, pki, preflight, processes
from e2e.cluster.preflight import Unfit
from e2e.cluster.processes import ProcessFailed
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings


def sleeper(tmp_path: Path, *, stubborn: bool = False) -> "subprocess.Popen[bytes]":
    script = "import signal,sys,time\n"
    if stubborn:
        script += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    script += "print('up', flush=True)\ntime.sleep(600)\n"
    log = tmp_path / "log"
    process = processes.spawn(
        "sleeper", [sys.executable, "-c", script], owner=str(tmp_path), log=log
    )
    while "up" not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None, log.read_text()
    return process


def test_a_process_is_found_by_its_mark_and_only_by_its_own(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    try:
        assert [found.pid for found in processes.owned_by(str(tmp_path))] == [process.pid]
        assert processes.owned_by(str(tmp_path / "other")) == []
    finally:
        process.kill()
        process.wait()


def test_what_ignores_a_polite_request_is_killed(tmp_path: Path) -> None:
    process = sleeper(tmp_path, stubborn=True)
    processes.stop(processes.owned_by(str(tmp_path)), grace_seconds=0.05)
    assert process.wait() == -signal.SIGKILL


def test_a_reused_number_is_not_taken_for_the_process(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    try:
        found = processes.owned_by(str(tmp_path))[0]
        stranger = processes.Owned(found.pid, found.name, found.started - 1)
        assert processes.alive(found)
        assert not processes.alive(stranger)
        processes.stop([stranger], grace_seconds=0)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_dead_process_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.spawn("p", ["sh", "-c", "echo why; exit 3"], owner="x", log=log)
    process.wait()
    with pytest.raises(ProcessFailed, match=r"(?s)p ended with status 3.*why"):
        processes.require_running(process, "p", log)


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    parent = (
        "import pathlib,os,sys\n"
        "from e2e.cluster.processes import spawn\n"
        "spawn('c', ['sleep', '600'], owner=sys.argv[1], log=pathlib.Path(sys.argv[1], 'l'),"
        " die_with_parent=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", parent, str(tmp_path)]
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    left = processes.owned_by(str(tmp_path))
    while any(processes.alive(process) for process in left):
        continue  # the kernel sends the signal as the parent ends; hangs if it never does


def test_mount_points_are_read_with_their_escapes() -> None:
    text = (
        "22 1 8:1 / / rw - ext4 /dev/vda rw\n"
        "30 22 0:9 / /var/lib/a\\040b rw,nosuid - tmpfs tmpfs rw\n"
    )
    assert mounts.parse(text) == [Path("/"), Path("/var/lib/a b")]


def test_a_certificate_carries_user_groups_and_names() -> None:
    authority = pki.Authority.create()
    pair = authority.issue(
        "system:node:n", organizations=["system:nodes"], dns_names=["n"], addresses=["10.0.0.1"]
    )
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate(authority.pair.certificate)
    )
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == (
        "system:node:n"
    )
    groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [group.value for group in groups] == ["system:nodes"]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n"]


def test_a_key_is_for_its_owner_only(tmp_path: Path) -> None:
    _, key = pki.Authority.create().pair.write(tmp_path, "ca")
    assert key.stat().st_mode & 0o077 == 0


def test_free_ports_are_distinct_and_not_given_again_soon() -> None:
    """Whoever asks next may be another process, while nobody listens on the first ones yet."""
    given = [*ports.free_ports(20), *ports.free_ports(20)]
    assert len(set(given)) == 40
    # Those that a connection may get by itself begin above.
    assert max(given) < 30_000


def test_a_port_that_is_taken_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(ports, "FIRST", other.getsockname()[1])
        monkeypatch.setattr(ports, "COUNT", 1)
        with pytest.raises(RuntimeError, match="0 of 1 ports are free"):
            ports.free_ports(1)


def test_a_tool_that_is_not_installed_yet_has_left_nothing() -> None:
    assert network.run(["no-such-tool-at-all"], check=False) == ""
    with pytest.raises(RuntimeError, match="no-such-tool-at-all is missing"):
        network.run(["no-such-tool-at-all"])


def test_only_root_may_touch_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unfit, match=r"root\s+run as root"):
        lifecycle.up(Settings(), Progress())


def test_a_cluster_of_another_state_folder_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(lifecycle, "LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text(str(tmp_path))
    other = sleeper(tmp_path)
    try:
        settings = Settings(state=tmp_path / "mine")
        with pytest.raises(Unfit, match=f"TIDEGATE_STATE={tmp_path} make cluster-down"):
            lifecycle.down(settings, Progress())
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_cluster_that_does_not_come_up_is_tried_once_more_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state=tmp_path / "state")
    store = settings.state / "containerd" / "root"
    said = io.StringIO()
    stores: list[bool] = []

    def start(settings: Settings, progress: Progress) -> None:
        stores.append(store.exists())
        (settings.state / "log").mkdir(parents=True, exist_ok=True)
        (settings.state / "log" / "kubelet.log").write_text("no cgroups\n")
        raise ProcessFailed(f"kubelet, try {len(stores)}")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(lifecycle, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(preflight, "for_cluster", lambda *_: None)
    monkeypatch.setattr(lifecycle, "build_everything", lambda _: None)
    monkeypatch.setattr(lifecycle, "leftovers", lambda _: [])
    monkeypatch.setattr(lifecycle, "_take_down", lifecycle._remove_state)
    monkeypatch.setattr(lifecycle, "_start", start)
    monkeypatch.setattr(node, "DEVICE_PLUGINS", tmp_path / "kubelet" / "plugins")
    (tmp_path / "kubelet").mkdir()
    store.mkdir(parents=True)
    with pytest.raises(ProcessFailed, match="try 2"):
        lifecycle.up(settings, Progress(stream=said))
    assert stores == [True, False]
    assert "did not come up: ProcessFailed: kubelet, try 1" in said.getvalue()
    assert "the end of kubelet.log:\nno cgroups" in said.getvalue()
