"""A cohort: each pair of a CSV in its own folder, one bad pair is told, and what is done is not done again."""

import csv
import json
import shutil

import numpy as np
import pytest

from regkit import data, images
from regkit.__main__ import main
from regkit.tools import cohort


@pytest.fixture
def scans(tmp_path):
    for seed in (0, 1):
        pair = data.synthetic_pair(2, seed, size=(24, 22), motion=0.2)
        grid = images.Grid((24, 22), np.diag([1.5, 0.8, 1, 1]))
        for name in ("moving", "fixed"):
            images.write_image(tmp_path / f"{name}{seed}.nii", images.Scan(getattr(pair, name), grid, grid))
            label = images.Scan(getattr(pair, f"{name}_labels"), grid, grid)
            images.write_labels(tmp_path / f"{name}{seed}_labels.nii", label)
    return tmp_path


def table(out):
    with (out / cohort.TABLE).open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_a_cohort_goes_on_where_it_ended(scans, capsys):
    (scans / "pairs.csv").write_text(
        "name;moving;fixed;moving_labels;fixed_labels;age\none;moving0.nii;fixed0.nii;moving0_labels.nii;fixed0_labels.nii"
        ";3\ngone;gone.nii;fixed0.nii;;;4\n;moving1.nii;fixed1.nii;;;5\n",
        encoding="utf-8-sig",
    )
    arguments = ["register", "--pairs", str(scans / "pairs.csv"), "--out", str(scans / "out"), "--method", "none"]

    def states(*options):
        assert main([*arguments, *options]) == 1
        return [row["state"] for row in table(scans / "out").values()]

    assert states() == ["done", "failed", "done"]
    rows = table(scans / "out")
    assert list(rows) == ["one", "gone", "moving1_to_fixed1"] and "gone.nii" in rows["gone"]["reason"]
    numbers = json.loads((scans / "out" / "one" / "metrics.json").read_text())
    assert float(rows["one"]["dice after"]) == numbers["dice"]["mean"]["after"] and not rows["gone"]["dice after"]
    assert not (scans / "out" / "gone").exists() and "2 of 3 pairs" in capsys.readouterr().out
    assert states() == ["kept", "failed", "kept"]
    shutil.copy(scans / "moving0.nii", scans / "gone.nii")
    shutil.copy(scans / "moving0.nii", scans / "moving1.nii")
    (scans / "out" / "one" / "warped.nii.gz").unlink()
    assert main(arguments) == 0 and [row["state"] for row in table(scans / "out").values()] == ["done"] * 3
    assert main([*arguments, "--volume", "0"]) == 0 and "one: done" in capsys.readouterr().out.splitlines()
    assert main([*arguments, "--also", "x.nii"]) == 1 and "leave them out" in capsys.readouterr().err
    assert main([*arguments[:1], *arguments[3:]]) == 1 and "two scans are registered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has the columns moving, fixed"),
        ("moving,other\na,b\n", "['moving', 'other']"),
        ("moving,fixed,fixed\na,b,c\n", "once each"),
        ("moving,fixed\n", "no pair"),
        ("moving,fixed\na.nii\n", "as many cells as its first"),
        ("moving,fixed\na.nii,b.nii,c\n", "as many cells as its first"),
        ("moving,fixed\na.nii,\n", "a pair is moving and fixed"),
        ("moving,fixed,moving_labels\na.nii,b.nii,c.nii\n", "labels of both or of none"),
        ("moving,fixed\na.nii,b.nii\na.nii.gz,b.nii\n", "'a_to_b' twice"),
        *(
            (f'moving,fixed,name\na,b,"{name}"\n', "begins with a letter or a digit")
            for name in ("=1+1", "a\nb", "../a", "a/b", "a\\b", "-a", ".", "pairs.csv", "a.", "x" * 300)
        ),
        (b"moving,fixed\n\xff\xfe,b\n", "CSV of UTF-8"),
        ('moving,fixed\n"a,b\n', "CSV of UTF-8"),
        (None, "no file"),
    ],
)
def test_a_csv_that_cannot_be_is_told_in_one_line(tmp_path, capsys, text, said):
    path = tmp_path / "list.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["register", "--pairs", str(path), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and not (tmp_path / "out").exists()
