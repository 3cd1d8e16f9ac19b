"""How logs and documents are read into moments."""

from typing import Any

import pytest

from e2e.bench import first_inference as first
from e2e.bench.idle_writes import by_user
from e2e.bench.kubelet import DIGEST, statuses
from e2e.bench.operator_process import seconds_of, total
from e2e.cluster.audit import Write, besides_leases
from tidegate.diagnosis import fetch_result, is_loading, is_ready

EXPOSITION = """\
# HELP tidegate_api_writes_total Writes.
# TYPE tidegate_api_writes_total counter
tidegate_api_writes_total{verb="apply",kind="Service"} 3.0
tidegate_api_writes_total{verb="apply",kind="ConfigMap"} 2.0
tidegate_leader 1.0
tidegate_api_writes_total_created 1.7e+09
"""


def write(user: str = "operator", **changes: Any) -> Write:
    fields: dict[str, Any] = {
        "verb": "patch",
        "user": user,
        "user_agent": "",
        "resource": "services",
        "namespace": "a",
        "name": "b",
        "code": 200,
        "at": "2026-01-01T00:00:01.000000Z",
        "dry_run": False,
        "done_at": "2026-01-01T00:00:01.500000Z",
    }
    return Write(**(fields | changes))


def pod() -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "labels": {}},
        "spec": {
            "initContainers": [
                {"name": "fetch", "image": "f"},
                {"name": "envoy", "image": "e", "restartPolicy": "Always"},
            ],
            "containers": [{"name": "triton", "image": "t"}],
        },
    }


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.250000Z", 1.25),
        ("1970-01-01T00:00:01.123456789Z", 1.123456),
        ("1970-01-01T01:00:01.5+01:00", 1.5),
    ],
)
def test_times_of_audit_and_container_logs(stamp: str, seconds: float) -> None:
    assert seconds_of(stamp) == pytest.approx(seconds, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "sum_"),
    [("tidegate_api_writes_total", 5.0), ("tidegate_leader", 1.0), ("tidegate_none", 0.0)],
)
def test_a_metric_is_summed_over_its_labels(name: str, sum_: float) -> None:
    assert total(EXPOSITION, name) == sum_


def test_the_first_success_of_each_resource_counts() -> None:
    late = "2026-01-01T00:00:09.000000Z"
    writes = [
        write(code=409, done_at="2026-01-01T00:00:00.000000Z"),
        write(namespace="other", done_at="2026-01-01T00:00:00.000000Z"),
        write(dry_run=True, done_at="2026-01-01T00:00:00.000000Z"),
        write(),
        write(done_at=late),
        write(resource="deployments/scale", done_at=late),
    ]
    found = first.made(writes, "a")
    assert found == {
        "services": seconds_of("2026-01-01T00:00:01.5Z"),
        "deployments/scale": seconds_of(late),
    }


def test_the_line_that_says_it_gives_the_time() -> None:
    log = "1970-01-01T00:00:01.5Z one\n1970-01-01T00:00:02.5Z Started HTTPService at\n"
    assert first.first_line(log) == 1.5
    assert first.first_line(log, first.TRITON_UP) == 2.5
    with pytest.raises(LookupError, match="no line"):
        first.first_line(log, "never said")


def test_the_parts_add_up_to_the_whole() -> None:
    order = ("pod_created", "scheduled", "fetched", "sidecar", "triton", "loaded", "pod_ready")
    times = {name: 3.0 + 2**n for n, name in enumerate(order)}
    moments = first.Moments(
        applied=0.0,
        created=1.0,
        children={"services": 1.5, "deployments/scale": 3.0},
        condition_ready=times["pod_ready"] + 0.25,
        answered=times["pod_ready"] + 0.5,
        **times,
    )
    shares = moments.shares()
    whole, share = shares.pop(first.TOTAL), shares.pop(first.SHARE)
    assert share == shares.pop(first.TO_CONDITION) + shares[first.TO_SCALED] == 2.25
    assert sum(shares.values()) == pytest.approx(whole) == moments.answered


def test_what_the_fetch_container_said() -> None:
    found = pod()
    assert first.fetch_report(found) == {}
    found["status"] = statuses(found)[1]
    assert first.fetch_report(found)["digest"] == DIGEST


def test_played_pods_look_to_the_operator_like_real_ones() -> None:
    found = pod()
    seen = []
    for status in statuses(found):
        found["status"] = status | {"podIP": "192.0.2.1"}
        digest = fetch_result(found)
        seen.append((digest and digest.digest, is_loading(found), is_ready(found)))
    assert seen == [(None, False, False), (DIGEST, True, False), (DIGEST, False, True)]


def test_writes_are_told_by_user_without_leases() -> None:
    writes = [
        write(resource="leases"),
        write("jane"),
        write(),
        write(),
        write(resource="pods", verb="delete"),
    ]
    assert by_user(besides_leases(writes)) == {
        "operator": {"patch services": 2, "delete pods": 1},
        "jane": {"patch services": 1},
    }
