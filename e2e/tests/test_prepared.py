"""`tidegate prepare` and the cluster: a trained model, as converted and prepared, and a wrong one.

What is prepared is published to the cluster's S3, and the manifest that was written is applied,
with room for two pods on a small node and a rollout of seconds.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster import images, node_images, paths
from e2e.cluster.kube import Object, wait_for
from e2e.cluster.progress import Progress
from e2e.prepared.asking import answers_wrong, asked, outcome
from e2e.prepared.versions import (
    Given,
    Version,
    by_the_preparations_python,
    fitting,
    instead,
    make,
    untuned,
)
from e2e.tests import artefacts
from e2e.tests.space import SECRET, SETTINGS, Space, stable
from e2e.tests.volumes import claim, volume

NAME: Final = "digits"
FOLDER: Final = paths.CACHE / "prepared" / NAME
"""Stays: what was measured there is not measured again, with the same code, model and data."""
EXAMPLE: Final = paths.REPOSITORY / "docs" / "examples" / "prepare-job.yaml"
JOB: Final = "prepare-digits"
JOB_SECONDS: Final = 240.0
GIVEN: Final = Given(
    name=NAME,
    model=FOLDER / "first.joblib",
    data=FOLDER / "digits.npz",
    max_drop=0.05,
    optimise=("int8-dynamic",),
)


@pytest.fixture(scope="module")
def versions(space: Space) -> tuple[Version, Version]:
    """The converted model, live, and the prepared one, not applied."""
    by_the_preparations_python("e2e.models.digits", str(FOLDER), "first")
    first, second = make(GIVEN, FOLDER)
    first.apply(space)
    space.ready(NAME)
    return first, second


def promoted(space: Space, first: Version, second: Version) -> list[str]:
    """Bring the second through a canary under load; its phases."""
    phases: list[str] = []
    with asked(space, first, second) as asking:
        second.apply(space)
        outcome(space, NAME, phases)
    assert asking.failed == [], space.told(NAME)
    assert asking.wrong == []
    return phases


def test_a_prepared_model_goes_through_a_canary(
    space: Space, versions: tuple[Version, Version]
) -> None:
    first, second = versions
    assert stable(space.live(NAME))["source"] == first.uri
    phases = promoted(space, first, second)
    assert phases[-1] == "Promoted", (phases, space.told(NAME))
    assert "Canary" in phases
    assert stable(space.live(NAME))["source"] == second.uri
    assert answers_wrong(space, second) == []


@pytest.mark.slow
def test_one_that_answers_wrongly_is_refused_by_the_golden_requests(
    space: Space, versions: tuple[Version, Version]
) -> None:
    """Those of the version that serves: a wrong version would have recorded its own answers."""
    first, second = versions
    if stable(space.live(NAME))["source"] != second.uri:
        promoted(space, first, second)
    by_the_preparations_python("e2e.models.digits", str(FOLDER), "wrong")
    files, _ = untuned(replace(GIVEN, model=FOLDER / "wrong.joblib"), FOLDER / "wrong")
    phases: list[str] = []
    with asked(space, second) as asking:
        instead(second, files).apply(space)
        found = outcome(space, NAME, phases)
    assert (asking.failed, asking.wrong) == ([], []), space.told(NAME)
    assert phases[-1] == "RolledBack", phases
    assert "Canary" not in phases, "no request may reach it"
    failed = found["status"]["revisions"]["failed"][0]
    assert failed["reason"] == "GoldenRequestsFailed", failed
    assert "golden requests failed" in failed["message"]
    assert stable(found)["source"] == second.uri


def example(storage: str) -> list[Object]:
    """The Job of the examples, for this cluster's S3, this volume and this small node."""
    found: list[Object] = [
        claim("prepare", storage) if item["kind"] == "PersistentVolumeClaim" else item
        for item in yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8"))
    ]
    role = next(item for item in found if item["kind"] == "Role")
    role["rules"][-1]["resourceNames"] = [SECRET]
    pod = found[-1]["spec"]["template"]["spec"]
    fetch, work = pod["initContainers"]
    fetch["env"] = [{"name": "SOURCE", "value": f"s3://{artefacts.BUCKET}/trained/digits"}]
    work["args"] = [
        a
        for a in work["args"]
        if not a.startswith(("--slo", "--publish", "--secret", "--optimise", "--name"))
    ]
    work["args"] += ["--slo=p95=500ms", "--max-drop=5%", "--quick", f"--name={NAME}-job"]
    work["args"] += [f"--publish=s3://{artefacts.BUCKET}/prepared/job", f"--secret={SECRET}"]
    work["args"] += [f"--endpoint={SETTINGS.s3_endpoint}"]
    work["resources"]["requests"] |= {"cpu": "100m", "memory": "1Gi"}
    for container in (fetch, work, *pod["containers"]):
        for amounts in container["resources"].values():
            # The embedded node does not count what is written on it.
            amounts.pop("ephemeral-storage")
    return found


@pytest.mark.slow
def test_a_job_prepares_publishes_and_applies(space: Space, tmp_path: Path) -> None:
    """Its pod is deleted once while it measures; the next one goes on."""
    by_the_preparations_python("e2e.models.digits", str(tmp_path), "first")
    (tmp_path / "first.joblib").rename(tmp_path / "digits.joblib")
    inputs = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    artefacts.put("trained/digits", inputs)
    node_images.bring_in(SETTINGS, [images.PREPARE], Progress())
    secret = space.s3_secret("models-write")
    secret["stringData"]["AWS_ENDPOINT_URL"] = SETTINGS.s3_endpoint
    space.apply(secret)
    with volume(space.kube, "prepare") as disk:
        try:
            for item in example("prepare"):
                space.apply(item)
            state = disk / "work" / "state.json"
            wait_for(
                lambda: state.exists() and "probe:" in state.read_text(),
                "a probe that is kept",
                timeout_seconds=JOB_SECONDS,
                state=lambda: told(space),
            )
            kept = state.read_text()
            delete_pods(space)
            wait_for(
                lambda: job_state(space) == "Complete",
                "the Job complete",
                timeout_seconds=JOB_SECONDS,
                state=lambda: told(space),
            )
            known = yaml.safe_load(kept)["results"]
            after = yaml.safe_load(state.read_text())["results"]
            assert {key: after.get(key) for key in known} == known, "it did not go on"
            assert (disk / "out" / "report.html").exists()
        finally:
            space.kube.delete("batch/v1", "Job", JOB, space.name)
            delete_pods(space)
            wait_for(lambda: not pods(space), "no pod of the Job", timeout_seconds=60.0)
            space.kube.delete("v1", "PersistentVolumeClaim", "prepare", space.name)
    found = space.live(f"{NAME}-job")
    assert found["spec"]["model"]["source"]["uri"].startswith(f"s3://{artefacts.BUCKET}/prepared/")
    space.patch(f"{NAME}-job", small())
    space.ready(f"{NAME}-job")


def small() -> dict[str, Any]:
    """What fits this node, of a ModelDeployment that was applied as it was written."""
    return {part: fitting(NAME)[part] for part in ("runtime", "scaling")}


def pods(space: Space) -> list[Object]:
    return space.kube.list("v1", "Pod", space.name, f"job-name={JOB}")


def delete_pods(space: Space) -> None:
    for pod in pods(space):
        space.kube.delete("v1", "Pod", pod["metadata"]["name"], space.name)


def job_state(space: Space) -> str:
    found = space.require("batch/v1", "Job", JOB)
    over = [c["type"] for c in found["status"].get("conditions") or () if c["status"] == "True"]
    return next((t for t in over if t in ("Complete", "Failed")), "")


def told(space: Space) -> str:
    """The ends of the logs of its pods."""
    lines = []
    for pod in pods(space):
        path = space.kube.path("v1", "Pod", space.name, pod["metadata"]["name"])
        lines.append(f"{pod['metadata']['name']} {pod['status'].get('phase')}")
        for name in ("fetch", "prepare", "apply"):
            try:
                log = space.kube.text(f"{path}/log", {"container": name, "tailLines": "15"})
            except Exception as error:  # a container that has not begun
                log = repr(error)[:300]
            lines.append(f"-- {name}\n{log}")
    return "\n".join(lines)
