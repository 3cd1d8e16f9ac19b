"""The pods of a revision: fetch the model, measure, serve.

Order inside a pod: (``copy-model``,) ``fetch``, then Envoy as a native sidecar, then Triton. It
passes Pod Security ``restricted``; the ServiceAccount's token is not mounted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidegate.api.names import SERVING_LABEL
from tidegate.api.spec import Model, Runtime, Sidecar, Toleration
from tidegate.api.units import canonical_quantity
from tidegate.platform import Platform, Profile
from tidegate.resources import drain, envoy, sidecar, triton
from tidegate.resources.gpu import gpu_request
from tidegate.resources.meta import labels, selector
from tidegate.resources.triton_config import uses_response_cache

UID: Final = 1000
"""Triton's user in the vendor's image."""
FETCH: Final = "fetch"
COPY_MODEL: Final = "copy-model"
ENVOY: Final = "envoy"
TRITON: Final = "triton"
DRAIN: Final = "drain"
"""Folder in the tmp volume through which Triton's preStop signals Envoy."""

ENVOY_FILE: Final = "envoy.yaml"
FETCH_FILES: Final = ("fetch.json", "model.pbtxt", "override.pbtxt")

POD_SECURITY: Final = {
    "runAsNonRoot": True,
    "runAsUser": UID,
    "runAsGroup": UID,
    "fsGroup": UID,
    # A large claim is not walked again and again.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_FETCH_RESOURCES: Final = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"memory": "1Gi"},
}
_ENVOY_RESOURCES: Final = {
    "requests": {"cpu": "100m", "memory": "96Mi"},
    "limits": {"memory": "512Mi"},
}
_CA_FILE: Final = "/etc/tidegate/ca/ca.crt"
_COPY: Final = 'if [ -d "$1" ]; then cp -rL -- "$1/." /source/; else cp -L -- "$1" /source/; fi'
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True)
class Parts:
    """What a pod template is made of.

    Attributes:
        deployment: name of the ModelDeployment.
        hash: of the revision.
        name: of the revision's objects.
        pin_name: of the ConfigMap that pins the bytes.
        model: what to serve.
        runtime: how.
        profile: the platform's choices for it.
        platform: the platform's settings.
        golden: ConfigMap of golden requests whose inputs warm up the model; None: zeros do.
        namespace: of the ModelDeployment.
    """

    deployment: str
    hash: str
    name: str
    pin_name: str
    model: Model
    runtime: Runtime
    profile: Profile
    platform: Platform
    golden: str | None = None
    namespace: str = ""

    @property
    def triton_image(self) -> str:
        """Triton's image: the user's, the profile's, the platform's."""
        return self.runtime.image or self.profile.image or self.platform.images.triton

    @property
    def model_name(self) -> str:
        """The name that clients ask for."""
        return self.model.name or self.deployment

    @property
    def sidecar(self) -> bool:
        """Whether Envoy runs beside Triton."""
        return self.runtime.sidecar is Sidecar.ON

    @property
    def scheme(self) -> str:
        """Of the model's source, lower case."""
        return self.model.source.uri.partition("://")[0].lower()


def source_folder(scheme: str) -> str | None:
    """Where the files of a source that needs no download are mounted; None for the others."""
    return "/source" if scheme in ("pvc", "image") else None


def restricted_key(hash_: str) -> str:
    """The header value that opens Triton's closed APIs where no sidecar closes them.

    It keeps clients from doing so by mistake; who may read the Deployment can read it.
    """
    return f"tidegate{hash_}"


def pod_template(parts: Parts) -> dict[str, Any]:
    """The pod template of a revision's Deployment."""
    runtime, profile = parts.runtime, parts.profile
    gpu = gpu_request(
        runtime.gpu, tolerate=parts.platform.gpu_toleration, claim_template=parts.name
    )
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "terminationGracePeriodSeconds": drain.grace_period_s(
            parts.platform.pre_stop_seconds, parts.platform.exit_timeout_seconds
        ),
        "initContainers": _init_containers(parts),
        "containers": [_triton(parts, gpu.limits, list(gpu.container_claims))],
        "volumes": pod_volumes(parts),
    }
    node_selector = {**profile.node_selector, **runtime.node_selector}
    optional: dict[str, Any] = {
        **pod_access(parts, gpu.tolerations),
        "priorityClassName": runtime.priority_class_name,
        "runtimeClassName": profile.runtime_class_name,
        "nodeSelector": node_selector,
        "resourceClaims": list(gpu.pod_claims),
        "topologySpreadConstraints": [
            {
                "topologyKey": spread.topology_key,
                "maxSkew": spread.max_skew,
                "whenUnsatisfiable": spread.when_unsatisfiable,
                "labelSelector": {"matchLabels": selector(parts.deployment, parts.hash)},
            }
            for spread in runtime.topology_spread
        ],
    }
    if gpu.node_terms:
        optional["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": list(gpu.node_terms)}]
                }
            }
        }
    spec |= {key: value for key, value in optional.items() if value}
    meta: dict[str, Any] = {
        "labels": {
            **runtime.pod_labels,
            **({QUEUE_LABEL: runtime.queue_name} if runtime.queue_name else {}),
            **labels(parts.deployment, parts.hash),
            SERVING_LABEL: "true",
        }
    }
    if runtime.pod_annotations:
        meta["annotations"] = dict(runtime.pod_annotations)
    return {"metadata": meta, "spec": spec}


def pod_access(parts: Parts, tolerations: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Who a pod is, whence its images come and which nodes let it in; what is empty is left out.

    Args:
        parts: of the pod.
        tolerations: besides those of spec and profile.
    """
    runtime, profile = parts.runtime, parts.profile
    found = [
        *(_toleration(t) for t in (*runtime.tolerations, *profile.tolerations)),
        *tolerations,
    ]
    pull_secrets = dict.fromkeys((*runtime.image_pull_secrets, *profile.image_pull_secrets))
    optional = {
        "serviceAccountName": runtime.service_account_name,
        "tolerations": [t for i, t in enumerate(found) if t not in found[:i]],
        "imagePullSecrets": [{"name": name} for name in pull_secrets],
    }
    return {key: value for key, value in optional.items() if value}


def _init_containers(parts: Parts) -> list[dict[str, Any]]:
    containers = []
    if parts.scheme == "image":
        path = parts.model.source.uri.partition("://")[2]
        containers.append(
            {
                "name": COPY_MODEL,
                "image": parts.triton_image,
                "imagePullPolicy": "IfNotPresent",
                # The path is data, never code: it is the script's first argument.
                "command": ["bash", "-c", _COPY, "bash", path],
                "securityContext": dict(_CONTAINER_SECURITY),
                "resources": _FETCH_RESOURCES,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [{"name": "source", "mountPath": "/source"}],
            }
        )
    containers.append(fetch_container(parts))
    if parts.sidecar:
        containers.append(_envoy(parts))
    return containers


def fetch_container(parts: Parts) -> dict[str, Any]:
    """The container that fetches the model."""
    mounts: list[dict[str, Any]] = [
        {"name": "models", "mountPath": triton.REPOSITORY_PATH},
        {"name": "tmp", "mountPath": "/tmp", "subPath": FETCH},
        {"name": "fetch-config", "mountPath": "/etc/tidegate/fetch", "readOnly": True},
        {"name": "pin", "mountPath": "/etc/tidegate/pin", "readOnly": True},
    ]
    if source_folder(parts.scheme):
        mounts.append({"name": "source", "mountPath": "/source", "readOnly": True})
    if parts.model.source.secret_name:
        mounts.append(
            {"name": "credentials", "mountPath": "/etc/tidegate/credentials", "readOnly": True}
        )
    if parts.runtime.cache:
        mounts.append({"name": "cache", "mountPath": "/cache"})
    if parts.golden:
        mounts.append({"name": "golden", "mountPath": "/etc/tidegate/golden", "readOnly": True})
    env = [{"name": key, "value": value} for key, value in sorted(parts.profile.proxy.items())]
    if parts.profile.ca_bundle_config_map:
        mounts.append({"name": "ca", "mountPath": "/etc/tidegate/ca", "readOnly": True})
        env += [
            {"name": key, "value": _CA_FILE}
            for key in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
        ]
    container = {
        "name": FETCH,
        "image": parts.platform.images.fetch,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": dict(_CONTAINER_SECURITY),
        "resources": _FETCH_RESOURCES,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }
    return container | ({"env": env} if env else {})


def _envoy(parts: Parts) -> dict[str, Any]:
    return {
        "name": ENVOY,
        "image": parts.platform.images.envoy,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["envoy"],
        "args": envoy.envoy_args(),
        "ports": [
            {"name": "serving", "containerPort": sidecar.SERVING_PORT, "protocol": "TCP"},
            {"name": "mirror", "containerPort": sidecar.MIRROR_PORT, "protocol": "TCP"},
            {"name": "internal", "containerPort": sidecar.INTERNAL_PORT, "protocol": "TCP"},
        ],
        "startupProbe": drain.sidecar_startup_probe(),
        "livenessProbe": drain.sidecar_liveness_probe(),
        "securityContext": dict(_CONTAINER_SECURITY),
        "resources": _ENVOY_RESOURCES,
        "volumeMounts": [
            {"name": "sidecar-config", "mountPath": "/etc/tidegate/sidecar", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp", "subPath": ENVOY},
            {"name": "tmp", "mountPath": sidecar.DRAIN_FOLDER, "subPath": DRAIN},
        ],
    }


def _triton(
    parts: Parts, gpu_limits: dict[str, str], claims: list[dict[str, Any]]
) -> dict[str, Any]:
    runtime, platform = parts.runtime, parts.platform
    wanted = runtime.resources
    requests = {
        "cpu": canonical_quantity(wanted.cpu),
        "memory": canonical_quantity(wanted.memory),
    }
    limits = {"memory": requests["memory"], **gpu_limits}
    if wanted.cpu_limit is not None:
        limits["cpu"] = canonical_quantity(wanted.cpu_limit)
    if wanted.ephemeral_storage is not None:
        requests["ephemeral-storage"] = canonical_quantity(wanted.ephemeral_storage)
        limits["ephemeral-storage"] = requests["ephemeral-storage"]
    resources: dict[str, Any] = {"requests": requests, "limits": limits}
    if claims:
        resources["claims"] = claims
    env = {e.name: e.value for e in (*parts.profile.env, *runtime.env)}
    argv = triton.triton_args(
        exit_timeout_s=platform.exit_timeout_seconds,
        gpu=runtime.gpu.count > 0,
        restricted_key=None if parts.sidecar else restricted_key(parts.hash),
        response_cache=uses_response_cache(parts.model, model_name=parts.model_name),
    )
    container: dict[str, Any] = {
        "name": TRITON,
        "image": parts.triton_image,
        "imagePullPolicy": "IfNotPresent",
        "command": argv[:1],
        "args": argv[1:],
        "startupProbe": drain.startup_probe(sidecar=parts.sidecar),
        "readinessProbe": drain.readiness_probe(sidecar=parts.sidecar),
        "livenessProbe": drain.liveness_probe(sidecar=parts.sidecar),
        "lifecycle": _lifecycle(parts),
        "securityContext": dict(_CONTAINER_SECURITY),
        "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "models", "mountPath": triton.REPOSITORY_PATH, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp", "subPath": TRITON},
        ],
    }
    if parts.sidecar:
        container["volumeMounts"].append(
            {"name": "tmp", "mountPath": sidecar.DRAIN_FOLDER, "subPath": DRAIN}
        )
    if env:
        container["env"] = [{"name": k, "value": v} for k, v in env.items()]
    if not parts.sidecar:
        container["ports"] = [
            {"name": "http", "containerPort": sidecar.TRITON_HTTP_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": sidecar.TRITON_GRPC_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": sidecar.TRITON_METRICS_PORT, "protocol": "TCP"},
        ]
    return container


def _lifecycle(parts: Parts) -> dict[str, Any]:
    spread_s = parts.platform.pre_stop_seconds
    pre_stop = drain.pre_stop_command(spread_s=spread_s, sidecar=parts.sidecar)
    hooks = {"preStop": {"exec": {"command": pre_stop}}}
    if parts.sidecar:
        hooks["postStart"] = {"exec": {"command": drain.post_start_command()}}
    return hooks


def pod_volumes(parts: Parts) -> list[dict[str, Any]]:
    """The volumes of a model pod."""
    volumes: list[dict[str, Any]] = [
        {"name": "models", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {
            "name": "shm",
            "emptyDir": {
                "medium": "Memory",
                "sizeLimit": canonical_quantity(parts.runtime.shared_memory),
            },
        },
        {"name": "fetch-config", "configMap": _items(parts.name, FETCH_FILES)},
        # Made once the first fetch has told the digest; a pod that starts later is held to it.
        {"name": "pin", "configMap": {"name": parts.pin_name, "optional": True}},
    ]
    if parts.sidecar:
        volumes.append({"name": "sidecar-config", "configMap": _items(parts.name, (ENVOY_FILE,))})
    if parts.scheme == "pvc":
        claim = parts.model.source.uri.partition("://")[2].partition("/")[0]
        volumes.append(
            {"name": "source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        )
    elif parts.scheme == "image":
        volumes.append({"name": "source", "emptyDir": {}})
    if parts.model.source.secret_name:
        volumes.append(
            {"name": "credentials", "secret": {"secretName": parts.model.source.secret_name}}
        )
    if parts.runtime.cache:
        volumes.append(
            {
                "name": "cache",
                "persistentVolumeClaim": {"claimName": parts.runtime.cache.claim_name},
            }
        )
    if parts.golden:
        # Optional: what is there when a pod starts is taken, and nothing waits for it.
        volumes.append({"name": "golden", "configMap": {"name": parts.golden, "optional": True}})
    if parts.profile.ca_bundle_config_map:
        volumes.append({"name": "ca", "configMap": {"name": parts.profile.ca_bundle_config_map}})
    return volumes


def _items(name: str, files: tuple[str, ...]) -> dict[str, Any]:
    return {"name": name, "items": [{"key": file, "path": file} for file in files]}


def _toleration(toleration: Toleration) -> dict[str, Any]:
    return toleration.model_dump(by_alias=True, exclude_none=True)
