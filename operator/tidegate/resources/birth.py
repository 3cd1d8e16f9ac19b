"""What a revision becomes, resolved once: its Deployment, ConfigMap, Service, claim template."""

import json
from typing import Any

from tidegate.api.spec import Spec
from tidegate.api.units import duration_ms
from tidegate.resources import envoy
from tidegate.resources.gpu import claim_template_spec
from tidegate.resources.meta import labels, selector
from tidegate.resources.pod import ENVOY_FILE, QUEUE_LABEL, Parts, pod_template, source_folder
from tidegate.resources.services import revision_service
from tidegate.resources.triton_config import override_pbtxt, tuning_pbtxt


def manifests(spec: Spec, parts: Parts) -> tuple[dict[str, Any], ...]:
    """The manifests of a new revision, without namespace and owner.

    The Deployment says ``replicas: 0``: who applies it first never starts pods; scaling does.

    Raises:
        ValueError: the override is no ModelConfig; the text names field, value and mend.
    """
    found = [
        _config_map(spec, parts),
        _deployment(parts),
        revision_service(parts.deployment, parts.name, parts.hash, sidecar=parts.sidecar),
    ]
    gpu = parts.runtime.gpu
    if gpu.count > 0 and gpu.dra is not None:
        found.append(
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaimTemplate",
                "metadata": _metadata(parts),
                "spec": claim_template_spec(gpu.dra, gpu.count),
            }
        )
    return tuple(found)


def _metadata(parts: Parts) -> dict[str, Any]:
    return {"name": parts.name, "labels": labels(parts.deployment, parts.hash)}


def _config_map(spec: Spec, parts: Parts) -> dict[str, Any]:
    data = {
        "fetch.json": json.dumps(_verified_request(parts), sort_keys=True, indent=1) + "\n",
        "model.pbtxt": tuning_pbtxt(parts.model, gpu_count=parts.runtime.gpu.count),
        "override.pbtxt": override_pbtxt(parts.model.config.override, model_name=parts.model_name),
    }
    if parts.sidecar:
        latency, overload = spec.slo.latency, spec.traffic.overload
        data[ENVOY_FILE] = envoy.envoy_file(
            None if latency is None else duration_ms(latency.target),
            None if overload is None else overload.max_pending,
            None if overload is None else overload.reserved,
            parts.hash,
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(parts),
        "immutable": True,
        "data": data,
    }


def fetch_request(parts: Parts) -> dict[str, Any]:
    """What the fetch container is asked for (`tidegate.fetch.request.FetchRequest`)."""
    source = parts.model.source
    return {
        "uri": source.uri,
        "sha256": source.sha256,
        "endpoint": source.endpoint or parts.profile.endpoint,
        "region": source.region or parts.profile.region,
        "modelName": parts.model_name,
        "backend": parts.model.backend,
        "target": "/models",
        "source": source_folder(parts.scheme),
        "cache": "/cache" if parts.runtime.cache else None,
        "policy": parts.platform.fetch.model_dump(mode="json", by_alias=True, exclude={"verify"}),
    }


def _verified_request(parts: Parts) -> dict[str, Any]:
    """The same, with what the platform asks of this model's signature now."""
    verify = parts.platform.fetch.verified(parts.namespace, parts.model.source.uri)
    asked = {} if verify is None else {"verify": verify.model_dump(mode="json", by_alias=True)}
    return fetch_request(parts) | asked


def _deployment(parts: Parts) -> dict[str, Any]:
    metadata = _metadata(parts)
    if parts.runtime.queue_name:
        metadata["labels"] = {**metadata["labels"], QUEUE_LABEL: parts.runtime.queue_name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 0,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": selector(parts.deployment, parts.hash)},
            # The template never changes; this is for a restart by hand: a new pod first.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": pod_template(parts),
        },
    }
