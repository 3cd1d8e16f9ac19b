"""A rollout in simulated time: `tidegate.plan.plan` itself decides, over objects and pods made up.

A pass goes in rounds, as `tidegate.runtime.reconciler` does it: snapshot, plan, actions, until
nothing changes any more; status last. Between passes time leaps to the next thing that happens: a
look at the sidecars, a pod that comes up, a deadline of the plan's, the change of the spec, a fault
that begins or ends. Clients' requests are spread as the route says, copies go to the canary.

What it does not have: the network, the gateway's own queue and retries, keep-alive connections, API
server and watch delays (some tens of milliseconds each), verbs, and events in the cluster besides
those that are asked for.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidegate.actions import DeletePod, DeletionCost, Event, Plan, TakeOut, WriteStatus
from tidegate.api.names import REVISION_LABEL
from tidegate.api.spec import Spec, parse
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import LAW
from tidegate.judging import Trial
from tidegate.observed import GoldenResult, Measurements, Observed, Ref
from tidegate.plan import plan
from tidegate.platform import Platform, Profile
from tidegate.record import Phase, Record
from tidegate.resources.sidecar import latency_edges_ms
from tidegate.revision import pod_shape, revision_hash
from tidegate.rollout import LIVE
from tidegate.simulation.faults import Defect, Fault, edges_of, size_of
from tidegate.simulation.fleet import Fleet, moment_of
from tidegate.simulation.gateway import Gateway
from tidegate.simulation.law import EPOCH_S, model_of, triton_of
from tidegate.simulation.load import Load
from tidegate.simulation.looking import Loads, Pages
from tidegate.simulation.objects import Objects
from tidegate.simulation.outcome import Decision, Moment, Outcome, Side
from tidegate.simulation.pod import Server
from tidegate.simulation.sidecar import Class
from tidegate.simulation.world import TAIL_S, quantile

MOMENT_S: Final = 5.0
GOLDEN_S: Final = 1.0
"""Until golden requests are answered."""
LATENCY_OVER: Final = 6
"""Moments over which a quantile is taken."""
SERVED_S: Final = 3600.0
"""What serves at the start has done so for so long."""
ROUNDS: Final = 12
KINDS: Final = frozenset({"HTTPRoute", "GRPCRoute", "ResourceClaimTemplate"})


@dataclass(frozen=True)
class Staging:
    """What is to be played.

    Attributes:
        name: of the ModelDeployment.
        before: spec of what serves at the start, as written.
        after: spec that is applied later.
        change_s: when.
        old, new: how a pod of each serves.
        load: what clients ask for.
        initial: ready pods at the start, where replicas follow the load.
        cold_start_s: median time from a node to serving.
        cold_start_sigma: of its logarithm.
        drain_s: least time that a pod which goes keeps its GPU.
        gpus: pods for which there are some.
        faults: what goes wrong.
    """

    name: str
    before: dict[str, Any]
    after: dict[str, Any]
    change_s: float
    old: Server
    new: Server
    load: Load
    initial: int = 1
    cold_start_s: float = 60.0
    cold_start_sigma: float = 0.2
    drain_s: float = 10.0
    gpus: float = math.inf
    faults: tuple[Fault, ...] = ()


class RestlessError(Exception):
    """A plan that asks for changes again and again; a defect."""


class Rollout:
    """One run.

    Args:
        staging: what is to be played.
        seed: of everything random.
        arrivals: of the load with this seed, where they are at hand already.
    """

    def __init__(
        self, staging: Staging, seed: int, arrivals: Sequence[float] | None = None
    ) -> None:
        self.staging = staging
        self.outcome = Outcome()
        self._end_s = staging.load.duration_s
        specs = parse(staging.before), parse(staging.after)
        self._old, self._new = (revision_hash(pod_shape(spec)) for spec in specs)
        self._platform = _platform(specs)
        self.objects = Objects(staging.name, staging.before)
        target_ms = max(1, round(1000 * staging.old.target_s))
        self._fleet = Fleet(
            servers={self._new: staging.new} | {self._old: staging.old},
            edges_s=tuple(edge / 1000 for edge in latency_edges_ms(target_ms)),
            cold_start_s=staging.cold_start_s,
            sigma=staging.cold_start_sigma,
            drain_s=staging.drain_s,
            gpus=staging.gpus,
            faults=staging.faults,
            seed=seed,
        )
        self._gateway = Gateway(
            self._fleet,
            staging.load.arrivals(seed) if arrivals is None else arrivals,
            self._old,
            self._new,
            seed,
        )
        self._trial: Trial | None = None
        self._loads = Loads()
        self._golden: dict[str, GoldenResult] = {}
        self._golden_s = math.inf
        self._plan = Plan()
        self._pages = Pages(staging.faults, seed)
        self._quiet = True
        self._histories: dict[str, deque[list[int]]] = {
            h: deque(maxlen=LATENCY_OVER + 1) for h in (self._old, self._new)
        }
        self._before: dict[str, Class] = {}

    def run(self) -> Outcome:
        """Play it to the end.

        Raises:
            RestlessError: a plan does not come to rest.
        """
        self._begin()
        faults = edges_of(self.staging.faults)
        look_s, load_s, moment_s = math.inf, LAW.interval_s, MOMENT_S
        again_s, at, changed = math.inf, 0.0, False
        self._fleet.disturb(0.0)
        while at < self._end_s:
            times = [look_s, load_s, moment_s, again_s, self._golden_s, self._end_s]
            times += [t for t in faults if t > at]
            times += [t for t in self._fleet.changes() if t > at]
            if not changed and self.staging.change_s > at:
                times.append(self.staging.change_s)
            if self._gateway.changes_s is not None:
                times.append(self._gateway.changes_s)
            if any(r.leaving_s is not None for r in self._fleet.replicas):
                times.append(at + 1.0)
            until = min(times)
            self._gateway.dispatch(at, until)
            self._fleet.advance(until)
            look = until >= min(again_s, self._golden_s)
            if until >= self._golden_s:
                self._golden_s = math.inf
            if not changed and until >= self.staging.change_s:
                changed = look = True
                self._fleet.new = "" if self._new == self._old else self._new
                self.objects.edit(self.staging.after)
            if until in faults:
                self._lose_pods(until)
                look = True
            look = self._fleet.clear(until) or look
            self._fleet.disturb(until)
            look = any(at < t <= until for t in self._fleet.changes()) or look
            at = until
            self._gateway.change(at)
            if at >= load_s:
                load_s = at + LAW.interval_s
                look = self._look_at_load(at) or look
            if self._trial is not None and at >= look_s:
                look = self._look_at_trial(at) or look
                look_s = at + self._trial.pause_s(EPOCH_S + at)
            if look:
                after_s = self._reconcile(at)
                again_s = math.inf if after_s is None else at + after_s
                look_s = self._wanted(at, look_s)
            if at >= moment_s:
                moment_s = at + MOMENT_S
                self._note(at)
        self._finish(at)
        return self.outcome

    # The start and the end.

    def _begin(self) -> None:
        """What serves at the start is promoted already."""
        at = -2 * SERVED_S
        for _ in range(20):
            self._reconcile(at, served_since_s=SERVED_S)
            self._wanted(at, math.inf)
            at += 10.0
            if self.objects.record.phase is Phase.PROMOTED:
                break
        else:
            raise RestlessError(f"nothing serves at the start: {self.objects.record}")
        spec = parse(self.staging.before)
        if spec.scaling_mode == "SLO":
            deployment = Ref("apps/v1", "Deployment", f"{self.staging.name}-{self._old}")
            self.objects.scale(deployment, self.staging.initial)
        self._reconcile(-SERVED_S / 2, served_since_s=SERVED_S / 4)
        for replica in self._fleet.replicas:
            replica.pod.ready_s = 0.0
        self._gateway.change(math.inf)
        self._quiet = False
        self._fleet.gpu_s = 0.0

    def _finish(self, end_s: float) -> None:
        fleet, outcome = self._fleet, self.outcome
        held = (r.scheduled_s for r in fleet.replicas if r.scheduled_s is not None)
        outcome.gpu_s = fleet.gpu_s + sum(end_s - max(0.0, since_s) for since_s in held)
        at = end_s
        while at < end_s + TAIL_S and not all(r.pod.idle for r in fleet.replicas):
            at += 5.0
            fleet.advance(at)
            if any(r.pod.slower > 1e6 for r in fleet.replicas):
                break  # these never answer
        outcome.old, outcome.new = fleet.clients(self._old), fleet.clients(self._new)
        if self._new == self._old:
            outcome.new, outcome.phase = Class(), None
        else:
            record = self.objects.record
            outcome.phase = record.phase
        gateway = self._gateway
        outcome.copies, outcome.nowhere = gateway.copies, gateway.nowhere
        outcome.first_s = gateway.first_s
        outcome.in_flight = outcome.old.in_flight + outcome.new.in_flight

    # The operator.

    def _reconcile(self, at: float, *, served_since_s: float = 0.0) -> float | None:
        """One pass; returns when to look again."""
        now = moment_of(at)
        told: dict[Event, None] = {}
        for _ in range(ROUNDS):
            found = self._plan = plan(
                Observed(
                    deployment=self.objects.deployment,
                    children=dict(self.objects.children),
                    pods=tuple(self._fleet.documents(at)),
                    present_kinds=KINDS,
                ),
                self._platform,
                now,
                self._measurements(at),
            )
            changed = False
            for action in found.actions:
                if isinstance(action, Event):
                    told[action] = None
                elif isinstance(action, DeletePod | TakeOut | DeletionCost):
                    changed = self._to_a_pod(action, at) or changed
                elif not isinstance(action, WriteStatus):
                    changed = self.objects.carry_out(action, now) or changed
            deployments = self.objects.of_kind("Deployment")
            self._fleet.follow(deployments, at, served_since_s=served_since_s)
            if not changed:
                break
        else:
            raise RestlessError(f"the plan does not come to rest: {self.objects.record}")
        for action in found.actions:
            if isinstance(action, WriteStatus):
                self.objects.carry_out(action, now)
        self._fleet.disturb(at)
        record = self.objects.record
        mirror = record.mirror if record.phase in LIVE else 0.0
        self._gateway.told(self.objects.shares(), mirror, at)
        if not self._quiet:
            known = {event[1:] for event in self.outcome.events}
            fresh = [(e.type, e.reason, e.message) for e in told]
            self.outcome.events += [(at, *e) for e in fresh if e not in known]
            self._remember(at)
        return found.requeue_after_s

    def _to_a_pod(self, action: DeletePod | TakeOut | DeletionCost, at: float) -> bool:
        replica = self._fleet.named(action.uid)
        if replica is None:
            return False
        if isinstance(action, DeletePod):
            self._fleet.leave(replica, at)
        elif isinstance(action, TakeOut):
            self._fleet.take_out(replica)
        else:
            replica.cost = action.cost
            return False  # an annotation on a pod; nothing follows from it
        return True

    def _wanted(self, at: float, look_s: float) -> float:
        """Have measured what the plan asks for; returns when to look at the trial next."""
        measure, verify, load = self._plan.measure, self._plan.verify, self._plan.load
        scaled = {} if load is None else load.scaled
        self._loads.want({h: model_of(self._fleet.servers[h]) for h in scaled})
        wrong = size_of(self.staging.faults, Defect.WRONG_ANSWERS, at) is not None
        for uid in (uid for one in verify for uid in one.pods):
            replica = self._fleet.named(uid)
            if replica is not None and uid not in self._golden:
                passed = not (wrong and replica.revision == self._fleet.new)
                text = "answers as expected" if passed else "an answer was not as expected"
                self._golden[uid] = GoldenResult(passed, text, moment_of(at))
                self._golden_s = at + GOLDEN_S
        if measure is None:
            self._trial = None
            return math.inf
        if self._trial is None or not self._trial.is_of(measure):
            self._trial = Trial(measure)
            return at + 0.01
        self._trial.want(measure)
        return min(look_s, at + self._trial.pause_s(EPOCH_S + at))

    def _measurements(self, at: float) -> Measurements:
        return Measurements(
            rollout=None if self._trial is None else self._trial.measured,
            golden=dict(self._golden),
            load=dict(self._loads.demands),
            in_flight={r.name: r.pod.in_flight for r in self._fleet.replicas},
        )

    def _remember(self, at: float) -> None:
        """What was decided, in the words of status."""
        outcome, record = self.outcome, self.objects.record
        if record.canary != self._new and record.stable != self._new:
            return
        said = self.objects.status.get("rollout") or {}
        decision = Decision(
            at_s=at,
            phase=record.phase,
            weight=_weight(record),
            mirror=record.mirror if record.phase in LIVE else 0.0,
            hold=said.get("hold") or "",
            message=record.message if record.phase not in LIVE else said.get("message") or "",
        )
        last = outcome.decisions[-1] if outcome.decisions else None
        if last is None or _of(last) != _of(decision):
            outcome.decisions.append(decision)
        if outcome.ended_s is None and record.phase in (
            *(Phase.BAKING, Phase.PROMOTED, Phase.ROLLED_BACK, Phase.SUPERSEDED),
        ):
            outcome.ended_s = at
        if record.phase is Phase.ROLLED_BACK and outcome.reason != record.reason:
            # Promoted and taken back in the bake: the latter counts.
            outcome.ended_s = at
        if outcome.ended_s == at:
            outcome.new_until_ended = self._fleet.clients(self._new)
        if record.phase not in LIVE and outcome.done_s is None and outcome.ended_s is not None:
            outcome.done_s = at
        outcome.reason, outcome.message = record.reason, record.message

    # Looking.

    def _look_at_load(self, at: float) -> bool:
        load = self._plan.load
        scaled = {} if load is None else load.scaled
        if not scaled:
            return False
        looks: dict[str, list[Look]] = {h: [] for h in scaled}
        readings, _ = self._pages.read(self._fleet, at)
        by_name = {reading.pod: reading for reading in readings}
        for replica in self._fleet.replicas:
            reading = by_name.get(replica.name)
            if replica.revision in looks and reading is not None:
                triton = triton_of(replica.pod) if at >= replica.loaded_s else None
                look = Look(replica.name, reading.at_s, reading=reading, triton=triton)
                looks[replica.revision].append(look)
        ready = {h: [r.name for r in self._fleet.serving(h, at)] for h in scaled}
        self._loads.look(EPOCH_S + at, looks, ready)
        return True

    def _look_at_trial(self, at: float) -> bool:
        assert self._trial is not None
        return self._trial.look(EPOCH_S + at, *self._pages.read(self._fleet, at))

    def _lose_pods(self, at: float) -> None:
        for fault in self.staging.faults:
            shares = self._gateway.shares
            if fault.defect is Defect.LOST_POD and fault.begin_s == at and shares:
                most = max(shares, key=lambda h: (shares[h], h))
                serving = self._fleet.serving(most, at)
                if serving:
                    self._fleet.lose(serving[0], at)

    def _note(self, at: float) -> None:
        self.outcome.moments.append(
            Moment(
                at_s=at,
                weight=self._gateway.weight,
                mirror=self._gateway.mirror,
                old=self._side(self._old, at),
                new=self._side(self._new, at) if self._new != self._old else Side(0, 0, 0, 0, None),
            )
        )

    def _side(self, revision: str, at: float) -> Side:
        fleet = self._fleet
        now, before = fleet.clients(revision), self._before.get(revision, Class())
        self._before[revision] = now
        history = self._histories[revision]
        history.append(now.histogram)
        change = [b - a for a, b in zip(history[0], history[-1], strict=True)]
        asked = [
            d["spec"]["replicas"]
            for d in self.objects.of_kind("Deployment")
            if d["metadata"]["labels"][REVISION_LABEL] == revision
        ]
        return Side(
            desired=sum(asked),
            ready=len(fleet.serving(revision, at)),
            arrived=now.started - before.started,
            missed=now.failed + now.late - before.failed - before.late,
            latency_s=quantile(change, fleet.edges_s, self.staging.old.quantile),
        )


def _weight(record: Record) -> float:
    """The new version's share of the requests."""
    if record.phase in LIVE:
        return record.weight
    return 1.0 if record.phase is Phase.PROMOTED else 0.0


def _of(decision: Decision) -> tuple[Phase, float, float, str]:
    return decision.phase, decision.weight, decision.mirror, decision.hold


def _platform(specs: Sequence[Spec]) -> Platform:
    """One that has what the specs name."""
    profiles = {s.runtime.profile: Profile() for s in specs if s.runtime.profile is not None}
    accounts = {s.runtime.service_account_name for s in specs if s.runtime.service_account_name}
    return Platform(profiles=profiles, allowed_service_accounts=tuple(sorted(accounts)))


def stage(staging: Staging, seed: int, arrivals: Sequence[float] | None = None) -> Outcome:
    """Play a rollout.

    Args:
        staging: what is to be played.
        seed: of everything random.
        arrivals: of the load with this seed, where they are at hand already.
    """
    return Rollout(staging, seed, arrivals).run()
