"""Who reaches the pods."""

from typing import Any

import pytest

from tidegate.api.spec import parse
from tidegate.platform import Platform
from tidegate.resources.policies import disruption_budget, network_policy

DEPLOYMENT = {"metadata": {"name": "magika", "uid": "u"}}


def policy(traffic: dict[str, Any], sidecars: set[bool]) -> list[dict[str, Any]]:
    spec = parse({"model": {"source": {"uri": "s3://a/b"}}, "traffic": traffic})
    found = network_policy(DEPLOYMENT, spec, Platform(), sidecars=sidecars)
    assert found["spec"]["policyTypes"] == ["Ingress"]
    rules: list[dict[str, Any]] = found["spec"]["ingress"]
    return rules


@pytest.mark.parametrize(
    ("sidecars", "serving", "internal"),
    [
        ({True}, [8080, 8081], [9091]),
        ({False}, [8000, 8001], [8000, 8002]),
        ({True, False}, [8080, 8081, 8000, 8001], [9091, 8000, 8002]),
    ],
)
def test_ports_follow_the_pods_that_there_are(
    sidecars: set[bool], serving: list[int], internal: list[int]
) -> None:
    clients, platform = policy({}, sidecars)
    assert [p["port"] for p in clients["ports"]] == serving
    assert [p["port"] for p in platform["ports"]] == internal


def test_the_internal_port_is_for_the_platform_only() -> None:
    _, platform = policy({}, {True})
    (peer,) = platform["from"]
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["monitoring", "tidegate-system"]


def test_everyone_or_only_those_who_are_named() -> None:
    assert "from" not in policy({}, {True})[0]
    named = policy({"allowFrom": [{"namespaceLabels": {"team": "a"}}]}, {True})[0]
    assert named["from"] == [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]


def test_an_unhealthy_pod_never_blocks_a_drain() -> None:
    budget = disruption_budget(DEPLOYMENT)["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
