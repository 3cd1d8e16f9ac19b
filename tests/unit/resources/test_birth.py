"""What a revision is asked to fetch, settled when it is born."""

import json
from pathlib import Path
from typing import Any

from tidegate.api.spec import parse
from tidegate.fetch.request import FetchRequest
from tidegate.platform import Platform, Profile
from tidegate.resources.birth import manifests
from tidegate.resources.pod import Parts

PUBLIC_KEY = Path("tests/unit/fetch/artefacts/signed.pem").read_text()


def request(platform: Platform, namespace: str, uri: str) -> dict[str, Any]:
    spec = parse({"model": {"source": {"uri": uri}}})
    parts = Parts(
        deployment="magika",
        hash="abcdefghij",
        name="magika-abcdefghij",
        pin_name="magika-abcdefghij-pin",
        model=spec.model,
        runtime=spec.runtime,
        profile=Profile(),
        platform=platform,
        namespace=namespace,
    )
    (config,) = [m for m in manifests(spec, parts) if m["kind"] == "ConfigMap"]
    text = config["data"]["fetch.json"]
    FetchRequest.model_validate_json(text)
    document: dict[str, Any] = json.loads(text)
    return document


def test_a_signature_is_asked_of_the_models_that_the_rule_is_about() -> None:
    """And a pod learns nothing of the other rules."""
    rule = {"keys": [PUBLIC_KEY], "namespaces": ["prod"], "sources": ["s3://models"]}
    platform = Platform.model_validate({"fetch": {"verify": [rule]}})
    found = request(platform, "prod", "s3://models/magika/v3")
    assert found["verify"] == {"keys": [PUBLIC_KEY], "required": True}
    assert "verify" not in found["policy"]
    assert "verify" not in request(platform, "dev", "s3://models/magika/v3")
    assert "verify" not in request(platform, "prod", "s3://other/magika")
    assert "verify" not in request(Platform(), "prod", "s3://models/magika/v3")
