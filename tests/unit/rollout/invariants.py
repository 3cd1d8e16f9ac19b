"""What must hold at every single write, and after every pass: S1 to S8 of the design.

S1 stable keeps its capacity. S2 traffic goes to what can take it, weights sum to the whole. S3 one
decision for each step, written with the traffic it justifies. S4 a failed revision gets no traffic
again by itself. S5 status is true. S6 no orphans. S7 it comes to rest. S8 no hot loop.
"""

from typing import TYPE_CHECKING

import pytest

from tidegate.actions import Action, Apply, Delete, Scale
from tidegate.api.names import REVISION_LABEL
from tidegate.api.spec import Strategy
from tidegate.observed import Ref
from tidegate.placement import can_carry
from tidegate.record import Phase, Record
from tidegate.resources.services import revision_of
from tidegate.rollout import LIVE

if TYPE_CHECKING:
    from tests.unit.rollout.world import World

ORDER = [Phase.PREPARING, Phase.VERIFYING, Phase.MIRRORING, Phase.CANARY, Phase.BAKING]


def check_write(world: "World", action: Action, before: "Snapshot") -> None:
    """After one write."""
    match action:
        case Scale():
            _scaled(world, action, before)
        case Delete():
            _deleted(world, action, before)
        case Apply():
            _applied(world, action, before)


class Snapshot:
    """The world before a write."""

    def __init__(self, world: "World", action: Action) -> None:
        self.shares = world.shares()
        self.record = world.record
        self.replicas = 0
        if isinstance(action, Scale) and action.ref in world.children:
            self.replicas = world.children[action.ref]["spec"]["replicas"]
        gone = world.children.get(action.ref) if isinstance(action, Delete) else None
        self.revision = (
            None if gone is None else (gone["metadata"].get("labels") or {}).get(REVISION_LABEL)
        )


def _scaled(world: "World", action: Scale, before: Snapshot) -> None:
    """S1: fewer stable pods only as far as its record says, never less than it serves with."""
    record, hash_ = world.record, world.revision_at(action.ref)
    if hash_ != record.stable or _recreates(world, record):
        return
    floor = world.wanted - (record.gave_way if record.phase in LIVE else 0)
    if world.wanted:
        floor = max(1, floor)
    assert action.replicas >= min(before.replicas, floor), (
        f"S1: stable is scaled from {before.replicas} to {action.replicas}, floor {floor}: {record}"
    )


def _recreates(world: "World", record: Record) -> bool:
    """Whether Recreate may take the old pods away: before the canary, and not while it is held."""
    asked = world.spec["rollout"]
    if asked.get("strategy") != Strategy.RECREATE:
        return False
    paused = (asked.get("paused") or record.paused) and not record.forced
    held = paused and world.ready_seen.get(record.stable, 0) > 0
    beginning = record.phase in (Phase.PREPARING, Phase.VERIFYING)
    return record.phase is Phase.BAKING or (beginning and not held)


def _deleted(world: "World", action: Delete, before: Snapshot) -> None:
    """S2: nothing goes that still gets requests."""
    if before.revision is None:
        return
    # One that never had a ready pod has nobody to lose.
    serves = world.ready_seen.get(before.revision, 0) > 0
    if serves and action.ref.kind in ("Deployment", "Service", "ConfigMap"):
        assert not before.shares.get(before.revision), (
            f"S2: {action.ref} goes while its revision gets {before.shares}"
        )
        entry = world.children.get(Ref("v1", "Service", action_name(world)))
        assert entry is None or revision_of(entry) != before.revision, (
            f"S2: {action.ref} goes while the entry leads to it"
        )


def action_name(world: "World") -> str:
    return str(world.deployment["metadata"]["name"])


def _applied(world: "World", action: Apply, before: Snapshot) -> None:
    record, shares = world.record, world.shares()
    if action.ref.kind == "HTTPRoute":
        assert sum(shares.values()) == pytest.approx(1.0), f"S2: shares {shares}"
        weight = record.weight if record.phase in LIVE and record.stable else None
        if weight is not None and record.phase is not Phase.PREPARING:
            assert shares.get(record.canary, 0.0) == pytest.approx(weight), (
                f"S3: the route says {shares}, its record {weight}"
            )
    if action.ref.kind not in ("HTTPRoute", "Service"):
        return
    for hash_, share in shares.items():
        if share > before.shares.get(hash_, 0.0):
            _rises(world, record, hash_, share, before)
    _goes_on(before.record, record)


def _rises(world: "World", record: Record, hash_: str, share: float, before: Snapshot) -> None:
    """S2 and S4, where a revision gets more than before."""
    alone = not record.stable or set(before.shares) <= {hash_} or not before.shares
    if not alone:
        assert hash_ not in world.failed, f"S4: {hash_} failed, and gets {share}"
    if record.phase in LIVE and record.stable and hash_ == record.canary and world.wanted:
        ready = world.ready(hash_)
        assert can_carry(share, world.wanted, ready, record.gave_way), (
            f"S2: {share} on {ready} ready pods of {world.wanted}: {record}"
        )


def _goes_on(before: Record, after: Record) -> None:
    """S3: within one rollout phases and steps go forward only; but the weight may fall."""
    if before.started != after.started or after.phase not in LIVE or before.phase not in LIVE:
        return
    if before.canary != after.canary:
        return
    assert ORDER.index(after.phase) >= ORDER.index(before.phase), f"S3: {before} -> {after}"
    if after.phase is before.phase is Phase.CANARY and after.weight > before.weight:
        assert (after.step or 0) > (before.step or 0) or after.since != before.since


def check_pass(world: "World") -> None:
    """After one pass that was not cut short."""
    status, record, shares = world.status, world.record, world.shares()
    said = {t["revision"]: t["weight"] for t in status.get("traffic") or ()}
    if said and shares:
        assert sum(said.values()) in (0, 100), f"S5: traffic {said}"
        for hash_, share in shares.items():
            if world.ready_seen.get(hash_, 0) == 0:
                continue  # It answers nobody, whatever a route still says.
            assert said.get(hash_, 0) == round(share * 100), f"S5: {said}, the route {shares}"
    conditions = {c["type"]: c for c in status["conditions"]}
    ready = conditions["Ready"]["status"] == "True"
    if ready and world.wanted:
        target = (status["revisions"].get("stable") or {}).get("hash")
        serving = record.canary if record.phase is Phase.BAKING else target
        assert shares == {serving: 1.0}, f"S5: Ready, but {shares}"
        assert world.ready_seen.get(str(serving), 0) >= 1, "S5: Ready without a ready pod"
    told = [conditions[c]["status"] for c in ("Ready", "Stalled", "Reconciling")]
    assert told.count("True") <= 1, f"S5: {conditions}"
    again = world.last.requeue_after_s
    assert again is None or again >= 0.05, f"S8: again after {again}"


def check_rest(world: "World") -> None:
    """When all faults are over and nothing moves any more."""
    record = world.record
    if not world.wanted and not record.stable:
        return  # The first revision, which nothing can be sent to while it is scaled to zero.
    assert record.phase not in LIVE, f"S7: {record}"
    active = {h for h in (record.stable,) if h}
    for kind in ("Deployment", "Service"):
        found = {
            (o["metadata"].get("labels") or {}).get(REVISION_LABEL) for o in world.of_kind(kind)
        }
        assert found - {None} <= active, f"S6: {kind}s of {found - {None} - active}"
    assert world.asked(record.stable) == world.wanted, "S1: not all that is wanted"
    if world.wanted:
        assert world.ready(record.stable) == world.wanted
        assert world.condition("Available")["status"] == "True"
    assert record.stable not in world.failed, f"S4: {record}"
    writes = world.writes
    again = world.last.requeue_after_s
    assert again is None or again >= 1.0, f"S8: again after {again} though nothing is to be done"
    world.run(3600, step=600)
    world.restart()
    world.run(600, step=60)
    assert world.writes == writes, f"S7: writes at rest: {world.log[writes - world.writes :]}"
