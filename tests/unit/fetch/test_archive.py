"""Archives: what is unpacked, what is refused, and that nothing ever leaves the root."""

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.fetch.archive import MAX_HEADER_BYTES, RATIO_FREE_BYTES, Extractor, is_archive
from tidegate.fetch.download import Limits
from tidegate.fetch.errors import ArchiveUnsafe, ArtifactInvalid, FetchError, TooLarge

LIMITS = Limits(max_bytes=1 << 30, max_files=1000)
Member = tuple[str, bytes | None, bytes, str]  # name, data, type, link


def member(
    name: str, data: bytes | None = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> Member:
    return name, data, kind, link


def tar(members: list[Member], fmt: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as archive:
        for name, data, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


def make_zip(files: dict[str, bytes], mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = method
            z.writestr(info, data)
    return out.getvalue()


def extract(tmp_path: Path, data: bytes, name: str = "m.tar", limits: Limits = LIMITS) -> Extractor:
    packed = tmp_path / "packed"
    packed.write_bytes(data)
    root = tmp_path / "outer" / "root"
    root.mkdir(parents=True, exist_ok=True)
    extractor = Extractor(root, limits)
    extractor.extract(packed, name)
    return extractor


def on_disk(tmp_path: Path) -> dict[str, bytes]:
    root = tmp_path / "outer" / "root"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


PLAIN = tar([member("./1/model.py", b"abc"), member("1/", None, tarfile.DIRTYPE), member("c", b"")])


def _zst(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


def _bz2(data: bytes) -> bytes:
    import bz2

    return bz2.compress(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.tar", PLAIN),
        ("m.tar.gz", gzip.compress(PLAIN)),
        ("m.tgz", gzip.compress(PLAIN[:1024]) + gzip.compress(PLAIN[1024:])),
        ("m.tar.zst", _zst(PLAIN)),
        ("m.tar.bz2", _bz2(PLAIN)),
        ("m.zip", make_zip({"1/model.py": b"abc", "c": b""})),
    ],
)
def test_every_kind_is_unpacked(tmp_path: Path, name: str, data: bytes) -> None:
    assert is_archive(name)
    found = extract(tmp_path, data, name)
    assert on_disk(tmp_path) == {"1/model.py": b"abc", "c": b""}
    assert {p: size for p, (size, _) in found.files.items()} == {"1/model.py": 3, "c": 0}


@pytest.mark.parametrize(
    "members",
    [
        [member("/etc/passwd")],
        [member("../evil")],
        [member("a/../../evil")],
        [member("a/b\\..\\c")],
        [member("l", None, tarfile.SYMTYPE, "/etc/passwd")],
        [member("l", None, tarfile.SYMTYPE, "../.."), member("l/evil")],
        [member("h", None, tarfile.LNKTYPE, "/etc/passwd")],
        [member("a"), member("h", None, tarfile.LNKTYPE, "a")],
        [member("d", None, tarfile.CHRTYPE)],
        [member("p", None, tarfile.FIFOTYPE)],
        [member("a", b"1"), member("a", b"2")],
        [member("a", b"1"), member("./a", b"2")],
        [member("a", b"1"), member("a/b", b"2")],
        [member("a/b", b"1"), member("a", b"2")],
        [member("a" * 300)],
        [member("bell\x07")],
    ],
)
@pytest.mark.parametrize("fmt", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_unsafe_tars(tmp_path: Path, members: list[Member], fmt: int) -> None:
    with pytest.raises(ArchiveUnsafe):
        extract(tmp_path, tar(members, fmt))
    assert not list(tmp_path.rglob("evil"))
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("files", "mode"),
    [
        ({"../evil": b"x"}, 0),
        ({"/evil": b"x"}, 0),
        ({"a/../../evil": b"x"}, 0),
        ({"l": b"/etc/passwd"}, stat.S_IFLNK | 0o777),
        ({"p": b""}, stat.S_IFIFO),
        ({"a": b"", "a/b": b""}, 0),
    ],
)
def test_unsafe_zips(tmp_path: Path, files: dict[str, bytes], mode: int) -> None:
    with pytest.raises(ArchiveUnsafe):
        extract(tmp_path, make_zip(files, mode), "m.zip")
    assert not list(tmp_path.rglob("evil"))


def test_bombs(tmp_path: Path) -> None:
    # What is free, and a little more.
    zeros = bytes(RATIO_FREE_BYTES + (1 << 20))
    for name, data in (
        ("m.tar.gz", gzip.compress(tar([member("z", zeros)]), compresslevel=1)),
        ("m.zip", make_zip({"z": zeros})),
    ):
        with pytest.raises(ArchiveUnsafe, match="bomb"):
            extract(tmp_path / name, _ensure(tmp_path / name, data), name)


def _ensure(folder: Path, data: bytes) -> bytes:
    folder.mkdir()
    return data


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    data = bytearray(make_zip({"z": bytes(1 << 20)}))
    # Both headers say 10 bytes; the limit still counts what comes out.
    for at in range(len(data) - 4):
        if data[at : at + 4] == (1 << 20).to_bytes(4, "little"):
            data[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(FetchError):
        extract(tmp_path, bytes(data), "m.zip", Limits(1000, 10))


def test_a_header_that_would_fill_the_memory(tmp_path: Path) -> None:
    long_name = tar([member("x" * (MAX_HEADER_BYTES + 10))], tarfile.GNU_FORMAT)
    with pytest.raises(ArchiveUnsafe, match="header"):
        extract(tmp_path, long_name)


def test_much_after_the_end(tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnsafe, match="follows"):
        extract(
            tmp_path,
            gzip.compress(PLAIN + bytes(RATIO_FREE_BYTES + (1 << 20)), compresslevel=1),
            "m.tar.gz",
        )


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (Limits(10, 100), tar([member("a", b"x" * 11)])),
        (Limits(10, 100), tar([member("a", b"x" * 6), member("b", b"x" * 6)])),
        (Limits(1000, 2), tar([member(str(i)) for i in range(3)])),
        (Limits(1000, 2), tar([member(str(i), None, tarfile.DIRTYPE) for i in range(3)])),
    ],
)
def test_too_large(tmp_path: Path, limits: Limits, data: bytes) -> None:
    with pytest.raises(TooLarge):
        extract(tmp_path, data, limits=limits)


def test_an_encrypted_zip(tmp_path: Path) -> None:
    data = bytearray(make_zip({"a": b"abc"}, method=zipfile.ZIP_STORED))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArtifactInvalid, match="Pack it openly"):
        extract(tmp_path, bytes(data), "m.zip")


BIG = tar([member("a", bytes(range(256)) * 400), member("b", b"tail" * 300)])


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tar.zst", "m.tar.bz2", "m.zip"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_cut_off_archives(tmp_path: Path, name: str, share: float) -> None:
    pack = {"gz": gzip.compress, "zst": _zst, "bz2": _bz2}
    files = {"a": bytes(range(256)) * 400, "b": b"tail" * 300}
    whole = make_zip(files) if name.endswith("zip") else pack[name.rpartition(".")[2]](BIG)
    with pytest.raises(ArtifactInvalid):
        extract(tmp_path, whole[: int(len(whole) * share)], name)


def test_a_flipped_bit(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(BIG))
    data[-6] ^= 1  # in the checksum at the end
    with pytest.raises(ArtifactInvalid):
        extract(tmp_path, bytes(data), "m.tar.gz")


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=600), at=st.integers(0, 1500), name=st.sampled_from(["m.tar", "m.zip"])
)
def test_damaged_archives_fail_in_our_words_or_stay_inside(
    tmp_path: Path, data: bytes, at: int, name: str
) -> None:
    base = make_zip({"1/a": b"x" * 600, "b": b""}) if name == "m.zip" else PLAIN
    damaged = base[:at] + data + base[at + len(data) :]
    try:
        found = extract(tmp_path, damaged, name).files
    except FetchError:
        found = {}
    assert {p.name for p in tmp_path.iterdir()} <= {"packed", "outer"}
    assert {p.name for p in (tmp_path / "outer").iterdir()} == {"root"}
    assert all((tmp_path / "outer/root" / p).is_file() for p in found)
    _empty(tmp_path)


def _empty(tmp_path: Path) -> None:
    import shutil

    shutil.rmtree(tmp_path / "outer", ignore_errors=True)


def test_names_of_archives() -> None:
    assert is_archive("X.TAR.GZ")
    assert not is_archive("model.pt")
    assert not is_archive("tar.gz.onnx")
