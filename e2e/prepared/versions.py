"""Versions of a trained model in the cluster's S3, with their manifests and known answers.

The first is the converted model, untuned; the second is what `tidegate prepare` made of it. What
converts and prepares is run by an interpreter of `e2e.preparation_venv`.
"""

import copy
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from e2e import preparation_venv
from e2e.cluster import paths
from e2e.cluster.kube import Object
from e2e.demo.upload import upload
from e2e.native.program import triton_program
from e2e.tests import artefacts
from e2e.tests.space import SECRET, SETTINGS, Space, merged
from tidegate import golden
from tidegate.cli.starting import look

SLO: Final = "p95=500ms"
"""Within reach of any of them, on two cores that do everything else, too."""


@dataclass(frozen=True)
class Given:
    """A trained model, and how it is to be prepared.

    Attributes:
        name: of the model and its ModelDeployment.
        model: the framework's file.
        data: held-out samples with labels.
        max_drop: of accuracy, that an optimisation may cost.
        optimise: what is tried.
        calibration: other samples; None: none are needed.
        frameworks: prepared by the interpreter with the large frameworks.
    """

    name: str
    model: Path
    data: Path
    max_drop: float
    optimise: tuple[str, ...]
    calibration: Path | None = None
    frameworks: bool = False


@dataclass(frozen=True)
class Version:
    """One version; its files are where its manifest says.

    Attributes:
        manifest: the ModelDeployment.
        known: golden requests with what it answers, as a ConfigMap.
        files: folder of the same files here.
    """

    manifest: Object
    known: Object
    files: Path

    @property
    def name(self) -> str:
        """Of the model and its ModelDeployment."""
        return str(self.manifest["metadata"]["name"])

    @property
    def uri(self) -> str:
        """Where its files are."""
        return str(self.manifest["spec"]["model"]["source"]["uri"])

    @property
    def requests(self) -> tuple[golden.GoldenRequest, ...]:
        """The golden requests."""
        return golden.parse(self.known)

    def apply(self, space: Space) -> None:
        """Apply its manifests as `docs/examples/release.sh` does, with what fits this node."""
        space.apply(self.known)
        spec = merged(self.manifest["spec"], fitting(self.name))
        space.apply({**self.manifest, "spec": spec})


def host(name: str) -> str:
    """The model's host name at the gateway."""
    return f"{name}.prepared.example"


def fitting(name: str) -> dict[str, Any]:
    """What a spec says besides: two pods have room on a small node, a rollout takes seconds."""
    return {
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
                "hostnames": [host(name)],
            }
        },
    }


def by_the_preparations_python(
    *arguments: str, frameworks: bool = False, log: Path | None = None
) -> None:
    """Run a module with the preparation's packages, and the credentials of the cluster's S3.

    Args:
        arguments: the module and its arguments.
        frameworks: by the interpreter with the large ones.
        log: file that its words are put at the end of; None: they are shown.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    roots = [str(paths.REPOSITORY / "operator"), str(paths.REPOSITORY)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(roots),
        "AWS_ACCESS_KEY_ID": SETTINGS.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": SETTINGS.s3_secret_key,
    }
    command = [str(preparation_venv.python(frameworks=frameworks)), "-m", *arguments]
    if log is None:
        subprocess.run(command, cwd=paths.REPOSITORY, env=environment, check=True)
        return
    with log.open("ab") as out:
        subprocess.run(
            command, cwd=paths.REPOSITORY, env=environment, check=True, stdout=out, stderr=out
        )


def make(given: Given, folder: Path, *, log: Path | None = None) -> tuple[Version, Version]:
    """Both versions, published. What was measured before, in this folder, is not measured again.

    Raises:
        subprocess.CalledProcessError: it cannot be converted or prepared; it said why.
        OSError: S3 does not take it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, known = untuned(given, folder / "untuned", log=log)
    source = put(given.name, files)
    out = folder / "prepared"
    arguments = ["--model", str(given.model), "--data", str(given.data), "--name", given.name]
    arguments += ["--quick", "--slo", SLO, "--max-drop", str(given.max_drop)]
    arguments += ["--optimise", ",".join(given.optimise), "--triton", str(triton_program(folder))]
    arguments += ["--calibration", str(given.calibration)] if given.calibration else []
    arguments += ["--publish", f"s3://{_prefix(given.name)}", "--secret", SECRET]
    arguments += ["--endpoint", SETTINGS.s3_endpoint]
    arguments += ["--out", str(out), "--work", str(folder / "work")]
    by_the_preparations_python(
        "tidegate.cli", "prepare", *arguments, frameworks=given.frameworks, log=log
    )
    manifests = out / "manifests"
    second = Version(
        _document(manifests / "modeldeployment.yaml"),
        _document(manifests / "golden.yaml"),
        out / "model",
    )
    manifest = with_source(second.manifest, source)
    manifest["spec"]["goldenRequests"]["configMapName"] = known["metadata"]["name"]
    return Version(manifest, known, files), second


def untuned(given: Given, folder: Path, *, log: Path | None = None) -> tuple[Path, Object]:
    """The converted model as a Triton repository, and what it answers; see that module."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--model", str(given.model), "--data", str(given.data), "--name", given.name]
    arguments += ["--out", str(folder), "--triton", str(triton_program(folder))]
    by_the_preparations_python(
        "e2e.prepared.untuned", *arguments, frameworks=given.frameworks, log=log
    )
    return folder / "model", _document(folder / "known.yaml")


def put(name: str, files: Path) -> dict[str, str]:
    """Put a repository into S3; what a source says of it."""
    sha256 = look(files, name).sha256
    place = f"{_prefix(name)}/{sha256[:16]}"
    upload(
        files,
        place,
        endpoint=SETTINGS.s3_endpoint,
        access_key=SETTINGS.s3_access_key,
        secret_key=SETTINGS.s3_secret_key,
    )
    return {"uri": f"s3://{place}", "sha256": sha256}


def with_source(manifest: Object, source: dict[str, str]) -> dict[str, Any]:
    """The same manifest for other files."""
    made = copy.deepcopy(dict(manifest))
    made["spec"]["model"]["source"] |= source
    return made


def instead(version: Version, files: Path) -> Version:
    """Other files under the same manifest, which is held to the same known answers."""
    source = put(version.name, files)
    return Version(with_source(version.manifest, source), version.known, files)


def _prefix(name: str) -> str:
    return f"{artefacts.BUCKET}/prepared/{name}"


def _document(path: Path) -> Object:
    found: Object = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
