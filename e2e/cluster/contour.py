"""Contour: a second implementation of Gateway API, beside Envoy Gateway, while a test needs it.

Contour and an Envoy of its own run as processes of this machine, which reaches pods as a node does.
Its CRDs (its own API, which it insists on) go in and out with it.
"""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from e2e.cluster import gobuild
from e2e.cluster.kube import KubeClient, Object, documents, has_condition, wait_for
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings
from e2e.native import parts
from e2e.native.processes import Process
from e2e.ports import free_ports

MODULE: Final = "github.com/projectcontour/contour"
CONTROLLER: Final = "projectcontour.io/gateway-controller"
CLASS: Final = "tidegate-e2e-contour"
NAME: Final = "contour"
"""Of the Gateway."""
GATEWAY_API: Final = "gateway.networking.k8s.io/v1"
START_SECONDS: Final = 60.0
PORT_SHIFT: Final = 8000
"""Contour lets Envoy listen this far above the Gateway's port."""


def crds() -> list[Object]:
    """Contour's own CustomResourceDefinitions."""
    folder = gobuild.module_folder("contour", MODULE)
    return documents((folder / "examples/contour/01-crds.yaml").read_text(encoding="utf-8"))


def _gateway(namespace: str, port: int) -> list[Object]:
    return [
        {
            "apiVersion": GATEWAY_API,
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": CONTROLLER},
        },
        {
            "apiVersion": GATEWAY_API,
            "kind": "Gateway",
            "metadata": {"name": NAME, "namespace": namespace},
            "spec": {
                "gatewayClassName": CLASS,
                "listeners": [
                    {
                        "name": "http",
                        "protocol": "HTTP",
                        "port": port,
                        "allowedRoutes": {"namespaces": {"from": "All"}},
                    }
                ],
            },
        },
    ]


@contextlib.contextmanager
def contour(settings: Settings, client: KubeClient, namespace: str) -> Iterator[str]:
    """Run it for the Gateway `NAME` of a namespace, which it makes; gives ``host:port``.

    Raises:
        NotReached: its Gateway is not programmed in time; the message holds its log.
        RuntimeError: it ended; the same.
    """
    program = str(gobuild.build("contour", Progress()))
    http, admin, xds, stats, health, metrics, debug = free_ports(7)
    definitions = crds()
    manifests = _gateway(namespace, http - PORT_SHIFT)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-contour-")))
        for item in (*definitions, *manifests):
            stack.callback(
                client.delete, item["apiVersion"], item["kind"], item["metadata"]["name"], namespace
            )
        client.apply_all([*definitions, *manifests])
        config = folder / "contour.yaml"
        config.write_text(
            f"gateway: {{gatewayRef: {{namespace: {namespace}, name: {NAME}}}}}\n"
            f"network: {{admin-port: {admin}}}\n"
        )
        ports = [
            *("--xds-address=127.0.0.1", f"--xds-port={xds}"),
            *("--stats-address=127.0.0.1", f"--stats-port={stats}"),
            *("--health-address=127.0.0.1", f"--health-port={health}"),
            *("--http-address=127.0.0.1", f"--http-port={metrics}"),
            *("--debug-http-address=127.0.0.1", f"--debug-http-port={debug}"),
        ]
        # Of these it wants versions that the cluster does not serve.
        unserved = ("tlsroutes", "tcproutes", "backendtlspolicies")
        without = [f"--disable-feature={kind}" for kind in unserved]
        serve = [program, "serve", "--insecure", "--disable-leader-election"]
        serve += [f"--kubeconfig={settings.kubeconfig}", f"--config-path={config}"]
        log = folder / "contour.log"
        server = stack.enter_context(_running([*serve, *ports, *without], log))
        bootstrap = folder / "envoy.json"
        subprocess.run(
            [
                *(program, "bootstrap", str(bootstrap), f"--namespace={namespace}"),
                *("--xds-address=127.0.0.1", f"--xds-port={xds}"),
                f"--admin-address={folder / 'admin.sock'}",
            ],
            check=True,
            capture_output=True,
        )
        envoy = [str(parts.envoy()), "--config-path", str(bootstrap), "--disable-hot-restart"]
        envoy += ["--service-cluster", namespace, "--service-node", NAME, "--concurrency", "1"]
        stack.enter_context(_running(envoy, folder / "envoy.log"))

        def programmed() -> bool:
            if server.popen.poll() is not None:
                raise RuntimeError(f"contour ended:\n{log.read_text(encoding='utf-8')[-3000:]}")
            item = client.get(GATEWAY_API, "Gateway", NAME, namespace)
            return item is not None and has_condition(item, "Programmed")

        wait_for(
            programmed,
            f"Gateway {namespace}/{NAME} programmed by Contour",
            timeout_seconds=START_SECONDS,
            state=lambda: log.read_text(encoding="utf-8")[-3000:],
        )
        yield f"127.0.0.1:{http}"


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[Process]:
    with log.open("wb") as sink:
        process = Process(subprocess.Popen(command, stdout=sink, stderr=sink), log)
    try:
        yield process
    finally:
        process.stop()
