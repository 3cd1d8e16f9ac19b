"""The guide's page on clients and rate limits, done on a real gateway, before a real model.

Its manifests are applied as the page has them, but for namespaces, the hostname, and where the keys
of the identity provider come from: there is none here, so the policy holds them itself.
"""

import base64
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tritonclient.utils import InferenceServerException

from e2e.cluster.kube import KubeClient, Object, has_condition, wait_for
from e2e.tests.space import READY_SECONDS, SETTINGS, Space, merged, model_deployment
from tests.unit.architecture.test_docs import blocks

pytestmark = pytest.mark.slow  # a gateway of its own, and policies on their way to it

PAGE: Final = "docs/guide/gateway-auth-and-rate-limits.md"
GATEWAY_API: Final = "gateway.networking.k8s.io/v1"
POLICY_API: Final = "gateway.envoyproxy.io/v1alpha1"
MODEL: Final = "ranker"
"""The page's name of the ModelDeployment."""
HOST: Final = "ranker.example.test"
SHOP: Final = {"x-api-key": "change-me-1"}
SEARCH: Final = {"x-api-key": "change-me-2"}
LIMIT: Final = 10
"""Requests a second that the page grants each client."""
BURST: Final = 80
"""Sent one after the other, and in far fewer seconds than the limit would grant them."""

Headers = Mapping[str, str]


def shown() -> list[Object]:
    """The manifests of the page, in its order; the last is a part of a ModelDeployment."""
    bodies = [body for name, body in blocks("yaml") if name == PAGE]
    return [document for body in bodies for document in yaml.safe_load_all(body)]


def of_page(kind: str, holds: str) -> Object:
    """The one manifest of that kind whose spec (or data) has that field, without a namespace."""
    found = [
        document
        for document in shown()
        if document.get("kind") == kind and holds in document.get("spec", document)
    ]
    assert len(found) == 1, f"{PAGE} shows {len(found)} of {kind} with {holds}"
    del found[0]["metadata"]["namespace"]
    return found[0]


@dataclass(frozen=True)
class Stage:
    """The page's model behind a gateway.

    Attributes:
        space: where both are.
        address: ``host:port`` of the gateway.
    """

    space: Space
    address: str

    def http(self, headers: Headers | None = None, count: int = 1) -> list[str]:
        """What so many requests got: the label, or else the status."""
        return self.http_each([headers or {}] * count)

    def http_each(self, headers: Iterable[Headers]) -> list[str]:
        """The same of one request with each of these, on one connection."""
        tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}
        url = f"http://{self.address}/v2/models/{MODEL}/infer"
        found = []
        with httpx.Client(trust_env=False, headers={"Host": HOST}) as asks:
            for one in headers:
                reply = asks.post(url, json={"inputs": [tensor]}, headers=one)
                answer = reply.json() if reply.status_code == 200 else {"outputs": []}
                labels = [o["data"][0] for o in answer["outputs"] if o["name"] == "label"]
                found += labels or [str(reply.status_code)]
        return found

    def grpc(self, headers: Headers | None = None) -> str:
        """The same of one request over gRPC."""
        content = tritonclient.grpc.InferInput("content", [1, 1], "BYTES")
        content.set_data_from_numpy(np.array([[b"x"]], dtype=object))
        channel = [("grpc.default_authority", HOST)]
        asks = tritonclient.grpc.InferenceServerClient(self.address, channel_args=channel)
        with closing(asks):
            try:
                reply = asks.infer(MODEL, [content], headers=dict(headers or {}), client_timeout=30)
            except InferenceServerException as error:
                return str(error.status())
            return str(reply.as_numpy("label").reshape(-1)[0].decode())

    def arrived(self) -> int:
        """Requests over HTTP that the sidecars of the pods have seen."""
        total = 0
        line = 'envoy_cluster_upstream_rq_total{envoy_cluster_name="client_http"} '
        for pod in self.space.pods(MODEL):
            path = self.space.kube.path("v1", "Pod", self.space.name, pod["metadata"]["name"])
            page = self.space.kube.text(f"{path}:9091/proxy/stats/prometheus")
            total += sum(int(one.split()[1]) for one in page.splitlines() if one.startswith(line))
        return total

    def await_http(self, wanted: str, headers: Headers | None = None, count: int = 1) -> None:
        """Wait until one of so many requests gets that."""
        wait_for(
            lambda: wanted in self.http(headers, count),
            f"{wanted} with {headers or 'nothing'}",
            timeout_seconds=READY_SECONDS,
            state=lambda: f"{self.http(headers)} {self.policies()}",
        )

    def policies(self) -> str:
        """What the gateway says of the policies that there are."""
        kinds = ("SecurityPolicy", "BackendTrafficPolicy", "ClientTrafficPolicy")
        found = [
            p for kind in kinds for p in self.space.kube.list(POLICY_API, kind, self.space.name)
        ]
        return json.dumps([{p["kind"]: p.get("status")} for p in found])

    @contextmanager
    def policy(self, item: Object) -> Iterator[None]:
        """While it is there, and accepted."""
        self.space.apply(item)
        kind, name = item["kind"], item["metadata"]["name"]

        def accepted() -> bool:
            status = self.space.require(POLICY_API, kind, name).get("status") or {}
            sides = status.get("ancestors") or ()
            return bool(sides) and all(
                has_condition({"status": side}, "Accepted") for side in sides
            )

        wait_for(accepted, f"{kind} accepted", timeout_seconds=READY_SECONDS, state=self.policies)
        try:
            yield
        finally:
            self.space.kube.delete(POLICY_API, kind, name, self.space.name)

    def assert_limited(self, headers: Headers, other: Headers) -> None:
        """One client asks too much: it gets its share and 429, another client does not notice."""
        time.sleep(1.1)  # both have their whole share again
        before = self.arrived()
        began = time.monotonic()
        found, others = [], []
        for _ in range(4):
            found += self.http(headers, BURST // 4)
            others += self.http(other)
        seconds = time.monotonic() - began
        seen = Counter(found)
        assert set(seen) == {"one", "429"}, seen
        assert LIMIT <= seen["one"] <= LIMIT * (2 + seconds), f"{seen} in {seconds:.2f} s"
        assert others == ["one"] * 4
        assert self.arrived() - before == seen["one"] + 4, "what was refused reached a pod"


@pytest.fixture(scope="module")
def stage(cluster: KubeClient, space: Space, whoami: dict[str, str]) -> Iterator[Stage]:
    """The model with the page's own `spec.traffic`, behind a gateway that no other test uses."""
    shared = cluster.get(GATEWAY_API, "Gateway", "public", SETTINGS.infra_namespace)
    assert shared is not None
    gateway = {
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": {"name": "public"},
        "spec": {
            "gatewayClassName": shared["spec"]["gatewayClassName"],
            "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
        },
    }
    space.apply(gateway)
    part = next(document for document in shown() if "kind" not in document)
    here = {"gateway": {"parentRefs": [{"name": "public"}], "hostnames": [HOST]}}
    space.apply(model_deployment(MODEL, whoami["one"], merged(part["spec"], {"traffic": here})))

    def address() -> str | None:
        found = space.require(GATEWAY_API, "Gateway", "public")
        addresses = found.get("status", {}).get("addresses") or []
        ready = has_condition(found, "Programmed") and addresses
        return f"{addresses[0]['value']}:80" if ready else None

    where = wait_for(address, "the gateway's address", timeout_seconds=READY_SECONDS)
    space.ready(MODEL)
    found = Stage(space, where)
    found.await_http("one")
    yield found
    # Its pods are in the namespace of Envoy Gateway, which nobody empties.
    cluster.delete(GATEWAY_API, "Gateway", "public", space.name)


def open_to_all(stage: Stage) -> None:
    """Wait until nothing is asked of clients and no limit is left, and see that it is so."""
    stage.await_http("one")
    wait_for(
        lambda: set(stage.http({"x-client-id": "anybody"}, BURST)) == {"one"},
        "no limit is left",
        timeout_seconds=READY_SECONDS,
        state=stage.policies,
    )
    assert stage.grpc() == "one"


def test_a_key_opens_the_model_and_each_client_has_a_limit(stage: Stage) -> None:
    open_to_all(stage)
    stage.space.apply(of_page("Secret", "stringData"))
    with stage.policy(of_page("SecurityPolicy", "apiKeyAuth")):
        stage.await_http("401")
        assert stage.http({"x-api-key": "change-me"}) == ["401"]
        assert stage.grpc() == "StatusCode.UNAUTHENTICATED"
        for client in (SHOP, SEARCH):
            assert stage.http(client) == ["one"]
            assert stage.grpc(client) == "one"
        with stage.policy(of_page("BackendTrafficPolicy", "rateLimit")):
            stage.await_http("429", SHOP, BURST)
            stage.assert_limited(SHOP, SEARCH)
            wait_for(
                lambda: stage.http(SHOP, BURST) and stage.grpc(SHOP) == "StatusCode.UNAVAILABLE",
                "the limit met over gRPC",
                timeout_seconds=READY_SECONDS,
                state=lambda: stage.grpc(SHOP),
            )
            # The name that counts is the key's, whatever the client calls itself.
            stage.assert_limited({**SHOP, "x-client-id": "search"}, SEARCH)
        wait_for(
            lambda: set(stage.http(SHOP, BURST)) == {"one"},
            "no limit is left",
            timeout_seconds=READY_SECONDS,
            state=stage.policies,
        )
        assert stage.http() == ["401"]
    open_to_all(stage)


def test_a_header_that_the_gateway_takes_off_does_not_count(stage: Stage) -> None:
    named = {"x-client-id": "somebody"}
    with stage.policy(of_page("BackendTrafficPolicy", "rateLimit")):
        stage.await_http("429", named, BURST)
        stage.assert_limited(named, {"x-client-id": "somebody else"})
        with stage.policy(of_page("ClientTrafficPolicy", "headers")):
            wait_for(
                lambda: set(stage.http(named, BURST)) == {"one"},
                "the header is taken off",
                timeout_seconds=READY_SECONDS,
                state=stage.policies,
            )
        stage.await_http("429", named, BURST)
    open_to_all(stage)


@pytest.mark.parametrize(
    ("others", "by_name", "kept"), [(15, False, True), (25, False, False), (25, True, True)]
)
def test_how_many_clients_the_gateway_keeps_apart(
    stage: Stage, others: int, by_name: bool, kept: bool
) -> None:
    """Beyond 20 it forgets them in turn, and each starts with a whole share; not those named.

    When this fails since all are kept, the page has a warning too many.
    """
    greedy = {"x-client-id": "greedy"}
    policy = of_page("BackendTrafficPolicy", "rateLimit")
    if by_name:
        (rule,) = policy["spec"]["rateLimit"]["local"]["rules"]
        rule["clientSelectors"] = [{"headers": [{"name": "x-client-id", "value": "greedy"}]}]
    turns = 6
    turn = [greedy] * (LIMIT + 5) + [{"x-client-id": f"client {i}"} for i in range(others)]
    with stage.policy(policy):
        stage.await_http("429", greedy, BURST)
        time.sleep(1.1)
        began = time.monotonic()
        said = stage.http_each(turn * turns)
        seconds = time.monotonic() - began
    granted = sum(
        label == "one" for label, who in zip(said, turn * turns, strict=True) if who is greedy
    )
    assert set(said) == {"one", "429"}
    if kept:
        assert granted <= LIMIT * (2 + seconds), f"{granted} in {seconds:.2f} s"
    else:
        assert granted >= LIMIT * turns, f"{granted} in {seconds:.2f} s"
    open_to_all(stage)


def base64url(raw: bytes) -> str:
    """As RFC 7515 has it: without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class Issuer:
    """An identity provider: a key that signs tokens.

    Attributes:
        key: of its own.
    """

    key: rsa.RSAPrivateKey

    @property
    def jwks(self) -> str:
        """What is public of the key."""
        numbers = self.key.public_key().public_numbers()
        modulus = base64url(numbers.n.to_bytes(256, "big"))
        exponent = base64url(numbers.e.to_bytes(3, "big"))
        key = {"kty": "RSA", "alg": "RS256", "kid": "one", "n": modulus, "e": exponent}
        return json.dumps({"keys": [key]})

    def token(self, **claims: Any) -> Headers:
        """The header of a client; it is the page's issuer and audience unless `claims` differ."""
        every = {
            "iss": "https://login.example.org",
            "aud": "models",
            "sub": "shop",
            "scope": "rank",
            "exp": int(time.time()) + 600,
        }
        head = {"alg": "RS256", "typ": "JWT", "kid": "one"}
        parts = [base64url(json.dumps(part).encode()) for part in (head, every | claims)]
        signed = ".".join(parts)
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return {"authorization": f"Bearer {signed}.{base64url(signature)}"}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """The one that the policy trusts."""
    return Issuer(rsa.generate_private_key(65537, 2048))


def test_a_token_opens_the_model_if_it_is_for_it(stage: Stage, issuer: Issuer) -> None:
    policy = of_page("SecurityPolicy", "jwt")
    (provider,) = policy["spec"]["jwt"]["providers"]
    del provider["remoteJWKS"]
    provider["localJWKS"] = {"type": "Inline", "inline": issuer.jwks}
    stranger = Issuer(rsa.generate_private_key(65537, 2048))
    with stage.policy(policy):
        stage.await_http("401")
        said = {
            "right": stage.http(issuer.token()),
            "among other scopes": stage.http(issuer.token(scope="read rank")),
            "another's signature": stage.http(stranger.token()),
            "over": stage.http(issuer.token(exp=int(time.time()) - 600)),
            "another issuer": stage.http(issuer.token(iss="https://login.example.net")),
            "another audience": stage.http(issuer.token(aud="shops")),
            "another scope": stage.http(issuer.token(scope="read")),
        }
        assert said == {
            "right": ["one"],
            "among other scopes": ["one"],
            "another's signature": ["401"],
            "over": ["401"],
            "another issuer": ["401"],
            "another audience": ["403"],
            "another scope": ["403"],
        }
        assert stage.grpc() == "StatusCode.UNAUTHENTICATED"
        assert stage.grpc(issuer.token(scope="read")) == "StatusCode.PERMISSION_DENIED"
        assert stage.grpc(issuer.token()) == "one"
        with stage.policy(of_page("BackendTrafficPolicy", "rateLimit")):
            stage.await_http("429", issuer.token(), BURST)
            stage.assert_limited(issuer.token(), issuer.token(sub="search"))
    open_to_all(stage)
