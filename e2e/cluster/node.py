"""The node's own parts: containerd, kubelet, kube-proxy, CoreDNS; their files and command lines.

All functions here are pure: settings in, text or command line out.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.cgroups import ROOT as CGROUP_ROOT
from e2e.cluster.images import PAUSE
from e2e.cluster.settings import Settings

DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
"""Compiled into kubelet (pluginapi.DevicePluginPath), whatever its root folder is."""


@dataclass(frozen=True)
class Part:
    """One native process of the node."""

    name: str
    command: tuple[str, ...]
    files: tuple[tuple[Path, str], ...] = ()
    """Written before it starts: (path, content)."""


def containerd(settings: Settings) -> Part:
    """Containerd with folders, socket and network of its own."""
    state = settings.state
    config = f"""\
version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{settings.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE no process may lower its OOM score, and every sandbox would fail.
  restrict_oom_score_adj = true
  # Network namespaces then lie below our own folder and are ours beyond doubt.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""
    path = state / "containerd.toml"
    network = settings.network.cni_config(state / "ipam")
    return Part(
        "containerd",
        ("containerd", "--config", str(path)),
        ((path, config), (state / "cni" / "10-bridge.conflist", network)),
    )


def kubelet(settings: Settings, binary: Path) -> Part:
    """Kubelet of the one node, in a cgroup root of its own."""
    state = settings.state
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": settings.network.address,
        "port": settings.kubelet_port,
        "healthzPort": settings.kubelet_health_port,
        "authentication": {
            "x509": {"clientCAFile": str(state / "pki" / "ca.crt")},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP_ROOT}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "failCgroupV1": False,
        "makeIPTablesUtilChains": False,
        "localStorageCapacityIsolation": False,
        "clusterDNS": [settings.network.address],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
        "tlsCertFile": str(state / "pki" / "node.crt"),
        "tlsPrivateKeyFile": str(state / "pki" / "node.key"),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "maxPods": 200,
        # Many small pods start at once in a test; the defaults would space them out.
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "10s",
        "syncFrequency": "10s",
        "volumeStatsAggPeriod": "0s",
        "shutdownGracePeriod": "0s",
        # A watch of each Secret costs a new pod seconds: it is refused until the API server's
        # authorizer has seen the pod on this node.
        "configMapAndSecretChangeDetectionStrategy": "Get",
        "podLogsDir": str(state / "pod-logs"),
        "resolvConf": "/etc/resolv.conf",
    }
    path = state / "kubelet.json"
    return Part(
        "kubelet",
        (
            str(binary),
            f"--config={path}",
            f"--kubeconfig={state / 'node.kubeconfig'}",
            f"--hostname-override={settings.node}",
            f"--node-ip={settings.network.address}",
            f"--root-dir={state / 'kubelet'}",
            "--v=1",
        ),
        ((path, json.dumps(config, indent=2)),),
    )


def kube_proxy(settings: Settings, binary: Path) -> Part:
    """kube-proxy by nftables; connection tracking limits stay as the machine has them."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(settings.state / "proxy.kubeconfig")},
        "mode": "nftables",
        "clusterCIDR": settings.network.pods,
        "hostnameOverride": settings.node,
        "healthzBindAddress": f"{settings.network.address}:{settings.proxy_health_port}",
        "metricsBindAddress": f"127.0.0.1:{settings.proxy_metrics_port}",
        "nodePortAddresses": [f"{settings.network.address}/32"],
        "conntrack": {"maxPerCore": 0, "min": 0},
        # The default waits a second between two changes, which every rollout would then show.
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }
    path = settings.state / "kube-proxy.json"
    return Part(
        "kube-proxy",
        (str(binary), f"--config={path}"),
        ((path, json.dumps(config, indent=2)),),
    )


def coredns(settings: Settings, binary: Path, *, forward: bool) -> Part:
    """CoreDNS on the node's address; names of elsewhere go to the machine's own servers."""
    lines = [
        f".:{settings.dns_port} {{",
        f"  bind {settings.network.address}",
        "  errors",
        "  cache 5",
        "  kubernetes cluster.local in-addr.arpa {",
        f"    kubeconfig {settings.kubeconfig}",
        "  }",
        *(["  forward . /etc/resolv.conf"] if forward else []),
        "}",
    ]
    path = settings.state / "Corefile"
    return Part("coredns", (str(binary), "-conf", str(path)), ((path, "\n".join(lines) + "\n"),))


def device_plugin(settings: Settings, binary: Path) -> Part:
    """The plugin that hands out the pretend GPUs."""
    return Part(
        "deviceplugin",
        (
            str(binary),
            "-resource",
            settings.gpus.resource,
            "-count",
            str(settings.gpus.count),
            "-dir",
            str(DEVICE_PLUGINS),
            "-unhealthy",
            str(settings.unhealthy_gpus),
        ),
    )


def scheduler(settings: Settings, binary: Path) -> Part:
    """kube-scheduler, alone and thus without an election."""
    return Part(
        "kube-scheduler",
        (
            str(binary),
            f"--kubeconfig={settings.state / 'scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={settings.scheduler_port}",
        ),
    )
