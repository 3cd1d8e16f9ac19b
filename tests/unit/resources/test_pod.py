"""The pods of a revision: safe, complete, and asking for the GPUs that they need."""

from dataclasses import replace
from typing import Any

import pytest

from tidegate.api.spec import parse
from tidegate.platform import Platform, Profile
from tidegate.resources.birth import manifests
from tidegate.resources.pod import Parts, pod_template

S3 = "s3://models/magika/v3"


def parts(runtime: dict[str, Any] | None = None, uri: str = S3, **source: Any) -> Parts:
    spec = parse({"model": {"source": {"uri": uri, **source}}, "runtime": runtime or {}})
    return Parts(
        deployment="magika",
        hash="abcdefghij",
        name="magika-abcdefghij",
        pin_name="magika-abcdefghij-pin",
        model=spec.model,
        runtime=spec.runtime,
        profile=Profile(),
        platform=Platform(),
    )


def pod(runtime: dict[str, Any] | None = None, uri: str = S3, **source: Any) -> dict[str, Any]:
    spec: dict[str, Any] = pod_template(parts(runtime, uri, **source))["spec"]
    return spec


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in (*spec["initContainers"], *spec["containers"])}


@pytest.mark.parametrize("uri", [S3, "pvc://claim/a", "image:///opt/model", "hf://a/b"])
@pytest.mark.parametrize("sidecar", ["On", "Off"])
def test_every_container_is_restricted(uri: str, sidecar: str) -> None:
    spec = pod({"sidecar": sidecar, "cache": {"claimName": "c"}}, uri)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(spec).values():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
    allowed = {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
    assert all(set(v) - {"name"} <= allowed for v in spec["volumes"])


@pytest.mark.parametrize("uri", [S3, "pvc://claim/a", "image:///opt/model"])
def test_every_mount_has_its_volume_and_the_other_way_round(uri: str) -> None:
    spec = pod({"cache": {"claimName": "c"}}, uri, **({"secretName": "s"} if uri == S3 else {}))
    mounted = {m["name"] for c in containers(spec).values() for m in c["volumeMounts"]}
    assert mounted == {v["name"] for v in spec["volumes"]}


def test_the_order_is_fetch_then_envoy_then_triton() -> None:
    spec = pod()
    assert [c["name"] for c in spec["initContainers"]] == ["fetch", "envoy"]
    assert spec["initContainers"][1]["restartPolicy"] == "Always"
    assert [c["name"] for c in spec["containers"]] == ["triton"]


def test_an_image_source_is_copied_from_the_runtime_image_first() -> None:
    spec = pod({"image": "a/b:1"}, "image:///opt/my model; rm -rf /")
    copy, fetch = spec["initContainers"][:2]
    assert (copy["name"], copy["image"], fetch["name"]) == ("copy-model", "a/b:1", "fetch")
    assert copy["command"][-1] == "/opt/my model; rm -rf /", "one argument, never a script"


def test_without_the_sidecar_triton_listens_itself_and_closes_its_apis() -> None:
    triton = containers(pod({"sidecar": "Off"}))["triton"]
    assert "--http-address=0.0.0.0" in triton["args"]
    assert any(a.startswith("--http-restricted-api=model-repository") for a in triton["args"])
    assert [p["containerPort"] for p in triton["ports"]] == [8000, 8001, 8002]
    on = containers(pod())["triton"]
    assert "--http-address=127.0.0.1" in on["args"]
    assert "ports" not in on


def test_grace_covers_drain_and_exit() -> None:
    spec = pod()
    platform = Platform()
    least = platform.pre_stop_seconds + platform.exit_timeout_seconds
    assert spec["terminationGracePeriodSeconds"] > least


NODE_TERMS = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"]


@pytest.mark.parametrize(
    ("gpu", "limits", "terms", "taints"),
    [
        ({}, {"nvidia.com/gpu": "1"}, [], ["nvidia.com/gpu"]),
        ({"count": 0}, {}, [], []),
        ({"count": 2}, {"nvidia.com/gpu": "2"}, [], ["nvidia.com/gpu"]),
        (
            {"resource": "nvidia.com/mig-1g.10gb"},
            {"nvidia.com/mig-1g.10gb": "1"},
            [],
            ["nvidia.com/gpu"],
        ),
        ({"resource": "amd.com/gpu"}, {"amd.com/gpu": "1"}, [], ["amd.com/gpu"]),
        (
            {"products": ["NVIDIA-L4", "NVIDIA-L40S"]},
            {"nvidia.com/gpu": "1"},
            [
                {
                    "key": "nvidia.com/gpu.product",
                    "operator": "In",
                    "values": ["NVIDIA-L4", "NVIDIA-L40S"],
                }
            ],
            ["nvidia.com/gpu"],
        ),
        (
            {"minMemory": "24Gi"},
            {"nvidia.com/gpu": "1"},
            # 24 GiB are 24,576 MiB; Gt is strict.
            [{"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["24575"]}],
            ["nvidia.com/gpu"],
        ),
    ],
)
def test_gpus(
    gpu: dict[str, Any], limits: dict[str, str], terms: list[Any], taints: list[str]
) -> None:
    spec = pod({"gpu": gpu})
    found = containers(spec)["triton"]["resources"]["limits"]
    assert {k: v for k, v in found.items() if "/" in k} == limits
    assert [t["key"] for t in spec.get("tolerations", [])] == taints
    here: Any = spec
    for key in NODE_TERMS:
        here = here.get(key, {})
    assert [e for t in here.get("nodeSelectorTerms", []) for e in t["matchExpressions"]] == terms


def test_gpus_by_claim() -> None:
    runtime = {
        "gpu": {"count": 2, "dra": {"selectors": ["device.driver == 'gpu.nvidia.com'"]}},
    }
    spec = parse({"model": {"source": {"uri": S3}}, "runtime": runtime})
    found = {m["kind"]: m for m in manifests(spec, parts(runtime))}
    (request,) = found["ResourceClaimTemplate"]["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 2
    assert request["exactly"]["deviceClassName"] == "gpu.nvidia.com"
    template = found["Deployment"]["spec"]["template"]["spec"]
    assert template["resourceClaims"] == [
        {"name": "gpu", "resourceClaimTemplateName": "magika-abcdefghij"}
    ]
    assert containers(template)["triton"]["resources"]["claims"] == [{"name": "gpu"}]
    assert "nvidia.com/gpu" not in containers(template)["triton"]["resources"]["limits"]


def test_platform_labels_win_over_the_users() -> None:
    labels = pod_template(parts({"podLabels": {"tidegate.dev/revision": "x", "team": "a"}}))[
        "metadata"
    ]["labels"]
    assert labels["tidegate.dev/revision"] == "abcdefghij"
    assert labels["team"] == "a"


def test_the_queue_stands_on_deployment_and_pods() -> None:
    runtime = {"queueName": "team-a"}
    spec = parse({"model": {"source": {"uri": S3}}, "runtime": runtime})
    (deployment,) = [m for m in manifests(spec, parts(runtime)) if m["kind"] == "Deployment"]
    for labels in (
        deployment["metadata"]["labels"],
        deployment["spec"]["template"]["metadata"]["labels"],
    ):
        assert labels["kueue.x-k8s.io/queue-name"] == "team-a"
    assert "kueue.x-k8s.io/queue-name" not in deployment["spec"]["selector"]["matchLabels"]


def test_golden_requests_that_warm_up_are_mounted_and_not_waited_for() -> None:
    spec = pod_template(replace(parts(), golden="known"))["spec"]
    [volume] = [v for v in spec["volumes"] if v["name"] == "golden"]
    assert volume["configMap"] == {"name": "known", "optional": True}
    mounts = {
        name: [m["mountPath"] for m in c["volumeMounts"] if m["name"] == "golden"]
        for name, c in containers(spec).items()
    }
    assert mounts == {"fetch": ["/etc/tidegate/golden"], "envoy": [], "triton": []}
    assert "golden" not in [v["name"] for v in pod()["volumes"]]
