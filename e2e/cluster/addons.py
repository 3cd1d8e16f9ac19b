"""What runs inside the cluster from the start: S3, Prometheus, Envoy Gateway; and how charts go in.

Everything is applied server-side or by Helm, so doing it twice changes nothing.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template

from e2e.cluster import gobuild, images, paths
from e2e.cluster.kube import KubeClient, documents, has_condition, rolled_out, wait_for
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

GATEWAY_NAMESPACE = "envoy-gateway-system"
GATEWAY_MODULE = "github.com/envoyproxy/gateway"
ROLLOUT_SECONDS = 180.0
OPERATOR_NAMESPACE = "tidegate-system"
CHART = paths.REPOSITORY / "helm" / "tidegate"


class HelmFailed(RuntimeError):
    """Helm refused; the message holds its own words."""


def manifest(name: str, settings: Settings) -> str:
    """Return a manifest of this package with its blanks filled in."""
    text = (Path(__file__).parent / "manifests" / f"{name}.yaml").read_text()
    return Template(text).substitute(
        namespace=settings.infra_namespace,
        s3_address=settings.s3_address,
        s3_access_key=settings.s3_access_key,
        s3_secret_key=settings.s3_secret_key,
        prometheus_address=settings.prometheus_address,
        seaweedfs_image=images.SEAWEEDFS,
        prometheus_image=images.PROMETHEUS,
        envoy_image=images.ENVOY,
    )


def await_rollout(
    client: KubeClient, name: str, namespace: str, *, timeout_seconds: float = ROLLOUT_SECONDS
) -> None:
    """Wait until a Deployment is available in its newest form.

    Raises:
        NotReached: naming its pods and what they wait for.
    """

    def done() -> bool:
        item = client.get("apps/v1", "Deployment", name, namespace)
        return item is not None and rolled_out(item)

    wait_for(
        done,
        f"deployment {namespace}/{name} available",
        timeout_seconds=timeout_seconds,
        state=lambda: describe_pods(client, namespace),
    )


def describe_pods(client: KubeClient, namespace: str) -> str:
    """Return one line a pod with phase and the reasons of waiting or ended containers."""
    lines = []
    for pod in client.list("v1", "Pod", namespace):
        status = pod.get("status", {})
        reasons = []
        for kind in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(kind, []):
                for state in ("waiting", "terminated"):
                    detail = container.get("state", {}).get(state)
                    if detail and detail.get("reason") != "Completed":
                        reasons.append(
                            f"{container['name']} {detail.get('reason', state)}"
                            f" {detail.get('message', '')}".strip()
                        )
        reasons += [
            condition.get("message", "")
            for condition in status.get("conditions", [])
            if condition["type"] == "PodScheduled" and condition["status"] == "False"
        ]
        lines.append(f"{pod['metadata']['name']} {status.get('phase')} {'; '.join(reasons)}")
    return "\n".join(lines) or f"no pods in {namespace}"


def install_infra(settings: Settings, client: KubeClient) -> None:
    """Apply the S3 server and Prometheus and wait for both."""
    client.apply_all(documents(manifest("infra", settings)))
    for name in ("s3", "prometheus"):
        await_rollout(client, name, settings.infra_namespace)


def helm(settings: Settings, progress: Progress, arguments: Sequence[str]) -> str:
    """Run Helm against the cluster and return what it printed.

    Raises:
        HelmFailed: with the end of its output.
    """
    folder = settings.state / "helm"
    done = subprocess.run(
        [str(gobuild.build("helm", progress)), *arguments],
        env={
            **os.environ,
            "KUBECONFIG": str(settings.kubeconfig),
            "HELM_CACHE_HOME": str(folder / "cache"),
            "HELM_CONFIG_HOME": str(folder / "config"),
            "HELM_DATA_HOME": str(folder / "data"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HelmFailed(f"helm {' '.join(arguments)}:\n{done.stdout[-1000:]}{done.stderr[-4000:]}")
    return done.stdout


def install_chart(
    settings: Settings,
    progress: Progress,
    *,
    values: Mapping[str, str] | None = None,
    chart: Path = CHART,
    release: str = "tidegate",
    namespace: str = OPERATOR_NAMESPACE,
    wait: bool = True,
) -> str:
    """Install or upgrade the operator's chart and return Helm's output.

    With no `values` it runs with the chart's defaults: the node holds images of those names. With
    `wait` Helm waits until all of it is ready.

    Raises:
        HelmFailed: with Helm's own words.
    """
    arguments = ["upgrade", "--install", release, str(chart), "--namespace", namespace]
    arguments += ["--create-namespace", "--timeout", "180s", *(["--wait"] if wait else [])]
    for name, value in (values or {}).items():
        arguments += ["--set", f"{name}={value}"]
    with progress.step(f"helm upgrade --install {release}"):
        return helm(settings, progress, arguments)


def gateway_chart(target: Path) -> Path:
    """Copy Envoy Gateway's own chart out of its Go module and fill in its image."""
    source = gobuild.module_folder("envoy-gateway", GATEWAY_MODULE) / "charts" / "gateway-helm"
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    values = (target / "values.tmpl.yaml").read_text()
    filled = Template(values).safe_substitute(
        GatewayImage=images.ENVOY_GATEWAY, GatewayImagePullPolicy="IfNotPresent"
    )
    (target / "values.yaml").write_text(filled)
    return target


def install_gateway(settings: Settings, client: KubeClient, progress: Progress) -> None:
    """Install Envoy Gateway by its own chart, then a class and a Gateway, and wait for both."""
    shutdown = "config.envoyGateway.provider.kubernetes.shutdownManager.image"
    with tempfile.TemporaryDirectory() as folder:
        chart = gateway_chart(Path(folder) / "gateway-helm")
        arguments = ["upgrade", "--install", "eg", str(chart)]
        arguments += ["--namespace", GATEWAY_NAMESPACE, "--create-namespace", "--timeout", "180s"]
        arguments += ["--set", f"{shutdown}={images.ENVOY_GATEWAY}"]
        helm(settings, progress, arguments)
    await_rollout(client, "envoy-gateway", GATEWAY_NAMESPACE)
    client.apply_all(documents(manifest("gateway", settings)))
    wait_for(
        _programmed(client, settings.infra_namespace),
        "Gateway public programmed",
        timeout_seconds=ROLLOUT_SECONDS,
        state=lambda: describe_pods(client, GATEWAY_NAMESPACE),
    )


def _programmed(client: KubeClient, namespace: str) -> Callable[[], bool]:
    def probe() -> bool:
        item = client.get("gateway.networking.k8s.io/v1", "Gateway", "public", namespace)
        return item is not None and has_condition(item, "Programmed")

    return probe
