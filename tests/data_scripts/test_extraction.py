"""Archives stay in their folder, are refused as a whole, and can be extracted in two goes."""

import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile

import pytest

from data_scripts.common import extraction
from data_scripts.common.errors import DatasetError
from data_scripts.common.extraction import extract


def make_tar(path, members, mode="w"):
    """members: names with bytes, or TarInfo objects with a type of their own."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            body = b"" if info is content else content
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return path


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def everything_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GOOD = [("data/a.txt", b"first"), ("data/deep/b.txt", b"second"), ("other/c.bin", b"third")]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz", "no ending"])
def test_archives_are_known_by_content(tmp_path, kind):
    path = tmp_path / f"archive.{kind}"
    if kind == "zip":
        make_zip(path, GOOD)
    else:
        make_tar(path, GOOD, {"tar.gz": "w:gz", "tar.xz": "w:xz"}.get(kind, "w"))
    written = extract(path, tmp_path / "out")
    assert everything_below(tmp_path / "out") == dict(GOOD)
    assert [file.relative_to(tmp_path / "out").as_posix() for file in written] == [name for name, _ in GOOD]


def test_only_what_is_wanted_is_written(tmp_path):
    extract(make_tar(tmp_path / "a.tar", GOOD), tmp_path / "out", ["*/b.txt", "other/*"])
    assert set(everything_below(tmp_path / "out")) == {"data/deep/b.txt", "other/c.bin"}


def test_a_second_run_writes_only_what_is_missing(tmp_path):
    archive, out = make_zip(tmp_path / "a.zip", GOOD), tmp_path / "out"
    extract(archive, out)
    (out / "data/a.txt").write_bytes(b"FIRST")  # of the same size: taken as it is
    (out / "data/deep/b.txt").write_bytes(b"sec")  # cut short: written again
    extract(archive, out)
    assert everything_below(out) == dict(GOOD) | {"data/a.txt": b"FIRST"}


HOSTILE_NAMES = ["/etc/evil", "../evil", "data/../../evil", "C:/evil", "..\\evil", "\\\\host\\evil"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name, make):
    archive = make(tmp_path / "archive", [*GOOD, (name, b"evil")])
    with pytest.raises(DatasetError, match=r"archive whose member .*evil.* leads out of the folder; nothing was"):
        extract(archive, tmp_path / "deep/out")
    assert everything_below(tmp_path) == {"archive": archive.read_bytes()}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE], ids=str
)
def test_links_and_devices_are_refused(tmp_path, kind):
    (tmp_path / "secret").write_bytes(b"secret")
    evil = special("data/link", kind, str(tmp_path / "secret"))
    archive = make_tar(tmp_path / "a.tar", [*GOOD, ("", evil), ("data/link", b"through the link")])
    with pytest.raises(DatasetError, match=r"data/link.* is a link or a device; nothing was extracted"):
        extract(archive, tmp_path / "out")
    assert (tmp_path / "secret").read_bytes() == b"secret" and not (tmp_path / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("data/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DatasetError, match="is a link or a device"):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_nothing_is_written_through_a_link_that_is_there(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "out/data")
    with pytest.raises(DatasetError, match="would be written through a link"):
        extract(make_tar(tmp_path / "a.tar", GOOD), tmp_path / "out")
    assert everything_below(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize("make", [make_zip, lambda path, members: make_tar(path, members, "w:gz")], ids=["zip", "tar"])
def test_a_bomb_is_refused_by_its_size_and_by_its_ratio(tmp_path, make, monkeypatch):
    monkeypatch.setattr(extraction, "_FREE", 1000)
    archive = make(tmp_path / "bomb", [("zeros", bytes(2_000_000))])
    with pytest.raises(DatasetError, match=r"must unpack to at most .* bytes, received bomb"):
        extract(archive, tmp_path / "out")
    with pytest.raises(DatasetError, match="at most 1,999,999 bytes"):
        extract(archive, tmp_path / "out", largest=1_999_999, densest=1e9)
    assert not (tmp_path / "out").exists()
    extract(archive, tmp_path / "out", largest=2_000_000, densest=1e9)
    assert (tmp_path / "out/zeros").stat().st_size == 2_000_000


def test_a_bomb_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "_FREE", 1000)
    header = tarfile.TarInfo("huge")
    header.size = 2**40
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(header.tobuf() + bytes(512)))
    with pytest.raises(DatasetError, match="must unpack to at most"):
        extract(tmp_path / "bomb.tar.gz", tmp_path / "out")


def test_a_member_that_is_larger_than_it_says_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("data", b"0123456789" * 100)])
    content = bytearray(archive.read_bytes())
    for place in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        content[place : place + 4] = (10).to_bytes(4, "little")  # the size without packing
    archive.write_bytes(content)
    with pytest.raises(DatasetError):
        extract(archive, tmp_path / "out")
    assert everything_below(tmp_path / "out") == {}


@pytest.mark.parametrize("make", [make_zip, make_tar, lambda path, members: make_tar(path, members, "w:gz")])
def test_a_truncated_archive_is_named(tmp_path, make):
    archive = make(tmp_path / "archive", [(f"{name}{i}", os.urandom(4000)) for name, _ in GOOD for i in range(5)])
    archive.write_bytes(archive.read_bytes()[:30_000])
    with pytest.raises(DatasetError, match=r"an archive must be (whole|tar or zip), received .*archive"):
        extract(archive, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_damaged_member_is_named_and_not_left(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("data", os.urandom(5000))])
    content = bytearray(archive.read_bytes())
    content[2000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="must be whole"):
        extract(archive, tmp_path / "out")
    assert everything_below(tmp_path / "out") == {}


def test_what_is_no_archive_is_named(tmp_path):
    (tmp_path / "page").write_bytes(b"<!DOCTYPE html> please log in")
    with pytest.raises(DatasetError, match=r"must be tar or zip, received .*page, which begins with b'<!DOCTYPE html>"):
        extract(tmp_path / "page", tmp_path / "out")


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(extraction.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DatasetError, match=r"received 10 bytes free .* where 16 are needed"):
        extract(make_tar(tmp_path / "a.tar", GOOD), tmp_path / "out")
    assert everything_below(tmp_path / "out") == {}
