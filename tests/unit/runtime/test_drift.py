"""Comparing a wish with a live object by field owners, as a real API server writes them."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.runtime import drift
from tidegate.runtime.drift import ForeignField

OURS = "tidegate"


def entry(fields: dict[str, Any], manager: str = OURS, operation: str = "Apply") -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields}


DESIRED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "labels": {"a": "b"}},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "triton",
                        "image": "i:1",
                        "args": ["x", "y"],
                        "ports": [{"containerPort": 8000}],
                        "env": [{"name": "E", "value": ""}],
                        "resources": {"requests": {"cpu": "1000m"}},
                    }
                ],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "tolerations": [{"key": "k", "operator": "Exists"}],
            }
        },
    },
}

OWNED: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:a": {}}},
    "f:spec": {
        "f:selector": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"triton"}': {
                        ".": {},
                        "f:args": {},
                        "f:env": {'k:{"name":"E"}': {".": {}, "f:name": {}, "f:value": {}}},
                        "f:image": {},
                        "f:name": {},
                        "f:ports": {
                            'k:{"containerPort":8000,"protocol":"TCP"}': {
                                ".": {},
                                "f:containerPort": {},
                            }
                        },
                        "f:resources": {"f:requests": {"f:cpu": {}}},
                    }
                },
                "f:tolerations": {},
                "f:volumes": {'k:{"name":"v"}': {".": {}, "f:emptyDir": {}, "f:name": {}}},
            }
        },
    },
}

LIVE: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "d",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"a": "b"},
        "managedFields": [entry(OWNED)],
    },
    "spec": {
        "replicas": 2,
        "progressDeadlineSeconds": 600,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"creationTimestamp": None},
            "spec": {
                "containers": [
                    {
                        "name": "triton",
                        "image": "i:1",
                        "args": ["x", "y"],
                        "ports": [{"containerPort": 8000, "protocol": "TCP"}],
                        "env": [{"name": "E"}],
                        "resources": {"requests": {"cpu": "1"}},
                        "imagePullPolicy": "IfNotPresent",
                    }
                ],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "restartPolicy": "Always",
            },
        },
    },
    "status": {"replicas": 2},
}


def container(obj: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = obj["spec"]["template"]["spec"]["containers"][0]
    return found


def owned_container(live: dict[str, Any]) -> dict[str, Any]:
    fields = live["metadata"]["managedFields"][0]["fieldsV1"]
    found: dict[str, Any] = fields["f:spec"]["f:template"]["f:spec"]["f:containers"][
        'k:{"name":"triton"}'
    ]
    return found


def test_what_was_applied_and_left_alone_is_the_same() -> None:
    assert drift.difference(DESIRED, LIVE, OURS) is None
    assert drift.foreign_fields(DESIRED, LIVE) == []


def test_what_was_never_applied_differs() -> None:
    found = drift.difference(DESIRED, LIVE, "another")
    assert found is not None
    assert found.taken


# What we change in the wish: path, and that nobody took anything.
def _image(d: dict[str, Any]) -> None:
    container(d)["image"] = "i:2"


def _args(d: dict[str, Any]) -> None:
    container(d)["args"] = ["x"]


def _less(d: dict[str, Any]) -> None:
    del container(d)["resources"]


def _less_env(d: dict[str, Any]) -> None:
    container(d)["env"] = []


def _cpu(d: dict[str, Any]) -> None:
    container(d)["resources"]["requests"]["cpu"] = "1001m"


def _toleration(d: dict[str, Any]) -> None:
    d["spec"]["template"]["spec"]["tolerations"] = []


def _selector(d: dict[str, Any]) -> None:
    d["spec"]["selector"]["matchLabels"] = {}


def _label(d: dict[str, Any]) -> None:
    d["metadata"]["labels"]["a"] = "c"


def _label_gone(d: dict[str, Any]) -> None:
    d["metadata"]["labels"] = {}


def _env_value(d: dict[str, Any]) -> None:
    container(d)["env"][0]["value"] = "1"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (_image, "spec.template.spec.containers[0].image"),
        (_args, "spec.template.spec.containers[0].args"),
        (_less, "spec.template.spec.containers[0].resources"),
        (_less_env, "spec.template.spec.containers[0].env"),
        (_cpu, "spec.template.spec.containers[0].resources.requests.cpu"),
        (_toleration, "spec.template.spec.tolerations"),
        (_selector, "spec.selector"),
        (_label, "metadata.labels.a"),
        (_label_gone, "metadata.labels.a"),
        (_env_value, "spec.template.spec.containers[0].env[0].value"),
    ],
    ids=lambda v: v.__name__ if callable(v) else "",
)
def test_a_changed_wish_is_found(change: Any, path: str) -> None:
    desired = deepcopy(DESIRED)
    change(desired)
    found = drift.difference(desired, LIVE, OURS)
    assert found is not None
    assert drift.dotted(found.path).startswith(path)
    assert not found.taken


def test_a_new_field_in_the_wish_is_found() -> None:
    desired = deepcopy(DESIRED)
    container(desired)["command"] = ["c"]
    assert drift.difference(desired, LIVE, OURS) is not None


@pytest.mark.parametrize("field", ["f:image", "f:args", "f:ports", "f:env"])
def test_a_field_that_somebody_took_is_found_by_its_owner_alone(field: str) -> None:
    live = deepcopy(LIVE)
    del owned_container(live)[field]
    found = drift.difference(DESIRED, live, OURS)
    assert found is not None
    assert found.taken


def test_a_container_that_somebody_removed_is_found() -> None:
    live = deepcopy(LIVE)
    pod = live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]
    pod["f:containers"] = {'k:{"name":"another"}': {".": {}}}
    found = drift.difference(DESIRED, live, OURS)
    assert found is not None
    assert found.taken


@pytest.mark.parametrize(
    ("wish", "stored", "same"),
    [
        ({"cpu": "1000m"}, {"cpu": "1"}, True),
        ({"memory": "2048Mi"}, {"memory": "2Gi"}, True),
        ({"cpu": 1}, {"cpu": "1"}, True),
        ({"cpu": "1"}, {"cpu": "2"}, False),
        ({"cpu": "junk"}, {"cpu": "1"}, False),
    ],
)
def test_quantities_are_compared_by_value(
    wish: dict[str, Any], stored: dict[str, Any], same: bool
) -> None:
    desired = {"spec": {"limits": wish}}
    fields: dict[str, Any] = {"f:spec": {"f:limits": {f"f:{k}": {} for k in wish}}}
    live = {"metadata": {"managedFields": [entry(fields)]}, "spec": {"limits": stored}}
    assert (drift.difference(desired, live, OURS) is None) is same


def test_values_that_only_look_like_quantities_are_compared_as_they_are() -> None:
    desired = {"data": {"x": "1000m"}}
    live = {
        "metadata": {"managedFields": [entry({"f:data": {"f:x": {}}})]},
        "data": {"x": "1"},
    }
    assert drift.difference(desired, live, OURS) is not None


def test_defaults_inside_atomic_values_are_no_difference_but_others_additions_are() -> None:
    desired = {"spec": {"ingress": [{"ports": [{"port": 1}]}]}}
    live: dict[str, Any] = {
        "metadata": {"managedFields": [entry({"f:spec": {"f:ingress": {}}})]},
        "spec": {"ingress": [{"ports": [{"port": 1, "protocol": "TCP"}]}]},
    }
    assert drift.difference(desired, live, OURS) is None
    live["spec"]["ingress"][0]["ports"][0]["protocol"] = "UDP"
    assert drift.difference(desired, live, OURS) is not None


def test_subresources_and_other_operations_are_not_our_apply() -> None:
    live = deepcopy(LIVE)
    live["metadata"]["managedFields"][0]["subresource"] = "status"
    assert drift.difference(DESIRED, live, OURS) is not None
    live = deepcopy(LIVE)
    live["metadata"]["managedFields"][0]["operation"] = "Update"
    assert drift.difference(DESIRED, live, OURS) is not None


EDITOR = "kubectl-edit"


def with_foreign(fields: dict[str, Any], change: Any, **more: Any) -> dict[str, Any]:
    live = deepcopy(LIVE)
    live["metadata"]["managedFields"].append(entry(fields, EDITOR, "Update") | more)
    change(live)
    return live


def in_pod(fields: dict[str, Any]) -> dict[str, Any]:
    return {"f:spec": {"f:template": {"f:spec": fields}}}


def test_foreign_fields_are_found_at_their_highest_place() -> None:
    def change(live: dict[str, Any]) -> None:
        pod = live["spec"]["template"]["spec"]
        pod["nodeSelector"] = {"a": "b"}
        pod["containers"].append({"name": "miner", "image": "m"})
        container(live)["env"].append({"name": "X", "value": "1"})

    fields = in_pod(
        {
            "f:nodeSelector": {".": {}, "f:a": {}},
            "f:containers": {
                'k:{"name":"miner"}': {".": {}, "f:name": {}, "f:image": {}},
                'k:{"name":"triton"}': {"f:env": {'k:{"name":"X"}': {".": {}, "f:name": {}}}},
            },
        }
    )
    live = with_foreign(fields, change)
    found = drift.foreign_fields(DESIRED, live)
    assert [drift.dotted(f.path) for f in found] == [
        "spec.template.spec.containers[0].env[1]",
        "spec.template.spec.containers[1]",
        "spec.template.spec.nodeSelector",
    ]
    assert {f.manager for f in found} == {EDITOR}
    # Later positions go first, and only from this very version.
    assert drift.removal(live, found) == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "remove", "path": "/spec/template/spec/nodeSelector"},
        {"op": "remove", "path": "/spec/template/spec/containers/1"},
        {"op": "remove", "path": "/spec/template/spec/containers/0/env/1"},
    ]


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"f:metadata": {"f:annotations": {"f:deployment.kubernetes.io/revision": {}}}}, {}),
        ({"f:status": {"f:replicas": {}}}, {"subresource": "status"}),
        ({"f:status": {"f:replicas": {}}}, {}),
        ({"f:spec": {"f:replicas": {}}}, {"subresource": "scale"}),
        ({"f:spec": {"f:replicas": {}}}, {}),
        # Also wanted by us: a value of theirs would show in our own set.
        (in_pod({"f:containers": {'k:{"name":"triton"}': {".": {}, "f:image": {}}}}), {}),
        # Gone since.
        (in_pod({"f:nodeSelector": {"f:gone": {}}}), {}),
        ({"f:spec": {"f:progressDeadlineSeconds": {}}}, {"manager": "tidegate-scale"}),
    ],
)
def test_what_others_may_own(fields: dict[str, Any], more: dict[str, Any]) -> None:
    live = with_foreign(fields, lambda live: None, **more)
    assert drift.foreign_fields(DESIRED, live, ignored=[("spec", "replicas")]) == []


def test_a_default_that_somebody_set_is_foreign() -> None:
    live = with_foreign({"f:spec": {"f:progressDeadlineSeconds": {}}}, lambda live: None)
    assert drift.foreign_fields(DESIRED, live) == [
        ForeignField(("spec", "progressDeadlineSeconds"), EDITOR)
    ]


def test_removal_goes_for_the_whole_where_a_part_is_named_too() -> None:
    fields = [ForeignField(("a", 1), "x"), ForeignField(("a", 1, "b"), "x")]
    operations = drift.removal(LIVE, fields)
    assert [o["path"] for o in operations[1:]] == ["/a/1"]


def test_pointers_are_escaped() -> None:
    assert drift.pointer(("a/b", "c~d", 0)) == "/a~1b/c~0d/0"


def test_owners_of_a_plain_field() -> None:
    live = with_foreign({"f:spec": {"f:replicas": {}}}, lambda live: None)
    assert drift.owners(live, ("spec", "replicas")) == {EDITOR}
    assert drift.owners(live, ("spec", "selector")) == {OURS}
    assert drift.owners(live, ("spec", "nothing")) == frozenset()


def fields_of(value: Any) -> dict[str, Any]:
    """The set that an apply of this value gives, lists being atomic."""
    if not isinstance(value, dict):
        return {}
    return {f"f:{k}": fields_of(v) for k, v in value.items()}


documents = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3), st.booleans()),
    lambda inner: (
        st.dictionaries(st.text("abcd", min_size=1, max_size=2), inner, min_size=1)
        | st.lists(inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["spec", "data"]), documents, min_size=1))
def test_any_document_is_the_same_as_itself_once_applied(document: dict[str, Any]) -> None:
    live = {"metadata": {"managedFields": [entry(fields_of(document))]}, **deepcopy(document)}
    assert drift.difference(document, live, OURS) is None
    assert drift.foreign_fields(document, live) == []


@given(
    st.dictionaries(st.sampled_from(["spec", "data"]), documents, min_size=1),
    st.dictionaries(st.sampled_from(["spec", "data"]), documents, min_size=1),
)
def test_two_documents_are_the_same_only_if_nothing_is_lost(
    applied: dict[str, Any], wanted: dict[str, Any]
) -> None:
    live = {"metadata": {"managedFields": [entry(fields_of(applied))]}, **deepcopy(applied)}
    if drift.difference(wanted, live, OURS) is None:
        assert _essence(wanted) == _essence(applied)


def _essence(value: Any) -> Any:
    """Without what Go leaves out: zero values."""
    if isinstance(value, dict):
        kept = {k: _essence(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in ({}, [], "", 0, None, False)}
    if isinstance(value, list):
        return [_essence(v) for v in value]
    return value
