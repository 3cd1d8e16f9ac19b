"""The table of scenarios: which version meets which rollout, and what must become of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from e2e.models.faulty.versions import TARGET_MS
from e2e.rollouts import disturbances
from e2e.rollouts.disturbances import Disturbance

RATE_HZ: Final = 50.0
STEPS: Final = ("5%", "25%", "50%")


class Outcome(StrEnum):
    """What becomes of a canary."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"
    """Another version was asked for before it was decided."""
    HELD = "Held"
    """It stays where it is, for a reason that status gives."""
    UNDECIDED = "Undecided"
    """Nothing of the above within the time."""


@dataclass(frozen=True)
class Scenario:
    """One canary.

    Attributes:
        name: of the scenario.
        canary: the version on trial (`e2e.models.faulty.versions`).
        expected: what must become of it.
        stable: the version that serves.
        words: must stand in the explanation, at least one of them; empty: any explanation.
        most_failed: client responses that may fail; None: any number.
        rate_hz: requests a second, half over HTTP, half over gRPC; 0: none.
        limit_s: until it must have come to what is expected.
        slo: ``spec.slo``.
        steps: weights; empty: the strategy has none.
        rollout: merged over ``spec.rollout``.
        runtime: merged over the ``spec.runtime`` of the canary *and* stable.
        canary_runtime: merged over the canary's alone.
        replicas: of stable.
        golden: whether there are golden requests.
        disturbance: what else happens.
        undo: the canary is the former revision, asked for by the verb ``undo``.
        gap: by design clients are without a version for a while; they must be served again at the
            end, and the pods are watched, too.
        held_s: what is to be held must stay so for so long.
        timeout_s: of the client's requests.
        slow: not part of ``make test``.
        note: for the table.
    """

    name: str
    canary: str
    expected: Outcome
    stable: str = "plain"
    words: tuple[str, ...] = ()
    most_failed: int | None = None
    rate_hz: float = RATE_HZ
    limit_s: float = 60.0
    slo: Mapping[str, Any] = field(default_factory=lambda: {"maxErrorRate": "1%"})
    steps: tuple[str, ...] = STEPS
    rollout: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    canary_runtime: Mapping[str, Any] = field(default_factory=dict)
    replicas: int = 1
    golden: bool = False
    disturbance: Disturbance | None = None
    undo: bool = False
    gap: bool = False
    held_s: float = 5.0
    timeout_s: float = 5.0
    slow: bool = False
    note: str = ""

    @property
    def stage(self) -> tuple[object, ...]:
        """What scenarios must have in common to use the same ModelDeployment."""
        return self.stable, self.replicas, repr(sorted(self.runtime.items()))


def _latency(quantile: str, target_ms: int) -> dict[str, Any]:
    return {
        "maxErrorRate": "1%",
        "latency": {"quantile": quantile, "target": f"{target_ms}ms"},
    }


MIRROR: Final = {"mirror": {"mode": "Required", "percent": "100%", "minRequests": 200}}
BLUE_GREEN: Final = {"strategy": "BlueGreen"}
RECREATE: Final = {"strategy": "Recreate"}
TO_STABLE: Final = {"againstStable": {"errors": "RollBack", "latency": "RollBack"}}
_BACK: Final = Outcome.ROLLED_BACK
_GOOD: Final = Outcome.PROMOTED

SCENARIOS: Final = (
    # Fails requests.
    Scenario("fails-all", "fails-all", _BACK),
    Scenario("fails-20", "fails-20", _BACK),
    Scenario("fails-5", "fails-5", _BACK, limit_s=300, slow=True),
    Scenario("fails-2", "fails-2", _BACK, limit_s=900, slow=True),
    Scenario(
        "error-responses",
        "error-responses",
        _BACK,
        note="Triton counts its answers as successes",
    ),
    Scenario("refuses-all", "refuses-all", _BACK, note="400 to every request"),
    Scenario("fails-all-mirrored", "fails-all", _BACK, rollout=MIRROR, most_failed=0),
    Scenario("fails-20-mirrored", "fails-20", _BACK, rollout=MIRROR, most_failed=0, slow=True),
    # Slow.
    Scenario("2x-slower", "2x-slower", _BACK, slo=_latency("0.9", 100), limit_s=120),
    Scenario(
        "1.3x-slower",
        "1.3x-slower",
        _BACK,
        slo=_latency("0.99", TARGET_MS),
        rollout=TO_STABLE,
        limit_s=300,
        slow=True,
        note="within the SLO; againstStable.latency: RollBack",
    ),
    Scenario(
        "slow-tail", "slow-tail", _BACK, slo=_latency("0.99", TARGET_MS), limit_s=300, slow=True
    ),
    Scenario("hangs", "hangs", _BACK, limit_s=300, slow=True, note="after 200 requests"),
    Scenario(
        "hangs-slo",
        "hangs",
        _BACK,
        slo=_latency("0.9", 500),
        limit_s=300,
        slow=True,
        note="after 200 requests; with a latency objective, 500 ms",
    ),
    Scenario(
        "hangs-mirrored",
        "hangs",
        _BACK,
        slo=_latency("0.9", 500),
        # A mirror finds what shows within its requests.
        rollout={"mirror": {**MIRROR["mirror"], "minRequests": 400}},
        most_failed=0,
        limit_s=120,
        slow=True,
        note="after 200 requests, of 400 mirrored; with a latency objective, 500 ms",
    ),
    Scenario(
        "good-until-8",
        "good-until-8",
        _BACK,
        stable="long",
        limit_s=300,
        slow=True,
        note="350 ms service time",
    ),
    Scenario(
        "good-until-8-mirrored",
        "good-until-8",
        _BACK,
        stable="long",
        rollout=MIRROR,
        most_failed=0,
        slow=True,
        note="350 ms service time",
    ),
    # Does not come up, or not for long.
    Scenario("crashes", "crashes", _BACK, words=("the weights do not fit",), most_failed=0),
    Scenario("exits", "exits", _BACK, most_failed=0, slow=True),
    Scenario(
        "never-ready",
        "never-ready",
        _BACK,
        rollout={"progressDeadline": "40s"},
        limit_s=120,
        most_failed=0,
        slow=True,
    ),
    Scenario("leaks", "leaks", _BACK, limit_s=300, slow=True, note="until it is out of memory"),
    # Answers wrongly.
    Scenario("wrong", "wrong", _BACK, golden=True, most_failed=0, note="golden requests"),
    # Good.
    Scenario("same", "same", _GOOD, rollout=MIRROR, most_failed=0, limit_s=120),
    Scenario("same-unmirrored", "same", _GOOD, most_failed=0, limit_s=240, slow=True),
    Scenario(
        "undo",
        "plain",
        _GOOD,
        rollout=MIRROR,
        most_failed=0,
        limit_s=120,
        undo=True,
        note="back to the former revision, through the gates",
    ),
    Scenario(
        "background-errors",
        "background-too",
        _GOOD,
        stable="background",
        rollout=MIRROR,
        limit_s=600,
        slow=True,
        note="0.3 % errors in both",
    ),
    Scenario(
        "nearly-slow",
        "nearly-slow-too",
        _GOOD,
        stable="nearly-slow",
        slo=_latency("0.95", TARGET_MS),
        rollout=MIRROR,
        limit_s=900,
        slow=True,
        note="slow share of both at 0.9 x SLO",
    ),
    Scenario(
        "slow-first-50",
        "slow-first-50",
        _GOOD,
        slo=_latency("0.95", TARGET_MS),
        rollout=MIRROR,
        limit_s=300,
        slow=True,
        note="its first 50 requests take 900 ms",
    ),
    Scenario(
        "10-percent-slower",
        "10-percent-slower",
        _GOOD,
        slo=_latency("0.95", TARGET_MS),
        rollout=MIRROR,
        limit_s=300,
        slow=True,
        note="within the SLO",
    ),
    Scenario(
        "2-rps",
        "same",
        _GOOD,
        rate_hz=2.0,
        steps=("50%",),
        slo={"maxErrorRate": "10%"},
        most_failed=0,
        limit_s=180,
    ),
    Scenario(
        "2-rps-1-percent",
        "same",
        _GOOD,
        rate_hz=2.0,
        rollout=MIRROR,
        most_failed=0,
        limit_s=900,
        slow=True,
    ),
    Scenario(
        "no-traffic",
        "same",
        Outcome.HELD,
        rate_hz=0.0,
        words=("NeedsMoreRequests",),
        limit_s=60,
        note="unknown is neither success nor failure",
    ),
    # All at once, with the old pods beside them.
    Scenario("blue-green", "same", _GOOD, rollout=BLUE_GREEN, steps=(), most_failed=0),
    Scenario(
        "blue-green-fails-all",
        "fails-all",
        _BACK,
        # The old pods are the way back for so long, and the new ones are judged meanwhile.
        rollout={**BLUE_GREEN, "bake": "30s"},
        steps=(),
        note="nothing looks at its answers before the switch",
    ),
    Scenario(
        "blue-green-fails-20",
        "fails-20",
        _BACK,
        rollout={**BLUE_GREEN, "bake": "30s"},
        steps=(),
        slow=True,
    ),
    Scenario(
        "blue-green-wrong",
        "wrong",
        _BACK,
        rollout=BLUE_GREEN,
        steps=(),
        golden=True,
        most_failed=0,
        slow=True,
        note="golden requests before the switch",
    ),
    Scenario(
        "blue-green-fails-20-mirrored",
        "fails-20",
        _BACK,
        rollout={**BLUE_GREEN, **MIRROR},
        steps=(),
        most_failed=0,
        slow=True,
    ),
    # Stable is sick itself: 5 % of its requests fail, where 1 % may.
    Scenario(
        "stable-failing",
        "fails-5-too",
        Outcome.HELD,
        stable="fails-5",
        words=("StableFailing",),
        held_s=60.0,
        limit_s=300,
        slow=True,
        note="5 % errors in both",
    ),
    Scenario(
        "stable-failing-better",
        "same",
        _GOOD,
        stable="fails-5",
        limit_s=300,
        slow=True,
        note="5 % errors in stable, none in the canary",
    ),
    Scenario(
        "stable-failing-worse",
        "fails-20",
        _BACK,
        stable="fails-5",
        limit_s=300,
        slow=True,
        note="5 % errors in stable, 20 % in the canary",
    ),
    # Something happens meanwhile.
    Scenario(
        "superseded",
        "same",
        Outcome.SUPERSEDED,
        disturbance=disturbances.SUPERSEDE,
        most_failed=0,
    ),
    Scenario(
        "reverted", "same", Outcome.SUPERSEDED, disturbance=disturbances.REVERT, most_failed=0
    ),
    *(
        Scenario(
            f"operator-killed-{phase.lower()}",
            "fails-20",
            _BACK,
            golden=phase == "Verifying",
            rollout=MIRROR if phase == "Mirroring" else {},
            disturbance=disturbances.kill_operator(phase),
            limit_s=180,
            slow=phase != "Canary",
        )
        for phase in ("Preparing", "Verifying", "Mirroring", "Canary")
    ),
    Scenario(
        "operator-killed-baking",
        "same",
        _GOOD,
        rollout={**MIRROR, "bake": "15s"},
        disturbance=disturbances.kill_operator("Baking"),
        most_failed=0,
        limit_s=240,
        slow=True,
    ),
    Scenario(
        "prometheus-gone",
        "fails-20",
        _BACK,
        disturbance=disturbances.PROMETHEUS_GONE,
        limit_s=180,
        slow=True,
    ),
    Scenario(
        "prometheus-gone-good",
        "same",
        _GOOD,
        rollout=MIRROR,
        disturbance=disturbances.PROMETHEUS_GONE,
        most_failed=0,
        limit_s=240,
        slow=True,
    ),
    Scenario(
        "gateway-controller-restarted",
        "fails-20",
        _BACK,
        disturbance=disturbances.GATEWAY_CONTROLLER_RESTARTED,
        limit_s=180,
        slow=True,
    ),
    Scenario(
        "stable-pod-lost",
        "fails-all",
        _BACK,
        replicas=2,
        disturbance=disturbances.STABLE_POD_LOST,
        limit_s=180,
        slow=True,
        note="one of two stable pods is killed as the canary gets traffic",
    ),
    Scenario(
        "no-gpu",
        "same",
        Outcome.HELD,
        runtime={"gpu": {"count": 3}},
        words=("WaitingForGPU",),
        most_failed=0,
        limit_s=120,
        slow=True,
        note="3 GPUs a pod on a node of 4",
    ),
    # The old pods make room first, so clients are without a version for a while.
    Scenario(
        "recreate",
        "same",
        _GOOD,
        runtime={"gpu": {"count": 3}},
        rollout=RECREATE,
        steps=(),
        gap=True,
        limit_s=300,
        slow=True,
        note="3 GPUs a pod on a node of 4",
    ),
    Scenario(
        "recreate-crashes",
        "crashes",
        _BACK,
        runtime={"gpu": {"count": 3}},
        rollout=RECREATE,
        steps=(),
        gap=True,
        limit_s=300,
        slow=True,
        note="3 GPUs a pod on a node of 4",
    ),
    Scenario(
        "recreate-fails-20",
        "fails-20",
        _BACK,
        runtime={"gpu": {"count": 3}},
        rollout={**RECREATE, "bake": "30s"},
        steps=(),
        gap=True,
        limit_s=300,
        slow=True,
        note="3 GPUs a pod on a node of 4",
    ),
)
BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}
