"""One ModelDeployment: snapshot, plan, actions.

A pass goes in rounds: the plan's actions on the world are carried out, and as long as they changed
something a new snapshot is planned for. What the last plan says is told in events and status. So
one change of the user's costs one status write, and whoever looks sees the last word only.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from tidegate.actions import Action, Apply, Event, Plan, Scale, WriteStatus
from tidegate.api.names import DECISION_ANNOTATION
from tidegate.cold_start import Starts
from tidegate.observed import Failure, Measurements, Object, Observed, Ref
from tidegate.platform import Platform
from tidegate.runtime import foreign
from tidegate.runtime.apply import Carrier
from tidegate.runtime.audit import Auditor
from tidegate.runtime.cache import Cache, Key, uid_of
from tidegate.runtime.events import Teller
from tidegate.runtime.explaining import Explained, Explainer
from tidegate.runtime.fence import FencedError
from tidegate.runtime.foreign import ForeignObjectError, ForeignObjects
from tidegate.runtime.golden import GoldenRunner
from tidegate.runtime.kube import (
    ForbiddenError,
    InvalidError,
    Kube,
    KubeError,
    NotFoundError,
)
from tidegate.runtime.load import LoadReader
from tidegate.runtime.measuring import Measurer
from tidegate.runtime.queue import KeyedQueue
from tidegate.runtime.telemetry import Metrics
from tidegate.runtime.tracing import OFF, Tracer

log: Final = structlog.get_logger(__name__)

Planner = Callable[[Observed, Platform, datetime, Measurements], Plan]

ROUNDS: Final = 4
"""Rounds of one pass; more can only be needed by a plan that never comes to rest."""
RESTLESS_FIRST_S: Final = 0.2
RESTLESS_LIMIT_S: Final = 60.0

# Nothing that serves depends on these: what fails here must not hold up the rest.
AUXILIARY: Final = frozenset({"PodDisruptionBudget", "NetworkPolicy", "PodMonitor"})


class ReconcileError(Exception):
    """Some actions failed; they were told of, and are to be tried again.

    Attributes:
        retry_after_s: the longest pause that the API server asked for.
    """

    def __init__(self, errors: list[KubeError]) -> None:
        super().__init__("; ".join(str(e) for e in errors))
        self.errors = errors
        self.retry_after_s = max((e.retry_after_s for e in errors), default=0.0)


@dataclass
class _Pass:
    """What one pass has seen and done so far."""

    wrote: bool = False
    again_after_s: float | None = None
    events: dict[Event, None] = field(default_factory=dict)
    errors: list[KubeError] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def again(self, after_s: float | None) -> None:
        if after_s is not None and (self.again_after_s is None or after_s < self.again_after_s):
            self.again_after_s = after_s


class Reconciler:
    """Reconciles ModelDeployments, one key at a time in each worker.

    Args:
        kube: the client.
        cache: what is observed.
        carrier: carries out actions.
        teller: tells events.
        queue: where keys come from.
        metrics: counts.
        platform: the platform settings.
        planner: decides.
        present_kinds: the optional kinds that the cluster serves now.
        measurer: measures rollouts under way.
        golden: sends golden requests.
        load: reads what load there is.
        auditor: tells what came into force.
        explainer: knows why pods do not serve.
        now: wall clock, UTC.
        clock: monotonic, seconds.
        tracer: is told of each pass.
    """

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        carrier: Carrier,
        teller: Teller,
        queue: KeyedQueue[Key],
        metrics: Metrics,
        platform: Platform,
        planner: Planner,
        present_kinds: Callable[[], frozenset[str]],
        measurer: Measurer,
        golden: GoldenRunner,
        load: LoadReader,
        auditor: Auditor,
        explainer: Explainer,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        tracer: Tracer = OFF,
    ) -> None:
        self._cache = cache
        self._carrier = carrier
        self._teller = teller
        self._queue = queue
        self._metrics = metrics
        self._platform = platform
        self._planner = planner
        self._present_kinds = present_kinds
        self._measurer = measurer
        self._golden = golden
        self._load = load
        self._auditor = auditor
        self._explainer = explainer
        kinds: list[type[KubeError]] = [KubeError, *KubeError.__subclasses__()]
        for error in kinds:
            metrics.failures.labels(error.__name__)
        self._now = now
        self._clock = clock
        self._tracer = tracer
        self._foreign = ForeignObjects(kube, queue.add, clock)
        self._starts: dict[Key, Starts] = {}
        self._restless: dict[Key, int] = {}
        self._seen_uids: OrderedDict[str, None] = OrderedDict()

    async def stop(self) -> None:
        """Ask nobody anything any more; after the last pass."""
        await self._explainer.stop()
        await self._foreign.stop()

    async def work(self) -> None:
        """Take keys from the queue for ever. Nothing that one key does ends the worker."""
        while True:
            key = await self._queue.get()
            with self._tracer.reconcile(key) as span:
                span.note("result", await self._pass(key))

    async def _pass(self, key: Key) -> str:
        """One pass, and what follows for the queue. Returns its result."""
        began = self._clock()
        result = "failed"
        try:
            again_after_s, wrote = await self.reconcile(key)
        except FencedError as error:
            log.info("not written", modeldeployment=str(key), reason=str(error))
            self._queue.failed(key)
        except ReconcileError as error:
            self._failed(key, error.errors[0], error.retry_after_s)
        except KubeError as error:
            self._failed(key, error, error.retry_after_s)
        except Exception as error:
            # A defect in planning one object must not stop the others.
            self._metrics.failures.labels(type(error).__name__).inc()
            delay = self._queue.failed(key)
            log.error(
                "reconcile failed",
                modeldeployment=str(key),
                again_in_s=round(delay, 1),
                exc_info=error,
            )
        else:
            result = "changed" if wrote else "idle"
            self._queue.succeeded(key, again_after_s)
        self._metrics.reconcile_seconds.labels(result).observe(self._clock() - began)
        return result

    def _failed(self, key: Key, error: KubeError, retry_after_s: float) -> None:
        self._metrics.failures.labels(type(error).__name__).inc()
        delay = self._queue.failed(key, retry_after_s)
        log.warning(
            "reconcile failed",
            modeldeployment=str(key),
            error=type(error).__name__,
            problem=str(error),
            times=self._queue.schedule.failures(key),
            again_in_s=round(delay, 1),
        )

    async def reconcile(self, key: Key) -> tuple[float | None, bool]:
        """One pass. Returns when to look again (seconds, None: on events), and whether it wrote.

        Raises:
            ReconcileError: some actions failed; the status says so.
            KubeError: the API server cannot be asked or told anything.
            FencedError: this process may not write.
        """
        deployment = self._cache.deployment(key)
        if deployment is None or deployment["metadata"].get("deletionTimestamp"):
            # What it leaves behind is the garbage collector's, by owner references.
            self._foreign.forget(key)
            self._explainer.look(key, ())
            self._starts.pop(key, None)
            self._restless.pop(key, None)
            self._measure(key, Plan())
            return None, False
        self._tracer.began(deployment["metadata"]["generation"], self._measurer.new_look(key))
        this = _Pass()
        this.again(self._foreign.look(key, uid_of(deployment)))
        explained = self._explainer.look(key, self._cache.pods(key))
        this.again(explained.again_after_s)
        plan = Plan()
        for _ in range(ROUNDS):
            deployment = self._cache.deployment(key)
            if deployment is None:
                self._measure(key, Plan())
                return None, this.wrote
            plan = self._plan(key, deployment, explained)
            if not await self._round(key, deployment, plan, this):
                self._restless.pop(key, None)
                break
        else:
            times = self._restless[key] = self._restless.get(key, 0) + 1
            pause = min(RESTLESS_LIMIT_S, RESTLESS_FIRST_S * 2.0 ** min(times, 20))
            log.warning("plan does not come to rest", modeldeployment=str(key), times=times)
            this.again(pause)
        if this.failures:
            plan = self._plan(key, deployment, explained, tuple(this.failures))
        self._tracer.planned(deployment["metadata"]["generation"], plan)
        # Again: a write whose answer was lost is in force, too. Before status, which says it.
        self._audit(key, deployment, plan)
        self._measure(key, plan)
        await self._tell(key, deployment, plan, this)
        this.again(plan.requeue_after_s)
        if this.errors:
            raise ReconcileError(this.errors)
        return this.again_after_s, this.wrote

    def _plan(
        self,
        key: Key,
        deployment: Object,
        explained: Explained,
        failures: tuple[Failure, ...] = (),
    ) -> Plan:
        pods = self._cache.pods(key)
        with self._tracer.planning():
            return self._planner(
                Observed(
                    deployment=deployment,
                    children=self._cache.children(key, uid_of(deployment)),
                    pods=pods,
                    looks=self._cache.looks(key),
                    foreign=self._foreign.of(key),
                    events=explained.events,
                    present_kinds=self._present_kinds(),
                    models=explained.models,
                    nodes=explained.nodes,
                    failures=failures,
                ),
                self._platform,
                self._now(),
                Measurements(
                    rollout=self._measurer.measured(key),
                    golden=self._golden.results(key),
                    golden_problems=self._golden.problems(key),
                    load=self._load.demands(key),
                    attained=self._load.attained(key),
                    in_flight=self._load.in_flight(key),
                    starts=self._starts.setdefault(key, Starts()).look(pods),
                ),
            )

    def _measure(self, key: Key, plan: Plan) -> None:
        """Have measured, until the next plan, what this one wants to know."""
        pods = self._cache.pods(key)
        self._measurer.want(key, plan.measure, pods)
        self._golden.want(key, plan.verify, pods)
        self._load.want(key, plan.load, pods)

    def _audit(self, key: Key, deployment: Object, plan: Plan) -> None:
        self._auditor.look(
            key,
            deployment,
            self._cache.children(key, uid_of(deployment)),
            plan,
            self._measurer.measured(key),
            self._measurer.bad_for_s(key),
        )

    async def _round(self, key: Key, deployment: Object, plan: Plan, this: _Pass) -> bool:
        """Carry out what a plan wants of the world. Returns whether to plan again."""
        changed = False
        this.errors.clear()
        this.failures.clear()
        for action in plan.actions:
            if isinstance(action, Event):
                this.events[action] = None
            if isinstance(action, Event | WriteStatus):
                continue
            try:
                done = await self._carrier.carry_out(key, deployment, action)
            except ForeignObjectError as error:
                this.again(foreign.AGAIN_S)
                if not self._foreign.met(key, error.ref):
                    continue  # the plan knows, and wants it all the same
                log.warning(
                    "foreign object",
                    modeldeployment=str(key),
                    object=f"{error.ref.kind}/{error.ref.name}",
                    reason="it exists and is not controlled by this ModelDeployment; not touched",
                )
                return True
            except (ForbiddenError, InvalidError, NotFoundError) as error:
                self._refused(key, action, error, this)
                if isinstance(action, Apply) and _kind(action) in AUXILIARY:
                    continue
                return False
            this.again(done.again_after_s)
            if done.drifted:
                this.events[Event("Warning", "Drifted", done.drifted)] = None
            if done.wrote:
                changed = this.wrote = True
                self._log_decision(key, action, done.reason)
                if isinstance(action, Apply) and _decides(action):
                    self._audit(key, deployment, plan)
                if isinstance(action, Scale):
                    self._auditor.scaled(key, deployment, action, done.reason, plan)
        return changed and not this.errors

    def _refused(self, key: Key, action: Action, error: KubeError, this: _Pass) -> None:
        this.errors.append(error)
        name = type(action).__name__
        reason = error.reason or type(error).__name__.removesuffix("Error")
        ref = action.ref if hasattr(action, "ref") else _ref_of_manifest(action)
        this.failures.append(Failure(name, ref, reason, str(error)))
        log.warning(
            "refused",
            modeldeployment=str(key),
            action=name,
            object="" if ref is None else f"{ref.kind}/{ref.name}",
            reason=reason,
            problem=str(error),
        )

    async def _tell(self, key: Key, deployment: Object, plan: Plan, this: _Pass) -> None:
        """Events first, then status: after a crash between the two, the events meet themselves."""
        for action in plan.actions:
            if isinstance(action, Event):
                this.events[action] = None
        statuses = [a for a in plan.actions if isinstance(a, WriteStatus)]
        uid = uid_of(deployment)
        first = uid not in self._seen_uids
        changes = this.wrote or any(
            self._carrier.status_would_change(key, deployment, s.status) for s in statuses
        )
        for event in this.events:
            if first and not changes:
                # Seen for the first time by this process, and all is as it was left: this was
                # told before.
                self._teller.remember(key, deployment, event)
                continue
            try:
                if await self._teller.tell(key, deployment, event, self._now()):
                    log.info(
                        "decision",
                        modeldeployment=str(key),
                        action="Event",
                        object=event.reason,
                        reason=event.message,
                    )
            except (ForbiddenError, InvalidError, NotFoundError) as error:
                # An event is a courtesy: status carries the truth.
                log.warning("event not told", modeldeployment=str(key), problem=str(error))
                self._teller.remember(key, deployment, event)
        for status in statuses:
            try:
                done = await self._carrier.carry_out(key, deployment, status)
            except (ForbiddenError, InvalidError) as error:
                self._refused(key, status, error, this)
                continue
            this.again(done.again_after_s)
            if done.wrote:
                this.wrote = True
                self._log_decision(key, status, done.reason)
        self._seen_uids[uid] = None
        while len(self._seen_uids) > 100_000:
            self._seen_uids.popitem(last=False)

    @staticmethod
    def _log_decision(key: Key, action: Action, reason: str) -> None:
        what: dict[str, Any] = {"action": type(action).__name__}
        ref = getattr(action, "ref", None) or _ref_of_manifest(action)
        if ref is not None:
            what["object"] = f"{ref.kind}/{ref.name}"
        elif hasattr(action, "name"):
            what["object"] = f"Pod/{action.name}"
        log.info("decision", modeldeployment=str(key), **what, reason=reason)


def _decides(action: Apply) -> bool:
    """Whether it carries the decision in force."""
    return DECISION_ANNOTATION in (action.manifest["metadata"].get("annotations") or {})


def _kind(action: Apply) -> str:
    return str(action.manifest["kind"])


def _ref_of_manifest(action: Action) -> Ref | None:
    manifest = getattr(action, "manifest", None)
    if manifest is None:
        return None
    return Ref(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])
