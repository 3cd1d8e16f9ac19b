"""Verbs: what a person asked for, handled once."""

from dataclasses import replace

from tidegate.record import Phase, Record
from tidegate.rollout.promotion import switch
from tidegate.rollout.sight import out_of_sight
from tidegate.rollout.state import (
    LIVE,
    Course,
    Situation,
    by_steps,
    rolled_back,
    start,
)
from tidegate.rollout.steps import to_step
from tidegate.verbs import Verb


def asked(s: Situation) -> Course:
    """Handle a request, once: its id stands in the record from then on."""
    assert s.request is not None
    request = s.request
    record = replace(s.record, request=request.id)
    handled = replace(s, record=record)
    live = record.phase in LIVE and record.canary == s.target
    meant = request.revision
    by = f"{request.verb} by {request.user}"
    if meant and request.verb not in (Verb.UNDO, Verb.RESTART) and meant != s.target:
        return _refused(record, f"{by}: revision {meant} is not the one on trial ({s.target})")
    match request.verb:
        case Verb.PAUSE | Verb.RESUME:
            paused = request.verb is Verb.PAUSE
            return _granted(replace(record, paused=paused), by)
        case Verb.ABORT if live and record.stable:
            return rolled_back(handled, "Aborted", by)
        case Verb.PROMOTE if live and record.stable and _may_be_forced(s):
            # As soon as its pods can carry all of the traffic.
            return _granted(replace(record, forced=by), by)
        case Verb.SKIP_STEP if live and record.stable and by_steps(s):
            following = -1 if record.step is None else record.step
            if record.phase not in (Phase.MIRRORING, Phase.CANARY):
                return _refused(record, f"{by}: it is {record.phase}, not at a step")
            if following + 1 < len(s.spec.rollout.steps):
                return _moved(record, by, to_step(handled, following + 1))
            return _moved(record, by, switch(handled))
        case Verb.RETRY if s.failed is not None and not live:
            started = start(handled)
            granted = ("Normal", "RequestGranted", _told(by, record))
            return replace(started, forgive=True, told=(granted, *started.told))
        case Verb.UNDO if s.undo_to:
            return _granted(replace(record, target=s.undo_to, target_for=s.target_for), by)
        case Verb.RESTART:
            # The plan has made the new revision, which is the target already.
            return _granted(replace(record, target="", target_for=""), by)
    return _refused(record, f"{by}: {_why_not(s, live=live)}")


def _may_be_forced(s: Situation) -> bool:
    """In the bake there is nothing to go past but counters that cannot be read."""
    return s.record.phase is not Phase.BAKING or out_of_sight(s)


def _why_not(s: Situation, *, live: bool) -> str:
    """Why what is asked for makes no sense now."""
    assert s.request is not None
    record, verb = s.record, s.request.verb
    if verb is Verb.RETRY:
        return "it is on trial already" if live else f"revision {s.target} has not failed"
    if verb is Verb.UNDO:
        return "there is no such kept revision to go back to"
    if not live:
        return f"no rollout is under way ({record.phase})"
    if not record.stable:
        return "it is the first revision: nothing serves beside it"
    if verb is Verb.SKIP_STEP:
        return "it does not go by steps; promote moves all traffic"
    return "it has all of the traffic already, and bakes; abort or undo lead back"


def _granted(record: Record, by: str) -> Course:
    return Course(
        record, told=(("Normal", "RequestGranted", _told(by, record)),), again_after_s=0.0
    )


def _refused(record: Record, message: str) -> Course:
    told = (("Warning", "RequestRefused", _told(message, record)),)
    return Course(record, told=told, again_after_s=0.0)


def _told(message: str, record: Record) -> str:
    """With the id, since the same event twice is told once."""
    return f"{message} (request {record.request})"


def _moved(before: Record, by: str, found: Course) -> Course:
    if replace(found.record, since=before.since) == before:
        return _refused(found.record, f"{by}: {found.message}")
    return replace(found, told=(("Normal", "RequestGranted", _told(by, before)), *found.told))
