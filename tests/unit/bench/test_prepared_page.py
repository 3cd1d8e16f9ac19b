"""The page of the prepared models says what was measured, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.bench import prepared_page
from tests.unit.architecture.test_tree import ROOT

BEFORE: dict[str, Any] = {
    "name": "fp32",
    "bytes": 4_000_000,
    "accuracy": 0.95,
    "accuracy_low": 0.93,
    "accuracy_high": 0.97,
    "load": {
        "backend": "python",
        "rate_per_s": 400.0,
        "at_least": False,
        "common_per_s": 200.0,
        "p50_ms": 4.0,
        "p99_ms": 12.34,
    },
}


def after(low: float, high: float, verdict: str = "accepted", **load: Any) -> dict[str, Any]:
    """A candidate; without `load` it was not served."""
    return {
        **{k: v for k, v in BEFORE.items() if k != "load"},
        "name": "int8-dynamic",
        "verdict": verdict,
        "calls": [{"ratio": (low + high) / 2, "low": low, "high": high}],
        **({"load": {**BEFORE["load"], **load}} if load else {}),
    }


def document(*candidates: dict[str, Any], quick: bool = False) -> dict[str, Any]:
    return {
        "format": prepared_page.FORMAT,
        "models": [
            {
                "title": "A network",
                "what": "of some units",
                "slo": "p95=50ms",
                "quick": quick,
                "held_out": 797,
                "max_drop": 0.02,
                "machine": {"cpu": "Intel Xeon", "cores": 2, "memory_gib": 24.0},
                "began": "2026-11-21T23:50:00",
                "took_s": 90.0,
                "busy_before": 0.05,
                "load_average": [0.4, 1.9],
                "candidates": [BEFORE, *candidates],
            }
        ],
    }


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (after(1.2, 1.4, rate_per_s=390.0), "As accurate, and **slower** here: A network as int8"),
        (after(0.9, 1.1, rate_per_s=300.0), "As accurate, and **slower** here: A network as int8"),
        (after(0.5, 0.6, rate_per_s=390.0), "As accurate, and faster here: A network as int8"),
        (after(0.9, 1.1, rate_per_s=500.0), "As accurate, and faster here: A network as int8"),
        # A limit of the client's is none of the server's.
        (after(0.9, 1.1, rate_per_s=100.0, at_least=True), None),
        (after(0.9, 1.1, rate_per_s=390.0), None),
        (after(0.5, 0.6, "refused"), "Refused by the accuracy gate: A network as int8"),
        (after(0.5, 0.6, "too few samples"), "Not proved with so many samples, thus not served"),
        ({"name": "fp16", "not_made": "trees"}, "Not made, for there is nothing to make"),
    ],
)
def test_findings(candidate: dict[str, Any], said: str | None) -> None:
    found = prepared_page.findings(document(candidate)["models"])
    assert [f[: len(said or "")] for f in found] == ([said] if said else [])


def test_a_row_of_the_table() -> None:
    told = prepared_page.tables(document(after(1.2, 1.4, rate_per_s=300.0, at_least=True)))
    assert "| fp32 | 4,000,000 | 0.950 (0.930 to 0.970) | 1 | 4.0 | 12.3 | 400 | |" in told
    assert "| 1.30 (1.20 to 1.40) | 4.0 | 12.3 | at least 300 | accepted |" in told
    assert "Latencies at 200 requests a second." in told


def test_a_first_look_says_so() -> None:
    assert "A first look" in prepared_page.page(document(quick=True))
    assert "A first look" not in prepared_page.page(document())


CLUSTER: dict[str, Any] = {
    "candidate": "int8-dynamic",
    "setting": "batch 8, 2 instances, 1 thread",
    "slo": "p95=500ms",
    "rate_per_s": 10.0,
    "began": "2026-11-22T02:10:00",
    "outcome": "Promoted",
    "reason": "",
    "took_s": 21.4,
    "requests": 230,
    "failed": 0,
    "wrong": 0,
    "load_average": 15.25,
}
BY_HAND: dict[str, Any] = {
    **{k: CLUSTER[k] for k in ("took_s", "requests", "failed", "wrong")},
    "candidate": "fp32",
    "outcome": "RolledBack",
    "reason": "GoldenRequestsFailed",
}


def deployed(**cluster: Any) -> dict[str, Any]:
    """A model that went through a canary, too."""
    made = document(after(0.5, 0.6))
    made["models"][0]["cluster"] = {**CLUSTER, **cluster}
    return made


def test_what_became_of_it_on_the_cluster() -> None:
    told = prepared_page.page(deployed(by_hand=BY_HAND))
    assert (
        "| accepted | promoted in 21 s, 0 of 230 requests failed, 0 wrong; "
        "batch 8, 2 instances, 1 thread |" in told
    )
    assert "by hand, past the gate: rolled back (GoldenRequestsFailed) in 21 s" in told
    flat = " ".join(told.split())
    assert "1 of 1 promoted" in flat
    assert "Not brought there" not in flat
    assert "a load average of 15.2 to 15.2" in flat
    assert "of 230 requests meanwhile 0 failed and 0 were answered wrongly" in flat


def test_a_model_that_was_not_brought_there_is_named() -> None:
    both = deployed()
    both["models"] += [{**document()["models"][0], "title": "Trees"}]
    flat = " ".join(prepared_page.page(both).split())
    assert "1 of 1 promoted" in flat
    assert "Not brought there: Trees." in flat


def test_a_rollback_on_the_cluster_is_told() -> None:
    told = prepared_page.page(
        deployed(outcome="RolledBack", reason="GoldenRequestsFailed", failed=2, wrong=1)
    )
    assert "rolled back (GoldenRequestsFailed) in 21 s, 2 of 230 requests failed, 1 wrong" in told
    assert "0 of 1 promoted" in " ".join(told.split())


def test_without_a_cluster_nothing_is_claimed_of_one() -> None:
    told = prepared_page.page(document(after(0.5, 0.6)))
    assert "promoted" not in told
    assert "*through a canary" not in told


def measured(name: str, took_s: float) -> dict[str, Any]:
    return {"name": name, "took_s": took_s, "known_by": {"machine": {}}}


def test_what_is_newly_known_replaces_what_the_page_says(tmp_path: Path) -> None:
    """Of a model that was not measured, or not deployed, anew, the page's stays."""
    page, folder, cluster = tmp_path / "page.json", tmp_path / "m", tmp_path / "d"
    old = [measured("b", 1.0) | {"cluster": "old"}, measured("c", 1.0) | {"cluster": "old"}]
    page.write_text(json.dumps({"models": old}))
    for place, name, content in (
        (folder, "b", {**measured("b", 2.0), "known_by": {"machine": {}, "code": "x"}}),
        (cluster, "c", "new"),
    ):
        place.mkdir()
        (place / f"{name}.json").write_text(json.dumps(content))
    found = prepared_page.collected(folder, ["a", "b", "c"], cluster, page)
    assert found["models"] == [
        measured("b", 2.0) | {"cluster": "old"},
        measured("c", 1.0) | {"cluster": "new"},
    ]


def test_the_page_is_made_of_its_json() -> None:
    found = json.loads(prepared_page.DATA.read_text(encoding="utf-8"))
    page = prepared_page.PAGE.read_text(encoding="utf-8")
    assert page == prepared_page.page(found), "python -m e2e.bench.prepared_models --known --page"
    assert prepared_page.PAGE.is_relative_to(ROOT / "docs")
