"""The names that users, tools and other controllers see: group, kind, labels, annotations."""

from typing import Final

GROUP: Final = "tidegate.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ModelDeployment"
PLURAL: Final = "modeldeployments"
SINGULAR: Final = "modeldeployment"
SHORT_NAME: Final = "mdep"
CATEGORY: Final = "tidegate"

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "tidegate"
DEPLOYMENT_LABEL: Final = f"{GROUP}/deployment"
REVISION_LABEL: Final = f"{GROUP}/revision"
SERVING_LABEL: Final = f"{GROUP}/serving"
"""On pods, outside every selector of a Deployment: taking it off removes a pod from traffic."""

DIGEST_ANNOTATION: Final = f"{GROUP}/source-digest"
"""On a ControllerRevision: the digest of the model's bytes, as its first fetch reported it."""
SOURCE_VERSION_ANNOTATION: Final = f"{GROUP}/source-version"
"""On a ControllerRevision: the version that the source had when the bytes were fetched."""
SOURCE_ADDRESS_ANNOTATION: Final = f"{GROUP}/source-address"
"""On a ControllerRevision: where those bytes stay, though the spec's address may move on."""
SOURCE_LABEL: Final = f"{GROUP}/source-of"
"""On pods that look at a model's source: the ModelDeployment's name."""
SOURCE_ANNOTATION: Final = f"{GROUP}/source"
"""On the same pods: which source they look at, as a hash."""
LIVE_SINCE_ANNOTATION: Final = f"{GROUP}/live-since"
"""On a ControllerRevision: when the revision first served, RFC 3339."""
FAILED_ANNOTATION: Final = f"{GROUP}/failed"
"""On a ControllerRevision: why the revision gets no traffic again by itself, as JSON."""
DECISION_ANNOTATION: Final = f"{GROUP}/decision"
"""On the HTTPRoute, without a gateway on the entry Service: the decision in force, as JSON."""
REQUEST_ANNOTATION: Final = f"{GROUP}/request"
"""On a ModelDeployment: a verb, ``<id>/<verb>/<revision>/<user>``."""
DELETION_COST_ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
"""Kubernetes' own: of several pods, the one with the lowest cost is deleted first."""

CHILDREN_MANAGER: Final = "tidegate"
SCALE_MANAGER: Final = "tidegate-scale"
STATUS_MANAGER: Final = "tidegate-status"

MAX_NAME_LENGTH: Final = 40
REVISION_HASH_LENGTH: Final = 10
