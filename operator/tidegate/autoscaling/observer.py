"""Looks at one revision's pods, remembered and turned into a `Demand`: the law's measuring half."""

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from tidegate.autoscaling.arrivals import Arrivals, Growth, higher_of, lower_of
from tidegate.autoscaling.capacities import Capacities, Place
from tidegate.autoscaling.capacity import Pod, pod_of
from tidegate.autoscaling.counters import PodCounters
from tidegate.autoscaling.demand import Demand, ServiceTime, Source
from tidegate.autoscaling.latency import quantile_ms, share_slower
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import LAW, Law, ServerModel
from tidegate.autoscaling.service_time import ServiceTimes

FORGET_S: Final = 600.0
"""A pod that was not seen for so long is forgotten."""
NEAR_LIMIT: Final = 0.5
"""Feedback learns from pods that carry at least this share of their capacity ..."""
NEAR_TARGET: Final = 0.7
"""... or whose latency is at least this share of the target: further off, other things count."""
STEADY: Final = 0.2
"""Feedback learns while the short and the long rate differ by no more than this."""
MOST_CACHED: Final = 0.05
"""Feedback learns while hardly anything comes from the response cache."""
LEAST_ANSWERS: Final = 20
"""Answers without which no latency is told."""
LEAST_SLOW: Final = 8.0
"""Requests slower than an edge without which it is not compared with the model ..."""
MOST_DISTANCE: Final = math.log(5.0)
"""... and by what factor their share may differ from the objective's ..."""
LEAST_SLOWER: Final = 0.001
MOST_SLOWER: Final = 0.3
"""... within these."""
LEAST_ROOM: Final = 1.05
"""Feedback never aims lower than this above the latency of an idle pod."""
MOST_TAKEN: Final = 0.5
"""Of the capacity that the model says, what feedback leaves at least."""
UNLEARN_S: Final = 30.0
"""So much before a change of the service time was noticed, feedback had begun to learn from it."""
LEAST_SHARE: Final = 0.02
"""Of the throughput: a pod that holds less is sized as if it held this."""


class _Answers(NamedTuple):
    """One tick's answers: how many, and how many in less than each edge."""

    end_s: float
    edges_ms: tuple[int, ...]
    timed: int
    faster: tuple[int, ...]


class _Mix(NamedTuple):
    """One tick's requests, by Triton's own counters."""

    end_s: float
    succeeded: int
    cached: int
    items: int


class Observer:
    """Remembers what the law needs of one revision.

    Attributes:
        model: how one of its pods serves; may be replaced when more is known, or the objective
            was edited.

    Args:
        model: how one of its pods serves.
        capacities: shared by all revisions of the process.
        law: constants.
    """

    def __init__(self, model: ServerModel, capacities: Capacities, law: Law = LAW) -> None:
        self.model = model
        self._capacities = capacities
        self._law = law
        self._arrivals = Arrivals(law)
        self._balance = Arrivals(law)
        self._growth = Growth()
        self._times = ServiceTimes(model.max_batch)
        self._pods: dict[str, PodCounters] = {}
        self._answers: deque[_Answers] = deque()
        self._mixes: deque[_Mix] = deque()
        self._required: deque[tuple[float, int]] = deque()
        self._required_since_s: float | None = None
        self._shares: tuple[float, float] | None = None
        self._place: Place | None = None
        self._feedback = 0.0
        self._feedbacks: deque[tuple[float, float]] = deque()
        self._seen: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        self._troubled_s = -math.inf
        self._newest_s = -math.inf
        self._at_s: float | None = None
        self._since_s: float | None = None
        self._demand: Demand | None = None

    def observe(
        self, at_s: float, looks: Iterable[Look], *, ready: Collection[str]
    ) -> Demand | None:
        """Take in one look at all pods; what it comes to, or None in the first intervals.

        Args:
            at_s: now, seconds since the epoch; not later than the last call's: nothing happens.
            looks: of pods of this revision, Ready or not, that could be read.
            ready: UIDs of the pods that are Ready, read or not.
        """
        before_s = self._at_s
        if not math.isfinite(at_s) or (before_s is not None and at_s <= before_s):
            return self._demand
        ready = frozenset(ready)
        self._times.largest = self.model.max_batch
        if before_s is not None:
            self._arrivals.begin(before_s, at_s, ready)
            self._balance.begin(before_s, at_s, ready)
        self._at_s = at_s
        if self._take(at_s, before_s, looks, ready) and self._since_s is None:
            self._since_s = before_s
        if before_s is not None:
            self._times.end_interval((at_s - before_s) / self._law.interval_s)
            self._unlearn(at_s)
        for uid in [uid for uid, pod in self._pods.items() if pod.at_s < at_s - FORGET_S]:
            del self._pods[uid]
            self._arrivals.forget(uid)
            self._balance.forget(uid)
        self._demand = self._conclude(at_s, ready)
        return self._demand

    # Taking in.

    def _take(
        self, at_s: float, before_s: float | None, looks: Iterable[Look], ready: frozenset[str]
    ) -> bool:
        """Returns whether anything was counted."""
        timed = 0
        faster: list[int] = []
        edges: tuple[int, ...] = ()
        succeeded = cached = items = 0
        counted = False
        # In one order, so that sums do not depend on the order of the looks.
        for look in sorted(looks, key=lambda look: (look.pod, look.at_s)):
            pod = self._pods.setdefault(look.pod, PodCounters())
            served = pod.served(look, known_since_s=before_s)
            ran = pod.ran(look)
            is_ready = look.pod in ready
            if before_s is None:
                continue
            if served is not None:
                counted = True
                self._arrivals.add(
                    look.pod, served.since_s, served.until_s, served.arrivals, ready=is_ready
                )
                if served.timed and len(served.edges_ms) > len(edges):
                    timed, faster, edges = 0, [0] * len(served.edges_ms), served.edges_ms
                if served.timed and served.edges_ms == edges:
                    timed += served.timed
                    faster = [a + b for a, b in zip(faster, served.faster, strict=True)]
            if ran is not None:
                counted = True
                flow = ran.succeeded + ran.failed + ran.queued
                self._balance.add(look.pod, ran.since_s, ran.until_s, flow, ready=is_ready)
                succeeded += ran.succeeded
                cached += ran.cached
                items += ran.items
                for batch in ran.batches:
                    self._times.add(*batch)
        if timed:
            self._answers.append(_Answers(at_s, edges, timed, tuple(faster)))
        if succeeded:
            self._mixes.append(_Mix(at_s, succeeded, cached, items))
        least_s = at_s - self._law.long_s + 1e-6
        while self._answers and self._answers[0].end_s <= least_s:
            self._answers.popleft()
        while self._mixes and self._mixes[0].end_s <= least_s:
            self._mixes.popleft()
        return counted

    # Concluding.

    def _conclude(self, at_s: float, ready: frozenset[str]) -> Demand | None:
        law = self._law
        if self._since_s is None:
            return None
        data_s = at_s - self._since_s
        if data_s < law.first_intervals * law.interval_s - 1e-6:
            return None
        source, arrivals = Source.SIDECAR, self._arrivals
        long_per_s = arrivals.rate(law.long_s)
        balance_per_s = self._balance.rate(law.long_s)
        if long_per_s is None:
            source, arrivals, long_per_s = Source.FLOW_BALANCE, self._balance, balance_per_s
            balance_per_s = None
        if long_per_s is None:
            return self._unread(at_s, ready)
        short_per_s = arrivals.rate(law.short_s) or 0.0
        dispersion = arrivals.dispersion()
        if data_s < law.least_s - 1e-6:
            arrivals_per_s = lower_of(long_per_s, data_s, dispersion)
        else:
            arrivals_per_s = higher_of(long_per_s, short_per_s, law.short_s, dispersion)
        coverage, age_s = self._coverage(at_s, ready, source)
        fresh = coverage >= law.least_coverage and age_s <= law.stale_intervals * law.interval_s
        timed, measured_ms, slow_share = self._latency()
        cached_share, items_per_request = self._mix()
        demand = Demand(
            at_s=at_s,
            data_s=data_s,
            ready_pods=len(ready),
            coverage=coverage,
            age_s=age_s,
            source=source,
            arrivals_per_s=arrivals_per_s,
            long_per_s=long_per_s,
            short_per_s=short_per_s,
            balance_per_s=balance_per_s,
            dispersion=dispersion,
            target_ms=self.model.target_ms,
            quantile=self.model.quantile,
            pending=self._pending(),
            cached_share=cached_share,
            items_per_request=items_per_request,
            measured_ms=measured_ms,
            slow_share=slow_share,
            timed=timed,
            feedback=self._feedback,
            growth=self._growth.known,
        )
        demand = self._with_capacity(demand)
        if fresh:
            self._growth.add(at_s, demand.arrivals_per_s, long_per_s, dispersion)
            demand = self._with_feedback(demand, steady=arrivals.steady(law.long_s))
        return self._with_required(demand, fresh=fresh)

    def _unread(self, at_s: float, ready: frozenset[str]) -> Demand | None:
        """Nothing is known of the last windows: what was known last, marked as old."""
        if self._demand is None:
            return None
        _, age_s = self._coverage(at_s, ready, self._demand.source)
        old = replace(self._demand, at_s=at_s, ready_pods=len(ready), age_s=age_s)
        # Whatever was read, no rate came of it.
        old = replace(old, coverage=0.0, pending=self._pending())
        backlog = self._backlog(old, old.throughput_per_pod, old.capacity_per_pod)
        old = replace(old, backlog=backlog)
        return self._with_required(old, fresh=False)

    def _coverage(self, at_s: float, ready: frozenset[str], source: Source) -> tuple[float, float]:
        """Share of the Ready pods that were read lately, and the age of the newest reading."""
        oldest_s = at_s - self._law.stale_intervals * self._law.interval_s
        newest_s, read = self._newest_s, 0
        for uid, pod in self._pods.items():
            pod_s = pod.sidecar_at_s if source is Source.SIDECAR else pod.triton_at_s
            if pod_s is None:
                continue
            newest_s = max(newest_s, pod_s)
            read += uid in ready and pod_s >= oldest_s
        self._newest_s = newest_s
        return (read / len(ready) if ready else 0.0), max(0.0, at_s - newest_s)

    def _pending(self) -> float:
        """Requests that the pods read lately had not answered."""
        assert self._at_s is not None
        oldest_s = self._at_s - self._law.stale_intervals * self._law.interval_s
        pending = 0
        for pod in self._pods.values():
            if pod.sidecar_at_s is not None and pod.sidecar_at_s >= oldest_s:
                pending += pod.in_flight
            elif pod.triton_at_s is not None and pod.triton_at_s >= oldest_s:
                pending += pod.pending or 0
        return float(pending)

    def _latency(self) -> tuple[int, float | None, float | None]:
        """Timed answers of the last minute, the objective's quantile, the share of slow ones."""
        edges: tuple[int, ...] = ()
        for each in self._answers:
            if len(each.edges_ms) > len(edges):
                edges = each.edges_ms
        fitting = [each for each in self._answers if each.edges_ms == edges]
        timed = sum([each.timed for each in fitting])
        if timed < LEAST_ANSWERS:
            return timed, None, None
        faster = [sum(column) for column in zip(*[each.faster for each in fitting], strict=True)]
        self._seen = (edges, tuple(faster))
        slow, target_ms = None, self.model.target_ms
        if target_ms is not None:
            slow = share_slower(edges, faster, timed, target_ms)
        return timed, quantile_ms(edges, faster, timed, self.model.quantile), slow

    def _mix(self) -> tuple[float, float]:
        """Share of cached requests, and items in one that is not; as before, where none came."""
        succeeded = sum([each.succeeded for each in self._mixes])
        if not succeeded:
            before = self._demand
            return (before.cached_share, before.items_per_request) if before else (0.0, 1.0)
        cached = sum([each.cached for each in self._mixes])
        items = sum([each.items for each in self._mixes])
        ran = succeeded - cached
        return min(1.0, cached / succeeded), max(1.0, items / ran) if ran > 0 else 1.0

    def _pod(self, demand: Demand, service: ServiceTime) -> Pod:
        before = self._demand
        pods = max(1, (before and before.required_replicas) or demand.ready_pods)
        return pod_of(
            self.model,
            service.alpha_ms,
            service.beta_ms,
            cv=service.cv,
            scv=1.0 + (demand.dispersion - 1.0) / pods,
            items_per_request=demand.items_per_request,
        )

    def _with_capacity(self, demand: Demand) -> Demand:
        service = self._times.estimate()
        if service is None:
            return demand
        pod = self._pod(demand, service)
        # Per second, and with those that run no batch.
        full = pod.throughput * 1000.0 / max(0.01, 1.0 - demand.cached_share)
        target_ms, quantile = demand.target_ms, demand.quantile
        if target_ms is None:
            return replace(demand, service=service, throughput_per_pod=full)
        place = self._place = self._capacities.at(pod)
        idle_ms = place.idle_quantile(quantile)
        infeasible, exact = idle_ms > target_ms, True
        limit: float | None = self._law.throughput_share * full
        cautious = limit
        if not infeasible:
            exact = self._find(place, target_ms, idle_ms)
            limit = cautious = None
            if self._shares is not None:
                limit, cautious = (max(share, LEAST_SHARE) * full for share in self._shares)
        return replace(
            demand,
            service=service,
            throughput_per_pod=full,
            idle_ms=idle_ms,
            infeasible=infeasible,
            capacity_per_pod=limit,
            cautious_per_pod=cautious,
            exact=exact,
            backlog=self._backlog(demand, full, limit),
        )

    def _find(self, place: Place, target_ms: float, idle_ms: float) -> bool:
        """Shares of the throughput that a pod holds; the last ones stay if none can be told now.

        Returns:
            Whether they are exact.
        """
        quantile = self.model.quantile
        room_ms = min(target_ms, idle_ms * LEAST_ROOM)
        aim_ms = max(room_ms, target_ms * math.exp(-self._feedback))
        # Halfway to the idle pod's latency where the margin would ask for less than that.
        cautious_ms = max(self._law.down_margin * aim_ms, (idle_ms + aim_ms) / 2.0)
        limit = place.find(quantile, aim_ms)
        cautious = place.find(quantile, cautious_ms)
        if limit is None or cautious is None:
            return False
        # Feedback takes half of it at most: latency that more pods do not mend must not run away.
        least = 0.0
        if self._feedback > 0.0:
            plain = place.find(quantile, target_ms)
            least = 0.0 if plain is None else MOST_TAKEN * plain.share
        self._shares = (max(least, limit.share), max(least, cautious.share))
        return limit.exact and cautious.exact

    def _with_feedback(self, demand: Demand, *, steady: bool) -> Demand:
        """Compare measured latency with the model's, and remember by how much it is off."""
        law = self._law
        if demand.backlog > 0.0 or self._times.changed:
            self._troubled_s = demand.at_s
        place, capacity = self._place, demand.capacity_per_pod
        target_ms, measured_ms = demand.target_ms, demand.measured_ms
        if place is None or capacity is None or target_ms is None or measured_ms is None:
            return demand
        per_pod = demand.long_per_s / max(1, demand.ready_pods)
        if (
            not steady
            or demand.infeasible
            or demand.timed < law.feedback_samples
            or demand.cached_share > MOST_CACHED
            # Until what was slow then has left the window.
            or demand.at_s - self._troubled_s <= 1.5 * law.long_s
            or abs(demand.short_per_s - demand.long_per_s) > STEADY * demand.long_per_s
            or (per_pod < NEAR_LIMIT * capacity and measured_ms < NEAR_TARGET * target_ms)
        ):
            return demand
        rate = per_pod / 1000.0
        model_ms = place.expected_latency(demand.quantile, rate)
        off = self._off(place, rate, model_ms, demand)
        if off is not None:
            step = law.feedback_gain * (off - self._feedback)
            self._feedback = min(law.feedback_most, max(law.feedback_least, self._feedback + step))
        return replace(demand, feedback=self._feedback, model_ms=model_ms)

    def _unlearn(self, at_s: float) -> None:
        """Where the service time changed at once: forget what feedback took for its error."""
        past = self._feedbacks
        while len(past) > 1 and past[1][0] <= at_s - UNLEARN_S:
            past.popleft()
        if self._times.changed and past:
            self._feedback = past[0][1]
            past.clear()
        past.append((at_s, self._feedback))

    def _off(
        self, place: Place, rate: float, model_ms: float | None, demand: Demand
    ) -> float | None:
        """Logarithm of measured over modelled latency; None: cannot be told.

        At an edge of the buckets, where nothing is interpolated: the one whose share of slower
        requests is nearest to the objective's, if it was seen often enough. Where there is none,
        all that is known is the two edges between which the quantile lies.
        """
        timed, wanted = demand.timed, 1.0 - demand.quantile
        best: tuple[float, int, float] | None = None
        low_ms, high_ms = 0.0, math.inf
        for edge, faster in zip(*self._seen, strict=True):
            slower = 1.0 - faster / timed
            if slower > wanted:
                low_ms = float(edge)
            elif high_ms == math.inf:
                high_ms = float(edge)
            if slower * timed >= LEAST_SLOW and LEAST_SLOWER <= slower <= MOST_SLOWER:
                distance = abs(math.log(slower / wanted))
                if distance <= MOST_DISTANCE and (best is None or distance < best[0]):
                    best = (distance, edge, slower)
        if best is not None:
            expected = place.expected_latency(1.0 - best[2], rate)
            return None if expected is None else math.log(best[1] / expected)
        if model_ms is None:
            return None
        return math.log(min(high_ms, max(low_ms, model_ms)) / model_ms)

    def _with_required(self, demand: Demand, *, fresh: bool) -> Demand:
        law, at_s = self._law, demand.at_s
        required = load_replicas(demand, demand.arrivals_per_s, law)
        if not fresh or required is None:
            # A gap: what the load needed in it is not known, so the history begins anew.
            self._required.clear()
            self._required_since_s = None
            return replace(demand, required_replicas=required, required_max=required, history_s=0.0)
        if self._required_since_s is None:
            self._required_since_s = at_s
        recent = self._required
        while recent and recent[-1][1] <= required:
            recent.pop()
        recent.append((at_s, required))
        while recent[0][0] < at_s - law.stabilisation_s:
            recent.popleft()
        return replace(
            demand,
            required_replicas=required,
            required_max=recent[0][1],
            history_s=at_s - self._required_since_s,
        )

    def _backlog(self, demand: Demand, throughput: float | None, capacity: float | None) -> float:
        """Requests beyond those that are under way in pods that keep the objective.

        Args:
            demand: of which pending requests, Ready pods and target count.
            throughput: requests a second that one pod can answer at most; None: unknown.
            capacity: the same within the objective.
        """
        if throughput is None or demand.target_ms is None:
            return 0.0
        # Little: with more than this in one pod the mean latency is above the target.
        usual = (capacity or throughput) * demand.target_ms / 1000.0
        usual = max(usual, 2.0 * self.model.instances * self.model.max_batch)
        return max(0.0, demand.pending - demand.ready_pods * usual)


def load_replicas(demand: Demand, arrivals_per_s: float, law: Law = LAW) -> int | None:
    """Replicas that so many requests a second need, whatever has piled up.

    Returns:
        None: what one pod holds is not known.
    """
    if demand.capacity_per_pod is None:
        return None
    return math.ceil(arrivals_per_s * law.headroom / demand.capacity_per_pod - 1e-9)


def draining_replicas(demand: Demand, arrivals_per_s: float, seconds: float) -> int:
    """Replicas that carry so many requests a second and drain what has piled up meanwhile.

    Args:
        demand: what was measured.
        arrivals_per_s: that come in.
        seconds: in which the backlog is to be gone.

    Returns:
        0: nothing has piled up, or it is not known what a pod can answer.
    """
    if demand.backlog <= 0.0 or demand.throughput_per_pod is None:
        return 0
    return math.ceil((arrivals_per_s + demand.backlog / seconds) / demand.throughput_per_pod)
