"""Files and folders that change in one step: at whatever call a process is killed, two processes at a time."""

import os
import threading

import pytest
from helpers.kills import killed

from regkit._core import files
from regkit._core.files import locked, whole_folder, write_atomically
from regkit._core.records import check_form, parsed, sealed, unsealed
from regkit.types import InputError

OWNED = ("a", "b", "c")


def run(folder, tag, names):
    with whole_folder(folder, owned=OWNED) as part:
        for name in names:
            (part / name).write_text(tag)


def seen(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


@pytest.mark.parametrize("kind", ["alone", "file", "folder", "no exchange"])
def test_a_folder_holds_the_files_of_one_run_after_every_kill(tmp_path, monkeypatch, kind):
    if kind == "no exchange":
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    ends = set()
    for at in range(1, 99):
        out = tmp_path / str(at) / "out"
        run(out, "old", "abc")
        if kind == "folder":
            (out / "mine").mkdir()
        mine = {} if kind != "file" else {"mine": "kept"}
        for name, text in mine.items():
            (out / name).write_text(text)
        if not killed(lambda out=out: run(out, "new", "ab"), at, out.parent):
            break
        found = seen(out)
        whole = [dict.fromkeys("abc", "old") | mine, dict.fromkeys("ab", "new") | mine]
        if kind in ("alone", "file"):
            assert found in whole
            ends.add(found["a"])
        else:  # not in one step: never files of two runs
            assert any(found.items() <= one.items() for one in whole)
        run(out, "third", "c")
        assert seen(out) == {"c": "third"} | mine and [path.name for path in out.parent.iterdir()] == ["out"]
        assert {path.name for path in out.iterdir()} == {"c", *mine, *(["mine"] if kind == "folder" else [])}
    assert at > 12 and (ends == {"old", "new"} or kind not in ("alone", "file"))


def test_what_is_in_the_way_is_told_before_the_work(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="a folder named"), whole_folder(tmp_path, owned=OWNED):
        raise AssertionError("the block was begun")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_part_of_a_run_that_is_alive_stays(tmp_path):
    with whole_folder(tmp_path / "out", owned=OWNED) as part:
        (part / "a").write_text("slow")
        run(tmp_path / "out", "fast", "ab")
        assert seen(tmp_path / "out") == {"a": "fast", "b": "fast"} and part.exists()
    assert seen(tmp_path / "out") == {"a": "slow"} and os.listdir(tmp_path) == ["out"]


def test_nothing_of_two_writers_is_lost(tmp_path):
    path = tmp_path / "rows"
    path.write_text("")

    def write(word):
        for _ in range(10):
            write_atomically(path, lambda: path.read_bytes() + word)

    threads = [threading.Thread(target=write, args=(word,)) for word in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_text()) == ["a"] * 10 + ["b"] * 10 and os.listdir(tmp_path) == ["rows"]
    with locked(tmp_path / "held"), pytest.raises(TimeoutError), locked(tmp_path / "held", seconds=0):
        pass


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"a": []}', '{"a": {"b": NaN}}', '{"a": {"b": true}}', "{}", "5"]
)
def test_json_of_another_form_is_told(text):
    with pytest.raises(InputError, match=r"received .*here"):
        parsed(text, {"a": {str: float}}, "here", "make it again")
    check_form({"a": {"b": 1}, "more": None}, {"a": {str: float}}, "here", "")


def test_one_changed_number_in_a_record_is_noticed(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(sealed({"dice": 0.75, "of": (1, 2)}))
    assert unsealed(path, {"dice": float}, "again") == {"dice": 0.75, "of": [1, 2]}
    path.write_text(path.read_text().replace("0.75", "0.85"))
    with pytest.raises(InputError, match="checksum"):
        unsealed(path, {"dice": float}, "again")
    path.write_text('{"dice": 0.5}')  # of an older version
    assert unsealed(path, {"dice": float}, "again") == {"dice": 0.5}
