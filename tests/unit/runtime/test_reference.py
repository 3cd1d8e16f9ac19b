"""The generated reference of the operator's metrics."""

import re

from tidegate.api import generate
from tidegate.runtime import reference
from tidegate.runtime.telemetry import Metrics


def test_the_page_is_up_to_date() -> None:
    assert generate.stale(contents={reference.PATH: reference.markdown()}) == [], (
        "run `make generate`"
    )


def test_it_lists_what_is_exposed_by_name_and_type() -> None:
    exposed = Metrics().exposition().decode()
    wanted = set(re.findall(r"^# TYPE (tidegate_\w+) (\w+)$", exposed, re.MULTILINE))
    listed = [(m.name, m.type) for m in reference.families(Metrics())]
    assert len(wanted) > 30
    assert set(listed) == wanted
    assert len(listed) == len(wanted)


def test_labels_are_those_of_the_samples() -> None:
    """Those of the series that exist from the start: labels of the page are no more, no fewer."""
    labels = {m.name: set(m.labels) for m in reference.families(Metrics())}
    seen = 0
    for family in Metrics().registry.collect():
        for sample in family.samples:
            if sample.name in labels:
                assert set(sample.labels) == labels[sample.name]
                seen += 1
    assert seen > 3
    assert labels["tidegate_canary_requests"] == {"namespace", "modeldeployment"}
