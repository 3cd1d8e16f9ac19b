"""The way to the dashboard: a port-forward of kubectl's to its Service."""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from tidegate.cli.client import ApiError, Client
from tidegate.cli.trouble import Trouble

NAMESPACE: Final = "tidegate-system"
"""Where the chart is usually installed."""
NAME: Final = "tidegate-dashboard"
LABELS: Final = {
    "app.kubernetes.io/part-of": "tidegate",
    "app.kubernetes.io/component": "dashboard",
}


@dataclass(frozen=True)
class Door:
    """The dashboard's Service.

    Attributes:
        namespace: its own.
        name: its own.
        scheme: http or https.
    """

    namespace: str
    name: str = NAME
    scheme: str = "http"

    def command(self, port: int, *, context: str | None, kubeconfig: str | None) -> list[str]:
        """What opens it on this machine.

        Args:
            port: of this machine.
            context: of the kubeconfig; None: its current one.
            kubeconfig: file; None: kubectl finds its own.
        """
        where = ["--kubeconfig", kubeconfig] if kubeconfig else []
        where += ["--context", context] if context else []
        there = f"{port}:{self.scheme}"
        return ["kubectl", *where, "-n", self.namespace, "port-forward", f"svc/{self.name}", there]

    def address(self, port: int) -> str:
        """Where it answers then."""
        return f"{self.scheme}://127.0.0.1:{port}/"


def door(services: Iterable[dict[str, Any]], namespace: str) -> Door:
    """The dashboard among the Services that have its labels.

    Raises:
        Trouble: there is none.
    """
    for service in services:
        [port, *_] = service["spec"]["ports"]
        return Door(namespace, service["metadata"]["name"], port["name"])
    raise Trouble(
        f"no dashboard in namespace {namespace}",
        "name the chart's namespace with -n, or switch it on: "
        f"helm upgrade tidegate helm/tidegate -n {namespace} --reuse-values "
        "--set dashboard.enabled=true",
    )


def find(client: Client, namespace: str) -> Door:
    """The dashboard of an installation.

    Raises:
        Trouble: there is none, or no answer came.
    """
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/services"
    try:
        return door(client.list(path, labels=LABELS), namespace)
    except ApiError as error:
        if error.status != 403:
            raise
        return Door(namespace)  # under the name that it usually has


def forward(command: list[str]) -> int:
    """Run it until Ctrl-C. Returns its exit status.

    Raises:
        Trouble: there is no kubectl.
    """
    if shutil.which(command[0]) is None:
        raise Trouble("kubectl is not installed", f"elsewhere: {' '.join(command)}")
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0
