"""What is published to a real MLflow registry is what the fetch container verifies."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fetch.mlflow_server import MlflowServer, environment
from tests.integration.fetch.models import ONNX, digest_of, write
from tests.integration.fetch.pod import Pod
from tests.integration.fetch.publishing import SHA256, CutOff, Line
from tests.integration.fetch.seaweed import ACCESS, SECRET, Seaweed
from tests.integration.fetch.web import WebServer
from tidegate.preparation.publish import mlflow
from tidegate.preparation.publish.target import Files, StoreError, files_in
from tidegate.preparation.publish.web import Web

pytestmark = [pytest.mark.integration, pytest.mark.clouds]


@pytest.fixture(scope="module")
def server() -> Iterator[MlflowServer]:
    environment()
    with tempfile.TemporaryDirectory() as folder, MlflowServer(Path(folder)) as found:
        assert isinstance(found, MlflowServer)
        yield found


def opened(server: MlflowServer, name: str, told: list[str] | None = None) -> mlflow.Registry:
    tell = (told if told is not None else []).append
    return mlflow.Registry(f"mlflow://{name}", server.url, tell)


def other(tmp_path: Path) -> tuple[Files, str]:
    write(tmp_path / "other", {"net.onnx": ONNX})
    return files_in(tmp_path / "other"), digest_of({"net.onnx": ONNX}).removeprefix("sha256:")


def test_there_and_back(pod: Pod, server: MlflowServer, model: Files, tmp_path: Path) -> None:
    told: list[str] = []
    target = opened(server, "file%20types/@champion", told)
    sent = target.send(model, SHA256)
    assert (sent.uri, sent.endpoint) == ("mlflow://file%20types/1", server.url)
    assert sent.sent == len(told) == len(model)
    followed = "mlflow://file%20types/@champion"
    pod.look(followed, endpoint=server.url).failed("SourceNotFound")

    (tmp_path / "report.json").write_text("{}")
    target.file({"report.json": tmp_path / "report.json"})
    assert target.announce() == followed
    for uri in (sent.uri, followed):
        message = pod.fetch(uri, endpoint=server.url, sha256=SHA256).ok()
        assert message["digest"] == f"sha256:{SHA256}"
        assert message["sourceAddress"] == sent.uri

    again = opened(server, "file%20types").send(model, SHA256)
    assert (again.sent, again.uri) == (0, sent.uri), "no new version of what is there"
    files, sha256 = other(tmp_path)
    assert opened(server, "file%20types").send(files, sha256).uri == "mlflow://file%20types/2"


def test_cut_off_anywhere_it_can_be_picked_by_nobody(
    pod: Pod,
    server: MlflowServer,
    model: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure before each request in turn: no version and no alias before all of it is there."""
    files, sha256 = other(tmp_path)
    first = opened(server, "cut/@champion")
    first.send(files, sha256)
    first.announce()
    line = Line()
    monkeypatch.setattr(Web, "ask", line.over(Web.ask))

    def versions() -> int:
        line.left = None
        found = opened(server, "cut")._get("model-versions/search", filter="name = 'cut'")
        return len(found["model_versions"])

    rounds, sent = 0, 0
    while True:
        line.left = rounds
        rounds += 1
        target = opened(server, "cut/@champion")
        with contextlib.suppress(CutOff):
            target.send(model, SHA256)
            sent += 1
            target.file({})
            target.announce()
            break
        assert versions() == (2 if sent else 1), "a version is there once its files are"
    assert rounds > 8
    assert sent > 1, "the last steps were cut off, too"
    assert versions() == 2, "no round made one of its own"
    message = pod.fetch("mlflow://cut/@champion", endpoint=server.url).ok()
    assert message["digest"] == f"sha256:{SHA256}"


def test_a_file_that_was_cut_off_is_sent_again(
    pod: Pod, server: MlflowServer, model: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow tells sizes only: one of the right size and other bytes is found out, too."""
    monkeypatch.setattr(mlflow.Registry, "_new_version", lambda self, sha256: _fail())
    with pytest.raises(CutOff):
        opened(server, "damaged").send(model, SHA256)
    monkeypatch.undo()
    (damaged,) = (server.folder / "artifacts").rglob(f"{_run(server)}/**/weights.bin")
    damaged.write_bytes(bytes(damaged.stat().st_size))
    told: list[str] = []
    sent = opened(server, "damaged", told).send(model, SHA256)
    assert told == ["sending 1/weights.bin"]
    assert pod.fetch(sent.uri, endpoint=server.url, sha256=SHA256).ok()


def _run(server: MlflowServer) -> str:
    run = opened(server, "damaged")._known_run(SHA256)
    return str(run["info"]["run_id"])


def _fail() -> str:
    raise CutOff


def test_files_in_s3(pod: Pod, s3: Seaweed, model: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    s3.client().create_bucket(Bucket="mlflow-published")
    env = {**keys, "MLFLOW_S3_ENDPOINT_URL": s3.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with (
        tempfile.TemporaryDirectory() as folder,
        MlflowServer(Path(folder), artifacts="s3://mlflow-published/root", **env) as server,
    ):
        assert isinstance(server, MlflowServer)
        sent = opened(server, "stored").send(model, SHA256)
        pod.mount("credentials", {**keys, "AWS_ENDPOINT_URL": s3.endpoint})
        message = pod.fetch(sent.uri, endpoint=server.url, sha256=SHA256).ok()
    assert message["digest"] == f"sha256:{SHA256}"


def test_what_is_wrong_is_said_in_one_line(
    model: Files, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(StoreError, match="name the server with --endpoint"):
        mlflow.Registry("mlflow://m", "", print)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    for url in ("http://127.0.0.1:9", web.url):
        with pytest.raises(StoreError, match="mlflow://m: ") as raised:
            mlflow.Registry("mlflow://m", url, print).send(model, SHA256)
        assert "\n" not in str(raised.value)
        assert "s3cret" not in str(raised.value)
    assert web.requests[-1].authorization == "Bearer s3cret"
