import random

import pytest

from tests.unit.analysis.simulation import binomial
from tidegate.analysis.tempering import FROM_FEW, Dispersion


def clustered(
    seed: int, *, size: int, share: float, blocks: int, clusters: int, spread: int = 1
) -> Dispersion:
    """Blocks where each client sends `size` requests with one outcome, over `spread` blocks."""
    source = random.Random(seed)
    counts = [[0, 0] for _ in range(blocks + spread)]
    for block in range(blocks):
        for _ in range(clusters):
            failed = source.random() < share
            if spread == 1:
                counts[block][0] += size * failed
                counts[block][1] += size
                continue
            for _ in range(size):
                at = counts[block + source.randrange(spread)]
                at[0] += failed
                at[1] += 1
    dispersion = Dispersion()
    for failures, requests in counts[spread:blocks]:
        dispersion.add(failures, requests)
    return dispersion


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.009, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("requests", [2, 45, 200])
def test_independent_requests_count_in_full(share: float, requests: int) -> None:
    for seed in range(3):
        found = clustered(seed, size=1, share=share, blocks=200, clusters=requests)
        assert found.exponent() <= 1.2


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.009, 0.05, 1.0])
@pytest.mark.parametrize("requests", [2, 45, 200])
def test_independent_requests_are_seldom_suspected(share: float, requests: int) -> None:
    found = sorted(
        clustered(seed, size=1, share=share, blocks=200, clusters=requests).suspected()
        for seed in range(5)
    )
    assert found[3] == 1.0
    assert found[4] <= 5.0


# A cluster that takes 12 of the 32 blocks of the longest level is often cut in two.
@pytest.mark.parametrize(("spread", "least"), [(1, 0.7), (4, 0.6), (12, 0.4)])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.7])
def test_the_size_of_clusters_is_found(share: float, spread: int, least: float) -> None:
    found = sorted(
        clustered(seed, size=10, share=share, blocks=600, clusters=5, spread=spread).exponent()
        for seed in range(9)
    )
    assert 10.0 * least <= found[4] <= 16.0
    assert found[-1] <= 30.0


@pytest.mark.parametrize(("share", "clusters"), [(0.005, 5), (0.005, 50), (0.02, 10)])
def test_clusters_are_suspected_before_they_are_known(share: float, clusters: int) -> None:
    """Ten requests a client over ten blocks: what five minutes of stable show, and two."""
    for blocks, least in ((310, 5.0), (130, 3.0)):
        dispersions = [
            clustered(s, size=10, share=share, blocks=blocks, clusters=clusters, spread=10)
            for s in range(9)
        ]
        suspected = sorted(each.suspected() for each in dispersions)
        assert least <= suspected[4]
        assert suspected[-1] <= FROM_FEW
        if blocks == 130:
            assert sorted(each.exponent() for each in dispersions)[4] == 1.0


@pytest.mark.parametrize("failing", [0.3, 1.0])
@pytest.mark.parametrize("length", [1, 7, 40])
def test_one_incident_is_no_dispersion(failing: float, length: int) -> None:
    source, dispersion = random.Random(1), Dispersion()
    for block in range(200):
        share = failing if 100 < block <= 100 + length else 0.002
        dispersion.add(binomial(source, 45, share), 45)
    assert dispersion.exponent() <= 1.5
    assert dispersion.suspected() <= FROM_FEW


def test_a_rate_that_drifts_is_no_dispersion() -> None:
    source, dispersion = random.Random(1), Dispersion()
    for block in range(600):
        requests = 20 + block // 10
        dispersion.add(binomial(source, requests, 0.001 + block / 6_000), requests)
    assert dispersion.exponent() <= 1.3


def test_little_known_means_no_tempering() -> None:
    dispersion = Dispersion()
    assert dispersion.exponent() == 1.0
    for failed in (0, 0, 10, 0, 0, 0):
        dispersion.add(failed, 50)
    assert dispersion.exponent() == 1.0
    assert dispersion.suspected() == FROM_FEW


def test_blocks_without_requests_are_harmless() -> None:
    dispersion = Dispersion()
    for _ in range(100):
        dispersion.add(0, 0)
        dispersion.add(5, 5)
    assert dispersion.suspected() == 1.0
