"""A revision is its bytes: pinned by the first fetch, whatever becomes of the source."""

import base64
import json
from typing import Any, Final

import pytest

from e2e.cluster.installation import CA_PROFILE, WEB_ADDRESS
from e2e.cluster.kube import Object, rolled_out, wait_for
from e2e.cluster.pki import Authority
from e2e.load import Load, Orders, answers
from e2e.tests import artefacts
from e2e.tests.load import ask_http
from e2e.tests.space import API, KIND, READY_SECONDS, Space, condition, model_deployment, stable
from e2e.tests.volumes import claim, volume
from tidegate.fetch.digest import tree_digest

IMAGE_PATH: Final = "/usr/local/lib/python3.11/dist-packages/onnxruntime/datasets/sigmoid.onnx"
"""In the runtime image: an ONNX model that comes with the library."""
SERVER: Final = """
import functools, http.server, ssl
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/files")
server = http.server.ThreadingHTTPServer(("", 8443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def digest(files: artefacts.Files) -> str:
    """The digest of a model's file tree, as status shows it."""
    return "sha256:" + tree_digest(
        {name: artefacts.sha256(content) for name, content in files.items()}
    )


def reports(space: Space, name: str) -> list[Object]:
    """What the fetch container of each pod reported, oldest pod first."""
    found = []
    for pod in space.pods(name):
        [status] = [s for s in pod["status"]["initContainerStatuses"] if s["name"] == "fetch"]
        found.append(json.loads(status["state"]["terminated"]["message"]))
    return found


def test_first_fetch_pins_the_bytes(space: Space, whoami: dict[str, str]) -> None:
    name = "pinned"
    space.apply(model_deployment(name, whoami["one"]))
    revision = stable(space.ready(name))
    wanted = digest(artefacts.whoami("one"))
    assert revision["digest"] == wanted
    pin = space.require("v1", "ConfigMap", f"{revision['name']}-pin")
    assert (pin["data"], pin["immutable"]) == ({"digest": wanted}, True)
    record = space.require("apps/v1", "ControllerRevision", revision["name"])
    assert record["metadata"]["annotations"]["tidegate.dev/source-digest"] == wanted
    [report] = reports(space, name)
    assert (report["digest"], report["files"], report["cached"]) == (wanted, 2, False)
    space.kube.delete(API, KIND, name, space.name)


def test_moved_and_gone_bytes_never_load(space: Space) -> None:
    name = "moving"
    first, second = artefacts.whoami("one"), artefacts.whoami("two")
    uri = artefacts.put("moving", first)
    space.apply(model_deployment(name, uri))
    space.ready(name)
    [serving] = space.restarts(name)
    with Load(Orders(space.address(name), None, name, "x", rate_hz=5)) as load:
        artefacts.put("moving", second)
        space.patch(name, {"replicas": 2})
        space.not_ready(name, "SourceMoved", uri, digest(first), digest(second), "change")
        assert condition(space.live(name), "Available")["status"] == "True"
        space.patch(name, {"replicas": 1})
        space.ready(name)

        artefacts.put("moving", {})
        space.patch(name, {"replicas": 2})
        space.not_ready(name, "ArtifactGone", uri, digest(first), "Put the same bytes back")
        assert condition(space.live(name), "Available")["status"] == "True"

        artefacts.put("moving", first)
        found = space.ready(name)
        assert found["status"]["readyReplicas"] == 2
        load.await_more(20)
    load.assert_no_failure(at_least=20)
    assert set(answers(load.requests, "label")) == {"one"}
    assert space.restarts(name)[serving] == 0
    space.kube.delete(API, KIND, name, space.name)


def look_now(space: Space, name: str, job: str) -> None:
    """Look at the followed source at once instead of within five minutes."""
    template = space.require("batch/v1", "CronJob", f"{name}-source")["spec"]["jobTemplate"]
    space.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job, "namespace": space.name},
            "spec": template["spec"],
        }
    )


def test_a_followed_source_rolls_out_what_changed_and_takes_the_bad_back(space: Space) -> None:
    name = "followed"
    uri = artefacts.put("followed", artefacts.whoami("one"))
    spec = {
        "model": {"source": {"onChange": "NewRevision"}},
        "rollout": {"strategy": "Canary", "steps": [{"weight": "50%"}], "bake": "0s"},
    }
    space.apply(model_deployment(name, uri, spec))
    first = stable(space.ready(name))
    look_now(space, name, "look-1")
    space.until(
        name,
        lambda f: condition(f, "SourceFollowed").get("status") == "True",
        "a look at the source",
    )
    with Load(Orders(space.address(name), None, name, "x", rate_hz=20)) as load:
        artefacts.put("followed", artefacts.whoami("two"))
        look_now(space, name, "look-2")
        space.until(
            name,
            lambda f: stable(f)["digest"] == digest(artefacts.whoami("two")),
            "the changed bytes are stable",
            seconds=180.0,
        )
        second = stable(space.ready(name))
        artefacts.put("followed", artefacts.raising("no such weights"))
        look_now(space, name, "look-3")
        space.until(
            name,
            lambda f: "no such weights" in json.dumps(f["status"]),
            "the bad bytes are told of",
            seconds=180.0,
        )
        load.await_more(40)
    load.assert_no_failure(at_least=100)
    assert second["name"] != first["name"]
    assert stable(space.live(name))["name"] == second["name"]
    space.kube.delete(API, KIND, name, space.name)


def test_shared_cache_serves_the_second_pod(space: Space) -> None:
    name = "cached"
    uri = artefacts.put("cached", artefacts.whoami("one"))
    with volume(space.kube, f"{space.name}-cache") as folder:
        space.apply(claim("cache", f"{space.name}-cache"))
        spec = {"runtime": {"cache": {"claimName": "cache"}}, "replicas": 2}
        space.apply(model_deployment(name, uri, spec))
        space.ready(name)
        assert [report["cached"] for report in reports(space, name)] == [False, True]
        assert {report["digest"] for report in reports(space, name)} == {
            digest(artefacts.whoami("one"))
        }
        # With the bytes at hand the source need not be there at all.
        artefacts.put("cached", {})
        space.patch(name, {"replicas": 3})
        space.ready(name)
        assert [report["cached"] for report in reports(space, name)] == [False, True, True]
        assert list(folder.rglob("model.py"))
        space.kube.delete(API, KIND, name, space.name)


def test_model_on_a_claim(space: Space) -> None:
    name = "claimed"
    with volume(space.kube, f"{space.name}-models") as folder:
        artefacts.write(folder / "teams" / "whoami", artefacts.whoami("one"))
        space.apply(claim("models", f"{space.name}-models"))
        space.apply(model_deployment(name, "pvc://models/teams/whoami"))
        found = space.ready(name)
        assert stable(found)["digest"] == digest(artefacts.whoami("one"))
        assert ask_http(space.address(name), name, "x")["label"] == "one"
        [pod] = space.pods(name)
        [mounted] = [v for v in pod["spec"]["volumes"] if v["name"] == "source"]
        assert mounted["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
        space.kube.delete(API, KIND, name, space.name)


def test_model_in_the_runtime_image(space: Space) -> None:
    """Laid out as what it is; this Triton lacks the backend for it, and says so itself."""
    name = "inside"
    space.apply(model_deployment(name, "image:///no/such/model"))
    space.not_ready(name, "SourceNotFound", "model.source.uri", "/no/such/model")
    space.patch(name, {"model": {"source": {"uri": f"image://{IMAGE_PATH}"}}})
    space.not_ready(name, "ModelNotLoaded", "onnxruntime")
    [report] = reports(space, name)
    assert (report["backend"], report["layout"], report["files"]) == ("onnxruntime", "bare", 1)
    space.kube.delete(API, KIND, name, space.name)


def web_server(space: Space, authority: Authority, host: str, files: artefacts.Files) -> list[Any]:
    """A web server with a certificate of that authority."""
    pair = authority.issue(host, dns_names=[host])
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
    container = {
        "name": "web",
        "image": "tidegate/fetch:0.1.0",
        "command": ["/opt/tidegate/bin/python", "-c", SERVER],
        "ports": [{"containerPort": 8443}],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "securityContext": secure,
        "volumeMounts": [
            {"name": "files", "mountPath": "/files"},
            {"name": "tls", "mountPath": "/tls"},
        ],
    }
    pod = {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "files", "configMap": {"name": "files"}},
            {"name": "tls", "secret": {"secretName": "tls"}},
        ],
    }
    labels = {"app": "web"}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CA_PROFILE},
            "data": {"ca.crt": authority.pair.certificate.decode()},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "files"},
            "binaryData": encoded,
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "tls"},
            "stringData": {"tls.crt": pair.certificate.decode(), "tls.key": pair.key.decode()},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {
                "clusterIP": WEB_ADDRESS,
                "selector": labels,
                "ports": [{"port": 443, "targetPort": 8443}],
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    ]


@pytest.fixture(scope="module")
def archive() -> bytes:
    """A model in an archive, as release pages carry it."""
    return artefacts.tar({f"release-3/{k}": v for k, v in artefacts.whoami("one").items()})


def test_model_from_a_web_server(space: Space, archive: bytes) -> None:
    name, host = "web-model", f"web.{space.name}.svc"
    for item in web_server(space, Authority.create(), host, {"whoami.tar.gz": archive}):
        space.apply(item)
    wait_for(
        lambda: rolled_out(space.require("apps/v1", "Deployment", "web")),
        "the web server",
        timeout_seconds=READY_SECONDS,
    )
    good = {"uri": f"https://{host}/whoami.tar.gz", "sha256": artefacts.sha256(archive)}
    # Private addresses are closed but for those that the platform opened, whatever the name.
    spec = {"runtime": {"profile": CA_PROFILE}, "model": {"source": {"sha256": good["sha256"]}}}
    space.apply(model_deployment(name, "https://kubernetes.default.svc/whoami.tar.gz", spec))
    space.not_ready(name, "AddressRefused", "kubernetes.default.svc", "10.96.0.1")

    space.patch(name, {"model": {"source": good}})
    found = space.ready(name)
    assert stable(found)["source"] == good["uri"]
    assert ask_http(space.address(name), name, "x")["label"] == "one"

    # Without the profile that trusts its CA, it is a stranger.
    space.patch(name, {"runtime": {"profile": None}})
    space.not_ready(name, "SourceUnreachable", host, "certificate")
    assert ask_http(space.address(name), name, "x")["label"] == "one"
    space.kube.delete(API, KIND, name, space.name)
    # The address is one for all tests.
    space.kube.delete("v1", "Service", "web", space.name)
