"""The guide's golden request is the tested example's, and the example can be read."""

import json
import re
from pathlib import Path

import yaml

from tidegate.golden import parse

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_guide_shows_the_tested_example() -> None:
    config_map, deployment = yaml.safe_load_all((DOCS / "examples" / "golden.yaml").read_text())
    assert deployment["spec"]["goldenRequests"]["configMapName"] == config_map["metadata"]["name"]
    assert len(parse(config_map)) == len(config_map["data"])
    page = (DOCS / "guide" / "golden-requests.md").read_text()
    shown = re.search(r"^```json\n(.*?)^```", page, re.M | re.S)
    assert shown is not None
    assert json.loads(shown[1]) == json.loads(config_map["data"]["python.json"])
