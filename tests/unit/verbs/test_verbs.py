"""Requests: what an annotation says, and that a wrong one says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.api import admission
from tidegate.verbs import Request, Verb, parse


def test_the_verbs_are_those_that_admission_lets_through() -> None:
    assert tuple(Verb) == admission.VERBS
    assert sorted(admission.VERBS) == list(admission.VERBS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id-1/abort/abcdefghij/ada", Request("id-1", Verb.ABORT, "abcdefghij", "ada")),
        ("1/skip-step//ada", Request("1", Verb.SKIP_STEP, "", "ada")),
        (
            "1/undo//https://issuer.example.com#eve",
            Request("1", Verb.UNDO, "", "https://issuer.example.com#eve"),
        ),
        (
            "1/retry//system:serviceaccount:ci:deployer",
            Request("1", Verb.RETRY, "", "system:serviceaccount:ci:deployer"),
        ),
    ],
)
def test_a_request(text: str, expected: Request) -> None:
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "promote",
        "1/destroy//ada",
        "1/Abort//ada",
        "1/abort/ada",
        "/abort//ada",
        "1/abort//",
        "1/abort/A B/ada",
        "-1/abort//ada",
        f"{'x' * 65}/abort//ada",
        f"1/abort/{'x' * 64}/ada",
        f"1/abort//{'x' * 257}",
        "1/abort//ada\n",
        "1/abort//a\nda",
    ],
)
def test_malformed(text: str | None) -> None:
    assert parse(text) is None


@given(
    st.builds(
        Request,
        id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", fullmatch=True),
        verb=st.sampled_from(Verb),
        revision=st.from_regex(r"[a-z0-9-]{0,63}", fullmatch=True),
        user=st.from_regex(r".{1,256}", fullmatch=True),
    )
)
def test_what_is_written_is_read(request: Request) -> None:
    assert parse(str(request)) == request


@given(st.text(max_size=80))
def test_any_text_is_a_request_or_none(text: str) -> None:
    found = parse(text)
    assert found is None or str(found) == text
