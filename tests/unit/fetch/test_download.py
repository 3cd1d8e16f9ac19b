"""Downloads from a source that does as it is told: cut, slow, wrong; and a disk that fills up."""

import asyncio
import errno
import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.fetch import download as module
from tidegate.fetch.download import Fetched, Limits, Plan, check_listing, discard, download
from tidegate.fetch.errors import (
    ArtifactEmpty,
    ArtifactInvalid,
    ChecksumMismatch,
    DiskFull,
    FetchError,
    SourceUnreachable,
    TooLarge,
)
from tidegate.fetch.retry import Backoff, retry
from tidegate.fetch.source import Listing, RemoteFile

LIMITS = Limits(1 << 30, 100)
FAST = Backoff(attempts=3, base_s=0.0)


@dataclass
class Fake:
    """A source in memory.

    Attributes:
        files: what is there.
        cuts: how many bytes each next read gives before it ends; None: all.
        fails: errors that the next reads raise.
    """

    files: dict[str, bytes]
    cuts: list[int | None] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)
    ranges: bool = True
    sized: bool = True
    reads: list[tuple[str, int, int | None]] = field(default_factory=list)
    extra: bytes = b""
    vouched: bool = False

    async def listing(self) -> Listing:
        return Listing(
            tuple(
                RemoteFile(
                    path,
                    len(data) if self.sized else None,
                    hashlib.md5(data).hexdigest(),
                    path,
                    sha256=hashlib.sha256(b"other").hexdigest() if self.vouched else None,
                )
                for path, data in self.files.items()
            ),
            ranges=self.ranges,
        )

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        self.reads.append((file.path, offset, length))
        assert self.ranges or (offset == 0 and length in (None, file.size))
        if self.fails:
            raise self.fails.pop(0)
        data = self.files[file.path][offset : None if length is None else offset + length]
        cut = self.cuts.pop(0) if self.cuts else None
        data = data[:cut] + self.extra
        for at in range(0, len(data), 3):
            await asyncio.sleep(0)
            yield data[at : at + 3]

    async def close(self) -> None:
        return


def get(
    source: Fake, folder: Path, segment: int = 10, limits: Limits = LIMITS, workers: int = 3
) -> list[Fetched]:
    async def run() -> list[Fetched]:
        listing = await source.listing()
        return await download(source, listing, folder, limits, Plan(segment, workers, FAST))

    return asyncio.run(run())


def right(source: Fake, fetched: list[Fetched]) -> None:
    assert [f.file.path for f in fetched] == list(source.files)
    for one in fetched:
        data = source.files[one.file.path]
        assert one.path.read_bytes() == data
        assert (one.size, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    files=st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=60), min_size=1),
    cuts=st.lists(st.one_of(st.none(), st.integers(0, 12)), max_size=8),
    segment=st.integers(1, 70),
    ranges=st.booleans(),
    sized=st.booleans(),
)
def test_cuts_and_sizes_never_change_the_bytes(
    tmp_path: Path,
    files: dict[str, bytes],
    cuts: list[int | None],
    segment: int,
    ranges: bool,
    sized: bool,
) -> None:
    discard(tmp_path / "parts")
    source = Fake(files, cuts if sized else [], ranges=ranges, sized=sized)
    try:
        right(source, get(source, tmp_path / "parts", segment))
    except SourceUnreachable:
        # Only a segment that gains nothing three times in a row gives up.
        assert cuts.count(0) >= 3 or not ranges or len(cuts) >= 3


def test_an_attempt_that_ended_is_gone_on_with(tmp_path: Path) -> None:
    data = bytes(range(100))
    source = Fake({"a": data, "b": b"small"})
    source.fails = [ArtifactInvalid("x", "y", "stop", "here")]
    source.reads.clear()

    async def stop_after(n: int) -> None:
        listing = await source.listing()
        with pytest.raises(FetchError):
            await download(source, listing, tmp_path, LIMITS, Plan(10, 1, FAST))

    source.fails = []
    original = source.read

    def failing(file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        if offset == 50:
            raise ArtifactInvalid("x", "y", "stop", "here")
        return original(file, offset, length)

    source.read = failing  # type: ignore[method-assign]
    asyncio.run(stop_after(5))
    source.read = original  # type: ignore[method-assign]
    source.reads.clear()
    right(source, get(source, tmp_path))
    assert {r[:2] for r in source.reads} == {*(("a", n) for n in range(50, 100, 10)), ("b", 0)}
    # And once it is whole, nothing is read at all.
    source.reads.clear()
    right(source, get(source, tmp_path))
    assert source.reads == []


def test_another_version_begins_anew(tmp_path: Path) -> None:
    get(Fake({"a": b"1" * 30}), tmp_path)
    source = Fake({"a": b"2" * 30})
    right(source, get(source, tmp_path))
    assert len(source.reads) == 3


def test_another_segment_size_begins_anew(tmp_path: Path) -> None:
    source = Fake({"a": bytes(range(30))})
    get(source, tmp_path, segment=10)
    right(source, get(source, tmp_path, segment=7))


@pytest.mark.parametrize("journal", ["", "{", "[]", "\n0\n1\n2\n", '{"a": 1}\n0\n'])
def test_a_broken_journal_begins_anew(tmp_path: Path, journal: str) -> None:
    source = Fake({"a": bytes(range(30))})
    get(source, tmp_path)
    (tmp_path / "0.journal").write_text(journal)
    right(source, get(source, tmp_path))


def test_a_journal_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    source = Fake({"a": bytes(range(250)) * 2})
    get(source, tmp_path, segment=10)
    text = (tmp_path / "0.journal").read_text().split("\n")
    (tmp_path / "0.journal").write_text("\n".join([text[0], "1", "2"]))  # "20" cut to "2"?
    source.reads.clear()
    right(source, get(source, tmp_path, segment=10))
    assert ("a", 20, 10) in source.reads
    assert ("a", 10, 10) not in source.reads


def test_a_part_shorter_than_its_journal(tmp_path: Path) -> None:
    source = Fake({"a": bytes(range(30))})
    get(source, tmp_path)
    (tmp_path / "0.part").write_bytes(b"short")
    source.reads.clear()
    right(source, get(source, tmp_path))
    assert len(source.reads) == 3


def test_a_longer_file_than_announced(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid, match="longer"):
        get(Fake({"a": b"x" * 5}, extra=b"more"), tmp_path)


def test_the_sources_own_digest_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ChecksumMismatch):
        get(Fake({"a": b"x" * 5}, vouched=True), tmp_path)
    assert not (tmp_path / "0.part").exists()


def test_too_much_of_an_unknown_size(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        get(Fake({"a": b"x" * 50}, sized=False), tmp_path, limits=Limits(40, 10))


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Usage:
        free: int = 29

    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage())  # type: ignore[attr-defined]
    with pytest.raises(DiskFull, match="30 bytes are needed, 29 are free"):
        get(Fake({"a": bytes(30)}), tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(*_: Any) -> int:
        raise OSError(code, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull):
        get(Fake({"a": bytes(30)}), tmp_path)


def _remote(**sizes: int | None) -> Listing:
    return Listing(tuple(RemoteFile(p, s) for p, s in sizes.items()))


@pytest.mark.parametrize(
    ("listing", "error"),
    [
        (Listing(()), ArtifactEmpty),
        (_remote(a=0, b=0), ArtifactEmpty),
        (_remote(a=1, b=2, c=3), TooLarge),
        (_remote(a=11), TooLarge),
        (Listing((RemoteFile("../a", 1),)), ArtifactInvalid),
        (Listing((RemoteFile("a", 1), RemoteFile("a", 1))), ArtifactInvalid),
    ],
)
def test_listings_that_are_refused(listing: Listing, error: type[FetchError]) -> None:
    with pytest.raises(error):
        check_listing(listing, Limits(10, 2), "s3://x/y")


def test_a_listing_has_an_identity_only_if_the_source_tells_versions() -> None:
    a, b = RemoteFile("a", 1, "v1"), RemoteFile("b", 1, "v1")
    assert Listing((a, b)).identity == Listing((b, a)).identity
    assert Listing((a,)).identity != Listing((RemoteFile("a", 1, "v2"),)).identity
    assert Listing((a, RemoteFile("c", 1))).identity is None


def test_waits_grow_and_end() -> None:
    backoff = Backoff(base_s=0.5, cap_s=20)
    for failures in range(1, 12):
        longest = min(20, 0.5 * 2 ** (failures - 1))
        assert longest / 2 <= backoff.wait_s(failures) <= longest
    assert backoff.wait_s(1, asked_s=7) == 7
    assert backoff.wait_s(1, asked_s=7000) == 20


@pytest.mark.parametrize(("gain_each", "tries"), [(0, 3), (1, 10)])
def test_progress_counts_failures_anew(gain_each: int, tries: int) -> None:
    gained = calls = 0

    async def operation() -> str:
        nonlocal gained, calls
        calls += 1
        gained += gain_each
        if calls < 10:
            raise SourceUnreachable("a", "b", "c", "d")
        return "done"

    async def run() -> str:
        return await retry(operation, FAST, lambda: gained)

    if tries == 10:
        assert asyncio.run(run()) == "done"
    else:
        with pytest.raises(SourceUnreachable):
            asyncio.run(run())
    assert calls == tries


def test_the_journal_names_what_it_belongs_to(tmp_path: Path) -> None:
    get(Fake({"a": bytes(30)}), tmp_path)
    first = json.loads((tmp_path / "0.journal").read_text().split("\n")[0])
    assert first["path"] == "a"
    assert first["size"] == 30
