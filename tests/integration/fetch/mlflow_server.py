"""A real `mlflow server`, from an environment of its own that is kept in the cache."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from e2e.cluster import paths
from e2e.cluster.progress import Progress
from tests.integration.fetch.emulators import Server

MLFLOW_VERSION = "3.17.2"


def environment() -> Path:
    """The folder with mlflow's programs, made at first use."""
    folder = paths.CACHE / f"mlflow-{MLFLOW_VERSION}"
    ready = folder / "ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        with Progress().step("install mlflow"):
            python = str(folder / "bin" / "python")
            wanted = f"mlflow=={MLFLOW_VERSION}"
            if uv := shutil.which("uv"):
                make = [uv, "venv", "-q", "--python", sys.executable, str(folder)]
                install = [uv, "pip", "install", "-q", "--python", python, wanted]
            else:
                make = [sys.executable, "-m", "venv", str(folder)]
                install = [python, "-m", "pip", "install", "-q", wanted]
            subprocess.run(make, check=True)
            subprocess.run(install, check=True)
        ready.touch()
    return folder / "bin"


class MlflowServer(Server):
    """The tracking server and registry; it hands out the artifacts itself."""

    def __init__(self, folder: Path, artifacts: str | None = None, **env: str) -> None:
        """``artifacts``: an artifact root other than the server's own (s3://...)."""
        super().__init__(folder)
        self._artifacts = artifacts
        self._env = env

    def command(self) -> list[str]:
        where = (
            ["--no-serve-artifacts", "--default-artifact-root", self._artifacts]
            if self._artifacts
            else ["--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts")]
        )
        return [
            # Its job runners are seven more processes, for what no test asks of it.
            *("env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true"),
            *(str(environment() / "mlflow"), "server", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", *where),
        ]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            **self._env,
        }

    def register(self, name: str, files: Path, alias: str | None = None) -> str:
        """Log a folder as a model's files with mlflow's own client; the new version."""
        code = (
            "import sys, json, mlflow; from mlflow import MlflowClient\n"
            "name, folder, alias = sys.argv[1:]\n"
            "client = MlflowClient()\n"
            "try: client.create_registered_model(name)\n"
            "except Exception: pass\n"
            "with mlflow.start_run() as run:\n"
            "    mlflow.log_artifacts(folder, 'model')\n"
            "    source = mlflow.get_artifact_uri('model')\n"
            "v = client.create_model_version(name, source, run.info.run_id)\n"
            "if alias: client.set_registered_model_alias(name, alias, v.version)\n"
            "print(json.dumps({'version': v.version, 'source': source}))\n"
        )
        done = subprocess.run(
            [environment() / "python", "-c", code, name, str(files), alias or ""],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return str(answer["version"])

    def ready(self) -> bool:
        with urllib.request.urlopen(self.url + "/health", timeout=5) as answer:
            return bool(answer.status == 200)
