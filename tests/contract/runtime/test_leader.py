"""Who may write: two operators and one Lease, against a real API server."""

import asyncio
from collections.abc import Iterator
from datetime import datetime

import pytest

from e2e.cluster.audit import AuditLog
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from tests.contract import runtime_harness as h
from tidegate.platform import Platform
from tidegate.runtime.fence import FencedError
from tidegate.runtime.kinds import LEASE, MODEL_DEPLOYMENT, kind_of
from tidegate.runtime.kube import Kube
from tidegate.runtime.leader import LeadershipLostError
from tidegate.runtime.operator import Operator

pytestmark = pytest.mark.contract

SOON = {"lease_duration_s": 4.0, "renew_deadline_s": 3.0}
"""A Lease that runs out in a test's time."""


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with start() as plane:
        yield plane


async def generation_served(kube: Kube, namespace: str) -> int:
    live = await kube.get(MODEL_DEPLOYMENT, namespace, "m")
    return int(live.get("status", {}).get("observedGeneration", 0))


def work(log: AuditLog, user: str) -> list[str]:
    return [w.resource for w in log.writes(user=user) if w.resource != "leases"]


async def test_only_the_holder_writes_and_a_standby_takes_over_at_once(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    log = AuditLog(plane.audit_log)
    async with h.running(
        plane, namespace, h.tiny_plan, "second", lease_duration_s=3600.0, renew_deadline_s=3599.0
    ) as second:
        await h.leading(second)
        async with h.running(plane, namespace, h.tiny_plan, "standby") as standby:
            await h.until(lambda: standby.probes._ready() == "", "a warm standby")
            await h.create_model(kube, namespace)

            async def served() -> bool:
                return await generation_served(kube, namespace) == 1

            await h.until(served, "the holder's work")
            await h.quiet(second)
            assert work(log, "standby") == []
            assert not log.writes(user="standby")
            # Orderly end: the Lease is released, nobody waits an hour.
            second.stop()
            await h.leading(standby)
            before = len(work(log, "second"))
            await kube.merge(
                MODEL_DEPLOYMENT, namespace, "m", {"spec": {"image": "x:2"}}, manager="user"
            )

            async def served_again() -> bool:
                return await generation_served(kube, namespace) == 2

            await h.until(served_again, "the standby's work")
            assert len(work(log, "second")) == before
            lease = await kube.get(LEASE, namespace, "tidegate-operator")
            assert lease["spec"]["leaseTransitions"] == 1


async def test_a_standby_takes_over_from_a_holder_that_vanished(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    log = AuditLog(plane.audit_log)
    settings = h.settings(namespace, **SOON)
    first = Operator(settings, Platform(), h.tiny_plan, h.connection(plane, "first"))
    task = asyncio.create_task(first.run(signals=False))
    await h.leading(first)
    async with h.running(plane, namespace, h.tiny_plan, "heir") as heir:
        await h.until(lambda: heir.probes._ready() == "", "a warm standby")

        async def silent() -> None:
            """A process that is killed releases nothing."""

        first.leadership.release = silent  # type: ignore[method-assign]
        task.cancel()
        await asyncio.wait([task])
        await h.leading(heir)
        # Not before the Lease has run out: the vanished one might only be slow.
        last = max(w.at for w in log.writes(user="first") if w.resource == "leases")
        taken = min(w.at for w in log.writes(user="heir") if w.resource == "leases")
        waited = datetime.fromisoformat(taken) - datetime.fromisoformat(last)
        assert waited.total_seconds() >= settings.lease_duration_s
        await h.create_model(kube, namespace)

        async def served() -> bool:
            return await generation_served(kube, namespace) == 1

        await h.until(served, "the heir's work")


async def test_a_holder_that_cannot_renew_stops_writing_and_ends(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    settings = h.settings(namespace, **SOON)
    operator = Operator(settings, Platform(), h.tiny_plan, h.connection(plane, "cut"))
    task = asyncio.create_task(operator.run(signals=False))
    await h.leading(operator)

    async def cut(*_: object, **__: object) -> None:
        from tidegate.runtime.kube import UnreachableError

        raise UnreachableError("cut")

    operator.kube.lease = cut  # type: ignore[assignment, method-assign]
    with pytest.raises(LeadershipLostError):
        await asyncio.wait_for(task, h.WAIT_S)
    async with operator.kube:
        with pytest.raises(FencedError):
            await operator.kube.create(
                kind_of("v1", "ConfigMap"),
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "x", "namespace": namespace},
                },
                manager="x",
            )
    assert await kube.find(kind_of("v1", "ConfigMap"), namespace, "x") is None


async def test_a_holder_whose_lease_was_taken_ends(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    operator = Operator(
        h.settings(namespace), Platform(), h.tiny_plan, h.connection(plane, "robbed")
    )
    task = asyncio.create_task(operator.run(signals=False))
    await h.leading(operator)

    async def take() -> bool:
        lease = await kube.get(LEASE, namespace, "tidegate-operator")
        lease["spec"]["holderIdentity"] = "thief"
        try:
            await kube.lease(LEASE, namespace, lease, timeout_s=60.0)
        except Exception:
            return False
        return True

    await h.until(take, "the Lease taken")
    with pytest.raises(LeadershipLostError, match="thief"):
        await asyncio.wait_for(task, h.WAIT_S)
    lease = await kube.get(LEASE, namespace, "tidegate-operator")
    assert lease["spec"]["holderIdentity"] == "thief"


async def test_one_of_many_wins(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    async with (
        h.running(plane, namespace, h.tiny_plan, "a") as a,
        h.running(plane, namespace, h.tiny_plan, "b") as b,
        h.running(plane, namespace, h.tiny_plan, "c") as c,
    ):
        operators = (a, b, c)
        await h.until(lambda: any(o.leadership.held for o in operators), "a holder")
        for _ in range(30):
            assert sum(o.leadership.held for o in operators) == 1
            await asyncio.sleep(0.05)
