"""Bad versions of a real model take themselves back, good ones go live; a client sees everything.

Each case is a row of `e2e.rollouts.scenarios`: 50 requests a second through the gateway, a canary
that begins with 5 % of them.
"""

import time
from collections.abc import Iterator

import pytest

from e2e.rollouts.scenarios import BY_NAME, SCENARIOS, Outcome
from e2e.rollouts.stage import Stage, play
from e2e.tests.space import Space, is_current

_seed = int(time.time()) % 1_000_000_000
"""Of the first canary: other bytes, thus another revision, in each run."""


def next_seed() -> int:
    global _seed
    _seed += 10
    return _seed


@pytest.fixture(scope="module")
def stage(space: Space) -> Iterator[Stage]:
    """One ModelDeployment for as many rows as can share it."""
    found = Stage(space, SCENARIOS[0])
    yield found
    found.close()


@pytest.mark.parametrize(
    "name",
    [pytest.param(s.name, marks=[pytest.mark.slow] if s.slow else []) for s in SCENARIOS],
)
def test_becomes_what_it_must(stage: Stage, name: str) -> None:
    result = play(stage, BY_NAME[name], next_seed())
    print(
        f"{result.outcome} after {result.decided_s:.1f} s, {result.failed} of {result.sent} failed"
    )
    print(result.explanation)
    course = "\n".join(f"{seen.at_s:7.2f} s {dict(seen.said)}" for seen in result.seen)
    errors = "\n".join(f"{count} x {text}" for text, count in result.errors.items())
    assert result.good, f"{result.problem}\n{result.told}\n{course}\n{errors}"


def test_a_failed_version_stays_out_until_it_is_asked_for_again(stage: Stage) -> None:
    result = play(stage, BY_NAME["crashes"], next_seed())
    assert result.outcome is Outcome.ROLLED_BACK, result.told
    space, name = stage.space, stage.name
    failed = space.live(name)
    [newest, *_] = failed["status"]["revisions"]["failed"]
    # What GitOps does every few minutes: the same spec again, and once more with another label.
    for value in ("one", "two"):
        path = space.kube.path(failed["apiVersion"], failed["kind"], space.name, name)
        space.kube.request(
            "PATCH",
            path,
            body={"metadata": {"labels": {"applied": value}}, "spec": failed["spec"]},
            content_type="application/merge-patch+json",
        )
        time.sleep(1.5)
        found = space.live(name)
        assert is_current(found)
        assert found["status"]["rollout"]["phase"] == "RolledBack"
        assert found["status"]["revisions"]["failed"][0] == newest
    stage.request("retry")
    space.until(
        name,
        lambda f: f["status"]["rollout"]["phase"] == "Preparing",
        "it is tried again",
        seconds=20.0,
    )
