"""Every query of the rules, alerts and dashboards, asked of a Prometheus that saw it all happen.

While one version goes live and another fails, all of them are asked again and
again: each must have had an answer at some time. A misspelt metric or label never has one.
"""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from e2e.cluster import addons
from e2e.cluster.installation import CA_PROFILE, CHART_VALUES, WEB_ADDRESS
from e2e.cluster.kube import KubeClient, wait_for
from e2e.cluster.progress import Progress
from e2e.rollouts.scenarios import Outcome, Scenario
from e2e.rollouts.stage import Stage, play
from e2e.tests.space import SETTINGS, Space
from e2e.tests.test_rollouts import next_seed
from helm.chart import objects
from tests.unit.chart.test_monitoring import ON, filled_in, selectors

RULES: Final = "prometheus-rules"
SCRAPED: Final = {
    "prometheus.io/scrape": "true",
    "prometheus.io/path": "/metrics",
    "prometheus.io/port": "8080",
}
VALUES: Final[dict[str, Any]] = {
    "fetch": {"allowPrivateAddresses": [f"{SETTINGS.s3_address}/32", f"{WEB_ADDRESS}/32"]},
    "profiles": {CA_PROFILE: {"caBundleConfigMap": CA_PROFILE}},
    "podAnnotations": SCRAPED,
}
LATENCY: Final = {"quantile": "0.9", "target": "2s"}
GOES_LIVE: Final = Scenario(
    "goes live",
    "same",
    Outcome.PROMOTED,
    slo={"maxErrorRate": "5%", "latency": LATENCY},
    golden=True,
    limit_s=120.0,
)
FAILS: Final = replace(
    GOES_LIVE,
    name="fails",
    canary="fails-20",
    expected=Outcome.ROLLED_BACK,
    # They would find it before a client does.
    golden=False,
)
RULES_S: Final = 150.0
"""A ConfigMap reaches its pod within the kubelet's sync period, then Prometheus loads it."""
LAST_SECONDS: Final = 60.0
"""Two scrapes, two evaluations and the longest rate of a minute."""
PLAYS: Final = 3
"""Of the bad version: few of its requests fail before it is taken back, by chance all of one
protocol, and its pod may go before it is scraped once more."""
NEVER_HERE: Final = (
    # Of an alert's exception: nothing here waits for any of them.
    'reason=~"Paused|WaitingForGPU|WaitingForGates"',
    # Said by the quality component of models that ask for it: test_quality.
    'condition="Accurate"',
    'condition="Steady"',
)


@dataclass
class Asker:
    """Asks what has had no answer yet, in a thread of its own.

    Attributes:
        waiting: queries without an answer so far, with where they stand.
        errors: what Prometheus refuses.
    """

    waiting: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Asker":
        self._thread = threading.Thread(target=self._run, name="asker")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=SETTINGS.prometheus_url, trust_env=False) as prometheus:
            while not self._stop.wait(3.0):
                self.ask(prometheus)

    def ask(self, prometheus: httpx.Client) -> None:
        """Ask each of them once."""
        for query in list(self.waiting):
            try:
                answer = prometheus.post("/api/v1/query", data={"query": query}).json()
            except (httpx.HTTPError, ValueError):
                return
            if answer["status"] != "success":
                self.errors[query] = str(answer.get("error"))
            elif answer["data"]["result"]:
                del self.waiting[query]


def text_of(selector: Any) -> str:
    """A selector as a query of its own."""
    name = f'__name__=~"{selector.name}"' if selector.is_pattern else f'__name__="{selector.name}"'
    matchers = [name, *(f'{label}{how}"{value}"' for label, how, value in selector.matchers)]
    return "{" + ",".join(matchers) + "}"


def groups() -> list[dict[str, Any]]:
    found = objects({"metrics": ON})
    (rule,) = [item for item in found if item["kind"] == "PrometheusRule"]
    result: list[dict[str, Any]] = rule["spec"]["groups"]
    return result


def panels(values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Where, and the query with the dashboard's variables filled in."""
    shown = objects({"metrics": {**ON, "dashboards": {"enabled": True}}})
    for item in shown:
        if "grafana_dashboard" not in (item["metadata"].get("labels") or {}):
            continue
        for name, text in item["data"].items():
            for panel in json.loads(text)["panels"]:
                for target in panel["targets"]:
                    query = filled_in(target["expr"])
                    for variable, value in values.items():
                        query = query.replace(f"${variable}", value)
                    yield f"{name}: {panel['title']}", query


def queries(space: Space, name: str) -> dict[str, str]:
    """All queries that must have an answer, with where each stands.

    Of rules what they record, of dashboards each whole query, of alerts each of their parts: an
    alert itself has an answer only when it fires.
    """
    found: dict[str, str] = {}
    for rule in (r for g in groups() for r in g["rules"]):
        where = rule.get("alert") or rule["record"]
        if "record" in rule:
            found[rule["record"]] = where
        for selector in selectors(rule["expr"]):
            text = text_of(selector)
            if not any(part in text for part in NEVER_HERE):
                found[text] = where
    values = {"operator": addons.OPERATOR_NAMESPACE, "namespace": space.name}
    for where, query in panels({**values, "modeldeployment": name}):
        found[query] = where
    return found


@pytest.fixture(scope="module")
def rules(cluster: KubeClient, installed: None) -> Iterator[None]:
    """Prometheus evaluates the chart's rules."""
    addons.install_infra(SETTINGS, cluster)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": RULES, "namespace": SETTINGS.infra_namespace},
        "data": {"tidegate.yaml": yaml.safe_dump({"groups": groups()})},
    }
    cluster.apply_all([config_map])
    wanted = {group["name"]: len(group["rules"]) for group in groups()}
    with httpx.Client(base_url=SETTINGS.prometheus_url, trust_env=False) as prometheus:

        def loaded() -> bool:
            try:
                prometheus.post("/-/reload")
                answer = prometheus.get("/api/v1/rules").json()["data"]["groups"]
            except (httpx.HTTPError, ValueError, KeyError):
                return False
            return {g["name"]: len(g["rules"]) for g in answer} == wanted

        wait_for(loaded, "Prometheus has the rules", timeout_seconds=RULES_S)
        yield
        cluster.delete("v1", "ConfigMap", RULES, SETTINGS.infra_namespace)


@pytest.fixture(scope="module")
def scraped(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prometheus scrapes the operators."""
    path: Path = tmp_path_factory.mktemp("values") / "values.json"
    path.write_text(json.dumps(VALUES), encoding="utf-8")
    command = ["upgrade", "--install", "tidegate", str(addons.CHART)]
    command += ["--namespace", addons.OPERATOR_NAMESPACE, "--reset-values"]
    command += ["--values", str(path), "--wait", "--timeout", "180s"]
    addons.helm(SETTINGS, Progress(), command)
    yield
    addons.install_chart(SETTINGS, Progress(), values=CHART_VALUES)


def test_every_query_has_an_answer(rules: None, scraped: None, space: Space) -> None:
    stage = Stage(space, GOES_LIVE)
    stage.prepare(GOES_LIVE)
    asked = queries(space, stage.name)
    assert len(asked) > 120
    try:
        with Asker(dict(asked)) as asker:
            result = play(stage, GOES_LIVE, next_seed())
            assert result.outcome is Outcome.PROMOTED, result.told
            for _ in range(PLAYS):
                result = play(stage, FAILS, next_seed())
                assert result.outcome is Outcome.ROLLED_BACK, result.told
                end = time.monotonic() + LAST_SECONDS
                while asker.waiting and time.monotonic() < end:
                    time.sleep(1.0)
                if not asker.waiting:
                    break
    finally:
        stage.close()
    assert asker.errors == {}
    assert {query: asked[query] for query in asker.waiting} == {}
