"""`migrate`: what becomes of the old objects, and what is said of the rest."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tidegate.api import names, rules
from tidegate.api.rules.source import SCHEMES
from tidegate.api.spec import parse
from tidegate.cli import from_argo, from_triton, main, migrating
from tidegate.cli.draft import Draft
from tidegate.cli.migrating import Migrated, Options, migrate
from tidegate.cli.trouble import Trouble
from tidegate.resources import meta
from tidegate.resources.sidecar import SERVING_PORT

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "docs/examples/migrate").glob("*.yaml"))
GUIDE = (ROOT / "docs/guide/migrate.md").read_text(encoding="utf-8")

Document = dict[str, Any]


def deployment(
    *, pod: Document | None = None, meta: Document | None = None, **container: Any
) -> Document:
    """A Deployment of Triton; `pod` and `container` change its parts."""
    server = {
        "name": "triton",
        "image": "mirror.example/tritonserver:25.08-py3",
        "args": ["tritonserver", "--model-repository=s3://models/ranker"],
        "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi", "nvidia.com/gpu": 1}},
    }
    template = {
        "metadata": meta or {"labels": {"app": "ranker"}},
        "spec": {"containers": [server | container], **(pod or {})},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ranker"},
        "spec": {"selector": {"matchLabels": {"app": "ranker"}}, "template": template},
    }


def service(name: str = "ranker", **spec: Any) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "ranker"}} | spec,
    }


def hpa(low: int = 2, high: int = 8) -> Document:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "by-cpu"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "ranker"},
            "minReplicas": low,
            "maxReplicas": high,
        },
    }


def inference_service(kind: str = "onnx", spec: Document | None = None, **model: Any) -> Document:
    stated = {"modelFormat": {"name": kind}, "storageUri": "s3://models/s/1"} | model
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "sentiment"},
        "spec": {"predictor": {"model": stated} | (spec or {})},
    }


def rollout(canary: Document | None = None, **spec: Any) -> Document:
    found = deployment()
    found |= {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout"}
    found["spec"] |= {"strategy": {"canary": canary or {}}} | spec
    return found


def one(*documents: Document, **options: str) -> Migrated:
    (found,) = migrate(documents, Options(**options))
    parse(found.manifest["spec"])
    return found


def at(found: Migrated, path: str) -> Any:
    """A field of the spec by its path; None where it is not set."""
    node: Any = found.manifest["spec"]
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def said(found: Migrated, text: str) -> bool:
    return any(text in note for note in found.notes)


def claim(**mount: Any) -> Document:
    return {
        "args": ["tritonserver", "--model-repository", "/models/ranker"],
        "volumeMounts": [{"name": "m", "mountPath": "/models"} | mount],
        "pod": {
            "volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}],
        },
    }


def secret(name: str, key: str = "", of: str = "models-read") -> Document:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": of, "key": key or name}}}


FETCHED: Document = {
    "args": ["tritonserver", "--model-store=/models"],
    "volumeMounts": [{"name": "m", "mountPath": "/models"}],
    "pod": {
        "volumes": [{"name": "m", "emptyDir": {}}],
        "initContainers": [
            {
                "name": "fetch",
                "command": ["sh", "-c"],
                "args": ["aws s3 sync s3://models/ranker /models --endpoint-url http://store:9000"],
                "volumeMounts": [{"name": "m", "mountPath": "/models"}],
            }
        ],
    },
}


class TestDeployment:
    @pytest.mark.parametrize(
        ("change", "uri", "endpoint"),
        [
            ({}, "s3://models/ranker", None),
            (claim(), "pvc://models/ranker", None),
            (claim(subPath="live"), "pvc://models/live/ranker", None),
            (FETCHED, "s3://models/ranker", "http://store:9000"),
            ({"args": ["--model-repository=/opt/models"]}, "image:///opt/models", None),
            (
                {"args": ["--model-repository=s3://https://store.example:9000/bucket/m"]},
                "s3://bucket/m",
                "https://store.example:9000",
            ),
            (
                {"command": ["sh", "-c"], "args": ["exec tritonserver --model-repository=$(REPO)"]}
                | {"env": [{"name": "REPO", "value": "gs://models/m"}]},
                "gs://models/m",
                None,
            ),
            (
                {
                    "args": ["tritonserver", "--model-repository=/models"],
                    "volumeMounts": [{"name": "m", "mountPath": "/models"}],
                    "pod": {"volumes": [{"name": "m", "image": {"reference": "r.example/a/b:1"}}]},
                },
                "oci://r.example/a/b:1",
                None,
            ),
        ],
    )
    def test_where_the_model_lies(self, change: Document, uri: str, endpoint: str | None) -> None:
        found = one(deployment(**copy.deepcopy(change)))
        assert at(found, "model.source.uri") == uri
        assert at(found, "model.source.endpoint") == endpoint
        assert not said(found, "initContainers"), "the fetch does what it did"

    @pytest.mark.parametrize(
        ("change", "path", "value"),
        [
            ({}, "runtime.image", "mirror.example/tritonserver:25.08-py3"),
            ({}, "runtime.resources", {"cpu": "2", "memory": "8Gi"}),
            ({}, "runtime.gpu", {"count": 1}),
            ({"resources": {"limits": {"memory": "1Gi"}}}, "runtime.gpu", {"count": 0}),
            (
                {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 2}}},
                "runtime.gpu",
                {"count": 1, "resource": "nvidia.com/mig-1g.10gb"},
            ),
            (
                {"args": ["tritonserver", "--model-repository=s3://bucket/m", "--load-model=m"]},
                "model.name",
                "m",
            ),
            ({"env": [{"name": "A", "value": "1"}]}, "runtime.env", [{"name": "A", "value": "1"}]),
            ({"env": [secret("AWS_ACCESS_KEY_ID")]}, "model.source.secretName", "models-read"),
            (
                {"envFrom": [{"secretRef": {"name": "store"}}]},
                "model.source.secretName",
                "store",
            ),
            ({"env": [{"name": "AWS_REGION", "value": "eu-1"}]}, "model.source.region", "eu-1"),
            ({"pod": {"nodeSelector": {"pool": "a"}}}, "runtime.nodeSelector", {"pool": "a"}),
            (
                {"pod": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}},
                "runtime.tolerations",
                [{"key": "gpu", "operator": "Exists"}],
            ),
            ({"pod": {"priorityClassName": "high"}}, "runtime.priorityClassName", "high"),
            ({"pod": {"serviceAccountName": "sa"}}, "runtime.serviceAccountName", "sa"),
            ({"pod": {"imagePullSecrets": [{"name": "p"}]}}, "runtime.imagePullSecrets", ["p"]),
            (
                {
                    "pod": {
                        "affinity": {
                            "nodeAffinity": {
                                "requiredDuringSchedulingIgnoredDuringExecution": {
                                    "nodeSelectorTerms": [
                                        {
                                            "matchExpressions": [
                                                {
                                                    "key": "nvidia.com/gpu.product",
                                                    "operator": "In",
                                                    "values": ["NVIDIA-L4"],
                                                }
                                            ]
                                        }
                                    ]
                                }
                            }
                        }
                    }
                },
                "runtime.gpu.products",
                ["NVIDIA-L4"],
            ),
        ],
    )
    def test_what_is_carried_over(self, change: Document, path: str, value: object) -> None:
        assert at(one(deployment(**copy.deepcopy(change))), path) == value

    @pytest.mark.parametrize(
        ("change", "note"),
        [
            ({"image": "triton/tritonserver:latest"}, "runtime.image: triton/tritonserver:latest"),
            ({"env": [{"name": "HF_TOKEN", "value": "hf_x"}]}, "env HF_TOKEN: a credential in pl"),
            ({"env": [{"name": "DB_PASSWORD", "value": "x"}]}, "DB_PASSWORD"),
            ({"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "0"}]}, "env NVIDIA_VISIBLE_DEV"),
            ({"env": [secret("AWS_ACCESS_KEY_ID", "user")]}, "user -> AWS_ACCESS_KEY_ID"),
            (
                {"env": [secret("AWS_ACCESS_KEY_ID"), secret("HF_TOKEN", of="hub")]},
                "credentials come from 2 Secrets",
            ),
            ({"livenessProbe": {"exec": {}}}, "livenessProbe: not carried over; Tidegate sets its"),
            ({"resources": {}}, "resources.memory: none is asked for"),
            ({"resources": {"limits": {"memory": "1e9"}}}, "resources memory 1e9"),
            ({"resources": {"limits": {"memory": "64Mi"}}}, "resources memory 64Mi: too little"),
            ({"workingDir": "/srv"}, "workingDir: there is no field"),
            (
                {"args": ["--model-repository=s3://bucket/m", "--rate-limit=off"]},
                "--rate-limit=off: ",
            ),
            ({"pod": {"hostNetwork": True}}, "hostNetwork: there is no field for it"),
            ({"pod": {"affinity": {"podAntiAffinity": {"a": []}}}}, "affinity podAntiAffinity"),
            ({"pod": {"initContainers": [{"name": "wait"}]}}, "initContainers wait: not carried"),
            (
                {
                    "volumeMounts": [{"name": "c", "mountPath": "/etc/conf"}],
                    "pod": {"volumes": [{"name": "c", "configMap": {"name": "c"}}]},
                },
                "volume c at /etc/conf: no other volumes are mounted",
            ),
        ],
    )
    def test_what_is_not_is_said(self, change: Document, note: str) -> None:
        found = one(deployment(**copy.deepcopy(change)))
        assert said(found, note), found.notes

    def test_what_kubernetes_fills_in_is_not_worth_a_line(self) -> None:
        plain = one(deployment())
        filled = one(
            deployment(
                pod={
                    "restartPolicy": "Always",
                    "dnsPolicy": "ClusterFirst",
                    "schedulerName": "default-scheduler",
                    "securityContext": {},
                },
                imagePullPolicy="IfNotPresent",
                terminationMessagePath="/dev/termination-log",
                terminationMessagePolicy="File",
            )
        )
        assert filled == plain

    def test_no_credential_gets_into_the_manifest(self) -> None:
        pairs = {
            "AWS_SECRET_ACCESS_KEY": "hush",
            "HF_TOKEN": "hush",
            "MLFLOW_TRACKING_TOKEN": "hush",
            "REDIS_PASSWORD": "hush",
        }
        env = [{"name": k, "value": v} for k, v in pairs.items()]
        found = one(deployment(env=env))
        assert "hush" not in json.dumps(found.manifest) + "".join(found.notes)

    def test_the_old_service_must_not_reach_the_new_pods(self) -> None:
        meta = {"labels": {"app": "ranker", "tier": "a", "team": "search"}}
        found = one(deployment(meta=meta), service("front", selector={"tier": "a"}))
        assert at(found, "runtime.podLabels") == {"team": "search"}
        assert said(found, "labels app, tier: left out")

    def test_a_service_that_selects_by_labels_of_tidegates(self) -> None:
        theirs = {"app.kubernetes.io/name": "tritonserver"}
        found = one(deployment(meta={"labels": {"app": "r"} | theirs}), service(selector=theirs))
        assert said(found, "Service ranker: selects the new pods, too")
        assert not said(one(deployment(), service()), "selects the new pods")

    def test_reserved_labels_stay_behind(self) -> None:
        meta = {
            "labels": {"x": "1", "pod.kubernetes.io/y": "2", "app.kubernetes.io/part-of": "z"},
            "annotations": {"note": "a", "tidegate.dev/request": "b"},
        }
        found = one(deployment(meta=meta))
        assert at(found, "runtime.podLabels") == {"x": "1", "app.kubernetes.io/part-of": "z"}
        assert at(found, "runtime.podAnnotations") == {"note": "a"}

    def test_it_has_a_name_of_its_own_where_the_old_service_has_it(self) -> None:
        alone, beside = one(deployment()), one(deployment(), service())
        assert alone.manifest["metadata"]["name"] == "ranker"
        assert at(alone, "model.name") is None
        assert beside.manifest["metadata"]["name"] == "ranker-tidegate"
        assert at(beside, "model.name") == "ranker", "clients ask for the same model"

    def test_names_that_are_given(self) -> None:
        found = one(deployment(), name="scores", model="rank_v2", source="hf://a/b")
        assert found.manifest["metadata"] == {"name": "scores"}
        assert at(found, "model") == {"name": "rank_v2", "source": {"uri": "hf://a/b"}}

    def test_an_hpa_without_a_latency_goes_on_scaling(self) -> None:
        found = one(deployment(), hpa(3))
        assert at(found, "replicas") == 3
        assert at(found, "scaling") == {"mode": "External"}
        assert said(found, f"kind {names.KIND}, name ranker")

    def test_with_a_latency_replicas_follow_it(self) -> None:
        found = one(deployment(), hpa(3), latency="250ms")
        assert at(found, "scaling") == {"minReplicas": 3, "maxReplicas": 8}
        assert at(found, "slo.latency.target") == "250ms"
        assert at(found, "replicas") is None

    @pytest.mark.parametrize(
        ("strategy", "path", "value"),
        [
            ({"type": "Recreate"}, "rollout.strategy", "Recreate"),
            ({"rollingUpdate": {"maxSurge": 0}}, "rollout.surge", "Never"),
            ({"rollingUpdate": {"maxSurge": "25%"}}, "rollout", None),
        ],
    )
    def test_strategy(self, strategy: Document, path: str, value: object) -> None:
        old = deployment()
        old["spec"]["strategy"] = strategy
        assert at(one(old), path) == value

    def test_what_the_schema_does_not_take_is_left_out_and_said(self) -> None:
        many = {f"key-{n}": "v" for n in range(17)}
        found = one(deployment(pod={"nodeSelector": many | {"a": "no such value!"}}))
        assert said(found, "spec.runtime.nodeSelector")

    @pytest.mark.parametrize(
        "name",
        [
            *("CUDA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "TIDEGATE_X"),
            *("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AZURE_STORAGE_SAS_TOKEN", "HF_TOKEN"),
            *("MLFLOW_TRACKING_TOKEN", "DB_PASSWORD", "MY_SECRET_KEY"),
        ],
    )
    def test_what_admission_refuses_as_a_variable_is_left_out(self, name: str) -> None:
        refused = [r.rule for r in rules.RULES if r.at == "spec.runtime.env[].name"]
        patterns = [m for rule in refused for m in re.findall(r"matches\(r?'(.*?)'\)", rule)]
        assert patterns
        assert any(re.search(p, name) for p in patterns)
        assert at(one(deployment(env=[{"name": name, "value": "1"}])), "runtime.env") is None


class TestInferenceService:
    @pytest.mark.parametrize(
        ("kind", "backend"),
        [
            ("triton", None),
            ("onnx", "onnxruntime"),
            ("sklearn", "fil"),
            ("xgboost", "fil"),
            ("pytorch", "pytorch"),
        ],
    )
    @pytest.mark.parametrize("legacy", [False, True])
    def test_formats(self, kind: str, backend: str | None, legacy: bool) -> None:
        document = inference_service(kind)
        if legacy:
            document["spec"]["predictor"] = {kind: {"storageUri": "s3://models/s/1"}}
        found = one(document)
        assert at(found, "model.backend") == backend
        assert at(found, "model.name") == "sentiment"
        assert found.manifest["metadata"]["name"] == "sentiment-tidegate"
        assert said(found, "protocolVersion v1") == (kind not in ("triton", "onnx"))
        assert said(found, f"modelFormat {kind}") == (kind not in ("triton", "onnx"))

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("gs://models/m", "gs://models/m"),
            ("pvc://claim/m", "pvc://claim/m"),
            ("hf://org/name:v2", "hf://org/name@v2"),
            ("oci://r.example/a/b:1", "oci://r.example/a/b:1"),
            ("https://acct.blob.core.windows.net/box/m", "as://acct/box/m"),
            ("abfs://box@acct.dfs.core.windows.net/m", "as://acct/box/m"),
            ("s3://bucket//m/", "s3://bucket/m/"),
        ],
    )
    def test_addresses(self, theirs: str, ours: str) -> None:
        assert at(one(inference_service(storageUri=theirs)), "model.source.uri") == ours

    @pytest.mark.parametrize(
        ("spec", "options", "path", "value"),
        [
            ({}, {}, "replicas", 1),
            ({"minReplicas": 0}, {}, "replicas", 1),
            ({"minReplicas": 3}, {}, "replicas", 3),
            (
                {"minReplicas": 2, "maxReplicas": 5},
                {"latency": "50ms"},
                "scaling",
                {"minReplicas": 2, "maxReplicas": 5},
            ),
            ({"nodeSelector": {"a": "b"}}, {}, "runtime.nodeSelector", {"a": "b"}),
            (
                {"batcher": {"maxBatchSize": 8, "maxLatency": 5}},
                {},
                "model.config",
                {"maxBatchSize": 8, "dynamicBatching": {"maxQueueDelay": "5ms"}},
            ),
        ],
    )
    def test_fields(
        self, spec: Document, options: dict[str, str], path: str, value: object
    ) -> None:
        assert at(one(inference_service(spec=spec), **options), path) == value

    @pytest.mark.parametrize(
        ("spec", "note"),
        [
            ({"minReplicas": 0}, "nothing scales to zero"),
            ({"maxReplicas": 4}, "replicas stay at 1"),
            ({"scaleMetric": "concurrency", "scaleTarget": 4}, "scaleMetric concurrency, scaleT"),
            ({"canaryTrafficPercent": 10}, "canaryTrafficPercent 10"),
            ({"timeout": 60}, "traffic.timeout: 60s"),
            ({"containerConcurrency": 4}, "containerConcurrency 4"),
            ({"logger": {"mode": "all"}}, "logger"),
            ({"workerSpec": {"size": 2}}, "workerSpec"),
            ({"serviceAccountName": "models"}, "serviceAccountName models: not carried over"),
            ({"shinyNewField": 1}, "shinyNewField: there is no field for it"),
        ],
    )
    def test_what_is_not_carried_over_is_said(self, spec: Document, note: str) -> None:
        found = one(inference_service(spec=spec))
        assert said(found, note), found.notes

    def test_a_custom_predictor_that_is_triton(self) -> None:
        document = inference_service()
        document["spec"]["predictor"] = {
            "containers": deployment()["spec"]["template"]["spec"]["containers"]
        }
        found = one(document)
        assert at(found, "model.source.uri") == "s3://models/ranker"
        assert at(found, "runtime.image") == "mirror.example/tritonserver:25.08-py3"

    def test_the_service_account_tells_secret_and_endpoint(self) -> None:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "models"},
            "secrets": [{"name": "store"}],
        }
        keys = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "store",
                "annotations": {
                    "serving.kserve.io/s3-endpoint": "minio:9000",
                    "serving.kserve.io/s3-usehttps": "0",
                    "serving.kserve.io/s3-region": "eu-1",
                },
            },
            "data": {"AWS_SECRET_ACCESS_KEY": "aHVzaA=="},
        }
        found = one(inference_service(spec={"serviceAccountName": "models"}), account, keys)
        assert at(found, "model.source") == {
            "uri": "s3://models/s/1",
            "secretName": "store",
            "endpoint": "http://minio:9000",
            "region": "eu-1",
        }
        assert at(found, "runtime.serviceAccountName") is None
        assert "aHVzaA" not in json.dumps(found.manifest)


class TestRollout:
    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            (
                [{"setWeight": 5}, {"pause": {"duration": "10m"}}, {"setWeight": 50}],
                [{"weight": "5%", "hold": "10m"}, {"weight": "50%"}],
            ),
            (
                [{"setWeight": 20}, {"pause": {"duration": 90}}],
                [{"weight": "20%", "hold": "90s"}],
            ),
            (
                [{"setWeight": 20}, {"setWeight": 100}, {"pause": {"duration": "1h"}}],
                [{"weight": "20%"}],
            ),
            ([{"setWeight": 50}, {"setWeight": 20}], [{"weight": "50%"}]),
            ([{"pause": {}}], None),
        ],
    )
    def test_steps(self, steps: list[Document], expected: object) -> None:
        assert at(one(rollout({"steps": steps})), "rollout.steps") == expected

    @pytest.mark.parametrize(
        ("canary", "note"),
        [
            ({"steps": [{"setWeight": 5}, {"pause": {}}]}, "steps[1] pause without end"),
            ({"steps": [{"setWeight": 50}, {"setWeight": 20}]}, "steps[1] setWeight 20: not above"),
            ({"steps": [{"setCanaryScale": {}}]}, "steps[0] setCanaryScale"),
            ({"steps": [{"experiment": {}}]}, "steps[0] experiment"),
            ({"steps": [{"plugin": {}}]}, "steps[0] plugin: there is no such step"),
            ({"steps": [{"setWeight": 5}]}, "weights were kept by numbers of pods"),
            ({"trafficRouting": {"istio": {}}}, "trafficRouting istio"),
            ({"analysis": {"templates": [{"templateName": "t"}]}}, "analysis t: its AnalysisTempl"),
            ({"antiAffinity": {"x": 1}}, "strategy.canary.antiAffinity"),
        ],
    )
    def test_what_is_not_carried_over_is_said(self, canary: Document, note: str) -> None:
        found = one(rollout(canary))
        assert said(found, note), found.notes

    @pytest.mark.parametrize(
        ("name", "condition", "rate"),
        [
            ("success-rate", "result[0] >= 0.95", "5%"),
            ("availability", "result > 0.999", "0.1%"),
            ("error-rate", "result[0] <= 0.02", "2%"),
            ("success-rate", "result[0] >= 95", None),
            ("success-rate", "len(result) == 0 || result[0] >= 0.95", None),
            ("latency", "result[0] <= 0.5", None),
            ("revenue", "result[0] >= 0.5", None),
            ("success-rate", "result[0] >= 1", None),
        ],
    )
    def test_analysis(self, name: str, condition: str, rate: str | None) -> None:
        template = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "AnalysisTemplate",
            "metadata": {"name": "t"},
            "spec": {"metrics": [{"name": name, "successCondition": condition}]},
        }
        found = one(rollout({"analysis": {"templates": [{"templateName": "t"}]}}), template)
        assert at(found, "slo.maxErrorRate") == rate
        assert said(found, f"analysis t {name}")

    @pytest.mark.parametrize(
        ("step", "path", "value"),
        [
            (
                {"setMirrorRoute": {"name": "m", "percentage": 35}},
                "rollout.mirror.percent",
                "35%",
            ),
            (
                {
                    "setHeaderRoute": {
                        "match": [{"headerName": "x-canary", "headerValue": {"exact": "yes"}}]
                    }
                },
                "rollout.pin.headers",
                {"x-canary": "yes"},
            ),
            (
                {
                    "setHeaderRoute": {
                        "match": [{"headerName": "a", "headerValue": {"regex": ".*"}}]
                    }
                },
                "rollout.pin",
                None,
            ),
        ],
    )
    def test_routes_of_steps(self, step: Document, path: str, value: object) -> None:
        assert at(one(rollout({"steps": [{"setWeight": 5}, step]})), path) == value

    def test_times_and_surge(self) -> None:
        canary = {"maxSurge": 0, "abortScaleDownDelaySeconds": 30, "scaleDownDelaySeconds": 120}
        found = one(rollout(canary, progressDeadlineSeconds=900, revisionHistoryLimit=2))
        assert at(found, "rollout") == {
            "surge": "Never",
            "keepFailed": "30s",
            "bake": "2m",
            "progressDeadline": "15m",
        }
        assert at(found, "historyLimit") == 2

    def test_blue_green(self) -> None:
        green = {"activeService": "a", "previewService": "b", "autoPromotionEnabled": False}
        found = one(rollout(strategy={"blueGreen": green}))
        assert at(found, "rollout") == {"strategy": "BlueGreen"}
        assert said(found, "previewService b")
        assert said(found, "autoPromotion")

    def test_a_rollout_that_refers_to_a_deployment(self) -> None:
        document = rollout({"steps": [{"setWeight": 5}]}, workloadRef={"name": "ranker"})
        del document["spec"]["template"]
        document["metadata"] = {"name": "roll"}
        found = one(document, deployment())
        assert at(found, "model.source.uri") == "s3://models/ranker"
        with pytest.raises(Trouble, match="workloadRef ranker is not in the file"):
            one(document)

    def test_its_services_and_routes_keep_their_names(self) -> None:
        found = one(rollout({"stableService": "ranker", "canaryService": "other"}))
        assert found.manifest["metadata"]["name"] == "ranker-tidegate"

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [("10m", "10m"), (600, "10m"), ("90", "90s"), ("1h30m", "1h30m"), ("soon", ""), ("", "")],
    )
    def test_durations(self, theirs: object, ours: str) -> None:
        assert from_argo.duration(theirs) == ours


HOST_PATH: Document = {
    "args": ["tritonserver", "--model-repository=/models"],
    "volumeMounts": [{"name": "m", "mountPath": "/models"}],
    "pod": {"volumes": [{"name": "m", "hostPath": {"path": "/data"}}]},
}
NAMELESS = deployment()
NAMELESS["metadata"] = {}


class TestTrouble:
    @pytest.mark.parametrize(
        ("documents", "options", "text"),
        [
            ([service()], {}, "no Deployment, InferenceService or Rollout, only Service"),
            ([deployment(image="flask:1", args=[])], {}, "no container is known to run Triton"),
            ([deployment(args=["tritonserver"])], {}, "no --model-repository is named"),
            ([deployment(**HOST_PATH)], {}, "/models lies on hostPath"),
            ([deployment(args=["--model-repository=ftp://x/y"])], {}, "ftp://x/y is no address"),
            ([deployment()], {"container": "x"}, "no container x; there is triton"),
            (
                [deployment()],
                {"name": "Not Good"},
                "--name 'Not Good' cannot be a ModelDeployment's",
            ),
            ([deployment()], {"model": "-x"}, "is no model's name"),
            ([deployment()], {"latency": "123ms"}, "two significant digits"),
            ([deployment()], {"latency": "fast"}, "two significant digits"),
            ([deployment()], {"source": "s3://bucket"}, "is no s3 address such as"),
            ([deployment()], {"source": "s3://bucket/../m"}, "is no s3 address such as"),
            ([deployment()], {"source": "s3://bucket/a b"}, "is no s3 address such as"),
            ([deployment()], {"source": "https://h/m?sig=hush"}, "address holds credentials"),
            ([deployment()], {"source": "https://me:hush@h/m"}, "address holds credentials"),
            ([deployment(), deployment()], {"source": "s3://bucket/m"}, "give them one by one"),
            ([NAMELESS], {}, "without metadata.name"),
            ([inference_service("pmml")], {}, "Triton serves no format pmml; export it to ONNX"),
            ([inference_service("huggingface")], {}, "keep it with KServe"),
            ([inference_service(storageUri=None)], {}, "no storageUri names no address"),
            ([inference_service(storageUri="hdfs://n/m")], {}, "say where its files will lie"),
            ([inference_service(spec={"minReplicas": "two"})], {}, "is no whole number"),
        ],
    )
    def test_in_one_line_with_a_mend(
        self, documents: list[Document], options: dict[str, str], text: str
    ) -> None:
        with pytest.raises(Trouble) as raised:
            migrate(copy.deepcopy(documents), Options(**options))
        assert text in str(raised.value)
        assert raised.value.mend
        assert "hush" not in str(raised.value)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("a: [", "is no YAML in line 1"),
            ("{{ .Values.x }}: 1", "is no YAML"),
            ("just words", "holds no Kubernetes objects"),
            ("", "holds no Kubernetes objects"),
        ],
    )
    def test_files(self, tmp_path: Path, text: str, why: str) -> None:
        file = tmp_path / "old.yaml"
        file.write_text(text)
        with pytest.raises(Trouble, match=re.escape(why)):
            migrating.read(str(file))

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(Trouble, match="No such file or directory"):
            migrating.read(str(tmp_path / "nowhere.yaml"))


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all that stands in a document."""
    pairs = list(node.items() if isinstance(node, dict) else enumerate(node))
    found = []
    for key, value in pairs:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += places(value, (*path, key))
    return found


LOADED = [d for path in EXAMPLES for d in yaml.safe_load_all(path.read_text())]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 10**7),
    st.sampled_from(["", "x", "-1", "a b'c", "100%", "s3://", "/", "$(X)", "∞"]),
    st.just([]),
    st.just({}),
    st.just([None]),
    st.just({"x": {"y": []}}),
    st.just([[1]]),
)


@given(st.data())
def test_whatever_is_in_the_file_it_is_a_valid_manifest_or_one_line(data: st.DataObject) -> None:
    documents = copy.deepcopy(LOADED)
    for _ in range(data.draw(st.integers(1, 3))):
        chosen = data.draw(st.sampled_from(documents))
        path = data.draw(st.sampled_from([p for p in places(chosen) if p[0] != "kind"]))
        node = chosen
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = copy.deepcopy(data.draw(JUNK))
    try:
        found = migrate(documents)
    except Trouble:
        return
    for one in found:
        parse(one.manifest["spec"])
        assert all("\n" not in note and note.count("; ") >= 1 for note in one.notes)


def test_nothing_given_is_changed() -> None:
    documents = copy.deepcopy(LOADED)
    migrate(documents)
    assert documents == LOADED


@given(st.text(max_size=60))
def test_an_address_is_one_that_the_api_server_takes(text: str) -> None:
    for scheme in ("", "s3://", "https://", "hf://", "gs://b/", "s3://h:9000/"):
        try:
            uri, _ = from_triton.address(Draft("Deployment", "x", "x"), scheme + text)
        except Trouble:
            continue
        assert re.match(SCHEMES[uri.partition("://")[0]][0], uri)


class TestCommand:
    def test_list_and_stdin(self) -> None:
        body = json.dumps({"kind": "List", "apiVersion": "v1", "items": [deployment(), service()]})
        done = CliRunner().invoke(main.app, ["migrate", "-", "-o", "json"], input=body)
        assert json.loads(done.stdout)["metadata"]["name"] == "ranker-tidegate"

    def test_several(self, tmp_path: Path) -> None:
        file = tmp_path / "all.yaml"
        file.write_text(yaml.safe_dump_all([deployment(), inference_service()]))
        done = CliRunner().invoke(main.app, ["migrate", str(file)])
        assert len(list(yaml.safe_load_all(done.stdout))) == 2
        assert all(re.match(r"(ranker|sentiment-tidegate): ", n) for n in done.stderr.splitlines())

    def test_a_file_is_not_overwritten(self, tmp_path: Path) -> None:
        old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
        old.write_text(yaml.safe_dump(deployment()))
        first = CliRunner().invoke(main.app, ["migrate", str(old), "-f", str(new)])
        assert first.stdout == f"{new}: ranker\n"
        with pytest.raises(Trouble, match="exists"):
            CliRunner().invoke(
                main.app, ["migrate", str(old), "-f", str(new)], catch_exceptions=False
            )


def shown() -> list[tuple[list[str], str, str]]:
    """Arguments, manifest and notes of each command in the guide."""
    pattern = re.compile(
        r"^```console\n\$ kubectl tidegate (migrate docs/examples/[^\n]+)\n(.*?)```\n"
        r".*?^```yaml\n(.*?)```",
        re.S | re.M,
    )
    return [(m[1].split(), m[3], m[2]) for m in pattern.finditer(GUIDE)]


def test_the_guide_shows_each_example() -> None:
    assert {a[1] for a, _, _ in shown()} == {p.relative_to(ROOT).as_posix() for p in EXAMPLES}


@pytest.mark.parametrize(("arguments", "manifest", "notes"), shown(), ids=lambda v: str(v)[:40])
def test_the_guide_shows_what_is_printed(arguments: list[str], manifest: str, notes: str) -> None:
    arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
    done = CliRunner().invoke(main.app, [*arguments[:1], str(ROOT / arguments[1]), *arguments[2:]])
    assert done.stdout == manifest
    assert done.stderr == notes


def test_the_cut_over_in_the_guide_reaches_the_pods() -> None:
    """Its Service selects them, at the port that speaks HTTP/1.1 and HTTP/2; no name is taken."""
    (body,) = (b for b in re.findall(r"^```yaml\n(.*?)```", GUIDE, re.S | re.M) if "cutover" in b)
    front, route = yaml.safe_load_all(body)
    labels = meta.serving_selector("ranker-tidegate", "7f3c1a2b9d")
    assert front["spec"]["selector"].items() <= labels.items()
    assert [p["targetPort"] for p in front["spec"]["ports"]] == [SERVING_PORT]
    (rule,) = route["spec"]["rules"]
    assert [b["name"] for b in rule["backendRefs"]] == ["ranker", front["metadata"]["name"]]
    assert sum(b["weight"] for b in rule["backendRefs"]) == 100
