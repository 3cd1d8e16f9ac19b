"""gs against fake-gcs-server, as against Azurite: nobody can install the real ones."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fetch.emulators import ACCOUNT, ACCOUNT_KEY, Azurite, FakeGcs
from tests.integration.fetch.models import ONNX, PYTHON_MODEL, digest_of
from tests.integration.fetch.pod import Pod

pytestmark = [pytest.mark.integration, pytest.mark.clouds]
BIG = b"\x08\x08" + bytes(range(256)) * (80 << 10)  # 20 MiB: two segments


@pytest.fixture(scope="module")
def gcs() -> Iterator[FakeGcs]:
    with tempfile.TemporaryDirectory() as folder, FakeGcs(Path(folder)) as server:
        assert isinstance(server, FakeGcs)
        server.put("models", "magika/v3", PYTHON_MODEL)
        server.put("models", "magika/v33", {"x": b"other"})
        server.put("models", "big.onnx", {"": BIG})
        yield server


@pytest.fixture(scope="module")
def azure() -> Iterator[Azurite]:
    with tempfile.TemporaryDirectory() as folder, Azurite(Path(folder)) as server:
        assert isinstance(server, Azurite)
        server.put("models", "magika/v3", PYTHON_MODEL)
        server.put("models", "magika/v33", {"x": b"other"})
        server.put("models", "big.onnx", {"": BIG})
        yield server


def test_gs_folder(pod: Pod, gcs: FakeGcs) -> None:
    message = pod.fetch("gs://models/magika/v3", endpoint=gcs.url).ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)


def test_gs_object(pod: Pod, gcs: FakeGcs) -> None:
    message = pod.fetch("gs://models/big.onnx", endpoint=gcs.url).ok()
    assert message["digest"] == digest_of({"big.onnx": BIG})


@pytest.mark.parametrize("uri", ["gs://models/none", "gs://no-such-bucket/x"])
def test_gs_nothing_there(pod: Pod, gcs: FakeGcs, uri: str) -> None:
    pod.fetch(uri, endpoint=gcs.url).failed("SourceNotFound")


def test_gs_a_key_that_is_none(pod: Pod, gcs: FakeGcs) -> None:
    pod.mount("credentials", {"credentials.json": "not json"})
    pod.fetch("gs://models/magika/v3", endpoint=gcs.url).failed("CredentialsMissing")
    pod.mount("credentials", {"credentials.json": '{"type": "external_account"}'})
    pod.fetch("gs://models/magika/v3", endpoint=gcs.url).failed("CredentialsMissing")


def test_gs_policy(pod: Pod, gcs: FakeGcs) -> None:
    policy: dict[str, list[str]] = {"allowPrivateAddresses": []}
    pod.fetch("gs://models/magika/v3", endpoint=gcs.url, policy=policy).failed("AddressRefused")


def test_as_folder(pod: Pod, azure: Azurite) -> None:
    pod.mount("credentials", {"AZURE_STORAGE_KEY": ACCOUNT_KEY})
    message = pod.fetch(f"as://{ACCOUNT}/models/magika/v3", endpoint=azure.endpoint).ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)


def test_as_object(pod: Pod, azure: Azurite) -> None:
    pod.mount("credentials", {"AZURE_STORAGE_KEY": ACCOUNT_KEY})
    message = pod.fetch(f"as://{ACCOUNT}/models/big.onnx", endpoint=azure.endpoint).ok()
    assert message["digest"] == digest_of({"big.onnx": BIG})


def test_as_connection_string(pod: Pod, azure: Azurite) -> None:
    text = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
        f"BlobEndpoint={azure.endpoint};"
    )
    pod.mount("credentials", {"AZURE_STORAGE_CONNECTION_STRING": text})
    azure.put("models", "one", {"net.onnx": ONNX})
    pod.fetch(f"as://{ACCOUNT}/models/one").ok()


@pytest.mark.parametrize("path", ["models/none", "nosuch/x"])
def test_as_nothing_there(pod: Pod, azure: Azurite, path: str) -> None:
    pod.mount("credentials", {"AZURE_STORAGE_KEY": ACCOUNT_KEY})
    pod.fetch(f"as://{ACCOUNT}/{path}", endpoint=azure.endpoint).failed("SourceNotFound")


def test_as_wrong_or_no_key(pod: Pod, azure: Azurite) -> None:
    uri = f"as://{ACCOUNT}/models/magika/v3"
    pod.fetch(uri, endpoint=azure.endpoint).failed("CredentialsMissing")
    pod.mount("credentials", {"AZURE_STORAGE_KEY": ACCOUNT_KEY.replace("E", "F")})
    pod.fetch(uri, endpoint=azure.endpoint).failed("AccessDenied")
    pod.mount("credentials", {"AZURE_STORAGE_KEY": ""})
    pod.fetch(uri, endpoint=azure.endpoint).failed("CredentialsMissing")


def test_as_policy(pod: Pod, azure: Azurite) -> None:
    pod.mount("credentials", {"AZURE_STORAGE_KEY": ACCOUNT_KEY})
    policy: dict[str, list[str]] = {"allowPrivateAddresses": []}
    uri = f"as://{ACCOUNT}/models/magika/v3"
    pod.fetch(uri, endpoint=azure.endpoint, policy=policy).failed("AddressRefused")


def test_as_address_that_is_none(pod: Pod) -> None:
    pod.fetch(f"as://{ACCOUNT}/models").failed("ConfigInvalid")
