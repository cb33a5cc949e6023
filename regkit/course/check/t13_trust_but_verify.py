"""The exercises of tutorial 13: a field that raises Dice and is nonsense, and a protocol that finds it out."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu

from regkit.course.check.exercise import Exercise, Hint, returned
from regkit.data.brains import BrainPairs
from regkit.fields import identity, warp_labels
from regkit.metrics import dice, folds
from regkit.tools.compare import Row, chance
from regkit.types import Displacement, Labels, Pair, spatial

__all__ = ["fair_protocol", "protocol_cases", "rigged", "rigged_field"]

# ---------------------------------------------------------------------------------------------- rig the Dice
_ALL = 0.99  # of Dice: what the labels give away


@functools.cache
def rig_pairs() -> tuple[Pair, Pair]:
    """Two pairs of labelled slices, 44 x 37 voxels, that a rigged field is tried on."""
    pairs = BrainPairs(2, size=(44, 37), motion="large", aligned=False, split="test", seed=13)
    return pairs[0], pairs[1]


def rigged(moving_labels: Labels, fixed_labels: Labels) -> Displacement:
    """A field that sends every voxel to the first voxel of moving that has its label; (1, dim, *space), voxels.

    moving_labels, fixed_labels: (1, 1, *space). Voxels whose label moving lacks stay.
    """
    grid = identity(spatial(fixed_labels))[0]
    displacement = torch.zeros_like(grid)
    for label in fixed_labels.unique():
        found = (moving_labels[0, 0] == label).nonzero()
        if len(found):
            here = fixed_labels[0, 0] == label
            displacement[:, here] = found[0].float()[:, None] - grid[:, here]
    return displacement[None]


@dataclass(frozen=True)
class _Tried:
    """A learner's field on one pair."""

    moving: Labels
    fixed: Labels
    field: Displacement

    def overlap(self) -> float:
        """Mean Dice of the moving labels, warped by the field, and the fixed ones."""
        return fmean(dice(warp_labels(self.moving, self.field), self.fixed).values())


def _try_field(answer: Any) -> list[_Tried]:
    tried = []
    for pair in rig_pairs():
        assert pair.moving_labels is not None and pair.fixed_labels is not None
        field = returned("my_field", answer(pair.moving_labels.clone(), pair.fixed_labels.clone()))
        wanted = (1, 2, *spatial(pair.fixed))
        if not isinstance(field, torch.Tensor) or tuple(field.shape) != wanted:
            received = f"a {type(field).__name__} {tuple(getattr(field, 'shape', ())) or ''}".strip()
            raise ValueError(f"a torch.Tensor {wanted} is wanted, received {received}")
        tried.append(_Tried(pair.moving_labels, pair.fixed_labels, field.detach().float()))
    return tried


def _is_rig(tried: list[_Tried]) -> bool:
    return all(each.overlap() >= _ALL for each in tried)


def _rig_but_for(change: Callable[[_Tried], _Tried]) -> Callable[[list[_Tried]], bool]:
    """Whether the field is no rig, and would be one if it were changed so."""
    return lambda tried: not _is_rig(tried) and _is_rig([change(each) for each in tried])


def _true_field(moving_labels: Labels, fixed_labels: Labels) -> Displacement:
    """The honest answer to one of the two pairs."""
    for pair in rig_pairs():
        if pair.displacement is not None and torch.equal(fixed_labels, pair.fixed_labels):  # type: ignore[arg-type]
            return pair.displacement
    raise ValueError("not one of the two pairs")


def _some_labels(moving_labels: Labels, fixed_labels: Labels) -> Displacement:
    """The rig, for every other label."""
    return torch.where(fixed_labels % 2 == 0, rigged(moving_labels, fixed_labels), 0.0)


rigged_field = Exercise(
    task="Write my_field(moving_labels, fixed_labels): a displacement that raises Dice to 1 and is nonsense.",
    praise="Dice 1, and a map that tears the brain to shreds. Nothing in Dice asks where a voxel comes from.",
    prepare=_try_field,
    reference=lambda: rigged,
    right=_is_rig,
    mistakes={
        "not finite": Hint("the field is not finite.").to(
            lambda: lambda moving, fixed: rigged(moving, fixed) / 0,
            lambda tried: not all(each.field.isfinite().all() for each in tried),
        ),
        "nothing": Hint(
            "nothing moves: Dice stays as it was. Send each voxel of fixed to a voxel of moving with the same label."
        ).to(
            lambda: lambda moving, fixed: torch.zeros(1, 2, *spatial(fixed)),
            lambda tried: not any(each.field.abs().max() > 0 for each in tried),
        ),
        "places": Hint(
            "these are places, x + u(x); a displacement says how far to go: subtract fields.identity(...)."
        ).to(
            lambda: lambda moving, fixed: rigged(moving, fixed) + identity(spatial(fixed)),
            _rig_but_for(lambda tried: replace(tried, field=tried.field - identity(spatial(tried.field)))),
        ),
        "axes": Hint("the components have changed places: channel 0 moves along axis 0, downwards.").to(
            lambda: lambda moving, fixed: rigged(moving, fixed).flip(1),
            _rig_but_for(lambda tried: replace(tried, field=tried.field.flip(1))),
        ),
        "sign": Hint("the sign is the other one: from the voxel of fixed to where moving is read, so place - x.").to(
            lambda: lambda moving, fixed: -rigged(moving, fixed),
            _rig_but_for(lambda tried: replace(tried, field=-tried.field)),
        ),
        "pushed": Hint(
            "it lays the fixed labels on the moving ones. A warp pulls: at each voxel of fixed, where is moving read?"
        ).to(
            lambda: lambda moving, fixed: rigged(fixed, moving),
            _rig_but_for(lambda tried: replace(tried, moving=tried.fixed, fixed=tried.moving)),
        ),
        "honest": Hint(
            "hardly a fold: that is a registration, and an honest one. Be worse: the labels tell you all you need."
        ).to(lambda: _true_field, lambda tried: all(folds(each.field).percent < SOME_FOLDS for each in tried)),
        "every other label": Hint(
            "it folds, but Dice stays below 0.99: some voxels read another label than their own. Those of label 0 too?"
        ).otherwise(_some_labels),
        "no batch": lambda: lambda moving, fixed: rigged(moving, fixed)[0],
        "an array": lambda: lambda moving, fixed: rigged(moving, fixed).numpy(),
    },
)

# ---------------------------------------------------------------------------------------------- a fair protocol
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


def _ask(answer: Any) -> dict[str, bool]:
    """Whether the protocol takes the candidate for better, case by case."""
    verdicts = {}
    for name, case in protocol_cases().items():
        try:
            given = answer(list(case.rows), set(TUNED_ON), case.tries)
        except Exception as error:
            pairs = {row.pair for row in case.rows}
            told = f"with {len(pairs)} pairs, {len(pairs & set(TUNED_ON))} of them in tuned_on, my_protocol raises"
            raise ValueError(f"{told} {type(error).__name__}: {error}") from error
        if not isinstance(returned("my_protocol", given), (bool, np.bool_)):
            raise ValueError(f"True or False is wanted, received {given!r}")
        verdicts[name] = bool(given)
    return verdicts


def _of_the_tuned_ones(rows: list[Row], tuned_on: Collection[int], tries: int) -> bool:
    """The reference, of the pairs that should be left out."""
    return protocol(apart=False)([row for row in rows if row.pair in tuned_on], tuned_on, tries)


fair_protocol = Exercise(
    task="Write my_protocol(rows, tuned_on, tries): True where the candidate is better than the reference.",
    praise="held-out pairs, each compared with itself, a test that knows the number of tries, and a look at the folds.",
    prepare=_ask,
    reference=protocol,
    mistakes={
        "always yes": Hint("it takes every candidate for better, also one that is worse on each pair.").to(
            lambda: lambda rows, tuned_on, tries: True, lambda says: all(says.values())
        ),
        "always no": Hint(
            "it never says True, not even of a candidate with 0.3 more Dice on each pair, and without a fold."
        ).to(lambda: lambda rows, tuned_on, tries: False, lambda says: not any(says.values())),
        "folds do not matter": Hint(
            "Dice up by 0.2, and 40 % of the voxels fold: it says better. Dice is not all that is measured."
        ).to(lambda: protocol(regular=False), lambda says: says["rigged"]),
        "all pairs count": Hint(
            "a gain on the pairs of tuned_on, and none on the others: it says better. What may not count as evidence?"
        ).to(lambda: protocol(apart=False), lambda says: says["tuned"] and not says["chance"]),
        "no direction": Hint(
            "worse on every pair, and it says better: the test is two-sided. Which way does it point?"
        ).to(lambda: protocol(two_sided=True), lambda says: says["worse"]),
        "no test": Hint(
            "ups and downs of 0.01 that nearly cancel, and it says better: how often would chance alone do that?"
        ).to(lambda: protocol(test=lambda rows: 0.0), lambda says: says["chance"]),
        "the mean": Hint(
            "eleven of twelve pairs get worse, one gains 0.4, and it says better: a mean follows one pair. The median?"
        ).to(lambda: protocol(middle=fmean), lambda says: says["one pair"]),
        "always up": Hint(
            "four pairs, all better, and it says better: chance does that once in eight times. What is the least p?"
        ).to(lambda: protocol(test=always_up), lambda says: says["few"]),
        "one try": Hint(
            "p is 0.007, but this candidate is the best of 40 that were tried: how often does one of 40 come so far?"
        ).to(lambda: protocol(corrected=False), lambda says: says["tries"]),
        "by order": Hint(
            "the same rows in another order, and the verdict is another: bring pairs together by row.pair."
        ).to(lambda: protocol(test=by_order), lambda says: says["honest"] and not says["backwards"]),
        "unpaired": Hint(
            "better on each of twelve held-out pairs, and it says no: is each pair compared with itself?"
        ).to(lambda: protocol(test=unpaired), lambda says: not says["honest"]),
        "too good": Hint(
            "0.3 more Dice on each of twelve pairs, and it says no: a large gain is no fault. What else is asked for?"
        ).to(lambda: protocol(most=0.1), lambda says: not says["large"]),
        "tuned pairs only": lambda: _of_the_tuned_ones,
        "a number": lambda: lambda rows, tuned_on, tries: 0.04,
    },
)
