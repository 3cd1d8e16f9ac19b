"""What one embedded cluster is made of: its folders, addresses, ports and GPUs."""

from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import paths
from e2e.cluster.network import Network


@dataclass(frozen=True)
class Gpus:
    """The pretend GPUs of the node and the labels that GPU feature discovery would set."""

    resource: str = "nvidia.com/gpu"
    count: int = 4
    product: str = "NVIDIA-L4"
    memory_mib: int = 23034

    def labels(self) -> dict[str, str]:
        """Return the node labels, as the vendor's feature discovery writes them for an L4."""
        return {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": self.product,
            "nvidia.com/gpu.count": str(self.count),
            "nvidia.com/gpu.memory": str(self.memory_mib),
            "nvidia.com/gpu.family": "ada-lovelace",
            "nvidia.com/gpu.compute.major": "8",
            "nvidia.com/gpu.compute.minor": "9",
            "nvidia.com/gpu.replicas": "1",
            "nvidia.com/gpu.sharing-strategy": "none",
            "nvidia.com/mig.capable": "false",
            "nvidia.com/cuda.driver.major": "550",
        }


@dataclass(frozen=True)
class Settings:
    """One cluster. Every address below is the node's own; nothing listens elsewhere."""

    state: Path = paths.STATE
    node: str = "node-1"
    network: Network = field(default_factory=Network)
    gpus: Gpus = field(default_factory=Gpus)
    api_port: int = 6443
    etcd_port: int = 12379
    etcd_peer_port: int = 12380
    controller_manager_port: int = 10257
    scheduler_port: int = 10259
    kubelet_port: int = 10250
    kubelet_health_port: int = 10248
    proxy_health_port: int = 10256
    proxy_metrics_port: int = 10249
    dns_port: int = 53
    infra_namespace: str = "tidegate-e2e-infra"
    s3_address: str = "10.96.0.30"
    s3_access_key: str = "tidegate"
    s3_secret_key: str = "tidegate-e2e-only"
    prometheus_address: str = "10.96.0.31"

    @property
    def owner(self) -> str:
        """The mark in the environment of every process of this cluster."""
        return str(self.state)

    @property
    def s3_endpoint(self) -> str:
        """The S3 server, from the host and from pods alike."""
        return f"http://{self.s3_address}:8333"

    @property
    def prometheus_url(self) -> str:
        """Prometheus, from the host and from pods alike."""
        return f"http://{self.prometheus_address}:9090"

    @property
    def kubeconfig(self) -> Path:
        """Credentials of the administrator."""
        return self.state / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, for e2e.cluster.audit."""
        return self.state / "audit.log"

    @property
    def containerd_socket(self) -> Path:
        """For ctr and kubelet."""
        return self.state / "containerd.sock"

    @property
    def unhealthy_gpus(self) -> Path:
        """Write device ids into this file and the device plugin reports them broken."""
        return self.state / "unhealthy-gpus"

    def ports(self) -> dict[tuple[str, int], str]:
        """Return every (address, port) this cluster listens on, and which part does."""
        node, local = self.network.address, "127.0.0.1"
        return {
            (node, self.api_port): "kube-apiserver",
            (local, self.etcd_port): "etcd",
            (local, self.etcd_peer_port): "etcd",
            (local, self.controller_manager_port): "kube-controller-manager",
            (local, self.scheduler_port): "kube-scheduler",
            (node, self.kubelet_port): "kubelet",
            (local, self.kubelet_health_port): "kubelet",
            (node, self.proxy_health_port): "kube-proxy",
            (local, self.proxy_metrics_port): "kube-proxy",
            (node, self.dns_port): "coredns",
        }
