"""`doctor` about the Prometheus that the operator asks; a real one: tests/contract."""

import json
import re
from typing import Any

import pytest

from tests.unit.cli.api_server import Server
from tests.unit.cli.conftest import Done, Run
from tests.unit.cli.test_preparing import operator, well
from tidegate.cli.scraping import LABEL, MODELS, lacking, series, service, serving
from tidegate.cli.scraping import operator as asked
from tidegate.runtime import prometheus

DEPLOYMENTS = "/apis/apps/v1/namespaces/tidegate-system/deployments"
PATH = "/api/v1/query"


def body(*series: dict[str, str]) -> bytes:
    result = [{"metric": one, "value": [1, "1"]} for one in series]
    return json.dumps({"status": "success", "data": {"result": result}}).encode()


def answer(*models: tuple[str, str]) -> bytes:
    return body(*({"namespace": n, LABEL: m} for n, m in models))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://prometheus.monitoring:9090", ("monitoring", "http:prometheus:9090/proxy")),
        ("http://prometheus.monitoring.svc", ("monitoring", "http:prometheus:80/proxy")),
        ("https://p.m.svc.cluster.local/a/", ("m", "https:p:443/proxy/a")),
        ("http://prometheus:9090", None),
        ("http://prometheus.example.com:9090", None),
        ("", None),
    ],
)
def test_where_it_is_asked(url: str, found: tuple[str, str] | None) -> None:
    if found is None:
        assert service(url) is None
        return
    space, rest = found
    assert service(url) == (space, f"/api/v1/namespaces/{space}/services/{rest}{PATH}")


def test_the_label_is_the_one_that_the_operator_asks_by() -> None:
    assert LABEL == prometheus.DEPLOYMENT


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b'{"status": "error", "error": "x"}', b'{"status": "success"}']
)
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(ValueError, match="no answer of Prometheus"):
        series(raw)


def test_which_models_it_ought_to_know() -> None:
    def model(name: str, ready: int, sidecar: str | None = None) -> dict[str, Any]:
        meta, runtime = {"namespace": "a", "name": name}, {"sidecar": sidecar} if sidecar else {}
        return {"metadata": meta, "spec": {"runtime": runtime}, "status": {"readyReplicas": ready}}

    wanted = serving([model("x", 2), model("y", 0), model("z", 1, "Off"), model("w", 1, "On")])
    assert wanted == {("a", "x"), ("a", "w")}
    assert lacking(wanted, {("a", "x"), ("a", "w"), ("b", "v")}) == ""
    assert lacking(wanted, {("a", "x")}) == "nothing of 1 of 2 models that serve: a/w"
    many = {("a", f"m{i}") for i in range(7)}
    assert lacking(many, set()).endswith(
        "7 of 7 models that serve: a/m0, a/m1, a/m2, a/m3, a/m4, ..."
    )


@pytest.mark.parametrize(
    ("status", "raw", "result", "said"),
    [
        (200, answer(("demo", "magika")), "ok", "knows the pods of all 1 that serve"),
        (200, answer(), "warning", "nothing of 1 of 1 models that serve: demo/magika; scrape"),
        (200, b"<html>", "failed", "does not answer"),
        (503, b"starting", "failed", "does not answer (HTTP 503: starting)"),
        (503, b'{"kind": "Status", "message": "no endpoints"}', "warning", "server: no endpoints"),
        (403, b"{}", "unknown", "you may not get services/proxy in monitoring"),
    ],
)
def test_what_doctor_says(run: Run, status: int, raw: bytes, result: str, said: str) -> None:
    server = watched()
    server.services[PATH] = (status, {}, raw)
    found, words = line(run(server, "doctor", code=1 if result == "failed" else 0), "metrics")
    assert found == result
    assert said in words


LEADS = {"__name__": "tidegate_leader", "instance": "10.0.0.4:8080"}
STANDS_BY = LEADS | {"instance": "10.0.0.5:8080"}
AWAY = {"__name__": "up", "instance": "10.0.0.5:8080"}
RENAMED = {"__name__": "tidegate_modeldeployment_condition", "exported_namespace": "demo"}


@pytest.mark.parametrize(
    ("found", "result", "said"),
    [
        ((LEADS, STANDS_BY), "ok", "scrapes all 2 of the operator's replicas"),
        (
            (),
            "warning",
            "does not scrape the operator: alerts and dashboards about it stay empty",
        ),
        ((LEADS, AWAY), "warning", "does not reach the operator at 10.0.0.5:8080; let it in: "),
        ((LEADS,), "warning", "scrapes 1 of the operator's 2 replicas; scrape each pod"),
        ((LEADS, STANDS_BY, RENAMED), "warning", "exported_namespace: alerts name the wrong one"),
    ],
)
def test_what_doctor_says_of_the_operators_own(
    run: Run, found: tuple[dict[str, str], ...], result: str, said: str
) -> None:
    server = watched()
    server.services[f"{PATH}?{MODELS}"] = (200, {}, answer(("demo", "magika")))
    server.services[f"{PATH}?{asked('tidegate-operator')}"] = (200, {}, body(*found))
    done = run(server, "doctor")
    assert line(done, "metrics")[0] == "ok"
    told, words = line(done, "operator's metrics")
    assert told == result
    assert said in words


def test_nothing_is_said_of_the_operator_where_prometheus_is_silent(run: Run) -> None:
    server = watched()
    server.services[PATH] = (503, {}, b"starting")
    assert "operator's metrics" not in run(server, "doctor", code=1).out


def watched() -> Server:
    """A cluster in which all is well, with a model that serves and a Prometheus to ask."""
    server, asks = well(), operator()
    (container,) = asks["spec"]["template"]["spec"]["containers"]
    url = {"name": "TIDEGATE_PROMETHEUS_URL", "value": "http://prometheus.monitoring:9090"}
    container["env"].append(url)
    server.more[DEPLOYMENTS] = [asks]
    server.world.deployment["status"]["readyReplicas"] = 1
    return server


def line(done: Done, check: str) -> tuple[str, str]:
    """Result and words of what doctor found by a check."""
    (found,) = [one for one in done.out.splitlines() if re.match(rf"\w+ +{check}  ", one)]
    result, _, said = found.partition(f" {check}  ")
    return result.strip(), said.strip()
