"""The claims ledger: what the five papers claim, and what comes out here, on open data that a laptop can make.

A claim about trained networks is judged on stored results (`variants`) by one rule: it holds where the means over the
seeds show it and every seed shows it by itself. A law (symmetry, say) is judged on a stored model (regkit.laws). What
does not hold stays in. `python -m regkit ledger` writes the table; regkit.claims holds its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

from regkit.variants import Spread, records, results

_NAMES = {
    "mse": "mean squared difference",
    "dice": "Dice",
    "folds": "folds, %",
    "inverse_error": "inverse consistency error, voxels",
    "exchange_error": "error of φ_AB∘φ_BA with φ_BA from the exchanged images, voxels",
    "field_error": "error of the displacement, voxels",
}


@dataclass(frozen=True)
class Evidence:
    """Numbers that a claim is judged by: one measure of some variants of a study, between two bounds if it has any."""

    study: str
    measure: str
    variants: tuple[str, ...]
    least: float = 0.0
    most: float = float("inf")

    @property
    def title(self) -> str:
        """What is measured, and in which study."""
        return f"{_NAMES[self.measure]} ({self.study})"

    def values(self) -> dict[str, list[float]]:
        """The number that each seed reached, by variant; of those that are trained."""
        return {variant: _values(self.study, variant, self.measure) for variant in self.variants}


@dataclass(frozen=True)
class Finding:
    """What came out, in words and numbers, and whether the claim holds; None while something is not trained yet.

    evidence: the numbers behind it; none of a law, which is judged on a model.
    """

    words: str
    holds: bool | None
    evidence: tuple[Evidence, ...] = ()


Judge = Callable[[], Finding]


@dataclass(frozen=True)
class Claim:
    """One row. source: where the paper makes the claim; paper: its numbers. studies: what to train for it.

    remark: what one should know of the finding, and what was tried where the claim does not hold.
    """

    method: str
    words: str
    source: str
    paper: str
    studies: tuple[str, ...]
    judge: Judge
    remark: str = ""

    @property
    def command(self) -> str:
        """What makes the results that the claim is judged on."""
        return " && ".join(f"python -m regkit study {name}" for name in self.studies) or "python -m regkit ledger"


def rises(study: str, measure: str, *chain: str, factor: float = 1.0) -> Judge:
    """The measure rises from each variant to the next, more than `factor` times; in every seed from first to last."""

    evidence = (Evidence(study, measure, chain),)

    def judge() -> Finding:
        columns = [_values(study, variant, measure) for variant in chain]
        words = f"{_NAMES[measure]}: {' < '.join(_words(study, each, measure) for each in chain)}"
        if not all(columns):
            return Finding(words, None, evidence)
        rising = all(factor * mean(low) < mean(high) for low, high in pairwise(columns))
        every_seed = all(low < high for low, high in zip(columns[0], columns[-1], strict=True))
        return Finding(words, rising and every_seed, evidence)

    return judge


def not_less(study: str, measure: str, chosen: str, *others: str) -> Judge:
    """The measure's mean for `chosen` is not below that of any of the others by more than the deviation over seeds."""

    evidence = (Evidence(study, measure, (chosen, *others)),)

    def judge() -> Finding:
        words = f"{_NAMES[measure]}: {' against '.join(_words(study, each, measure) for each in (chosen, *others))}"
        known = [spread for each in (chosen, *others) if (spread := _spread(study, each, measure))]
        if len(known) <= len(others):
            return Finding(words, None, evidence)
        first, *rest = known
        least = max(each.mean - max(each.deviation, first.deviation) for each in rest)
        return Finding(words, first.mean >= least, evidence)

    return judge


def within(study: str, measure: str, *names: str, least: float = 0.0, most: float = float("inf")) -> Judge:
    """The measure is between two bounds, in every seed."""

    evidence = (Evidence(study, measure, names, least, most),)

    def judge() -> Finding:
        columns = [_values(study, variant, measure) for variant in names]
        words = f"{_NAMES[measure]} ({study}): {', '.join(_words(study, each, measure) for each in names)}"
        if not all(columns):
            return Finding(words, None, evidence)
        return Finding(words, all(least <= value <= most for column in columns for value in column), evidence)

    return judge


def every(*judges: Judge) -> Judge:
    """All findings together; what is not trained yet leaves the whole open."""

    def judge() -> Finding:
        findings = [each() for each in judges]
        held = [finding.holds for finding in findings]
        together = None if None in held else all(held)
        evidence = tuple(each for finding in findings for each in finding.evidence)
        return Finding("; ".join(finding.words for finding in findings), together, tuple(dict.fromkeys(evidence)))

    return judge


def _values(study: str, variant: str, measure: str) -> list[float]:
    return [record["metrics"][measure] for record in records(study, variant)]


def _spread(study: str, variant: str, measure: str) -> Spread | None:
    return results(study, variant).get(measure)


def _words(study: str, variant: str, measure: str) -> str:
    return f"{variant} {_spread(study, variant, measure) or 'not trained yet'}"


def table(claims: Sequence[Claim]) -> str:
    """The ledger as markdown; the first line below the title counts."""
    findings = [claim.judge() for claim in claims]
    held, failed, open_ = (sum(finding.holds is value for finding in findings) for value in (True, False, None))
    undecided = f", {open_} not trained yet" if open_ else ""
    rows = [
        f"| {number} | {claim.method} | {claim.words} | {claim.source}: {claim.paper} | {finding.words} | "
        f"{_VERDICTS[finding.holds]}{f'. {claim.remark}' if claim.remark else ''} | `{claim.command}` |"
        for number, (claim, finding) in enumerate(zip(claims, findings, strict=True), start=1)
    ]
    return "\n".join(
        [
            "# What the papers claim, and what comes out here",
            "",
            f"{len(claims)} claims: {held} hold, {failed} do not{undecided}. Made by `python -m regkit ledger`.",
            "",
            *_PREFACE.split("\n"),
            "",
            "| | Method | The claim | The paper | Here: mean ± standard deviation (seeds) | Holds? | Command |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


_VERDICTS = {True: "**yes**", False: "**no**", None: "open"}
_PREFACE = """Small networks, small images, open data: regkit.benchmarks has the pairs, regkit.variants the recipes.
A claim holds where the means over the seeds show it and every seed shows it by itself; a law is judged on the stored
model of the first seed. Numbers are of held-out pairs. They are not the papers' numbers, and cannot be: their data are
other, their networks larger, their trainings longer. What is compared is the direction of each effect."""
