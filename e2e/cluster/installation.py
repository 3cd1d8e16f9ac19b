"""The chart with the images of this tree, with the values that tests and benches want."""

from typing import Final

from e2e.cluster import addons, images, lifecycle, node_images
from e2e.cluster.kube import KubeClient, Object
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

SETTINGS: Final = Settings()
WEB_ADDRESS: Final = "10.96.0.77"
"""Cluster address of a web server of the tests; the chart lets a fetch connect to it."""
CA_PROFILE: Final = "private-ca"
"""Profile that trusts the CA in the ConfigMap of the same name."""
CHART_VALUES: Final[dict[str, str]] = {
    "fetch.allowPrivateAddresses": f"{{{SETTINGS.s3_address}/32,{WEB_ADDRESS}/32}}",
    f"profiles.{CA_PROFILE}.caBundleConfigMap": CA_PROFILE,
    "dashboard.enabled": "true",
}


def operator_pods(kube: KubeClient) -> list[Object]:
    """The operator's pods that are not on their way out."""
    found = kube.list(
        "v1", "Pod", addons.OPERATOR_NAMESPACE, "app.kubernetes.io/component=operator"
    )
    return [p for p in found if "deletionTimestamp" not in p["metadata"]]


def install(cluster: KubeClient, progress: Progress) -> None:
    """Install the chart, or bring what is installed to what the tree holds today."""
    with lifecycle.exclusive(SETTINGS, progress):
        changed = node_images.bring_in(SETTINGS, [images.OPERATOR, images.FETCH], progress)
        before = {pod["metadata"]["name"] for pod in operator_pods(cluster)}
        addons.install_chart(SETTINGS, progress, values=CHART_VALUES)
        if images.OPERATOR in changed:
            # The same name with another content: the Deployment sees no reason to restart.
            for name in before & {pod["metadata"]["name"] for pod in operator_pods(cluster)}:
                cluster.delete("v1", "Pod", name, addons.OPERATOR_NAMESPACE)
        addons.await_rollout(cluster, "tidegate-operator", addons.OPERATOR_NAMESPACE)
