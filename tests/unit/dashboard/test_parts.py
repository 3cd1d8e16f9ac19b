"""Rates from counters, the charts' past, mailboxes, settings, and the files that are served."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.dashboard import documents
from tidegate.dashboard import files, trail
from tidegate.dashboard.board import Mailbox
from tidegate.dashboard.feed import MOST_PAUSE_S, Backoff
from tidegate.dashboard.measuring import Speeds, in_ms, readable
from tidegate.dashboard.settings import Settings, SettingsError
from tidegate.resources.sidecar import TrafficClass
from tidegate.sidecar_page import Counts, Reading
from tidegate.view import document, facts

EDGES = (10, 50, 100)


def reading(
    at_s: float,
    answered: int,
    failed: int = 0,
    faster: tuple[int, ...] = (0, 0, 0),
    pod: str = "a",
    revision: str = "r1",
    uptime_s: float | None = None,
) -> Reading:
    counts = Counts(
        started=answered + 1,
        succeeded=answered - failed,
        failed=failed,
        in_flight=1,
        timed=answered,
        faster=faster,
    )
    return Reading(pod, revision, at_s, EDGES, {TrafficClass.CLIENT: counts}, uptime_s or at_s, pod)


def test_rates_are_what_happened_between_the_looks() -> None:
    speeds = Speeds()
    speeds.observe([reading(100, 1000, 10, (400, 900, 990))], 100)
    assert speeds.measured()["r1"]["requestsPerS"] is None
    speeds.observe([reading(110, 1200, 14, (420, 1000, 1188))], 110)
    found = speeds.measured(0.5)["r1"]
    assert found["requestsPerS"] == 20
    assert found["errorShare"] == 0.02
    assert found["inFlight"] == 1
    # Of the 200 new answers 20 took up to 10 ms, 100 up to 50: half of them.
    assert found["quantileMs"] == 50


def test_pods_of_a_revision_add_up_and_revisions_stay_apart() -> None:
    speeds = Speeds()
    speeds.observe(
        [reading(0, 0), reading(0, 0, pod="b"), reading(0, 0, pod="c", revision="r2")], 0
    )
    speeds.observe(
        [reading(10, 50), reading(10, 30, pod="b"), reading(10, 5, pod="c", revision="r2")], 10
    )
    found = speeds.measured()
    assert (found["r1"]["requestsPerS"], found["r2"]["requestsPerS"]) == (8, 0.5)


def test_a_restart_is_no_negative_rate() -> None:
    speeds = Speeds()
    speeds.observe([reading(100, 1000, uptime_s=500)], 100)
    speeds.observe([reading(102, 3, uptime_s=1)], 102)
    assert speeds.measured()["r1"]["requestsPerS"] is None
    speeds.observe([reading(104, 23, uptime_s=3)], 104)
    assert speeds.measured()["r1"]["requestsPerS"] == 10


def test_what_is_not_read_any_more_is_forgotten() -> None:
    speeds = Speeds()
    speeds.observe([reading(100, 1000)], 100)
    speeds.observe([], 140)
    assert speeds.measured() == {}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=40))
def test_rates_are_never_negative_and_shares_never_above_one(steps: list[tuple[int, int]]) -> None:
    speeds, good, failed = Speeds(), 0, 0
    for at, (more, worse) in enumerate(steps):
        good, failed = good + more, failed + worse
        total = good + failed
        speeds.observe([reading(at, total, failed, (good // 2, good, total))], at)
    found = speeds.measured()["r1"]
    assert found["requestsPerS"] >= 0
    assert found["errorShare"] is None or 0 <= found["errorShare"] <= 1
    assert found["quantileMs"] is None or 0 <= found["quantileMs"] <= EDGES[-1]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("100ms", 100), ("1.5s", 1500), ("", None), ("fast", None), ("xs", None), ("250", None)],
)
def test_latencies_are_read(text: str, ms: float | None) -> None:
    assert in_ms(text) == ms


def test_only_pods_with_an_address_of_their_own_are_read() -> None:
    found = readable(
        [
            documents.pod("good", "h", ip="10.0.0.1"),
            documents.pod("six", "h", ip="fd00::1"),
            documents.pod("none", "h"),
            documents.pod("host", "h", ip="10.0.0.9", hostNetwork=True),
        ]
    )
    assert [p.address for p in found] == ["10.0.0.1:9091", "[fd00::1]:9091"]


# The past.


def at(now_s: float, found: dict[str, Any] | None = None) -> trail.Point:
    told = document(found or documents.rolling(), now=datetime.now(UTC))
    return trail.point(told, now_s)


def test_a_point_holds_what_the_charts_show() -> None:
    point = at(10.0)
    assert point["revisions"][documents.CANARY]["weight"] == 5
    assert 0 < point["tests"]["latency"] < 1
    assert point["forward"] == pytest.approx(640 / 1380)
    assert at(10.0, documents.ready())["tests"] == {}


@pytest.mark.parametrize(("after_s", "tests"), [(2.0, {"errors": 1.0}), (60.0, {})])
def test_what_took_a_canary_back_is_seen_to_reach_its_bound(
    after_s: float, tests: dict[str, float]
) -> None:
    found = documents.rolled_back()
    ended = facts.moment(found["status"]["rollout"]["since"])
    assert ended is not None
    assert at(ended.timestamp() + after_s, found)["tests"] == tests


def test_a_rollback_by_hand_reaches_no_bound() -> None:
    found = documents.rolled_back()
    found["status"]["revisions"]["failed"][0]["evidence"] = ""
    ended = facts.moment(found["status"]["rollout"]["since"])
    assert ended is not None
    assert at(ended.timestamp() + 1.0, found)["tests"] == {}


def test_the_past_is_bounded_and_two_readers_do_not_double_it() -> None:
    trails = trail.Trails()
    point = at(0.0)
    for n in range(2 * trail.POINTS):
        trails.add("uid", {**point, "t": 2.0 * n})
        assert not trails.add("uid", {**point, "t": 2.0 * n + 0.3})
    assert len(trails.past("uid")) == trail.POINTS
    for n in range(trail.DEPLOYMENTS):
        trails.add(f"other-{n}", point)
    assert trails.past("uid") == []


# Mailboxes.


async def test_a_mailbox_holds_the_newest_of_each_thing() -> None:
    mailbox = Mailbox()
    for n in range(1000):
        mailbox.put("a", b"a%d" % n)
        mailbox.put("b", b"b%d" % n)
    mailbox.put("a", b"last")
    assert await mailbox.take() == [b"b999", b"last"]
    assert len(mailbox) == 0


def test_pauses_grow_to_a_bound() -> None:
    backoff = Backoff(random=lambda: 1.0)
    pauses = [backoff.next_s() for _ in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MOST_PAUSE_S


# Settings, files.


def test_settings_in_a_pod() -> None:
    found = Settings.from_environment(
        {"KUBERNETES_SERVICE_HOST": "fd00::1", "TIDEGATE_NAMESPACES": "a, b,"}
    )
    assert found.api_server == "https://[fd00::1]:443"
    assert found.namespaces == ("a", "b")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TIDEGATE_API_SERVER": "ftp://x"},
        {"TIDEGATE_API_SERVER": "https://x", "TIDEGATE_HTTP_PORT": "x"},
    ],
)
def test_settings_that_cannot_be_used(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        Settings.from_environment(environment)


def test_code_of_others_is_what_it_was_when_it_was_taken() -> None:
    sums: dict[Path, dict[str, str]] = {}
    for path in (files.FOLDER / "vendor").glob("*/SHA256SUMS"):
        lines = path.read_text(encoding="utf-8").splitlines()
        sums[path.parent] = {name: digest for digest, name in map(str.split, lines)}
    assert sums
    for folder, expected in sums.items():
        assert "LICENSE" in expected
        found = {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.iterdir()
            if p.name != "SHA256SUMS"
        }
        assert found == expected
