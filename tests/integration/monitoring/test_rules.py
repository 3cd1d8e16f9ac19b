"""The alerts fire when they should and not otherwise, as Prometheus' own promtool sees it."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster import gobuild
from e2e.cluster.progress import Progress
from helm.chart import CHART

pytestmark = pytest.mark.integration

OF: Final = 'namespace="demo",modeldeployment="m"'
POD: Final = (
    'namespace="demo",pod="p",tidegate_dev_deployment="m",tidegate_dev_revision="r",'
    'envoy_cluster_name="client_{protocol}"'
)
OPERATOR: Final = 'namespace="RELEASE_NAMESPACE",pod="operator-0"'


def answers(code: str, values: str, protocol: str = "http") -> tuple[str, str]:
    labels = POD.format(protocol=protocol)
    return f'envoy_cluster_upstream_rq{{{labels},envoy_response_code="{code}"}}', values


def grpc(status: int, values: str) -> tuple[str, str]:
    return f"envoy_cluster_grpc_ModelInfer_{status}{{{POD.format(protocol='grpc')}}}", values


def timed(values: str) -> tuple[str, str]:
    return f"envoy_cluster_upstream_rq_time_count{{{POD.format(protocol='http')}}}", values


def faster(le: str, values: str) -> tuple[str, str]:
    labels = f'{POD.format(protocol="http")},le="{le}"'
    return f"envoy_cluster_upstream_rq_time_bucket{{{labels}}}", values


def of_model(name: str, values: str, **labels: str) -> tuple[str, str]:
    more = "".join(f',{k}="{v}"' for k, v in labels.items())
    return f"tidegate_{name}{{{OF}{more}}}", values


def condition(type_: str, reason: str, values: str) -> tuple[str, str]:
    return of_model("modeldeployment_condition", values, condition=type_, reason=reason)


def limit(share: float) -> tuple[str, str]:
    return of_model("modeldeployment_slo_error_ratio", f"{share}x20000")


LATENCY_LIMIT = of_model("modeldeployment_slo_slow_ratio", "0.01x20000", le="99.5")
FAST = {"TidegateErrorBudgetBurnsFast"}
SLOWLY = {"TidegateErrorBudgetBurnsSlowly"}
LATENCY = {"TidegateLatencyBudgetBurnsFast", "TidegateLatencyBudgetBurnsSlowly"}


@dataclass(frozen=True)
class Case:
    """Series, one sample a minute, and which alerts fire at some times."""

    name: str
    series: tuple[tuple[str, str], ...]
    fires: Mapping[str, set[str]]


CASES = (
    Case(
        "one in five fails",
        (limit(0.01), answers("200", "0+80x300"), answers("503", "0+20x300")),
        {"1m": set(), "2h": FAST | SLOWLY},
    ),
    Case(
        "as many fail as may",
        (limit(0.01), answers("200", "0+992x300"), answers("503", "0+8x300")),
        {"1h": set(), "5h": set()},
    ),
    Case(
        "twice as many fail as may: no page, a ticket only after days",
        (limit(0.01), answers("200", "0+98x5000"), answers("500", "0+2x5000")),
        {"2h": SLOWLY},
    ),
    Case(
        "the trouble is over: the page ends soon, the ticket later",
        (
            limit(0.01),
            answers("200", "0+100x300"),
            answers("503", "0+50x60 3000x240"),
        ),
        {"61m": FAST | SLOWLY, "100m": SLOWLY},
    ),
    Case(
        "the first failures there ever were",
        (limit(0.01), answers("200", "0+10x300"), answers("500", "_x200 400x100")),
        {"199m": set(), "205m": FAST},
    ),
    Case(
        "failures of gRPC, which HTTP calls 200",
        (
            limit(0.01),
            answers("200", "0+100x300", "grpc"),
            grpc(0, "0+70x300"),
            grpc(13, "0+10x300"),
            grpc(14, "0+20x300"),
        ),
        {"2h": FAST | SLOWLY},
    ),
    Case(
        "requests that are the clients' own fault, or that clients gave up",
        (
            limit(0.01),
            answers("200", "0+100x300", "grpc"),
            answers("400", "0+100x300"),
            answers("499", "0+100x300"),
            grpc(3, "0+50x300"),
            grpc(1, "0+50x300"),
        ),
        {"2h": set()},
    ),
    Case(
        "a generous limit can be exceeded, too",
        (limit(0.2), answers("200", "0+10x300"), answers("500", "0+90x300")),
        {"2h": FAST | SLOWLY},
    ),
    Case(
        "no traffic",
        (limit(0.01), answers("200", "100x300"), answers("500", "50x300")),
        {"2h": set()},
    ),
    Case(
        "slow",
        (
            limit(0.01),
            LATENCY_LIMIT,
            answers("200", "0+100x300"),
            timed("0+100x300"),
            faster("99.5", "0+60x300"),
            faster("199.5", "0+100x300"),
        ),
        {"2h": LATENCY},
    ),
    Case(
        "slow, but not by its own target",
        (
            LATENCY_LIMIT,
            answers("200", "0+100x300"),
            timed("0+100x300"),
            faster("49.5", "0+10x300"),
            faster("99.5", "0+100x300"),
        ),
        {"2h": set()},
    ),
    Case(
        "rolled back",
        (condition("Stalled", "RolledBack", "0x10 1x10"),),
        {"5m": set(), "15m": {"TidegateRolledBack"}},
    ),
    Case(
        "stalled by something else",
        (condition("Stalled", "ModelNotLoaded", "1x30"),),
        {"20m": set()},
    ),
    Case(
        "nothing serves",
        (condition("Available", "Crashing", "0x40"),),
        {"10m": set(), "20m": {"TidegateUnavailable"}},
    ),
    Case(
        "nothing is to serve",
        (condition("Available", "ScaledToZero", "0x40"),),
        {"20m": set()},
    ),
    Case(
        "no GPU",
        (condition("WaitingForGPU", "WaitingForGPU", "1x40"),),
        {"10m": set(), "20m": {"TidegateWaitingForGPU"}},
    ),
    Case(
        "the canary is not read",
        (of_model("canary_scrape_age_seconds", "0+60x20"),),
        {"1m": set(), "5m": {"TidegateMetricsLost"}},
    ),
    Case(
        "the canary was never read",
        (condition("MetricsAvailable", "MetricsUnavailable", "0x20"),),
        {"1m": set(), "5m": {"TidegateMetricsLost"}},
    ),
    Case(
        "golden requests are answered wrongly",
        (condition("AnswersRight", "WrongAnswers", "0x20"),),
        {"30s": set(), "5m": {"TidegateWrongAnswers"}},
    ),
    Case(
        "labels show too many wrong answers",
        (condition("Accurate", "TooManyWrong", "0x20"), condition("Steady", "Shown", "1x20")),
        {"30s": set(), "5m": {"TidegateInaccurate"}},
    ),
    Case(
        "a field shifts",
        (condition("Steady", "Shifted", "0x20"), condition("Accurate", "Shown", "1x20")),
        {"30s": set(), "5m": {"TidegateDrift"}},
    ),
    Case(
        "golden requests are answered rightly",
        (condition("AnswersRight", "AnswersRight", "1x20"),),
        {"5m": set()},
    ),
    Case(
        "the canary is read",
        (
            condition("MetricsAvailable", "Measured", "1x20"),
            of_model("canary_scrape_age_seconds", "0.5x20"),
        ),
        {"15m": set()},
    ),
    *(
        Case(
            name,
            (
                of_model("modeldeployment_phase_start_time_seconds", "0x300"),
                of_model("modeldeployment_phase", "1x300", phase=phase),
                condition("Reconciling", reason, "1x300"),
            ),
            {"100m": set(), "200m": fires},
        )
        for name, phase, reason, fires in (
            ("a rollout stands", "Canary", "NeedsMoreRequests", {"TidegateRolloutStuck"}),
            ("a rollout is paused", "Canary", "Paused", set[str]()),
            ("a rollout is over", "Promoted", "Ready", set[str]()),
            ("a long bake", "Baking", "Baking", set[str]()),
        )
    ),
    Case(
        "nobody leads",
        ((f"tidegate_leader{{{OPERATOR}}}", "1x10 0x30"),),
        {"5m": set(), "30m": {"TidegateNoLeader"}},
    ),
    Case("nobody is scraped", (), {"5m": {"TidegateNoLeader"}}),
    Case(
        "a watch is behind",
        ((f'tidegate_watch_age_seconds{{{OPERATOR},kind="Pod"}}', "0+60x30"),),
        {"3m": set(), "20m": {"TidegateWatchBehind"}},
    ),
    Case(
        "the sink is away for a while",
        (
            (f'tidegate_cloudevents_total{{{OPERATOR},result="failed"}}', "0x20 3x70"),
            (f'tidegate_cloudevents_total{{{OPERATOR},result="dropped"}}', "0x90"),
        ),
        {"15m": set(), "25m": {"TidegateEventsLost"}, "60m": set()},
    ),
    Case(
        "all events are sent",
        ((f'tidegate_cloudevents_total{{{OPERATOR},result="sent"}}', "0+5x60"),),
        {"40m": set()},
    ),
    Case(
        "reconciles fail",
        ((f'tidegate_reconcile_failures_total{{{OPERATOR},error="KubeError"}}', "0+3x60"),),
        {"10m": set(), "40m": {"TidegateReconcileFailing"}},
    ),
)


@pytest.fixture(scope="module")
def promtool() -> Path:
    return gobuild.build("promtool", Progress())


def run(promtool: Path, *arguments: str) -> str:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def labels_of(alert: Mapping[str, Any], case: Case) -> dict[str, str]:
    """The labels with which an alert of this test fires."""
    found = {"severity": alert["labels"]["severity"]}
    if alert["alert"] == "TidegateWatchBehind":
        return {**found, "kind": "Pod"}
    if alert["alert"] == "TidegateReconcileFailing":
        return {**found, "error": "KubeError"}
    if alert["alert"] in ("TidegateNoLeader", "TidegateEventsLost"):
        return found
    found |= {"namespace": "demo", "modeldeployment": "m"}
    return found | ({"reason": "Crashing"} if alert["alert"] == "TidegateUnavailable" else {})


def test_the_rules_are_well_formed(promtool: Path) -> None:
    told = run(promtool, "check", "rules", "--lint=all", str(CHART / "files" / "rules.yaml"))
    assert "41 rules found" in told


def test_alerts_fire_as_they_should(promtool: Path, tmp_path: Path) -> None:
    document = yaml.safe_load((CHART / "files" / "rules.yaml").read_text(encoding="utf-8"))
    alerts = [r for g in document["groups"] for r in g["rules"] if "alert" in r]
    for alert in alerts:
        # promtool wants each one repeated word by word; they are another test's.
        del alert["annotations"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    leads = (f"tidegate_leader{{{OPERATOR}}}", "1x20000")
    tests = [
        {
            "name": case.name,
            "interval": "1m",
            "input_series": [
                {"series": s, "values": v}
                for s, v in (
                    *case.series,
                    *([] if "TidegateNoLeader" in set().union(*case.fires.values()) else [leads]),
                )
            ],
            "alert_rule_test": [
                {
                    "eval_time": at,
                    "alertname": alert["alert"],
                    "exp_alerts": [{"exp_labels": labels_of(alert, case)}]
                    if alert["alert"] in fires
                    else [],
                }
                for at, fires in case.fires.items()
                for alert in alerts
            ],
        }
        for case in CASES
    ]
    path = tmp_path / "tests.yaml"
    path.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}), encoding="utf-8"
    )
    run(promtool, "test", "rules", str(path))
    fired = {name for case in CASES for names in case.fires.values() for name in names}
    assert fired == {alert["alert"] for alert in alerts}


def test_an_alert_speaks_of_the_model(promtool: Path, tmp_path: Path) -> None:
    text = """
rule_files: [RULES]
tests:
  - interval: 1m
    input_series:
      - series: tidegate_modeldeployment_condition{CONDITION}
        values: 1x10
    alert_rule_test:
      - eval_time: 5m
        alertname: TidegateRolledBack
        exp_alerts:
          - exp_labels: {severity: warning, namespace: demo, modeldeployment: m}
            exp_annotations:
              summary: demo/m was rolled back.
              description: >-
                The revision that its spec asks for failed; the one before serves. Nothing more
                happens until the spec changes or somebody asks for retry.
              runbook_url: RUNBOOKS/rolled-back.md
"""
    labels = f'{OF},condition="Stalled",reason="RolledBack"'
    text = text.replace("RULES", str(CHART / "files" / "rules.yaml"), 1)
    (tmp_path / "tests.yaml").write_text(text.replace("CONDITION", labels), encoding="utf-8")
    run(promtool, "test", "rules", str(tmp_path / "tests.yaml"))
