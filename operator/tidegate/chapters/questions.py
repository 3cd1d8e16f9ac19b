"""What is to be measured, asked and waited for until the next plan. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tidegate import placement, rollout
from tidegate import status as status_document
from tidegate.actions import Load, Measure, ShortLoad, Verify
from tidegate.analysis.judgement import Objective
from tidegate.api.spec import ScalingMode
from tidegate.api.units import duration_s
from tidegate.autoscaling.decision import Hold
from tidegate.diagnosis import is_ready
from tidegate.measurement import bounds_ms
from tidegate.record import Record
from tidegate.revision import spec_of
from tidegate.rollout import LIVE, Course
from tidegate.situation import Scene, has_sidecar
from tidegate.status import RevisionView

STABILISING_S: Final = 10.0
"""How often a number that is to come down is looked at."""


def measure(scene: Scene, record: Record) -> Measure | None:
    """What the sidecars are asked while a canary is on trial."""
    stable, canary = scene.known.get(record.stable), scene.known.get(record.canary)
    if record.phase not in LIVE or stable is None or canary is None:
        return None
    if not has_sidecar(canary):
        return None
    objective = Objective.of(scene.spec)
    bounds = bounds_ms(objective.latency_target_ms)
    return Measure(
        stable=stable.hash,
        canary=canary.hash,
        started=record.started,
        since=record.since,
        objective=replace(objective, latency_bounds_ms=bounds),
        interval_s=rollout.measure_interval_s(record, scene.now),
        state=status_document.evidence_state(scene.observed.deployment, record),
        uneven=placement.uneven(
            record.weight, record.mirror, scene.places(canary).ready, scene.places(stable).ready
        ),
        seen=status_document.seen(scene.observed.deployment, record),
    )


def verify(scene: Scene, record: Record, views: Mapping[str, RevisionView]) -> tuple[Verify, ...]:
    """The golden requests that ready pods are to answer: each revision's its own."""
    asked = scene.spec.golden_requests
    if asked is None:
        return ()
    found: dict[str, list[str]] = {}
    for revision in (scene.known[h] for h in views):
        if config_map := scene.golden_requests(revision):
            pods = found.setdefault(config_map, [])
            pods += [p["metadata"]["uid"] for p in scene.pods(revision) if is_ready(p)]
    return tuple(
        Verify(
            config_map=config_map,
            model=scene.spec.model.name or scene.observed.deployment["metadata"]["name"],
            pods=tuple(pods),
            every_s=None if asked.every is None else duration_s(asked.every),
            load=_short_load(scene, record),
        )
        for config_map, pods in found.items()
    )


def _short_load(scene: Scene, record: Record) -> ShortLoad | None:
    """Only while nothing is served: nobody's requests wait behind it."""
    asked = scene.spec.golden_requests and scene.spec.golden_requests.load_test
    if not asked or record.stable or record.weight > 0 or record.phase not in LIVE:
        return None
    objective = Objective.of(scene.spec)
    return ShortLoad(
        rate_per_s=asked.rate,
        duration_s=duration_s(asked.duration),
        max_error_rate=objective.max_error_rate,
        latency_target_ms=objective.latency_target_ms,
        slow_share=objective.slow_share,
    )


def load(scene: Scene, record: Record) -> Load | None:
    """What is to be measured of the load, whether replicas follow it or not."""
    found = {h: scene.known.get(h) for h in (rollout.serving(record), record.canary) if h}
    revisions = {h: r for h, r in found.items() if r is not None}
    if not revisions:
        return None
    by_load = scene.spec.scaling_mode is ScalingMode.SLO
    name = scene.observed.deployment["metadata"]["name"]
    return Load(
        spec=scene.spec,
        model=scene.spec.model.name or name,
        scaled={h: spec_of(r, scene.spec) for h, r in revisions.items()} if by_load else {},
    )


def again_after_s(scene: Scene, record: Record, course: Course) -> float | None:
    """The deadlines pass without any event."""
    found = [] if course.again_after_s is None else [course.again_after_s]
    deadline = scene.deadline(record)
    if deadline is not None and deadline > scene.now:
        found.append((deadline - scene.now).total_seconds())
    if scene.keeps_failed(record):
        keep_s = duration_s(scene.spec.rollout.keep_failed)
        found.append(keep_s - scene.since_s(record.since) + 0.1)
    if record.phase in LIVE and record.stable:
        waiting = scene.places(scene.known[record.canary]).waiting
        if waiting:  # for the surge's patience to end, and pods to settle
            found.append(5.0)
    decision = scene.scale.decision
    if decision is not None and decision.hold is Hold.STABILISING:
        found.append(STABILISING_S)
    return max(0.05, min(found)) if found else None
