"""The decision that holds, and the last request that was handled. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from tidegate import status as status_document
from tidegate.observed import Object, Observed, Ref
from tidegate.record import Phase, Record
from tidegate.resources.route import record_carried
from tidegate.resources.services import revision_of
from tidegate.revision import Revision
from tidegate.rollout import LIVE


def record_in_force(observed: Observed, known: Mapping[str, Revision]) -> Record:
    """The decision that holds: from the route, the entry Service, or the last status."""
    name = observed.deployment["metadata"]["name"]
    entry = observed.children.get(Ref("v1", "Service", name))
    found = record_carried(name, observed.children)
    if found is None:
        found = status_document.record_of(observed.deployment)
        serves = revision_of(entry) if entry is not None else None
        if found is None or (serves is not None and serves not in (found.stable, found.canary)):
            found = Record(stable=serves or _last_that_served(known))
    if found.stable and found.stable not in known:
        found = replace(found, stable="")
    if found.phase in LIVE and found.canary not in known:
        phase = Phase.SUPERSEDED if found.stable else Phase.PROMOTED
        found = replace(found, canary="", phase=phase, weight=0.0, mirror=0.0, step=None)
    return found


def _last_that_served(known: Mapping[str, Revision]) -> str:
    """Where nothing else says what serves: the newest one that ever did and has not failed."""
    served = [r for r in known.values() if r.live_since and not r.failed]
    return max(served, key=lambda r: (r.live_since, r.number)).hash if served else ""


def last_request(deployment: Object) -> str:
    """Id of the last verb that was handled; empty: none was."""
    return str((deployment.get("status") or {}).get("lastRequest") or "")
