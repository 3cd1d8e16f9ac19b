"""s3 without a Secret, with the identity that a cloud's webhook puts into the pod.

The store is a real one; the service that exchanges the token for keys is a stand-in, which hands
out the store's own keys.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp.web import Request, Response, StreamResponse, json_response

from tests.integration.fetch.models import PYTHON_MODEL
from tests.integration.fetch.pod import Pod
from tests.integration.fetch.seaweed import ACCESS, SECRET, Seaweed
from tests.integration.fetch.web import WebServer

pytestmark = pytest.mark.integration

ROLE = "arn:aws:iam::123456789012:role/models"
ANSWER = f"""\
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>{ACCESS}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken/>
<Expiration>2099-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>
"""


@pytest.fixture
def asked(pod: Pod, web: WebServer, tmp_path: Path) -> list[dict[str, str]]:
    """What was asked of the service; the pod is as the webhook leaves it."""
    token = tmp_path / "token"
    token.write_text("the-account's-token")
    seen: list[dict[str, str]] = []
    web.routes["/"] = exchange(seen)
    pod.env |= {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": ROLE,
        "AWS_ENDPOINT_URL_STS": web.url,
    }
    return seen


def exchange(seen: list[dict[str, str]]) -> Callable[[Request], Awaitable[StreamResponse]]:
    async def answer(request: Request) -> StreamResponse:
        seen.append({k: str(v) for k, v in (await request.post()).items()})
        return Response(text=ANSWER, content_type="text/xml")

    return answer


def test_keys_come_from_the_accounts_token(
    pod: Pod, s3: Seaweed, asked: list[dict[str, str]]
) -> None:
    s3.put("models", "identity", PYTHON_MODEL)
    outcome = pod.fetch("s3://models/identity", endpoint=s3.endpoint)
    assert outcome.ok()["files"] == 3
    assert [(a["Action"], a["RoleArn"], a["WebIdentityToken"]) for a in asked] == [
        ("AssumeRoleWithWebIdentity", ROLE, "the-account's-token")
    ]
    assert "the-account's-token" not in outcome.log


def test_a_secret_comes_first(pod: Pod, s3: Seaweed, asked: list[dict[str, str]]) -> None:
    s3.put("models", "identity", PYTHON_MODEL)
    pod.mount("credentials", {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET})
    pod.fetch("s3://models/identity", endpoint=s3.endpoint).ok()
    assert asked == []


def test_the_exchange_keeps_to_the_allowed_hosts(
    pod: Pod, s3: Seaweed, asked: list[dict[str, str]]
) -> None:
    pod.env["AWS_ENDPOINT_URL_STS"] = pod.env["AWS_ENDPOINT_URL_STS"].replace(
        "127.0.0.1", "localhost"
    )
    policy = {"allowedHosts": ["127.0.0.1"]}
    outcome = pod.fetch("s3://models/identity", endpoint=s3.endpoint, policy=policy)
    assert "localhost" in outcome.failed("AddressRefused")
    assert asked == []


@pytest.fixture
def agent(pod: Pod, web: WebServer, tmp_path: Path) -> list[tuple[str, str]]:
    """EKS' Pod Identity agent, and what was asked of it; the pod is as its webhook leaves it."""
    token = tmp_path / "token"
    token.write_text("the-pod's-token")
    seen: list[tuple[str, str]] = []

    async def answer(request: Request) -> StreamResponse:
        seen.append((request.path, request.headers.get("Authorization", "")))
        keys = {"AccessKeyId": ACCESS, "SecretAccessKey": SECRET, "Token": ""}
        return json_response({**keys, "Expiration": "2099-01-01T00:00:00Z"})

    web.routes["/v1/credentials"] = answer
    pod.env |= {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{web.url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
    }
    return seen


def test_keys_come_from_the_agent_of_eks(
    pod: Pod, s3: Seaweed, agent: list[tuple[str, str]]
) -> None:
    s3.put("models", "identity", PYTHON_MODEL)
    outcome = pod.fetch("s3://models/identity", endpoint=s3.endpoint)
    assert outcome.ok()["files"] == 3
    assert agent == [("/v1/credentials", "the-pod's-token")]
    assert "the-pod's-token" not in outcome.log


def test_the_agent_is_not_asked_where_there_is_a_secret(
    pod: Pod, s3: Seaweed, agent: list[tuple[str, str]]
) -> None:
    s3.put("models", "identity", PYTHON_MODEL)
    pod.mount("credentials", {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET})
    pod.fetch("s3://models/identity", endpoint=s3.endpoint).ok()
    assert agent == []


@pytest.mark.parametrize(
    ("region", "env", "secret", "signed_for"),
    [
        (None, {"AWS_REGION": "eu-west-1"}, False, "eu-west-1"),
        (None, {"AWS_DEFAULT_REGION": "eu-west-1"}, False, "eu-west-1"),
        ("ap-south-1", {"AWS_REGION": "eu-west-1"}, False, "ap-south-1"),
        (None, {"AWS_REGION": "eu-west-1"}, True, "us-east-1"),
        (None, {}, False, "us-east-1"),
    ],
)
def test_the_region_that_is_signed_for(
    pod: Pod,
    web: WebServer,
    agent: list[tuple[str, str]],
    region: str | None,
    env: dict[str, str],
    secret: bool,
    signed_for: str,
) -> None:
    if secret:
        pod.mount("credentials", {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET})
    pod.env |= env
    scopes: list[str] = []

    async def store(request: Request) -> StreamResponse:
        scopes.append(request.headers.get("Authorization", ""))
        return Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")

    web.routes["/bucket"] = web.routes["/bucket/model"] = store
    pod.fetch("s3://bucket/model", endpoint=web.url, region=region)
    assert scopes
    assert all(f"/{signed_for}/s3/aws4_request" in scope for scope in scopes)
