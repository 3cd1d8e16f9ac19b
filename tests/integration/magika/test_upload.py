"""The demo's upload makes an S3 prefix equal to a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from e2e.demo.upload import upload
from tests.integration.fetch.seaweed import ACCESS, SECRET, Seaweed

pytestmark = pytest.mark.integration


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Seaweed]:
    with Seaweed(tmp_path / "seaweed") as server:
        yield server


def test_upload(tmp_path: Path, store: Seaweed) -> None:
    folder = tmp_path / "v3"
    (folder / "magika" / "1").mkdir(parents=True)
    (folder / "magika" / "config.pbtxt").write_text("max_batch_size: 1\n")
    (folder / "magika" / "1" / "old.py").write_text("old\n")
    keys = {"endpoint": store.endpoint, "access_key": ACCESS, "secret_key": SECRET}
    assert len(upload(folder, "models/magika/v3", **keys)) == 2

    # A second time, changed: what is gone is gone there, too, and a neighbour is left alone.
    upload(folder, "models/magika/v30", **keys)
    (folder / "magika" / "1" / "old.py").unlink()
    (folder / "magika" / "1" / "model.py").write_text("new\n")
    assert upload(folder, "models/magika/v3", **keys) == [
        "models/magika/v3/magika/1/model.py",
        "models/magika/v3/magika/config.pbtxt",
    ]
    seen = s3fs.S3FileSystem(
        key=ACCESS, secret=SECRET, client_kwargs={"endpoint_url": store.endpoint}
    )
    assert sorted(seen.find("models/magika")) == [
        "models/magika/v3/magika/1/model.py",
        "models/magika/v3/magika/config.pbtxt",
        "models/magika/v30/magika/1/old.py",
        "models/magika/v30/magika/config.pbtxt",
    ]
    assert seen.cat("models/magika/v3/magika/1/model.py") == b"new\n"
