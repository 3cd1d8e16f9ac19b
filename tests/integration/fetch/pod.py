"""Runs the fetch container's program as the kubelet would: mounts as folders, a real process."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tidegate.resources.model_config import ModelConfig

LOOPBACK = ("127.0.0.0/8",)
LONGEST_S = 300.0
"""Nothing here takes a tenth of it; it ends a test that hangs."""


@dataclass
class Outcome:
    """What a run left behind."""

    code: int
    message: dict[str, Any]
    log: str

    def ok(self) -> dict[str, Any]:
        assert self.code == 0, self.message
        return self.message

    def failed(self, reason: str) -> str:
        assert self.code == 1
        assert self.message["reason"] == reason, self.message
        return str(self.message["message"])


@dataclass
class Pod:
    """One pod's folders."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("models", "etc", "tmp", "cwd"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def models(self) -> Path:
        return self.root / "models"

    def mount(self, kind: str, files: dict[str, str]) -> None:
        folder = self.root / kind
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)

    def command(self, uri: str, **request: Any) -> list[str]:
        policy: dict[str, Any] = {"allowPrivateAddresses": LOOPBACK, **request.pop("policy", {})}
        document = {
            "uri": uri,
            "sha256": None,
            "modelName": "m",
            "target": str(self.models),
            "policy": policy,
            **request,
        }
        etc = self.root / "etc"
        (etc / "fetch.json").write_text(json.dumps(document))
        for name in ("model.pbtxt", "override.pbtxt"):
            (etc / name).touch()  # a test may have written it
        (self.root / "termination-log").touch()
        return [
            *(sys.executable, "-W", "error", "-m", "tidegate.fetch", str(etc / "fetch.json")),
            *("--pin", str(self.root / "pin" / "digest")),
            *("--credentials", str(self.root / "credentials")),
            *("--ca", str(self.root / "ca" / "ca.crt")),
            *("--golden", str(self.root / "golden")),
            *("--termination-log", str(self.root / "termination-log")),
        ]

    def environment(self) -> dict[str, str]:
        operator = Path(__file__).parents[3] / "operator"
        return {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(operator),
            "HOME": "/nonexistent",
            "TMPDIR": str(self.root / "tmp"),
            **self.env,
        }

    def start(self, uri: str, *options: str, **request: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.command(uri, **request), *options],
            env=self.environment(),
            cwd=self.root / "cwd",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def outcome(self, process: "subprocess.Popen[str]") -> Outcome:
        try:
            log, _ = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            log, _ = process.communicate()
            raise AssertionError(f"no end after {LONGEST_S:g} s: {log[-4000:]}") from None
        text = (self.root / "termination-log").read_text()
        assert len(text.encode()) <= 4096
        return Outcome(process.returncode, json.loads(text), log)

    def fetch(self, uri: str, **request: Any) -> Outcome:
        return self.outcome(self.start(uri, **request))

    def look(self, uri: str, **request: Any) -> Outcome:
        """As a pod of the CronJob, which has no folder for models."""
        self.command(uri, **request)
        asked = (self.root / "etc" / "fetch.json").read_text()
        return self.outcome(self.start(uri, "--look", asked, **request))

    def files(self) -> list[str]:
        return sorted(
            p.relative_to(self.models).as_posix() for p in self.models.rglob("*") if p.is_file()
        )

    def config(self, model: str = "m") -> Any:
        text = (self.models / model / "config.pbtxt").read_text()
        return text_format.Parse(text, ModelConfig())
