"""Stand-ins of stores that nobody can install: Azure's own Azurite, and fake-gcs-server."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from e2e.cluster import gobuild, paths
from e2e.cluster.progress import Progress
from e2e.ports import free_ports

AZURITE_VERSION = "3.35.0"
ACCOUNT = "devstoreaccount1"
# Azurite's own account, the same in every installation (its README).
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
START_TIMEOUT_S = 60


class Server:
    """A process that listens on one port of loopback; stopped by its id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        (self.port,) = free_ports(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def __enter__(self) -> "Server":
        command = self.command()
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=2).close()
                return self
            except urllib.error.HTTPError:
                return self
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.__exit__(None, None, None)  # gently: some have children of their own
                    raise RuntimeError((self.folder / "server.log").read_text()) from None
                time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class FakeGcs(Server):
    """fake-gcs-server, what gcsfs itself is tested with. It knows no logins."""

    def command(self) -> list[str]:
        binary = gobuild.build("fake-gcs", Progress())
        return [
            *(str(binary), "-scheme=http", "-host=127.0.0.1", f"-port={self.port}"),
            *(
                "-backend=memory",
                f"-public-host=127.0.0.1:{self.port}",
                f"-external-url={self.url}",
            ),
        ]

    def put(self, bucket: str, prefix: str, files: dict[str, bytes]) -> None:
        self._post("/storage/v1/b", json.dumps({"name": bucket}).encode(), "application/json")
        for path, data in files.items():
            name = quote(f"{prefix}/{path}" if path else prefix, safe="")
            self._post(
                f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}",
                data,
                "application/octet-stream",
            )

    def _post(self, path: str, body: bytes, kind: str) -> None:
        request = urllib.request.Request(
            self.url + path, data=body, headers={"Content-Type": kind}, method="POST"
        )
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as exc:
            if exc.code != 409:  # the bucket is there
                raise


class Azurite(Server):
    """Azurite's blob service."""

    @property
    def endpoint(self) -> str:
        return f"{self.url}/{ACCOUNT}"

    def command(self) -> list[str]:
        folder = paths.CACHE / f"azurite-{AZURITE_VERSION}"
        program = folder / "node_modules" / ".bin" / "azurite-blob"
        if not program.exists():
            npm = shutil.which("npm")
            assert npm, "npm is not installed"
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            with Progress().step("npm install azurite"):
                subprocess.run(
                    [npm, "install", "--no-audit", "--no-fund", f"azurite@{AZURITE_VERSION}"],
                    cwd=partial,
                    check=True,
                    capture_output=True,
                )
            partial.rename(folder)
        return [
            *(str(program), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)),
            *("--location", str(self.folder / "data"), "--skipApiVersionCheck", "--silent"),
            *("--disableTelemetry",),
        ]

    def put(self, container: str, prefix: str, files: dict[str, bytes]) -> None:
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import BlobServiceClient

        credential = {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY}
        with BlobServiceClient(self.endpoint, credential=credential) as service:
            with contextlib.suppress(ResourceExistsError):
                service.create_container(container)
            for path, data in files.items():
                name = f"{prefix}/{path}" if path else prefix
                service.get_blob_client(container, name).upload_blob(data, overwrite=True)
