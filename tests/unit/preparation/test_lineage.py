import pytest

from tidegate.preparation import lineage


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("400000\n", 4),
    ],
)
def test_a_containers_limit_in_whole_cores(limit: str, cores: int | None) -> None:
    assert lineage.whole_cores(limit) == cores
