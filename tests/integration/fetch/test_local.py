"""pvc and image: files that are mounted already; and the shared cache claim."""

import json
import time
from pathlib import Path

import pytest

from tests.integration.fetch.models import ONNX, PYTHON_MODEL, digest_of, write
from tests.integration.fetch.pod import Outcome, Pod
from tests.integration.fetch.web import WebServer

pytestmark = pytest.mark.integration
HTTP = {"allowedSchemes": ["http"]}
BIG = b"\x08\x08" + bytes(range(256)) * (80 << 10)  # 20 MiB


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def fetch(pod: Pod, uri: str, source: Path, **request: object) -> Outcome:
    return pod.fetch(uri, source=str(source), **request)


def test_a_folder_of_a_claim(pod: Pod, source: Path) -> None:
    write(source / "team" / "magika", PYTHON_MODEL)
    (source / "lost+found").mkdir()
    message = fetch(pod, "pvc://models/team/magika", source).ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)
    assert (source / "team/magika/1/model.py").exists()


def test_a_whole_claim_and_one_file(pod: Pod, source: Path) -> None:
    write(source, {"net.onnx": ONNX})
    (source / "lost+found").mkdir()
    assert fetch(pod, "pvc://models", source).ok()["backend"] == "onnxruntime"
    assert fetch(pod, "pvc://models/net.onnx", source).ok()["backend"] == "onnxruntime"


def test_files_of_the_runtime_image(pod: Pod, source: Path) -> None:
    write(source, PYTHON_MODEL)
    message = fetch(pod, "image:///opt/models/magika", source).ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)


def test_links_inside_a_claim_are_followed(pod: Pod, source: Path) -> None:
    write(source, {"blobs/a": ONNX})
    (source / "v1").mkdir()
    (source / "v1" / "net.onnx").symlink_to("../blobs/a")
    (source / "current").symlink_to("v1")
    message = fetch(pod, "pvc://models/current", source).ok()
    assert message["digest"] == digest_of({"net.onnx": ONNX})


def test_links_out_of_a_claim_are_refused(pod: Pod, source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(ONNX)
    (source / "net.onnx").symlink_to(tmp_path / "secret")
    assert "leads out" in fetch(pod, "pvc://models", source).failed("ArtifactInvalid")


def test_a_loop_of_links(pod: Pod, source: Path) -> None:
    (source / "a").symlink_to("a")
    fetch(pod, "pvc://models", source).failed("ArtifactInvalid")
    (source / "a").unlink()
    (source / "sub").mkdir()
    (source / "sub" / "up").symlink_to("..")
    assert "loop" in fetch(pod, "pvc://models", source).failed("ArtifactInvalid")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("pvc://models/none", "SourceNotFound"),
        ("pvc://models/../etc", "ConfigInvalid"),
        ("pvc://models", "ArtifactEmpty"),
    ],
)
def test_what_is_not_there(pod: Pod, source: Path, uri: str, reason: str) -> None:
    fetch(pod, uri, source).failed(reason)


def test_code_where_the_platform_does_not_want_it(pod: Pod, source: Path) -> None:
    write(source, PYTHON_MODEL)
    text = fetch(pod, "pvc://models", source, policy={"allowPythonBackend": False}).failed(
        "UnknownBackend"
    )
    assert "fetch.allowPythonBackend" in text
    shared = {"config.pbtxt": b'backend: "identity"', "1/libtriton_identity.so": b"\x7fELF" + ONNX}
    write(source / "x", shared)
    fetch(pod, "pvc://models/x", source).ok()
    text = fetch(pod, "pvc://models/x", source, policy={"allowPythonBackend": False}).failed(
        "UnknownBackend"
    )
    assert "libtriton_identity.so" in text


def test_an_ensemble(pod: Pod, source: Path) -> None:
    step = 'step { model_name: "%s" model_version: -1 input_map { key: "a" value: "b" } }'
    write(
        source,
        {
            "m/config.pbtxt": (
                'platform: "ensemble" ensemble_scheduling { ' + step % "pre" + step % "net" + " }"
            ).encode(),
            "pre/1/model.py": PYTHON_MODEL["1/model.py"],
            "net/1/model.onnx": ONNX,
            "net/config.pbtxt": b'platform: "onnxruntime_onnx"',
        },
    )
    assert fetch(pod, "pvc://models", source).ok()["backend"] == "ensemble"
    assert (pod.models / "m" / "1").is_dir()
    assert sorted(p.name for p in pod.models.iterdir()) == ["m", "net", "pre"]
    (source / "net" / "1" / "model.onnx").unlink()
    (source / "net" / "config.pbtxt").unlink()
    assert "net" in fetch(pod, "pvc://models", source).failed("ConfigInvalid")


def test_an_unexpected_error_is_told_too(pod: Pod, source: Path) -> None:
    write(source, {"net.onnx": ONNX})
    (pod.root / "etc" / "model.pbtxt").mkdir()
    text = fetch(pod, "pvc://models", source).failed("FetchFailed")
    assert "IsADirectoryError" in text


# -- the shared cache -----------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def test_the_second_pod_downloads_nothing(tmp_path: Path, web: WebServer, cache: Path) -> None:
    web.files["/m.onnx"] = ONNX
    first = Pod(tmp_path / "a").fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP).ok()
    assert first["cached"] is False
    web.requests.clear()
    second = Pod(tmp_path / "b").fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP).ok()
    assert second["cached"] is True
    assert second["digest"] == first["digest"]
    assert [r.range for r in web.requests] == ["bytes=0-0"]


def test_a_pinned_pod_starts_though_the_source_is_gone(
    tmp_path: Path, web: WebServer, cache: Path
) -> None:
    web.files["/m.onnx"] = ONNX
    first = Pod(tmp_path / "a").fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP).ok()
    del web.files["/m.onnx"]
    web.requests.clear()
    pod = Pod(tmp_path / "b")
    pod.mount("pin", {"digest": first["digest"]})
    assert pod.fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP).ok()["cached"] is True
    assert web.requests == []


def test_changed_bytes_are_another_entry(tmp_path: Path, web: WebServer, cache: Path) -> None:
    pod = Pod(tmp_path / "a")
    web.files["/m.onnx"] = ONNX
    first = pod.fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP).ok()
    web.files["/m.onnx"] = ONNX + b"2"
    second = pod.fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP).ok()
    assert second["cached"] is False
    assert first["digest"] != second["digest"]


@pytest.mark.parametrize("harm", ["bytes", "missing", "meta", "listed"])
def test_a_rotten_entry_is_thrown_away(
    tmp_path: Path, web: WebServer, cache: Path, harm: str
) -> None:
    web.files["/m.onnx"] = ONNX
    first = Pod(tmp_path / "a").fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP).ok()
    entry = cache / "tidegate-v1" / "objects" / first["digest"].removeprefix("sha256:")
    match harm:
        case "bytes":
            (entry / "tree/m.onnx").write_bytes(ONNX[:-1] + b"x")
        case "missing":
            (entry / "tree/m.onnx").unlink()
        case "meta":
            (entry / "meta.json").write_text("{")
        case "listed":
            meta = json.loads((entry / "meta.json").read_text())
            meta["files"] = {"../../../../evil": meta["files"]["m.onnx"]}
            (entry / "meta.json").write_text(json.dumps(meta))
    outcome = Pod(tmp_path / "b").fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP)
    assert outcome.ok()["cached"] is False
    assert outcome.message["digest"] == first["digest"]
    assert "rotten" in outcome.log
    third = Pod(tmp_path / "c").fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP)
    assert third.ok()["cached"] is True


def test_many_pods_at_once_download_once(tmp_path: Path, web: WebServer, cache: Path) -> None:
    web.files["/m.onnx"] = BIG
    web.faults.pause_s = 0.002
    pods = [Pod(tmp_path / str(i)) for i in range(5)]
    started = [p.start(web.url + "/m.onnx", cache=str(cache), policy=HTTP) for p in pods]
    outcomes = [p.outcome(s).ok() for p, s in zip(pods, started, strict=True)]
    assert {o["digest"] for o in outcomes} == {digest_of({"m.onnx": BIG})}
    assert sorted(o["cached"] for o in outcomes) == [False, True, True, True, True]
    assert sum(r.sent for r in web.requests) < len(BIG) + 100


def test_a_killed_holder_leaves_parts_that_the_next_goes_on_with(
    tmp_path: Path, web: WebServer, cache: Path
) -> None:
    web.files["/m.onnx"] = BIG
    web.faults.pause_s = 0.005
    pod = Pod(tmp_path / "a")
    process = pod.start(web.url + "/m.onnx", cache=str(cache), policy=HTTP)
    deadline = time.monotonic() + 60
    while not any(
        len(j.read_text().splitlines()) > 1 for j in cache.rglob("*.journal") if j.is_file()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert list((cache / "tidegate-v1/objects").iterdir()) == []
    web.faults.pause_s = 0
    web.requests.clear()
    message = Pod(tmp_path / "b").fetch(web.url + "/m.onnx", cache=str(cache), policy=HTTP).ok()
    assert message["digest"] == digest_of({"m.onnx": BIG})
    assert sum(r.sent for r in web.requests) < len(BIG) - (3 << 20)
    assert list((cache / "tidegate-v1/partial").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, web: WebServer) -> None:
    web.files["/m.onnx"] = ONNX
    outcome = Pod(tmp_path / "a").fetch(
        web.url + "/m.onnx", cache="/proc/self/nothing", policy=HTTP
    )
    assert outcome.ok()["cached"] is False
    assert "going on without" in outcome.log


def test_an_archive_from_the_cache_still_has_its_own_sha256(
    tmp_path: Path, web: WebServer, cache: Path
) -> None:
    import hashlib

    from tests.integration.fetch.models import tar_gz

    packed = tar_gz(PYTHON_MODEL)
    web.files["/m.tar.gz"] = packed
    for name in "ab":
        message = Pod(tmp_path / name).fetch(
            web.url + "/m.tar.gz",
            cache=str(cache),
            policy=HTTP,
            sha256=hashlib.sha256(packed).hexdigest(),
        )
        assert message.ok()["cached"] is (name == "b")
