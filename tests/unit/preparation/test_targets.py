"""Where a model can be published to, what of an earlier report is taken over, and what is not."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tidegate.preparation import samples
from tidegate.preparation.again import differences, order_of
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.lineage import code, digest, machine, metric, versions
from tidegate.preparation.order import Order, Place
from tidegate.preparation.publish import publishing
from tidegate.preparation.publish.oci import _basic
from tidegate.preparation.publish.opening import opened
from tidegate.preparation.publish.target import StoreError, files_in, parsed
from tidegate.preparation.tuning.search import Objective


class TestTarget:
    @pytest.mark.parametrize(
        ("uri", "found"),
        [
            ("s3://models", {}),
            ("s3://models/team/digits/", {}),
            ("oci://reg.example/m", {"host": "reg.example", "name": "m", "tag": None}),
            (
                "oci://127.0.0.1:5000/team/digits:v1.2",
                {"host": "127.0.0.1:5000", "name": "team/digits", "tag": "v1.2"},
            ),
            ("mlflow://digits", {"name": "digits", "alias": None}),
            ("mlflow://file%20types/@champion", {"name": "file%20types", "alias": "champion"}),
        ],
    )
    def test_forms(self, uri: str, found: dict[str, str | None]) -> None:
        assert parsed(uri).groupdict() == found

    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            ("", "write s3://bucket/prefix; oci://"),
            ("models", "write s3://bucket/prefix; oci://"),
            ("gs://models/x", "write s3://bucket/prefix; oci://"),
            ("s3://", "write s3://bucket/prefix"),
            ("s3://models/x?versionId=1", "write s3://bucket/prefix"),
            ("oci://reg.example", "write oci://registry/repository or"),
            ("oci://reg.example/M", "write oci://registry/repository or"),
            ("oci://reg.example/m@sha256:00", "write oci://registry/repository or"),
            ("mlflow://digits/3", "write mlflow://model or mlflow://model/@alias"),
            ("mlflow://digits/@", "write mlflow://model or mlflow://model/@alias"),
            ("mlflow://di'gits", "write mlflow://model or mlflow://model/@alias"),
        ],
    )
    def test_what_is_none(self, uri: str, said: str) -> None:
        with pytest.raises(StoreError, match="cannot be published to") as raised:
            opened(uri, "https://mlflow.example", print)
        assert said in str(raised.value)

    def test_it_is_known_before_hours_of_work(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with pytest.raises(StoreError, match="name the server"):
            publishing.check(Place(out, store="mlflow://m", endpoint="mlflow.example"))
        with pytest.raises(PreparationError, match=r"key\.pem cannot be read|is not installed"):
            publishing.check(Place(out, sign=str(tmp_path / "key.pem")))
        publishing.check(Place(out, store="oci://reg.example/m"))
        assert not out.exists()


class TestLogin:
    """What `docker login` left."""

    @pytest.fixture
    def config(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "config.json"

    def test_none(self, config: Path) -> None:
        assert _basic("reg.example") == {}
        config.write_text('{"auths": {"elsewhere": {"auth": "YTpi"}}}')
        assert _basic("reg.example") == {}

    @pytest.mark.parametrize(
        "entry", [{"auth": "dXNlcjpwYXNz"}, {"username": "user", "password": "pass"}]
    )
    def test_in_the_file(self, config: Path, entry: dict[str, str]) -> None:
        config.write_text(json.dumps({"auths": {"reg.example": entry}}))
        assert _basic("reg.example") == {"Authorization": "Basic dXNlcjpwYXNz"}

    @pytest.mark.parametrize(
        "known", [{"credsStore": "box"}, {"credHelpers": {"reg.example": "box"}}]
    )
    def test_with_a_helper(self, config: Path, known: dict[str, Any]) -> None:
        config.write_text(json.dumps(known))
        with pytest.raises(StoreError, match="docker-credential-box gives no login"):
            _basic("reg.example")
        helper = config.with_name("docker-credential-box")
        helper.write_text('#!/bin/sh\nread host; echo \'{"Username":"user","Secret":"pass"}\'\n')
        helper.chmod(0o755)
        assert _basic("reg.example") == {"Authorization": "Basic dXNlcjpwYXNz"}

    @pytest.mark.parametrize("text", ["{", '{"auths": {"reg.example": {"auth": "?"}}}'])
    def test_broken(self, config: Path, text: str) -> None:
        config.write_text(text)
        with pytest.raises(StoreError, match=r"config\.json"):
            _basic("reg.example")


def test_files_by_path(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("z", "a/b/c", "a/.hidden"):
        (tmp_path / name).write_text("x")
    assert list(files_in(tmp_path)) == ["a/.hidden", "a/b/c", "z"]


class TestAgain:
    @pytest.fixture
    def report(self, tmp_path: Path) -> Path:
        (tmp_path / "model.txt").write_text("tree")
        (tmp_path / "train.py").write_text("fit()")
        (tmp_path / "metric.py").write_text("def f(labels, outputs): return 1.0")
        np.savez(tmp_path / "calibration.npz", x=np.zeros((4, 2)))
        np.savez(tmp_path / "data.npz", x=np.zeros((4, 2)), label=np.arange(4))
        order = Order(
            name="m",
            model=tmp_path / "model.txt",
            data=tmp_path / "data.npz",
            objective=Objective(0.99, 50.0),
            place=Place(tmp_path / "out", store="oci://reg.example/m", sign="key.pem"),
            work=tmp_path / "work",
            source=tmp_path / "train.py",
            metric=f"{tmp_path / 'metric.py'}:f",
            calibration=tmp_path / "calibration.npz",
        )
        document = {
            "format": 1,
            "order": order.document(),
            "lineage": {
                "model": digest(order.model),
                "training code": digest(tmp_path / "train.py"),
                "calibration": digest(tmp_path / "calibration.npz"),
                "metric": metric(order.metric),
                "preparation code": code(),
                "versions": versions(),
                "machine": machine(),
                "data": samples.read(order.data).digest(),
            },
            "candidates": [
                {"name": "fp32", "taken": True, "accepted": True},
                {"name": "int8", "taken": False, "accepted": False},
            ],
            "published": {"sha256": "0" * 64},
        }
        path = tmp_path / "report.json"
        path.write_text(json.dumps(document))
        return path

    def test_what_it_tells_of(self, report: Path) -> None:
        order = order_of(report)
        assert order.place.store == "oci://reg.example/m"
        assert order.place.sign == "key.pem"

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("model.txt", "is not the model that"),
            ("train.py", "is not the training code that"),
            ("calibration.npz", "is not the calibration that"),
            ("metric.py", "is not the one that .* bring that file back"),
        ],
    )
    def test_inputs_that_changed(self, report: Path, name: str, what: str) -> None:
        path = report.with_name(name)
        path.write_bytes(path.read_bytes() + b"\n# more")
        with pytest.raises(PreparationError, match=what):
            order_of(report)
        path.unlink()
        with pytest.raises(PreparationError, match=what):
            order_of(report)

    def test_samples_that_changed(self, report: Path) -> None:
        np.savez(report.with_name("data.npz"), x=np.ones((4, 2)), label=np.arange(4))
        with pytest.raises(PreparationError, match="other samples than those that"):
            order_of(report)

    def test_what_figures_may_differ_by(self, report: Path) -> None:
        assert differences(report) == []
        document = json.loads(report.read_text())
        known = document["lineage"]
        known["preparation code"] = "sha256:other"
        known["versions"] |= {"numpy": "1.0", "long gone": "3"}
        known["machine"]["cores"] = 1000
        report.write_text(json.dumps(document))
        told = differences(report)
        assert [line.partition(",")[0] for line in told] == [
            "preparation code has changed",
            "numpy was 1.0",
            "long gone was 3",
            "cores was 1000",
        ]
        assert told[2].endswith("is none")

    @pytest.mark.parametrize(
        "change",
        [
            {"format": 2},
            {"candidates": []},
            {"candidates": [{"name": "int8", "taken": True, "accepted": False}]},
            {"candidates": [{"name": n, "taken": True, "accepted": True} for n in "ab"]},
            {"published": {"sha256": ""}},
        ],
    )
    def test_a_run_that_came_to_nothing(self, report: Path, change: dict[str, Any]) -> None:
        report.write_text(json.dumps(json.loads(report.read_text()) | change))
        with pytest.raises(PreparationError, match="no finished preparation"):
            order_of(report)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "candidates": 3}'])
    def test_what_is_no_report(self, report: Path, text: str) -> None:
        report.write_text(text)
        with pytest.raises(PreparationError, match=r"cannot be read|no report"):
            order_of(report)


@pytest.mark.parametrize(
    "candidates",
    [
        [],
        [{"name": "int8", "taken": True, "accepted": False}],
        [{"name": "int8", "taken": False, "accepted": True}],
        [{"name": "fp32", "taken": True, "accepted": True}],
        [{"name": "int8", "taken": True, "accepted": True}] * 2,
    ],
)
def test_only_what_the_gate_accepted_is_published(
    tmp_path: Path, candidates: list[dict[str, Any]]
) -> None:
    job = SimpleNamespace(candidate=SimpleNamespace(name="int8"))
    prepared = cast(publishing.Prepared, SimpleNamespace(job=job, candidates=candidates))
    with pytest.raises(PreparationError, match="nothing is published"):
        publishing.publish(prepared, Place(tmp_path / "out"), tmp_path / "kept", print)
    assert not (tmp_path / "out").exists()
