"""How a new revision earns traffic."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tidegate.api.block import LIST_SET, Block, Duration, Percent
from tidegate.api.patterns import CONDITION_PATTERN, HEADER_NAME_PATTERN, HEADER_VALUE_PATTERN


class Strategy(StrEnum):
    """How a new revision takes over."""

    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    RECREATE = "Recreate"


class Step(Block):
    """One step of a canary."""

    weight: Percent = Field(description="Share of the traffic.")
    hold: Duration = Field("30s", description="Least time at this weight.")


class ErrorsAgainstStable(StrEnum):
    """What to do when a canary is worse than stable."""

    ROLL_BACK = "RollBack"
    HOLD = "Hold"
    IGNORE = "Ignore"


class AgainstStable(Block):
    """Comparison with the stable revision."""

    errors: ErrorsAgainstStable = Field(
        ErrorsAgainstStable.ROLL_BACK, description="If it fails more often than stable."
    )
    latency: ErrorsAgainstStable = Field(
        ErrorsAgainstStable.HOLD, description="If it is slower than stable, within the SLO."
    )
    margin: Percent = Field(
        "50%", description="By how much of the SLO's budget it may be worse than stable."
    )


class MirrorMode(StrEnum):
    """Whether live requests are copied to a new revision before it serves."""

    AUTO = "Auto"
    OFF = "Off"
    REQUIRED = "Required"


class Mirror(Block):
    """Copies of live requests, answers discarded."""

    mode: MirrorMode = Field(
        MirrorMode.AUTO,
        description='Auto: where the gateway can. Required: no rollout without. "Off" in quotes, '
        "or YAML reads false.",
    )
    percent: Percent = Field("10%", description="Share of the requests that is copied.")
    min_requests: int = Field(
        200, ge=1, le=1_000_000, description="Copies to see before the first step."
    )
    deadline: Duration = Field("10m", description="Longest wait for them.")


class Surge(StrEnum):
    """Whether extra pods are asked for during a rollout."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class OnInconclusive(StrEnum):
    """What to do when the evidence does not decide before the deadline."""

    HOLD = "Hold"
    PROMOTE = "Promote"
    ROLL_BACK = "RollBack"


class Inconclusive(Block):
    """What to do when the evidence does not decide."""

    action: OnInconclusive = Field(OnInconclusive.HOLD, description="What to do.")
    deadline: Duration = Field("24h", description="After how long in one step.")


class Pin(Block):
    """Requests with these headers always reach the canary."""

    headers: dict[
        Annotated[str, Field(pattern=HEADER_NAME_PATTERN, max_length=256)],
        Annotated[str, Field(pattern=HEADER_VALUE_PATTERN, min_length=1, max_length=4096)],
    ] = Field(default_factory=dict, max_length=8, description="All must match, exactly.")


DEFAULT_STEPS: tuple[Step, ...] = (
    Step(weight="1%"),
    Step(weight="5%"),
    Step(weight="25%"),
    Step(weight="50%"),
)


class Rollout(Block):
    """How a new revision earns traffic."""

    strategy: Strategy = Field(Strategy.CANARY, description="How a new revision takes over.")
    steps: tuple[Step, ...] = Field(
        DEFAULT_STEPS,
        min_length=1,
        max_length=20,
        description="Shares of the traffic, ascending; 100% follows the last by promotion.",
    )
    false_rollback_rate: Percent = Field(
        "0.1%", description="Chance that a good revision is rolled back, over the whole rollout."
    )
    confidence: Percent = Field("95%", description="Certainty that promotion asks for.")
    against_stable: AgainstStable = Field(
        default_factory=AgainstStable, description="Comparison with the stable revision."
    )
    mirror: Mirror = Field(default_factory=Mirror, description="Copies of live requests.")
    surge: Surge = Field(
        Surge.AUTO, description="Extra pods during a rollout: Auto asks, then swaps one of N."
    )
    surge_wait: Duration = Field("5m", description="How long Auto waits for room.")
    on_inconclusive: Inconclusive = Field(
        default_factory=Inconclusive, description="What to do when the evidence does not decide."
    )
    progress_deadline: Duration = Field(
        "30m", description="Longest time until a new revision's first pod is ready."
    )
    bake: Duration = Field("10m", description="How long the old pods stay after promotion.")
    keep_failed: Duration = Field("0s", description="How long a failed revision's pods stay.")
    gates: tuple[
        Annotated[str, Field(pattern=CONDITION_PATTERN, min_length=1, max_length=63)], ...
    ] = Field(
        (),
        max_length=8,
        description="Conditions that outside parties set, of a revision; unknown is not success.",
        json_schema_extra=LIST_SET,
    )
    paused: bool = Field(False, description="Hold the rollout where it is.")
    pin: Pin = Field(default_factory=Pin, description="Requests that always reach the canary.")
