"""Downloads resume, are verified and remembered; what is wrong with a source is said."""

import hashlib
from dataclasses import replace

import pytest
from helpers.local_server import serving

from data_scripts.common import fetching
from data_scripts.common.errors import DatasetError
from data_scripts.common.fetching import Source, fetch, recorded_checksums

CONTENT = bytes(range(256)) * 500


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    monkeypatch.setattr(fetching, "PAUSE", 0.0)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/data.tar").write_bytes(CONTENT)
    with serving(tmp_path / "site") as running:
        yield running


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def source(server, checksum=None):
    return Source("data.tar", (f"{server.address}/data.tar",), checksum)


@pytest.mark.parametrize("checksum", [None, sha256(CONTENT), f"md5:{hashlib.md5(CONTENT).hexdigest()}"])
def test_a_file_is_fetched_once_and_its_checksum_recorded(server, tmp_path, checksum):
    path = fetch(source(server, checksum), tmp_path / "kept", progress=False)
    assert path.read_bytes() == CONTENT
    assert recorded_checksums(tmp_path / "kept") == {"data.tar": sha256(CONTENT)}
    fetch(source(server, checksum), tmp_path / "kept", progress=False)
    assert len(server.requests) == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["checksums.json", "data.tar"]


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.breaking = 3 * 2**14
    for arrived in (49_152, 98_304):
        with pytest.raises(DatasetError, match=f"received {arrived} bytes.*goes on where it stopped"):
            fetch(source(server), tmp_path, progress=False)
    assert not (tmp_path / "data.tar").exists()
    assert fetch(source(server), tmp_path, progress=False).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=49152-", "bytes=98304-"]
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.tag"))


def test_a_broken_connection_is_tried_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 4)
    server.breaking = 3 * 2**14
    assert fetch(source(server), tmp_path, progress=False).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_download_starts_anew_where_it_cannot_go_on(server, tmp_path):
    server.breaking = 3 * 2**14
    with pytest.raises(DatasetError):
        fetch(source(server), tmp_path, progress=False)
    server.ranges, server.breaking = False, None
    assert fetch(source(server), tmp_path, progress=False).read_bytes() == CONTENT


def test_pieces_of_two_versions_are_not_mixed(server, tmp_path):
    server.breaking = 3 * 2**14
    with pytest.raises(DatasetError):
        fetch(source(server), tmp_path, progress=False)
    server.breaking = None
    newer = CONTENT[::-1]
    (server.folder / "data.tar").write_bytes(newer)
    assert fetch(source(server), tmp_path, progress=False).read_bytes() == newer


def test_what_had_arrived_whole_is_not_fetched_again(server, tmp_path):
    (tmp_path / "data.tar.part").write_bytes(CONTENT)
    assert fetch(source(server), tmp_path, progress=False).read_bytes() == CONTENT
    (tmp_path / "data.tar").unlink()
    (tmp_path / "data.tar.part").write_bytes(CONTENT + b"too long")
    assert fetch(source(server), tmp_path, progress=False).read_bytes() == CONTENT


def test_another_checksum_is_an_error_and_leaves_nothing(server, tmp_path):
    with pytest.raises(DatasetError, match=r"checksum that was published, received another for data\.tar"):
        fetch(source(server, sha256(b"something else")), tmp_path, progress=False)
    assert list(tmp_path.glob("data*")) == []


def test_a_source_that_changes_after_the_first_fetch_is_noticed(server, tmp_path):
    fetch(source(server), tmp_path, progress=False).unlink()
    (server.folder / "data.tar").write_bytes(CONTENT[::-1])
    with pytest.raises(DatasetError, match=r"checksum that was recorded.*remove .*checksums\.json"):
        fetch(source(server), tmp_path, progress=False)
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(DatasetError, match="table of checksums"):
        fetch(source(server), tmp_path, progress=False)


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    path = fetch(source(server), tmp_path, progress=False)
    path.write_bytes(CONTENT[:-1])
    assert fetch(source(server), tmp_path, progress=False).read_bytes() == CONTENT


def test_the_next_mirror_is_used(server, tmp_path):
    missing, present = f"{server.address}/missing.tar", f"{server.address}/data.tar"
    mirrored = replace(source(server), addresses=(missing, present))
    assert fetch(mirrored, tmp_path, progress=False).read_bytes() == CONTENT
    with pytest.raises(DatasetError, match="404"):
        fetch(Source("other", (missing,)), tmp_path, progress=False)
    with pytest.raises(DatasetError, match="must have an address"):
        fetch(Source("other", ()), tmp_path, progress=False)


def test_a_web_page_is_no_file(server, tmp_path):
    server.page = True
    with pytest.raises(DatasetError, match=r"received a web page.*--from"):
        fetch(source(server), tmp_path, progress=False)
    assert list(tmp_path.glob("data*")) == []


def test_progress_is_shown(server, tmp_path, capfd):
    fetch(source(server), tmp_path)
    assert "data.tar" in capfd.readouterr().err
