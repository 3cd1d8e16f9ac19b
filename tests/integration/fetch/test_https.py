"""https (and http where a platform allows it) against a server that misbehaves in every way."""

import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fetch.models import ONNX, PYTHON_MODEL, digest_of, tar_gz
from tests.integration.fetch.pod import Outcome, Pod
from tests.integration.fetch.web import WebServer

pytestmark = pytest.mark.integration
HTTP = {"allowedSchemes": ["http", "https"]}
BIG = b"\x08\x08" + bytes(range(256)) * (160 << 10)  # 40 MiB: three segments


def fetch(pod: Pod, web: WebServer, path: str, **request: object) -> Outcome:
    policy = {**HTTP, **request.pop("policy", {})}  # type: ignore[dict-item]
    return pod.fetch(web.url + path, policy=policy, **request)


def test_one_file(pod: Pod, web: WebServer) -> None:
    web.files["/x/net%20v1.onnx"] = web.files["/x/net v1.onnx"] = ONNX
    message = fetch(pod, web, "/x/net%20v1.onnx").ok()
    assert message["backend"] == "onnxruntime"
    assert message["layout"] == "bare"
    assert message["digest"] == digest_of({"net v1.onnx": ONNX})
    assert pod.files() == ["m/1/model.onnx", "m/config.pbtxt"]
    assert pod.config().backend == "onnxruntime"


def test_a_large_file_comes_in_parallel_ranges(pod: Pod, web: WebServer) -> None:
    web.files["/big.onnx"] = BIG
    message = fetch(pod, web, "/big.onnx").ok()
    assert message["digest"] == digest_of({"big.onnx": BIG})
    assert len({r.range for r in web.requests if r.range and r.range != "bytes=0-0"}) == 3


def test_a_line_that_breaks_is_gone_on_with_where_it_broke(pod: Pod, web: WebServer) -> None:
    web.files["/big.onnx"] = BIG
    web.faults.cut_after, web.faults.cuts = 3 << 20, 4
    fetch(pod, web, "/big.onnx").ok()
    assert (pod.models / "m/1/model.onnx").read_bytes() == BIG
    # What was lost with each cut is at most what was in buffers, never the segment so far.
    assert sum(r.sent for r in web.requests) < len(BIG) + 4 * (4 << 20)
    starts = {int(r.range[6:].partition("-")[0]) for r in web.requests if r.range}
    assert any(s % (16 << 20) for s in starts)


def test_a_killed_container_goes_on_where_it_was(pod: Pod, web: WebServer) -> None:
    web.files["/big.onnx"] = BIG
    web.faults.pause_s = 0.005
    process = pod.start(web.url + "/big.onnx", policy=HTTP)
    work = pod.models / ".tidegate-fetch"
    journal = work / "parts" / "0.journal"
    deadline = time.monotonic() + 60
    while not (journal.is_file() and len(journal.read_text().splitlines()) > 1):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    web.requests.clear()
    web.faults.pause_s = 0
    assert pod.fetch(web.url + "/big.onnx", policy=HTTP).ok()["digest"] == digest_of(
        {"big.onnx": BIG}
    )
    assert sum(r.sent for r in web.requests) < len(BIG) - (7 << 20)  # the last segment has 8 MiB
    assert not work.exists()


def test_parts_of_another_version_are_thrown_away(pod: Pod, web: WebServer) -> None:
    web.files["/big.onnx"] = BIG
    web.faults.pause_s = 0.005
    process = pod.start(web.url + "/big.onnx", policy=HTTP)
    journal = pod.models / ".tidegate-fetch" / "parts" / "0.journal"
    deadline = time.monotonic() + 60
    while not (journal.is_file() and len(journal.read_text().splitlines()) > 1):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    web.faults.pause_s = 0
    other = BIG[:-1] + b"\xff"
    web.files["/big.onnx"] = b"\x08\x09" + other[2:]
    fetch(pod, web, "/big.onnx").ok()
    assert (pod.models / "m/1/model.onnx").read_bytes() == web.files["/big.onnx"]


def test_a_file_overwritten_meanwhile_is_begun_anew(pod: Pod, web: WebServer) -> None:
    web.files["/big.onnx"] = BIG
    after = b"\x08\x09" + BIG[2:]
    seen = 0

    def overwrite(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            web.files["/big.onnx"] = after

    web.on_request = overwrite
    assert fetch(pod, web, "/big.onnx").ok()["digest"] == digest_of({"big.onnx": after})


def test_a_file_that_never_rests(pod: Pod, web: WebServer) -> None:
    web.on_request = lambda _: web.files.update({"/m.onnx": ONNX + str(len(web.requests)).encode()})
    assert "while" in fetch(pod, web, "/m.onnx").failed("SourceMoved")


def test_a_server_without_ranges(pod: Pod, web: WebServer) -> None:
    web.files["/big.onnx"] = BIG
    web.faults.ranges = False
    # One cut may hit the first look at the file, which hangs up early.
    web.faults.cut_after, web.faults.cuts = 3 << 20, 3
    fetch(pod, web, "/big.onnx").ok()
    assert (pod.models / "m/1/model.onnx").read_bytes() == BIG


def test_a_server_that_tells_no_size(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX
    web.faults.ranges, web.faults.chunked = False, True
    assert fetch(pod, web, "/m.onnx").ok()["bytes"] == len(ONNX)


def test_a_server_that_has_a_bad_moment(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX
    web.faults.statuses = [503, 429, 500]
    outcome = fetch(pod, web, "/m.onnx")
    outcome.ok()
    assert "will try again" in outcome.log


def test_a_server_that_stays_bad(pod: Pod, web: WebServer) -> None:
    web.faults.statuses = [503] * 100
    assert "503" in fetch(pod, web, "/m.onnx").failed("SourceUnreachable")


def test_always_cut_off(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX * 100
    web.faults.cut_after, web.faults.cuts = 1, 1000
    fetch(pod, web, "/m.onnx").failed("SourceUnreachable")


@pytest.mark.parametrize("status", [404, 410])
def test_nothing_there(pod: Pod, web: WebServer, status: int) -> None:
    web.faults.statuses = [status]
    fetch(pod, web, "/m.onnx").failed("SourceNotFound")


def test_nothing_there_any_more(pod: Pod, web: WebServer) -> None:
    pod.mount("pin", {"digest": "sha256:" + "0" * 64})
    fetch(pod, web, "/m.onnx").failed("ArtifactGone")


def test_credentials(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX
    web.user = "Bearer s3cret"
    fetch(pod, web, "/m.onnx").failed("CredentialsMissing")
    pod.mount("credentials", {"token": "wrong"})
    outcome = fetch(pod, web, "/m.onnx")
    outcome.failed("AccessDenied")
    pod.mount("credentials", {"token": "s3cret\n"})
    outcome = fetch(pod, web, "/m.onnx")
    outcome.ok()
    assert "s3cret" not in outcome.log


def test_presigned_addresses_stay_out_of_messages(pod: Pod, web: WebServer) -> None:
    web.faults.statuses = [403] * 3
    outcome = fetch(pod, web, "/m.onnx?X-Amz-Signature=s3cret")
    assert "s3cret" not in outcome.failed("CredentialsMissing") + outcome.log


def test_a_redirect_does_not_carry_credentials_elsewhere(pod: Pod, web: WebServer) -> None:
    pod.mount("credentials", {"token": "s3cret"})
    with WebServer() as other:
        other.files["/m.onnx"] = ONNX
        web.faults.redirect = f"{other.url}/m.onnx"
        fetch(pod, web, "/m.onnx").ok()
        assert web.requests[0].authorization == "Bearer s3cret"
        assert {r.authorization for r in other.requests} == {None}


def test_a_redirect_to_the_inside_is_refused(pod: Pod, web: WebServer) -> None:
    web.faults.redirect = "http://169.254.169.254/latest/meta-data"
    text = fetch(pod, web, "/m.onnx").failed("AddressRefused")
    assert "169.254.169.254" in text


def test_a_redirect_to_a_host_that_is_not_on_the_list(pod: Pod, web: WebServer) -> None:
    web.faults.redirect = "http://elsewhere.example/m.onnx"
    text = fetch(pod, web, "/m.onnx", policy={"allowedHosts": ["127.0.0.1"]}).failed(
        "AddressRefused"
    )
    assert "elsewhere.example" in text


def test_a_name_that_resolves_to_the_inside_is_refused(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX
    uri = f"http://localhost:{web.port}/m.onnx"
    text = pod.fetch(uri, policy={**HTTP, "allowPrivateAddresses": []}).failed("AddressRefused")
    assert "localhost" in text
    assert "loopback" in text
    assert web.requests == []


def test_a_loop_of_redirects(pod: Pod, web: WebServer) -> None:
    web.faults.redirect = "/m.onnx"
    assert "redirects" in fetch(pod, web, "/m.onnx").failed("SourceUnreachable")


def test_http_is_off_by_default(pod: Pod, web: WebServer) -> None:
    assert "'http'" in pod.fetch(web.url + "/m.onnx").failed("SchemeRefused")


def test_tls_with_an_authority_of_the_platform(pod: Pod, tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with WebServer(context) as web:
        web.files["/m.onnx"] = ONNX
        text = pod.fetch(web.url + "/m.onnx").failed("SourceUnreachable")
        assert "not trusted" in text
        pod.mount("ca", {"ca.crt": certificate.read_text()})
        pod.fetch(web.url + "/m.onnx").ok()
        web.faults.redirect = "http://127.0.0.1:9/m.onnx"
        assert "clear text" in pod.fetch(web.url + "/m.onnx").failed("AddressRefused")


def test_archives(pod: Pod, web: WebServer) -> None:
    web.files["/m.tar.gz"] = tar_gz({f"release-3/{p}": d for p, d in PYTHON_MODEL.items()})
    message = fetch(pod, web, "/m.tar.gz").ok()
    assert message["layout"] == "repository"
    assert pod.files() == ["m/1/model.py", "m/1/weights.bin", "m/config.pbtxt"]


def test_sha256_of_the_tree_or_of_the_archive(pod: Pod, web: WebServer) -> None:
    import hashlib

    packed = tar_gz(PYTHON_MODEL)
    web.files["/m.tar.gz"] = packed
    tree = digest_of(PYTHON_MODEL).removeprefix("sha256:")
    for sha256 in (tree, hashlib.sha256(packed).hexdigest()):
        assert fetch(pod, web, "/m.tar.gz", sha256=sha256).ok()["digest"] == f"sha256:{tree}"
    text = fetch(pod, web, "/m.tar.gz", sha256="0" * 64).failed("ChecksumMismatch")
    assert tree in text


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/m.tar.gz", tar_gz(PYTHON_MODEL)[:-200], "ArtifactInvalid"),
        ("/m.tar.gz", b"<html>Sign in</html>", "ArtifactInvalid"),
        ("/m.onnx", b"", "ArtifactEmpty"),
        ("/m.onnx", b"<html>Sign in to download</html>", "ArtifactInvalid"),
        ("/m.zip", b"PK\x03\x04 but not really", "ArtifactInvalid"),
        ("/m.xyz", b"something", "UnknownBackend"),
        ("/m.tar.gz", tar_gz({}), "ArtifactEmpty"),
    ],
    # By themselves they would hold the time that is in an archive.
    ids=["cut off", "a page", "no file", "a page for ONNX", "no zip", "unknown", "no files"],
)
def test_bad_artefacts(pod: Pod, web: WebServer, path: str, body: bytes, reason: str) -> None:
    web.files[path] = body
    fetch(pod, web, path).failed(reason)
    assert pod.files() == [] or all(f.startswith(".tidegate-fetch/") for f in pod.files())


def test_too_large(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX
    assert "fetch.maxBytes" in fetch(pod, web, "/m.onnx", policy={"maxBytes": 100}).failed(
        "TooLarge"
    )
    web.faults.ranges, web.faults.chunked = False, True
    fetch(pod, web, "/m.onnx", policy={"maxBytes": 100}).failed("TooLarge")


def test_the_config_is_merged(pod: Pod, web: WebServer) -> None:
    web.files["/m.tar.gz"] = tar_gz(PYTHON_MODEL)
    pod.command("x")
    etc = pod.root / "etc"
    (etc / "model.pbtxt").write_text("max_batch_size: 4 instance_group { count: 2 kind: KIND_CPU }")
    (etc / "override.pbtxt").write_text("max_batch_size: 0")
    fetch(pod, web, "/m.tar.gz").ok()
    config = pod.config()
    assert config.HasField("max_batch_size")
    assert config.max_batch_size == 0
    assert [g.count for g in config.instance_group] == [2]


def test_a_refused_model_is_not_downloaded_again(pod: Pod, web: WebServer) -> None:
    web.files["/m.tar.gz"] = tar_gz({**PYTHON_MODEL, "config.pbtxt": b"nonsense"})
    fetch(pod, web, "/m.tar.gz").failed("ConfigInvalid")
    web.requests.clear()
    fetch(pod, web, "/m.tar.gz").failed("ConfigInvalid")
    assert [r.range for r in web.requests] == ["bytes=0-0"]
    # Whatever happened to the kept files, they are not trusted.
    (pod.models / ".tidegate-fetch/tree/1/model.py").write_bytes(b"other")
    fetch(pod, web, "/m.tar.gz").failed("ConfigInvalid")
    assert len(web.requests) > 2


def test_progress_is_logged(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX + bytes(12 << 20)
    web.faults.pause_s = 0.035  # 193 pieces of 64 KiB: 6.7 s
    outcome = fetch(pod, web, "/m.onnx")
    outcome.ok()
    assert '"message": "downloading"' in outcome.log
    assert '"total_bytes"' in outcome.log


def _self_signed(folder: Path) -> tuple[Path, Path]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, pem_key = folder / "tls.crt", folder / "tls.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, pem_key


def test_through_the_platforms_proxy(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX
    pod.env["http_proxy"] = web.url
    policy = {**HTTP, "allowPrivateAddresses": [], "allowedHosts": ["models.example"]}
    pod.fetch("http://models.example/m.onnx", policy=policy).ok()
    assert {r.host for r in web.requests} == {"models.example"}
    text = pod.fetch("http://other.example/m.onnx", policy=policy).failed("AddressRefused")
    assert "other.example" in text
    inner = {**policy, "allowedHosts": []}
    for host in ("127.0.0.1:9", "10.0.0.1", "[::1]"):
        pod.fetch(f"http://{host}/m.onnx", policy=inner).failed("AddressRefused")
    with WebServer() as other:  # another port of the proxy's own host
        pod.env["no_proxy"] = "localhost"
        uri = f"http://localhost:{other.port}/m.onnx"
        pod.fetch(uri, policy=inner).failed("AddressRefused")
        assert other.requests == []


def test_memory_does_not_grow_with_the_model(pod: Pod, web: WebServer) -> None:
    web.files["/m.onnx"] = b"\x08\x08" + bytes(200 << 20)
    code = (
        "import sys; from tidegate.fetch.main import main; code = main(sys.argv[1:]);"
        "print(open('/proc/self/status').read()); sys.exit(code)"
    )
    command = pod.command(web.url + "/m.onnx", policy=HTTP)
    at = command.index("-m")
    process = subprocess.Popen(
        [*command[:at], "-c", code, *command[at + 2 :]],
        env=pod.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    outcome = pod.outcome(process)
    outcome.ok()
    (peak_kib,) = (int(n) for n in re.findall(r"VmHWM:\s+(\d+) kB", outcome.log))
    assert peak_kib < 150 << 10  # the container's limit is 1 GiB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A volume of 8 MiB; mounting it needs root, as the embedded cluster does."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_volume(pod: Pod, web: WebServer, small_disk: Path) -> None:
    web.files["/m.onnx"] = ONNX + bytes(9 << 20)
    text = fetch(pod, web, "/m.onnx", target=str(small_disk)).failed("DiskFull")
    assert "ephemeralStorage" in text
    web.faults.ranges, web.faults.chunked = False, True  # no size to be warned by
    fetch(pod, web, "/m.onnx", target=str(small_disk)).failed("DiskFull")
    web.files["/m.tar.gz"] = tar_gz({"1/model.py": bytes(9 << 20)})
    fetch(pod, web, "/m.tar.gz", target=str(small_disk)).failed("DiskFull")


def test_a_full_cache_is_done_without(pod: Pod, web: WebServer, small_disk: Path) -> None:
    web.files["/m.onnx"] = ONNX + bytes(9 << 20)
    outcome = fetch(pod, web, "/m.onnx", cache=str(small_disk))
    assert outcome.ok()["cached"] is False
    assert "claim is full" in outcome.log
    assert [p for p in small_disk.rglob("*") if p.is_file() and p.suffix != ".lock"] == []
