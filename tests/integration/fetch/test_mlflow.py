"""mlflow against a real `mlflow server`, with its own artifacts and with S3 behind it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fetch.mlflow_server import MlflowServer, environment
from tests.integration.fetch.models import ONNX, PYTHON_MODEL, digest_of, write
from tests.integration.fetch.pod import Pod
from tests.integration.fetch.seaweed import ACCESS, SECRET, Seaweed
from tests.integration.fetch.web import WebServer

pytestmark = [pytest.mark.integration, pytest.mark.clouds]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    environment()
    with tempfile.TemporaryDirectory() as folder, MlflowServer(Path(folder)) as server:
        assert isinstance(server, MlflowServer)
        first, second = (tmp_path_factory.mktemp("files") for _ in range(2))
        write(first, {"net.onnx": ONNX, "MLmodel": b"flavors: {}\n"})
        write(second, PYTHON_MODEL)
        server.register("magika detector", first)
        server.register("magika detector", second, alias="champion")
        yield server


@pytest.mark.parametrize("version", ["2", "@champion"])
def test_a_version_or_an_alias(pod: Pod, mlflow: MlflowServer, version: str) -> None:
    message = pod.fetch(f"mlflow://magika%20detector/{version}", endpoint=mlflow.url).ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)
    assert message["sourceAddress"] == "mlflow://magika%20detector/2"
    looked = pod.look(f"mlflow://magika%20detector/{version}", endpoint=mlflow.url).ok()
    assert looked["sourceVersion"] == message["sourceVersion"]


def test_a_champion_that_moves(pod: Pod, mlflow: MlflowServer, tmp_path: Path) -> None:
    write(tmp_path, {"net.onnx": ONNX})
    mlflow.register("moving", tmp_path, alias="champion")
    uri = "mlflow://moving/@champion"
    first = pod.fetch(uri, endpoint=mlflow.url).ok()
    mlflow.register("moving", tmp_path, alias="champion")
    now = pod.look(uri, endpoint=mlflow.url).ok()
    assert now["sourceVersion"] != first["sourceVersion"]
    assert now["sourceAddress"] == "mlflow://moving/2"
    pod.mount("pin", {"digest": first["digest"], "address": first["sourceAddress"]})
    assert pod.fetch(uri, endpoint=mlflow.url).ok()["sourceAddress"] == "mlflow://moving/1"


def test_a_bare_artefact(pod: Pod, mlflow: MlflowServer) -> None:
    message = pod.fetch("mlflow://magika%20detector/1", endpoint=mlflow.url).ok()
    assert message["backend"] == "onnxruntime"
    assert "m/1/MLmodel" in pod.files()


@pytest.mark.parametrize("name", ["magika%20detector/99", "none/1", "magika%20detector/@nobody"])
def test_nothing_there(pod: Pod, mlflow: MlflowServer, name: str) -> None:
    pod.fetch(f"mlflow://{name}", endpoint=mlflow.url).failed("SourceNotFound")


def test_files_in_s3(pod: Pod, s3: Seaweed, tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    write(tmp_path / "files", {"net.onnx": ONNX})
    bucket = s3.client().create_bucket(Bucket="mlflow")
    assert bucket["ResponseMetadata"]["HTTPStatusCode"] == 200
    env = {**keys, "MLFLOW_S3_ENDPOINT_URL": s3.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    with (
        tempfile.TemporaryDirectory() as folder,
        MlflowServer(Path(folder), artifacts="s3://mlflow/root", **env) as server,
    ):
        assert isinstance(server, MlflowServer)
        _register_in_s3(server, s3, "stored")
        pod.mount("credentials", {**keys, "AWS_ENDPOINT_URL": s3.endpoint})
        message = pod.fetch("mlflow://stored/1", endpoint=server.url).ok()
    assert message["digest"] == digest_of({"net.onnx": ONNX})


def _register_in_s3(server: MlflowServer, s3: Seaweed, name: str) -> None:
    """Mlflow's client needs boto3 to upload; the registry itself only keeps the address."""
    import json
    import urllib.request

    s3.put("mlflow", "root/stored", {"net.onnx": ONNX})
    for path, body in (
        ("registered-models/create", {"name": name}),
        ("model-versions/create", {"name": name, "source": "s3://mlflow/root/stored"}),
    ):
        request = urllib.request.Request(
            f"{server.url}/api/2.0/mlflow/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=20).close()


def test_login(pod: Pod, web: WebServer) -> None:
    """Mlflow's own basic login is an experimental app; what is sent is looked at instead."""
    web.user = "Bearer s3cret"
    pod.fetch("mlflow://m/1", endpoint=web.url).failed("CredentialsMissing")
    pod.mount("credentials", {"MLFLOW_TRACKING_TOKEN": "s3cret"})
    pod.fetch("mlflow://m/1", endpoint=web.url).failed("SourceNotFound")


@pytest.mark.parametrize("uri", ["mlflow://m", "mlflow://m/latest", "mlflow://m/1/x"])
def test_uris_that_are_none(pod: Pod, uri: str) -> None:
    pod.fetch(uri, endpoint="http://127.0.0.1:9").failed("ConfigInvalid")


def test_without_endpoint(pod: Pod) -> None:
    text = pod.fetch("mlflow://m/1").failed("ConfigInvalid")
    assert "spec.model.source.endpoint" in text


def test_a_server_that_is_none(pod: Pod, web: WebServer) -> None:
    web.files["/api/2.0/mlflow/model-versions/get-download-uri"] = b"<html>"
    assert "not JSON" in pod.fetch("mlflow://m/1", endpoint=web.url).failed("SourceUnreachable")
