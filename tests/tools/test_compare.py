"""Comparisons: numbers as of metrics, statistics as of scipy, tables that hold them all; tissues as of k-means."""

import csv
import math
import time
from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from regkit import data, images, metrics
from regkit.__main__ import main
from regkit.tools import compare
from regkit.tools.compare import Entry, Row, ScanFiles
from regkit.tools.methods import Method, make_method, measured
from regkit.types import Pair, Registration


def rows_of(**scores):
    return [Row(name, i, {"dice": value}) for name, values in scores.items() for i, value in enumerate(values)]


def test_a_perfect_method_is_measured_as_perfect():
    pair = data.synthetic_pair(2, 1, size=(23, 26))
    truth = Method("truth", lambda moving, fixed: Registration(pair.displacement))
    values = compare.measure(truth, pair)
    assert values["dice"] == 1 and values["hd95"] == 0 and values["assd"] == 0
    assert values["correlation"] == pytest.approx(1, abs=1e-5)
    nothing = compare.measure(make_method("none", 2), pair, cycle=True)
    scores = metrics.dice(pair.moving_labels, pair.fixed_labels)
    assert nothing["dice"] == pytest.approx(np.mean(list(scores.values())))
    assert nothing["cycle_consistency"] == 0 and nothing["seconds"] > 0 and nothing["memory"] > 1
    with pytest.raises(ValueError, match="clock must be one of wall, processor"):
        compare.measure(truth, pair, clock="sun")
    unlabelled = compare.measure(truth, Pair(pair.moving, pair.fixed))
    assert "dice" not in unlabelled and "hd95" not in unlabelled


@pytest.mark.parametrize("dim", [2, 3])
def test_a_structure_that_vanishes_is_counted_where_distances_leave_it_out(dim):
    """What pushes a structure out of the image has better distances than what misplaces it; the table tells."""
    shape = (48,) * dim
    moving, fixed = (torch.zeros(1, 1, *shape, dtype=torch.long) for _ in range(2))
    for labels, start in ((moving, 18), (fixed, 30)):
        labels[..., 8:20, 8:20] = 1
        labels[..., 30:36, start : start + 6] = 2
    pair = Pair((moving > 0).float(), (fixed > 0).float(), moving, fixed, spacing=(1.0,) * dim)
    none = torch.zeros(1, dim, *shape)
    gone = none.clone()
    gone[:, -1, ..., 26:40, 16:40] = -22
    methods = [Method(name, lambda *images, u=u: Registration(u)) for name, u in (("misplaced", none), ("lost", gone))]
    rows = compare.compare(methods, [pair, pair], progress=False)
    values = {row.method: row.values for row in rows}
    assert math.isfinite(values["lost"]["hd95"]) and values["lost"]["hd95"] < values["misplaced"]["hd95"]
    assert values["lost"]["lost"] == 1 and "lost" not in values["misplaced"]
    head, _, *lines = (line.split(" | ") for line in compare.as_markdown(rows).splitlines())
    place = head.index("structures lost")
    assert [line[place] for line in lines] == ["0.0 ± 0.0", "1.0 ± 0.0"]
    every = list(csv.DictReader(compare.as_csv(rows).splitlines()))
    assert [(line["method"], float(line["lost"])) for line in every] == [("misplaced", 0), ("lost", 1)] * 2
    assert compare.mean(rows, "lost", "lost") == 1 and compare.mean(rows, "misplaced", "lost") == 0
    assert compare.chance(rows, "lost", "misplaced", "lost") == 0.5
    kept = [row for row in rows if row.method == "misplaced"]
    assert "lost" not in compare.as_markdown(kept) + compare.as_csv(kept) + compare.summary_as_csv(kept)


def by_hand(differences):
    """The exact two-sided p: over all ways to give the ranks signs."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    statistic = abs(sum(ranks * np.sign(differences)))
    sums = [abs(sum(ranks * signs)) for signs in product((-1, 1), repeat=len(ranks))]
    return np.mean(np.array(sums) >= statistic)


def test_the_test_is_the_exact_one_over_all_signs():
    random = np.random.RandomState(0)
    first, second = random.rand(2, 8)
    rows = rows_of(a=first, b=second, c=first)
    assert compare.chance(rows, "b", "a", "dice") == pytest.approx(by_hand(second - first))
    assert compare.chance(rows_of(a=first, b=first + 0.1 * second), "b", "a", "dice") == pytest.approx(2 / 2**8)
    assert compare.chance(rows, "c", "a", "dice") == 1
    assert math.isnan(compare.chance(rows, "b", "a", "hd95"))
    with pytest.raises(ValueError, match="the reference must be one of a, b, c"):
        compare.chance(rows, "b", "x", "dice")


def test_holm_is_the_closed_test_of_bonferroni():
    random = np.random.RandomState(0)
    for count in (1, 2, 5, 6):
        chances = list(random.rand(count) ** 3)
        groups = [group for size in range(1, count + 1) for group in combinations(range(count), size)]
        worst = [
            max(min(1, len(group) * min(chances[k] for k in group)) for group in groups if i in group)
            for i in range(count)
        ]
        assert compare.holm(chances) == pytest.approx(worst)
    assert compare.holm([]) == []


def test_tables_hold_means_deviations_and_p():
    rows = rows_of(plain=[0.5, 0.6, 0.7], better=[0.7, 0.8, 0.9])
    table = compare.as_markdown(rows, "plain").splitlines()
    assert table[2] == "| plain | 0.600 ± 0.100 | - |"
    assert table[3] == "| better | **0.800 ± 0.100** | 0.25 |"
    summary = list(csv.DictReader(compare.summary_as_csv(rows, "plain").splitlines()))
    assert float(summary[1]["dice"]) == pytest.approx(0.8) and float(summary[1]["dice_std"]) == pytest.approx(0.1)
    assert float(summary[1]["dice_p"]) == 0.25 and float(summary[0]["dice_p"]) == 1
    every = list(csv.DictReader(compare.as_csv(rows).splitlines()))
    assert [float(line["dice"]) for line in every] == [0.5, 0.6, 0.7, 0.7, 0.8, 0.9]
    fields = [Row("one", 0, {"dice": 0.5, "jacobian_std_log": 0.1})]
    assert compare.as_markdown(fields).splitlines()[0] == r"| method | Dice | std log \|J\| |"
    assert "p of" not in compare.as_markdown(rows)
    assert compare.as_markdown(rows_of(one=[0.5])).splitlines()[2] == "| one | **0.500** |"


def test_a_comparison_needs_methods_and_pairs():
    method = make_method("none", 2)
    for methods, pairs in (([], [1]), ([method], []), ([method, method], [1])):
        with pytest.raises(ValueError, match="methods of different names and one pair"):
            compare.compare(methods, pairs)


def test_time_and_memory_are_those_of_the_block():
    with measured() as small:
        pass
    with measured() as large:
        torch.ones(60_000_000).sum()
    assert large.memory > small.memory + 200 and small.seconds > 0
    assert small.processor_seconds < large.processor_seconds  # the clock depends on what else runs
    with measured() as asleep:
        time.sleep(0.3)
    assert asleep.processor_seconds < 0.5 * asleep.seconds and asleep.seconds > 0.3


def test_a_block_on_a_second_gpu_is_measured_there(monkeypatch):
    asked = []
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: asked.append(device) or 2**20)
    with measured("cuda:1") as usage:
        pass
    assert asked == ["cuda:1"] * 4 and usage.memory == 1


# ---------------------------------------------------------------------------------------------- scans in files


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
