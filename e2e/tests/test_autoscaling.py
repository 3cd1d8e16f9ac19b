"""Replicas follow the load of a real Triton, by what it measured and no target set by hand.

One pod of the model holds about 60 requests a second within the objective. It sleeps instead of
computing, so that many of its pods fit on a small machine.
"""

import tempfile
from pathlib import Path
from typing import Final

import pytest

from e2e.load import Course, Load, Orders, Request
from e2e.models.sleeper.build import MODEL, Times, build
from e2e.rollouts.stage import gateway_address
from e2e.tests import artefacts
from e2e.tests.space import SETTINGS, Space, condition, is_current, model_deployment

NAME: Final = "sleeper"
HOST: Final = "sleeper.example.test"
TIMES: Final = Times(alpha_ms=60.0, beta_ms=6.5, batch=8)
"""At most 71 requests a second; about 60 of them within the objective."""
TARGET_MS: Final = 400
CLIENTS: Final = 2


@pytest.fixture(scope="module")
def sleeper(space: Space) -> str:
    """A ModelDeployment behind the gateway, in SLO mode by having a latency objective."""
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder) / "repository", TIMES) / MODEL
        files = {
            p.relative_to(built).as_posix(): p.read_bytes()
            for p in sorted(built.rglob("*"))
            if p.is_file()
        }
    spec = {
        "slo": {"latency": {"quantile": "0.99", "target": f"{TARGET_MS}ms"}},
        # No spare pod: the numbers below are what the load alone needs.
        "scaling": {"mode": "SLO", "minReplicas": 1, "maxReplicas": 6, "headroom": "0"},
        "traffic": {
            "gateway": {
                "parentRefs": [{"name": "public", "namespace": SETTINGS.infra_namespace}],
                "hostnames": [HOST],
            }
        },
    }
    found = model_deployment(NAME, artefacts.put("sleeper", files), spec)
    del found["spec"]["replicas"]
    space.apply(found)
    space.ready(NAME)
    return NAME


def load_on(space: Space, course: Course) -> Load:
    """Half of it over HTTP, half over gRPC, through the gateway, which balances each request."""
    address = gateway_address(space)
    each = tuple((seconds, rate_hz / CLIENTS) for seconds, rate_hz in course)
    return Load(
        Orders(address, address, NAME, "x", course=each, host=HOST, connections=0, timeout_s=10.0)
    )


def slow_share(requests: list[Request]) -> float:
    """Share of the requests that were slower than the objective, or failed."""
    bad = [r for r in requests if r.error or r.took_s * 1000 > TARGET_MS]
    return len(bad) / len(requests)


def replicas(space: Space) -> int:
    return int(space.live(NAME)["status"]["scaling"]["desired"])


def test_more_load_gets_more_pods_and_says_by_which_numbers(space: Space, sleeper: str) -> None:
    with load_on(space, ((75.0, 30.0), (5.0, 100.0), (220.0, 100.0))) as load:
        found = space.until(
            sleeper,
            lambda f: is_current(f) and f["status"].get("readyReplicas", 0) >= 2,
            "a second pod that serves",
            seconds=240.0,
        )
        told = found["status"]["scaling"]
        asked_at = len(load.requests)
        load.await_more(300)
        late = slow_share(load.requests[asked_at + 200 :])
    print(told)
    assert told["desired"] == 2
    # As it was when that was decided, on the way from 30 to 100.
    assert 50.0 < float(told["arrivalRate"]) < 110.0
    assert f"{told['arrivalRate']} req/s arriving" in told["reason"]
    assert f"within {TARGET_MS} ms" in told["reason"]
    assert told["raised"]
    events = space.kube.list("v1", "Event", space.name)
    assert [e for e in events if e["reason"] == "Scaled" and "1 -> 2 replicas" in e["message"]]
    assert condition(space.live(sleeper), "MetricsAvailable")["status"] == "True"
    print(f"{100 * late:.2f} % slower than {TARGET_MS} ms once two pods served")


@pytest.mark.slow
def test_a_ramp_and_back_keeps_the_objective_and_turns_once(space: Space, sleeper: str) -> None:
    space.until(
        sleeper, lambda f: f["status"]["scaling"]["desired"] == 1, "one pod again", seconds=900.0
    )
    course: Course = ((90.0, 20.0), (300.0, 200.0), (90.0, 200.0), (120.0, 20.0), (600.0, 20.0))
    seen = [1]

    def watch(_: object) -> bool:
        now = replicas(space)
        if now != seen[-1]:
            seen.append(now)
        return len(load.requests) > 90 * 20 and max(seen) > 1 and now == 1

    with load_on(space, course) as load:
        space.until(sleeper, watch, "up and down again", seconds=1150.0)
    late = slow_share(load.requests)
    failed = sum(bool(r.error) for r in load.requests)
    print(
        f"replicas {seen}; {100 * late:.2f} % of {len(load.requests)} late or failed, "
        f"{failed} of them failed"
    )
    top = seen.index(max(seen))
    assert max(seen) == 4
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    assert late <= 0.01
