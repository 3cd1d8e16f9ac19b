"""One ModelDeployment: snapshot, plan, actions.

A pass goes in rounds: the plan's actions on the world are carried out, and as long as they changed
something a new snapshot is planned for. What the last plan says is told in events and status. So
one change of the user's costs one status write, and whoever looks sees the last word only.

What a pass waits for, in this order; a request to the API server ends after `kube.READ_TIMEOUT_S`
or `kube.WRITE_TIMEOUT_S` at the latest:

1. before it begins: for one of the workers, and for the end of the pass before it over the same
   ModelDeployment;
2. before it plans: for nothing. What is measured, and what explains pods or frees a name, is asked
   beside the passes and taken as it is known (`background`), so that no rollback waits for it;
3. for the writes of the plan in the plan's order, in which away from a bad revision comes first. An
   object that no watch has shown is looked for once before it is made;
4. for events, each looked for and told, once in a process;
5. for status, one write.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from tidegate.actions import Apply, Event, Plan, Scale, WriteStatus
from tidegate.api.names import DECISION_ANNOTATION
from tidegate.cold_start import Starts
from tidegate.observed import Failure, Measurements, Object, Observed
from tidegate.platform import Platform
from tidegate.runtime.apply import Carrier
from tidegate.runtime.audit import Auditor
from tidegate.runtime.cache import Cache, Key, uid_of
from tidegate.runtime.explaining import Explained, Explainer
from tidegate.runtime.foreign import AGAIN_S as FOREIGN_AGAIN_S
from tidegate.runtime.foreign import ForeignObjectError, ForeignObjects
from tidegate.runtime.golden import GoldenRunner
from tidegate.runtime.kube import ForbiddenError, InvalidError, NotFoundError
from tidegate.runtime.load import LoadReader
from tidegate.runtime.measuring import Measurer
from tidegate.runtime.outcome import Outcome, ReconcileError
from tidegate.runtime.reporting import Reporter
from tidegate.runtime.tracing import OFF, Tracer

log: Final = structlog.get_logger(__name__)

Planner = Callable[[Observed, Platform, datetime, Measurements], Plan]

ROUNDS: Final = 4
"""Rounds of one pass; more can only be needed by a plan that never comes to rest."""
RESTLESS_FIRST_S: Final = 0.2
RESTLESS_LIMIT_S: Final = 60.0

# Nothing that serves depends on these: what fails here must not hold up the rest.
AUXILIARY: Final = frozenset({"PodDisruptionBudget", "NetworkPolicy", "PodMonitor"})


class Reconciler:
    """Reconciles ModelDeployments; at most one pass of each at a time.

    Args:
        cache: what is observed.
        carrier: carries out actions.
        reporter: tells events and status.
        foreign: knows names that others have.
        explainer: knows why pods do not serve.
        measurer: measures rollouts under way.
        golden: sends golden requests.
        load: reads what load there is.
        auditor: tells what came into force.
        platform: the platform settings.
        planner: decides.
        present_kinds: the optional kinds that the cluster serves now.
        now: wall clock, UTC.
        tracer: is told of each pass.
    """

    def __init__(
        self,
        cache: Cache,
        carrier: Carrier,
        reporter: Reporter,
        foreign: ForeignObjects,
        explainer: Explainer,
        measurer: Measurer,
        golden: GoldenRunner,
        load: LoadReader,
        auditor: Auditor,
        *,
        platform: Platform,
        planner: Planner,
        present_kinds: Callable[[], frozenset[str]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        tracer: Tracer = OFF,
    ) -> None:
        self._cache = cache
        self._carrier = carrier
        self._reporter = reporter
        self._foreign = foreign
        self._explainer = explainer
        self._measurer = measurer
        self._golden = golden
        self._load = load
        self._auditor = auditor
        self._platform = platform
        self._planner = planner
        self._present_kinds = present_kinds
        self._now = now
        self._tracer = tracer
        self._starts: dict[Key, Starts] = {}
        self._restless: dict[Key, int] = {}

    async def stop(self) -> None:
        """Ask nobody anything any more; after the last pass."""
        await self._explainer.stop()
        await self._foreign.stop()

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
            self._forget(key)
            return None, False
        self._tracer.began(deployment["metadata"]["generation"], self._measurer.new_look(key))
        this = Outcome(key)
        this.again(self._foreign.look(key, uid_of(deployment)))
        explained = self._explainer.look(key, self._cache.pods(key))
        this.again(explained.again_after_s)
        plan = Plan()
        for _ in range(ROUNDS):
            deployment = self._cache.deployment(key)
            if deployment is None:
                self._forget(key)
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
        await self._reporter.tell(key, deployment, plan, this)
        this.again(plan.requeue_after_s)
        if this.errors:
            raise ReconcileError(this.errors)
        return this.again_after_s, this.wrote

    def _forget(self, key: Key) -> None:
        """Nobody is asked anything for it any more."""
        self._foreign.forget(key)
        self._explainer.look(key, ())
        self._starts.pop(key, None)
        self._restless.pop(key, None)
        self._measure(key, Plan())

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

    async def _round(self, key: Key, deployment: Object, plan: Plan, this: Outcome) -> bool:
        """Carry out what a plan wants of the world. Returns whether to plan again."""
        changed = False
        this.new_round()
        for action in plan.actions:
            if isinstance(action, Event):
                this.events[action] = None
            if isinstance(action, Event | WriteStatus):
                continue
            try:
                done = await self._carrier.carry_out(key, deployment, action)
            except ForeignObjectError as error:
                this.again(FOREIGN_AGAIN_S)
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
                this.refused(action, error)
                if isinstance(action, Apply) and _kind(action) in AUXILIARY:
                    continue
                return False
            this.again(done.again_after_s)
            if done.drifted:
                this.events[Event("Warning", "Drifted", done.drifted)] = None
            if done.wrote:
                changed = True
                this.changed(action, done.reason)
                if isinstance(action, Apply) and _decides(action):
                    self._audit(key, deployment, plan)
                if isinstance(action, Scale):
                    self._auditor.scaled(key, deployment, action, done.reason, plan)
        return changed and not this.errors


def _decides(action: Apply) -> bool:
    """Whether it carries the decision in force."""
    return DECISION_ANNOTATION in (action.manifest["metadata"].get("annotations") or {})


def _kind(action: Apply) -> str:
    return str(action.manifest["kind"])
