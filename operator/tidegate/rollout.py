"""Which revision serves, which one is wanted, and when the traffic moves.

The entry Service's selector is the record of the decision: it says which revision is stable, so a
restart at any point goes on from there.
"""

from dataclasses import dataclass

from tidegate.api.spec import Spec, Strategy
from tidegate.observed import Observed, Ref
from tidegate.resources.services import revision_of
from tidegate.revision import Revision


@dataclass(frozen=True)
class Course:
    """What a rollout comes to now.

    Attributes:
        stable: hash of the revision that gets the traffic from now on.
        switched_from: hash of the one that got it until now, if that changes.
        message: why it is so, for people.
    """

    stable: str
    switched_from: str | None = None
    message: str = ""


def serving(observed: Observed, known: dict[str, Revision]) -> str | None:
    """Hash of the revision that gets the traffic at present; None before the first.

    Read from the entry Service; where somebody deleted it, from the last status.
    """
    name = observed.deployment["metadata"]["name"]
    entry = observed.children.get(Ref("v1", "Service", name))
    hashes = []
    if entry is not None:
        hashes.append(revision_of(entry))
    status = observed.deployment.get("status") or {}
    hashes.append(((status.get("revisions") or {}).get("stable") or {}).get("hash"))
    return next((h for h in hashes if h in known), None)


def course(
    spec: Spec,
    serving_hash: str | None,
    target: str,
    known: dict[str, Revision],
    *,
    target_serves: bool,
) -> Course:
    """Decide which revision is stable.

    Args:
        spec: what the user asks for.
        serving_hash: from `serving`.
        target: hash of the spec's revision.
        known: revisions by hash.
        target_serves: whether as many pods of the target are ready as are wanted.
    """
    if serving_hash is None or serving_hash == target:
        return Course(target)
    if not known[serving_hash].live_since:
        return Course(target, serving_hash, "the revision before it never served")
    if spec.rollout.paused:
        return Course(
            serving_hash, message="Paused: rollout.paused is true; set it to false to go on"
        )
    if spec.rollout.strategy is Strategy.RECREATE:
        return Course(target, serving_hash, "strategy Recreate: the old pods make room first")
    if target_serves:
        return Course(target, serving_hash, "all its pods are ready")
    return Course(serving_hash, message="the new revision gets traffic when all its pods are ready")
