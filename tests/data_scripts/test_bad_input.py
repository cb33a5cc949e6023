"""Bad input, a full disk, an interruption: each named, nothing half-written, nothing outside the folder touched."""

import ast
import errno
import gzip
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.local_server import serving
from helpers.raw_datasets import MAKERS, save, served, small

import data_scripts
from data_scripts import copdgene, drive, oai, oasis
from data_scripts.common import layout
from data_scripts.common.command import main
from data_scripts.common.datasets import Files
from data_scripts.common.errors import DatasetError, explained

NAME = "OASIS_OAS1_0001_MR1"


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


@pytest.fixture
def dataset(tmp_path, raw):
    made = MAKERS["oasis"](raw, tmp_path / "site")
    (name, variant), *_ = made.variants.items()
    return replace(made, variants={name: replace(variant, sources=())})


@pytest.fixture
def run(dataset, raw, tmp_path, capsys):
    """Prepare from the raw files; returns the exit status, what was printed, and what was complained of."""

    def prepare(*arguments, origin=raw, of=dataset):
        given = [] if origin is None else ["--from", str(origin)]
        status = main(of, [str(tmp_path / "out/prepared"), "--quiet", *given, *arguments])
        return status, *capsys.readouterr()

    return prepare


@pytest.fixture
def fails(run, tmp_path):
    """A run ends with one line that says what is wrong, and what was prepared before is as it was."""

    def failing(message, *arguments, **options):
        before = contents(prepared_folder(tmp_path))
        status, _, error = run(*arguments, **options)
        assert status == 1 and error.startswith("error: ") and message in error, error
        assert error.count("\n") == 1 and contents(prepared_folder(tmp_path)) == before

    return failing


def contents(path):
    """All that is there; nothing where there is nothing."""
    return {each: each.is_file() and each.read_bytes() for each in [*path.rglob("*"), path] if each.exists()}


def prepared_folder(tmp_path):
    return tmp_path / "out/prepared"


def test_the_wrong_folder(fails, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/holiday.jpg").write_bytes(b"")
    fails("must hold one file subjects.txt, received 0", origin=tmp_path / "other")
    fails("must go to a folder and come from one", origin=tmp_path / "missing")
    candi = MAKERS["candi"](tmp_path / "children", tmp_path / "archives")
    message = "received none among the 1 files below"
    fails(message, of=candi, origin=tmp_path / "other")


def test_a_folder_inside_the_one_that_is_read(dataset, raw, capsys):
    assert main(dataset, [str(raw / "out"), "--from", str(raw)]) == 1
    assert "must not be inside the one that is read" in capsys.readouterr().err
    assert not (raw / "out").exists()


def test_missing_files(fails, raw):
    (raw / NAME / "aligned_seg35.nii.gz").unlink()
    fails(f"each scan must have the file {{id}}/aligned_seg35.nii.gz, received none for {NAME}")
    shutil.rmtree(raw / NAME)
    fails("must hold all 6 scans, since the split counts them, received 5")


def test_extra_files(fails, raw):
    shutil.copytree(raw / NAME, raw / "OASIS_OAS1_9999_MR1")
    fails("must hold all 6 scans, since the split counts them, received 7")
    shutil.rmtree(raw / "OASIS_OAS1_9999_MR1")
    shutil.copytree(raw / NAME, raw / f"copy/{NAME}")
    fails(f"each scan must have one file, received two for {NAME}")


def test_a_label_map_of_another_size(fails, raw):
    save(raw / NAME / "aligned_seg35.nii.gz", np.ones((14, 20, 17), np.int16), "LIA")
    fails(f"must have the size of its image, received (14, 17, 20) for an image of (14, 18, 20) of {NAME}")


def test_scans_of_another_size(fails, raw):
    for file in ("aligned_norm", "aligned_seg35"):
        save(raw / NAME / f"{file}.nii.gz", np.arange(14 * 21 * 18).reshape(14, 21, 18).astype(np.int16) % 36, "LIA")
    fails(f"must be (14, 16, 16) voxels in some order of axes, received (14, 16, 17) of {NAME}")
    for file in ("aligned_norm", "aligned_seg35"):
        save(raw / NAME / f"{file}.nii.gz", np.ones((14, 4, 18), np.int16), "LIA")
    fails("a crop must leave voxels")


def test_labels_that_the_dataset_does_not_have(fails, raw):
    save(raw / NAME / "aligned_seg35.nii.gz", np.full((14, 20, 18), 36, np.int16), "LIA")
    fails(f"must hold numbers of the dataset only, received [36] in {NAME}")
    save(raw / NAME / "aligned_seg35.nii.gz", np.full((14, 20, 18), 0.5, np.float32), "LIA")
    fails(f"{NAME}: labels must be whole numbers")


def test_damaged_files(run, raw, tmp_path):
    path = raw / NAME / "aligned_norm.nii.gz"
    whole = path.read_bytes()
    cut = gzip.compress(gzip.decompress(whole)[:5000])
    for content in (whole[:200], b"", b"no gzip at all", cut, whole[:-4] + b"crc!"):
        path.write_bytes(content)
        status, _, error = run()
        assert status == 1 and error.startswith("error: ") and NAME in error and "Traceback" not in error, error
    assert not prepared_folder(tmp_path).exists()
    path.write_bytes(whole)
    assert run()[0] == 0


def test_a_full_disk(fails, run, monkeypatch):
    write, written = layout.write_image, []

    def full(path, scan):
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, scan)

    monkeypatch.setattr(layout, "write_image", full)
    fails("the disk must have room for the dataset, received «No space left on device» at")
    assert run()[0] == 0 and run("--check", origin=None)[0] == 0
    assert len(written) == 3 + 4  # what was written before stayed


def test_a_folder_without_permission_is_explained():
    for number, said in ((errno.EACCES, "must be writable"), (errno.EIO, "must be readable and writable")):
        assert said in str(explained(OSError(number, os.strerror(number), "/place")))


def test_an_interruption_goes_on(run, dataset, tmp_path):
    converted = []

    def convert(case, variant):
        converted.append(case.id)
        if len(converted) == 4:
            raise KeyboardInterrupt
        return dataset.convert(case, variant)

    halting = replace(dataset, convert=convert)
    status, _, error = run(of=halting)
    assert status == 130 and "goes on where it stopped" in error and not prepared_folder(tmp_path).exists()
    assert run(of=halting)[0] == 0
    assert len(converted) == 7 and len(set(converted)) == 6  # only the one that was interrupted is done twice
    assert not (tmp_path / "out/prepared.part").exists()


def test_what_another_plan_left_is_not_used(fails, run, dataset, tmp_path):
    def convert(case, variant):
        if case.id.startswith("OASIS_OAS1_0004"):
            raise DatasetError("stop here")
        return dataset.convert(case, variant)

    fails("stop here", of=replace(dataset, convert=convert))
    left = tmp_path / "out/prepared.part/prepared/images"
    assert len(list(left.iterdir())) == 2
    assert run("--limit", "1")[0] == 0
    assert len(list((prepared_folder(tmp_path) / "images").iterdir())) == 5


def test_a_changed_checksum(tmp_path, capsys):
    made = MAKERS["oasis"](tmp_path / "raw", tmp_path / "site")
    folder = tmp_path / "out"
    (variant,) = made.variants.values()
    published = replace(variant.sources[0], checksum="sha256:" + "0" * 64)
    other = small(made, "aligned", sources=(published,))
    assert main(other, [str(folder), "--quiet", "--from", str(tmp_path / "site")]) == 1
    assert f"must have the checksum sha256:{'0' * 64}, received sha256:" in capsys.readouterr().err
    with serving(tmp_path / "site") as server:
        fetched = replace(published, addresses=(f"{server.address}/{published.name}",))
        assert main(small(made, "aligned", sources=(fetched,)), [str(folder), "--quiet"]) == 1
    assert "checksum that was published, received another" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../../evil", "/evil", "link"])
def test_a_hostile_archive(tmp_path, capsys, name):
    made = MAKERS["oasis"](tmp_path / "raw", tmp_path / "site")
    with tarfile.open(tmp_path / "site/neurite-oasis.v1.0.tar", "a") as archive:
        info = tarfile.TarInfo(f"{name}/aligned_norm.nii.gz" if name == "link" else name)
        info.type, info.linkname = (tarfile.SYMTYPE, "/etc/passwd") if name == "link" else (tarfile.REGTYPE, "")
        archive.addfile(info)
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    with serving(tmp_path / "site") as server:
        status = main(served(made, tmp_path / "site", server.address), [str(tmp_path / "out/data"), "--quiet"])
    assert status == 1 and "nothing was extracted: do not use this archive" in capsys.readouterr().err
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
    assert not (tmp_path / "out/data").exists() and not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_folder_with_other_contents(fails, run, dataset, tmp_path):
    folder = prepared_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    fails("a prepared folder must hold dataset.json")
    (folder / "dataset.json").write_text("{}")
    fails("must be written by a script of data_scripts")
    shutil.rmtree(folder)
    folder.mkdir()
    assert run()[0] == 0  # an empty folder is filled
    fails("must hold one preparation of one dataset", "--limit", "1")
    next((folder / "images").iterdir()).unlink()
    fails("a prepared folder must be whole")
    shutil.rmtree(folder)
    folder.write_text("a file")
    fails("must go to a folder and come from one")
    folder.unlink()
    (tmp_path / "out/prepared.part").mkdir()
    (tmp_path / "out/prepared.part/thesis.tex").write_text("years of work")
    fails("the work needs the folder")


def test_check_finds_what_has_changed(run, tmp_path):
    assert run()[0] == 0
    folder = prepared_folder(tmp_path)
    status, out, _ = run("--check", origin=None)
    assert status == 0 and "all 13 files are as they were written" in out
    image, other = sorted((folder / "images").iterdir())[:2]
    labels = folder / "labels" / image.name
    image.unlink()
    save(labels, np.full((3, 4, 5), 77, np.int16), "RAS")
    (folder / "labels/surplus.nii.gz").write_bytes(b"")
    other.write_bytes(other.read_bytes()[:-1])
    (folder / "splits.json").write_text('{"train": ["unknown"], "validation": [], "test": []}')
    status, out, error = run("--check", origin=None)
    assert status == 1 and "6 problems" in out
    missing = (f"images/{image.name} is missing", "images/unknown.nii.gz is in splits.json but not")
    changed = (f"labels/{image.name} has changed", f"images/{other.name} has changed")
    assert all(said in error for said in (*missing, *changed, "surplus.nii.gz does not belong"))
    (folder / "splits.json").write_text("[]")
    assert "splits.json cannot be read" in run("--check", origin=None)[2]


def test_check_looks_into_the_files(run, tmp_path):
    """Checksums that were made of bad files do not hide them."""
    assert run()[0] == 0
    folder = prepared_folder(tmp_path)
    facts = json.loads((folder / "dataset.json").read_text())
    labels = sorted((folder / "labels").iterdir())
    save(labels[0], np.full((3, 4, 5), 77, np.int16), "RAS")
    image = sorted((folder / "images").iterdir())[1]
    image.write_bytes(b"no image at all")
    (folder / "landmarks").mkdir()
    (folder / "landmarks/x.csv").write_text("x,y\n1,2\n")
    for path in (labels[0], image, folder / "landmarks/x.csv"):
        facts["checksums"][path.relative_to(folder).as_posix()] = layout.sha256(path)
    (folder / "dataset.json").write_text(json.dumps(facts))
    error = run("--check", origin=None)[2]
    assert "has another size than its image" in error and "holds the numbers [77]" in error
    assert "x.csv is no table of x, y, z" in error and f"images/{image.name}, which is none of these" in error


def test_a_dry_run_touches_nothing(run, dataset, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    status, out, _ = run("--dry-run", "--limit", "3")
    assert status == 0 and sorted(tmp_path.rglob("*")) == before
    for said in ("licence: OASIS", "split: 2 train, 2 validation, 2 test, of which the first 3", "take: the files"):
        assert said in out
    assert "fetch: https://surfer" in run("--dry-run", origin=None, of=oasis.DATASET)[1]
    assert "by hand: make a free account" in run("--dry-run", origin=None, of=drive.DATASET)[1]
    assert "no published checksum" in run("--dry-run", "--variant", "spnet", origin=None, of=oai.DATASET)[1]
    assert run()[0] == 0 and "(it is there already)" in run("--dry-run")[1]


def test_a_dataset_that_needs_an_account_says_what_to_do(fails):
    fails("cannot be fetched unattended; make a free account at grand-challenge.org", origin=None, of=drive.DATASET)


def test_a_limit_takes_the_first_scans_of_each_split(run, tmp_path):
    assert run("--limit", "1")[0] == 0
    splits = json.loads((prepared_folder(tmp_path) / "splits.json").read_text())
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [1, 1, 1]
    assert len(splits["test"][0]) == 2 and len(list((prepared_folder(tmp_path) / "images").iterdir())) == 5
    with pytest.raises(SystemExit):
        run("--limit", "0")
    assert layout.limited(["a", "b", "c"], None) == ["a", "b", "c"]


def test_dirlab_files_that_do_not_fit(tmp_path):
    made = MAKERS["copdgene"](tmp_path / "raw", tmp_path / "site")
    (variant,) = made.variants.values()
    found = {case.id: case for case in copdgene.listed(Files([tmp_path / "raw"]), variant)}
    case = found["copd2_insp"]
    scan = copdgene.read_dirlab(case, variant)
    points = case.files["points"]
    points.write_text("1\t2\t900\n")
    with pytest.raises(DatasetError, match="must lie in their scan"):
        copdgene.read_points(case, scan)
    points.write_text("one\ttwo\n")
    with pytest.raises(DatasetError, match="rows of x, y, z"):
        copdgene.read_points(case, scan)
    case.files["raw"].write_bytes(b"short")
    with pytest.raises(DatasetError, match="must hold 10 slices of 32 x 32 numbers"):
        copdgene.read_dirlab(case, variant)
    with pytest.raises(DatasetError, match="lungs must be found by their air"):
        copdgene.find_lungs(scan.with_tensor(scan.tensor * 0))
    next((tmp_path / "raw").rglob("10005Q_EXP*_label.nii.gz")).unlink()
    with pytest.raises(DatasetError, match=r"must have the file .*EXP.*label.*, received none for 10005Q"):
        copdgene.listed(Files([tmp_path / "raw"]), variant)


def test_lists_and_tables_of_the_knees(tmp_path):
    made = MAKERS["oai"](tmp_path / "raw", tmp_path / "site")
    (variant,) = made.variants.values()
    next((tmp_path / "raw").rglob("*_01_image.nii.gz")).unlink()
    with pytest.raises(DatasetError, match="must hold all scans of the lists, received none named 900000_2005"):
        oai.listed(Files([tmp_path / "raw"]), variant)
    path = tmp_path / "raw/splits/test/pair_path_list.txt"
    path.write_text("only two\n")
    with pytest.raises(DatasetError, match="must hold four paths"):
        oai.listed(Files([tmp_path / "raw"]), variant)
    path.unlink()
    with pytest.raises(DatasetError, match="must hold the list"):
        oai.listed(Files([tmp_path / "raw"]), variant)
    MAKERS["oai-spnet"](tmp_path / "zib", tmp_path / "site")
    (tmp_path / "site" / oai.SIDES).write_text("")
    case = oai.Case("oaizib_001", {"sides": tmp_path / "site" / oai.SIDES})
    with pytest.raises(DatasetError, match="must tell the side of each knee"):
        oai.is_right(case)


def test_masks_of_retinas(tmp_path):
    (tmp_path / "page.gif").write_bytes(b"<html>")
    with pytest.raises(DatasetError, match="must be a whole GIF image"):
        drive.read_vessels(tmp_path / "page.gif")
    drive.Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "black.gif")
    with pytest.raises(DatasetError, match="must show vessels and background"):
        drive.read_vessels(tmp_path / "black.gif")


SCRIPTS = sorted(Path(data_scripts.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_small_and_documented(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300 and ast.get_docstring(ast.parse(text))
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_every_script_has_its_row_in_the_table():
    table = (Path(data_scripts.__file__).parent / "README.md").read_text()
    for path in SCRIPTS:
        if path.parent.name == "data_scripts" and path.stem != "__init__":
            assert f"data_scripts.{path.stem}" in table


def test_archives_beside_what_is_extracted_from_them_are_not_used(tmp_path, capsys):
    made = MAKERS["oasis"](tmp_path / "raw", tmp_path / "raw/archives")
    assert main(made, [str(tmp_path / "out"), "--quiet", "--from", str(tmp_path / "raw")]) == 0, capsys.readouterr().err
