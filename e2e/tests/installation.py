"""The chart with the images of this tree, as the end-to-end tests want it."""

from typing import Final

from e2e.cluster import addons, images, lifecycle, node_images
from e2e.cluster.kube import KubeClient
from e2e.cluster.progress import Progress
from e2e.tests.space import CA_PROFILE, SETTINGS, WEB_ADDRESS, operator_pods

CHART_VALUES: Final[dict[str, str]] = {
    "fetch.allowPrivateAddresses": f"{{{SETTINGS.s3_address}/32,{WEB_ADDRESS}/32}}",
    f"profiles.{CA_PROFILE}.caBundleConfigMap": CA_PROFILE,
    "dashboard.enabled": "true",
}


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
