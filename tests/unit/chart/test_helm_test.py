"""The script that `helm test` runs, against an API server and a Triton that only pretend."""

import importlib.util
import json
import re
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import pytest

from helm.chart import CHART, objects
from tests.unit.chart.test_values import EVERYTHING

RESOURCES = {
    "resources": [
        {"name": n}
        for n in ("modeldeployments", "modeldeployments/status", "modeldeployments/scale")
    ]
}
METADATA = {
    "name": "m",
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "s", "datatype": "BYTES", "shape": [1]},
        {"name": "b", "datatype": "BOOL", "shape": [2]},
    ],
    "outputs": [{"name": "label", "datatype": "BYTES", "shape": [1]}],
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check", CHART / "files" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


script = load()


def lease(age_s: float = 1.0, holder: str = "operator-0_x") -> dict[str, Any]:
    renewed = datetime.now(UTC) - timedelta(seconds=age_s)
    stamp = renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"spec": {"holderIdentity": holder, "renewTime": stamp, "leaseDurationSeconds": 15}}


class Api:
    """An API server of four answers."""

    def __init__(self, **answers: tuple[int, Any]) -> None:
        self.answers: dict[str, tuple[int, Any]] = {
            "served": (200, RESOURCES),
            "lease": (200, lease()),
            "empty": (422, {"message": "spec.model.source: Required value"}),
            "stranger": (422, {"message": "serviceAccountName: x is not among the platform's"}),
            **answers,
        }

    def __call__(self, path: str, body: Any = None) -> Any:
        if body is not None:
            assert "dryRun=All" in path
            assert "/namespaces/models/modeldeployments" in path
            which = "stranger" if "runtime" in body["spec"] else "empty"
        else:
            which = "lease" if "/leases/" in path else "served"
        return script.Answer(*self.answers[which])


ENV = {
    "TEST_NAMESPACE": "tidegate-system",
    "TEST_MODEL_NAMESPACE": "models",
    "TEST_LEASE": "tidegate-operator",
    "TEST_ADMISSION": "true",
    "TEST_TIMEOUT_SECONDS": "0",
}


class Triton(ThreadingHTTPServer):
    """Answers metadata, and one inference with what it was told to."""

    label = "python"
    status = 200
    asked: list[dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    server: Triton

    def do_GET(self) -> None:
        self.reply(200 if self.path == "/v2/models/m" else 404, METADATA)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        answer: dict[str, Any] = {"outputs": [{"name": "label", "data": [self.server.label]}]}
        if self.server.status != 200:
            answer = {"error": "it broke"}
        self.reply(self.server.status, answer)

    def reply(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def triton() -> Iterator[Triton]:
    server = Triton(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def inference(triton: Triton, **more: str) -> dict[str, str]:
    address = f"http://127.0.0.1:{triton.server_port}"
    return {
        **ENV,
        "TEST_URL": address,
        "TEST_MODEL": "m",
        "TEST_REQUEST": "{}",
        "TEST_EXPECT": "{}",
        **more,
    }


def test_a_working_installation_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(ENV, Api()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6].strip() for line in lines] == ["ok", "ok", "ok", "note"]
    assert "operator-0_x leads" in lines[1]


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        (
            {"served": (404, {"message": "no such group"})},
            "FAILED the API server does not serve modeldeployments, modeldeployments/scale, "
            "modeldeployments/status (no such group); install the custom resource definition: "
            "crds.enabled=true",
        ),
        (
            {"lease": (404, {"message": 'leases "x" not found'})},
            'FAILED no operator leads (leases "x" not found); see the operator\'s pods',
        ),
        (
            {"lease": (200, lease(age_s=3600))},
            "FAILED operator-0_x last renewed its Lease N s ago; see its log",
        ),
        (
            {"lease": (200, lease(holder=""))},
            "FAILED nobody holds the Lease; see the operator's pods and logs",
        ),
        (
            {"empty": (201, {"kind": "ModelDeployment", "message": "created"})},
            "FAILED a ModelDeployment without a source was not refused: created",
        ),
        (
            {"stranger": (201, {"message": "created"})},
            "FAILED a service account that is not on the list was not refused by the admission "
            "policy: created",
        ),
    ],
)
def test_each_fault_is_found_and_named(
    answers: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(ENV, Api(**answers)) == 1
    seen = re.sub(r"\b3\d{3} s ago", "N s ago", capsys.readouterr().out.splitlines()[-1])
    assert seen == line


def test_the_policy_is_not_asked_for_where_it_is_not_installed() -> None:
    api = Api(stranger=(201, {"message": "created"}))
    assert script.main({**ENV, "TEST_ADMISSION": "false"}, api) == 0


def test_an_inference_of_zeros_where_no_request_is_given(
    triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(inference(triton), Api()) == 0
    (asked,) = triton.asked
    assert asked == {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0, 0, 0]},
            {"name": "s", "datatype": "BYTES", "shape": [1], "data": [""]},
            {"name": "b", "datatype": "BOOL", "shape": [2], "data": [False, False]},
        ]
    }
    assert '{"label": ["python"]}' in capsys.readouterr().out


def test_the_given_request_and_the_given_answer(
    triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {"inputs": [{"name": "content", "data": ["import os\n"]}]}
    given = {
        "TEST_REQUEST": json.dumps(request),
        "TEST_EXPECT": json.dumps({"label": ["python"]}),
    }
    assert script.main(inference(triton, **given), Api()) == 0
    assert triton.asked == [request]
    triton.label = "ruby"
    assert script.main(inference(triton, **given), Api()) == 1
    assert "label is ['ruby'], expected ['python']" in capsys.readouterr().out


def test_an_inference_that_fails_shows_tritons_own_words(
    triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    triton.status = 500
    assert script.main(inference(triton), Api()) == 1
    assert "500 it broke" in capsys.readouterr().out


def test_an_address_where_nobody_answers(
    triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(inference(triton, TEST_URL="http://127.0.0.1:1"), Api()) == 1
    assert "Connection refused" in capsys.readouterr().out


def test_the_chart_gives_the_script_what_it_reads() -> None:
    pod = next(o for o in objects(EVERYTHING) if o["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    environment = {e["name"]: e["value"] for e in container["env"]}
    assert json.loads(environment["TEST_REQUEST"]) == EVERYTHING["tests"]["inference"]["request"]
    assert json.loads(environment["TEST_EXPECT"]) == {"label": ["python"]}
    assert environment["TEST_URL"] == "http://magika.models:8000"
    text = next(
        o["data"]["check.py"]
        for o in objects(EVERYTHING)
        if o["kind"] == "ConfigMap" and "check.py" in o["data"]
    )
    assert text.rstrip() == (CHART / "files" / "check.py").read_text().rstrip()
    for name in environment:
        assert f'"{name}"' in text


def test_the_dry_runs_are_made_where_the_admission_policy_holds() -> None:
    for values, where in (({}, "tidegate-system"), ({"watchNamespaces": ["b", "a"]}, "b")):
        found = objects(values)
        role = next(o for o in found if o["metadata"]["name"] == "tidegate-test-admission")
        assert role["metadata"]["namespace"] == where
        pod = next(o for o in found if o["kind"] == "Pod")
        environment = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
        assert environment["TEST_MODEL_NAMESPACE"] == where
