"""`doctor` about the Prometheus that the operator asks; a real one: tests/contract."""

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.cli.test_preparing import operator, well
from tidegate.cli.scraping import LABEL, lacking, scraped, service, serving
from tidegate.runtime import prometheus

DEPLOYMENTS = "/apis/apps/v1/namespaces/tidegate-system/deployments"
PATH = "/api/v1/query"


def answer(*models: tuple[str, str]) -> bytes:
    series = [{"metric": {"namespace": n, LABEL: m}, "value": [1, "2"]} for n, m in models]
    return json.dumps({"status": "success", "data": {"result": series}}).encode()


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
        scraped(raw)


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
    server, asks = well(), operator()
    (container,) = asks["spec"]["template"]["spec"]["containers"]
    url = {"name": "TIDEGATE_PROMETHEUS_URL", "value": "http://prometheus.monitoring:9090"}
    container["env"].append(url)
    server.more[DEPLOYMENTS] = [asks]
    server.services[PATH] = (status, {}, raw)
    server.world.deployment["status"]["readyReplicas"] = 1
    done = run(server, "doctor", code=1 if result == "failed" else 0)
    (line,) = [one for one in done.out.splitlines() if one.split()[1] == "metrics"]
    assert line.split()[0] == result
    assert said in line
