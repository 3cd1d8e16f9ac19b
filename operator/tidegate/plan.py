"""The one place where everything comes together: what is observed in, actions out.

Pure: everything it needs is in its arguments, the clock too. It composes the parts and decides
little itself:

1. read the spec; 2. find the revision that it asks for, or let it be born; 3. decide which revision
gets which traffic; 4. keep every child of both as it was born; 5. pin the bytes, place the pods,
move the traffic, tidy up; 6. say so in status and events.

What each of these comes to is in `tidegate.chapters`. Planning again at once for the world it asked
for gives no further change.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from tidegate import conditions, rollout, source, verbs
from tidegate import status as status_document
from tidegate.actions import Action, Plan, WriteStatus
from tidegate.api.names import REQUEST_ANNOTATION
from tidegate.api.spec import parse
from tidegate.chapters import questions, revisions, shared, telling
from tidegate.chapters.in_force import last_request, record_in_force
from tidegate.diagnosis import Finding, Severity
from tidegate.observed import Measurements, Observed
from tidegate.placement import Placement
from tidegate.platform import Platform
from tidegate.record import Record
from tidegate.revision import known_revisions
from tidegate.rollout import LIVE, Course
from tidegate.scaling import quarrel_told
from tidegate.situation import Scene
from tidegate.status import RevisionView, Verdict
from tidegate.target import CannotBeBornError, asked_for

Told = list[tuple[str, str, str]]
"""Events of a decision, as (type, reason, message)."""


def plan(
    observed: Observed,
    platform: Platform,
    now: datetime,
    measurements: Measurements | None = None,
) -> Plan:
    """What to do for one ModelDeployment.

    Args:
        observed: what is known of it and of its children.
        platform: the platform's settings.
        now: UTC.
        measurements: what was measured; None: nothing.
    """
    deployment = observed.deployment
    if deployment["metadata"].get("deletionTimestamp"):
        return Plan()
    try:
        spec = parse(dict(deployment["spec"]))
    except ValidationError as error:
        text = telling.first_error(error)
        return telling.nothing_but_status(deployment, "InvalidSpec", text, now)

    known = known_revisions(observed)
    look = source.last_look(observed, spec)
    record = source.brought_up(record_in_force(observed, known), spec, look, known)
    request = verbs.parse((deployment["metadata"].get("annotations") or {}).get(REQUEST_ANNOTATION))
    if request is not None and request.id in (record.request, last_request(deployment)):
        request = None
    failure: Finding | None = None
    try:
        target = asked_for(spec, observed, platform, known, record, request)
    except CannotBeBornError as error:
        # What serves goes on serving, and is kept as it was born.
        serves = rollout.serving(record)
        if serves not in known:
            return telling.nothing_but_status(deployment, error.reason, str(error), now)
        failure = Finding(Severity.FAILING, "Failed", error.reason, str(error))
        target = known[record.canary if record.phase in LIVE else serves]
    known.setdefault(target.hash, target)
    scene = Scene(
        observed=observed,
        spec=spec,
        known=known,
        target=target,
        now=now,
        measurements=measurements or Measurements(),
        platform=platform,
        request=request,
        failure=failure,
        look=look,
    )
    scene.scale = scene.sized(record)
    return _composed(scene, record)


def _composed(scene: Scene, before: Record) -> Plan:
    """The plan that goes on from a decision in force."""
    course, placed, told = _decided(scene, before)
    record = course.record
    course = status_document.steady(scene.observed.deployment, course, scene.now)
    wanted = _wanted(scene, record, placed)
    views = {h: scene.view(scene.known[h], n) for h, n in wanted.items()}

    actions: list[Action] = []
    traffic = list(shared.traffic(scene, record))
    # What the record is about to forget.
    actions += revisions.failure_kept(scene, before)
    # Away from a bad revision comes before everything else.
    first = record.weight < before.weight
    actions += traffic if first else ()
    for hash_ in views:
        actions += revisions.kept(scene, scene.known[hash_])
        actions += revisions.pinned(scene, scene.known[hash_])
    actions += () if first else traffic
    actions += shared.guards(scene, [scene.known[h] for h in views])
    for hash_, number in wanted.items():
        actions += revisions.fewer(scene, scene.known[hash_], number)
        actions += revisions.scaled(scene, scene.known[hash_], number)
    actions += revisions.remembered(scene, record, course)
    actions += revisions.taken_out(scene)
    actions += shared.looks(scene)
    actions += shared.tidied(scene, set(views))

    status, verdicts = _status(scene, course, views)
    actions += telling.events(scene, told, verdicts)
    actions += telling.scaling_told(scene)
    actions += quarrel_told(scene.observed.deployment, scene.scale)
    actions.append(status)
    soon = (questions.again_after_s(scene, record, course), scene.scale.again_after_s)
    return Plan(
        tuple(actions),
        min((s for s in soon if s is not None), default=None),
        questions.measure(scene, record),
        questions.verify(scene, record, views),
        questions.load(scene, record),
    )


def _decided(scene: Scene, before: Record) -> tuple[Course, Placement | None, Told]:
    """Go on until nothing more follows from what is known now."""
    if scene.failure is not None:
        return Course(before), scene.placed(before), []
    told: Told = []
    record = before
    for _ in range(8):
        course = rollout.course(scene.situation(record))
        told += course.told
        scene.forgiven = scene.forgiven or course.forgive
        if course.record == record:
            break
        record = course.record
    placed = scene.placed(record)
    if placed is not None and placed.gave_way != record.gave_way:
        changed = replace(record, gave_way=placed.gave_way, gave_way_at=rollout.stamp(scene.now))
        course = replace(course, record=changed, again_after_s=0.0)
    if placed is not None and placed.reason and not course.hold and record.phase in LIVE:
        course = replace(course, hold=placed.reason, message=placed.message)
    elif placed is not None and placed.reason == course.hold:
        course = replace(course, message=placed.message)
    return course, placed, told


def _wanted(scene: Scene, record: Record, placed: Placement | None) -> dict[str, int]:
    """Replicas of each revision that has pods, the one that serves first."""
    if placed is None:
        only = record.stable or (record.canary if record.phase in LIVE else "")
        return {only: scene.wanted} if only in scene.known else {}
    found = {record.stable: placed.stable}
    if record.phase in LIVE or scene.keeps_failed(record):
        found[record.canary] = placed.canary
    return found


def _status(
    scene: Scene, course: Course, views: Mapping[str, RevisionView]
) -> tuple[WriteStatus, list[Verdict]]:
    """The status to write, and the conditions in it."""
    record, deployment = course.record, scene.observed.deployment
    serves = rollout.serving(record)
    measured = scene.measured(record)
    scaling = status_document.scaling(deployment, scene.scale, scene.now)
    slo = status_document.slo(deployment, scene.spec, scene.measurements.attained)
    verdicts = conditions.conditions(
        scene.spec,
        record,
        course,
        serves=views.get(serves),
        target=views.get(scene.target.hash) or scene.view(scene.target, scene.wanted),
        wanted=scene.wanted,
        failure=scene.failure or telling.world_failure(scene),
        pinned=scene.pin_of(scene.target) is not None,
        late=scene.is_late(record),
        measured=measured,
        scale=scene.scale,
        scaling=scaling,
        slo=slo,
        attained=scene.measurements.attained,
    )
    verdicts.append(telling.outdated(scene, scene.known.get(serves, scene.target)))
    verdicts += telling.followed(scene, record)
    verdicts += telling.answers(scene, scene.known.get(serves))
    document = status_document.document(
        deployment,
        scene.spec,
        verdicts=verdicts,
        record=record,
        course=course,
        views=views,
        scaling=scaling,
        slo=slo,
        measured=measured,
        known=scene.known,
        now=scene.now,
    )
    return WriteStatus(document), verdicts
