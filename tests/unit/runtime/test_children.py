"""What a Deployment's next apply says of replicas."""

from typing import Any

import pytest

from tidegate.runtime.children import with_replicas_of


def live(replicas: int, *managers: str) -> dict[str, Any]:
    return {
        "metadata": {
            "managedFields": [
                {"manager": m, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
                for m in managers
            ]
        },
        "spec": {"replicas": replicas},
    }


@pytest.mark.parametrize(
    ("managers", "expected"),
    [
        # Never scaled: leaving it out would give the default of 1.
        (("tidegate",), 0),
        (("tidegate", "tidegate-scale"), None),
        (("tidegate-scale",), None),
        (("kubectl",), None),
        ((), None),
    ],
)
def test_replicas_in_a_later_apply(managers: tuple[str, ...], expected: int | None) -> None:
    manifest = {"spec": {"replicas": 5, "template": {}}}
    document = with_replicas_of(live(0, *managers), manifest)
    assert document["spec"].get("replicas") == expected
    assert document["spec"]["template"] == {}
    assert manifest["spec"]["replicas"] == 5
