"""Pauses between put-backs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.runtime import put_backs as module
from tidegate.runtime.put_backs import PutBacks


def test_the_first_time_is_at_once_and_then_it_takes_ever_longer() -> None:
    put_backs = PutBacks(first_s=1.0, limit_s=8.0)
    put_backs.wished("u", "wish")
    now, pauses = 0.0, []
    for _ in range(6):
        pause = put_backs.wait_s("u", "wish", now)
        pauses.append(pause)
        now += pause
        put_backs.done("u", now)
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert put_backs.wait_s("another", "wish", now) == 0.0


def test_after_a_calm_time_counting_begins_anew() -> None:
    put_backs = PutBacks(first_s=1.0, calm_s=100.0)
    put_backs.wished("u", "wish")
    for now in (0.0, 1.0, 3.0):
        put_backs.done("u", now)
    assert put_backs.wait_s("u", "wish", 4.0) > 0.0
    assert put_backs.wait_s("u", "wish", 104.0) == 0.0
    put_backs.done("u", 104.0)
    assert put_backs.wait_s("u", "wish", 104.0) == 1.0


@given(st.lists(st.floats(0, 500), max_size=20))
def test_pauses_never_pass_the_limit(steps: list[float]) -> None:
    put_backs = PutBacks(first_s=1.0, limit_s=60.0)
    put_backs.wished("u", "wish")
    now = 0.0
    for step in steps:
        now += step
        assert 0.0 <= put_backs.wait_s("u", "wish", now) <= 60.0
        put_backs.done("u", now)


def test_a_new_wish_goes_at_once_and_the_old_one_waits_no_longer_either() -> None:
    put_backs = PutBacks(first_s=10.0)
    put_backs.wished("u", "half")
    put_backs.done("u", 0.0)
    assert put_backs.wait_s("u", "half", 1.0) == 9.0
    assert put_backs.wait_s("u", "none", 1.0) == 0.0
    put_backs.wished("u", "none")
    assert put_backs.wait_s("u", "half", 1.0) == 0.0


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    put_backs = PutBacks(first_s=10.0)
    for uid in "abc":
        put_backs.wished(uid, "wish")
        put_backs.done(uid, 0.0)
    assert [put_backs.wait_s(uid, "wish", 0.0) for uid in "abc"] == [0.0, 10.0, 10.0]
