"""The write fence's arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.runtime.fence import Fence, FencedError


def test_it_is_closed_until_a_renewal() -> None:
    with pytest.raises(FencedError):
        Fence(10.0).check(0.0)


def test_it_falls_a_deadline_after_the_renewal_began() -> None:
    fence = Fence(10.0)
    fence.renewed(100.0)
    assert fence.check(100.0) == 10.0
    assert fence.check(109.0) == 1.0
    with pytest.raises(FencedError):
        fence.check(110.0)


def test_a_renewal_that_is_heard_of_late_does_not_move_it_back() -> None:
    fence = Fence(10.0)
    fence.renewed(100.0)
    fence.renewed(95.0)
    assert fence.remaining_s(101.0) == 9.0


def test_closed_is_closed() -> None:
    fence = Fence(10.0)
    fence.renewed(100.0)
    fence.close()
    assert fence.remaining_s(100.0) == 0.0


@given(
    st.floats(0.1, 100),
    st.lists(st.floats(0, 1000), min_size=1),
    st.floats(0, 2000),
)
def test_no_write_later_than_the_last_renewal_and_the_deadline(
    deadline: float, renewals: list[float], now: float
) -> None:
    fence = Fence(deadline)
    for began in renewals:
        fence.renewed(began)
    if fence.remaining_s(now) > 0:
        assert now < max(renewals) + deadline
