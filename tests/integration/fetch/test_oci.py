"""oci against a real registry."""

import base64
import gzip
import json
import platform
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web as aioweb

from tests.integration.fetch.models import ONNX, PYTHON_MODEL, digest_of
from tests.integration.fetch.pod import Outcome, Pod
from tests.integration.fetch.registry import (
    INDEX,
    LAYER,
    MANIFEST,
    PASSWORD,
    USER,
    Registry,
    tar,
)
from tests.integration.fetch.web import WebServer

pytestmark = pytest.mark.integration


def fetch(pod: Pod, registry: Registry, name: str, **request: object) -> Outcome:
    return pod.fetch(f"oci://{registry.host}/{name}", endpoint=registry.url, **request)


def test_an_image_with_a_models_folder(pod: Pod, registry: Registry) -> None:
    base = tar(
        {"etc/passwd": b"root", "models/1/old.py": b"x", "models/gone/a": b"y"}, {"bin": "u"}
    )
    top = tar(
        {
            "models": None,
            "models/1/.wh.old.py": b"",
            "models/.wh.gone": b"",
            **{f"models/{p}": d for p, d in PYTHON_MODEL.items()},
        }
    )
    registry.image("magika", "v3", [base, gzip.compress(top)], kind=LAYER + "+gzip")
    message = fetch(pod, registry, "magika:v3").ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)
    assert pod.files() == ["m/1/model.py", "m/1/weights.bin", "m/config.pbtxt"]


def test_a_tag_that_moves_leaves_pinned_pods_where_they_are(pod: Pod, registry: Registry) -> None:
    registry.image("moving", "stable", [tar({"net.onnx": ONNX})])
    first = fetch(pod, registry, "moving:stable").ok()
    registry.image("moving", "stable", [tar(dict(PYTHON_MODEL))])
    now = pod.look(f"oci://{registry.host}/moving:stable", endpoint=registry.url).ok()
    assert now["sourceVersion"] != first["sourceVersion"]
    pod.mount("pin", {"digest": first["digest"]})
    fetch(pod, registry, "moving:stable").failed("SourceMoved")
    pod.mount("pin", {"digest": first["digest"], "address": first["sourceAddress"]})
    assert fetch(pod, registry, "moving:stable").ok()["digest"] == first["digest"]


def test_an_image_that_is_only_the_model(pod: Pod, registry: Registry) -> None:
    registry.image("bare", "v1", [tar({"net.onnx": ONNX})])
    assert fetch(pod, registry, "bare:v1").ok()["backend"] == "onnxruntime"


def test_a_link_in_the_model_is_refused(pod: Pod, registry: Registry) -> None:
    registry.image(
        "linked", "v1", [tar({"models/1/model.py": b"x"}, {"models/config.pbtxt": "/etc/x"})]
    )
    fetch(pod, registry, "linked:v1").failed("ArchiveUnsafe")


def test_an_opaque_folder_hides_what_was_below(pod: Pod, registry: Registry) -> None:
    layers = [
        tar({"models/old.onnx": ONNX, "models/x/y": b"y"}),
        tar({"models/.wh..wh..opq": b"", **{f"models/{p}": d for p, d in PYTHON_MODEL.items()}}),
    ]
    registry.image("opaque", "v1", layers)
    assert fetch(pod, registry, "opaque:v1").ok()["digest"] == digest_of(PYTHON_MODEL)


def test_files_as_an_artifact(pod: Pod, registry: Registry) -> None:
    digest = registry.artifact("files", "v1", PYTHON_MODEL)
    for reference in ("files:v1", f"files@{digest}", f"files:v1@{digest}"):
        message = fetch(pod, registry, reference).ok()
        assert message["digest"] == digest_of(PYTHON_MODEL)


def test_a_packed_folder_as_an_artifact(pod: Pod, registry: Registry) -> None:
    packed = gzip.compress(tar({f"m/{p}": d for p, d in PYTHON_MODEL.items()}))
    registry.artifact("packed", "v1", {"m": packed}, **{"io.deis.oras.content.unpack": "true"})
    assert fetch(pod, registry, "packed:v1").ok()["backend"] == "python"


def test_an_index_picks_this_machine(pod: Pod, registry: Registry) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    entries = []
    for arch, data in ((machine, ONNX), ("riscv64", b"other")):
        digest = registry.image("multi", arch, [tar({"net.onnx": data})])
        entries.append(
            {
                "mediaType": MANIFEST,
                "digest": digest,
                "size": 1,
                "platform": {"os": "linux", "architecture": arch},
            }
        )
        with registry._request(
            "GET", f"{registry.url}/v2/multi/manifests/{arch}", None, Accept=MANIFEST
        ) as r:
            entries[-1]["size"] = len(r.read())
    registry.manifest("multi", "v1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    assert fetch(pod, registry, "multi:v1").ok()["digest"] == digest_of({"net.onnx": ONNX})
    registry.manifest(
        "multi", "v2", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries[1:] * 2}
    )
    assert "riscv64" in fetch(pod, registry, "multi:v2").failed("ArtifactInvalid")


def test_nothing_there(pod: Pod, registry: Registry) -> None:
    fetch(pod, registry, "no-such/model:v1").failed("SourceNotFound")


@pytest.mark.parametrize("name", ["model", "model:", "../x:v1", "model@sha256:12"])
def test_a_reference_that_is_none(pod: Pod, registry: Registry, name: str) -> None:
    fetch(pod, registry, name).failed("ConfigInvalid")


def test_basic_login(pod: Pod, tmp_path: Path) -> None:
    with Registry(tmp_path, auth="htpasswd") as registry:
        registry.artifact("private", "v1", {"net.onnx": ONNX})
        text = fetch(pod, registry, "private:v1").failed("CredentialsMissing")
        assert ".dockerconfigjson" in text
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config = json.dumps({"auths": {registry.host: {"auth": auth}}})
        pod.mount("credentials", {".dockerconfigjson": config})
        fetch(pod, registry, "private:v1").ok()
        other = json.dumps({"auths": {"elsewhere:5000": {"auth": auth}}})
        pod.mount("credentials", {".dockerconfigjson": other})
        assert registry.host in fetch(pod, registry, "private:v1").failed("CredentialsMissing")
        wrong = base64.b64encode(f"{USER}:wrong".encode()).decode()
        pod.mount(
            "credentials",
            {".dockerconfigjson": json.dumps({"auths": {registry.host: {"auth": wrong}}})},
        )
        fetch(pod, registry, "private:v1").failed("AccessDenied")


def test_token_login(pod: Pod, web: WebServer, tmp_path: Path) -> None:
    with Registry(tmp_path, auth="token", realm=f"{web.url}/token") as registry:
        issuer = registry.issuer
        assert issuer is not None
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        lifetimes = [300]

        async def token(request: aioweb.Request) -> aioweb.StreamResponse:
            if request.headers.get("Authorization") != expected:
                return aioweb.Response(status=401)
            scope = parse_qs(urlsplit(str(request.url)).query)["scope"][0]
            return aioweb.json_response({"token": issuer.token(scope, lifetimes[0])})

        web.routes["/token"] = token
        registry.headers = {
            "Authorization": "Bearer " + issuer.token("repository:private:pull,push")
        }
        registry.artifact("private", "v1", {"net.onnx": ONNX, "data": b"x" * 100_000})
        fetch(pod, registry, "private:v1").failed("CredentialsMissing")
        pod.mount("credentials", {"username": USER, "password": PASSWORD})
        outcome = fetch(pod, registry, "private:v1")
        outcome.ok()
        assert PASSWORD not in outcome.log
