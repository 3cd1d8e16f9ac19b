"""`tidegate simulate --set`: other settings beside the manifest's, by the API server's rules."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.manifests import manifest, overlay
from tests.unit.simulation.test_command import SPEC, TRACE, run
from tidegate.api.spec import parse
from tidegate.cli import setting
from tidegate.cli.trouble import Misuse

BAD: list[dict[str, Any]] = yaml.safe_load(Path("tests/contract/bad_manifests.yaml").read_text())
"""What the API server refuses; the contract tests hold the real one to it."""
ENOUGH = ("--service-time", "90+20n")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "load.csv").write_text(TRACE)
    return tmp_path


def tried(*texts: str, **block: Any) -> setting.Changed:
    """These settings over a manifest with a latency objective, and what it says otherwise."""
    document = manifest("m")
    document["spec"] |= {"slo": {"latency": {"target": "100ms"}}, **block}
    before = json.dumps(document)
    found = setting.changed(document, parse(document["spec"]), texts)
    assert json.dumps(document) == before, "the manifest stays as it is"
    return found


def test_what_is_set_and_what_it_was() -> None:
    found = tried(
        *("scaling.maxReplicas=8", "spec.scaling.headroom = 2", "slo.latency.quantile=0.95"),
        "replicas=3",
        scaling={"minReplicas": 2},
    )
    scaling = found.spec.scaling
    assert (scaling.min_replicas, scaling.max_replicas, scaling.headroom) == (2, 8, "2")
    assert found.spec.slo.latency is not None
    assert (found.spec.slo.latency.quantile, found.spec.slo.latency.target) == ("0.95", "100ms")
    assert [str(one) for one in found.settings] == [
        "scaling.maxReplicas 8 instead of 10",
        "scaling.headroom 2 instead of Auto",
        "slo.latency.quantile 0.95 instead of 0.99",
        "replicas 3 instead of nothing",
    ]


def settable(case: dict[str, Any]) -> dict[str, Any] | None:
    """What a case sets as ``--set`` could write it; None: it sets something else as well."""
    flat: dict[str, Any] = {}
    for path, value in case.get("set", {}).items():
        for below, found in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{path}.{below}" if below else path] = found
    # A text where a number belongs, and the other way round, is not told apart on a command line.
    fitting = all(
        field in setting.FIELDS and isinstance(value, int if field in setting.NUMBERS else str)
        for field, value in flat.items()
    )
    return flat if flat and fitting else None


CASES = {case["what"]: found for case in BAD if (found := settable(case))}


def test_the_table_has_them() -> None:
    assert len(CASES) >= 15
    assert {field for case in CASES.values() for field in case} >= {
        *("slo.latency.target", "slo.latency.quantile", "scaling.mode", "scaling.headroom"),
        *("scaling.minReplicas", "scaling.maxReplicas"),
    }


@pytest.mark.parametrize("what", CASES)
def test_what_the_api_server_refuses_is_refused(what: str) -> None:
    document = manifest("m")
    texts = [f"{field}={value}" for field, value in CASES[what].items()]
    with pytest.raises(Misuse) as refused:
        setting.changed(document, parse(document["spec"]), texts)
    assert f"--set {texts[0]}" in refused.value.message
    assert refused.value.mend


@pytest.mark.parametrize(
    "body",
    [
        {"slo.latency.target": "1500ms"},
        {"slo.latency.target": "1ms", "slo.latency.quantile": "0.9999"},
        {"slo.latency.target": "1h"},
        {"scaling.minReplicas": 1, "scaling.maxReplicas": 1},
        {"scaling.maxReplicas": 1000, "scaling.headroom": "999"},
        {"scaling.mode": "Fixed", "replicas": 0},
        {"scaling.mode": "External", "replicas": 4},
    ],
)
def test_what_may_be_is_taken(body: dict[str, Any]) -> None:
    document = manifest("m")
    found = setting.changed(
        document, parse(document["spec"]), [f"{k}={v}" for k, v in body.items()]
    )
    assert found.spec == parse(overlay(manifest("m"), body)["spec"])


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("scaling.maxReplica=8",), "cannot be set; did you mean scaling.maxReplicas?"),
        (("runtime.gpu.count=2",), "'runtime.gpu.count' cannot be set; there are slo.latency.t"),
        (("=",), "'' cannot be set; there are"),
        (("scaling.maxReplicas",), "'' is no whole number; write scaling.maxReplicas=3"),
        (("scaling.maxReplicas=many",), "'many' is no whole number; write scaling.maxReplicas=3"),
        (("scaling.maxReplicas=8", "spec.scaling.maxReplicas=9"), "is set twice; leave one out"),
        (("slo.latency.target=123ms",), "more than two significant digits in milliseconds; round"),
        (("slo.latency.target=fast",), "'fast' is not a duration, write for example 100ms"),
        (("scaling.minReplicas=11",), "minReplicas 11 is above maxReplicas 10; lower it, or ra"),
        (("scaling.mode=Magic",), "spec.scaling.mode: Input should be 'SLO', 'Fixed' or 'Exter"),
    ],
)
def test_what_cannot_be_set(texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(Misuse) as refused:
        tried(*texts)
    assert said in str(refused.value)
    assert f"--set {texts[0]}" in str(refused.value) or f"--set {texts[-1]}" in str(refused.value)


def test_rules_of_fields_that_are_not_set_count_too() -> None:
    with pytest.raises(Misuse, match=r"100ms is above traffic\.timeout 50ms"):
        tried("scaling.maxReplicas=8", traffic={"timeout": "50ms"})
    with pytest.raises(Misuse, match="SLO needs the sidecar"):
        tried("scaling.mode=SLO", runtime={"sidecar": "Off"}, scaling={"mode": "Fixed"})


def test_beside_the_manifest(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--set", "scaling.maxReplicas=1", "--set", "slo.latency.quantile=0.98")
    more = (*settings, "--keda-rps", "18")
    code, out, err = run(files, capsys, *ENOUGH, *more)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    names = ("Tidegate ", "Tidegate, as set", "KEDA, 18 req/s a pod")
    for law, line in zip(names, lines[4:7], strict=True):
        assert line.startswith(law)
    assert lines[5].split()[-4:] == ["1", "to", "1", "0"]
    assert lines[-1].startswith(
        "as set (scaling.maxReplicas 1 instead of 9, slo.latency.quantile 0.98 instead of 0.99): "
    )
    assert " GPU hours instead of " in lines[-1]
    assert lines[-1].endswith("; each is held to its own objective")

    code, out, _ = run(files, capsys, *ENOUGH, *more, "-o", "json")
    told = json.loads(out)["laws"]
    assert [law.get("set") for law in told] == [
        None,
        {
            "scaling.maxReplicas": {"from": 9, "to": 1},
            "slo.latency.quantile": {"from": "0.99", "to": "0.98"},
        },
        None,
    ]
    assert told[1]["attainment"] < told[0]["attainment"]
    assert told[1]["gpuHours"] < told[0]["gpuHours"]
    (alone, *_) = json.loads(run(files, capsys, *ENOUGH, "-o", "json")[1])["laws"]
    assert told[0] == alone, "the manifest's own result is what it was"


def test_another_objective_is_held_to_itself(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As good as the manifest that says so: the same requests, the same law."""
    more = ("--set", "slo.latency.target=250ms", "-o", "json")
    beside = json.loads(run(files, capsys, *ENOUGH, *more)[1])["laws"][1]
    written = SPEC.replace("target: 500ms", "target: 250ms")
    alone = json.loads(run(files, capsys, *ENOUGH, "-o", "json", spec=written)[1])["laws"][0]
    assert {**alone, "law": beside["law"], "set": beside["set"]} == beside


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "scaling.maxReplicas=0"), "--set scaling.maxReplicas=0: spec.scaling.maxRepl"),
        (("--set", "a=b", "--change", "v2.yaml"), "--set a=b and --change do not go together; s"),
    ],
)
def test_wrong_usage(
    files: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    code, out, err = run(files, capsys, *ENOUGH, *more)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert said in err
