"""How good the answers are: golden requests, accuracy and shift by revision. Pure."""

from typing import Any

from tidegate.view import facts
from tidegate.view.facts import Document


def quality(deployment: Document) -> dict[str, Any]:
    """The document's ``quality``.

    Args:
        deployment: the API server's document.
    """
    return {
        "golden": _condition(deployment, "AnswersRight"),
        "accurate": _condition(deployment, "Accurate"),
        "steady": _condition(deployment, "Steady"),
        "revisions": [
            {
                "revision": str(one.get("revision") or ""),
                "accuracy": str(one.get("accuracy") or ""),
                "shift": str(one.get("shift") or ""),
            }
            for one in facts.status(deployment).get("quality") or ()
        ],
    }


def of_revision(deployment: Document, hash_: str) -> tuple[str, str]:
    """Accuracy and shift of a revision in words; '' where they are not measured."""
    for one in facts.status(deployment).get("quality") or ():
        if one.get("revision") == hash_:
            return str(one.get("accuracy") or ""), str(one.get("shift") or "")
    return "", ""


def _condition(deployment: Document, kind: str) -> dict[str, str]:
    found = facts.condition(deployment, kind)
    return {
        "met": str(found.get("status") or ""),
        "reason": str(found.get("reason") or ""),
        "message": str(found.get("message") or ""),
    }
