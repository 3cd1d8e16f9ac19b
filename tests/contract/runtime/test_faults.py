"""The operator while the way to the API server misbehaves, and when rights are missing."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from e2e.cluster.audit import AuditLog
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start
from tests.contract import runtime_harness as h
from tests.contract.fault_proxy import Fault, FaultProxy, fault_proxy
from tidegate.runtime import operator as operator_module
from tidegate.runtime.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, WATCHED, Kind, kind_of
from tidegate.runtime.kube import Kube
from tidegate.runtime.queue import Backoff

pytestmark = pytest.mark.contract

CONFIG_MAP = kind_of("v1", "ConfigMap")
SERVICE = kind_of("v1", "Service")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with start() as plane:
        yield plane


@pytest.fixture
async def proxy(plane: ControlPlane) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(h.connection(plane, "operator")) as proxy:
        yield proxy


async def served(kube: Kube, namespace: str, generation: int = 1) -> None:
    async def done() -> bool:
        status = (await kube.get(MODEL_DEPLOYMENT, namespace, "m")).get("status", {})
        return bool(status.get("observedGeneration") == generation)

    await h.until(done, f"status of generation {generation}")


async def new_generation(kube: Kube, namespace: str, image: str) -> None:
    await kube.merge(MODEL_DEPLOYMENT, namespace, "m", {"spec": {"image": image}}, manager="user")


@pytest.mark.parametrize(("code", "reason"), [(410, "Expired"), (500, "InternalError")])
async def test_watch_errors_are_survived(
    kube: Kube, namespace: str, proxy: FaultProxy, code: int, reason: str
) -> None:
    await h.create_model(kube, namespace, image="triton:1")
    needed = {kind.plural for kind in WATCHED if not kind.optional}

    def all_watched() -> bool:
        return needed <= {watch.plural for watch in proxy.watches}

    # Sweeps are off: the watch itself must come back.
    async with h.running(
        proxy.connection, namespace, h.tiny_plan, sweep_period_s=3600.0
    ) as operator:
        await served(kube, namespace)
        for generation in (2, 3):
            await h.until(all_watched, "a watch of each kind")
            await proxy.say(code, reason)
            await new_generation(kube, namespace, f"triton:{generation}")
            await served(kube, namespace, generation)
        await h.until(lambda: operator.probes._alive() == "", "health")


async def test_deletions_in_a_gap_of_the_watch_are_noticed(
    kube: Kube, namespace: str, proxy: FaultProxy
) -> None:
    for name in ("m", "n"):
        await h.create_model(kube, namespace, name)
    async with h.running(proxy.connection, namespace, h.tiny_plan) as operator:

        async def all_served() -> bool:
            objects = [await kube.get(MODEL_DEPLOYMENT, namespace, n) for n in ("m", "n")]
            return all("status" in o for o in objects)

        await h.until(all_served, "both served")
        await h.quiet(operator)
        # A relist after a gap tells of no deletions: lose the event, then break the watch.
        proxy.keep = lambda plural, event: event["type"] != "DELETED"
        gone = await kube.get(MODEL_DEPLOYMENT, namespace, "n")
        await kube.delete(MODEL_DEPLOYMENT, namespace, "n", uid=gone["metadata"]["uid"])
        policy = await kube.get(CONFIG_MAP, namespace, "m-abc")
        await kube.delete(CONFIG_MAP, namespace, "m-abc", uid=policy["metadata"]["uid"])
        await proxy.say(410, "Expired")
        await h.until(
            lambda: operator.cache.get(MODEL_DEPLOYMENT, namespace, "n") is None, "ghost dropped"
        )

        async def back() -> bool:
            return await kube.find(CONFIG_MAP, namespace, "m-abc") is not None

        await h.until(back, "the child whose deletion was lost")


async def test_a_watch_that_is_silently_dead_is_found_and_renewed(
    kube: Kube, namespace: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # First without renewing: a relist would hide whether the sweep reads.
    monkeypatch.setattr(operator_module, "RENEW_AFTER_SWEEPS", 10**9)
    await h.create_model(kube, namespace, image="triton:1")
    async with h.running(proxy.connection, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        dead = list(proxy.watches)
        proxy.keep = lambda plural, event: plural != "modeldeployments"
        await new_generation(kube, namespace, "triton:2")
        # The sweep reads what the watch does not bring,
        await h.until(lambda: MODEL_DEPLOYMENT in operator.health.behind_since, "a sweep")
        await served(kube, namespace, 2)
        assert all(watch in proxy.watches for watch in dead)
        monkeypatch.undo()
        await new_generation(kube, namespace, "triton:3")

        # and after another time the watch is started anew.
        def renewed() -> bool:
            return any(w.plural == "modeldeployments" and w not in dead for w in proxy.watches)

        await h.until(renewed, "a new watch")
        proxy.keep = lambda plural, event: True
        await new_generation(kube, namespace, "triton:4")
        await served(kube, namespace, 4)
        await h.until(lambda: not operator.health.behind_since, "the watch keeps up again")


async def test_a_watch_that_stays_behind_makes_the_process_unhealthy(
    kube: Kube, namespace: str, proxy: FaultProxy
) -> None:
    await h.create_model(kube, namespace)
    async with h.running(
        proxy.connection, namespace, h.tiny_plan, stale_watch_limit_s=0.001
    ) as operator:
        await served(kube, namespace)
        # The least delay counts here, so that it is healthy between two of them.
        await h.until(lambda: operator.probes._alive() == "", "a healthy process")
        proxy.refuse_watches = True
        await proxy.say(500, "InternalError")
        proxy.keep = lambda plural, event: plural != "modeldeployments"

        async def unhealthy() -> bool:
            await new_generation(kube, namespace, str(asyncio.get_running_loop().time()))
            return "watch of ModelDeployment" in operator.probes._alive()

        # kopf lists anew with each restart, which hides a refused watch between two changes.
        await h.until(unhealthy, "an unhealthy process")


@pytest.mark.parametrize("fault", list(Fault))
async def test_writes_that_fail_or_lose_their_answer_are_made_good(
    kube: Kube, namespace: str, proxy: FaultProxy, fault: Fault
) -> None:
    failed: list[str] = []

    def each_first_time(method: str, path: str) -> Fault | None:
        if method in ("GET",) or "leases" in path or path in failed:
            return None
        failed.append(path)
        return fault

    proxy.fault = each_first_time
    await h.create_model(kube, namespace, replicas=2)
    async with h.running(proxy.connection, namespace, h.tiny_plan) as operator:
        # Seven failures in a row, one for each write: with the usual pauses that is a minute.
        operator.queue.schedule.backoff = Backoff(first_s=0.05, limit_s=0.2)
        await served(kube, namespace)
        await h.quiet(operator)
        assert len(failed) >= 7, failed
        assert (await kube.get(DEPLOYMENT, namespace, "m-abc"))["spec"]["replicas"] == 2
        status = (await kube.get(MODEL_DEPLOYMENT, namespace, "m"))["status"]
        assert status["foreign"] == []


async def test_the_api_server_may_be_away_for_a_while(
    kube: Kube, namespace: str, proxy: FaultProxy
) -> None:
    await h.create_model(kube, namespace, image="triton:1")
    async with h.running(proxy.connection, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        proxy.fault = lambda method, path: Fault.ANSWER_500
        proxy.refuse_watches = True
        await proxy.say(500, "InternalError")
        await new_generation(kube, namespace, "triton:2")
        await asyncio.sleep(5.0)
        assert operator.leadership.held
        proxy.fault = lambda method, path: None
        proxy.refuse_watches = False
        await served(kube, namespace, 2)


async def grant(kube: Kube, namespace: str, user: str, *, without: tuple[str, ...] = ()) -> None:
    """A Role with all that the operator needs, less `without` ("verb resource")."""

    def verbs(resource: str, *wanted: str) -> list[str]:
        return [v for v in wanted if f"{v} {resource}" not in without]

    rules: list[dict[str, Any]] = [
        {
            "apiGroups": [kind.group],
            "resources": [kind.plural],
            "verbs": verbs(kind.plural, "get", "list", "watch", "create", "patch", "delete"),
        }
        for kind in WATCHED
    ]
    rules += [
        {
            "apiGroups": ["tidegate.dev"],
            "resources": ["modeldeployments/status"],
            "verbs": verbs("modeldeployments/status", "patch"),
        },
        {
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "verbs": verbs("deployments/scale", "get", "patch"),
        },
        {
            "apiGroups": [""],
            "resources": ["events"],
            "verbs": verbs("events", "get", "list", "create", "patch"),
        },
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update"],
        },
    ]
    rules = [r for r in rules if r["verbs"]]
    api = "rbac.authorization.k8s.io/v1"
    role = Kind(api, "Role", "roles")
    binding = Kind(api, "RoleBinding", "rolebindings")
    metadata = {"name": "operator", "namespace": namespace}
    await kube.apply(
        role,
        {"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": rules},
        manager="test",
        force=True,
    )
    await kube.apply(
        binding,
        {
            "apiVersion": api,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api.split("/")[0], "kind": "Role", "name": "operator"},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        },
        manager="test",
        force=True,
    )


async def test_the_documented_rights_are_enough(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    user = f"limited-{namespace}"
    await grant(kube, namespace, user)
    await h.create_model(kube, namespace, replicas=1)
    log = AuditLog(plane.audit_log)
    where = h.connection(plane, user, groups=())
    async with h.running(where, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        await h.quiet(operator)
    assert {w.code for w in log.writes(user=user)} <= {200, 201}


@pytest.mark.parametrize(
    ("lost", "failure"),
    [
        ("patch services", "Apply Forbidden"),
        ("patch deployments", "Apply Forbidden"),
        ("patch networkpolicies", "Apply Forbidden"),
        ("patch deployments/scale", "Scale Forbidden"),
    ],
)
async def test_a_right_that_is_missing_is_told_and_tried_again_with_patience(
    plane: ControlPlane, kube: Kube, namespace: str, lost: str, failure: str
) -> None:
    user = f"limited-{namespace}"
    await grant(kube, namespace, user, without=(lost,))
    await h.create_model(kube, namespace, replicas=1)
    log = AuditLog(plane.audit_log)
    where = h.connection(plane, user, groups=())
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with h.running(where, namespace, h.tiny_plan) as operator:

        async def told() -> bool:
            status = (await kube.get(MODEL_DEPLOYMENT, namespace, "m")).get("status", {})
            return bool(status.get("failures") == [failure])

        await h.until(told, f"status says {failure}")
        await asyncio.sleep(5.0)
        refused = [w for w in log.writes(user=user) if w.code == 403]
        # At once, and then with pauses of half a second, doubled each time.
        most = 3 + math.log2(1.0 + (loop.time() - began) / 0.5)
        assert 1 <= len(refused) <= most, refused
        # What serving does not depend on holds nothing up.
        if lost == "patch networkpolicies":
            assert (await kube.get(DEPLOYMENT, namespace, "m-abc"))["spec"]["replicas"] == 1
        await grant(kube, namespace, user)

        async def recovered() -> bool:
            status = (await kube.get(MODEL_DEPLOYMENT, namespace, "m")).get("status", {})
            return bool(status.get("failures") == [])

        async def forgiven() -> bool:
            return operator.queue.schedule.failures(next(iter(operator.cache.known()))) == 0

        await h.until(recovered, "recovery by itself")
        # The pass that wrote this status is to end before it counts as one that went well.
        await h.until(forgiven, "the end of the patience")


async def test_without_the_right_to_list_a_kind_nothing_is_planned(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    user = f"limited-{namespace}"
    await grant(kube, namespace, user, without=("list configmaps",))
    await h.create_model(kube, namespace)
    log = AuditLog(plane.audit_log)
    where = h.connection(plane, user, groups=())
    async with h.running(where, namespace, h.tiny_plan) as operator:
        await h.until(
            lambda: operator.probes._ready() == "not synced yet: ConfigMap", "only that one"
        )
        await asyncio.sleep(1.0)
        assert log.writes(user=user) == []
        await grant(kube, namespace, user)
        await served(kube, namespace)
        assert operator.probes._ready() == ""


async def test_an_optional_kind_that_may_not_be_listed_is_left_out(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    user = f"limited-{namespace}"
    await grant(kube, namespace, user, without=("list resourceclaimtemplates",))
    await h.create_model(kube, namespace)
    where = h.connection(plane, user, groups=())
    async with h.running(where, namespace, h.tiny_plan) as operator:
        await served(kube, namespace)
        assert "ResourceClaimTemplate" not in operator._present_kinds()
        await grant(kube, namespace, user)
        await h.until(
            lambda: "ResourceClaimTemplate" in operator._present_kinds(), "the kind is found"
        )


async def test_a_defect_in_one_plan_stops_no_other(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    def plan(observed: Any, platform: Any, now: Any, *rest: Any) -> Any:
        if observed.deployment["metadata"]["name"] == "bad":
            raise ZeroDivisionError("a defect")
        return h.tiny_plan(observed, platform, now)

    await h.create_model(kube, namespace, "bad")
    async with h.running(plane, namespace, plan) as operator:
        await h.create_model(kube, namespace, "m")
        await served(kube, namespace)
        bad = next(k for k in operator.cache.known() if k.name == "bad")
        await h.until(lambda: operator.queue.schedule.failures(bad) > 0, "its failure")
