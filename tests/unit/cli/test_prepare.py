"""`tidegate prepare`, as far as it goes without the extra; the rest is in tests/integration."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tidegate.cli.main import app
from tidegate.cli.trouble import Trouble


def prepare(*words: str) -> str:
    """What it says when it ends with an error."""
    found = CliRunner().invoke(app, ["prepare", *words])
    assert isinstance(found.exception, Trouble), found.output
    return str(found.exception)


WHOLE = ("--model", "clf.joblib", "--data", "digits.npz", "--slo", "p99=50ms", "--out", "out")


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("tidegate.preparation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = prepare(*WHOLE)
    assert "onnx" in said
    assert "pip install '.[cli,preparation]'" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--model, --data, --slo and --out are needed; or --from-report"),
        ((*WHOLE[:4], "--slo", "50ms", "--out", "out"), "50ms is no objective: write p99=50ms"),
        ((*WHOLE, "--max-drop", "little"), "little is no drop: write 0.5%"),
        ((*WHOLE, "--name", "My Model"), "My Model cannot be a ModelDeployment's name"),
        (("--from-report", "nothing.json"), "nothing.json cannot be read"),
    ],
)
def test_wrong_options(words: tuple[str, ...], said: str) -> None:
    assert said in prepare(*words)


def test_a_report_of_another_model_is_refused(tmp_path: Path) -> None:
    from tidegate.preparation.order import Order, Place
    from tidegate.preparation.tuning.search import Objective

    order = Order(
        name="digits",
        model=tmp_path / "clf.joblib",
        data=tmp_path / "digits.npz",
        objective=Objective(0.99, 50.0),
        place=Place(tmp_path / "out"),
        work=tmp_path / "work",
    )
    report = tmp_path / "report.json"
    report.write_text(
        json.dumps({"order": order.document(), "lineage": {"model": f"sha256:{'0' * 64}"}})
    )
    assert "is not the model" in prepare("--from-report", str(report))
    order.model.write_bytes(b"another")
    assert "is not the model" in prepare("--from-report", str(report))
