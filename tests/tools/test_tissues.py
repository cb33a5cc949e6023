"""Tissue classes: those of an independent k-means; scans in files are compared by them, or by labels."""

import csv

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from regkit import data, images
from regkit.__main__ import main
from regkit.tools import compare
from regkit.tools.compare import Entry, ScanFiles
from regkit.tools.methods import make_method


def three_peaks(shape=(19, 17, 14)):
    """A ball of three overlapping intensities in nothing."""
    random = np.random.RandomState(0)
    values = random.choice([0.2, 0.5, 0.9], size=shape, p=[0.2, 0.5, 0.3]) + 0.08 * random.randn(*shape)
    inside = sum((axis - size / 2) ** 2 for axis, size in zip(np.indices(shape), shape, strict=True)) < 36
    return torch.from_numpy((values * inside).astype(np.float32))[None, None]


def test_the_classes_are_those_of_k_means():
    image = three_peaks()
    classes = compare.tissue_classes(image)
    brain = image[image != 0].double().numpy()
    centres, labels = kmeans2(brain[:, None], np.array([[0.2], [0.5], [0.9]]), iter=100)
    order = np.argsort(np.argsort(centres[:, 0])) + 1
    assert np.array_equal(classes[image != 0].numpy(), order[labels]) and (classes[image == 0] == 0).all()
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        return
    found = KMeans(3, n_init=5, tol=0, random_state=0).fit(brain[:, None])
    order = np.argsort(np.argsort(found.cluster_centers_[:, 0])) + 1
    assert np.mean(order[found.labels_] == classes[image != 0].numpy()) > 0.995


def test_classes_do_not_depend_on_the_scale():
    image = three_peaks()
    assert torch.equal(compare.tissue_classes(image), compare.tissue_classes(700 * image))
    assert compare.tissue_classes(image, 1).unique().tolist() == [0, 1]
    assert compare.tissue_dice(compare.tissue_classes(image), compare.tissue_classes(image)) == 1


def test_what_has_no_classes_is_refused():
    mask = (three_peaks() != 0).float()
    for image in (mask, torch.zeros(1, 1, 5, 5)):
        with pytest.raises(ValueError, match="different intensities"):
            compare.tissue_classes(image)
    with pytest.raises(ValueError, match="one image of one channel"):
        compare.tissue_classes(torch.rand(2, 1, 5, 5))


@pytest.fixture
def folder(tmp_path):
    """Two scans on different grids, and labels."""
    pair = data.synthetic_pair(3, 2, size=(23, 21, 19), motion=0.6)
    grid = images.Grid((23, 21, 19), np.diag([-1.0, 1.2, 1.1, 1.0]))
    other = images.Grid((22, 24, 20), np.diag([-1.1, 1.1, 1.0, 1.0]))
    for name, image, labels, where in (
        ("moving", pair.moving, pair.moving_labels, other),
        ("fixed", pair.fixed, pair.fixed_labels, grid),
    ):
        scan = images.resample(images.Scan(image, grid, grid), where)
        images.write_image(tmp_path / f"{name}.nii.gz", scan)
        drawn = images.resample(images.Scan(labels, grid, grid), where)
        images.write_labels(tmp_path / f"{name}_labels.nii.gz", drawn)
    return tmp_path


def test_a_scan_lies_on_itself(folder):
    own = ScanFiles(folder / "moving.nii.gz", folder / "moving.nii.gz")
    (row,) = compare.compare_scans([Entry("none", make_method("none", 3))], [own], progress=False)
    assert row.values["tissue_dice"] == 1 and row.values["correlation"] == pytest.approx(1)
    assert row.values["folds_percent"] == 0 and row.values["inverse_consistency"] == 0
    assert row.values["seconds"] > 0 and row.values["memory"] > 1


def test_methods_are_compared_on_scans_in_files(folder, capsys):
    files = [str(folder / f"{name}.nii.gz") for name in ("moving", "fixed", "moving_labels", "fixed_labels")]
    arguments = ["leaderboard", "--scans", *files[:2], "--methods", "none", "affine", "optimise"]
    assert main([*arguments, "--out", str(folder / "tissue")]) == 0
    table = (folder / "tissue" / "scans.md").read_text()
    assert "| tissue Dice |" in table.splitlines()[0] and table in capsys.readouterr().out
    assert main([*arguments, "--labels", *files[2:], "--affine", "--out", str(folder / "labels")]) == 0
    lines = list(csv.DictReader((folder / "labels" / "scans.csv").read_text().splitlines()))
    dice = {line["method"]: float(line["dice"]) for line in lines}
    assert list(dice) == ["none", "affine", "optimise"] and dice["optimise"] > dice["none"] + 0.02


def test_labels_on_another_grid_are_refused(folder):
    files = [folder / f"{name}.nii.gz" for name in ("moving", "fixed", "fixed_labels", "moving_labels")]
    with pytest.raises(ValueError, match="labels must be on the grid of their scan"):
        compare.compare_scans([], [ScanFiles(*files[:2], (files[2], files[3]))])
