"""The scrape configuration that the documentation shows is the one that the cluster runs."""

from typing import Any

import yaml

from e2e.cluster import addons
from e2e.cluster.kube import documents
from e2e.cluster.settings import Settings
from tests.unit.architecture.test_docs import blocks

JOBS = ("sidecar", "triton")


def by_name(configuration: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {job["job_name"]: job for job in configuration["scrape_configs"]}


def test_the_jobs_for_model_pods_are_the_same() -> None:
    (shown,) = [
        document
        for page, body in blocks("yaml")
        if page == "docs/guide/own-prometheus.md"
        for document in yaml.safe_load_all(body)
        if "scrape_configs" in document
    ]
    (text,) = [
        item["data"]["prometheus.yml"]
        for item in documents(addons.manifest("infra", Settings()))
        if item["kind"] == "ConfigMap"
    ]
    runs, told = by_name(yaml.safe_load(text)), by_name(shown)
    for name in JOBS:
        assert told[name].pop("scrape_interval") == "15s"
        assert told[name] == runs[name]
