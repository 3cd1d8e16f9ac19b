"""`tidegate prepare`, as far as it goes without the extra; the rest is in tests/integration."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.cli.api_server import SPACE, Server
from tests.unit.cli.conftest import Run
from tidegate.cli.main import app
from tidegate.cli.trouble import Exit, Trouble


def prepare(*words: str) -> str:
    """What it says when it ends with an error."""
    return str(trouble(*words))


def trouble(*words: str) -> Trouble:
    found = CliRunner().invoke(app, ["prepare", *words])
    assert isinstance(found.exception, Trouble), found.output
    return found.exception


WHOLE = ("--model", "clf.joblib", "--data", "digits.npz", "--slo", "p99=50ms", "--out", "out")


@pytest.fixture
def unloaded() -> Iterator[None]:
    """Without the preparation's modules; those that were loaded come back, and no other stays."""
    here = [n for n in sys.modules if n.startswith("tidegate.preparation")]
    kept = {name: sys.modules.pop(name) for name in here}
    yield
    for name in [n for n in sys.modules if n.startswith("tidegate.preparation")]:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.mark.usefixtures("unloaded")
def test_without_the_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clf.joblib", "digits.npz"):
        Path(name).touch()
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = prepare(*WHOLE)
    assert "onnx" in said
    assert "pip install '.[cli,preparation]'" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--model, --data, --slo and --out are needed; or --from-report"),
        (
            (*WHOLE[:4], "--slo", "50ms", "--out", "out"),
            "--slo: 50ms is no objective: write p99=50ms",
        ),
        ((*WHOLE, "--max-drop", "little"), "--max-drop: little is no drop: write 0.5%"),
        ((*WHOLE, "--name", "My Model"), "--name 'My Model' cannot be a ModelDeployment's; small"),
        (("--from-report", "nothing.json"), "--from-report nothing.json does not exist"),
        (
            ("--from-report", "r.json", "--out", "o", "--data", "d.npz", "--max-drop", "1%"),
            "--from-report r.json says all, --data, --max-drop too; leave that out",
        ),
        (("--apply", "--out", "o", "--slo", "p99=50ms"), "--model, --data, --slo and --out are"),
        (
            (*WHOLE, "--metric", "mine.py:wer", "--better", "down"),
            "--better: down is no direction: a metric is better higher or lower",
        ),
        ((*WHOLE, "--better", "lower"), "--better: accuracy is better higher, not lower"),
        ((*WHOLE, "--metric", "mine.py:wer"), "--metric: wer sounds like an error: say --better l"),
        ((*WHOLE, "--metric", "beauty"), "--metric: beauty: a metric is one of accuracy, f1, rmse"),
        ((*WHOLE, "--metric", "no.py:share"), "--metric: no.py does not exist"),
        ((*WHOLE, "--framework", "caffe"), "--framework: there is no caffe; there are sklearn, x"),
        ((*WHOLE, "--optimise", "graph,magic"), "--optimise: there is no magic; there are graph,"),
        ((*WHOLE, "--publish", "ftp://x"), "--publish: ftp://x cannot be published to: write s3"),
        ((*WHOLE, "--publish", "s3://b/m", "--source", "s3://c"), "s3://c and --publish s3://b/m;"),
        ((*WHOLE, "--triton", "trytone"), "--triton trytone is no program here; name one"),
        ((*WHOLE, "--data", "away.npz"), "--data away.npz does not exist; name a file"),
        ((*WHOLE, "--code", "away.py"), "--code away.py does not exist; name a file"),
        ((*WHOLE, "--apply"), "--apply needs --publish"),
    ],
)
def test_wrong_options(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clf.joblib", "digits.npz", "mine.py"):
        Path(name).touch()
    found = trouble(*words)
    assert said in str(found)
    assert found.code is Exit.USAGE


def test_help_can_be_drawn() -> None:
    """What stands in square brackets is taken for a colour: a closing one alone ends it."""
    found = CliRunner().invoke(app, ["prepare", "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.exception
    for form in ("s3://bucket/prefix", "oci://registry/repository:tag", "mlflow://model/@alias"):
        assert form in found.output


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
    document = {
        "format": 1,
        "order": order.document(),
        "lineage": {"model": f"sha256:{'0' * 64}"},
        "candidates": [{"name": "fp32", "taken": True, "accepted": True}],
        "published": {"sha256": "0" * 64},
    }
    report.write_text(json.dumps(document))
    assert "is not the model" in prepare("--from-report", str(report))
    order.model.write_bytes(b"another")
    assert "is not the model" in prepare("--from-report", str(report))


GOLDEN = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: digits-golden}\n"
DEPLOYMENT = "apiVersion: tidegate.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: digits}\n"
NO_ROLE = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: digits}\n"


def written(folder: Path, golden: str | None, deployment: str | None) -> Path:
    (folder / "manifests").mkdir()
    for name, text in (("golden", golden), ("modeldeployment", deployment)):
        if text is not None:
            (folder / "manifests" / f"{name}.yaml").write_text(text)
    return folder


def test_what_was_prepared_is_applied_in_order(run: Run, tmp_path: Path) -> None:
    server = Server(more={f"/api/v1/namespaces/{SPACE}/configmaps": []})
    folder = written(tmp_path, GOLDEN, DEPLOYMENT)
    found = run(server, "prepare", "--apply", "--out", str(folder))
    assert [o["kind"] for o in server.written] == ["ConfigMap", "ModelDeployment"]
    assert found.out.splitlines() == [
        f"configmap/digits-golden applied in {SPACE}",
        f"modeldeployment/digits applied in {SPACE}",
    ]


@pytest.mark.parametrize(
    ("golden", "deployment", "said"),
    [
        (GOLDEN, None, "modeldeployment.yaml cannot be read"),
        (GOLDEN, "{", "modeldeployment.yaml is no YAML"),
        (GOLDEN, NO_ROLE, "modeldeployment.yaml is not one ModelDeployment"),
        (GOLDEN, f"{DEPLOYMENT}---\n{NO_ROLE}", "is not one ModelDeployment"),
        (GOLDEN.replace("}", ", namespace: kube-system}"), DEPLOYMENT, "namespace of its own"),
    ],
)
def test_nothing_else_is_applied(
    run: Run, tmp_path: Path, golden: str, deployment: str | None, said: str
) -> None:
    server = Server(more={f"/api/v1/namespaces/{SPACE}/configmaps": []})
    folder = written(tmp_path, golden, deployment)
    found = run(server, "prepare", "--apply", "--out", str(folder), code=1)
    assert said in found.err
    assert server.written == []


def test_a_role_that_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    server = Server(
        more={f"/api/v1/namespaces/{SPACE}/configmaps": []}, denied=frozenset({"patch"})
    )
    folder = written(tmp_path, GOLDEN, DEPLOYMENT)
    found = run(server, "prepare", "--apply", "--out", str(folder), code=1)
    assert f"grant patch and create of configmaps in {SPACE}" in found.err
