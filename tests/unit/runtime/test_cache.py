"""The cache: order of arrival does not matter, and what is gone stays gone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.observed import Ref
from tidegate.runtime.cache import Cache, Key, Listed, Place, slim
from tidegate.runtime.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, POD, Kind, kind_of

CONFIG_MAP = kind_of("v1", "ConfigMap")
M = Key("ns", "m")


def obj(
    name: str = "x", *, uid: str = "u1", version: int = 1, owner: str | None = "m", **more: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "ns",
        "uid": uid,
        "resourceVersion": str(version),
        "labels": {"tidegate.dev/deployment": "m"},
    }
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": "tidegate.dev/v1alpha1",
                "kind": "ModelDeployment",
                "name": owner,
                "uid": f"uid-of-{owner}",
                "controller": True,
            }
        ]
    return {"metadata": metadata, **more}


def model(version: int = 1, generation: int = 1, uid: str = "uid-of-m", **status: Any) -> Any:
    return {
        "metadata": {
            "name": "m",
            "namespace": "ns",
            "uid": uid,
            "resourceVersion": str(version),
            "generation": generation,
        },
        "spec": {},
        "status": status,
    }


def stored(cache: Cache, name: str = "x", kind: Kind = CONFIG_MAP) -> tuple[str, str] | None:
    found = cache.get(kind, "ns", name)
    return found if found is None else _identity(found)


def _identity(document: Any) -> tuple[str, str]:
    return document["metadata"]["uid"], document["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ([("ADDED", "u1", 1), ("MODIFIED", "u1", 3), ("MODIFIED", "u1", 2)], ("u1", "3")),
        ([("ADDED", "u1", 1), ("DELETED", "u1", 5)], None),
        # A late event about what is gone.
        ([("DELETED", "u1", 5), ("MODIFIED", "u1", 4)], None),
        # Out of the selector and back in: the watch says deleted, and later added.
        ([("ADDED", "u1", 1), ("DELETED", "u1", 5), ("ADDED", "u1", 6)], ("u1", "6")),
        # A successor of the same name, and the late deletion of the first.
        ([("ADDED", "u1", 1), ("ADDED", "u2", 7), ("DELETED", "u1", 5)], ("u2", "7")),
        ([("ADDED", "u1", 1), ("ADDED", "u2", 7), ("MODIFIED", "u1", 9)], ("u2", "7")),
        # The deletion of a successor that was never seen takes the first along.
        ([("ADDED", "u1", 1), ("DELETED", "u2", 7)], None),
        # Relist: type None.
        ([(None, "u1", 4), (None, "u1", 4)], ("u1", "4")),
    ],
)
def test_events_in_any_order(
    steps: list[tuple[str | None, str, int]], left: tuple[str, str] | None
) -> None:
    cache = Cache()
    for type_, uid, version in steps:
        cache.observe(CONFIG_MAP, type_, obj(uid=uid, version=version))
    assert stored(cache) == left


@given(st.permutations([1, 2, 3, 4, 5]))
def test_the_newest_wins_in_every_order(versions: list[int]) -> None:
    cache = Cache()
    for version in versions:
        cache.observe(CONFIG_MAP, "MODIFIED", obj(version=version))
    assert stored(cache) == ("u1", "5")


events = st.lists(
    st.tuples(
        st.sampled_from(["ADDED", "MODIFIED", "DELETED"]),
        st.sampled_from(["x", "y"]),
        st.integers(1, 3),
        st.integers(1, 50),
    )
)


@given(events)
def test_indexes_agree_with_the_objects(history: list[tuple[str, str, int, int]]) -> None:
    cache = Cache()
    cache.put(MODEL_DEPLOYMENT, model())
    for type_, name, uid, version in history:
        owner = "m" if uid < 3 else "other"
        document = obj(name, uid=f"{name}{uid}", version=version, owner=owner)
        cache.observe(CONFIG_MAP, type_, document)
        held = cache._entries.get(CONFIG_MAP, {})
        ours = {p.name for p, e in held.items() if e.key == M}
        assert {r.name for r in cache.children(M, "uid-of-m")} == ours
        indexed = {(k, p) for places in cache._by_key.values() for k, p in places}
        assert indexed == {(MODEL_DEPLOYMENT, Place("ns", "m"))} | {(CONFIG_MAP, p) for p in held}


@given(events, st.integers(1, 60))
def test_after_a_sweep_the_cache_holds_nothing_that_the_list_lacks(
    history: list[tuple[str, str, int, int]], list_version: int
) -> None:
    cache = Cache()
    for type_, name, uid, version in history:
        cache.observe(CONFIG_MAP, type_, obj(name, uid=f"{name}{uid}", version=version))
    newest = cache.newest(CONFIG_MAP, None)
    found = cache.compare(CONFIG_MAP, None, {}, list_version, newest)
    assert cache.newest(CONFIG_MAP, None) == 0
    assert found.history_went_back == (newest > list_version)


def test_a_sweep_spares_what_is_newer_than_the_list() -> None:
    cache = Cache()
    newest_before = cache.newest(CONFIG_MAP, "ns")
    cache.put(CONFIG_MAP, obj(version=8))  # our own write, while the list was under way
    found = cache.compare(CONFIG_MAP, "ns", {}, 5, newest_before)
    assert found.ghosts == ()
    assert stored(cache) == ("u1", "8")


def test_a_sweep_finds_ghosts_and_what_is_behind() -> None:
    cache = Cache()
    cache.put(CONFIG_MAP, obj("ghost", uid="g", version=2))
    cache.put(CONFIG_MAP, obj("old", uid="o", version=3))
    cache.put(CONFIG_MAP, obj("good", uid="k", version=4))
    cache.put(CONFIG_MAP, obj("again", uid="first", version=1))
    listed = {
        Place("ns", "old"): Listed("o", 7),
        Place("ns", "good"): Listed("k", 4),
        Place("ns", "new"): Listed("n", 6),
        Place("ns", "again"): Listed("second", 5),
    }
    found = cache.compare(CONFIG_MAP, "ns", listed, 9, cache.newest(CONFIG_MAP, "ns"))
    assert {p.name for p in found.ghosts} == {"ghost", "again"}
    assert {p.name for p in found.behind} == {"old", "new", "again"}
    assert cache.get(CONFIG_MAP, "ns", "ghost") is None


def test_a_sweep_of_one_namespace_leaves_the_others() -> None:
    cache = Cache()
    other = obj(version=1)
    other["metadata"]["namespace"] = "elsewhere"
    cache.put(CONFIG_MAP, other)
    assert cache.compare(CONFIG_MAP, "ns", {}, 5, 0).ghosts == ()


def test_a_restored_backup_replaces_what_was_known() -> None:
    cache = Cache()
    cache.put(CONFIG_MAP, obj(version=900))
    cache.gone(CONFIG_MAP, "ns", "deleted", "d")
    newest = cache.newest(CONFIG_MAP, None)
    listed = {Place("ns", "x"): Listed("u1", 5), Place("ns", "deleted"): Listed("d", 4)}
    found = cache.compare(CONFIG_MAP, None, listed, 10, newest)
    assert found.history_went_back
    assert found.behind == listed
    assert cache.put(CONFIG_MAP, obj(version=5))
    assert cache.put(CONFIG_MAP, obj("deleted", uid="d", version=4))


def test_own_deletions_stay_deleted() -> None:
    cache = Cache()
    cache.put(CONFIG_MAP, obj(version=5))
    cache.gone(CONFIG_MAP, "ns", "x", "u1")
    cache.observe(CONFIG_MAP, "MODIFIED", obj(version=6))
    assert stored(cache) is None
    cache.observe(CONFIG_MAP, "ADDED", obj(uid="u2", version=7))
    assert stored(cache) == ("u2", "7")


def test_only_news_is_told_and_the_owners_change_is_urgent() -> None:
    told: list[tuple[Key, bool]] = []
    cache = Cache(lambda key, urgent: told.append((key, urgent)))
    cache.put(MODEL_DEPLOYMENT, model(1))
    cache.put(MODEL_DEPLOYMENT, model(1))
    cache.put(MODEL_DEPLOYMENT, model(2, a=1))
    cache.put(MODEL_DEPLOYMENT, model(3, generation=2))
    cache.put(CONFIG_MAP, obj(version=4))
    cache.put(CONFIG_MAP, obj(version=4))
    cache.observe(CONFIG_MAP, "DELETED", obj(version=5))
    cache.observe(CONFIG_MAP, "DELETED", obj(version=5))
    assert told == [(M, True), (M, False), (M, True), (M, False), (M, False)]


def test_an_object_that_changes_hands_tells_both() -> None:
    told: set[Key] = set()
    cache = Cache(lambda key, urgent: told.add(key))
    cache.put(CONFIG_MAP, obj(version=1))
    told.clear()
    cache.put(CONFIG_MAP, obj(version=2, owner="n"))
    assert told == {M, Key("ns", "n")}
    assert cache.children(M, "uid-of-m") == {}


def test_children_are_those_controlled_by_that_uid_and_pods_come_apart() -> None:
    cache = Cache()
    cache.put(MODEL_DEPLOYMENT, model())
    cache.put(CONFIG_MAP, obj("ours"))
    cache.put(CONFIG_MAP, obj("labelled-only", uid="u2", owner=None))
    cache.put(DEPLOYMENT, obj("d", uid="u3"))
    cache.put(POD, obj("p", uid="u4", owner=None, spec={}))
    assert set(cache.children(M, "uid-of-m")) == {
        Ref("v1", "ConfigMap", "ours"),
        Ref("apps/v1", "Deployment", "d"),
    }
    assert cache.children(M, "uid of a predecessor") == {}
    assert [p["metadata"]["name"] for p in cache.pods(M)] == ["p"]
    assert cache.children(M, "uid-of-m")[Ref("apps/v1", "Deployment", "d")]["kind"] == "Deployment"


def test_slim_pods_keep_what_diagnosis_reads() -> None:
    pod = obj(
        "p",
        spec={
            "nodeName": "n1",
            "containers": [{"name": "triton", "image": "i", "env": [{"name": "A"}] * 50}],
            "initContainers": [{"name": "envoy", "restartPolicy": "Always"}],
            "volumes": [{}] * 20,
        },
        status={"phase": "Running"},
    )
    pod["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    slimmed = slim(POD, pod)
    assert slimmed["spec"] == {
        "nodeName": "n1",
        "containers": [{"name": "triton", "image": "i"}],
        "initContainers": [{"name": "envoy", "restartPolicy": "Always"}],
    }
    assert "managedFields" not in slimmed["metadata"]
    assert slimmed["status"] == {"phase": "Running"}
    assert pod["metadata"]["managedFields"]  # what came in is left as it was


def test_slim_pods_keep_what_they_ask_of_a_node_while_they_have_none() -> None:
    asks: dict[str, Any] = {
        "nodeSelector": {"pool": "inference"},
        "affinity": {"nodeAffinity": {}},
        "containers": [{"name": "triton", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
    }
    assert slim(POD, obj("p", spec=asks | {"volumes": [{}]}))["spec"] == asks
    placed = slim(POD, obj("p", spec=asks | {"nodeName": "n1"}))["spec"]
    assert placed == {"nodeName": "n1", "containers": [{"name": "triton"}]}


def test_slim_keeps_the_field_owners_that_comparing_needs() -> None:
    document = model()
    document["metadata"]["managedFields"] = [
        {"manager": "kubectl", "fieldsV1": {}},
        {"manager": "tidegate-status", "fieldsV1": {}},
    ]
    managers = [e["manager"] for e in slim(MODEL_DEPLOYMENT, document)["metadata"]["managedFields"]]
    assert managers == ["tidegate-status"]
    replicas: dict[str, Any] = {"f:spec": {"f:replicas": {}, "f:model": {}}}
    hpa = {"manager": "hpa", "subresource": "scale", "time": "2026-01-31T12:00:00Z"}
    document["metadata"]["managedFields"] = [hpa | {"fieldsV1": replicas}]
    assert slim(MODEL_DEPLOYMENT, document)["metadata"]["managedFields"] == [
        {
            "manager": "hpa",
            "time": "2026-01-31T12:00:00Z",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        }
    ]
    child = obj()
    child["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    assert slim(DEPLOYMENT, child)["metadata"]["managedFields"] == [{"manager": "kubectl"}]


@pytest.mark.parametrize(("length", "kept_once"), [(64, True), (65, False), (4096, True)])
def test_equal_texts_of_different_objects_are_kept_once(length: int, kept_once: bool) -> None:
    texts = [
        slim(
            CONFIG_MAP,
            {"metadata": {"name": name}, "data": {"envoy.yaml": "".join(["x"] * length)}},
        )["data"]["envoy.yaml"]
        for name in ("a", "b")
    ]
    assert texts[0] == texts[1]
    assert (texts[0] is texts[1]) == kept_once
