"""What became of a simulated rollout: its decisions, how it stood, what clients got."""

from dataclasses import dataclass, field

from tidegate.record import Phase
from tidegate.simulation.sidecar import Class


@dataclass(frozen=True)
class Decision:
    """What the plan said from a time on.

    Attributes:
        at_s: when.
        phase: of the rollout.
        weight: the new version's share of the requests.
        mirror: share that is copied to it.
        hold: why it does not go on; empty: it does.
        message: for people.
    """

    at_s: float
    phase: Phase
    weight: float
    mirror: float
    hold: str
    message: str


@dataclass(frozen=True)
class Side:
    """One version at one moment.

    Attributes:
        desired: pods asked for.
        ready: pods that serve.
        arrived: clients' requests since the last moment.
        missed: of those that ended since, failed or late.
        latency_s: of the objective's quantile over the last half minute; None: no answers.
    """

    desired: int
    ready: int
    arrived: int
    missed: int
    latency_s: float | None


@dataclass(frozen=True)
class Moment:
    """How it stood.

    Attributes:
        at_s: since the start.
        weight: the new version's share of the requests.
        mirror: share that is copied to it.
        old, new: the versions.
    """

    at_s: float
    weight: float
    mirror: float
    old: Side
    new: Side


@dataclass
class Outcome:
    """What became of it.

    Attributes:
        phase: of the rollout at the end; None: the change made no new revision.
        reason: why, CamelCase; empty: nothing was decided.
        message: the same for people.
        ended_s: when it was promoted (all requests to the new version) or taken back; None: not.
        done_s: when the old pods could go (after the bake), or as `ended_s`; None: not.
        first_s: when the first client's request reached the new version; None: none ever did.
        old, new: what clients got.
        new_until_ended: of the new version, at `ended_s`.
        copies: requests that were copied to the new version.
        nowhere: requests for which no pod was ready.
        in_flight: not answered when the world ended.
        decisions: in order; without the rollout of what served at the start.
        moments: each `tidegate.simulation.rollout.MOMENT_S`.
        gpu_s: pods times seconds.
        events: (seconds, type, reason, message), as told.
    """

    phase: Phase | None = None
    reason: str = ""
    message: str = ""
    ended_s: float | None = None
    done_s: float | None = None
    first_s: float | None = None
    old: Class = field(default_factory=Class)
    new: Class = field(default_factory=Class)
    new_until_ended: Class = field(default_factory=Class)
    copies: int = 0
    nowhere: int = 0
    in_flight: int = 0
    decisions: list[Decision] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    gpu_s: float = 0.0
    events: list[tuple[float, str, str, str]] = field(default_factory=list)

    @property
    def arrived(self) -> int:
        """Clients' requests."""
        return self.old.started + self.new.started + self.nowhere
