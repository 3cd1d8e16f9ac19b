"""Every block of YAML in the documentation is of a kind that some test holds."""

from typing import Any, Final

import pytest
import yaml

from helm.chart import CHART
from tests.unit.architecture.documented import manifests
from tests.unit.architecture.test_docs import blocks
from tests.unit.architecture.test_tree import ROOT
from tidegate.api.spec import parse

VALUES: Final = set(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))
GITOPS: Final = "tests/unit/plan/test_gitops.py"
MIGRATED: Final = "tests/contract/test_migrated.py"
NATIVE: Final = "tests/contract/test_documented.py"
HELD: Final = {
    "tidegate.dev": "tests/contract/test_examples.py",
    "gateway.envoyproxy.io": "tests/contract/test_gateway_policies.py",
    "gateway.networking.k8s.io": NATIVE,
    "rbac.authorization.k8s.io": NATIVE,
    "batch": NATIVE,
    "": NATIVE,
    # Before `tidegate migrate`: what comes of them is held.
    "apps": MIGRATED,
    "autoscaling": MIGRATED,
    "argoproj.io": MIGRATED,
    "serving.kserve.io": MIGRATED,
    "kustomize.config.k8s.io": GITOPS,
    "kustomize.toolkit.fluxcd.io": GITOPS,
    "source.toolkit.fluxcd.io": GITOPS,
}
"""Which test holds the objects of an API group."""
NOT_HELD: Final = {"monitoring.coreos.com"}
"""Groups whose CRDs are in no module that is built here: shown as their manuals have them."""


def group(document: dict[str, Any]) -> str:
    version: str = document["apiVersion"]
    return version.rpartition("/")[0]


def test_every_object_is_of_a_known_group() -> None:
    groups = {group(m.document): m.where for m in manifests()}
    assert {g: where for g, where in groups.items() if g not in HELD.keys() | NOT_HELD} == {}
    assert set(groups) >= NOT_HELD


def test_what_holds_them_is_there() -> None:
    assert [path for path in set(HELD.values()) if not (ROOT / path).is_file()] == []


def pieces() -> list[Any]:
    """Page and document of every block that is no object and no values of the chart."""
    return [
        pytest.param(document, id=f"{page}: {', '.join(map(str, document))}")
        for page, body in blocks("yaml")
        for document in yaml.safe_load_all(body)
        if not ("kind" in document or set(document) <= VALUES or "scrape_configs" in document)
    ]


@pytest.mark.parametrize("document", pieces())
def test_a_piece_of_a_manifest_fits(document: dict[str, Any]) -> None:
    """What is neither an object nor values is a piece of a ModelDeployment, or of its spec."""
    model = {"source": {"uri": "s3://models/magika/v3"}}
    parse({"model": model, **document.get("spec", document)})


def test_there_are_pieces() -> None:
    assert len(pieces()) >= 2
