"""One rule for every claim: an effect over trainings and held-out pairs, its interval, and yes, no or not told apart.

A difference D[s, p] is what variant A reaches minus what B does, both trained from seed s, on held-out pair p. Seeds
and pairs are both samples of more that there could be, crossed: D[s, p] = μ + a_s + b_p + e_sp. Then with the mean
squares of seeds, pairs and the rest

    var(mean D) = (MS_s + MS_p - MS_e) / (S P)

and (mean D - μ) / √var is about Student's t, with Satterthwaite's degrees of freedom. Where there is one training only,
no chance over seeds can be seen: nothing is told, unless the claim is about these very weights (`fixed`).

Sources: Searle, Casella and McCulloch, Variance Components, 1992, section 4.5 (the two-way layout without replication);
Satterthwaite 1946; Schuirmann 1987 (two one-sided tests); Berger 1982 (intersection-union); Holm 1979; Shaffer 1986.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import nctdtr, stdtr, stdtrit

from regkit.tools.compare import holm

CERTAIN = 0.05


class Least(NamedTuple):
    """The smallest effect that matters, and why."""

    value: float
    why: str


SMALLEST = {
    "dice": Least(0.005, "half of what papers print as the second digit; raters of one scan differ by more"),
    "folds_percent": Least(0.01, "a voxel in 10,000; the papers call less 'nearly none'"),
    "mse": Least(0.001, "of images from 0 to 1: 2 % of what outlines differ by before they are registered"),
    "field_error": Least(0.05, "voxels; a linear look-up is not more exact"),
    "inverse_consistency": Least(0.05, "voxels; likewise"),
    "cycle_consistency": Least(0.05, "voxels; likewise"),
    "hd95": Least(0.1, "mm, of voxels of 2.9 mm"),
    "ratio": Least(math.log10(1.1), "a tenth, as a logarithm: of times, memory and ratios of errors"),
}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and pairs, its standard error, and the degrees of freedom of that.

    deviations: standard deviations over seeds, over pairs, and of the rest.
    """

    mean: float
    error: float
    freedom: float
    seeds: int
    pairs: int
    deviations: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %."""
        reach = float(stdtrit(self.freedom, 1 - CERTAIN / 2)) * self.error if self.error else 0.0
        return self.mean - reach, self.mean + reach

    def chance(self, bound: float, sign: int = 1) -> float:
        """p, two-sided, that the truth is not above a bound (sign 1) or not below it (-1); 1 where the mean is not."""
        distance = sign * (self.mean - bound)
        if distance <= 0 or self.error == 0:
            return float(distance <= 0)
        return 2 * float(stdtr(self.freedom, -distance / self.error))


def estimate(differences: ArrayLike, *, fixed: bool = False) -> Estimate:
    """Of (seeds, pairs). fixed: each row is the same weights, or none: pairs alone are a sample."""
    D = np.atleast_2d(np.asarray(differences, dtype=float))
    if fixed:
        D = D.mean(0, keepdims=True)
    seeds, pairs = D.shape
    if seeds < 2 and not fixed:
        return Estimate(float(D.mean()) if D.size else 0.0, math.inf, 1, *D.shape)
    mean, rows, columns = D.mean(), D.mean(1, keepdims=True), D.mean(0, keepdims=True)
    if fixed:
        deviation = float(D.std(ddof=1))
        return Estimate(float(mean), deviation / math.sqrt(pairs), pairs - 1, 1, pairs, (0.0, deviation, 0.0))
    counts = np.array([seeds - 1, pairs - 1, (seeds - 1) * (pairs - 1)])
    sums = (
        pairs * ((rows - mean) ** 2).sum(),
        seeds * ((columns - mean) ** 2).sum(),
        ((D - rows - columns + mean) ** 2).sum(),
    )
    of_seeds, of_pairs, rest = squares = np.array(sums) / counts
    total = max(of_seeds + of_pairs - rest, of_seeds, of_pairs)
    freedom = total**2 / (squares**2 / counts).sum() if total else 1.0
    deviations = [math.sqrt(max(value, 0.0)) for value in ((of_seeds - rest) / pairs, (of_pairs - rest) / seeds, rest)]
    freedom = 1.0 if seeds == 2 else min(max(freedom, 1.0), D.size - 1.0)
    return Estimate(float(mean), math.sqrt(total / D.size), float(freedom), seeds, pairs, tuple(deviations))


@dataclass(frozen=True)
class Comparison:
    """One effect that a claim speaks of, positive where it is as claimed: its words, its estimate, what matters.

    Without `no_less` the claim is that there is an effect: yes where it is above 0 and as large as matters, no where it
    is below that. With it, that nothing is lost: the opposite of an effect with the other sign. dots: the mean of each
    seed, or each pair where there is one training.
    """

    words: str
    estimate: Estimate
    smallest: float
    no_less: bool = False
    dots: tuple[float, ...] = ()

    @property
    def chances(self) -> tuple[float, float]:
        """p of yes, and of no."""
        sign = -1 if self.no_less else 1
        effect = self.estimate.chance(0.0, sign) if sign * self.estimate.mean >= self.smallest else 1.0
        none = self.estimate.chance(sign * self.smallest, -sign)
        return (none, effect) if self.no_less else (effect, none)


def chances(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """p of yes for all of them together, which is the largest, and of no for one of them at least (Bonferroni's)."""
    yes, no = zip(*(each.chances for each in comparisons), strict=True)
    return max(yes), min(1.0, len(no) * min(no))


def verdicts(rows: Sequence[Sequence[Comparison]]) -> list[bool | None]:
    """True, False or None (not told apart) for each claim, corrected for their number.

    A claim's yes and no cannot both be wrong, so Holm's correction counts each claim once (Shaffer 1986).
    """
    both = [chances(comparisons) for comparisons in rows]
    certain = holm([min(each) for each in both])
    return [None if p > CERTAIN else yes < no for p, (yes, no) in zip(certain, both, strict=True)]


def power(effect: float, seeds: int, pairs: int, deviations: Sequence[float], rows: int = 1) -> float:
    """How likely the interval of an effect is above 0.

    deviations: of the differences over seeds, over pairs, and of the rest (`Estimate.deviations`). rows: of a ledger,
    each of which then has 5 % / rows of error (Bonferroni).
    """
    parts = np.square(deviations) / [seeds, pairs, seeds * pairs]
    freedom = parts.sum() ** 2 / (parts**2 / [seeds - 1, pairs - 1, (seeds - 1) * (pairs - 1)]).sum()
    return 1 - float(nctdtr(freedom, effect / math.sqrt(parts.sum()), stdtrit(freedom, 1 - CERTAIN / rows / 2)))
