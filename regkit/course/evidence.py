"""What claims are judged on: effects read from stored results, laws, and the finding of each claim.

All claims about trained networks are judged by one rule, `judgement`: an effect over trainings and held-out pairs, with
its interval, corrected for the number of claims. A law (symmetry, say) or a count has no chance in it: it holds or not.
What cannot be judged here says why. The claims themselves are in claims.toml, their laws in `claims`.

A side of a comparison is "study: variant" of `studies`, or "benchmark: method" of `tools.leaderboard`.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regkit.course import judgement, studies
from regkit.course.judgement import SMALLEST, Comparison, Estimate
from regkit.data.benchmarks import BENCHMARKS
from regkit.tools import leaderboard
from regkit.tools.measures import COLUMNS, RECORDED
from regkit.types import InputError

YES, NO, UNTOLD, UNJUDGED = VERDICTS = ("yes", "no", "not told apart", "cannot be judged")

_ANY = -1  # in place of a seed


@dataclass(frozen=True)
class Effect:
    """What a claim compares: the measure is larger for `more` than for `less`, a side each or a bound.

    factor: so many times larger. no_less: only that it is not smaller. slope: that what `more` gains is larger on pairs
    that overlap less before registration, for one standard deviation of that Dice.
    """

    more: str | float
    less: str | float
    measure: str = "dice"
    factor: float = 0.0
    no_less: bool = False
    slope: bool = False

    def compare(self) -> Comparison:
        """What came out, by the results that there are now."""
        differences, fixed = self.differences()
        if self.slope:
            before = -before_registration(str(self.more))
            before = (before - before.mean()) / before.std()
            differences = (differences - differences.mean(1, keepdims=True)) * before
        smallest = SMALLEST["ratio" if self.factor else _column(self.measure)].value
        found = judgement.estimate(differences, fixed=fixed)
        dots = tuple(differences.mean(0 if fixed else 1).tolist()) if differences.size else ()
        return Comparison(self.words, found, smallest, self.no_less, dots)

    @property
    def words(self) -> str:
        """What is subtracted from what."""
        quantity = RECORDED.get(self.measure) or COLUMNS[self.measure]
        what = f"slope of {quantity.words}" if self.slope else quantity.words
        if self.factor:
            what = f"log10 of the ratio{f' / {self.factor:g}' if self.factor != 1 else ''}, {what}"
        (name, more), (other, less) = (str(each).rpartition(": ")[::2] for each in (self.more, self.less))
        alone = {name, other} - {""} in ({name}, {other})  # one study
        return f"{what}: {name or other}, {more} - {less}" if alone else f"{what}: {self.more} - {self.less}"

    def differences(self) -> tuple[NDArray[np.float64], bool]:
        """(seeds, pairs), of the seeds that both sides have; whether neither side has any."""
        sides = [
            {_ANY: np.array(side)} if isinstance(side, float) else reached(side, self.measure)
            for side in (self.more, self.less)
        ]
        trained = [set(side) for side in sides if _ANY not in side]
        seeds = sorted(set.intersection(*trained)) if trained else [_ANY]
        if not seeds:
            return np.empty((0, 0)), False
        both = [np.broadcast_arrays(*(side[seed] if seed in side else side[_ANY] for side in sides)) for seed in seeds]
        more, less = np.array(both, dtype=float).swapaxes(0, 1)
        if self.factor:
            more, less = np.log10(more), np.log10(less * self.factor)
        return np.atleast_2d(more - less), not trained


def reached(side: str, measure: str) -> dict[int, NDArray[np.float64]]:
    """What each seed reached on the pairs; for `_ANY` seed what was not trained here."""
    name, variant = side.split(": ", 1)
    if name not in studies.STUDIES:
        rows = [row for row in _stored(name) if row.method == variant]
        found = np.array([row.values.get(_column(measure), math.nan) for row in rows])
        return {_ANY: found} if len(found) and np.isfinite(found).all() else {}
    return {
        record["recipe"]["seed"]: np.array(record["pairs"][measure])
        for record in _records(name, variant)
        if measure in record.get("pairs", {})
    }


def before_registration(side: str) -> NDArray[np.float64]:
    """Dice of the pairs that a side is judged on, before registration."""
    name = side.split(": ", 1)[0]
    benchmark = next(each for each in leaderboard.SLICES if BENCHMARKS[each].words == studies.STUDIES[name].data)
    return reached(f"{benchmark}: none", "dice")[_ANY]


def _column(measure: str) -> str:
    return RECORDED[measure].measure if measure in RECORDED else measure


_records = functools.lru_cache(None)(studies.records)
_stored = functools.lru_cache(None)(leaderboard.stored)


# ---------------------------------------------------------------------------------------------- claims
Law = Callable[[], tuple[str, bool]]  # what was found, and whether it is as claimed
_EFFECT = re.compile(
    r"(?P<slope>slope of )?(?P<measure>\w+) \| (?P<more>.+?) >(?P<no_less>=?) ((?P<factor>[\d.]+) x )?(?P<less>.+)"
)


@dataclass(frozen=True)
class Claim:
    """One row. source: where the paper makes the claim; paper: its numbers.

    what: how it is judged, or why it cannot be. name: for the course's texts. remark: what to know of the finding.
    """

    name: str
    method: str
    words: str
    source: str
    paper: str
    what: tuple[Effect, ...] | Law | str
    remark: str = ""

    @property
    def command(self) -> str:
        """What makes the results that the claim is judged on."""
        if not isinstance(self.what, tuple):
            return "-" if isinstance(self.what, str) else "python -m regkit ledger"
        sides = [side for each in self.what for side in (each.more, each.less) if isinstance(side, str)]
        names = dict.fromkeys(side.split(": ", 1)[0] for side in sides)
        made = ("study" if name in studies.STUDIES else "leaderboard --benchmark" for name in names)
        return " && ".join(f"python -m regkit {what} {name}" for what, name in zip(made, names, strict=True))


def read(path: Path, laws: Mapping[str, Law]) -> tuple[Claim, ...]:
    """The claims of a TOML file, by method: "effects", a "law" of these, or a "reason" why it cannot be judged."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(_claim(method, dict(row), laws) for method, listed in rows.items() for row in listed)


def _claim(method: str, row: dict[str, Any], laws: Mapping[str, Law]) -> Claim:
    what: Any = row.pop("reason", None) or tuple(effect(each) for each in row.pop("effects", ()))
    return Claim(method=method, what=what or laws[row.pop("law")], **row)


def effect(text: str) -> Effect:
    """What "measure | larger side > smaller side" means.

    With ">=" nothing is lost; with "> 10 x" the ratio is above 10; "slope of" the measure: see `Effect`.
    """
    found = _EFFECT.fullmatch(text)
    if found is None:
        raise InputError('an effect is "measure | larger side > smaller side"', repr(text), "see claims.toml")
    more, less = (float(side) if side.replace(".", "").isdigit() else side for side in found.group("more", "less"))
    slope, no_less = (bool(found[name]) for name in ("slope", "no_less"))
    return Effect(more, less, found["measure"], float(found["factor"] or 0), no_less, slope)


@dataclass(frozen=True)
class Finding:
    """What came out: one of `VERDICTS`, in words and numbers, and the comparisons behind it."""

    verdict: str
    words: str
    comparisons: tuple[Comparison, ...] = ()
    claim: Claim | None = None


def judge(claims: Sequence[Claim]) -> list[Finding]:
    """All claims together, since each verdict is corrected for their number; by the results that there are now."""
    _records.cache_clear()
    _stored.cache_clear()
    compared = {
        claim: tuple(each.compare() for each in claim.what) for claim in claims if isinstance(claim.what, tuple)
    }
    trained = {claim: each for claim, each in compared.items() if all(one.estimate.pairs for one in each)}
    told = dict(zip(trained, judgement.verdicts(list(trained.values())), strict=True)) if trained else {}
    findings = []
    for claim in claims:
        if claim in compared:
            verdict = {True: YES, False: NO, None: UNTOLD}[told[claim]] if claim in told else UNJUDGED
            words = "; ".join(f"{each.words}: {number(each)}" for each in compared[claim])
            findings.append(Finding(verdict, words, compared[claim], claim))
        elif isinstance(claim.what, str):
            findings.append(Finding(UNJUDGED, claim.what, claim=claim))
        else:
            words, holds = claim.what()  # type: ignore[operator]
            findings.append(Finding(YES if holds else NO, words, claim=claim))
    return findings


def number(comparison: Comparison) -> str:
    """An estimate, its interval, and of how many seeds and pairs it is."""
    found: Estimate = comparison.estimate
    if not math.isfinite(found.error):
        return "not trained yet" if not found.pairs else f"{found.mean:+.3g} (one seed: no interval)"
    low, high = found.interval
    count = f"{found.seeds} × {found.pairs}" if found.seeds > 1 else f"{found.pairs} pairs"
    return f"{found.mean:+.3g} [{low:+.3g}, {high:+.3g}] ({count})"
