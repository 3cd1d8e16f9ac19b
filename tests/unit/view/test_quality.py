"""How good the answers are, beside the SLO: in the document, in `get` and in `explain`."""

import copy
from typing import Any

import pytest

from tests.unit.cli import documents as d
from tidegate import view
from tidegate.cli import render
from tidegate.view import facts

ACCURACY = "96.0% of 1,000 labels right (94.1% to 97.4%)"
SHIFT = (
    "score, below 0.8: 31.0% instead of 12.0% (shift of 15.1% to 22.0%, PSI 0.21, at least 0.12)"
)


def steady(*conditions: tuple[str, str, str, str]) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(dict(d.STEADY))
    document["status"]["conditions"] = [
        *document["status"]["conditions"],
        *(
            {"type": t, "status": s, "reason": r, "message": m, "lastTransitionTime": ""}
            for t, s, r, m in conditions
        ),
    ]
    return document


def with_quality(document: dict[str, Any], **said: str) -> dict[str, Any]:
    stable = document["status"]["revisions"]["stable"]["hash"]
    document["status"]["quality"] = [{"revision": stable, **said}]
    return document


def tree(document: dict[str, Any]) -> str:
    return render.plain(render.deployment(view.document(document, now=d.NOW), d.NOW))


def explained(document: dict[str, Any]) -> str:
    found = view.explanation(document, view.subject(document), d.NOW)
    return render.plain(render.explanation(found))


def test_nothing_is_said_where_nothing_is_asked() -> None:
    document = steady()
    assert view.document(document, now=d.NOW)["quality"] == {
        "golden": {"met": "", "reason": "", "message": ""},
        "accurate": {"met": "", "reason": "", "message": ""},
        "steady": {"met": "", "reason": "", "message": ""},
        "revisions": [],
    }
    assert "quality" not in tree(document)
    assert "golden" not in tree(document)


@pytest.mark.parametrize(
    ("status", "reason", "shown"),
    [
        ("True", "AnswersRight", "golden requests  as expected, 3 of 3 pods asked"),
        ("False", "WrongAnswers", "golden requests  wrong"),
        ("Unknown", "Measuring", "golden requests  not known yet"),
    ],
)
def test_golden_requests(status: str, reason: str, shown: str) -> None:
    document = steady(("AnswersRight", status, reason, "3 of 3 pods asked"))
    assert shown in tree(document)
    concerned = [c["type"] for c in facts.concerns(document)]
    assert ("AnswersRight" in concerned) is (status == "False")


def test_accuracy_and_shift_of_a_revision() -> None:
    document = with_quality(steady(), accuracy=ACCURACY, shift=SHIFT)
    flat = " ".join(tree(document).split())
    assert f"accuracy {ACCURACY}; shift score, below 0.8" in flat.replace("│ ", "")
    assert f"Accuracy: {ACCURACY}." in " ".join(explained(document).split())
    assert "Moved most: score, below 0.8" in explained(document)
    assert "shift" not in tree(with_quality(steady(), accuracy=ACCURACY)).partition("quality")[2]


@pytest.mark.parametrize(
    ("status", "reason", "concern"),
    [
        ("True", "Shown", False),
        ("Unknown", "TooFewLabels", False),
        ("Unknown", "NothingOnTrial", False),
        ("Unknown", "QualityInvalid", True),
        ("Unknown", "NotLookedAt", True),
        ("False", "TooManyWrong", True),
    ],
)
def test_what_is_a_concern(status: str, reason: str, concern: bool) -> None:
    document = steady(("Accurate", status, reason, "why"))
    assert ("Accurate" in [c["type"] for c in facts.concerns(document)]) is concern
    assert ("why" in explained(document)) is concern
