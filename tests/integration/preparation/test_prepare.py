"""`tidegate prepare`, from a scikit-learn classifier to a published folder, on a real Triton."""

import errno
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from tests.integration.preparation.conftest import Silent
from tidegate import golden
from tidegate.api.spec import parse
from tidegate.cli import starting
from tidegate.cli.main import app
from tidegate.cli.trouble import Trouble
from tidegate.preparation import convert, metrics, pipeline
from tidegate.preparation import order as orders
from tidegate.preparation.choices import CHOICES, Choice
from tidegate.preparation.errors import NoRoomError, PreparationError
from tidegate.preparation.order import Order, Place
from tidegate.preparation.samples import Samples
from tidegate.preparation.tuning.serving import TritonError
from tidegate.preparation.tuning.tuner import QUICK

pytestmark = pytest.mark.integration


def test_what_is_published_is_what_was_tuned(order: Order, report: dict[str, Any]) -> None:
    out = order.place.folder
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    model = ["config.pbtxt", "1/model.onnx", "1/model.py"]
    assert set(files) == {
        "curve.png",
        *(f"model/digits/{name}" for name in model),
        "manifests/golden.yaml",
        "manifests/modeldeployment.yaml",
        "report.html",
        "report.json",
    }
    found = starting.look(out / "model", "digits")
    assert report["published"]["sha256"] == found.sha256
    taken = report["tuning"]["taken"]
    assert f"max_batch_size: {taken['setting']['batch']}" in found.config
    assert taken["ratePerSecond"] > 0
    assert taken["cpuSecondsPerMillion"] > 0
    assert any(s["rate_per_s"] == taken["ratePerSecond"] for s in report["tuning"]["curve"])

    (manifest,) = yaml.safe_load_all((out / "manifests/modeldeployment.yaml").read_text())
    spec = parse(manifest["spec"])
    assert spec.model.source.sha256 == found.sha256
    assert spec.golden_requests is not None
    (recorded,) = yaml.safe_load_all((out / "manifests/golden.yaml").read_text())
    assert len(golden.parse(recorded)) == 8
    assert spec.golden_requests.config_map_name == recorded["metadata"]["name"]
    assert recorded["metadata"]["name"].startswith("digits-golden-")


def test_the_command_knows_the_names() -> None:
    """It checks them before it imports what has them."""
    assert tuple(CHOICES) == orders.OPTIMISATIONS
    assert {*orders.FRAMEWORKS} == {*convert.Framework}


def test_the_report_tells_where_it_comes_from(order: Order, report: dict[str, Any]) -> None:
    assert json.loads((order.place.folder / "report.json").read_text()) == report
    lineage = report["lineage"]
    for name in ("model", "data", "preparation code"):
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", lineage[name])
    assert lineage["licence"] == "Apache-2.0"
    assert lineage["versions"]["onnxruntime"]
    names = {one["name"]: one for one in report["candidates"]}
    assert set(names) == {"fp32", "int8-dynamic", "pruned"}
    assert sum(one["taken"] for one in report["candidates"]) == 1
    assert names["int8-dynamic"]["verdict"].startswith("accepted: accuracy")
    assert names["int8-dynamic"]["held"]["ratePerSecond"] > 0
    assert "time" in names["int8-dynamic"]["speed"]
    # Half of the weights gone: refused, and there with its reason; not tuned.
    assert names["pruned"]["verdict"].startswith("refused: accuracy")
    assert names["pruned"]["held"] is None
    assert report["tuning"]["backend"] == "python"
    assert "Python backend" in report["tuning"]["sentence"]
    others = {one["objective"]: one["measured"] for one in report["tuning"]["others"]}
    assert others == {"p95=100ms": False, "p95=400ms": False}, "--quick leaves them to the model"
    html = (order.place.folder / "report.html").read_text()
    assert "int8-dynamic" in html
    assert "http://" not in html
    assert "https://" not in html


METRICS = """
def raises(labels, outputs): return 1 / 0
def leaves(labels, outputs): raise SystemExit(3)
def nothing(labels, outputs): return None
"""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "nothing.joblib"}, "nothing.joblib does not exist"),
        ({"data": "nothing.npz"}, "nothing.npz cannot be read"),
        ({"data": "bare.npz"}, "no labels"),
        ({"data": "narrow.npz"}, "64"),
        ({"framework": "pmml"}, "pmml is no framework: there are sklearn"),
        ({"optimisations": ("magic",)}, "no optimisation magic: there are graph"),
        ({"metric": "metric.py:raises"}, "raised ZeroDivisionError"),
        ({"metric": "metric.py:leaves"}, "raised SystemExit: 3"),
        ({"metric": "metric.py:nothing"}, "raised TypeError: float() argument"),
        ({"max_drop": 2.0}, "would allow anything: write 2%"),
        ({"source": Path("no/training.py")}, "no/training.py does not exist"),
        ({"metric": "beauty"}, "accuracy, f1, rmse"),
        ({"metric": "metric.py:loss"}, "loss sounds like an error: say --better lower"),
        ({"better": "lower"}, "accuracy is better higher, not lower"),
        ({"triton": "no-such-triton"}, "not on this machine"),
    ],
)
def test_bad_input_gets_one_clear_line(
    order: Order, folder: Path, changes: dict[str, Any], said: str
) -> None:
    (folder / "metric.py").write_text(METRICS)
    for name in ("model", "data"):
        if name in changes:
            changes[name] = folder / changes[name]
    if str(changes.get("metric", "")).startswith("metric.py"):
        changes["metric"] = f"{folder}/{changes['metric']}"
    place = Place(folder / "never")
    with pytest.raises(PreparationError, match=re.escape(said)) as raised:
        pipeline.prepare(replace(order, place=place, **changes), Silent())
    assert "\n" not in str(raised.value)
    assert not place.folder.exists(), "nothing is published half"


def test_classes_written_as_decimal_numbers_are_classes(order: Order, folder: Path) -> None:
    """As a table with a missing value once had them."""
    stored = np.load(order.data)
    samples = Samples({"input": stored["input"]}, stored["label"].astype(np.float64))
    assert samples.labels is not None
    found = metrics.classes({"label": stored["label"], "scores": np.eye(10)}, samples.labels)
    assert (found == stored["label"]).all()
    with pytest.raises(
        PreparationError, match=r"give labels like one of them, or a metric FILE\.py"
    ):
        metrics.classes({"label": stored["label"]}, samples.labels + 0.5)


@pytest.mark.parametrize("full", ["before", "while"])
def test_a_disc_that_fills_up_is_no_fault_of_a_candidate(
    order: Order, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """The candidate would be left out, and the original published in its place."""
    free = [1 << 40]

    def usage(path: Path) -> Any:
        return SimpleNamespace(free=free[0])

    def fails(before: Any, out: Path, samples: Any) -> Any:
        free[0] = 0
        raise PreparationError("int8 dynamic fails on this model: serialization failed")

    monkeypatch.setattr(shutil, "disk_usage", usage)
    work, place = tmp_path / "work", Place(tmp_path / "never")
    changed = replace(order, work=work, place=place, optimisations=("int8-dynamic",))
    if full == "before":
        free[0] = 1000
    else:
        monkeypatch.setitem(CHOICES, "int8-dynamic", Choice(fails))
    with pytest.raises(NoRoomError, match=r"nearly full: 0\.0 MiB are free"):
        pipeline.prepare(changed, Silent())
    kept = json.loads((work / "state.json").read_text())["results"]
    assert {key.partition(":")[0] for key in kept} == {"convert", "prove"}
    assert not place.folder.exists()


def test_what_a_disc_says_elsewhere_is_one_line_too(
    order: Order, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(order: Order, tell: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/somewhere")

    monkeypatch.setattr(pipeline, "prepare", prepare)
    said = ["--model", str(order.model), "--data", str(order.data), "--slo", "p95=200ms"]
    found = CliRunner().invoke(app, ["prepare", *said, "--out", str(folder / "never")])
    assert isinstance(found.exception, Trouble), found.exception
    assert "/tmp/somewhere: No space left on device" in str(found.exception)
    assert "goes on" in str(found.exception)


def test_a_server_that_does_not_start_is_told_by_its_own_words(order: Order, folder: Path) -> None:
    program = folder / "broken"
    program.write_text("#!/bin/sh\necho the library libsomething.so is missing >&2\nexit 1\n")
    program.chmod(0o755)
    changed = replace(order, triton=str(program), place=Place(folder / "never"))
    with pytest.raises(TritonError, match=r"libsomething\.so is missing"):
        pipeline.prepare(changed, Silent())
    assert not (folder / "never").exists()


def test_half_and_double_the_objective_are_measured(
    order: Order, folder: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what is known of the first run; two stretches of a second each."""
    monkeypatch.setattr(pipeline, "QUICK", replace(QUICK, other_runs=2))
    teller = Silent()
    made = pipeline.prepare(replace(order, place=Place(folder / "others")), teller)
    assert made["tuning"]["taken"] == report["tuning"]["taken"]
    tight, loose = made["tuning"]["others"]
    assert (tight["objective"], loose["objective"]) == ("p95=100ms", "p95=400ms")
    stretches = [s for one in (tight, loose) for held in one["tried"] for s in held["stretches"]]
    assert 2 <= len(stretches) <= 8
    assert made["tuning"]["runs"] == report["tuning"]["runs"] + len(stretches)
    for stage in ("optimise", "prove", "tune"):
        shares = teller.shares[stage]
        assert shares == sorted(shares), stage
        assert 0.0 <= shares[0] < shares[-1] <= 1.0, stage
    assert loose["measured"]
    assert loose["cpuSecondsPerMillion"] <= made["tuning"]["taken"]["cpuSecondsPerMillion"]
    assert tight["measured"]
    assert "<td>measured</td>" in (folder / "others" / "report.html").read_text()


def test_the_command_measures_nothing_again(
    order: Order, folder: Path, report: dict[str, Any]
) -> None:
    """With the options of the first run."""
    state = (order.work / "state.json").read_bytes()
    said = ["--name", "digits", "--model", str(order.model), "--data", str(order.data)]
    said += ["--slo", "p95=200ms", "--max-drop", "3%", "--framework", "sklearn", "--quick"]
    said += ["--optimise", "int8-dynamic,pruned", "--triton", order.triton]
    said += ["--work", str(order.work), "--licence", "Apache-2.0"]
    found = CliRunner().invoke(app, ["prepare", *said, "--out", str(folder / "second")])
    assert found.exit_code == 0, found.output
    assert (order.work / "state.json").read_bytes() == state
    assert report["summary"] in found.output
    assert f"kubectl apply -f {folder / 'second' / 'manifests'}" in found.output
    again = json.loads((folder / "second" / "report.json").read_text())
    assert again["published"] == report["published"]
    assert again["tuning"] == report["tuning"]
