"""What Tidegate reports: the ``status`` of a ModelDeployment."""

from typing import Literal

from pydantic import Field

from tidegate.api.block import Block, list_map

ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(Block):
    """A condition with the meaning that kstatus gives it."""

    type: str = Field(max_length=63, description="Available, Ready, Reconciling, Stalled, ...")
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: str = Field(max_length=63, description="Why, in one CamelCase word.")
    message: str = Field("", max_length=2048, description="Why, and how to mend it.")
    last_transition_time: str = Field(description="RFC 3339, UTC.")
    observed_generation: int = Field(description="The spec that it speaks of.")
    revision: str | None = Field(
        None,
        max_length=63,
        description="Hash of the revision that it speaks of: a gate's must say.",
    )


class ColdStartStatus(Block):
    """How long its pods took from creation to Ready, the latest ones."""

    pods: int = Field(description="How many.")
    median: str = Field(description="For example 41s.")
    largest: str = Field(description="The slowest.")
    phases: str = Field(description="Median of each, for example image 4 s, fetch 21 s, load 9 s.")


class RevisionState(Block):
    """One revision and how it does."""

    name: str = Field(description="Of its Deployment, ConfigMap, Service and ControllerRevision.")
    hash: str = Field(description="Of what shapes its pods.")
    digest: str | None = Field(None, description="sha256 of the model's bytes, once fetched.")
    source: str | None = Field(None, description="Where its model comes from.")
    image: str | None = Field(None, description="Its Triton image.")
    replicas: int = Field(0, description="Pods.")
    ready_replicas: int = Field(0, description="Pods that serve.")
    state: str = Field("Pending", description="Pending, Fetching, Loading, Ready, Failed, ...")
    reason: str | None = Field(None, description="Why, in one CamelCase word.")
    message: str | None = Field(None, description="Why, and how to mend it.")
    created: str | None = Field(None, description="RFC 3339, UTC.")
    cold_start: ColdStartStatus | None = Field(None, description="How long its pods take to start.")


class TestStatus(Block):
    """One test of a canary and its numbers."""

    __test__ = False  # no test case of pytest's

    test: str = Field(
        description="errors, errorsAgainstStable, latency, latencyAgainstStable or clientErrors."
    )
    observed: str = Field(description="The canary's share, for example 7.5%.")
    bound: str = Field(description="The share that it is held to.")
    canary: str = Field(description="Count / requests of the canary, for example 15/200.")
    stable: str | None = Field(None, description="The same of stable.")
    evidence: str = Field(description="The e-value.")
    needed: str = Field(description="The e-value at which the test fires.")
    verdict: str = Field(description="Bad, Worse or Clear.")
    seen: str | None = Field(None, description="First / last time of what it counts.")
    clusters: str | None = Field(
        None,
        description="Divides the evidence, against / for it: stable's outcomes come in clusters.",
    )


class EvidenceStatus(Block):
    """What is known of a canary."""

    verdict: str = Field(description="Good, Bad or NotYet.")
    requests: int = Field(0, description="Canary requests behind it.")
    requests_needed: int | None = Field(None, description="Canary requests to the next decision.")
    seconds_needed: int | None = Field(None, description="The same at the present rate.")
    tests: tuple[TestStatus, ...] = Field((), max_length=8, description="Each test.")
    state: str | None = Field(None, max_length=4096, description="To go on from after a restart.")
    time: str | None = Field(None, description="RFC 3339, UTC.")


class FailedRevision(Block):
    """A revision that gets no traffic again without a changed spec or an explicit retry."""

    hash: str = Field(description="Of what shapes its pods.")
    reason: str = Field(description="Why, in one CamelCase word.")
    message: str = Field("", description="Why, and how to mend it.")
    time: str = Field(description="RFC 3339, UTC.")
    evidence: str | None = Field(None, description="The numbers of the test that fired.")


class Revisions(Block):
    """The revisions in play."""

    stable: RevisionState | None = Field(None, description="The one to go back to.")
    canary: RevisionState | None = Field(None, description="The one that is being tried.")
    failed: tuple[FailedRevision, ...] = Field(
        (), max_length=10, description="Those that get no traffic again by themselves."
    )


class TrafficShare(Block):
    """Weight asked for and share measured of one revision."""

    revision: str = Field(description="Its hash.")
    weight: int = Field(description="Asked for, in percent.")
    observed_share: str | None = Field(None, description="Measured.")


class RolloutStatus(Block):
    """Where a rollout stands."""

    phase: str = Field(description="What is going on.")
    weight: str | None = Field(None, description="The canary's share in force, for example 5%.")
    step: int | None = Field(None, description="Index into rollout.steps.")
    steps: int | None = Field(None, description="How many there are.")
    mirror: str | None = Field(None, description="Share of the requests that is copied.")
    hold: str | None = Field(None, description="Why it does not go on, in one CamelCase word.")
    started: str | None = Field(None, description="RFC 3339, UTC.")
    since: str | None = Field(None, description="RFC 3339, UTC.")
    next_decision: str | None = Field(None, description="When, or what it waits for.")
    message: str | None = Field(None, description="The same in a sentence.")
    evidence: EvidenceStatus | None = Field(None, description="What is known of the canary.")


class SetBy(Block):
    """Who set spec.replicas."""

    manager: str = Field(max_length=256, description="Its field manager.")
    replicas: int = Field(description="To how many.")
    time: str = Field("", description="RFC 3339, UTC.")


class ScalingStatus(Block):
    """Where scaling stands and why: each number that led to it, as measured at that time."""

    desired: int = Field(description="Replicas asked for.")
    required_replicas: int | None = Field(
        None, description="Replicas that the load needs, spare ones included, within the bounds."
    )
    spare: int | None = Field(None, description="Of them, as headroom.")
    hold: str | None = Field(None, description="Why desired is another number, in one word.")
    arrival_rate: str | None = Field(None, description="Requests a second.")
    arrivals_from: str | None = Field(None, description="What counted them.")
    dispersion: str | None = Field(None, description="Variance to mean; Poisson is 1.")
    arrivals_by_triton: str | None = Field(
        None, description="The same by Triton's own counters, of those that the sidecar let in."
    )
    capacity_per_pod: str | None = Field(None, description="Requests a second within the SLO.")
    throughput_per_pod: str | None = Field(None, description="That it can answer at most.")
    required_max: int | None = Field(
        None, description="Highest need of the last five minutes, without spare ones."
    )
    growth: str | None = Field(
        None, description="Of the load within a cold start, where spare ones come of it."
    )
    service_time: str | None = Field(None, description="Of a batch of n, for example 8 + 6 n ms.")
    latency: str | None = Field(None, description="The SLO's quantile, last minute.")
    latency_modelled: str | None = Field(None, description="The same by the capacity model.")
    feedback: str | None = Field(None, description="Factor from modelled to measured latency.")
    pending: str | None = Field(None, description="Requests without an answer yet.")
    backlog: str | None = Field(None, description="Of them, what has piled up.")
    coverage: str | None = Field(None, description="Share of the Ready pods that was read.")
    cold_start: str | None = Field(None, description="From asking for a pod until it serves.")
    raised: str | None = Field(None, description="When replicas last went up. RFC 3339, UTC.")
    lowered: str | None = Field(None, description="When they last went down. RFC 3339, UTC.")
    set_by: tuple[SetBy, ...] = Field(
        (),
        max_length=3,
        description="Who set spec.replicas lately, in Fixed and External mode; the last one last.",
    )
    reason: str = Field(description="Why that many.")


class SloStatus(Block):
    """Measured against promised, for reading."""

    latency: str | None = Field(None, description="Measured / target, for example 83ms/100ms.")
    error_rate: str | None = Field(None, description="Measured / limit, for example 0.2%/1%.")
    window: str | None = Field(None, description="Over how long.")


class HistoryEntry(Block):
    """One past revision."""

    revision: str = Field(description="Its hash.")
    outcome: str = Field(description="What became of it.")
    reason: str = Field("", description="Why.")
    time: str = Field(description="RFC 3339, UTC.")


class InactiveField(Block):
    """A field that is accepted but not acted on by this version of Tidegate."""

    field: str = Field(description="Its path below spec.")
    reason: str = Field(description="What happens instead.")


class QualityStatus(Block):
    """How good a revision's answers are."""

    revision: str = Field(description="Its hash.")
    accuracy: str | None = Field(None, description="By labels.")
    shift: str | None = Field(None, description="The field that moved most.")


class Status(Block):
    """The status of a ModelDeployment."""

    observed_generation: int | None = Field(None, description="The spec that this speaks of.")
    replicas: int = Field(0, description="Pods of all revisions.")
    ready_replicas: int = Field(0, description="Pods that serve.")
    selector: str | None = Field(None, description="Of the pods, for /scale.")
    conditions: tuple[Condition, ...] = Field(
        (), description="How it is.", json_schema_extra=list_map("type")
    )
    revisions: Revisions = Field(default_factory=Revisions, description="The revisions in play.")
    traffic: tuple[TrafficShare, ...] = Field((), description="Who gets which share.")
    rollout: RolloutStatus | None = Field(None, description="Where the rollout stands.")
    scaling: ScalingStatus | None = Field(None, description="How many replicas, and why.")
    slo: SloStatus | None = Field(None, description="Measured against promised.")
    url: str | None = Field(None, description="Where the model answers.")
    history: tuple[HistoryEntry, ...] = Field((), description="Past revisions, newest first.")
    inactive: tuple[InactiveField, ...] = Field(
        (), description="Fields set in the spec that this version does not act on yet."
    )
    quality: tuple[QualityStatus, ...] | None = Field(
        None, description="Answers, by tidegate-quality."
    )
    last_request: str | None = Field(None, description="Id of the last verb that was handled.")
