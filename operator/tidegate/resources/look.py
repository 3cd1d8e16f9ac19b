"""The CronJob that looks at a model's source: is it still what it was?

Its pods are the only ones beside the model's that mount the source's Secret, and end within
seconds. They carry none of the labels by which model pods are selected. Made anew from the spec and
the platform's settings of today: no model pod depends on it.
"""

import hashlib
import json
from typing import Any, Final

from tidegate.api.names import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    SOURCE_ANNOTATION,
    SOURCE_LABEL,
)
from tidegate.api.spec import Spec
from tidegate.observed import Object
from tidegate.platform import Platform, Profile
from tidegate.resources.birth import fetch_request
from tidegate.resources.meta import metadata
from tidegate.resources.pod import POD_SECURITY, Parts, fetch_container, pod_access, pod_volumes

API_VERSION: Final = "batch/v1"
KIND: Final = "CronJob"
EVERY_MIN: Final = 5
"""Minutes between two looks; they are spread, so that a fleet does not look all at once."""
DEADLINE_S: Final = 120
_NEEDED: Final = frozenset({"tmp", "source", "credentials", "ca"})
_RESOURCES: Final = {
    "requests": {"cpu": "50m", "memory": "96Mi"},
    "limits": {"memory": "256Mi"},
}


def look_name(deployment: Object) -> str:
    """Name of the CronJob."""
    return f"{deployment['metadata']['name']}-source"


def source_key(spec: Spec) -> str:
    """Names what is looked at: looks at another address say nothing about this one."""
    source = spec.model.source.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"on_change"}
    )
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:10]


def look_job(
    deployment: Object, spec: Spec, platform: Platform, profile: Profile
) -> dict[str, Any]:
    """The CronJob."""
    name = deployment["metadata"]["name"]
    parts = Parts(
        deployment=name,
        hash="",
        name=look_name(deployment),
        pin_name="",
        model=spec.model,
        runtime=spec.runtime.model_copy(update={"cache": None}),
        profile=profile,
        platform=platform,
    )
    request = json.dumps(fetch_request(parts), sort_keys=True, separators=(",", ":"))
    container = fetch_container(parts)
    container |= {
        "args": ["--look", request],
        "resources": _RESOURCES,
        "volumeMounts": [m for m in container["volumeMounts"] if m["name"] in _NEEDED],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "containers": [container],
        "volumes": [v for v in pod_volumes(parts) if v["name"] in _NEEDED],
        **pod_access(parts),
    }
    labels = {MANAGED_BY_LABEL: MANAGED_BY, SOURCE_LABEL: name}
    template = {
        "metadata": {"labels": labels, "annotations": {SOURCE_ANNOTATION: source_key(spec)}},
        "spec": pod,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata(deployment, look_name(deployment)),
        "spec": {
            "schedule": f"{_first_minute(deployment)}-59/{EVERY_MIN} * * * *",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": EVERY_MIN * 60 - 60,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": DEADLINE_S,
                    "template": template,
                }
            },
        },
    }


def _first_minute(deployment: Object) -> int:
    name = f"{deployment['metadata'].get('namespace', '')}/{deployment['metadata']['name']}"
    return hashlib.sha256(name.encode()).digest()[0] % EVERY_MIN
