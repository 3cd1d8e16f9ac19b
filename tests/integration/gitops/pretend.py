"""What nobody plays where there is a control plane and nothing else: kubelet, gateway, sidecars.

Pods become Ready at once, every route is accepted, and the weights of an HTTPRoute lead a steady
load to the counters that the operator reads from sidecars. The revisions of sources in `bad`
answer 500.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx

from e2e.cluster.kube import KubeClient, KubeError, Object
from tests.unit.measurement.pages import Cluster, page
from tidegate.api.names import DEPLOYMENT_LABEL, REVISION_LABEL
from tidegate.resources.route import shares_of
from tidegate.resources.sidecar import INTERNAL_PORT

TICK_S: Final = 0.2
RATE_HZ: Final = 300.0
"""Requests to each ModelDeployment."""
TOOK_MS: Final = 12
DIGEST: Final = "sha256:" + "ab" * 32
GATEWAY: Final = "gateway.networking.k8s.io/v1"


class Steady(Cluster):
    """Counters of requests that all took `TOOK_MS`."""

    def samples(self, name: str, edges_ms: Iterable[int]) -> Iterator[tuple[str, str, str]]:
        """As of one request, times their number: thousands need not be kept."""
        answered = sum(self.by_status.values())
        for metric, labels, value in super().samples(name, edges_ms):
            timed = metric.startswith("envoy_cluster_upstream_rq_time_")
            yield metric, labels, str(round(float(value)) * answered) if timed else value


@dataclass
class Sidecar:
    """One pod's counters, at an address of this machine.

    Attributes:
        address: the pod's.
        revision: hash of its revision.
        counts: of clients' requests.
        said: its page, as of the last tick: one that changes while it is written would tell of
            answers without a latency, which count as slow.
        born: when it started, by the monotonic clock.
    """

    address: str
    revision: str
    counts: Steady = field(default_factory=lambda: Steady({200: 0}, took_ms=[TOOK_MS]))
    said: bytes = b""
    born: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        """Write the page anew."""
        self.said = page({"client_http": self.counts}, time.monotonic() - self.born).encode()

    def serve(self) -> ThreadingHTTPServer:
        """Serve the page until the server is shut down."""
        sidecar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.startswith("/stats/prometheus")
                body = sidecar.said if found else b""
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer((self.address, INTERNAL_PORT), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


class DataPlane(threading.Thread):
    """Kubelet, gateway and sidecars of one namespace.

    Attributes:
        bad: sources whose revisions answer 500.
        answered: requests by revision's hash, since the start.
    """

    def __init__(self, client: KubeClient, namespace: str) -> None:
        super().__init__(name="data-plane", daemon=True)
        self.bad: frozenset[str] = frozenset()
        self.answered: dict[str, int] = {}
        self._client, self._namespace = client, namespace
        self._sidecars: dict[str, Sidecar] = {}
        self._servers: dict[str, ThreadingHTTPServer] = {}
        self._owed: dict[str, float] = {}
        self._sources: dict[str, str] = {}
        self._over = threading.Event()

    def stop(self) -> None:
        """End it, and wait for that; the client is closed, too."""
        self._over.set()
        self.join()
        self._client.close()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def run(self) -> None:
        """Go on and on; what another writer was quicker at is done in the next round."""
        last = time.monotonic()
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            try:
                ready = self._pods()
                self._name_sources()
                for route in self._client.list(GATEWAY, "HTTPRoute", self._namespace):
                    self._accept(route)
                    self._answer(route, ready, (now - last) * RATE_HZ)
            except (httpx.TransportError, KubeError):
                pass
            for sidecar in self._sidecars.values():
                sidecar.tell()
            last = now

    def _pods(self) -> dict[str, list[Sidecar]]:
        """The Ready pods by the name of their revision's Service; those that are not become so."""
        found: dict[str, list[Sidecar]] = {}
        pods = self._client.list("v1", "Pod", self._namespace, DEPLOYMENT_LABEL)
        for pod in pods:
            meta = pod["metadata"]
            uid, labels = meta["uid"], meta["labels"]
            if "deletionTimestamp" in meta or REVISION_LABEL not in labels:
                continue
            if uid not in self._sidecars:
                number = len(self._sidecars)
                sidecar = Sidecar(
                    f"127.88.{number // 250}.{number % 250 + 1}", labels[REVISION_LABEL]
                )
                sidecar.tell()
                self._sidecars[uid] = sidecar
                self._servers[uid] = sidecar.serve()
            if not pod["status"].get("podIP"):
                self._start(pod, self._sidecars[uid].address)
                continue
            name = f"{labels[DEPLOYMENT_LABEL]}-{labels[REVISION_LABEL]}"
            found.setdefault(name, []).append(self._sidecars[uid])
        return found

    def _start(self, pod: Object, address: str) -> None:
        name = pod["metadata"]["name"]
        path = self._client.path("v1", "Pod", self._namespace, name)
        self._client.request(
            "PATCH",
            f"{path}/status",
            body={"status": running(pod, address)},
            content_type="application/merge-patch+json",
        )

    def _name_sources(self) -> None:
        for found in self._client.list("tidegate.dev/v1alpha1", "ModelDeployment", self._namespace):
            revisions = (found.get("status") or {}).get("revisions") or {}
            for one in (revisions.get("stable"), revisions.get("canary")):
                if one and one.get("hash"):
                    self._sources[one["hash"]] = str(one.get("source"))

    def _accept(self, route: Object) -> None:
        generation = route["metadata"]["generation"]
        parents = (route.get("status") or {}).get("parents") or []
        if parents and parents[0]["conditions"][0]["observedGeneration"] == generation:
            return
        status = [
            {
                "parentRef": parent,
                "controllerName": "tests.example/pretend",
                "conditions": [
                    {
                        "type": kind,
                        "status": "True",
                        "reason": kind,
                        "message": "",
                        "observedGeneration": generation,
                        "lastTransitionTime": route["metadata"]["creationTimestamp"],
                    }
                    for kind in ("Accepted", "ResolvedRefs")
                ],
            }
            for parent in route["spec"]["parentRefs"]
        ]
        path = self._client.path(GATEWAY, "HTTPRoute", self._namespace, route["metadata"]["name"])
        self._client.request(
            "PATCH",
            f"{path}/status",
            body={"status": {"parents": status}},
            content_type="application/merge-patch+json",
        )

    def _answer(self, route: Object, ready: Mapping[str, list[Sidecar]], requests: float) -> None:
        for service, share in shares_of(route).items():
            sidecars = ready.get(service) or []
            if not sidecars:
                continue
            owed = self._owed.get(service, 0.0) + requests * share
            self._owed[service] = owed % 1
            for number in range(int(owed)):
                sidecar = sidecars[number % len(sidecars)]
                code = 500 if self._sources.get(sidecar.revision) in self.bad else 200
                counts = sidecar.counts
                counts.by_status[code] = counts.by_status.get(code, 0) + 1
                revision = sidecar.revision
                self.answered[revision] = self.answered.get(revision, 0) + 1


def running(pod: Object, address: str) -> dict[str, Any]:
    """The status of a pod whose containers all run, as a kubelet reports it."""
    stamp = pod["metadata"]["creationTimestamp"]
    report = json.dumps({"digest": DIGEST, "bytes": 1, "files": 1, "backend": "python"})
    runs = {"state": {"running": {"startedAt": stamp}}, "ready": True, "started": True}
    done = {"exitCode": 0, "reason": "Completed", "message": report}
    over = {"state": {"terminated": done}, "ready": True}

    def status(container: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
        named = {"name": container["name"], "image": container["image"]}
        return {**named, "imageID": "", "restartCount": 0, **state}

    return {
        "phase": "Running",
        "podIP": address,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": stamp}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "initContainerStatuses": [
            status(c, runs if c.get("restartPolicy") == "Always" else over)
            for c in pod["spec"].get("initContainers", [])
        ],
        "containerStatuses": [status(c, runs) for c in pod["spec"]["containers"]],
    }
