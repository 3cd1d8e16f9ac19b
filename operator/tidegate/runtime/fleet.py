"""How each ModelDeployment does, as metrics: what its status says, and the looks at its canary.

A few series each, and a bound on how many are shown. Only the operator that leads shows them, so
that a query sees each once. The samples are taken in `Fleet.take` on the event loop, which only
notes who is there; they are made from that when somebody asks, in whatever thread.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import ValidationError

from tidegate.api.spec import Slo
from tidegate.api.units import duration_s, fraction, quantile
from tidegate.observed import Measured, Object
from tidegate.resources.sidecar import bucket_le
from tidegate.runtime.cache import Key

SHOWN: Final = 2000
"""ModelDeployments with series of their own; those that are not Ready come first."""
OF: Final = ("namespace", "modeldeployment")


class View(NamedTuple):
    """A rollout under way, for those who only look.

    Attributes:
        measured: what is known; None before the first look.
        age_s: since when not all pods of the canary were read; None: they never were.
    """

    measured: Measured | None
    age_s: float | None


class _Shown(NamedTuple):
    key: Key
    deployment: Object
    view: View | None


class Fleet(Collector):
    """The collector."""

    def __init__(self) -> None:
        self._shown: tuple[_Shown, ...] = ()
        self._left_out = 0

    def take(self, deployments: Mapping[Key, Object], views: Mapping[Key, View]) -> None:
        """What is there now.

        Args:
            deployments: all ModelDeployments; none while this process does not lead.
            views: of the rollouts under way.
        """
        order = sorted(deployments, key=lambda k: (_is_ready(deployments[k]), k))
        self._left_out = max(0, len(order) - SHOWN)
        self._shown = tuple(_Shown(k, deployments[k], views.get(k)) for k in order[:SHOWN])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All families; those without samples too, so that their names can be looked up."""
        families = _Families()
        for shown in self._shown:
            families.add(shown)
        left_out = GaugeMetricFamily(
            "tidegate_modeldeployments_left_out",
            f"ModelDeployments without series of their own, being more than {SHOWN}.",
            value=self._left_out,
        )
        return iter((*families.all, left_out))


class _Families:
    def __init__(self) -> None:
        self.all: list[GaugeMetricFamily] = []

        def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            found = GaugeMetricFamily(f"tidegate_{name}", text, labels=(*OF, *labels))
            self.all.append(found)
            return found

        self.condition = gauge(
            "modeldeployment_condition",
            "A condition of its status: 1 True, 0 False; Unknown is left out.",
            *("condition", "reason"),
        )
        self.phase = gauge("modeldeployment_phase", "1 for the phase that it is in.", "phase")
        self.since = gauge(
            "modeldeployment_phase_start_time_seconds", "When that phase or step began, Unix time."
        )
        self.weight = gauge(
            "modeldeployment_canary_weight_ratio", "Share of the traffic asked for, for the canary."
        )
        self.replicas = gauge("modeldeployment_replicas", "Pods by state.", "state")
        self.errors = gauge(
            "modeldeployment_slo_error_ratio", "Share of the requests that may fail."
        )
        self.latency = gauge(
            "modeldeployment_slo_latency_seconds", "Requests are to be faster than this."
        )
        self.slow = gauge(
            "modeldeployment_slo_slow_ratio",
            "Share of the requests that may be slower; le is the sidecar's bucket of the target.",
            "le",
        )
        self.age = gauge(
            "canary_scrape_age_seconds", "Since when not all of the canary's pods were read."
        )
        self.requests = gauge("canary_requests", "Requests to the canary that are evidence.")
        self.observed = gauge(
            "canary_test_observed_ratio", "What a test counts, as share of the requests.", "test"
        )
        self.bound = gauge("canary_test_bound_ratio", "The share that it is held to.", "test")
        self.evidence = gauge(
            "canary_test_evidence_ratio", "The e-value over the one at which it fires.", "test"
        )

    def add(self, shown: _Shown) -> None:
        key, deployment = [*shown.key], shown.deployment
        status = deployment.get("status") or {}
        for condition in status.get("conditions") or ():
            known = {"True": 1.0, "False": 0.0}.get(condition.get("status"))
            if known is not None:
                labels = [*key, str(condition.get("type")), str(condition.get("reason"))]
                self.condition.add_metric(labels, known)
        rollout = status.get("rollout") or {}
        if rollout.get("phase"):
            self.phase.add_metric([*key, str(rollout["phase"])], 1.0)
        since = _epoch_s(rollout.get("since"))
        if since is not None:
            self.since.add_metric(key, since)
        if rollout.get("weight"):
            self.weight.add_metric(key, fraction(rollout["weight"]))
        self.replicas.add_metric([*key, "all"], float(status.get("replicas") or 0))
        self.replicas.add_metric([*key, "ready"], float(status.get("readyReplicas") or 0))
        desired = (status.get("scaling") or {}).get("desired")
        if desired is not None:
            self.replicas.add_metric([*key, "desired"], float(desired))
        self._slo(key, deployment)
        if shown.view is not None:
            self._canary(key, shown.view)

    def _slo(self, key: list[str], deployment: Object) -> None:
        try:
            slo = Slo.model_validate((deployment.get("spec") or {}).get("slo") or {})
        except ValidationError:
            return
        self.errors.add_metric(key, fraction(slo.max_error_rate))
        if slo.latency is not None:
            target_s = duration_s(slo.latency.target)
            le = _number(bucket_le(round(target_s * 1000)))
            self.latency.add_metric(key, target_s)
            self.slow.add_metric([*key, le], 1.0 - quantile(slo.latency.quantile))

    def _canary(self, key: list[str], view: View) -> None:
        if view.age_s is not None:
            self.age.add_metric(key, view.age_s)
        if view.measured is None:
            return
        self.requests.add_metric(key, float(view.measured.judgement.requests))
        for result in view.measured.judgement.results:
            of = [*key, str(result.test)]
            if result.observed is not None:
                self.observed.add_metric(of, result.observed)
            self.bound.add_metric(of, result.bound)
            self.evidence.add_metric(of, result.evidence / result.needed)


def _is_ready(deployment: Object) -> bool:
    conditions: Iterable[Mapping[str, Any]] = (deployment.get("status") or {}).get(
        "conditions"
    ) or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _epoch_s(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def _number(value: float) -> str:
    """As Prometheus writes the label ``le``."""
    return f"{value:g}" if value < 1e5 else repr(value)
