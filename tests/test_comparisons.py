"""Comparisons: the numbers are those of metrics.py, the statistics those of scipy, the tables hold them all."""

import csv
import math
import time
from itertools import combinations, product

import numpy as np
import pytest
import torch

from regkit import comparisons, data, metrics
from regkit.comparisons import Row
from regkit.measuring import measured
from regkit.methods import Method, make_method
from regkit.types import Pair, Registration


def rows_of(**scores):
    return [Row(name, i, {"dice": value}) for name, values in scores.items() for i, value in enumerate(values)]


def test_a_perfect_method_is_measured_as_perfect():
    pair = data.synthetic_pair(2, 1, size=(23, 26))
    truth = Method("truth", lambda moving, fixed: Registration(pair.displacement))
    values = comparisons.measure(truth, pair)
    assert values["dice"] == 1 and values["hd95"] == 0 and values["assd"] == 0
    assert values["correlation"] == pytest.approx(1, abs=1e-5)
    nothing = comparisons.measure(make_method("none", 2), pair, cycle=True)
    scores = metrics.dice(pair.moving_labels, pair.fixed_labels)
    assert nothing["dice"] == pytest.approx(np.mean(list(scores.values())))
    assert nothing["cycle_consistency"] == 0 and nothing["seconds"] > 0 and nothing["memory"] > 1
    with pytest.raises(ValueError, match="clock must be one of wall, processor"):
        comparisons.measure(truth, pair, clock="sun")
    unlabelled = comparisons.measure(truth, Pair(pair.moving, pair.fixed))
    assert "dice" not in unlabelled and "hd95" not in unlabelled


def test_a_structure_that_vanishes_counts_in_dice_only():
    pair = data.synthetic_pair(2, 1, size=(23, 26))
    labels = torch.where(pair.moving_labels == 3, 0, pair.moving_labels)
    values = comparisons.measure(make_method("none", 2), Pair(pair.moving, pair.fixed, labels, pair.fixed_labels))
    assert math.isfinite(values["hd95"]) and values["dice"] < 2 / 3


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
    assert comparisons.chance(rows, "b", "a", "dice") == pytest.approx(by_hand(second - first))
    assert comparisons.chance(rows_of(a=first, b=first + 0.1 * second), "b", "a", "dice") == pytest.approx(2 / 2**8)
    assert comparisons.chance(rows, "c", "a", "dice") == 1
    assert math.isnan(comparisons.chance(rows, "b", "a", "hd95"))
    with pytest.raises(ValueError, match="the reference must be one of a, b, c"):
        comparisons.chance(rows, "b", "x", "dice")


def test_holm_is_the_closed_test_of_bonferroni():
    random = np.random.RandomState(0)
    for count in (1, 2, 5, 6):
        chances = list(random.rand(count) ** 3)
        groups = [group for size in range(1, count + 1) for group in combinations(range(count), size)]
        worst = [
            max(min(1, len(group) * min(chances[k] for k in group)) for group in groups if i in group)
            for i in range(count)
        ]
        assert comparisons.holm(chances) == pytest.approx(worst)
    assert comparisons.holm([]) == []


def test_tables_hold_means_deviations_and_p():
    rows = rows_of(plain=[0.5, 0.6, 0.7], better=[0.7, 0.8, 0.9])
    table = comparisons.as_markdown(rows, "plain").splitlines()
    assert table[2] == "| plain | 0.600 ± 0.100 | - |"
    assert table[3] == "| better | **0.800 ± 0.100** | 0.25 |"
    summary = list(csv.DictReader(comparisons.summary_as_csv(rows, "plain").splitlines()))
    assert float(summary[1]["dice"]) == pytest.approx(0.8) and float(summary[1]["dice_std"]) == pytest.approx(0.1)
    assert float(summary[1]["dice_p"]) == 0.25 and float(summary[0]["dice_p"]) == 1
    every = list(csv.DictReader(comparisons.as_csv(rows).splitlines()))
    assert [float(line["dice"]) for line in every] == [0.5, 0.6, 0.7, 0.7, 0.8, 0.9]
    fields = [Row("one", 0, {"dice": 0.5, "jacobian_std_log": 0.1})]
    assert comparisons.as_markdown(fields).splitlines()[0] == r"| method | Dice | std log \|J\| |"
    assert "p of" not in comparisons.as_markdown(rows)
    assert comparisons.as_markdown(rows_of(one=[0.5])).splitlines()[2] == "| one | **0.500** |"


def test_a_comparison_needs_methods_and_pairs():
    method = make_method("none", 2)
    for methods, pairs in (([], [1]), ([method], []), ([method, method], [1])):
        with pytest.raises(ValueError, match="methods of different names and one pair"):
            comparisons.compare(methods, pairs)


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
