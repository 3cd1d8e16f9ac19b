"""Splitting and mirroring in stable's own Envoy, for callers inside the cluster: ADR 0015.

``python -m e2e.bench.sidecar_split`` starts real Envoys as plain processes: the sidecar of a stable
pod and that of a canary pod, with the configuration that pods get, and behind each a third one that
plays Triton and says whose it is. Stable's serving listener gets three more routes per protocol: a
pinned request, a share of the rest (a runtime key), and a mirrored copy (another key) go to the
canary's sidecar. The keys are moved in each of the ways that exist, and for each the time from the
push to the first request that follows it is taken.
"""

import contextlib
import copy
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, struct_pb2

from e2e.bench.report import Report, parser, quantile
from e2e.native import parts
from e2e.native.processes import Process, wait_for
from e2e.ports import free_ports
from tidegate.resources.envoy import envoy_args, envoy_config, render
from tidegate.resources.sidecar import Ports

WEIGHT_KEY: Final = "tidegate.canary.weight"
MIRROR_KEY: Final = "tidegate.canary.mirror"
WHO: Final = "x-who"
PIN: Final = "x-tidegate-revision"
SET_PATH: Final = "/sidecar/weight/"
"""Internal listener, experiment only: numerators of 10,000 of weight and mirror."""
LAYER: Final = "split"
RUNTIME_TYPE: Final = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
REST_POLL_S: Final = 0.25
INFER: Final = "/v2/models/m/infer"

Push = Callable[[int, int], None]
"""Asks for weight and mirror, of 10,000."""


def fraction(numerator: int) -> dict[str, Any]:
    """A runtime fraction of 10,000."""
    return {"numerator": numerator, "denominator": "TEN_THOUSAND"}


def with_split(
    config: dict[str, Any], canary: int, layer: dict[str, Any], *, fall_back: bool = False
) -> dict[str, Any]:
    """The stable sidecar's bootstrap with the canary's address as one more upstream.

    Args:
        config: as `envoy_config` gives it.
        canary: port of the canary's serving listener.
        layer: of Envoy's runtime, which brings the keys.
        fall_back: a canary that takes no connection gives its requests to the local Triton.
    """
    made = copy.deepcopy(config)
    serving, internal = made["static_resources"]["listeners"]
    clusters = made["static_resources"]["clusters"]
    for protocol in ("http", "grpc"):
        [local] = [c for c in clusters if c["name"] == f"client_{protocol}"]
        away = copy.deepcopy(local)
        away["name"] = f"canary_{protocol}"
        away["load_assignment"] = {
            "cluster_name": away["name"],
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(canary)}}]}],
        }
        clusters.append(away)
        if fall_back:
            clusters.append(_aggregate(protocol))
    routes = _routes(serving)
    _routes(serving)[:] = [more for route in routes for more in _split(route, fall_back)]
    _routes(internal).insert(0, _set_weight())
    made["layered_runtime"]["layers"] += [layer]
    made["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"].append(
        {"safe_regex": {"regex": r"cluster\.canary_.*|runtime\..*"}}
    )
    return made


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _aggregate(protocol: str) -> dict[str, Any]:
    """First the canary, then this pod's own Triton."""
    return {
        "name": f"either_{protocol}",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [f"canary_{protocol}", f"client_{protocol}"],
            },
        },
    }


def _routes(listener: dict[str, Any]) -> list[Any]:
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes: list[Any] = manager["route_config"]["virtual_hosts"][0]["routes"]
    return routes


def _split(route: dict[str, Any], fall_back: bool) -> list[dict[str, Any]]:
    cluster = route.get("route", {}).get("cluster", "")
    if not cluster.startswith("client_"):
        return [route]
    protocol = cluster.removeprefix("client_")
    pinned, split, kept = (copy.deepcopy(route) for _ in range(3))
    pinned["route"]["cluster"] = f"canary_{protocol}"
    pinned["match"]["headers"].append({"name": PIN, "string_match": {"exact": "canary"}})
    split["route"]["cluster"] = f"{'either' if fall_back else 'canary'}_{protocol}"
    split["match"]["runtime_fraction"] = {"default_value": fraction(0), "runtime_key": WEIGHT_KEY}
    if fall_back:
        split["route"]["retry_policy"] = {
            "retry_on": "connect-failure",
            "num_retries": 1,
            "retry_priority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.priority"
                    ".previous_priorities.v3.PreviousPrioritiesConfig",
                    "update_frequency": 1,
                },
            },
        }
    kept["route"]["request_mirror_policies"] = [
        {
            "cluster": f"canary_{protocol}",
            "runtime_fraction": {"default_value": fraction(0), "runtime_key": MIRROR_KEY},
        }
    ]
    return [pinned, split, kept]


def _set_weight() -> dict[str, Any]:
    """Exactly two keys of the admin's runtime: the whole path, query included, must match."""
    number = "([0-9]{1,5})"
    whole = f"{SET_PATH}{number}/{number}"
    query = _query(r"\1", r"\2")
    return {
        "match": {
            "safe_regex": {"regex": whole},
            "headers": [
                {"name": ":method", "string_match": {"exact": "POST"}},
                {"name": ":path", "string_match": {"safe_regex": {"regex": whole}}},
            ],
        },
        "route": {
            "cluster": "admin",
            "regex_rewrite": {
                "pattern": {"regex": whole},
                "substitution": f"/runtime_modify?{query}",
            },
        },
    }


def _query(weight: object, mirror: object) -> str:
    """Both keys for ``/runtime_modify``, which takes JSON as a value."""
    return "&".join(
        f"{key}=%7B%22numerator%22:{value},%22denominator%22:%22TEN_THOUSAND%22%7D"
        for key, value in ((WEIGHT_KEY, weight), (MIRROR_KEY, mirror))
    )


def triton_stand_in(name: str, ports: Ports) -> dict[str, Any]:
    """An Envoy that answers at once, over HTTP/1 and HTTP/2, and says whose it is."""
    config = envoy_config(ports=Ports(*free_ports(6)), listen_address="127.0.0.1")
    [serving] = [x for x in config["static_resources"]["listeners"] if x["name"] == "serving"]
    _routes(serving)[:] = [
        {
            "match": {"prefix": "/"},
            "direct_response": {"status": 200, "body": {"inline_string": "{}"}},
            "response_headers_to_add": [{"header": {"key": WHO, "value": name}}],
        }
    ]
    listeners = [
        serving | {"name": f"{port}", "address": _address(port)}
        for port in (ports.triton_http, ports.triton_grpc)
    ]
    config["static_resources"] = {"listeners": listeners}
    del config["layered_runtime"], config["overload_manager"]
    return config


@contextlib.contextmanager
def envoy(config: dict[str, Any], folder: Path, name: str) -> Iterator[Process]:
    """A running Envoy; stopped at the end."""
    path = folder / f"{name}.json"
    path.write_text(render(config))
    log = folder / f"{name}.log"
    with log.open("ab") as out:
        process = Process(
            subprocess.Popen(
                [str(parts.envoy()), *envoy_args(str(path))], stdout=out, stderr=subprocess.STDOUT
            ),
            log,
        )
    try:
        admin = config["admin"]["address"]["socket_address"]["port_value"]
        wait_for(f"http://127.0.0.1:{admin}/ready", process)
        yield process
    finally:
        process.stop()


class Client:
    """One keep-alive connection to the serving listener."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, headers: str = "", body: bytes = b"{}") -> tuple[int, str]:
        """Status of one inference, and who answered it (empty: nobody)."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"POST {INFER} HTTP/1.1\r\nHost: m\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._socket.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._received()
        top, _, rest = answer.partition(b"\r\n\r\n")
        lines = top.decode().lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        length = int(fields.get("content-length", 0))
        while len(rest) < length:
            rest += self._received()
        if fields.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), fields.get(WHO, "")

    def _received(self) -> bytes:
        assert self._socket is not None
        if not (data := self._socket.recv(65536)):
            raise ConnectionError("closed inside an answer")
        return data

    def close(self) -> None:
        """Ends the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


# The ways for a weight to arrive.


def post(url: str, body: bytes = b"") -> int:
    """Status of a POST."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="POST")) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def admin_layer() -> dict[str, Any]:
    """Runtime that the admin's ``/runtime_modify`` writes; lost when Envoy ends."""
    return {"name": LAYER, "admin_layer": {}}


def rtds_layer(source: dict[str, Any]) -> dict[str, Any]:
    """Runtime that is discovered: from a file, by polling, or by a stream."""
    return {
        "name": LAYER,
        "rtds_layer": {"name": LAYER, "rtds_config": {"resource_api_version": "V3", **source}},
    }


def runtime(weight: int, mirror: int) -> dict[str, Any]:
    """The resource that all discovered ways carry."""
    return {
        "@type": RUNTIME_TYPE,
        "name": LAYER,
        "layer": {WEIGHT_KEY: fraction(weight), MIRROR_KEY: fraction(mirror)},
    }


def by_admin(port: int) -> Push:
    """Straight to the admin: only from inside the pod."""

    def push(weight: int, mirror: int) -> None:
        status = post(f"http://127.0.0.1:{port}/runtime_modify?{_query(weight, mirror)}")
        assert status == 200, status

    return push


def by_internal_listener(port: int) -> Push:
    """Through one route of the internal listener."""

    def push(weight: int, mirror: int) -> None:
        status = post(f"http://127.0.0.1:{port}{SET_PATH}{weight}/{mirror}")
        assert status == 200, status

    return push


def by_file(folder: Path) -> Push:
    """As kubelet changes a mounted ConfigMap: a new folder, and one rename of a link."""
    count = 0

    def push(weight: int, mirror: int) -> None:
        nonlocal count
        count += 1
        data = folder / f"..{count}"
        data.mkdir()
        document = {"version_info": str(count), "resources": [runtime(weight, mirror)]}
        (data / "runtime.json").write_text(json.dumps(document))
        (folder / "..tmp").symlink_to(data.name)
        os.rename(folder / "..tmp", folder / "..data")
        if count == 1:
            (folder / "runtime.json").symlink_to("..data/runtime.json")

    push(0, 0)
    return push


@contextlib.contextmanager
def rest_server(port: int) -> Iterator[Push]:
    """An xDS server that is polled, as the operator's process could hold one."""
    state = {"version_info": "0", "resources": [runtime(0, 0)]}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps(state).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def push(weight: int, mirror: int) -> None:
        version = str(int(str(state["version_info"])) + 1)
        state.update(version_info=version, resources=[runtime(weight, mirror)])

    try:
        yield push
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def grpc_server(port: int) -> Iterator[Push]:
    """An xDS server with a stream (state of the world), enough for one kind of resource."""
    changed = threading.Condition()
    state: list[tuple[int, int]] = [(0, 0)]
    ended = False

    def response() -> bytes:
        values = struct_pb2.Struct()
        for key, n in zip((WEIGHT_KEY, MIRROR_KEY), state[-1], strict=True):
            values.update({key: fraction(n)})
        resource = _field(1, LAYER.encode()) + _field(2, values.SerializeToString())
        packed = any_pb2.Any(type_url=RUNTIME_TYPE, value=resource)
        version = str(len(state)).encode()
        return (
            _field(1, version)
            + _field(2, packed.SerializeToString())
            + _field(4, RUNTIME_TYPE.encode())
            + _field(5, version)
        )

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)  # the rest are acknowledgements
        sent = 0
        while not ended and context.is_active():
            with changed:
                while len(state) == sent and not ended:
                    changed.wait(1)
                if ended:
                    return
                sent, answer = len(state), response()
            yield answer

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "envoy.service.runtime.v3.RuntimeDiscoveryService",
                {"StreamRuntime": grpc.stream_stream_rpc_method_handler(stream)},
            ),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()

    def push(weight: int, mirror: int) -> None:
        with changed:
            state.append((weight, mirror))
            changed.notify_all()

    try:
        yield push
    finally:
        ended = True
        with changed:
            changed.notify_all()
        server.stop(0.2).wait()


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field on protobuf's wire."""
    length, size = len(value), b""
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + value


def xds_cluster(port: int, *, http2: bool) -> dict[str, Any]:
    """Where the discovered ways find their server."""
    protocol = "http2_protocol_options" if http2 else "http_protocol_options"
    return {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3"
                ".HttpProtocolOptions",
                "explicit_http_config": {protocol: {}},
            }
        },
    }


# Measuring.


class Pair:
    """The sidecars of a stable and of a canary pod, each before its own stand-in for Triton."""

    def __init__(self, folder: Path, layer: dict[str, Any], *, fall_back: bool = False) -> None:
        self.stable = Ports(*free_ports(6))
        self.canary = Ports(*free_ports(6))
        self._folder = folder
        self._parts: dict[str, Process] = {}
        self._stacks: dict[str, contextlib.ExitStack] = {}
        self._configs = {}
        for name, ports in (("stable", self.stable), ("canary", self.canary)):
            self._configs[f"{name}-triton"] = triton_stand_in(name, ports)
            self._configs[name] = envoy_config(
                ports=ports, listen_address="127.0.0.1", drain_folder=str(folder)
            )
        self._configs["stable"] = with_split(
            self._configs["stable"], self.canary.serving, layer, fall_back=fall_back
        )

    def also(self, cluster: dict[str, Any]) -> None:
        """One more upstream of stable's."""
        self._configs["stable"]["static_resources"]["clusters"].append(cluster)

    def __enter__(self) -> "Pair":
        for name in self._configs:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._stacks):
            self.stop(name)

    def start(self, name: str) -> None:
        """Starts one of the four."""
        stack = self._stacks[name] = contextlib.ExitStack()
        stack.enter_context(envoy(self._configs[name], self._folder, name))

    def stop(self, name: str) -> None:
        """Ends one of the four."""
        self._stacks.pop(name).close()


def effect_ms(client: Client, push: Push, tries: int) -> list[float]:
    """From the push to the first request of one busy connection that goes the new way."""
    found = []
    push(0, 0)
    _until(client, "stable")
    for number in range(tries):
        wanted = "stable" if number % 2 else "canary"
        time.sleep(0.05)
        start = time.perf_counter()
        push(10_000 * (wanted == "canary"), 0)
        _until(client, wanted)
        found.append((time.perf_counter() - start) * 1000)
    push(0, 0)
    _until(client, "stable")
    return found


def _until(client: Client, who: str) -> None:
    deadline = time.monotonic() + 30
    while client.ask()[1] != who:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no request reached {who} within 30 s")


def shares(pair: Pair, push: Push, requests: int) -> dict[str, float]:
    """Per cent of requests that reached the canary at 1 %, pinned, and mirrored at 10 %."""
    client = Client(pair.stable.serving)

    def canary_counts(cluster: str) -> int:
        url = f"http://127.0.0.1:{pair.canary.internal}/stats/prometheus?usedonly"
        with urllib.request.urlopen(url) as answer:
            page = answer.read().decode()
        wanted = f'envoy_cluster_upstream_rq_total{{envoy_cluster_name="{cluster}"}} '
        found = [line for line in page.splitlines() if line.startswith(wanted)]
        return int(found[0].split()[-1]) if found else 0

    push(100, 0)
    time.sleep(2 * REST_POLL_S)
    weighted = sum(client.ask()[1] == "canary" for _ in range(requests))
    with grpc.insecure_channel(f"127.0.0.1:{pair.stable.serving}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        push(1000, 0)
        time.sleep(2 * REST_POLL_S)
        for _ in range(requests // 10):
            with contextlib.suppress(grpc.RpcError):  # the stand-in speaks no gRPC
                infer(b"")
    over_grpc = canary_counts("client_grpc")
    push(0, 1000)
    time.sleep(2 * REST_POLL_S)
    before = canary_counts("mirrored_http")
    answers = [client.ask()[1] for _ in range(requests // 10)]
    time.sleep(1)
    mirrored = canary_counts("mirrored_http") - before
    pinned = [client.ask(f"{PIN}: canary\r\n")[1] for _ in range(1000)]
    push(0, 0)
    time.sleep(2 * REST_POLL_S)
    return {
        "at 1 %: share that the canary answered": weighted / requests,
        "gRPC at 10 %: share that the canary's sidecar counted": over_grpc / (requests // 10),
        "mirror at 10 %: share that the canary's sidecar counted": mirrored / len(answers),
        "mirror: share of clients that got the canary's answer": answers.count("canary")
        / len(answers),
        "pinned: share that the canary answered": pinned.count("canary") / len(pinned),
    }


def hop_ms(client: Client, requests: int, body: bytes) -> tuple[list[float], list[float]]:
    """Milliseconds of requests kept by stable, and of those passed on, in turns."""
    kept: list[float] = []
    passed: list[float] = []
    for number in range(2 * requests):
        away = number % 2
        start = time.perf_counter()
        status, who = client.ask(f"{PIN}: canary\r\n" if away else "", body)
        (passed if away else kept).append((time.perf_counter() - start) * 1000)
        assert (status, who) == (200, "canary" if away else "stable"), (status, who)
    return kept, passed


def while_gone(pair: Pair, push: Push, requests: int, body: bytes = b"{}") -> float:
    """Share of requests that fail at 20 % weight with the canary's sidecar gone."""
    client = Client(pair.stable.serving)
    push(2000, 0)
    time.sleep(2 * REST_POLL_S)
    pair.stop("canary")
    failed = sum(client.ask(body=body)[0] != 200 for _ in range(requests))
    pair.start("canary")
    push(0, 0)
    return failed / requests


def after_restart(pair: Pair, push: Push) -> str:
    """Who answers once stable's Envoy has been restarted at a weight of 100 %."""
    push(10_000, 0)
    time.sleep(2 * REST_POLL_S)
    pair.stop("stable")
    pair.start("stable")
    return Client(pair.stable.serving).ask()[1]


def main() -> int:
    """The command line."""
    options = parser(__doc__)
    options.add_argument("--tries", type=int, default=40, help="pushes of each way")
    options.add_argument("--requests", type=int, default=40_000, help="to take shares from")
    given = options.parse_args()
    report = Report("sidecar_split", "splitting and mirroring in the stable pods' own Envoy")
    with tempfile.TemporaryDirectory() as name:
        _ways(report, Path(name), given.tries)
        _serving(report, Path(name), given.requests)
        _faults(report, Path(name))
    report.finish(given.out)
    return 0


def _ways(report: Report, folder: Path, tries: int) -> None:
    def measured(way: str, pair: Pair, push: Push) -> None:
        values = effect_ms(Client(pair.stable.serving), push, tries)
        report.add(f"push to effect: {way}", "ms", values)
        report.facts[f"after a restart of Envoy at 100 %: {way}"] = after_restart(pair, push)

    with Pair(folder, admin_layer()) as pair:
        measured("admin, from inside the pod", pair, by_admin(pair.stable.admin))
        measured("internal listener", pair, by_internal_listener(pair.stable.internal))
        report.facts["refused on the internal listener"] = _refused(pair.stable.internal)
    mounted = folder / "mounted"
    mounted.mkdir()
    push = by_file(mounted)
    watched = {"path": f"{mounted}/runtime.json", "watched_directory": {"path": str(mounted)}}
    with Pair(folder, rtds_layer({"path_config_source": watched})) as pair:
        measured("file, once it is in the pod", pair, push)
    [port] = free_ports(1)
    rest: dict[str, Any] = {"api_type": "REST", "transport_api_version": "V3"}
    rest |= {"cluster_names": ["xds"], "refresh_delay": f"{REST_POLL_S}s"}
    polled = Pair(folder, rtds_layer({"api_config_source": rest}))
    polled.also(xds_cluster(port, http2=False))
    with rest_server(port) as push, polled as pair:
        measured(f"xDS, polled each {REST_POLL_S} s", pair, push)
    [port] = free_ports(1)
    stream: dict[str, Any] = {"api_type": "GRPC", "transport_api_version": "V3"}
    stream |= {"grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}
    streamed = Pair(folder, rtds_layer({"api_config_source": stream}))
    streamed.also(xds_cluster(port, http2=True))
    with contextlib.ExitStack() as server:
        push = server.enter_context(grpc_server(port))
        with streamed as pair:
            measured("xDS, a stream", pair, push)
            push(10_000, 0)
            time.sleep(0.5)
            server.close()
            time.sleep(0.5)
            client = Client(pair.stable.serving)
            report.facts["xDS server gone: who answers at 100 %"] = client.ask()[1]
            pair.stop("stable")
            start = time.perf_counter()
            pair.start("stable")
            took = time.perf_counter() - start
            answer = Client(pair.stable.serving).ask()[1]
            report.facts["xDS server gone and Envoy restarted: who answers"] = answer
            report.facts["... after, s"] = round(took, 2)


def _refused(internal: int) -> dict[str, int]:
    """What else the experiment's route could be made to say to the admin."""
    base = f"http://127.0.0.1:{internal}"
    return {
        path: post(f"{base}{path}")
        for path in (
            f"{SET_PATH}100/0?overload.x=1",
            f"{SET_PATH}100/0&x=1",
            f"{SET_PATH}100/0%26x=1",
            f"{SET_PATH}100/0/../../../quitquitquit",
            f"{SET_PATH}123456/0",
            "/runtime_modify?x=1",
            "/quitquitquit",
        )
    }


def _serving(report: Report, folder: Path, requests: int) -> None:
    with Pair(folder, admin_layer()) as pair:
        push = by_admin(pair.stable.admin)
        for what, share in shares(pair, push, requests).items():
            report.add(what, "%", [100 * share])
        for size, count in ((1 << 10, 3000), (1 << 20, 300)):
            body = b" " * size
            client = Client(pair.stable.serving)
            hop_ms(client, 100, body)
            kept, passed = hop_ms(client, count, body)
            for who, values in (("kept", kept), ("passed on", passed)):
                name = f"{size >> 10} KiB, {who}: p50"
                report.add(name, "ms", [quantile(values, 0.5)])
            differences = [b - a for a, b in zip(kept, passed, strict=True)]
            report.add(f"{size >> 10} KiB: the hop, median", "ms", [quantile(differences, 0.5)])


def _faults(report: Report, folder: Path) -> None:
    for fall_back in (False, True):
        with Pair(folder, admin_layer(), fall_back=fall_back) as pair:
            push = by_admin(pair.stable.admin)
            way = "falls back to stable's Triton" if fall_back else "no fall-back"
            for size in (2, 1 << 20):
                share = while_gone(pair, push, 1000, b" " * size)
                name = f"canary gone at 20 %, {way}, {size} byte requests: failed"
                report.add(name, "%", [100 * share])


if __name__ == "__main__":
    sys.exit(main())
