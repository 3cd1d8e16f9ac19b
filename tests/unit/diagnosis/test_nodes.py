"""What is said of a pod that waits for a GPU, where the nodes are known."""

from typing import Any

import pytest

from tests.unit.diagnosis.test_diagnosis import scheduled
from tidegate.diagnosis import diagnose_pod, diagnose_revision
from tidegate.nodes import Node, Nodes, node, room_for, waits_for

GPU, MIG = "nvidia.com/gpu", "nvidia.com/mig-1g.5gb"
PRODUCT, MEMORY = "nvidia.com/gpu.product", "nvidia.com/gpu.memory"
FULL = f"0/3 nodes are available: 3 Insufficient {GPU}."
ELSEWHERE = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."


def waiting(
    message: str = FULL,
    resource: str = GPU,
    count: int = 1,
    selector: dict[str, str] | None = None,
    **labels: Any,
) -> dict[str, Any]:
    """A pod; `labels`: expressions by operator, as (key, values)."""
    expressions = [
        {"key": key, "operator": operator, "values": list(values)}
        for operator, (key, *values) in labels.items()
    ]
    terms = [{"matchExpressions": expressions}] if expressions else []
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    limits = {"cpu": "1", resource: str(count)} if count else {"cpu": "1"}
    return scheduled(message) | {
        "spec": {
            "containers": [{"resources": {"limits": limits}}],
            "nodeSelector": selector or {},
            "affinity": {"nodeAffinity": required},
        }
    }


def gpus(count: int, *, cordoned: bool = False, **labels: str) -> Node:
    names = {"product": PRODUCT, "memory": MEMORY, "pool": "pool"}
    return Node({GPU: count}, {names[k]: v for k, v in labels.items()}, cordoned)


def nodes(*items: Node) -> Nodes:
    return Nodes(items, frozenset({PRODUCT, MEMORY, "pool"}))


A100 = gpus(4, product="A100", memory="40960")
L4 = gpus(2, product="L4", memory="24576", pool="web")


@pytest.mark.parametrize(
    ("pod", "there", "text"),
    [
        (waiting(), (), f"no node offers {GPU}"),
        (waiting(resource=MIG), (A100,), f"no node offers {MIG}; nodes offer {GPU}"),
        (
            waiting(In=(PRODUCT, "H100", "H200")),
            (A100, L4, L4),
            f"no node that offers {GPU} has the label {PRODUCT} H100 or H200; nodes have A100, L4",
        ),
        (
            waiting(Gt=(MEMORY, "40960")),
            (A100, L4),
            f"no node that offers {GPU} has the label {MEMORY} above 40960; "
            "nodes have 24576, 40960",
        ),
        (
            waiting(selector={"pool": "inference"}),
            (A100, L4),
            f"no node that offers {GPU} has the label pool inference; nodes have web",
        ),
        (
            waiting(In=(PRODUCT, "H100")),
            (gpus(1), gpus(1)),
            f"no node that offers {GPU} has the label {PRODUCT} H100; none has that label",
        ),
        (
            waiting(In=(PRODUCT, "X")),
            tuple(gpus(1, product=f"P{n}") for n in range(7)),
            f"no node that offers {GPU} has the label {PRODUCT} X; "
            "nodes have P0, P1, P2, P3, P4 and 2 more",
        ),
        (
            waiting(selector={"pool": "web"}, In=(PRODUCT, "A100")),
            (A100, L4),
            f"no node that offers {GPU} has all of the labels pool web, {PRODUCT} A100",
        ),
        (
            waiting(count=4, In=(PRODUCT, "L4")),
            (A100, L4),
            f"no node offers 4 {GPU} at once; the most on one that fits is 2",
        ),
        (
            waiting(),
            (gpus(4, cordoned=True),),
            f"1 node offers {GPU} as asked for, and cordoned",
        ),
        (
            waiting(),
            (A100, L4, L4, gpus(9, cordoned=True)),
            f"3 nodes offer {GPU}, 8 in all, all taken or not fit",
        ),
        (waiting(Gt=(MEMORY, "40959")), (A100, L4), f"1 node offers {GPU}, 4 in all"),
        # Of operators that are not read, nothing is said.
        (waiting(NotIn=(PRODUCT, "A100")), (A100,), f"1 node offers {GPU}, 4 in all"),
        (waiting(Gt=(MEMORY, "1")), (gpus(1, memory="many"),), f"no node that offers {GPU} has"),
    ],
)
def test_what_would_free_it(pod: dict[str, Any], there: tuple[Node, ...], text: str) -> None:
    room = room_for(pod, nodes(*there))
    assert room is not None
    assert room.text.startswith(text)
    assert room.mend.endswith((".", ")"))
    assert room.taken is ("all taken" in room.text)


@pytest.mark.parametrize(
    "pod",
    [
        waiting(count=0),
        waiting(selector={"unread": "x"}),
        scheduled(FULL, "SchedulingGated") | {"spec": waiting()["spec"]},
        waiting() | {"status": {}},
        waiting() | {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        scheduled(FULL),
    ],
)
def test_of_what_is_not_known_nothing_is_said(pod: dict[str, Any]) -> None:
    assert room_for(pod, nodes(A100)) is None
    assert room_for(waiting(), nodes(A100)) is not None


@pytest.mark.parametrize(
    ("pod", "reason", "begins", "mend"),
    [
        (waiting(), "WaitingForGPU", f"2 nodes offer {GPU}, 6 in all, all taken", "ask for fewer."),
        (
            waiting(FULL.replace(GPU, MIG), MIG),
            "WaitingForGPU",
            f"no node offers {MIG}; nodes offer {GPU}: 0/3 nodes",
            "(runtime.gpu.resource).",
        ),
        (
            waiting(ELSEWHERE, In=(PRODUCT, "H100")),
            "NoMatchingNode",
            f"no node that offers {GPU} has the label {PRODUCT} H100; nodes have A100, L4: 0/3",
            "or add such a node.",
        ),
        # A taint, say: the scheduler knows more.
        (waiting(ELSEWHERE), "NoMatchingNode", "no node fits: 0/3", "labels and taints."),
    ],
)
def test_the_reason_stays_and_the_message_says_more(
    pod: dict[str, Any], reason: str, begins: str, mend: str
) -> None:
    with_role = diagnose_pod(pod, nodes=nodes(A100, L4))
    without = diagnose_pod(pod)
    assert with_role.reason == without.reason == reason
    assert with_role.message.startswith(begins)
    assert with_role.message.endswith(mend)
    assert without.message.startswith("no node ")
    assert "all taken" not in without.message
    deployment: dict[str, Any] = {"status": {}}
    assert diagnose_revision(deployment, [pod], 1, nodes=nodes(A100, L4)) == with_role


def test_of_a_node_only_what_is_needed_is_kept() -> None:
    document = {
        "metadata": {"name": "a", "labels": {PRODUCT: "L4", "kubernetes.io/hostname": "a"}},
        "spec": {"unschedulable": True},
        "status": {"allocatable": {"cpu": "8", "memory": "1Gi", GPU: "2", MIG: "0"}},
    }
    assert node(document, {PRODUCT, MEMORY}) == Node({GPU: 2}, {PRODUCT: "L4"}, cordoned=True)
    assert node({"metadata": {}}, {PRODUCT}) == Node({})
    assert waits_for(waiting(count=2, In=(PRODUCT, "L4"))) == (GPU, 2, ((PRODUCT, "In", ("L4",)),))


def test_of_several_terms_any_would_do() -> None:
    pod = waiting(In=(PRODUCT, "H100"))
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] *= 2
    room = room_for(pod, nodes(A100))
    assert room is not None
    assert room.taken
