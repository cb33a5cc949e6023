"""What the referee of tutorial 13 is asked: comparisons that each catch one mistake, and protocols that make it."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from regkit.tools.compare import Row, chance

Protocol = Callable[[list[Row], Collection[int], int], Any]
TUNED_ON, HELD_OUT = tuple(range(8)), tuple(range(8, 20))
_ALPHA = 0.05
SOME_FOLDS = 1.0  # percent: no method of the course comes near


@dataclass(frozen=True)
class _Case:
    """A comparison of "candidate" and "reference", and whether the candidate is the better one."""

    rows: tuple[Row, ...]
    tries: int
    better: bool


def _case(
    gains: Mapping[int, float], *, better: bool, tries: int = 5, folded: float = 0.0, backwards: bool = False
) -> _Case:
    """Rows of both methods; gains: in Dice, by pair. The pairs differ far more than the methods."""
    draw = np.random.default_rng(13)
    level = {pair: float(value) for pair, value in zip(range(20), draw.uniform(0.3, 0.6, 20), strict=True)}
    rows: dict[str, list[Row]] = {"reference": [], "candidate": []}
    for name, share in (("reference", 0.0), ("candidate", 1.0)):
        for pair, gain in gains.items():
            dice_here, folds_here = level[pair] + share * gain, share * folded
            spread = 0.2 + 0.1 * folds_here
            numbers = {"dice": dice_here, "hd95": 12 * (1 - dice_here), "folds_percent": folds_here}
            rows[name].append(Row(name, pair, numbers | {"jacobian_std_log": spread}))
    candidate = rows["candidate"][::-1] if backwards else rows["candidate"]
    return _Case((*rows["reference"], *candidate), tries, better)


def _spread(values: Sequence[float], pairs: Sequence[int]) -> dict[int, float]:
    return dict(zip(pairs, values, strict=True))


@functools.cache
def protocol_cases() -> dict[str, _Case]:
    """What a protocol is asked, by name; each is there for one mistake."""
    small = [0.004, -0.009, 0.012, -0.006, 0.011, -0.003, 0.008, -0.007, 0.010, 0.002, -0.005, -0.001]
    even = [0.021, 0.034, 0.027, 0.039, 0.025, 0.031, 0.036, 0.022, 0.029, 0.033, 0.024, 0.038]
    tuned = _spread([0.08 + 0.001 * pair for pair in TUNED_ON], TUNED_ON)
    known = _spread([0.030 + 0.001 * pair for pair in TUNED_ON], TUNED_ON)
    likely = [0.031, 0.028, -0.006, 0.017, 0.025, -0.011, 0.022, 0.013, 0.036, -0.009, 0.019, 0.015]
    one = [0.4, *(-0.004 - 0.001 * number for number in range(11))]
    return {
        "honest": _case(known | _spread(even, HELD_OUT), better=True),
        "backwards": _case(known | _spread(even, HELD_OUT), better=True, backwards=True),
        "large": _case(_spread([0.3 + gain for gain in even], HELD_OUT), better=True),
        "rigged": _case(known | _spread([0.2 + gain for gain in even], HELD_OUT), better=False, folded=40.0),
        "tuned": _case(tuned | _spread(small, HELD_OUT), better=False, tries=1),
        "chance": _case(_spread(small, HELD_OUT), better=False, tries=1),
        "worse": _case(_spread([-gain for gain in even], HELD_OUT), better=False),
        "one pair": _case(_spread(one, HELD_OUT), better=False, tries=1),
        "few": _case(_spread(even[:4], HELD_OUT[:4]), better=False, tries=1),
        "tries": _case(_spread(likely, HELD_OUT), better=False, tries=40),
    }


def protocol(
    *,
    regular: bool = True,
    apart: bool = True,
    middle: Callable[[list[float]], float] = median,
    two_sided: bool = False,
    test: Callable[[list[Row]], float] | None = None,
    corrected: bool = True,
    most: float = 1.0,
) -> Protocol:
    """The reference, or the same with one part left out; most: the gain in Dice from which on it is not believed."""

    def better(rows: list[Row], tuned_on: Collection[int], tries: int) -> bool:
        fair = [row for row in rows if not apart or row.pair not in tuned_on]
        ours, theirs = _dice_of(fair, "candidate"), _dice_of(fair, "reference")
        gains = [ours[pair] - theirs[pair] for pair in theirs]
        folded = max(row.values["folds_percent"] for row in fair if row.method == "candidate")
        p = test(fair) if test else chance(fair, "candidate", "reference", "dice")
        up = two_sided or 0 < middle(gains) < most
        return up and p < (_ALPHA / tries if corrected else _ALPHA) and not (regular and folded > SOME_FOLDS)

    return better


def _dice_of(rows: Sequence[Row], method: str) -> dict[int, float]:
    return {row.pair: row.values["dice"] for row in rows if row.method == method}


def by_order(rows: list[Row]) -> float:
    """The paired test, of the rows as they come."""
    columns = [[row for row in rows if row.method == name] for name in ("reference", "candidate")]
    counted = [Row(row.method, number, row.values) for column in columns for number, row in enumerate(column)]
    return chance(counted, "candidate", "reference", "dice")


def unpaired(rows: list[Row]) -> float:
    """p of a test of two groups, which does not know that the pairs are the same."""
    ours, theirs = (list(_dice_of(rows, name).values()) for name in ("candidate", "reference"))
    return float(mannwhitneyu(ours, theirs).pvalue)


def always_up(rows: list[Row]) -> float:
    """0 where every pair gains, else 1."""
    ours, theirs = _dice_of(rows, "candidate"), _dice_of(rows, "reference")
    return 0.0 if all(ours[pair] > theirs[pair] for pair in theirs) else 1.0
