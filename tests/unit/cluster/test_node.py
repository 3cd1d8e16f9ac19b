import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import addons, images, node, preflight
from e2e.cluster.control_plane import AUDIT_POLICY, ApiServerSettings, EtcdSettings
from e2e.cluster.kube import documents
from e2e.cluster.preflight import Missing
from e2e.cluster.settings import Settings

SETTINGS = Settings(state=Path("/state"))


def objects() -> list[dict[str, Any]]:
    names = ("infra", "gateway")
    return [item for name in names for item in documents(addons.manifest(name, SETTINGS))]


def test_no_port_serves_two_parts_by_accident() -> None:
    ports = [port for _, port in SETTINGS.ports()]
    assert len(ports) == len(set(ports))


def test_all_node_files_lie_below_the_state_folder() -> None:
    parts = [
        node.containerd(SETTINGS),
        node.kubelet(SETTINGS, Path("/k")),
        node.kube_proxy(SETTINGS, Path("/p")),
        node.coredns(SETTINGS, Path("/c"), forward=True),
    ]
    for part in parts:
        for path, _ in part.files:
            assert path.is_relative_to(SETTINGS.state), part.name


def test_the_kubelet_keeps_its_containers_in_a_cgroup_of_its_own() -> None:
    (_, text), *_ = node.kubelet(SETTINGS, Path("/k")).files
    assert json.loads(text)["cgroupRoot"] == "/tidegate-e2e"


def test_dns_asks_elsewhere_only_if_there_is_a_server() -> None:
    for forward in (True, False):
        (_, text), *_ = node.coredns(SETTINGS, Path("/c"), forward=forward).files
        assert ("forward ." in text) is forward


def test_the_api_server_listens_on_the_given_address_only() -> None:
    api = ApiServerSettings(Path("/pki"), "127.0.0.1:1", "10.244.0.1", 6443, Path("/p"), Path("/l"))
    command = api.command(Path("/bin/kube-apiserver"))
    assert "--bind-address=10.244.0.1" in command
    assert "--kubelet-preferred-address-types=InternalIP" in command
    assert api.url == "https://10.244.0.1:6443"


def test_etcd_listens_on_loopback_only() -> None:
    command = EtcdSettings(Path("/d"), "127.0.0.1:1", "127.0.0.1:2").command(Path("/etcd"))
    urls = [part for part in command if "http://" in part]
    assert len(urls) == 5
    assert all("127.0.0.1" in url for url in urls)


def test_the_audit_policy_keeps_reads_and_system_parts_out_and_ends_with_everything() -> None:
    rules = yaml.safe_load(AUDIT_POLICY)["rules"]
    assert rules[0] == {"level": "None", "verbs": ["get", "list", "watch"]}
    assert rules[-1] == {"level": "Metadata"}
    assert "system:serviceaccounts:kube-system" in rules[2]["userGroups"]


def test_manifests_have_no_blanks_left_and_use_built_images() -> None:
    text = json.dumps(objects())
    assert "${" not in text
    for item in objects():
        template = item.get("spec", {}).get("template", {})
        for container in template.get("spec", {}).get("containers", []):
            assert container["image"] in images.for_node()


def test_addresses_in_services_are_those_told_to_users() -> None:
    found = {
        item["metadata"]["name"]: item["spec"]["clusterIP"]
        for item in objects()
        if item["kind"] == "Service"
    }
    assert SETTINGS.s3_endpoint == f"http://{found['s3']}:8333"
    assert SETTINGS.prometheus_url == f"http://{found['prometheus']}:9090"


def test_prometheus_configuration_is_yaml_with_three_jobs() -> None:
    (text,) = [item["data"]["prometheus.yml"] for item in objects() if item["kind"] == "ConfigMap"]
    jobs = yaml.safe_load(text)["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["triton", "sidecar", "annotated"]
    assert "$1:9091" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.9 linux/amd64", (1, 9)),
        ("bash: go: command not found", None),
    ],
)
def test_go_version(text: str, expected: tuple[int, int] | None) -> None:
    assert preflight.go_version(text) == expected


def test_the_report_names_each_lack_with_its_remedy() -> None:
    text = preflight.report([Missing("nft", "apt-get install nftables"), Missing("root", "sudo")])
    first, *rows = text.splitlines()
    assert first == "this machine lacks:"
    assert [row.split(maxsplit=1) for row in rows] == [
        ["nft", "apt-get install nftables"],
        ["root", "sudo"],
    ]


def test_masquerading_replaces_its_own_table_only() -> None:
    rules = SETTINGS.network.masquerade_rules()
    assert rules.startswith("table ip tidegate-e2e\ndelete table ip tidegate-e2e\n")
    assert "flush ruleset" not in rules
