"""s3 without a Secret, with the web identity that a cloud's webhook puts into the pod.

The store is a real one; the service that exchanges the token for keys is a stand-in, which hands
out the store's own keys.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp.web import Request, Response, StreamResponse

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
