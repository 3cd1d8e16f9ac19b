"""What `tidegate prepare` publishes to a store is what the fetch container verifies."""

from pathlib import Path

import pytest

from tests.integration.fetch.pod import Pod
from tests.integration.fetch.seaweed import ACCESS, SECRET, Seaweed
from tidegate.cli import starting
from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.publish import s3 as store
from tidegate.preparation.publish.opening import opened
from tidegate.preparation.publish.target import StoreError, below, files_in
from tidegate.preparation.tuning.grid import Setting
from tidegate.preparation.tuning.repository import Backend, write

pytestmark = pytest.mark.integration

KEYS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
ONNX = Path(__file__).parents[2] / "unit/fetch/artefacts/onnx.onnx"
CANDIDATE = Candidate(
    "fp32",
    ONNX,
    "onnxruntime",
    (TensorSpec("input", "FP32", (-1, 64)),),
    (TensorSpec("label", "INT64", (-1,)),),
    ONNX.stat().st_size,
    (),
    {},
)


def test_sent_once_and_verified(
    pod: Pod, s3: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    write(tmp_path / "model", CANDIDATE, "m", Setting(8, 1, 0.0, 1), Backend.PYTHON)
    sha256 = starting.look(tmp_path / "model", "m").sha256
    uri = below("s3://models/prepared/m", sha256)

    told: list[str] = []

    def send() -> int:
        files = files_in(tmp_path / "model")
        return store.upload(files, uri, endpoint=s3.endpoint, tell=told.append)

    assert send() == 3
    assert send() == 0, "all of it was there"
    # As if the first had been cut off.
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3.client().delete_object(Bucket=bucket, Key=f"{key}/m/1/model.onnx")
    assert send() == 1
    assert told[-1] == "sending m/1/model.onnx"

    pod.mount("credentials", KEYS)
    message = pod.fetch(uri, endpoint=s3.endpoint, sha256=sha256).ok()
    assert message["digest"] == f"sha256:{sha256}"
    assert message["layout"] == "repository"
    assert pod.config().max_batch_size == 8


def test_the_report_lies_beside_the_model(
    pod: Pod, s3: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    write(tmp_path / "model", CANDIDATE, "m", Setting(4, 1, 0.0, 1), Backend.PYTHON)
    sha256 = starting.look(tmp_path / "model", "m").sha256
    target = opened("s3://models/team/m", s3.endpoint, lambda text: None)
    sent = target.send(files_in(tmp_path / "model"), sha256)
    assert sent.uri == f"s3://models/team/m/{sha256[:16]}"
    report = tmp_path / "report.json"
    for text in ("first", "again"):
        report.write_text(text)
        target.file({"report.json": report})
    assert target.announce() == "", "nothing that could be followed"
    key = f"team/m/{sha256[:16]}-report/report.json"
    found = s3.client().get_object(Bucket="models", Key=key)["Body"].read()
    assert found == b"again"
    pod.mount("credentials", KEYS)
    assert pod.fetch(sent.uri, endpoint=sent.endpoint, sha256=sha256).ok()


def test_a_store_that_refuses(s3: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "stranger-secret")
    (tmp_path / "a").write_text("x")
    files = files_in(tmp_path)
    with pytest.raises(StoreError, match=r"s3://models/x"):
        store.upload(files, "s3://models/x", endpoint=s3.endpoint)
    with pytest.raises(StoreError, match=r"s3://models/x"):
        store.upload(files, "s3://models/x", endpoint="http://127.0.0.1:9")
