"""Verbs: which revision is meant, and what a request came to."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.cli import documents as d
from tidegate.api import names
from tidegate.cli import asking
from tidegate.cli.client import ApiError
from tidegate.cli.trouble import Exit, Trouble
from tidegate.verbs import Request, Verb

FIRST = d.deployment(
    {"rollout": {"phase": "Preparing"}, "revisions": {"canary": {"hash": d.CANARY}}}
)
REQUEST = Request("abc123", Verb.RETRY, d.CANARY, "ada")


@pytest.mark.parametrize(
    ("document", "verb", "written", "expected"),
    [
        (d.STEP, Verb.ABORT, "", d.CANARY),
        (d.STEP, Verb.PROMOTE, "", d.CANARY),
        (d.BAKING, Verb.SKIP_STEP, "", d.CANARY),
        (d.STEP, Verb.PAUSE, "", ""),
        (d.STEADY, Verb.PAUSE, "", ""),
        (d.STEADY, Verb.RESTART, "", ""),
        (d.STEADY, Verb.UNDO, "", ""),
        (d.STEADY, Verb.UNDO, "51d0", d.OLDER),
        (d.STEADY, Verb.UNDO, f"magika-{d.OLDER}", d.OLDER),
        (d.ROLLED_BACK, Verb.RETRY, "", d.CANARY),
        (d.ROLLED_BACK, Verb.RETRY, "00aa", "00aa11bb22"),
    ],
)
def test_which_revision_is_meant(
    document: d.Document, verb: Verb, written: str, expected: str
) -> None:
    assert asking.meant(document, verb, written) == expected


@pytest.mark.parametrize(
    ("document", "verb", "written", "expected"),
    [
        (
            d.STEADY,
            Verb.ABORT,
            "",
            "no rollout of magika is under way (Promoted): nothing to abort; "
            "back to an earlier revision: tidegate undo magika",
        ),
        (
            d.NEW,
            Verb.PROMOTE,
            "",
            "no rollout of magika is under way (no rollout yet): nothing to promote; "
            "a changed spec starts one",
        ),
        (
            d.ROLLED_BACK,
            Verb.ABORT,
            "",
            "no rollout of magika is under way (RolledBack): nothing to abort; "
            "it has been taken back already: tidegate explain magika",
        ),
        (
            d.ROLLED_BACK,
            Verb.SKIP_STEP,
            "",
            "no rollout of magika is under way (RolledBack): nothing to skip-step; "
            "try the failed revision again: tidegate retry magika",
        ),
        (
            FIRST,
            Verb.ABORT,
            "",
            f"{d.CANARY} is magika's first revision: nothing to go back to; "
            "if it does not become ready: tidegate explain magika",
        ),
        (
            FIRST,
            Verb.PROMOTE,
            "",
            f"{d.CANARY} is magika's first revision: it goes live when it is ready; "
            "if it does not become ready: tidegate explain magika",
        ),
        (
            d.BAKING,
            Verb.PROMOTE,
            "",
            f"{d.CANARY} has all of magika's traffic already, and bakes; until that is over: "
            "tidegate wait magika; to take it back: tidegate abort magika",
        ),
        (
            d.STEADY,
            Verb.RETRY,
            "",
            "no revision of magika has failed: nothing to retry; "
            "a new one of the same spec: tidegate restart magika",
        ),
        (
            d.STEADY,
            Verb.UNDO,
            "ffff",
            f"magika has no revision ffff; it knows {d.STABLE}, {d.OLDER}; "
            "see tidegate history magika",
        ),
    ],
)
def test_nothing_to_do_that_to(
    document: d.Document, verb: Verb, written: str, expected: str
) -> None:
    with pytest.raises(Trouble) as caught:
        asking.meant(document, verb, written)
    assert str(caught.value) == expected


def test_nobody_handles_it() -> None:
    assert asking.too_late(REQUEST, 30.0) == (
        "retry: asked, but not handled within 30s; it stays asked; does an operator lead, and "
        "watch this namespace? tidegate doctor"
    )


def test_a_start_that_fits_two() -> None:
    two = d.deployment({"history": [{"revision": "aa11"}, {"revision": "aa22"}]})
    with pytest.raises(Trouble, match="aa may be aa11 or aa22; write more of it"):
        asking.known(two, "aa")
    assert asking.known(two, "aa2") == "aa22"


def test_a_manifest_that_pauses_cannot_be_resumed_by_a_verb() -> None:
    document = d.deployment(None, spec={"rollout": {"paused": True}})
    with pytest.raises(Trouble, match=r"spec\.rollout\.paused.*set it to false"):
        asking.refuse_vain(document, Verb.RESUME)
    asking.refuse_vain(document, Verb.PAUSE)


def noted(text: str | None, last: str) -> d.Document:
    annotations = {} if text is None else {names.REQUEST_ANNOTATION: text}
    document = d.rolling("Canary", weight=5, step=1)
    return {
        **document,
        "metadata": {**document["metadata"], "annotations": annotations},
        "status": {**document["status"], "lastRequest": last},
    }


@pytest.mark.parametrize(
    ("document", "code", "text"),
    [
        (noted(str(REQUEST), "older"), None, "asked; waiting for the operator"),
        (
            noted(str(REQUEST), "abc123"),
            Exit.REACHED,
            "magika: retry handled; Canary, step 2 of 4, 5%",
        ),
        # Handled, and another one asked since.
        (
            noted("new/abort//bo", "abc123"),
            Exit.REACHED,
            "magika: retry handled; Canary, step 2 of 4, 5%",
        ),
        (
            noted("new/abort//bo", "older"),
            Exit.ERROR,
            "retry magika: overtaken before it was seen: abort by bo",
        ),
        (
            noted(None, "older"),
            Exit.ERROR,
            "retry magika: overtaken before it was seen: somebody removed it",
        ),
    ],
)
def test_what_became_of_it(document: d.Document, code: Exit | None, text: str) -> None:
    assert asking.judge(REQUEST)(document) == (code, text)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ApiError(
                403,
                "Forbidden",
                'modeldeployments.tidegate.dev "m" is forbidden: ValidatingAdmissionPolicy '
                "'x' with binding 'x' denied request: metadata.annotations[tidegate.dev/request]: "
                "ada may not retry m; ask for the verb retry on modeldeployments.tidegate.dev in "
                "models",
            ),
            "refused: ada may not retry m; ask for the verb retry on "
            "modeldeployments.tidegate.dev in models",
        ),
        (
            ApiError(403, "Forbidden", 'User "ada" cannot patch resource "modeldeployments"'),
            "refused: ada may not change modeldeployments.tidegate.dev in models; ask for the role "
            "edit there (the verb patch), and for the verb retry",
        ),
        (ApiError(409, "Conflict", "try again"), "retry m: try again"),
    ],
)
def test_refusals_in_a_line(error: ApiError, expected: str) -> None:
    assert str(asking._refused(error, REQUEST, "models", "m")) == expected


ASKED = datetime(2026, 3, 6, 17, 30, tzinfo=UTC)


def event(message: str, *, reason: str = asking.REFUSED, late_s: float = 1) -> d.Document:
    at = (ASKED + timedelta(seconds=late_s)).isoformat()
    return {"reason": reason, "message": message, "eventTime": at}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], ""),
        ([event("retry by ada: it has not failed")], "it has not failed"),
        ([event("retry by ada", reason="RequestGranted")], ""),
        ([event("retry by bo: it has not failed")], ""),
        ([event("undo by ada: there is none")], ""),
        ([event("retry by ada: of an hour ago", late_s=-3600)], ""),
        ([event("retry by ada: a clock that is behind", late_s=-2)], "a clock that is behind"),
    ],
)
def test_the_operators_no(events: list[d.Document], expected: str) -> None:
    assert asking.refusal(events, REQUEST, ASKED) == expected
