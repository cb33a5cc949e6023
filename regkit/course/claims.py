"""The claims ledger: what the five papers claim, in our words, and what comes out here, on data that a laptop can make.

A claim about trained networks is judged on stored results (`studies`) by one rule: it holds where the means over the
seeds show it and every seed shows it by itself. A law (symmetry, say) is judged on a stored model. What does not hold
stays in. `python -m regkit ledger` writes the table.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from regkit.course.studies import STUDIES, load, records, spread
from regkit.fields import compose, invert
from regkit.losses import gradicon, icon
from regkit.metrics import folds
from regkit.models import SITReg
from regkit.models.sitreg import two_sided
from regkit.tools import compare
from regkit.tools.measures import RECORDED
from regkit.types import Pair, stack


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
        return f"{RECORDED[self.measure].words} ({self.study})"

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


# ---------------------------------------------------------------------------------------------- judged on results
def rises(study: str, measure: str, *chain: str, factor: float = 1.0) -> Judge:
    """The measure rises from each variant to the next, more than `factor` times; in every seed from first to last."""

    def shown(columns: list[list[float]]) -> bool:
        rising = all(factor * mean(low) < mean(high) for low, high in pairwise(columns))
        return rising and all(low < high for low, high in zip(columns[0], columns[-1], strict=True))

    return _judge(Evidence(study, measure, chain), RECORDED[measure].words, " < ", shown)


def not_less(study: str, measure: str, chosen: str, *others: str) -> Judge:
    """The measure's mean for `chosen` is not below that of any of the others by more than the deviation over seeds."""

    def shown(columns: list[list[float]]) -> bool:
        first, *rest = (spread(column) for column in columns)
        return first.mean >= max(each.mean - max(each.deviation, first.deviation) for each in rest)

    return _judge(Evidence(study, measure, (chosen, *others)), RECORDED[measure].words, " against ", shown)


def within(study: str, measure: str, *names: str, least: float = 0.0, most: float = float("inf")) -> Judge:
    """The measure is between two bounds, in every seed."""
    evidence = Evidence(study, measure, names, least, most)

    def shown(columns: list[list[float]]) -> bool:
        return all(least <= value <= most for column in columns for value in column)

    return _judge(evidence, evidence.title, ", ", shown)


def every(*judges: Judge) -> Judge:
    """All findings together; what is not trained yet leaves the whole open."""

    def judge() -> Finding:
        findings = [each() for each in judges]
        held = [finding.holds for finding in findings]
        together = None if None in held else all(held)
        evidence = tuple(each for finding in findings for each in finding.evidence)
        return Finding("; ".join(finding.words for finding in findings), together, tuple(dict.fromkeys(evidence)))

    return judge


def _judge(evidence: Evidence, title: str, link: str, shown: Callable[[list[list[float]]], bool]) -> Judge:
    """Whether the numbers of the variants, one column each, show a claim; open while a column is empty."""

    def judge() -> Finding:
        columns = [_values(evidence.study, variant, evidence.measure) for variant in evidence.variants]
        spreads = [spread(column) if column else "not trained yet" for column in columns]
        words = link.join(f"{variant} {each}" for variant, each in zip(evidence.variants, spreads, strict=True))
        return Finding(f"{title}: {words}", shown(columns) if all(columns) else None, (evidence,))

    return judge


def _values(study: str, variant: str, measure: str) -> list[float]:
    return [record["metrics"][measure] for record in records(study, variant)]


# ---------------------------------------------------------------------------------------------- laws, judged on a model
_PAIRS = 4
SQUARING = 15  # fields that the standard scaling and squaring keeps with seven steps: two each, and the result


def _some(study: str) -> tuple[Any, Pair]:
    """The stored reference of a study and some of its held-out pairs."""
    return load(study).model, stack(STUDIES[study].held_out[:_PAIRS])


def symmetry(study: str) -> Finding:
    """What a model finds for the exchanged images is what it gave as inverse."""
    model, pair = _some(study)
    with torch.no_grad():
        there, back = model(pair.moving, pair.fixed), model(pair.fixed, pair.moving)
    difference = max(
        float((one - other).abs().max())
        for one, other in ((there.displacement, back.inverse), (there.inverse, back.displacement))
    )
    bound = "exactly 0" if difference == 0 else "below 1e-6" if difference < 1e-6 else f"{difference:.1g}"
    return Finding(f"largest difference over {_PAIRS} held-out pairs: {bound} voxels", difference < 1e-6)


def evaluations(study: str, most: int = 7) -> Finding:
    """How often a step's displacement is looked up until its inverse is within the model's tolerance."""
    model, pair = _some(study)
    with torch.no_grad():
        steps = [stage.step for stage in model.stages(pair.moving, pair.fixed)]
    counts = [_evaluations(step[i : i + 1]) for step in steps for i in range(len(step))]
    within = sum(count <= most for count in counts) / len(counts)
    words = f"{100 * within:.0f} % of {len(counts)} inversions take at most {most}, the longest {max(counts)}"
    return Finding(words, max(counts) <= most)


def _evaluations(step: Tensor) -> int:
    for count in range(2, 50):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                invert(step, max_iterations=count, method="anderson")
            except RuntimeWarning:
                continue
        return count
    return 50


def memory() -> Finding:
    """Fields that an inversion-based update keeps for the backward pass, against the standard squaring."""
    step = (0.2 * torch.randn(2, 2, 17, 19, generator=torch.Generator().manual_seed(0))).requires_grad_()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        update = compose(*two_sided(step, invert))
    storages = {tensor.untyped_storage().data_ptr() for tensor in (*saved, update) if tensor.numel() >= step.numel()}
    kept = len(storages - {step.untyped_storage().data_ptr()})
    words = f"{kept} fields are kept for the backward pass, where seven standard squarings keep {SQUARING}"
    return Finding(words, 5 * kept <= SQUARING)


def translation() -> Finding:
    """What a shift of 3 voxels between two maps that are inverse otherwise costs."""
    shift = torch.zeros(1, 2, 33, 40)
    shift[:, 0] = 3.0
    costs = float(gradicon(shift, torch.zeros_like(shift))), float(icon(shift, torch.zeros_like(shift)))
    return Finding(f"GradICON {costs[0]:.1g}, ICON {costs[1]:.2g}", costs[0] < 1e-6 < costs[1])


def control_limit() -> Finding:
    """No step of SITReg folds, whatever the weights: here the safe limit under weights a hundred times too large."""
    model = SITReg(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
        pair = stack(STUDIES["sitreg"].held_out[:1])
        steps = [stage.step for stage in model.stages(pair.moving, pair.fixed)]
    count = sum(folds(step).count for step in steps)
    return Finding(f"{count:.0f} folded voxels in all steps", count == 0)


# ---------------------------------------------------------------------------------------------- the rows
def _of(method: str, study: str) -> Callable[..., Claim]:
    """What makes the rows of a method, most of which are judged on one study."""

    def claim(
        words: str, source: tuple[str, str], judge: Judge, remark: str = "", studies: tuple[str, ...] = (study,)
    ) -> Claim:
        return Claim(method, words, *source, studies, judge, remark)

    return claim


_of_gradicon, _of_sitreg = _of("GradICON", "gradicon"), _of("SITReg", "sitreg")
_of_spnet, _of_sacbnet, _of_smgicnet = _of("SPnet", "spnet"), _of("SACB-Net", "sacbnet"), _of("SM-GICNet", "smgicnet")

_GRADICON = (
    _of_gradicon(
        "converges faster than ICON at equally few folds",
        ("Figure 3", "curves"),
        every(
            rises("gradicon", "mse", "reference", "ICON"), within("gradicon", "folds", "reference", "ICON", most=0.05)
        ),
    ),
    _of_gradicon(
        "several steps converge faster than one",
        ("Figure 3", "curves"),
        rises("gradicon", "mse", "reference", "one step"),
    ),
    _of_gradicon(
        "both together are best",
        ("Figure 3", "curves"),
        every(*(rises("gradicon", "mse", "reference", other) for other in ("ICON", "one step", "ICON, one step"))),
    ),
    _of_gradicon(
        "a weight of ICON small enough to move folds, and one that prevents folds stands still",
        ("Table 2", "ICON 8.9 mm, 0.46 % folds; GradICON 3.6 mm, 0.004 %"),
        every(rises("gradicon", "folds", "reference", "weak ICON"), rises("gradicon", "mse", "reference", "weak ICON")),
    ),
    _of_gradicon(
        "more sub-networks lower the error on vessels",
        ("Figure 4", "bars"),
        rises("gradicon_vessels", "field_error", "reference", "two networks", "one network"),
        studies=("gradicon_vessels",),
    ),
    _of_gradicon(
        "the self-adaptive similarity lowers folds",
        ("Figure 4", "bars"),
        rises("gradicon_vessels", "folds", "reference", "NCC"),
        studies=("gradicon_vessels",),
    ),
    _of_gradicon(
        "a translation between the maps costs no GradICON loss", ("section 4", "a formula"), translation, studies=()
    ),
    _of_gradicon(
        "the same weight works at two resolutions",
        ("sections 5.2 to 5.4", "one weight for knees, lungs and brains"),
        every(
            *(within(study, "folds", "reference", most=0.05) for study in ("gradicon", "gradicon_finer")),
            *(within(study, "dice", "reference", least=0.85) for study in ("gradicon", "gradicon_finer")),
        ),
        "Nothing folds at either size; at the smaller one a seed of three is still slow after its 400 steps.",
        studies=("gradicon", "gradicon_finer"),
    ),
)

_SITREG = (
    _of_sitreg(
        "exchanging the images exchanges the maps exactly",
        ("section 3.2", "by construction"),
        partial(symmetry, "sitreg"),
    ),
    _of_sitreg(
        "forward and inverse map undo each other by construction",
        ("Table 1", "cycle error 5.6e-3 voxel², VoxelMorph 0.45"),
        every(
            within("sitreg", "inverse_error", "reference", most=0.05),
            within("voxelmorph", "exchange_error", "reference", least=0.1),
        ),
        studies=("sitreg", "voxelmorph"),
    ),
    _of_sitreg(
        "an inversion takes at most 7 fixed-point iterations",
        ("appendix", "96 % need 3 to 5, none more than 7"),
        partial(evaluations, "sitreg"),
    ),
    _of_sitreg(
        "the deformation inversion layer keeps a fifth of the memory of a velocity field",
        ("Table A5", "0.56 GB against 2.81 GB"),
        memory,
        "regkit's own squaring recomputes what it needs and keeps 8 fields.",
        studies=(),
    ),
    _of_sitreg(
        "works without pre-alignment when the affine stage is on",
        ("Table 1", "Dice 0.810, against 0.817 with pre-alignment"),
        every(
            within("sitreg_unaligned", "dice", "reference", least=0.7), within("sitreg", "dice", "reference", least=0.7)
        ),
        studies=("sitreg", "sitreg_unaligned"),
    ),
    _of_sitreg(
        "its steps cannot fold, whatever the weights", ("section 3.4", "by construction"), control_limit, studies=()
    ),
)

_SPNET = (
    _of_spnet(
        "the average of bidirectional velocities cuts the inverse consistency error by an order of magnitude",
        ("Table 4", "0.425 to 0.046 voxels"),
        rises("spnet", "exchange_error", "reference", "SS+BE", factor=10),
    ),
    *(
        _of_spnet(words, ("Table 4", paper), rises("spnet", "dice", without, "reference"))
        for words, paper, without in (
            ("feature warping raises Dice", "0.562 to 0.587", "w/o FW"),
            ("multi-scale image encoding raises Dice", "0.577 to 0.587", "w/o MIE"),
            ("symmetric registration raises Dice", "0.571 to 0.587", "w/o SR"),
            ("bidirectional estimation raises Dice, averaged", "0.570 to 0.587", "SS"),
        )
    ),
    _of_spnet(
        "a velocity field cuts folds",
        ("Table 4", "0.223 % to 0.002 %"),
        rises("spnet", "folds", "reference", "w/o SVF, weight 0.01"),
        "The paper does not say how much its inverse consistency term weighs without the velocity; with weight 1 "
        "nothing folds, but little moves either (w/o SVF).",
    ),
    _of_spnet(
        "more levels raise Dice",
        ("Table 4", "0.549, 0.573, 0.587 with 2, 3, 4"),
        rises("spnet", "dice", "2 levels", "3 levels", "reference"),
    ),
    _of_spnet(
        "exchanging the images exchanges the maps exactly", ("section 2", "by construction"), partial(symmetry, "spnet")
    ),
)

_SACBNET = (
    _of_sacbnet(
        "the block raises Dice over the same pyramid without it",
        ("Table 3", "LPBA 0.714 to 0.731"),
        rises("sacbnet", "dice", "no block", "reference"),
    ),
    _of_sacbnet(
        "the block on more levels is better",
        ("Table 3", "0.7141, 0.7217, 0.7241, 0.7294"),
        rises("sacbnet", "dice", "no block", "block on level 5", "blocks on levels 5, 4", "reference"),
        "A second block is no better than one, within the deviation; all four are best in every seed.",
    ),
    _of_sacbnet(
        "about 7 clusters suffice",
        ("Table 3", "0.7294, 0.7309, 0.7300 with 5, 7, 11"),
        not_less("sacbnet", "dice", "reference", "5 clusters", "11 clusters"),
    ),
    _of_sacbnet(
        "clustering means over space is at least as good as over channels, or both",
        ("Table 4", "0.7294, 0.7281, 0.7285"),
        not_less("sacbnet", "dice", "reference", "means over channels", "both means"),
    ),
    _of_sacbnet(
        "a kernel for each cluster is better than one for all",
        ("the idea; no row in the paper", "none"),
        rises("sacbnet", "dice", "1 cluster", "reference"),
        "The means agree, one seed does not: the difference is within the deviation over the seeds.",
    ),
)

_CLOSE = "A small effect: it is within the deviation over the seeds."

_SMGICNET = (
    _of_smgicnet(
        "registers without affine alignment where a single level fails",
        ("Table 1, Figure 3b", "0.797 against 0.289 (ICNet)"),
        rises("smgicnet", "dice", "one level", "reference", factor=1.5),
    ),
    *(
        _of_smgicnet(words, ("Figure 3b", "bars"), rises("smgicnet", "dice", without, "reference"), remark)
        for words, without, remark in (
            ("attention gates raise Dice", "no attention", _CLOSE),
            ("symmetry raises Dice", "not symmetric", ""),
            ("gradient inverse consistency raises Dice", "no gradient inverse consistency", _CLOSE),
            ("more levels raise Dice", "two levels", ""),
        )
    ),
    _of_smgicnet(
        "gradient inverse consistency replaces the smoothness term without more folds",
        ("section 3.3", "in words"),
        every(
            within("smgicnet", "folds", "reference", "no smoothness", most=0.01),
            not_less("smgicnet", "dice", "no smoothness", "no gradient inverse consistency"),
        ),
    ),
)

CLAIMS = (*_GRADICON, *_SITREG, *_SPNET, *_SACBNET, *_SMGICNET)

# ---------------------------------------------------------------------------------------------- the table
_VERDICTS = {True: "**yes**", False: "**no**", None: "open"}
_PREFACE = """Small networks, small images, open data: regkit.benchmarks has the pairs, regkit.variants the recipes.
A claim holds where the means over the seeds show it and every seed shows it by itself; a law is judged on the stored
model of the first seed. Numbers are of held-out pairs. They are not the papers' numbers, and cannot be: their data are
other, their networks larger, their trainings longer. What is compared is the direction of each effect."""


def table(claims: Sequence[Claim]) -> str:
    """The ledger as markdown; the first line below the title counts."""
    findings = [claim.judge() for claim in claims]
    held, failed, open_ = (sum(finding.holds is value for finding in findings) for value in (True, False, None))
    undecided = f", {open_} not trained yet" if open_ else ""
    head = ["", "Method", "The claim", "The paper", "Here: mean ± standard deviation (seeds)", "Holds?", "Command"]
    rows = [
        [
            str(number),
            claim.method,
            claim.words,
            f"{claim.source}: {claim.paper}",
            finding.words,
            f"{_VERDICTS[finding.holds]}{f'. {claim.remark}' if claim.remark else ''}",
            f"`{claim.command}`",
        ]
        for number, (claim, finding) in enumerate(zip(claims, findings, strict=True), start=1)
    ]
    return f"""# What the papers claim, and what comes out here

{len(claims)} claims: {held} hold, {failed} do not{undecided}. Made by `python -m regkit ledger`.

{_PREFACE}

{compare.table(head, rows)}"""
