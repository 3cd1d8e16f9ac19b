"""What is published to a registry is what the fetch container verifies; half of it is nothing."""

import base64
import contextlib
import hashlib
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web as aioweb

from tests.integration.fetch.pod import Pod
from tests.integration.fetch.publishing import SHA256, CutOff, Line
from tests.integration.fetch.registry import MANIFEST, PASSWORD, USER, Registry
from tests.integration.fetch.web import WebServer
from tidegate.preparation.publish import oci
from tidegate.preparation.publish.target import Files, StoreError

pytestmark = pytest.mark.integration


def opened(registry: Registry, name: str, told: list[str] | None = None) -> oci.Registry:
    tell = (told if told is not None else []).append
    return oci.Registry(f"oci://{registry.host}/{name}", registry.url, tell)


def tags(registry: Registry, name: str) -> list[str]:
    with registry._request("GET", f"{registry.url}/v2/{name}/tags/list") as answer:
        return sorted(json.loads(answer.read())["tags"])


def digest(registry: Registry, name: str, tag: str) -> str:
    url = f"{registry.url}/v2/{name}/manifests/{tag}"
    with registry._request("GET", url, Accept=MANIFEST) as answer:
        return "sha256:" + hashlib.sha256(answer.read()).hexdigest()


def test_there_and_back(pod: Pod, registry: Registry, model: Files, tmp_path: Path) -> None:
    told: list[str] = []
    target = opened(registry, "team/digits:stable", told)
    sent = target.send(model, SHA256)
    assert sent.sent == len(model)
    assert told[0].startswith("sending ")
    assert tags(registry, "team/digits") == [SHA256[:16]], "nobody follows this one"

    papers = tmp_path / "papers" / "report.json"
    papers.parent.mkdir()
    papers.write_text("{}")
    target.file({"report.json": papers})
    assert target.announce() == f"oci://{registry.host}/team/digits:stable"
    assert tags(registry, "team/digits") == [SHA256[:16], f"{SHA256[:16]}-report", "stable"]

    for uri in (sent.uri, f"oci://{registry.host}/team/digits:stable"):
        message = pod.fetch(uri, endpoint=sent.endpoint, sha256=SHA256).ok()
        assert message["digest"] == f"sha256:{SHA256}"
        assert message["sourceAddress"] == sent.uri

    again = opened(registry, "team/digits").send(model, SHA256)
    assert (again.sent, again.uri) == (0, sent.uri), "all of it was there"


def test_cut_off_anywhere_it_can_be_picked_by_nobody(
    pod: Pod, registry: Registry, model: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure before each request in turn: what is followed is the version before, or none."""
    old = registry.artifact("cut", "stable", {"net.onnx": b"\x08\x07" + b"old" * 10})
    line = Line()
    monkeypatch.setattr(oci.Registry, "_ask", line.over(oci.Registry._ask))
    rounds, sent = 0, []
    while True:
        line.left = rounds
        rounds += 1
        target = opened(registry, "cut:stable")
        with contextlib.suppress(CutOff):
            sent.append(target.send(model, SHA256).uri)
            target.file({})
            target.announce()
            break
        assert digest(registry, "cut", "stable") == old, "the version before"
        # Its own tag is there once all of it is, and not before.
        assert (SHA256[:16] in tags(registry, "cut")) == bool(sent)
    assert rounds > 8
    assert len(sent) > 1, "the last steps were cut off, too"
    assert sent[0].endswith(digest(registry, "cut", "stable"))
    uri = f"oci://{registry.host}/cut:stable"
    assert pod.fetch(uri, endpoint=registry.url).ok()["digest"] == f"sha256:{SHA256}"


def test_logins(
    pod: Pod,
    web: WebServer,
    model: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def known(registry: Registry, auth: str) -> None:
        auths = {"auths": {registry.host: {"auth": auth}}}
        (tmp_path / "config.json").write_text(json.dumps(auths))

    (tmp_path / "basic").mkdir()
    with Registry(tmp_path / "basic", auth="htpasswd") as registry:
        with pytest.raises(StoreError, match=f"asks for a login: docker login {registry.host}"):
            opened(registry, "private").send(model, SHA256)
        known(registry, base64.b64encode(b"pusher:wrong").decode())
        with pytest.raises(StoreError, match="refuses this login"):
            opened(registry, "private").send(model, SHA256)
        known(registry, pair)
        assert opened(registry, "private").send(model, SHA256).sent == len(model)

    async def token(request: aioweb.Request) -> aioweb.StreamResponse:
        if request.headers.get("Authorization") != f"Basic {pair}":
            return aioweb.Response(status=401)
        scope = parse_qs(urlsplit(str(request.url)).query)["scope"][0]
        assert tokens.issuer is not None
        return aioweb.json_response({"token": tokens.issuer.token(scope)})

    web.routes["/token"] = token
    (tmp_path / "token").mkdir()
    with Registry(tmp_path / "token", auth="token", realm=f"{web.url}/token") as tokens:
        with pytest.raises(StoreError, match="refuses this login"):
            opened(tokens, "private").send(model, SHA256)
        known(tokens, pair)
        sent = opened(tokens, "private").send(model, SHA256)
        assert sent.sent == len(model)
        pod.mount("credentials", {"username": USER, "password": PASSWORD})
        assert pod.fetch(sent.uri, endpoint=sent.endpoint, sha256=SHA256).ok()


def test_a_registry_that_is_none(model: Files, web: WebServer) -> None:
    gone = oci.Registry("oci://127.0.0.1:9/m", "http://127.0.0.1:9", lambda text: None)
    with pytest.raises(StoreError, match=r"oci://127\.0\.0\.1:9/m") as raised:
        gone.send(model, SHA256)
    assert "\n" not in str(raised.value)
    with pytest.raises(StoreError, match="refuses: 40"):
        oci.Registry("oci://r.example/m", web.url, lambda text: None).send(model, SHA256)


def test_blobs_that_lie_elsewhere_are_not_sent_again(model: Files, web: WebServer) -> None:
    """A registry may send a HEAD on to its store, whose address is good for a GET only."""
    seen: list[str] = []

    async def anything(request: aioweb.Request) -> aioweb.StreamResponse:
        seen.append(request.method)
        if request.method == "HEAD":
            return aioweb.Response(status=307, headers={"Location": "http://127.0.0.1:9/signed"})
        return aioweb.Response(status=201)

    blobs = [sha256(path.read_bytes()) for path in model.values()] + [sha256(b"{}")]
    for blob in blobs:
        web.routes[f"/v2/m/blobs/sha256:{blob}"] = anything
    web.routes[f"/v2/m/manifests/{SHA256[:16]}"] = anything
    target = oci.Registry("oci://r.example/m", web.url, lambda text: None)
    assert target.send(model, SHA256).sent == 0
    assert seen == ["HEAD"] * len(blobs) + ["PUT"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_registry_whose_disc_is_full(
    pod: Pod, model: Files, web: WebServer, tmp_path: Path
) -> None:
    """It takes no blob; nothing of the model is there, and the word is the registry's own."""
    seen: list[str] = []

    async def anything(request: aioweb.Request) -> aioweb.StreamResponse:
        seen.append(f"{request.method} {request.path}")
        if request.method == "POST":
            return aioweb.Response(status=202, headers={"Location": "/v2/m/blobs/uploads/1"})
        if request.method == "PUT":
            return aioweb.Response(status=500, text="no space left on device")
        return aioweb.Response(status=404)

    for path in ("/v2/m/blobs/uploads/", "/v2/m/blobs/uploads/1"):
        web.routes[path] = anything
    with pytest.raises(StoreError, match=r"500 .*no space left on device"):
        oci.Registry("oci://r.example/m", web.url, lambda text: None).send(model, SHA256)
    assert not any("manifests" in one for one in seen)
