"""s3 against a real SeaweedFS."""

import pytest

from tests.integration.fetch.models import PYTHON_MODEL, digest_of, tar_gz
from tests.integration.fetch.pod import Pod
from tests.integration.fetch.seaweed import ACCESS, SECRET, Seaweed

pytestmark = pytest.mark.integration
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}


def test_a_folder_becomes_a_model(pod: Pod, s3: Seaweed) -> None:
    s3.put("models", "magika/v3", PYTHON_MODEL)
    s3.put("models", "magika/v33", {"config.pbtxt": b"other"})
    pod.mount("credentials", KEYS)
    message = pod.fetch("s3://models/magika/v3", endpoint=s3.endpoint).ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)
    assert (message["files"], message["backend"], message["layout"]) == (3, "python", "repository")
    assert message["bytes"] == sum(map(len, PYTHON_MODEL.values()))
    assert pod.files() == ["m/1/model.py", "m/1/weights.bin", "m/config.pbtxt"]
    assert (pod.models / "m/1/weights.bin").read_bytes() == PYTHON_MODEL["1/weights.bin"]
    assert pod.config().name == "m"
    assert pod.config().max_batch_size == 8
    assert [p.name for p in pod.models.iterdir()] == ["m"]


def test_one_archive(pod: Pod, s3: Seaweed) -> None:
    s3.put("models", "packed/m.tar.gz", {"": tar_gz(PYTHON_MODEL)})
    pod.mount("credentials", KEYS)
    message = pod.fetch("s3://models/packed/m.tar.gz", endpoint=s3.endpoint).ok()
    assert message["digest"] == digest_of(PYTHON_MODEL)


def test_a_public_bucket_needs_no_secret(pod: Pod, s3: Seaweed) -> None:
    s3.put("public", "v1", PYTHON_MODEL)
    assert pod.fetch("s3://public/v1", endpoint=s3.endpoint).ok()["files"] == 3


def test_without_secret(pod: Pod, s3: Seaweed) -> None:
    s3.put("models", "private", PYTHON_MODEL)
    text = pod.fetch("s3://models/private", endpoint=s3.endpoint).failed("CredentialsMissing")
    assert "spec.model.source.secretName" in text
    assert "AWS_ACCESS_KEY_ID" in text


def test_wrong_keys(pod: Pod, s3: Seaweed) -> None:
    pod.mount("credentials", {**KEYS, "AWS_SECRET_ACCESS_KEY": "not-it-at-all"})
    outcome = pod.fetch("s3://models/magika/v3", endpoint=s3.endpoint)
    text = outcome.failed("AccessDenied")
    assert "not-it-at-all" not in text + outcome.log


def test_keys_of_somebody_else(pod: Pod, s3: Seaweed) -> None:
    pod.mount(
        "credentials",
        {"AWS_ACCESS_KEY_ID": "stranger", "AWS_SECRET_ACCESS_KEY": "stranger-secret"},
    )
    pod.fetch("s3://models/magika/v3", endpoint=s3.endpoint).failed("AccessDenied")


def test_a_secret_that_lacks_a_key(pod: Pod, s3: Seaweed) -> None:
    pod.mount("credentials", {"AWS_ACCESS_KEY_ID": ACCESS})
    text = pod.fetch("s3://models/x/y", endpoint=s3.endpoint).failed("CredentialsMissing")
    assert "AWS_SECRET_ACCESS_KEY" in text


@pytest.mark.parametrize("uri", ["s3://models/nothing/here", "s3://no-such-bucket/v1"])
def test_nothing_there(pod: Pod, s3: Seaweed, uri: str) -> None:
    pod.mount("credentials", KEYS)
    assert uri in pod.fetch(uri, endpoint=s3.endpoint).failed("SourceNotFound")


def test_nothing_there_any_more(pod: Pod, s3: Seaweed) -> None:
    pod.mount("credentials", KEYS)
    pod.mount("pin", {"digest": digest_of(PYTHON_MODEL)})
    pod.fetch("s3://models/nothing/here", endpoint=s3.endpoint).failed("ArtifactGone")


def test_other_bytes_than_pinned(pod: Pod, s3: Seaweed) -> None:
    s3.put("models", "moving", PYTHON_MODEL)
    pod.mount("credentials", KEYS)
    first = pod.fetch("s3://models/moving", endpoint=s3.endpoint).ok()
    pod.mount("pin", {"digest": first["digest"]})
    pod.fetch("s3://models/moving", endpoint=s3.endpoint).ok()
    s3.put("models", "moving", {"1/weights.bin": b"other"})
    text = pod.fetch("s3://models/moving", endpoint=s3.endpoint).failed("SourceMoved")
    assert first["digest"] in text


def test_a_look_sees_what_a_fetch_would(pod: Pod, s3: Seaweed) -> None:
    s3.put("models", "followed", PYTHON_MODEL)
    pod.mount("credentials", KEYS)
    where = {"uri": "s3://models/followed", "endpoint": s3.endpoint}
    fetched = pod.fetch(**where).ok()
    assert "sourceAddress" not in fetched
    same = {"sourceVersion": fetched["sourceVersion"], "sourceAddress": None}
    assert pod.look(**where).ok() == same
    s3.put("models", "followed", {"1/weights.bin": b"other"})
    assert pod.look(**where).ok()["sourceVersion"] != fetched["sourceVersion"]
    gone = {**where, "uri": "s3://models/followed-no-more"}
    pod.look(**gone).failed("SourceNotFound")


def test_an_endpoint_inside_is_refused_unless_the_platform_allows_it(pod: Pod, s3: Seaweed) -> None:
    pod.mount("credentials", KEYS)
    text = pod.fetch(
        "s3://models/magika/v3", endpoint=s3.endpoint, policy={"allowPrivateAddresses": []}
    ).failed("AddressRefused")
    assert "127.0.0.1" in text
    assert "fetch.allowPrivateAddresses" in text
    text = pod.fetch(
        "s3://models/magika/v3",
        endpoint=s3.endpoint,
        policy={"allowedHosts": ["*.amazonaws.com"]},
    ).failed("AddressRefused")
    assert "*.amazonaws.com" in text


def test_an_endpoint_that_is_dead(pod: Pod) -> None:
    pod.mount("credentials", KEYS)
    text = pod.fetch("s3://models/x", endpoint="http://127.0.0.1:9").failed("SourceUnreachable")
    assert "http://127.0.0.1:9" in text
