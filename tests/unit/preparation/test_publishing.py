"""What is published: whole or not at all, known by its content, as Triton and the API want it."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidegate import golden as requests
from tidegate.api.spec import parse
from tidegate.cli import starting
from tidegate.cli.recording import Recorded
from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.order import Order, Place, drop, objective
from tidegate.preparation.publish import golden
from tidegate.preparation.publish.folder import REPORT, FolderError, check, whole
from tidegate.preparation.publish.manifest import Facts, manifest
from tidegate.preparation.publish.report import html
from tidegate.preparation.publish.target import below
from tidegate.preparation.state import State
from tidegate.preparation.tuning.grid import Setting
from tidegate.preparation.tuning.repository import Backend, config, write
from tidegate.preparation.tuning.search import Objective
from tidegate.resources.model_config import parse_pbtxt

MINIMAL: dict[str, Any] = {"model": {"source": {"uri": "s3://models/digits/1"}}}
ONNX = Path("tests/unit/fetch/artefacts/onnx.onnx")
DIGITS = Candidate(
    name="int8-dynamic",
    path=ONNX,
    platform="onnxruntime",
    inputs=(TensorSpec("input", "FP32", (-1, 64)),),
    outputs=(TensorSpec("label", "INT64", (-1,)), TensorSpec("scores", "FP32", (-1, 10))),
    size_bytes=100,
    steps=("convert",),
    notes={},
)


class TestFolder:
    def test_it_is_there_whole(self, tmp_path: Path) -> None:
        place = tmp_path / "a" / "out"
        with whole(place) as folder:
            (folder / REPORT).write_text("{}")
            assert not place.exists()
        assert [p.name for p in place.iterdir()] == [REPORT]
        assert [p.name for p in place.parent.iterdir()] == ["out"]

    def test_an_error_leaves_what_was_there(self, tmp_path: Path) -> None:
        place = tmp_path / "out"
        with whole(place) as folder:
            (folder / REPORT).write_text("first")

        def fill_the_disc() -> None:
            with whole(place) as folder:
                (folder / REPORT).write_text("second")
                raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(FolderError, match="No space left"):
            fill_the_disc()
        assert (place / REPORT).read_text() == "first"
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_a_newer_one_takes_its_place(self, tmp_path: Path) -> None:
        for text in ("first", "second"):
            with whole(tmp_path / "out") as folder:
                (folder / REPORT).write_text(text)
        assert (tmp_path / "out" / REPORT).read_text() == "second"

    def test_what_is_not_ours_stays(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(FolderError, match="other files"), whole(tmp_path):
            pass
        for place in ("out", "a/b/out"):
            with pytest.raises(
                FolderError, match=r"thesis\.tex is no folder that can be written to"
            ):
                check(tmp_path / "thesis.tex" / place)
        assert (tmp_path / "thesis.tex").exists()

    def test_a_run_that_ended_between_its_two_renames_lost_nothing(self, tmp_path: Path) -> None:
        old = tmp_path / ".out.old"
        old.mkdir()
        (old / REPORT).write_text("first")
        with pytest.raises(RuntimeError), whole(tmp_path / "out"):
            raise RuntimeError
        assert (tmp_path / "out" / REPORT).read_text() == "first"


class TestState:
    def test_a_result_is_made_once(self, tmp_path: Path) -> None:
        made: list[int] = []

        def make() -> dict[str, int]:
            made.append(1)
            return {"n": len(made)}

        assert State(tmp_path).recall("x", {"a": 1}, make) == {"n": 1}
        assert State(tmp_path).recall("x", {"a": 1}, make) == {"n": 1}
        assert State(tmp_path).recall("x", {"a": 2}, make) == {"n": 2}
        assert State(tmp_path).recall("y", {"a": 1}, make) == {"n": 3}

    def test_a_result_whose_file_is_gone_is_made_again(self, tmp_path: Path) -> None:
        state = State(tmp_path)
        state.recall("x", {}, lambda: "gone")
        assert state.recall("x", {}, lambda: "new", still=lambda v: v == "new") == "new"

    def test_what_was_kept_before_a_failure_is_still_there(self, tmp_path: Path) -> None:
        state = State(tmp_path)
        state.recall("first", {}, lambda: 1)

        def fail() -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            state.recall("second", {}, fail)
        assert State(tmp_path).recall("first", {}, fail) == 1

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "state.json").write_text("{")
        with pytest.raises(PreparationError, match=r"state\.json cannot be read.*--work"):
            State(tmp_path)


class TestRepository:
    @pytest.mark.parametrize("backend", list(Backend))
    def test_it_is_what_a_pod_takes(self, tmp_path: Path, backend: Backend) -> None:
        write(tmp_path / "model", DIGITS, "digits", Setting(16, 2, 2.5, 4), backend)
        found = starting.look(tmp_path / "model", "digits")
        assert (found.model, found.backend, found.layout) == ("digits", backend, "repository")
        said = parse_pbtxt(found.config, where="config")
        assert said.max_batch_size == 16
        assert said.dynamic_batching.max_queue_delay_microseconds == 2500
        assert said.instance_group[0].count == 2
        assert said.parameters["intra_op_thread_count"].string_value == "4"
        assert [list(t.dims) for t in said.output] == [[1], [10]]
        assert said.output[0].HasField("reshape")

    def test_a_model_of_a_fixed_batch_is_not_batched(self) -> None:
        fixed = Candidate(
            "fp32", ONNX, "onnxruntime", (TensorSpec("input", "FP32", (1, 64)),), (), 1, (), {}
        )
        said = parse_pbtxt(config(fixed, "m", Setting(1, 1, 0, 1), Backend.PYTHON), where="c")
        assert said.max_batch_size == 0
        assert not said.HasField("dynamic_batching")
        assert list(said.input[0].dims) == [1, 64]


class TestManifest:
    def facts(self, **changed: Any) -> Facts:
        known: dict[str, Any] = {
            "name": "digits",
            "model": "digits",
            "uri": "s3://models/digits/1",
            "sha256": "a" * 64,
            "size_bytes": 1000,
            "quantile": 0.99,
            "target_ms": 50.0,
            "cores": 0.61,
            "golden": "digits-golden",
        }
        return Facts(**known | changed)

    def test_it_says_what_was_measured(self) -> None:
        found = manifest(self.facts())
        spec = parse(found["spec"])
        assert spec.model.source.sha256 == "a" * 64
        assert found["spec"]["runtime"]["resources"] == {"cpu": "800m", "memory": "2Gi"}
        assert found["spec"]["slo"]["latency"] == {"quantile": "0.99", "target": "50ms"}
        assert found["spec"]["goldenRequests"]["configMapName"] == "digits-golden"

    def test_large_models_ask_for_more_memory(self) -> None:
        found = manifest(self.facts(size_bytes=3 << 30))
        assert found["spec"]["runtime"]["resources"]["memory"] == "13Gi"

    def test_what_no_api_server_takes_is_refused(self) -> None:
        with pytest.raises(ValueError, match="sha256"):
            manifest(self.facts(sha256="not one"))


class TestGolden:
    def test_requests_are_spread_over_the_samples(self) -> None:
        samples = {"input": np.arange(6400, dtype=np.float32).reshape(100, 64)}
        found = golden.documents(samples, DIGITS.inputs, 4)
        assert [one["inputs"][0]["data"][0] for one in found] == [0, 1600, 3200, 4800]
        assert found[0]["inputs"][0]["shape"] == [1, 64]
        sent = golden.requests(found, ["label"])
        assert requests.encode(sent[0])[1] > 0

    def test_all_kinds_of_tensors(self) -> None:
        specs = [
            TensorSpec("text", "BYTES", (-1, 1)),
            TensorSpec("number", "INT64", (-1,)),
            TensorSpec("flag", "BOOL", (-1, 2)),
        ]
        samples = {
            "text": np.array([["a"], ["b"]], object),
            "number": np.array([1, 2]),
            "flag": np.array([[True, False], [False, True]]),
        }
        (one,) = golden.documents(samples, specs, 1)
        assert [t["data"] for t in one["inputs"]] == [["a"], [1], [True, False]]
        assert [t["shape"] for t in one["inputs"]] == [[1, 1], [1], [1, 2]]
        golden.requests([one], ["x"])

    def test_a_config_map_is_named_by_its_content(self) -> None:
        def made(label: int, name: str = "digits") -> dict[str, Any]:
            samples = {"input": np.eye(64, dtype=np.float32)}
            found = {}
            for number, one in enumerate(golden.documents(samples, DIGITS.inputs, 3)):
                expected = {"outputs": [{"name": "label", "data": [label]}]}
                found[f"sample-{number}.json"] = Recorded({**one, "expected": expected})
            return golden.config_map(name, found)

        first, other = made(3), made(4)
        assert first == made(3)
        assert re.fullmatch(r"digits-golden-[0-9a-f]{10}", first["metadata"]["name"])
        assert first["metadata"]["name"] != other["metadata"]["name"]
        assert first["immutable"] is True
        assert "namespace" not in first["metadata"]
        assert first["metadata"]["labels"] == {"tidegate.dev/golden-of": "digits"}
        assert len(requests.parse(first)) == 3
        longest = made(3, "d" * 40)
        parse({**MINIMAL, "goldenRequests": {"configMapName": longest["metadata"]["name"]}})

    def test_a_missing_input_is_named(self) -> None:
        with pytest.raises(ValueError, match="no input input; it has x"):
            golden.documents({"x": np.zeros((1, 64))}, DIGITS.inputs, 1)


class TestOrder:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("p99=50ms", Objective(0.99, 50.0)),
            ("p95=1.5s", Objective(0.95, 1500.0)),
            ("p99.9=800us", Objective(0.999, 0.8)),
        ],
    )
    def test_objectives(self, text: str, found: Objective) -> None:
        assert objective(text) == found
        assert str(found).startswith(text.partition("=")[0])

    @pytest.mark.parametrize(
        "text", ["", "50ms", "p99", "p99=0ms", "p20=5ms", "p99=-1ms", "p100=1s"]
    )
    def test_what_is_no_objective(self, text: str) -> None:
        with pytest.raises(PreparationError, match="write p99=50ms"):
            objective(text)

    def test_drops(self) -> None:
        assert drop("0.5%") == pytest.approx(0.005)
        assert drop("0.01") == pytest.approx(0.01)
        for text in ("", "a lot", "-1%", "nan", "inf"):
            with pytest.raises(PreparationError, match="no drop"):
                drop(text)

    def test_an_order_survives_its_report(self) -> None:
        order = Order(
            name="digits",
            model=Path("clf.joblib"),
            data=Path("digits.npz"),
            objective=Objective(0.99, 50.0),
            place=Place(Path("out"), store="s3://models/x"),
            work=Path("out.work"),
            quick=True,
        )
        assert Order.of(json.loads(json.dumps(order.document()))) == order
        with pytest.raises(PreparationError, match="no report"):
            Order.of({"name": "digits"})


def test_a_store_prefix_is_named_by_the_content() -> None:
    assert below("s3://models/digits/", "0123456789abcdef01") == (
        "s3://models/digits/0123456789abcdef"
    )


def test_the_report_stands_alone_and_escapes() -> None:
    document: dict[str, Any] = {
        "name": "<script>",
        "summary": "a & b",
        "command": "tidegate prepare",
        "candidates": [
            {
                "name": "int8",
                "taken": False,
                "accepted": False,
                "bytes": None,
                "verdict": "refused: worse",
                "speed": "slower: 1.31 times as long",
                "steps": [],
                "held": None,
            }
        ],
        "tuning": {"sentence": "measured", "curve": [], "others": []},
        "lineage": {"versions": {"numpy": "2"}, "licence": None},
        "published": {"uri": "s3://models/x"},
    }
    found = html(document, b"\x89PNG")
    assert "<script>" not in found
    assert "a &amp; b" in found
    assert "refused: worse" in found
    assert "slower: 1.31 times as long" in found
    assert "not stated" in found
    assert "data:image/png;base64,iVBORw==" in found
    assert "http" not in found.replace("http-equiv", "")
