"""`tidegate prepare` and the cluster: a trained model, its next version, and one that is wrong.

What is prepared is published to the cluster's S3, and the manifest that was written is applied,
with room for two pods on a small node and a rollout of seconds.
"""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e import preparation_venv
from e2e.cluster import images, node_images, paths
from e2e.cluster.kube import Object, wait_for
from e2e.cluster.progress import Progress
from e2e.demo.upload import upload
from e2e.native.program import triton_program
from e2e.rollouts.stage import gateway_address
from e2e.tests import artefacts
from e2e.tests.space import SECRET, SETTINGS, Space, is_current, merged, stable
from e2e.tests.volumes import claim, volume
from tidegate import golden
from tidegate.cli.inference import HEADER_LENGTH, Address
from tidegate.preparation.tuning.driving import Body

NAME: Final = "digits"
HOST: Final = "digits.prepared.example"
RATE_HZ: Final = 20.0
EXAMPLE: Final = paths.REPOSITORY / "docs" / "examples" / "prepare-job.yaml"
JOB: Final = "prepare-digits"
JOB_SECONDS: Final = 240.0
HERE: Final[dict[str, Any]] = {
    "runtime": {"resources": {"cpu": "100m", "memory": "1Gi"}},
    "scaling": {"mode": "Fixed"},
    "replicas": 1,
    "rollout": {
        "steps": [{"weight": "50%", "hold": "1s"}],
        "mirror": {"mode": "Off"},
        "bake": "3s",
        "surgeWait": "5s",
    },
    "traffic": {
        "gateway": {
            "parentRefs": [{"name": "public", "namespace": SETTINGS.infra_namespace}],
            "hostnames": [HOST],
        }
    },
}


@dataclass(frozen=True)
class Prepared:
    """What `tidegate prepare` left in a folder."""

    folder: Path

    def document(self, name: str) -> Object:
        """One of its manifests."""
        text = (self.folder / "manifests" / f"{name}.yaml").read_text(encoding="utf-8")
        found: Object = yaml.safe_load(text)
        return found

    @property
    def uri(self) -> str:
        """Where the manifest says that the files are."""
        return str(self.document("modeldeployment")["spec"]["model"]["source"]["uri"])

    def put(self) -> None:
        """Put the files there."""
        upload(
            self.folder / "model",
            self.uri.removeprefix("s3://"),
            endpoint=SETTINGS.s3_endpoint,
            access_key=SETTINGS.s3_access_key,
            secret_key=SETTINGS.s3_secret_key,
        )

    def apply(self, space: Space, *, with_golden: bool = True) -> None:
        """Apply the manifests as `docs/examples/release.sh` does, with what fits this node."""
        if with_golden:
            space.apply(self.document("golden"))
        document = self.document("modeldeployment")
        space.apply({**document, "spec": merged(document["spec"], HERE)})


def by_the_preparations_python(*arguments: str) -> None:
    roots = [str(paths.REPOSITORY / "operator"), str(paths.REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    command = [str(preparation_venv.python()), "-m", *arguments]
    subprocess.run(command, cwd=paths.REPOSITORY, env=environment, check=True)


def prepare(folder: Path, version: str, optimise: str = "") -> Prepared:
    """Train a version and prepare it; half a minute."""
    by_the_preparations_python("e2e.models.digits", str(folder), version)
    said = ["--name", NAME, "--quick", "--slo", "p95=500ms", "--max-drop", "5%"]
    said += ["--model", str(folder / f"{version}.joblib"), "--data", str(folder / "digits.npz")]
    said += ["--optimise", optimise, "--triton", str(triton_program(folder))]
    said += ["--source", f"s3://{artefacts.BUCKET}/prepared/{version}-{time.time_ns()}"]
    said += ["--endpoint", SETTINGS.s3_endpoint, "--secret", SECRET]
    by_the_preparations_python("tidegate.cli", "prepare", *said, "--out", str(folder / version))
    prepared = Prepared(folder / version)
    prepared.put()
    return prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="module")
def first(space: Space, folder: Path) -> Prepared:
    """The first version, live."""
    found = prepare(folder, "first")
    found.apply(space)
    space.ready(NAME)
    return found


@pytest.fixture(scope="module")
def second(space: Space, first: Prepared, folder: Path) -> Prepared:
    """The second, not applied."""
    return prepare(folder, "second", "int8-dynamic")


class Asking(threading.Thread):
    """Sends the golden requests through the gateway, again and again, and keeps what fails."""

    def __init__(self, address: str, prepared: Prepared) -> None:
        super().__init__(daemon=True)
        self._door = Address(address, HOST)
        self._bodies = [Body.of(one) for one in golden.parse(prepared.document("golden"))]
        self._over = threading.Event()
        self.answered = 0
        self.failed: list[str] = []

    def run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            body = self._bodies[self.answered % len(self._bodies)]
            headers = {"Content-Type": "application/octet-stream"}
            headers[HEADER_LENGTH] = str(body.header_length)
            try:
                status, _, raw = self._door("POST", f"/v2/models/{NAME}/infer", body.raw, headers)
            except OSError as error:
                status, raw = 0, str(error).encode()
            if status != 200:
                self.failed.append(f"{status} {raw[:200]!r}")
            self.answered += 1
            due += 1.0 / RATE_HZ

    def stop(self) -> None:
        self._over.set()
        self.join()
        self._door.close()


@contextmanager
def asked(space: Space, prepared: Prepared) -> Iterator[Asking]:
    """Requests come in while the block runs; none may fail."""
    asking = Asking(gateway_address(space), prepared)
    asking.start()

    def answers() -> bool:
        """The route may have come a moment ago."""
        good = asking.answered > 20 and not asking.failed
        asking.failed.clear()
        return good

    try:
        wait_for(
            answers,
            "answers through the gateway",
            timeout_seconds=60.0,
            state=lambda: f"{asking.failed[-1:]}\n{space.told(NAME)}",
        )
        yield asking
    finally:
        asking.stop()
    assert asking.failed == [], space.told(NAME)


def outcome(space: Space, phases: list[str]) -> Object:
    """Wait until the newest spec is promoted or rolled back; keeps the phases on the way."""

    def over(found: Object) -> bool:
        phase = (found["status"].get("rollout") or {}).get("phase", "")
        if is_current(found) and phase and phase not in phases[-1:]:
            phases.append(phase)
        return is_current(found) and phase in ("Promoted", "RolledBack")

    return space.until(NAME, over, "an outcome")


def test_a_prepared_model_goes_live(space: Space, first: Prepared) -> None:
    assert stable(space.live(NAME))["source"] == first.uri
    with asked(space, first):
        pass


@pytest.mark.slow
def test_its_next_version_goes_through_a_canary(
    space: Space, first: Prepared, second: Prepared
) -> None:
    assert stable(space.live(NAME))["source"] == first.uri
    phases: list[str] = []
    with asked(space, first):
        second.apply(space)
        found = outcome(space, phases)
    assert phases[-1] == "Promoted", (phases, space.told(NAME))
    assert {"Verifying", "Canary"} & set(phases), phases
    assert stable(found)["source"] == second.uri


@pytest.mark.slow
def test_one_that_answers_wrongly_is_refused_by_the_golden_requests(
    space: Space, second: Prepared, folder: Path
) -> None:
    """Those of the version that serves: a wrong version would have recorded its own answers."""
    wrong = prepare(folder, "wrong")
    before = stable(space.live(NAME))["source"]
    assert before == second.uri
    phases: list[str] = []
    with asked(space, second):
        wrong.apply(space, with_golden=False)
        found = outcome(space, phases)
    assert phases[-1] == "RolledBack", phases
    assert "Canary" not in phases, "no request may reach it"
    failed = found["status"]["revisions"]["failed"][0]
    assert failed["reason"] == "GoldenRequestsFailed", failed
    assert "golden requests failed" in failed["message"]
    assert stable(found)["source"] == before


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
def test_a_job_prepares_publishes_and_applies(space: Space, folder: Path) -> None:
    """Its pod is deleted once while it measures; the next one goes on."""
    by_the_preparations_python("e2e.models.digits", str(folder / "job"), "first")
    (folder / "job" / "first.joblib").rename(folder / "job" / "digits.joblib")
    inputs = {p.name: p.read_bytes() for p in (folder / "job").iterdir()}
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
    space.patch(f"{NAME}-job", {"runtime": HERE["runtime"], "scaling": HERE["scaling"]})
    space.ready(f"{NAME}-job")


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
