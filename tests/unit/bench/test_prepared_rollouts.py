"""What a client on the cluster counts, and what must have become of a prepared model there."""

import json
from typing import Any

import pytest

from e2e.bench.prepared_rollouts import HURT, as_it_must, told
from e2e.prepared.asking import Asking, Reply, judged
from e2e.prepared.versions import Version
from tidegate.cli.inference import Address
from tidegate.golden import Answer, Output, Tensor
from tidegate.golden.element import pack


def version(*answers: float, asks: float = 1.0) -> Version:
    """It is known to answer so, one number a request."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [asks]}
    data = {
        f"{i}.json": json.dumps(
            {
                "inputs": [tensor],
                "expected": {"outputs": [{"name": "y", "data": [answer]}]},
            }
        )
        for i, answer in enumerate(answers)
    }
    known = {"metadata": {"name": "known"}, "data": data}
    source = {"uri": "s3://models/a", "sha256": "0" * 64}
    manifest = {"metadata": {"name": "digits"}, "spec": {"model": {"source": source}}}
    return Version(manifest, known, None)  # type: ignore[arg-type]


def answer(value: float, status: int = 200) -> Answer:
    raw = pack(Tensor("y", "FP32", (1, 1), (value,)))
    return Answer(status, {"y": Output("FP32", (1, 1), raw)}, "no" if status != 200 else "")


@pytest.mark.parametrize(
    ("came", "said"),
    [
        (answer(0.5), (False, False)),
        (answer(0.25), (False, False)),
        (answer(0.3), (False, True)),
        (answer(0.5, 503), (True, False)),
        (Answer(200), (False, True)),
    ],
)
def test_an_answer_is_right_if_one_of_the_versions_gives_it(
    came: Answer, said: tuple[bool, bool]
) -> None:
    known = [version(0.5).requests[0], version(0.25).requests[0]]
    reply = judged(came, known)
    assert (bool(reply.failed), bool(reply.wrong)) == said


def test_replies_count_from_when_all_were_right() -> None:
    asking = Asking(Address("http://127.0.0.1:1"), [version(0.5)], 10.0)
    asking._replies += [Reply(failed="no route")] + [Reply()] * 19
    assert not asking.settled()
    asking._replies += [Reply()]
    assert asking.settled()
    asking._replies += [Reply(), Reply(failed="reset"), Reply(wrong="0.3")]
    assert (len(asking.replies), asking.failed, asking.wrong) == (3, ["reset"], ["0.3"])


def test_versions_must_be_asked_the_same() -> None:
    with pytest.raises(AssertionError, match="other requests"):
        Asking(Address("http://127.0.0.1:1"), [version(0.5), version(0.5, asks=2.0)], 10.0)
    with pytest.raises(ValueError, match="shorter"):
        Asking(Address("http://127.0.0.1:1"), [version(0.5, 0.5), version(0.5)], 10.0)


SEEN: dict[str, Any] = {
    "name": "sklearn",
    "candidate": "int8-dynamic",
    "golden_wrong": [],
    "outcome": "Promoted",
    "phases": ["Verifying", "Canary", "Promoted"],
    "reason": "",
    "took_s": 20.0,
    "requests": 220,
    "failed": 0,
    "wrong": 0,
}
REFUSED: dict[str, Any] = {
    **SEEN,
    "candidate": "int8-static",
    "outcome": "RolledBack",
    "reason": "GoldenRequestsFailed",
    "phases": ["Verifying", "RolledBack"],
}


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"outcome": "RolledBack"}, False),
        ({"phases": ["Promoted"]}, False),
        ({"failed": 1}, False),
        ({"wrong": 1}, False),
        ({"golden_wrong": ["output y: expected 1"]}, False),
        ({"name": HURT, "by_hand": REFUSED}, True),
        ({"name": HURT, "by_hand": SEEN}, False),
        ({"name": HURT, "by_hand": REFUSED | {"reason": "ErrorRate"}}, False),
        ({"name": HURT, "by_hand": REFUSED | {"wrong": 1}}, False),
        ({"name": HURT, "by_hand": REFUSED | {"phases": ["Canary", "RolledBack"]}}, False),
    ],
)
def test_what_it_must_become(change: dict[str, Any], good: bool) -> None:
    assert as_it_must(SEEN | change) is good


def test_it_is_told_in_a_line() -> None:
    assert told(SEEN | {"by_hand": REFUSED}) == (
        "int8-dynamic: Promoted in 20.0 s, 220 requests, 0 failed, 0 wrong; int8-static by hand: "
        "RolledBack GoldenRequestsFailed in 20.0 s, 220 requests, 0 failed, 0 wrong"
    )
