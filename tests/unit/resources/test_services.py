"""Where clients connect."""

import pytest

from tidegate.api.names import DECISION_ANNOTATION
from tidegate.record import Record
from tidegate.resources.meta import serving_selector
from tidegate.resources.route import record_of
from tidegate.resources.services import entry_service, revision_of, revision_service

DEPLOYMENT = {"metadata": {"name": "magika", "uid": "u"}}


def test_the_entry_leads_to_one_revision_as_that_revisions_own_service_does() -> None:
    entry = entry_service(DEPLOYMENT, "0123456789", sidecar=True)
    own = revision_service("magika", "magika-0123456789", "0123456789", sidecar=True)
    *ports, mirror = own["spec"]["ports"]
    assert mirror["name"] == "mirror"
    assert entry["spec"] == own["spec"] | {"ports": ports}
    assert revision_of(entry) == "0123456789"
    assert "annotations" not in entry["metadata"]


def test_before_the_first_revision_is_verified_the_entry_leads_nowhere() -> None:
    entry = entry_service(DEPLOYMENT, None, sidecar=True)
    assert revision_of(entry) is None
    selector = entry["spec"]["selector"]
    assert selector  # without one the API server would leave the endpoints as they were
    for hash_ in ("0123456789", "bcdfghjklm"):
        assert not selector.items() <= serving_selector("magika", hash_).items()


@pytest.mark.parametrize("hash_", [None, "0123456789"])
def test_without_a_gateway_the_entry_carries_the_decision(hash_: str | None) -> None:
    record = Record("0123456789", weight=0.0, reason="First")
    entry = entry_service(DEPLOYMENT, hash_, sidecar=False, record=record.dump())
    assert record_of(entry) == record
    assert set(entry["metadata"]["annotations"]) == {DECISION_ANNOTATION}
