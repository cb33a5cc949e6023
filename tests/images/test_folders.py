"""Dataset folders: read as they were written, lazily; what is missing, left over or mismatched is named."""

import json

import numpy as np
import pytest
import torch

from regkit import data, images
from regkit.images import folders

SHAPE = (9, 7, 6)


def store(folder, name, *, shape=SHAPE, labels=True, value=None):
    grid = images.Grid(shape, np.diag([1.5, 2.0, 2.5, 1]))
    drawn = data.shapes(1, dim=3, size=shape, seed=len(name) + ord(name[-1]))
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    image = drawn.images if value is None else torch.full_like(drawn.images, value)
    images.write_image(folder / f"images/{name}.nii.gz", images.Scan(image, grid, grid))
    if labels:
        images.write_labels(folder / f"labels/{name}.nii.gz", images.Scan(drawn.labels, grid, grid))
    return drawn


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two", "three", "four"):
        store(tmp_path, name)
    splits = {
        "train": ["one", "two", "three"],
        "validation": [["four", "one"]],
        "test": [["one", "two"], ["four", "two"]],
    }
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    return tmp_path


def test_pairs_are_those_of_the_splits(folder):
    train = folders.FolderPairs(folder, "train")
    assert len(train) == 6 and len(set(train.names)) == 6 and all(a != b for a, b in train.names)
    pairs = folders.FolderPairs(folder)
    assert pairs.names == [("one", "two"), ("four", "two")]
    again = store(folder, "four")
    pair = pairs[1]
    assert torch.equal(pair.moving_labels, again.labels) and pair.spacing == (1.5, 2.0, 2.5)
    assert torch.equal(pair.fixed_labels, pairs[0].fixed_labels) and pair.moving.min() >= 0
    assert torch.allclose(pair.moving, again.images, atol=1e-6)
    assert len(list(pairs)) == 2
    grid = images.Grid(SHAPE, np.diag([1.5, 2.0, 2.5, 1]))
    images.write_image(folder / "images/one.nii.gz", images.Scan(100 + 300 * again.images, grid, grid))
    scaled = folders.FolderPairs(folder)[0].moving
    assert torch.allclose(scaled, (again.images / np.percentile(again.images, 99.5)).clamp(0, 1), atol=1e-5)
    assert folders.FolderPairs(folder, "train", limit=2).names == [train.names[0], train.names[3]]


def test_a_folder_may_lack_labels(folder):
    for path in (folder / "labels").iterdir():
        path.unlink()
    (folder / "labels").rmdir()
    pair = folders.FolderPairs(folder)[0]
    assert pair.moving_labels is None and pair.fixed_labels is None


def spoil(folder, kind):
    splits = json.loads((folder / "splits.json").read_text())
    if kind == "labels lack":
        (folder / "labels/two.nii.gz").unlink()
    elif kind == "images lack":
        (folder / "images/two.nii.gz").unlink()
    elif kind == "labels surplus":
        store(folder, "seven")
        (folder / "images/seven.nii.gz").unlink()
    elif kind == "foreign":
        (folder / "images/notes.txt").write_text("")
    elif kind == "no splits":
        (folder / "splits.json").unlink()
    elif kind == "damaged splits":
        (folder / "splits.json").write_text("{")
    elif kind == "a list":
        (folder / "splits.json").write_text("[]")
    else:
        changed = {"unknown": ["one", "five"], "three": [["one", "two", "four"]], "nobody": [], "alone": ["one"]}
        (folder / "splits.json").write_text(json.dumps({**splits, "test": changed[kind]}))


@pytest.mark.parametrize(
    ("kind", "words"),
    {
        "labels lack": r"'test' lacks those of \[two\]",
        "images lack": r"names \[two\] without an image",
        "labels surplus": r"labels but no image of \[seven\]",
        "foreign": r"end in .nii.gz, received \[notes.txt\]",
        "no splits": "has a file splits.json",
        "damaged splits": "must be JSON",
        "a list": "must hold an object",
        "unknown": r"'test' names \[five\] without an image",
        "three": "lists IDs or pairs",
        "nobody": "of 0 in all",
        "alone": "of 0 in all",
    }.items(),
)
def test_what_is_wrong_with_a_folder_is_named(folder, kind, words):
    spoil(folder, kind)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        folders.FolderPairs(folder)
    assert str(folder) in str(caught.value)


def test_scans_of_another_size_and_unknown_splits_are_refused(folder):
    store(folder, "four", shape=(9, 7, 7))
    with pytest.raises(
        ValueError, match=r"share one grid, received \[\(9, 7, 6\), \(9, 7, 7\)\] for \('four', 'two'\)"
    ):
        folders.FolderPairs(folder)[1]
    with pytest.raises(ValueError, match=r"'exam'.*\['test', 'train', 'validation'\]"):
        folders.FolderPairs(folder, "exam")
    with pytest.raises(ValueError, match="limit must be"):
        folders.FolderPairs(folder, limit=0)
    with pytest.raises(FileNotFoundError, match="without images"):
        folders.FolderPairs(folder / "images")


@pytest.mark.parametrize(("kind", "words"), [("images", "the images of"), ("labels", "labels and fixed of")])
def test_the_same_grid_is_the_same_affine(folder, kind, words):
    read = images.read_labels if kind == "labels" else images.read_image
    scan = read(folder / f"{kind}/two.nii.gz")
    moved = images.Grid(SHAPE, scan.affine + np.outer([20, 0, 0, 0], [0, 0, 0, 1]))
    write = images.write_labels if kind == "labels" else images.write_image
    write(folder / f"{kind}/two.nii.gz", images.Scan(scan.tensor, moved, moved))
    with pytest.raises(ValueError, match=rf"{words}.*up to 20 mm and 0 degrees apart"):
        folders.FolderPairs(folder)[0]
