"""What the metrics say of each ModelDeployment, and how many are shown."""

import re
from typing import Any

from tests.unit.plan.world import World
from tidegate.analysis.judgement import Consequence, Judgement, Result, Test
from tidegate.observed import Measured
from tidegate.resources.sidecar import LATENCY_EDGES_MS, bucket_le
from tidegate.runtime.cache import Key
from tidegate.runtime.fleet import SHOWN, View
from tidegate.runtime.telemetry import Metrics

KEY = Key("demo", "magika")
OF = {"namespace": "demo", "modeldeployment": "magika"}
RESULT = Result(
    test=Test.ERRORS,
    observed=0.05,
    bound=0.01,
    canary_count=5,
    canary_requests=100,
    stable_count=0,
    stable_requests=0,
    evidence=500.0,
    needed=1000.0,
    fired=False,
    consequence=Consequence.ROLL_BACK,
    explanation="5 of 100 requests failed",
)
MEASURED = Measured(
    stable="a",
    canary="b",
    started="2026-01-01T00:00:00Z",
    judgement=Judgement(
        results=(RESULT,),
        bad=None,
        worse=None,
        stable_failing=False,
        carries=0.1,
        proven=False,
        requests=100,
    ),
    read_at=None,
)


def settled() -> dict[str, Any]:
    world = World()
    world.settle()
    return world.deployment


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    metrics.render()
    return metrics.registry.get_sample_value(f"tidegate_{name}", {**OF, **labels})


def test_what_a_status_says_is_shown() -> None:
    metrics = Metrics()
    metrics.fleet.take({KEY: settled()}, {})
    assert value(metrics, "modeldeployment_condition", condition="Ready", reason="Ready") == 1
    assert value(metrics, "modeldeployment_condition", condition="Stalled", reason="Ready") == 0
    unknown = value(
        metrics, "modeldeployment_condition", condition="MetricsAvailable", reason="NotMeasured"
    )
    assert unknown is None
    assert value(metrics, "modeldeployment_phase", phase="Promoted") == 1
    assert value(metrics, "modeldeployment_phase_start_time_seconds") is not None
    assert value(metrics, "modeldeployment_replicas", state="ready") == 1
    assert value(metrics, "modeldeployment_slo_error_ratio") == 0.01
    assert value(metrics, "modeldeployment_slo_latency_seconds") == 0.1
    assert abs((value(metrics, "modeldeployment_slo_slow_ratio", le="99.5") or 0) - 0.01) < 1e-9
    assert value(metrics, "canary_requests") is None


def test_a_canary_is_shown_with_its_evidence() -> None:
    metrics = Metrics()
    metrics.fleet.take({KEY: settled()}, {KEY: View(MEASURED, 2.5)})
    assert value(metrics, "canary_scrape_age_seconds") == 2.5
    assert value(metrics, "canary_requests") == 100
    assert value(metrics, "canary_test_observed_ratio", test="errors") == 0.05
    assert value(metrics, "canary_test_bound_ratio", test="errors") == 0.01
    assert value(metrics, "canary_test_evidence_ratio", test="errors") == 0.5


def test_nothing_readable_is_nothing_shown() -> None:
    metrics = Metrics()
    odd = {"metadata": {}, "spec": {"slo": {"maxErrorRate": "soon"}}, "status": {}}
    metrics.fleet.take({KEY: odd}, {KEY: View(None, None)})
    assert value(metrics, "modeldeployment_slo_error_ratio") is None
    assert value(metrics, "modeldeployment_replicas", state="all") == 0


def test_the_number_of_series_is_bounded_and_those_in_trouble_come_first() -> None:
    metrics, ready = Metrics(), settled()
    fleet: dict[Key, Any] = {Key("demo", f"m{n}"): ready for n in range(SHOWN + 5)}
    fleet[Key("zoo", "ill")] = {**ready, "status": {"conditions": []}}
    metrics.fleet.take(fleet, {})
    text = metrics.render().decode()
    shown = re.findall(r"^tidegate_modeldeployment_slo_error_ratio\{", text, re.MULTILINE)
    assert len(shown) == SHOWN
    assert 'modeldeployment="ill"' in text
    assert metrics.registry.get_sample_value("tidegate_modeldeployments_left_out") == 6
    metrics.fleet.take({}, {})
    assert metrics.registry.get_sample_value("tidegate_modeldeployments_left_out") == 0


def test_the_bucket_of_a_target_is_named_as_prometheus_names_it() -> None:
    for edge in LATENCY_EDGES_MS:
        target = f"{edge}ms" if edge < 100_000 else f"{edge // 1000}s"
        deployment = {"spec": {"slo": {"latency": {"quantile": "0.9", "target": target}}}}
        metrics = Metrics()
        metrics.fleet.take({KEY: deployment}, {})
        (le,) = re.findall(r'slow_ratio\{le="([^"]+)"', metrics.render().decode())
        assert float(le) == bucket_le(edge)
        # Go's shortest form, without an exponent below 1e21.
        assert re.fullmatch(r"\d+\.5", le)
