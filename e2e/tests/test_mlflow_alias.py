"""From a real MLflow registry to promoted: by an alias that is followed, and by one script.

`champion` moves and the cluster follows; a bad one takes itself back. The policy is that of
`docs/examples/mlflow-champion.yaml`: nobody touches the cluster but MLflow's alias, and a look at
the source that is not waited five minutes for.

A trained model of the registry is released by `docs/examples/release.sh`, with all that it starts.
"""

import json
import os
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e import preparation_venv
from e2e.cluster import paths
from e2e.cluster.installation import WEB_ADDRESS
from e2e.cluster.kube import Object, wait_for
from e2e.load import Load, Orders, answers
from e2e.native.program import triton_program
from e2e.tests import artefacts
from e2e.tests.space import (
    API,
    KIND,
    READY_SECONDS,
    SECRET,
    SETTINGS,
    Space,
    condition,
    merged,
    model_deployment,
    stable,
)
from tests.integration.fetch.mlflow_server import MlflowServer
from tests.integration.fetch.mlflow_server import environment as mlflow_programs

pytestmark = pytest.mark.slow

EXAMPLES: Final = paths.REPOSITORY / "docs" / "examples"
EXAMPLE: Final = EXAMPLES / "mlflow-champion.yaml"
NAME: Final = "ranker"
RATE_HZ: Final = 20.0
SECONDS: Final = 180.0
GREETING: Final = "hello"
SEVERAL: Final = 40
"""Requests by which a change would show."""
DIGITS: Final = "digits"
POLICY: Final[dict[str, Any]] = {
    "runtime": {"resources": {"cpu": "100m", "memory": "1Gi"}},
    "scaling": {"mode": "Fixed"},
    "replicas": 1,
    "rollout": {"bake": "1s"},
}
"""What is the team's own: what fits this node."""


class Registry(MlflowServer):
    """On this machine, where the pods of the cluster reach it."""

    @property
    def url(self) -> str:
        return f"http://{SETTINGS.network.address}:{self.port}"

    def command(self) -> list[str]:
        here = {"127.0.0.1": SETTINGS.network.address}
        return [here.get(word, word) for word in super().command()]

    def point(self, version: str) -> None:
        """Move the alias."""
        body = {"name": NAME, "alias": "champion", "version": version}
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/registered-models/alias",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=20).close()


def speaking(label: str, greeting: str) -> artefacts.Files:
    """A model that says who it is, and greets like that."""
    files = artefacts.whoami(label)
    code = files["1/model.py"].decode()
    assert code.count('os.environ.get("GREETING", "")') == 1
    code = code.replace('os.environ.get("GREETING", "")', repr(greeting))
    return {**files, "1/model.py": code.encode()}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Two good versions and one whose answers are wrong; `champion` is the first."""
    with Registry(tmp_path_factory.mktemp("mlflow")) as server:
        assert isinstance(server, Registry)
        for number, greeting in enumerate((GREETING, GREETING, "nonsense"), 1):
            files = tmp_path_factory.mktemp(f"v{number}")
            artefacts.write(files, speaking(f"v{number}", greeting))
            alias = "champion" if number == 1 else None
            assert server.register(NAME, files, alias) == str(number)
        yield server


@pytest.fixture(scope="module")
def endpoint(space: Space, registry: Registry) -> Iterator[str]:
    """The registry, under an address that the platform lets a fetch connect to."""
    name, port = "mlflow", registry.port
    service = {"clusterIP": WEB_ADDRESS, "ports": [{"port": port}]}
    meta = {"name": name, "labels": {"kubernetes.io/service-name": name}}
    for item in (
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta,
            "addressType": "IPv4",
            "endpoints": [{"addresses": [SETTINGS.network.address]}],
            "ports": [{"name": "", "port": port}],
        },
    ):
        space.apply(item)
    yield f"http://{WEB_ADDRESS}:{port}"
    space.kube.delete("v1", "Service", name, space.name)


def golden_requests(name: str) -> Object:
    """One request, and what each version must say to it."""
    request = {
        "inputs": [{"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}],
        "expected": {"outputs": [{"name": "greeting", "data": [GREETING]}]},
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"greeting.json": json.dumps(request)},
    }


def followed(endpoint: str) -> Object:
    """The example, in the size of this node and with steps of seconds."""
    example: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert example["metadata"]["name"] == NAME
    spec = example["spec"]
    spec["model"]["source"]["endpoint"] = endpoint
    del spec["model"]["source"]["secretName"], spec["traffic"], spec["rollout"]
    here = {"steps": [{"weight": "50%", "hold": "1s"}], "bake": "1s", "mirror": {"mode": "Off"}}
    spec["slo"]["latency"] = {"quantile": "0.9", "target": "2s"}
    uri = spec["model"]["source"]["uri"]
    return model_deployment(NAME, uri, merged(spec, {"rollout": here}))


def look(space: Space, number: int) -> None:
    """Look at the source at once, as `kubectl create job --from=cronjob/ranker-source` does."""
    template = space.require("batch/v1", "CronJob", f"{NAME}-source")["spec"]["jobTemplate"]
    meta = {"name": f"look-{number}"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]}
    space.apply(job)


def pinned(space: Space) -> str:
    """The lasting address behind the alias that the stable revision was fetched from."""
    pin = space.get("v1", "ConfigMap", f"{stable(space.live(NAME))['name']}-pin") or {}
    return str((pin.get("data") or {}).get("address"))


def test_the_champion_moves_and_the_cluster_follows(
    registry: Registry, space: Space, endpoint: str, tmp_path: Path
) -> None:
    manifest = followed(endpoint)
    space.apply(golden_requests(manifest["spec"]["goldenRequests"]["configMapName"]))
    space.apply(manifest)
    first = stable(space.ready(NAME))
    assert pinned(space) == f"mlflow://{NAME}/1"
    look(space, 1)
    space.until(
        NAME, lambda f: condition(f, "SourceFollowed").get("status") == "True", "a look, unmoved"
    )
    generation = space.live(NAME)["metadata"]["generation"]
    with Load(Orders(space.address(NAME), None, NAME, "x", rate_hz=RATE_HZ)) as load:
        load.await_more(SEVERAL)
        registry.point("2")
        look(space, 2)
        space.until(
            NAME,
            lambda f: stable(f)["name"] != first["name"],
            "the new champion is stable",
            seconds=SECONDS,
        )
        second = stable(space.ready(NAME))
        assert pinned(space) == f"mlflow://{NAME}/2"
        load.await_more(SEVERAL)

        registry.point("3")
        look(space, 3)
        found = space.until(
            NAME,
            lambda f: (f["status"].get("rollout") or {}).get("phase") == "RolledBack",
            "the bad champion is taken back",
            seconds=SECONDS,
        )
        load.await_more(SEVERAL)
        # The alias goes on naming it; it is known by its bytes and not tried again.
        look(space, 4)
        wait_for(
            lambda: (space.require("batch/v1", "Job", "look-4").get("status") or {}).get(
                "succeeded"
            ),
            "one more look",
            timeout_seconds=READY_SECONDS,
        )
        load.await_more(SEVERAL)
    load.assert_no_failure(at_least=4 * SEVERAL)
    # Not one answer of the bad version, though it was loaded beside the good one.
    assert set(answers(load.requests, "label")) == {"v1", "v2"}
    assert set(answers(load.requests, "greeting")) == {GREETING}
    failed = found["status"]["revisions"]["failed"][0]
    assert failed["reason"] == "GoldenRequestsFailed", failed
    now = space.live(NAME)
    assert stable(now)["name"] == second["name"]
    assert now["status"]["rollout"]["phase"] == "RolledBack"
    assert now["metadata"]["generation"] == generation, "nobody but the registry asked"
    space.kube.delete(API, KIND, NAME, space.name)


def trained(folder: Path) -> Path:
    """A scikit-learn model with its held-out samples, as its author would log them."""
    roots = [str(paths.REPOSITORY / "operator"), str(paths.REPOSITORY)]
    subprocess.run(
        [str(preparation_venv.python()), "-m", "e2e.models.digits", str(folder), "first"],
        cwd=paths.REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        check=True,
    )
    return folder


def programs(folder: Path) -> Path:
    """What is on the path of the machine that releases: kubectl, tidegate, mlflow, Triton."""
    scripts, operator = Path(sysconfig.get_path("scripts")), paths.REPOSITORY / "operator"
    (folder / "kubectl").symlink_to(scripts / "kubectl")
    (folder / "mlflow").symlink_to(mlflow_programs() / "mlflow")
    triton_program(folder)
    for name, python in (
        ("tidegate", str(preparation_venv.python())),
        ("kubectl-tidegate", sys.executable),
    ):
        run = f'#!/bin/sh\nPYTHONPATH={operator} exec {python} -m tidegate.cli "$@"\n'
        (folder / name).write_text(run)
        (folder / name).chmod(0o755)
    return folder


def kubeconfig(space: Space, folder: Path) -> Path:
    """The administrator's, in the namespace of these tests."""
    config = yaml.safe_load(SETTINGS.kubeconfig.read_text(encoding="utf-8"))
    for context in config["contexts"]:
        context["context"]["namespace"] = space.name
    found = folder / "kubeconfig"
    found.write_text(yaml.safe_dump(config), encoding="utf-8")
    return found


def test_one_script_from_the_registry_to_promoted(
    registry: Registry, space: Space, tmp_path: Path
) -> None:
    files, tools, here = (tmp_path / name for name in ("files", "bin", "here"))
    for folder in (files, tools, here):
        folder.mkdir()
    version = registry.register(DIGITS, trained(files), "candidate")
    policy = {"apiVersion": API, "kind": KIND, "metadata": {"name": DIGITS}, "spec": POLICY}
    (here / "policy.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")
    secret = space.s3_secret(SECRET)["stringData"]
    given = {
        "MODEL": f"models:/{DIGITS}@candidate",
        "FILE": "first.joblib",
        "DATA": "prepared.source/digits.npz",
        "SLO": "p95=500ms",
        "NAME": DIGITS,
        "STORE": f"s3://{artefacts.BUCKET}/released",
        "SECRET": SECRET,
        "POLICY": "policy.yaml",
        "OPTIONS": f"--quick --max-drop 5% --endpoint {SETTINGS.s3_endpoint}",
        "LONGEST": "3m",
    }
    done = subprocess.run(
        ["sh", str(EXAMPLES / "release.sh")],
        cwd=here,
        env={
            **registry.environment(),
            **secret,
            **given,
            "PATH": f"{programs(tools)}:{os.environ['PATH']}",
            "KUBECONFIG": str(kubeconfig(space, tmp_path)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{space.told(DIGITS)}"
    report = json.loads((here / "prepared" / "report.json").read_text(encoding="utf-8"))
    found = space.live(DIGITS)
    serves = stable(found)
    assert serves["source"] == report["published"]["uri"]
    assert serves["digest"] == f"sha256:{report['published']['sha256']}"
    # What the team says and what was found out stand side by side.
    assert found["spec"]["replicas"] == 1
    assert found["spec"]["goldenRequests"]["configMapName"]
    assert version == "1"
    space.kube.delete(API, KIND, DIGITS, space.name)
