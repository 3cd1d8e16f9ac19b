"""Documents in, text out: what `get`, `list`, `history` and `explain` show in each state."""

from copy import deepcopy
from io import BytesIO, TextIOWrapper
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.unit.cli import documents as d
from tidegate import view
from tidegate.cli import render
from tidegate.record import numbers
from tidegate.view import facts
from tidegate.view.pods import pod_state
from tidegate.view.reasons import MENDS


def shown(document: d.Document, pods: list[d.Document] | None = None) -> Any:
    return render.deployment(view.document(document, now=d.NOW, pods=pods or []), d.NOW)


def tree(document: d.Document, pods: list[d.Document] | None = None) -> str:
    return render.plain(shown(document, pods))


def explained(document: d.Document, hash_: str | None = None) -> list[str]:
    which = view.subject(document) if hash_ is None else hash_
    found = view.explanation(document, which, d.NOW)
    return render.plain(render.explanation(found)).splitlines()


def listed(documents: list[d.Document], *, namespaces: bool = False) -> Any:
    rows = [view.summary(one, d.NOW) for one in documents]
    return render.listing(rows, d.NOW, namespaces=namespaces)


def past(document: d.Document) -> Any:
    return render.history(view.document(document, now=d.NOW)["history"], d.NOW)


@pytest.mark.parametrize(
    ("name", "word", "tone"),
    [
        ("new", "New", facts.Tone.FAINT),
        ("outdated", "Outdated", facts.Tone.BUSY),
        ("first", "Preparing", facts.Tone.BUSY),
        ("steady", "Ready", facts.Tone.GOOD),
        ("step", "Canary", facts.Tone.BUSY),
        ("needs-more", "NeedsMoreRequests", facts.Tone.HOLD),
        ("gpu", "WaitingForGPU", facts.Tone.HOLD),
        ("baking", "Baking", facts.Tone.BUSY),
        ("rolled-back", "RolledBack", facts.Tone.BAD),
        ("superseded", "Ready", facts.Tone.GOOD),
        ("stalled", "SourceNotFound", facts.Tone.BAD),
    ],
)
def test_a_state_in_a_word(name: str, word: str, tone: str) -> None:
    assert facts.state(d.ALL[name]) == facts.State(word, tone)


def test_the_tree_of_a_step() -> None:
    assert tree(d.STEP, d.PODS) == (
        """\
magika  in models  Canary
├── rollout  Canary, step 2 of 4, 5% of the traffic, for 3m12s, began 9m ago
│   ├── next decision  180 more requests, about 1m12s; in 9s
│   └── evidence  towards the next step, and, test by test, towards going back
│       forward  ████████░░░░  420 of 600 requests: not yet
│       errors   ░░░░░░░░░░░░  2 of 420 failed (0.48%), limit 1%; evidence 0.31 of 2,000
│       latency  ░░░░░░░░░░░░  1 of 420 took 100ms or longer (0.24%), limit 1%; evidence 0.12 of"""
        """ 8,000
├── stable  7f3c1a2b9d  3/3 pods ready  weight 95%, observed 95.2%  s3://models/magika/v3
│   ├── pod  magika-7f3c1a2b9d-a  Ready  8m
│   ├── pod  magika-7f3c1a2b9d-b  Ready  8m
│   └── pod  magika-7f3c1a2b9d-c  Ready  8m
├── canary  9ab14c2d3e  1/1 pods ready  weight 5%, observed 4.8%  s3://models/magika/v4
│   └── pod  magika-9ab14c2d3e-x  CrashLoopBackOff  8m  2 restarts
└── url  http://magika.models.svc:8000
"""
    )


def test_the_tree_after_a_rollback() -> None:
    text = tree(d.ROLLED_BACK)
    for part in (
        "rollout  RolledBack, for 3m",
        "│   └── 15 of 200 requests failed (7.5 %), the limit is 1 %",
        "stable  7f3c1a2b9d  3/3 pods ready  weight 100%",
        "failed  9ab14c2d3e  ErrorRate, 3m ago",
        "failed  00aa11bb22  ModelNotLoaded, 1d ago",
        "condition  Stalled=True RolledBack: 15 of 200 requests failed",
    ):
        assert part in text
    assert "Reconciling" not in text, "as it should be"


@pytest.mark.parametrize(
    "name", [n for n, x in d.ALL.items() if facts.rolling(x) and facts.rollout(x).get("hold")]
)
def test_a_hold_says_why_and_what_to_do(name: str) -> None:
    document = d.ALL[name]
    hold, message = facts.rollout(document)["hold"], facts.rollout(document)["message"]
    assert f"holds, {hold}: {message}" in tree(document)
    assert "condition" not in tree(document), "the hold says it already"
    lines = explained(document)
    assert " is held: " in lines[0]
    assert any(f"{hold}: {message}" in line for line in lines)
    assert "What you can do:" in lines
    assert hold in MENDS
    assert not any("{" in line for line in lines)


@pytest.mark.parametrize("name", list(d.ALL))
@pytest.mark.parametrize("width", [20, 80, render.PLAIN_WIDTH])
def test_every_state_can_be_shown(name: str, width: int) -> None:
    document = d.ALL[name]
    assert render.plain(shown(document, d.PODS), width=width)
    which = view.subject(document)
    found = view.explanation(document, which, d.NOW)
    assert render.plain(render.explanation(found), width=width)
    assert render.plain(listed([document], namespaces=True), width=width)
    assert render.plain(past(document), width=width)


def test_explain_leads_with_the_counts_and_ends_with_the_evidence() -> None:
    lines = explained(d.ROLLED_BACK)
    assert lines[0] == f"Revision {d.CANARY} was rolled back 3m ago: ErrorRate."
    assert lines[1] == "  15 of 200 failed (7.5%), limit 1%."
    assert lines[2] == f"  Stable {d.STABLE} has all of the traffic."
    assert f"  - try this one again: tidegate retry magika {d.CANARY}" in lines
    assert lines[-1] == (
        "Evidence, errors: 4,010 of 2,000, fired "
        "(a good revision gets there in fewer than 1 of 2,000 rollouts)."
    )


@pytest.mark.parametrize("seen", [None, "2026-03-06T17:21:00Z/2026-03-06T17:27:00Z"])
@pytest.mark.parametrize("clusters", [None, "4/2.5"])
@pytest.mark.parametrize("stable", [None, "3/3800"])
def test_the_numbers_that_a_failed_revision_keeps_are_read_again(
    stable: str | None, clusters: str | None, seen: str | None
) -> None:
    """In the operator's own words for them."""
    said = {k: v for k, v in d.ERRORS_BAD.items() if k != "verdict"}
    said |= {"stable": stable, "clusters": clusters, "seen": seen}
    found = facts.fired({"evidence": numbers(said)})
    assert found == {**said, "verdict": "Bad"}
    assert facts.fired({"evidence": "golden request 3: label differs"}) == {}
    assert facts.fired({}) == {}


def test_explain_says_when_it_was_seen() -> None:
    document = deepcopy(d.ROLLED_BACK)
    failed = document["status"]["revisions"]["failed"][0]
    failed["evidence"] += f"; seen {d.ago(minutes=4)}/{d.ago(minutes=3, seconds=10)}"
    lines = explained(document)
    assert lines[1:3] == [
        "  15 of 200 failed (7.5%), limit 1%.",
        "  Seen first 4m ago, last 3m10s ago.",
    ]
    once = {"seen": f"{d.ago(seconds=7)}/{d.ago(seconds=7)}"}
    assert facts.sightings(once, d.NOW) == "7s ago"
    for text in (None, "", "then/now", "now"):
        assert facts.sightings({"seen": text}, d.NOW) == ""


def test_explain_a_step() -> None:
    lines = explained(d.STEP)
    assert lines[:4] == [
        f"Revision {d.CANARY} is on trial: step 2 of 4, 5% of the traffic, for 3m12s.",
        "  2 of 420 failed (0.48%), limit 1%.",
        "  1 of 420 took 100ms or longer (0.24%), limit 1%.",
        "  The next decision needs 180 more requests, about 1m12s.",
    ]


def test_explain_an_older_failure_without_the_numbers_of_a_newer_one() -> None:
    lines = explained(d.ROLLED_BACK, "00aa11bb22")
    assert lines[0] == "Revision 00aa11bb22 was rolled back 1d ago: ModelNotLoaded."
    assert "Triton: failed to load" in lines[1]
    assert not any("15 of 200" in line or "4006" in line for line in lines)


def test_a_failed_revision_that_is_asked_for_again_is_the_one_to_explain() -> None:
    """As by a GitOps tool, after another revision was promoted."""
    document = {**d.ROLLED_BACK, "status": {**d.ROLLED_BACK["status"]}}
    document["status"]["rollout"] = {"phase": "Promoted", "hold": "RolledBack", "message": "failed"}
    assert facts.state(document).word == "RolledBack"
    assert view.subject(document) == d.CANARY


def test_explain_a_past_revision() -> None:
    lines = explained(d.STEADY, d.OLDER)
    assert lines[0] == f"Revision {d.OLDER} was replaced 5d ago."
    assert f"  - go back to it, through the gates: tidegate undo magika {d.OLDER}" in lines
    assert explained(d.STEADY)[0] == f"Revision {d.STABLE} was promoted 2d ago."
    assert "  It serves." in explained(d.STEADY)


def test_explain_says_why_so_many_replicas() -> None:
    scaling = {
        "desired": 3,
        "requiredReplicas": 3,
        "arrivalRate": "75",
        "capacityPerPod": "33",
        "reason": "the load needs them",
    }
    document = {**d.STEADY, "status": {**d.STEADY["status"], "scaling": scaling}}
    expected = (
        "  3 replicas asked for, 3 required (arrivals 75 a second, a pod carries 33 a second): "
        "the load needs them."
    )
    assert expected in explained(document)
    assert "scaling  3 replicas required, 3 asked, arrivals 75, a pod carries 33" in tree(document)
    document["status"]["scaling"] = {"desired": 3, "reason": "Fixed"}
    assert "  3 replicas asked for: Fixed." in explained(document)


def test_explain_before_there_is_anything() -> None:
    assert explained(d.NEW) == [
        "No revision yet: the operator has not looked at it.",
        "What you can do:",
        "  - does an operator lead, and watch this namespace? tidegate doctor",
    ]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (d.NEW, "the operator has not looked at it yet; does an operator lead"),
        (d.OUTDATED, "the operator has not looked at the changed spec yet; does an operator"),
        (d.STEADY, ""),
    ],
)
def test_what_nobody_has_looked_at_says_so(document: d.Document, said: str) -> None:
    found = [line for line in tree(document).splitlines() if "not looked at" in line]
    assert len(found) == bool(said)
    assert all(said in line for line in found)


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (d.ERRORS_BAD, "15 of 200 failed (7.5%), limit 1%"),
        (d.AGAINST_CLEAR, "15 of 200 failed (7.5%), on stable 3 of 3,800 (0.079%)"),
        (d.LATENCY_CLEAR, "1 of 420 took 100ms or longer (0.24%), limit 1%"),
        (d.LATENCY_WORSE, "18 of 2,000 were slow (0.9%), on stable 24 of 8,000 (0.3%)"),
        (
            d.CLIENT_BAD,
            "200 of 200 were blamed on the client (100%), on stable 3 of 3,800 (0.079%)",
        ),
        ({"test": "errors", "canary": "0/0"}, "no requests yet"),
        ({"test": "errors"}, "no requests yet"),
        ({"test": "later", "canary": "1/2", "observed": "50%"}, "1 of 2 later (50%)"),
    ],
)
def test_a_tests_numbers(test: d.Document, expected: str) -> None:
    assert facts.sentence(test, d.TARGET) == expected


@pytest.mark.parametrize(
    ("test", "brief", "at_length"),
    [
        (
            {"test": "errors", "clusters": "2.5/2.5"},
            "counts as 0.4, stable's failures come in clusters",
            "Stable's own failures come in clusters: their variance is 2.5 times that of "
            "independent requests. So 100 requests weigh as much as 40 independent ones.",
        ),
        (
            {"test": "latencyAgainstStable", "clusters": "4/1"},
            "counts as 0.25, stable's latencies come in clusters",
            "Stable's own latencies seem to come in clusters: their variance is 4 times that of "
            "independent requests. So 100 requests weigh as much as 25 independent ones where they "
            "speak against it, as 100 where they speak for it.",
        ),
        ({"test": "errors"}, "", ""),
        ({"test": "errors", "clusters": None}, "", ""),
        ({"test": "errors", "clusters": "1/1"}, "", ""),
        ({"test": "errors", "clusters": "0/0"}, "", ""),
        ({"test": "errors", "clusters": "4"}, "", ""),
        ({"test": "errors", "clusters": "many/few"}, "", ""),
    ],
)
def test_what_requests_count_as_where_stables_come_in_clusters(
    test: d.Document, brief: str, at_length: str
) -> None:
    assert facts.counts_as(test) == brief
    assert facts.counts_as_at_length(test) == at_length


def test_clusters_are_told_by_get_and_explained_once_a_kind() -> None:
    """Both tests of failures count alike; the latency's requests are whole."""
    assert [
        line.split()[1] for line in tree(d.CLUSTERS).splitlines() if "come in clusters" in line
    ] == ["errorsAgainstStable", "errors"]
    assert [line for line in explained(d.CLUSTERS) if "clusters" in line] == [
        f"  {facts.counts_as_at_length({'test': 'errors', 'clusters': '4/2.5'})}"
    ]
    assert "clusters" not in tree(d.STEP) + "".join(explained(d.STEP))


@pytest.mark.parametrize(
    ("evidence", "needed", "expected"),
    [
        ("1", "2000", 0.0),
        ("0.2", "2000", 0.0),
        ("2000", "2000", 1.0),
        ("9e99", "2000", 1.0),
        ("inf", "2000", 1.0),
        ("100", "10000", 0.5),
        ("nan", "2000", 0.0),
        (None, "2000", 0.0),
        ("5", "0", 0.0),
    ],
)
def test_evidence_is_drawn_on_the_scale_on_which_it_adds_up(
    evidence: str | None, needed: str, expected: float
) -> None:
    found = facts.towards({"evidence": evidence, "needed": needed})
    assert found == pytest.approx(expected)


@given(st.floats(0, 1))
def test_a_bar_is_full_or_empty_only_where_that_is_so(fraction: float) -> None:
    text = render.plain(render.Bar(fraction, "green"), width=80).strip()
    assert len(text) == render.BAR_WIDTH
    full = text.count("█")
    assert (full == 0) == (fraction == 0)
    assert (full == render.BAR_WIDTH) == (fraction == 1)


def test_no_glyphs_where_the_terminal_has_none() -> None:
    console = Console(width=120, color_system=None, file=TextIOWrapper(BytesIO(), "ascii"))
    with console.capture() as captured:
        console.print(shown(d.STEP, d.PODS))
    assert captured.get().isascii()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59.4, "59s"),
        (60, "1m"),
        (192, "3m12s"),
        (630, "10m"),
        (7200, "2h"),
        (9000, "2h30m"),
        (86400 * 9 + 3600, "9d1h"),
        (86400 * 99, "99d"),
    ],
)
def test_spans(seconds: float, expected: str) -> None:
    assert facts.span(seconds) == expected


def test_the_list() -> None:
    other = {**d.STEADY, "metadata": {**d.STEADY["metadata"], "namespace": "lab"}}
    lines = render.plain(listed([d.STEP, other], namespaces=True)).splitlines()
    assert [line.split() for line in lines] == [
        ["NAMESPACE", "NAME", "STATE", "STABLE", "CANARY", "WEIGHT", "STEP", "PODS", "AGE"],
        f"lab magika Ready {d.STABLE} - - - 3/3 9d".split(),
        f"models magika Canary {d.STABLE} {d.CANARY} 5% 2/4 4/4 9d".split(),
    ]


def test_the_history() -> None:
    lines = render.plain(past(d.ROLLED_BACK)).splitlines()
    assert lines[1].startswith(
        f"{d.CANARY}    RolledBack  3m ago  ErrorRate: 15 of 200 requests failed"
    )
    assert lines[2].startswith(f"{d.STABLE} *")


def test_every_decision_that_events_still_tell_of() -> None:
    """Between the outcomes of rollouts stand steps and scalings, each with its numbers."""
    events = [
        {"type": kind, "reason": reason, "message": text, "lastTimestamp": d.ago(minutes=minutes)}
        for kind, reason, text, minutes in (
            ("Normal", "StepTaken", "25 %: 4 of 600 failed (0.67 %), limit 1 %", 4),
            ("Normal", "Scaled", "2 to 3: 75 requests a second, a pod carries 33", 2),
            ("Warning", "RequestRefused", "undo by ada: there is no such kept revision", 1),
        )
    ]
    told = view.timeline(view.document(d.ROLLED_BACK, now=d.NOW, events=events))
    times = [one["time"] for one in told]
    assert times == sorted(times, reverse=True)
    assert len(told) == len(d.ROLLED_BACK["status"]["history"]) + 3
    lines = render.plain(render.timeline(told, d.NOW)).splitlines()
    assert lines[0].split() == ["WHEN", "WHAT", "WHY"]
    assert lines[1].startswith("1m ago")
    (scaled,) = [line for line in lines if "Scaled" in line]
    assert scaled.endswith("2 to 3: 75 requests a second, a pod carries 33")
    assert any(f"{d.CANARY} was rolled back" in line for line in lines)


def test_gates_ought_to_be_true_and_all_other_conditions_false() -> None:
    document = d.deployment(
        {
            "conditions": [
                d.condition("Approved", "Unknown", "Asked"),
                d.condition("RuntimeOutdated", "True", "NewerDefaults"),
                d.condition("MetricsAvailable", "Unknown", "NotMeasured"),
                d.condition("SLOMet", "True", "Met"),
            ]
        },
        spec={"rollout": {"gates": ["Approved"]}},
    )
    assert [c["type"] for c in facts.concerns(document)] == ["Approved", "RuntimeOutdated"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "Ready"),
        ({"labels": {}}, "OutOfService"),
        ({"deletionTimestamp": d.ago()}, "Terminating"),
    ],
)
def test_a_pods_state(change: dict[str, Any], expected: str) -> None:
    pod = d.pod("p", d.STABLE)
    pod["metadata"] |= change
    assert pod_state(pod)[0] == expected


def test_a_pod_that_waits() -> None:
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod = d.pod("p", d.STABLE, phase="Pending", conditions=[waiting])
    assert pod_state(pod)[0] == "Unschedulable"
    assert pod_state(d.pod("p", d.STABLE, ready=False))[0] == "NotReady"


@given(st.sampled_from(sorted(d.ALL)), st.randoms(use_true_random=False))
def test_a_status_with_fields_left_out_can_be_shown(name: str, random: Random) -> None:
    """An operator of another version: any optional field may be missing."""

    def thinned(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: thinned(v)
                for k, v in value.items()
                if k in ("type", "status") or random.randrange(8)
            }
        if isinstance(value, list):
            return [thinned(v) for v in value]
        return value

    whole = d.ALL[name]
    document = {**whole, "status": thinned(whole.get("status"))}
    tree(document, d.PODS)
    for hash_ in ["", *facts.known_revisions(document)]:
        explained(document, hash_)
    render.plain(listed([document]))
    render.plain(past(document))
