"""`tidegate simulate`, as it is typed."""

import json
from pathlib import Path

import pytest

from tidegate.cli import main

SPEC = """
apiVersion: tidegate.dev/v1alpha1
kind: ModelDeployment
metadata: {name: detector}
spec:
  model:
    source: {uri: s3://models/detector/v3}
    config: {maxBatchSize: 8, dynamicBatching: {}}
  slo:
    latency: {quantile: "0.99", target: 500ms}
  scaling: {minReplicas: 1, maxReplicas: 9}
"""
FIXED = SPEC.replace("scaling: {", "replicas: 2\n  scaling: {mode: Fixed, ")
MEASURED = "status: {scaling: {desired: 2, reason: x, serviceTime: 90 + 20 n ms}}\n"
TRACE = "time_s,rps\n" + "".join(f"{60 * i},{20 + 15 * (i > 2)}\n" for i in range(5))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "load.csv").write_text(TRACE)
    return tmp_path


def run(
    folder: Path, capsys: pytest.CaptureFixture[str], *more: str, spec: str = "", trace: str = ""
) -> tuple[int, str, str]:
    """Exit code, output and error."""
    if spec:
        (folder / "spec.yaml").write_text(spec)
    if trace:
        (folder / "load.csv").write_text(trace)
    code = 0
    try:
        main.main(
            ["simulate", "--spec", f"{folder}/spec.yaml", "--trace", f"{folder}/load.csv", *more]
        )
    except SystemExit as done:
        code = int(done.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_table_and_how_replicas_follow(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        files,
        capsys,
        *("--service-time", "90+20n", "--gpu-price", "2", "--hpa-utilization", "70"),
        *("--hpa-latency", "400", "--keda-rps", "18"),
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("detector: ")
    assert "5 min" in lines[0]
    assert "90 + 20 n ms for a batch of n (at most 8)" in lines[1]
    assert lines[3].split()[-5:] == ["GPU", "hours", "cost", "replicas", "changes"]
    laws = ["Tidegate", "HPA, 70 % busy", "HPA, 400 ms p99", "KEDA, 18 req/s a pod"]
    for law, line in zip(laws, lines[4:8], strict=True):
        assert line.startswith(law)
    assert out.count("█") >= 2


def test_as_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(files, capsys, "-o", "json", "--gpu-price", "3", spec=SPEC + MEASURED)
    assert code == 0
    told = json.loads(out)
    (ours,) = told["laws"]
    assert ours["law"] == "Tidegate"
    assert 0.9 < ours["attainment"] <= 1.0
    assert ours["cost"] == pytest.approx(3 * ours["gpuHours"], abs=0.02)
    assert [at for at, _, _ in ours["replicas"]][:2] == [5.0, 10.0]
    assert told["capacityPerPod"] == pytest.approx(22, rel=0.1)


def test_a_fixed_number_is_simulated_as_it_is(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(files, capsys, "--service-time", "90+20n", "-o", "json", spec=FIXED)
    assert code == 0
    (law,) = json.loads(out)["laws"]
    assert law["law"] == "Fixed, 2 replicas"
    assert law["gpuHours"] == pytest.approx(2 * 5 / 60, abs=0.01)


def test_too_few_replicas_are_told_of(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = SPEC.replace("maxReplicas: 9", "maxReplicas: 1")
    code, out, _ = run(files, capsys, "--service-time", "90+20n", spec=spec, trace="1800\n2400\n")
    assert code == 0
    assert "maxReplicas (1) was reached: raise it" in out


def test_a_picture(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = files / "picture.png"
    code, _, _ = run(
        files, capsys, "--service-time", "90+20n", "--picture", str(picture), spec=FIXED
    )
    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_no_matplotlib(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    code, _, err = run(files, capsys, "--service-time", "90+20n", "--picture", "x.png", spec=FIXED)
    assert code == 1
    assert "--picture needs matplotlib, which is not installed; pip install matplotlib" in err


OF_FILES = (
    *("infeasible", "is no count", "holds no", "at most", "yaml:1:5", "not perm"),
    *("is above maxReplicas", "is absent", "Field required"),
)
"""What is wrong in a file ends with 1, a wrong option with 2."""


@pytest.mark.parametrize(
    ("more", "spec", "trace", "said"),
    [
        ((), "", "", "is needed: the manifest has no measured status.scaling.serviceTime; say --s"),
        (("--service-time", "8+6x"), "", "", "--service-time '8+6x' is none; write 8+6n"),
        (("--service-time", "0"), "", "", "--service-time '0' is 0 ms; write 8+6n"),
        (("--service-time", "600"), "", "", "SLO is infeasible: a request that finds a pod idle"),
        (("--service-time", "8+6n", "--keda-rps", "0"), "", "", "--keda-rps 0 is no target; give"),
        (("--service-time", "8+6n", "--cold-start", "x"), "", "", "--cold-start 'x' is no length"),
        (
            ("--service-time", "8+6n", "--interval", "0s"),
            "",
            "",
            "--interval 0s is no time between two rows; w",
        ),
        (("--service-time", "8+6n", "--times", "inf"), "", "", "--times inf is no number; write o"),
        (
            ("--service-time", "8+6n", "--times", "nan"),
            "",
            "",
            "value 'nan' for '--times': Input s",
        ),
        (("--service-time", "8+6n", "--variation", "nan"), "", "", "value 'nan' for '--variation'"),
        (("--service-time", "8+6n", "--gpu-price", "inf"), "", "", "--gpu-price inf is no number"),
        (("--service-time", "8+6n", "--hpa-latency", "nan"), "", "", "--hpa-latency nan is no tar"),
        (("--service-time", "8+6n", "--seed", "-1"), "", "", "invalid value '-1' for '--seed': "),
        (("--service-time", "8+6n", "--column", "jobs"), "", "", "--column 'jobs': "),
        (("--service-time", "8+6n"), "", "1,2\n3,4\n", "2 columns of counts; say which with --co"),
        (("--picture", "x.jpg"), "", "", "--picture x.jpg is no PNG; give a path that ends in .p"),
        (("--picture", "away/x.png"), "", "", "--picture away/x.png cannot be written; name a fi"),
        (("--service-time", "8+6n"), "", "60\nmany\n", "line 2, column 1: 'many' is no count; w"),
        (("--service-time", "8+6n"), "", "0\n0\n", "holds no requests; give a trace"),
        (("--service-time", "8+6n"), "", "1e12\n1e12\n", "20,000,000 at most; give a part of it"),
        (("--service-time", "8+6n"), "a: [", "", "spec.yaml:1:5: "),
        (("--service-time", "8+6n"), "kind: Pod", "", "holds no ModelDeployment; give a Model"),
        (
            ("--service-time", "8+6n"),
            SPEC.replace("minReplicas", "minReplica"),
            "",
            "spec.scaling.minReplica: Extra inputs are not permitted; mend the manifest",
        ),
        (
            ("--service-time", "8+6n"),
            SPEC.replace("minReplicas: 1", "minReplicas: 10"),
            "",
            "spec.scaling.minReplicas: minReplicas 10 is above maxReplicas 9; lower it",
        ),
        (
            ("--service-time", "8+6n"),
            SPEC.replace('latency: {quantile: "0.99", target: 500ms}', 'maxErrorRate: "1%"'),
            "",
            "spec.slo.latency is absent, so no request can be in time or late; add slo:",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    spec: str,
    trace: str,
    said: str,
) -> None:
    code, out, err = run(files, capsys, *more, spec=spec, trace=trace)
    assert (code, out) == (1 if any(f in said for f in OF_FILES) else 2, "")
    assert len(err.splitlines()) == 1
    assert said in err


def test_files_that_are_not_there(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("spec.yaml", "load.csv"):
        (files / name).rename(files / "away")
        code, _, err = run(files, capsys, "--service-time", "8+6n")
        assert code == 2
        assert f"{name}: No such file or directory; give a" in err
        (files / "away").rename(files / name)


ROLLOUT = """
apiVersion: tidegate.dev/v1alpha1
kind: ModelDeployment
metadata: {name: detector}
spec:
  model: {source: {uri: s3://models/detector/v1}}
  slo: {latency: {quantile: "0.9", target: 100ms}, maxErrorRate: "10%"}
  replicas: 1
  scaling: {mode: Fixed}
  traffic: {gateway: {parentRefs: [{name: gw}], hostnames: [d.example]}}
  rollout: {steps: [{weight: "50%", hold: 1s}], bake: 5s, mirror: {minRequests: 20}}
"""
BUSY = "time_s,rps\n" + "".join(f"{10 * i},20\n" for i in range(9))


@pytest.fixture
def versions(files: Path) -> Path:
    (files / "spec.yaml").write_text(ROLLOUT)
    (files / "v2.yaml").write_text(ROLLOUT.replace("/v1}", "/v2}"))
    (files / "load.csv").write_text(BUSY)
    return files


PLAYED = ("--service-time", "4", "--cold-start", "5s")


def test_a_bad_version_in_words(versions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        versions,
        capsys,
        *PLAYED,
        *("--change", f"{versions}/v2.yaml@10s", "--fault", "errors=50%", "--runs", "2"),
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[2] == "the change comes at 0:10: errors 50 %"
    assert lines[4].startswith("RolledBack 0:1")
    assert "no client was sent to it (" in lines[4]
    assert "Mend the model and change the spec" in lines[4]
    rows = [line.split()[:3] for line in lines[6:9]]
    assert rows[0] == ["0:10", "Preparing", "0%"]
    assert [row[1] for row in rows] == ["Preparing", "Mirroring", "RolledBack"]
    assert "the old version" in out
    assert lines[-2:][0] == "2 runs, seeds 1 to 2:"
    assert lines[-1].startswith("  RolledBack in 2: 0:1")
    assert lines[-1].endswith("failed answers 0 (0 to 0)")


def test_a_good_version_as_json_and_as_a_picture(
    versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = versions / "picture.png"
    change = ("--change", f"{versions}/v2.yaml@10s", "--picture", str(picture))
    code, out, err = run(versions, capsys, *PLAYED, *change, "-o", "json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["name"], told["changeSeconds"], told["faults"]) == ("detector", 10.0, [])
    (one,) = told["runs"]
    assert (one["phase"], one["new"]["failed"], one["noPodReady"]) == ("Promoted", 0, 0)
    assert one["endedSeconds"] < one["doneSeconds"] < 90.0
    assert one["decisions"][0]["phase"] == "Preparing"
    assert one["moments"][-1]["weight"] == 1.0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--fault", "crash"), "--fault and --runs are for a rollout; add --change v2.yaml@10m"),
        (("--runs", "2"), "--fault and --runs are for a rollout"),
        (("--change", "v2.yaml@10s", "--keda-rps", "3"), "by the spec alone; leave --hpa-... and"),
        (("--change", "v2.yaml@10s", "--fault", "rust"), "--fault 'rust' is no fault; there are"),
        (("--change", "v2.yaml@2h"), "comes at 7200 s, the load ends at 90 s; apply it earlier"),
        (("--change", "v2.yaml@soon"), "--change v2.yaml@soon: 'soon' is no length of time"),
        (("--change", "v3.yaml@10s"), "v3.yaml: No such file or directory"),
        (("--change", "other.yaml@10s"), "is ModelDeployment other, --spec is detector"),
        (("--change", "strange.yaml@10s"), "spec.model: Field required"),
    ],
)
def test_what_is_wrong_with_a_rollout_is_said_in_one_line(
    versions: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(versions)
    (versions / "other.yaml").write_text(ROLLOUT.replace("name: detector", "name: other"))
    (versions / "strange.yaml").write_text(ROLLOUT.replace("  model:", "  #model:"))
    code, out, err = run(versions, capsys, *PLAYED, *more)
    assert (code, out) == (1 if any(f in said for f in OF_FILES) else 2, "")
    assert len(err.splitlines()) == 1
    assert said in err
