"""hf: the real huggingface-hub client against a small server with the hub's endpoints.

There is no hub to install; the server's answers follow what the client reads (model_info with
files_metadata, and resolve with a redirect to file servers).
"""

import hashlib
from collections.abc import Iterator

import pytest
from aiohttp import web as aioweb

from tests.integration.fetch.models import ONNX, PYTHON_MODEL, digest_of
from tests.integration.fetch.pod import Outcome, Pod
from tests.integration.fetch.web import WebServer

pytestmark = pytest.mark.integration
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    ".gitattributes": b"*.bin filter=lfs\n",
    "onnx/model.onnx": ONNX,
    **{f"triton/{p}": d for p, d in PYTHON_MODEL.items()},
}


class Hub:
    """One repository, org/net, at one commit, with its large files on another server."""

    def __init__(self, api: WebServer, files: WebServer) -> None:
        self.api, self.files = api, files
        self.token: str | None = None
        self.wrong_sha = False
        for data in FILES.values():
            files.files[f"/lfs/{hashlib.sha256(data).hexdigest()}"] = data
        for path in FILES:
            api.routes[f"/org/net/resolve/{COMMIT}/{path}"] = self._resolve
        for revision in ("", "/revision/main", "/revision/v1.2", f"/revision/{COMMIT}"):
            api.routes[f"/api/models/org/net{revision}"] = self._info
        for revision in ("/revision/nope",):
            api.routes[f"/api/models/org/net{revision}"] = self._no_revision
        api.routes["/api/models/org/gated"] = self._gated

    def _denied(self, request: aioweb.Request) -> bool:
        wanted = f"Bearer {self.token}"
        return self.token is not None and request.headers.get("Authorization") != wanted

    async def _info(self, request: aioweb.Request) -> aioweb.StreamResponse:
        assert "HF_TOKEN" not in str(request.url)
        if self._denied(request):
            return aioweb.json_response(
                {"error": "Repository not found"},
                status=401,
                headers={"X-Error-Code": "RepoNotFound"},
            )
        siblings = []
        for path, data in FILES.items():
            entry: dict[str, object] = {
                "rfilename": path,
                "size": len(data),
                "blobId": hashlib.sha1(data).hexdigest(),
            }
            if path.endswith((".bin", ".onnx")):
                sha256 = "0" * 64 if self.wrong_sha else hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return aioweb.json_response(
            {"id": "org/net", "modelId": "org/net", "sha": COMMIT, "siblings": siblings, "tags": []}
        )

    async def _resolve(self, request: aioweb.Request) -> aioweb.StreamResponse:
        if self._denied(request):
            return aioweb.Response(status=401)
        path = request.path.partition(COMMIT + "/")[2]
        sha256 = hashlib.sha256(FILES[path]).hexdigest()
        return aioweb.Response(status=302, headers={"Location": f"{self.files.url}/lfs/{sha256}"})

    async def _no_revision(self, _: aioweb.Request) -> aioweb.StreamResponse:
        return aioweb.json_response(
            {"error": "Invalid rev"}, status=404, headers={"X-Error-Code": "RevisionNotFound"}
        )

    async def _gated(self, _: aioweb.Request) -> aioweb.StreamResponse:
        return aioweb.json_response(
            {"error": "gated"}, status=403, headers={"X-Error-Code": "GatedRepo"}
        )


@pytest.fixture
def hub(web: WebServer) -> Iterator[Hub]:
    with WebServer() as files:
        yield Hub(web, files)


def fetch(pod: Pod, hub: Hub, uri: str, **request: object) -> Outcome:
    return pod.fetch(uri, endpoint=hub.api.url, **request)


@pytest.mark.parametrize("revision", ["", "@main", "@v1.2", f"@{COMMIT}"])
def test_a_folder_of_a_repository(pod: Pod, hub: Hub, revision: str) -> None:
    message = fetch(pod, hub, f"hf://org/net{revision}/triton").ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)
    assert all(f"/resolve/{COMMIT}/" in r.path for r in hub.api.requests if "resolve" in r.path)


def test_one_file_of_a_repository(pod: Pod, hub: Hub) -> None:
    assert fetch(pod, hub, "hf://org/net/onnx/model.onnx").ok()["backend"] == "onnxruntime"


def test_a_repository_with_several_models_is_ambiguous(pod: Pod, hub: Hub) -> None:
    text = fetch(pod, hub, "hf://org/net").failed("LayoutAmbiguous")
    assert "triton" in text
    assert "onnx/model.onnx" in text


def test_the_token_goes_to_the_hub_only(pod: Pod, hub: Hub) -> None:
    hub.token = "hf_s3cret"
    text = fetch(pod, hub, "hf://org/net/triton").failed("SourceNotFound")
    assert "HF_TOKEN" in text
    pod.mount("credentials", {"HF_TOKEN": "hf_s3cret"})
    outcome = fetch(pod, hub, "hf://org/net/triton")
    outcome.ok()
    assert "hf_s3cret" not in outcome.log
    assert {r.authorization for r in hub.files.requests} == {None}


def test_other_bytes_than_the_hub_vouches_for(pod: Pod, hub: Hub) -> None:
    hub.wrong_sha = True
    fetch(pod, hub, "hf://org/net/onnx").failed("ChecksumMismatch")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("hf://org/missing", "SourceNotFound"),
        ("hf://org/net@nope", "SourceNotFound"),
        ("hf://org/net/no/such", "SourceNotFound"),
        ("hf://org/gated", "CredentialsMissing"),
        ("hf://org", "ConfigInvalid"),
        ("hf://a/b@c?d", "ConfigInvalid"),
    ],
)
def test_what_is_not_there(pod: Pod, hub: Hub, uri: str, reason: str) -> None:
    assert uri in fetch(pod, hub, uri).failed(reason) or reason == "CredentialsMissing"


def test_a_gated_repository_with_a_token(pod: Pod, hub: Hub) -> None:
    pod.mount("credentials", {"HF_TOKEN": "x"})
    fetch(pod, hub, "hf://org/gated").failed("AccessDenied")


def test_the_policy_reaches_into_the_library(pod: Pod, hub: Hub) -> None:
    fetch(pod, hub, "hf://org/net", policy={"allowPrivateAddresses": []}).failed("AddressRefused")
    assert hub.api.requests == []
