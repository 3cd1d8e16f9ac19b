"""Alerts and dashboards ask for what exists, and each alert has its runbook."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import yaml

from helm.chart import CHART, NAMESPACE, objects
from tests.unit.architecture.test_tree import ROOT
from tests.unit.chart.test_values import EVERYTHING, only
from tests.unit.measurement.pages import Cluster, samples
from tidegate.runtime.cache import Key
from tidegate.runtime.fleet import View
from tidegate.runtime.telemetry import Metrics

RUNBOOKS = ROOT / "docs" / "operations" / "runbooks"
ON = {"requireApi": False, "podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}

TRITON = {"model", "version"}
TRITON_METRICS = {
    "nv_inference_count",
    "nv_inference_request_success",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_pending_request_count",
}
"""Of Triton's page, as the end-to-end tests read it."""
SCRAPED = {"namespace", "pod", "job", "instance", "container", "endpoint"}
"""Labels that a PodMonitor adds to every series."""
MODEL_PODS = {"tidegate_dev_deployment", "tidegate_dev_revision"}
"""Those that the PodMonitor of a ModelDeployment adds (podTargetLabels)."""

WORDS = {
    *("by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless"),
    *("bool", "offset", "inf", "nan"),
}
DURATION = re.compile(r"\[[^\]]*\]")
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Selector:
    """One vector selector of a query: name (a pattern where `{__name__=~...}`) and matchers."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()
    is_pattern: bool = False


def selectors(query: str) -> Iterator[Selector]:
    """The vector selectors of a PromQL query, which must be well formed."""
    text = DURATION.sub("", query)
    # Lists of labels after by, on ... are no metrics.
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    at = 0
    while at < len(text):
        if text[at] == '"':
            at = re.compile(r'"(?:[^"\\]|\\.)*"').match(text, at).end()  # type: ignore[union-attr]
            continue
        if text[at] == "{":
            end = text.index("}", at)
            matchers = tuple(MATCHER.findall(text[at:end]))
            name = next(v for label, _, v in matchers if label == "__name__")
            yield Selector(name, tuple(m for m in matchers if m[0] != "__name__"), True)
            at = end + 1
            continue
        found = NAME.match(text, at)
        if found is None or (at and text[at - 1].isdigit()):
            at += 1
            continue
        at = found.end()
        rest = text[at:].lstrip()
        if found[0].lower() in WORDS or rest.startswith("("):
            continue
        if rest.startswith("{"):
            start = text.index("{", at)
            at = text.index("}", start) + 1
            yield Selector(found[0], tuple(MATCHER.findall(text[start:at])))
        else:
            yield Selector(found[0])


def rules() -> list[dict[str, Any]]:
    groups = only(objects({"metrics": ON}), "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


@cache
def dashboards() -> dict[str, dict[str, Any]]:
    found = {}
    for item in objects({"metrics": {**ON, "dashboards": {"enabled": True}}}):
        if item["kind"] == "ConfigMap" and "grafana_dashboard" in item["metadata"]["labels"]:
            for name, text in item["data"].items():
                found[name] = json.loads(text)
    return found


def panel_queries() -> Iterator[tuple[str, str]]:
    """Where, and the query with its variables filled in."""
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", filled_in(target["expr"])


def filled_in(query: str) -> str:
    return query.replace("$__rate_interval", "1m").replace("$__interval", "1m")


def queries() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    yield from panel_queries()


@cache
def known() -> Mapping[str, frozenset[str]]:
    """Every metric that there can be, with its labels."""
    metrics = Metrics()
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        names = {family.name, f"{family.name}_total"}
        if family.type == "histogram":
            names = {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
        labels = set(getattr(family, "_labelnames", ()))
        for name in names if family.type != "counter" else {f"{family.name}_total"}:
            found[name] = labels | SCRAPED | ({"le"} if family.type == "histogram" else set())
    for metric in vars(metrics).values():
        for name in getattr(metric, "_labelnames", ()):
            for series in found:
                if series.startswith(metric._name):
                    found[series].add(name)
    cluster = Cluster(by_status={200: 1}, by_grpc_status={0: 1, 13: 1}, took_ms=[1])
    for name, labels_text, _ in samples({"client_http": cluster, "client_grpc": cluster}):
        labels = set(re.findall(r"(\w+)=", labels_text))
        found.setdefault(name, SCRAPED | MODEL_PODS).update(labels)
    for name in TRITON_METRICS:
        found[name] = SCRAPED | MODEL_PODS | TRITON
    for rule in rules():
        if "record" in rule:
            by = {"namespace", "modeldeployment"}
            found[rule["record"]] = by | (
                {"revision", "pod"} if ":pod_" in rule["record"] else set()
            )
    return {name: frozenset(labels) for name, labels in found.items()}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (
            'sum by (a) (rate(x_total{b="c"}[5m])) / on (a) group_left () (y > 0)',
            ["x_total", "y"],
        ),
        ('{__name__=~"a_.+", b="c"} or vector(0)', ["a_.+"]),
        ('label_replace(up, "x", "$1", "y", "(.+)") > bool 14.4e2', ["up"]),
        ("time() - a:b:c unless on (d) e", ["a:b:c", "e"]),
    ],
)
def test_selectors_are_found(query: str, names: list[str]) -> None:
    assert [s.name for s in selectors(query)] == names


def test_every_query_asks_for_what_exists() -> None:
    wrong, count = [], 0
    for where, query in queries():
        found = list(selectors(query))
        assert found or "vector(" in query, where
        for selector in found:
            count += 1
            names = (
                [selector.name]
                if not selector.is_pattern
                else [n for n in known() if re.fullmatch(selector.name, n)]
            )
            for name in names or ["-"]:
                labels = known().get(name)
                if labels is None:
                    wrong.append(f"{where}: no metric {selector.name}")
                else:
                    asked = {label for label, _, _ in selector.matchers}
                    wrong += [f"{where}: {name} has no label {a}" for a in asked - labels]
    assert wrong == []
    assert count > 100


def test_what_is_grouped_by_exists() -> None:
    every = {label for labels in known().values() for label in labels}
    for where, query in queries():
        for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query):
            assert {g.strip() for g in group.split(",")} - every == set(), where


def test_conditions_phases_and_decisions_are_spelt_as_they_are() -> None:
    page = (ROOT / "docs" / "operations" / "troubleshooting.md").read_text(encoding="utf-8")
    allowed = {
        "condition": {"Available", "Ready", "Reconciling", "Stalled", "WaitingForGPU"}
        | {"MetricsAvailable", "AnswersRight", "Accurate", "Steady"},
        "reason": set(re.findall(r"`([A-Z]\w+)`", page)),
        "phase": {"Preparing", "Verifying", "Mirroring", "Canary", "Baking", "Promoted"},
        "state": {"all", "ready", "desired"},
        "outcome": {"first", "promoted", "rolled_back", "superseded"},
        "decision": {"RolledBack"},
        "envoy_cluster_name": {"client_http", "client_grpc", "client_(http|grpc)"},
    }
    for where, query in queries():
        for selector in selectors(query):
            for label, _, value in selector.matchers:
                if label in allowed and "$" not in value:
                    parts = {value} if label == "envoy_cluster_name" else set(value.split("|"))
                    assert parts - allowed[label] == set(), where


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    alerts = {r["alert"]: r for r in rules() if "alert" in r}
    assert len(alerts) >= 10
    used = set()
    for name, rule in alerts.items():
        url = rule["annotations"]["runbook_url"]
        page = RUNBOOKS / url.rpartition("/")[2]
        used.add(page.name)
        assert f"`{name}`" in page.read_text(encoding="utf-8").split("\n## ")[0], name
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} <= rule["annotations"].keys()
    assert {p.name for p in RUNBOOKS.glob("*.md")} - {"README.md"} == used
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(Tidegate\w+)`", index)) == set(alerts)


def test_placeholders_are_filled_in() -> None:
    rule = only(objects(EVERYTHING), "PrometheusRule")
    text = json.dumps(rule)
    assert "RUNBOOKS" not in text
    assert "RELEASE_NAMESPACE" not in text
    assert f'namespace=\\"{NAMESPACE}\\"' in text or NAMESPACE in json.dumps(rule["spec"])
    urls = {
        r["annotations"]["runbook_url"]
        for g in rule["spec"]["groups"]
        for r in g["rules"]
        if "alert" in r
    }
    assert all(u.startswith("https://docs.example/runbooks/") for u in urls)
    assert "{{ $labels.namespace }}" in text
    plain = yaml.safe_load((CHART / "files" / "rules.yaml").read_text(encoding="utf-8"))
    assert [g["name"] for g in plain["groups"]] == [g["name"] for g in rule["spec"]["groups"]]


def test_dashboards_can_be_found_and_are_whole() -> None:
    assert set(dashboards()) == {
        "tidegate-fleet.json",
        "tidegate-deployment.json",
        "tidegate-operator.json",
    }
    for name, dashboard in dashboards().items():
        ids = [p["id"] for p in dashboard["panels"]]
        assert len(ids) == len(set(ids)), name
        assert dashboard["uid"] == name.removesuffix(".json")
        variables = {v["name"] for v in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(dashboard["panels"])))
        assert used - variables - {"__rate_interval"} == set(), name
        places = {
            (p["gridPos"]["x"] + dx, p["gridPos"]["y"] + dy)
            for p in dashboard["panels"]
            for dx in range(p["gridPos"]["w"])
            for dy in range(p["gridPos"]["h"])
        }
        area = sum(p["gridPos"]["w"] * p["gridPos"]["h"] for p in dashboard["panels"])
        assert len(places) == area, f"{name}: panels overlap"
    found = [o for o in objects(EVERYTHING) if "-dashboard-" in o["metadata"]["name"]]
    assert len(found) == 3
    for item in found:
        assert item["metadata"]["labels"]["find"] == "me"
        assert item["metadata"]["annotations"] == {"folder": "ML"}


def test_every_metric_of_the_fleet_is_on_a_dashboard_or_in_an_alert() -> None:
    asked = {s.name for _, query in queries() for s in selectors(query)}
    metrics = Metrics()
    metrics.fleet.take({Key("a", "b"): {"spec": {}}}, {Key("a", "b"): View(None, 1.0)})
    shown = {family.name for family in metrics.fleet.collect()}
    assert shown - asked == set()
