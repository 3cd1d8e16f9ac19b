"""The chart with the images of this tree, with the values that tests and benches want."""

from collections.abc import Mapping
from typing import Final

from e2e.cluster import addons, images, lifecycle, node_images
from e2e.cluster.kube import KubeClient, KubeError, Object, has_condition, wait_for
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
OF_THE_CHART: Final = "app.kubernetes.io/instance=tidegate"
"""Selects its Deployments and their pods."""
RESTARTS: Final = 2
"""So often a container may end before it is given up: once may be a dependency that comes late."""
LAST_LINES: Final = 30


class PodCrashes(RuntimeError):
    """A pod of the chart's newest form ends again and again; the message holds its last lines."""


def operator_pods(kube: KubeClient) -> list[Object]:
    """The operator's pods that are not on their way out."""
    return _staying(kube, "app.kubernetes.io/component=operator")


def install(cluster: KubeClient, progress: Progress) -> None:
    """Install the chart, or bring what is installed to what the tree holds today.

    Raises:
        HelmFailed: with Helm's own words.
        PodCrashes: with the last lines of today's pod.
        NotReached: today's pods do not become ready.
    """
    with lifecycle.exclusive(SETTINGS, progress):
        changed = node_images.bring_in(SETTINGS, [images.OPERATOR, images.FETCH], progress)
        bring_up(
            cluster, SETTINGS, progress, values=CHART_VALUES, renewed=images.OPERATOR in changed
        )


def bring_up(
    cluster: KubeClient,
    settings: Settings,
    progress: Progress,
    *,
    values: Mapping[str, str],
    renewed: bool,
) -> None:
    """Install or upgrade the chart, and wait until its pods are those of today, and ready.

    Args:
        cluster: its client.
        settings: of the cluster.
        progress: is told.
        values: of the chart.
        renewed: the operator's image has another content under the same name, for which no
            Deployment sees a reason to restart.

    Raises:
        HelmFailed: with Helm's own words.
        PodCrashes: with the last lines of today's pod.
        NotReached: today's pods do not become ready.
    """
    before = {pod["metadata"]["uid"] for pod in _staying(cluster, OF_THE_CHART)}
    # Helm's own waiting says nothing of why, and old pods that crash would outlast it: a kubelet
    # starts them again only minutes later, whatever image there is by then.
    addons.install_chart(settings, progress, values=values, wait=False)
    for pod in _staying(cluster, OF_THE_CHART):
        if pod["metadata"]["uid"] in before and (renewed or crashing(pod)):
            cluster.delete("v1", "Pod", pod["metadata"]["name"], addons.OPERATOR_NAMESPACE)
    wait_for(
        lambda: _all_run(cluster),
        "the chart's pods ready",
        timeout_seconds=addons.ROLLOUT_SECONDS,
        state=lambda: addons.describe_pods(cluster, addons.OPERATOR_NAMESPACE),
    )


def crashing(pod: Object) -> str:
    """The container that ends again and again, and waits to be started once more; empty: none."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        reason = ((status.get("state") or {}).get("waiting") or {}).get("reason")
        if reason == "CrashLoopBackOff" and status["restartCount"] >= RESTARTS:
            return str(status["name"])
    return ""


def _staying(kube: KubeClient, selector: str) -> list[Object]:
    """Pods of the operator's namespace that are not on their way out."""
    found = kube.list("v1", "Pod", addons.OPERATOR_NAMESPACE, selector)
    return [p for p in found if "deletionTimestamp" not in p["metadata"]]


def _all_run(kube: KubeClient) -> bool:
    """Whether all of the chart's Deployments have their pods of the newest form, and ready.

    Raises:
        PodCrashes: such a pod ends again and again.
    """
    deployments = kube.list("apps/v1", "Deployment", addons.OPERATOR_NAMESPACE, OF_THE_CHART)
    return bool(deployments) and all([_runs(kube, each) for each in deployments])


def _runs(kube: KubeClient, deployment: Object) -> bool:
    pods = _newest(kube, deployment)
    for pod in pods:
        if container := crashing(pod):
            name = pod["metadata"]["name"]
            raise PodCrashes(f"{name}: {container} crashes:\n{_last_lines(kube, name, container)}")
    ready = sum(has_condition(pod, "Ready") for pod in pods)
    return ready >= int(deployment["spec"].get("replicas", 1))


def _newest(kube: KubeClient, deployment: Object) -> list[Object]:
    """The pods of a Deployment's newest template; none before its controller has seen that."""
    meta = deployment["metadata"]
    if (deployment.get("status") or {}).get("observedGeneration", 0) < meta["generation"]:
        return []
    revision = "deployment.kubernetes.io/revision"
    newest = [
        item["metadata"]["uid"]
        for item in kube.list("apps/v1", "ReplicaSet", addons.OPERATOR_NAMESPACE, OF_THE_CHART)
        if _owned_by(item, [meta["uid"]])
        and _annotation(item, revision) == _annotation(deployment, revision)
    ]
    return [pod for pod in _staying(kube, OF_THE_CHART) if _owned_by(pod, newest)]


def _owned_by(item: Object, uids: list[str]) -> bool:
    return any(o["uid"] in uids for o in item["metadata"].get("ownerReferences") or ())


def _annotation(item: Object, name: str) -> str | None:
    return (item["metadata"].get("annotations") or {}).get(name)


def _last_lines(kube: KubeClient, pod: str, container: str) -> str:
    """Of the container that ended, or why they are not to be had."""
    path = f"{kube.path('v1', 'Pod', addons.OPERATOR_NAMESPACE, pod)}/log"
    asked = {"container": container, "tailLines": str(LAST_LINES), "previous": "true"}
    try:
        return kube.text(path, asked)
    except KubeError as error:
        return f"its log is not to be read: {error}"
