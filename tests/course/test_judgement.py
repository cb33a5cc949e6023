"""The rule that judges claims: its numbers against simulation, its verdicts on made-up effects."""

import numpy as np
import pytest
from scipy import stats

from regkit.course import judgement
from regkit.course.judgement import Comparison, chances, estimate, power, verdicts

DEVIATIONS = (0.004, 0.01, 0.01)  # of Dice over seeds, pairs and the rest: what the stored studies show
SMALLEST = judgement.SMALLEST["dice"].value


def simulated(luck, effect, seeds=8, pairs=32, deviations=DEVIATIONS):
    """Differences with a true effect, as the rule takes them to be."""
    shapes = (seeds, 1), (1, pairs), (seeds, pairs)
    return effect + sum(luck.normal(0, scale, shape) for scale, shape in zip(deviations, shapes, strict=True))


def judged(differences, **options):
    return Comparison("", estimate(differences), SMALLEST, **options)


def test_an_estimate_is_that_of_a_two_way_layout():
    D = np.array([[1.0, 2, 4, 3], [2, 2, 6, 4], [0, 3, 5, 3]])
    found, rows, columns = estimate(D), D.mean(1), D.mean(0)
    rest = ((D - rows[:, None] - columns + D.mean()) ** 2).sum() / 6
    squares = np.array([4 * rows.var(ddof=1), 3 * columns.var(ddof=1), rest])
    assert found.mean == pytest.approx(D.mean()) and (found.seeds, found.pairs) == (3, 4)
    assert found.error**2 == pytest.approx((squares[0] + squares[1] - rest) / 12)
    assert found.freedom == pytest.approx((squares @ [1, 1, -1]) ** 2 / (squares**2 @ [1 / 2, 1 / 3, 1 / 6]))
    assert np.square(found.deviations) == pytest.approx([(squares[0] - rest) / 4, (squares[1] - rest) / 3, rest])
    reach = stats.t.ppf(0.975, found.freedom) * found.error
    assert found.interval == pytest.approx((found.mean - reach, found.mean + reach))
    assert found.chance(1) == pytest.approx(2 * stats.t.sf((found.mean - 1) / found.error, found.freedom))
    assert found.chance(9) == 1 and found.chance(9, -1) < 0.05


def test_of_one_training_pairs_are_the_sample_and_nothing_is_told_of_others():
    row = np.array([[1.0, 2, 4, 3]])
    plain = stats.ttest_1samp(row[0], 0)
    assert estimate(row, fixed=True).chance(0) == pytest.approx(plain.pvalue)
    assert estimate(row, fixed=True).interval == pytest.approx(tuple(plain.confidence_interval()))
    assert estimate(row).interval == (-np.inf, np.inf) and estimate(row).chance(0) == 1
    assert estimate(np.empty((0, 0))).chance(0) == 1
    assert estimate(np.repeat(row, 2, 0)).freedom == 1  # two seeds that agree may do so by chance


@pytest.mark.parametrize(
    ("effect", "verdict", "no_loss"),
    [(0.03, True, True), (-0.03, False, False), (0.0, False, True), (0.0047, None, True), (0.0055, True, True)],
)
def test_verdicts_of_an_effect_and_of_a_claim_that_nothing_is_lost(effect, verdict, no_loss):
    exact = simulated(np.random.default_rng(0), 0.0, deviations=(0.0005, 0.001, 0.005))
    exact += effect - exact.mean()
    comparison, other = judged(exact), judged(exact, no_less=True)
    assert verdicts([[comparison]]) == [verdict] and verdicts([[other]]) == [no_loss]
    unsure = exact + simulated(np.random.default_rng(3), 0.0, deviations=(0.1, 0.1, 0.1))
    assert verdicts([[judged(unsure)]]) == verdicts([[judged(unsure, no_less=True)]]) == [None]


def test_parts_are_as_uncertain_as_the_weakest_and_rows_are_corrected_for():
    luck = np.random.default_rng(0)
    clear, weak = judged(simulated(luck, 0.05)), judged(simulated(luck, 0.0))
    assert chances([clear, weak])[0] == weak.chances[0] > clear.chances[0]
    assert chances([clear, weak])[1] == pytest.approx(min(1, 2 * min(clear.chances[1], weak.chances[1])))
    once = next(
        each for each in (judged(simulated(luck, 0.008)) for _ in range(99)) if 0.005 < chances([each])[0] < 0.04
    )
    assert verdicts([[once]]) == [True] and verdicts([[once]] * 60) == [None] * 60


def test_without_effects_a_ledger_rarely_says_yes():
    """400 ledgers of 40 rows: a yes in any row of 5 % of them at most, as Holm's correction promises."""
    luck = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        rows = [[judged(simulated(luck, 0.0))] for _ in range(40)]
        wrong += any(verdict is True for verdict in verdicts(rows))
    assert wrong <= 20, wrong


@pytest.mark.parametrize(("effect", "told"), [(SMALLEST, 0.54), (2 * SMALLEST, 0.985)])
def test_power_is_what_simulation_finds(effect, told):
    luck = np.random.default_rng(2)
    found = np.mean([estimate(simulated(luck, effect)).chance(0) < 0.05 for _ in range(1000)])
    assert power(effect, 8, 32, DEVIATIONS) == pytest.approx(told, abs=0.01) == pytest.approx(found, abs=0.05)
    assert power(effect, 3, 32, DEVIATIONS) < told > power(effect, 8, 32, DEVIATIONS, rows=60)
