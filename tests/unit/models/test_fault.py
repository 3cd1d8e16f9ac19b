"""What befalls which request is decided, and the same each time."""

import pytest

from e2e.models.faulty.fault import Fault
from e2e.models.faulty.versions import NAMES, version


@pytest.mark.parametrize("share", [0.0, 0.003, 0.02, 0.05, 0.2, 1.0])
def test_a_share_of_the_requests_fails(share: float) -> None:
    fault = Fault(fail_share=share)
    failed = [fault.fails(number) for number in range(20_000)]
    # Four standard deviations: the draws are fixed, so this holds for ever or never.
    assert sum(failed) / 20_000 == pytest.approx(share, abs=4 * (share / 20_000) ** 0.5)
    assert failed == [fault.fails(number) for number in range(20_000)]


def test_another_seed_fails_others() -> None:
    one, two = Fault(fail_share=0.2), Fault(fail_share=0.2, seed=1)
    assert [one.fails(n) for n in range(100)] != [two.fails(n) for n in range(100)]
    assert one.dump() != two.dump()


def test_slow_and_failing_requests_are_drawn_apart() -> None:
    fault = Fault(fail_share=0.5, slow_share=0.5, slow_ms=200.0)
    both = sum(fault.fails(n) and fault.takes_s(n) == 0.2 for n in range(10_000))
    assert both == pytest.approx(2500, abs=200)


def test_the_first_are_slow() -> None:
    fault = Fault(slow_first=50, slow_ms=300.0, service_ms=20.0)
    assert [fault.takes_s(n) for n in (0, 49, 50, 51)] == [0.3, 0.3, 0.02, 0.02]


def test_it_hangs_after_so_many() -> None:
    assert [Fault(hang_after=200).hangs(n) for n in (0, 199, 200, 1000)] == [
        *(False, False),
        *(True, True),
    ]
    assert not any(Fault().hangs(n) for n in range(1000))


@pytest.mark.parametrize("name", NAMES)
def test_each_version_is_another_artefact_and_says_its_name(name: str) -> None:
    fault = version(name, seed=3)
    assert Fault.load_text(fault.dump()) == fault
    assert (fault.says, fault.seed) == (name, 3)


def test_no_two_versions_are_the_same_artefact() -> None:
    assert len({version(name).dump() for name in NAMES}) == len(NAMES)
