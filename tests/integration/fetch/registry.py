"""A real container registry (distribution v3), and just enough of a client to push to it."""

import base64
import datetime
import hashlib
import io
import json
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from e2e.cluster import gobuild
from e2e.cluster.progress import Progress
from e2e.ports import free_ports

USER, PASSWORD = "pusher", "registry-secret"
# bcrypt of PASSWORD, cost 5
HTPASSWD = "pusher:$2b$05$H3QSthFP4dq3dAPA/9yBiuW0/rk5SB2v9PfSUdaQL5LCYHkZUHYrS\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
START_TIMEOUT_S = 30


class Registry:
    """A registry on a free port; ``auth``: none, ``htpasswd`` or ``token``."""

    def __init__(self, folder: Path, auth: str | None = None, realm: str = "") -> None:
        self._folder = folder
        self._auth = auth
        self._realm = realm
        self._process: subprocess.Popen[bytes] | None = None
        self.headers: dict[str, str] = {}
        self.host = ""
        if auth == "htpasswd":
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            self.headers = {"Authorization": f"Basic {pair}"}
        self.issuer = Issuer() if auth == "token" else None

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def __enter__(self) -> "Registry":
        binary = gobuild.build("registry", Progress())
        (port,) = free_ports(1)
        self.host = f"127.0.0.1:{port}"
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "data")}},
            "http": {"addr": self.host},
        }
        if self._auth == "htpasswd":
            (self._folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self._folder / "htpasswd")}}
        if self.issuer is not None:
            (self._folder / "issuer.pem").write_bytes(self.issuer.certificate_pem())
            config["auth"] = {
                "token": {
                    "realm": self._realm,
                    "service": "test",
                    "issuer": "test-issuer",
                    "rootcertbundle": str(self._folder / "issuer.pem"),
                }
            }
        path = self._folder / "config.json"  # YAML is a superset of JSON
        path.write_text(json.dumps(config))
        with (self._folder / "registry.log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "serve", str(path)], stdout=log, stderr=log, env={"PATH": "/usr/bin:/bin"}
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/v2/", timeout=2).close()
                return self
            except urllib.error.HTTPError:
                return self
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self._folder / "registry.log").read_text()) from None
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)

    def _request(self, method: str, url: str, body: bytes | None = None, **headers: str) -> Any:
        request = urllib.request.Request(
            url, data=body, method=method, headers={**self.headers, **headers}
        )
        return urllib.request.urlopen(request, timeout=20)

    def blob(self, name: str, data: bytes) -> dict[str, Any]:
        """Push a blob; its descriptor without media type."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with self._request("POST", f"{self.url}/v2/{name}/blobs/uploads/", b"") as answer:
            location = answer.headers["Location"]
        joint = "&" if "?" in location else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._request("PUT", f"{location}{joint}digest={digest}", data, **headers).close()
        return {"digest": digest, "size": len(data)}

    def manifest(self, name: str, tag: str, document: dict[str, Any]) -> str:
        """Push a manifest; its digest."""
        body = json.dumps(document).encode()
        headers = {"Content-Type": document["mediaType"]}
        self._request("PUT", f"{self.url}/v2/{name}/manifests/{tag}", body, **headers).close()
        return "sha256:" + hashlib.sha256(body).hexdigest()

    def image(self, name: str, tag: str, layers: Iterable[bytes], kind: str = LAYER) -> str:
        """Push a container image made of tar layers."""
        return self.manifest(
            name,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": IMAGE_CONFIG, **self.blob(name, b'{"os":"linux"}')},
                "layers": [{"mediaType": kind, **self.blob(name, data)} for data in layers],
            },
        )

    def artifact(self, name: str, tag: str, files: dict[str, bytes], **annotations: str) -> str:
        """Push files as ORAS does: one layer a file, named by its title."""
        layers = [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                **self.blob(name, data),
                "annotations": {"org.opencontainers.image.title": path, **annotations},
            }
            for path, data in files.items()
        ]
        if not annotations:
            for layer in layers:
                layer["mediaType"] = "application/octet-stream"
        return self.manifest(
            name,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": "application/vnd.example.model",
                "config": {"mediaType": EMPTY, **self.blob(name, b"{}")},
                "layers": layers,
            },
        )


@dataclass
class Issuer:
    """Signs the tokens that a registry with token login accepts."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-issuer")])
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def token(self, scope: str, lifetime_s: int = 300) -> str:
        """A token for a scope such as ``repository:m:pull``."""
        kind, name, actions = scope.split(":")
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": "test-issuer",
            "sub": USER,
            "aud": "test",
            "exp": now + lifetime_s,
            "nbf": now - 10,
            "iat": now,
            "jti": str(now),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        signed = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        r, s = utils.decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def tar(files: dict[str, bytes | None], links: dict[str, str] | None = None) -> bytes:
    """An uncompressed tar; ``None`` makes a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            if data is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        for path, to in (links or {}).items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, to
            archive.addfile(info)
    return out.getvalue()
