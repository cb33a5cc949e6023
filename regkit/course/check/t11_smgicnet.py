"""The exercises of tutorial 11: which switch matters as the displacement grows, and the way back through all levels."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from regkit.course.check.exercise import Exercise, Hint, Words, returned
from regkit.fields import compose, exponential, upsample
from regkit.types import Displacement

__all__ = ["growing_gap", "three_levels", "way_back"]

CHANGES = ("more", "about as much", "less")
_SWITCHES = {"levels": "more"} | dict.fromkeys(("symmetric", "gradient inverse"), "about as much")  # as measured

# ---------------------------------------------------------------------------------------------- which switch
_words = Words(_SWITCHES, CHANGES)

growing_gap = Exercise(
    task=f"Say of each switch whether more is lost without it at 6 voxels than at 0: one of {', '.join(CHANGES)}.",
    praise="only the levels buy reach. What the other two bring does not grow with the motion.",
    prepare=_words.prepare,
    reference=_words.reference,
    mistakes={
        "all alike": Hint(
            "not all alike: set the chart to what is lost, and compare the left end of each curve with 6 voxels."
        ).to(*_words.all_alike("more")),
        "levels do not matter": Hint(
            "levels: choose 'two levels' and watch its distance from the reference between 0 and 6 voxels."
        ).to(*_words.said("levels", "less", "about as much")),
        "consistency buys reach": Hint(
            "gradient inverse: regular maps are not the same as far-reaching ones. Where does the curve end?"
        ).to(*_words.said("gradient inverse", "more")),
        "consistency holds back": Hint(
            "gradient inverse: its curve falls by two hundredths. In one training that is about as much."
        ).to(*_words.said("gradient inverse", "less")),
        "symmetry buys reach": Hint(
            "symmetric: its curve is nearly level; a hundredth more or less of Dice means nothing here."
        ).to(*_words.said("symmetric", "more", "less")),
        "another word": lambda: {**_SWITCHES, "symmetric": "twice"},
        "one switch only": lambda: {"levels": "more"},
    },
)

# ---------------------------------------------------------------------------------------------- the way back
_SIZES, _CLOSE = ((10, 12), (20, 24), (40, 48)), 0.02  # of the levels; relative


@functools.cache
def three_levels() -> tuple[Displacement, ...]:
    """What three levels add, coarse to fine: velocities (1, 2, *level), voxels of each level's own grid."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for size, length in zip(_SIZES, (1.2, 1.0, 0.6), strict=True):
        noise = torch.randn(1, 2, 5, 6, generator=generator)
        smooth = torch.nn.functional.interpolate(noise, size, mode="bicubic", align_corners=False)
        window = torch.outer(*(torch.linspace(0, torch.pi, count).sin() for count in size))
        found.append(length * window * smooth)
    return tuple(found)


def _added(residuals: Sequence[Displacement], grow: Callable[[Tensor], Tensor] = upsample) -> Displacement:
    """v_i = r_i + up(v_{i-1})."""
    velocity, *rest = residuals
    for residual in rest:
        velocity = residual + grow(velocity)
    return velocity


def _back(residuals: Sequence[Displacement]) -> Displacement:
    return exponential(-_added(residuals))


def _full_size(residuals: Sequence[Displacement]) -> list[Displacement]:
    """Each level by itself at full size."""
    return [_added([r, *[0 * finer for finer in residuals[i + 1 :]]]) for i, r in enumerate(residuals)]


def _chained(residuals: Sequence[Displacement]) -> Displacement:
    parts = [exponential(-each) for each in _full_size(residuals)]
    return functools.reduce(compose, parts)


def _try(answer: Any) -> Displacement:
    given = returned("my_way_back", answer([each.clone() for each in three_levels()]))
    wanted = tuple(three_levels()[-1].shape)
    if not isinstance(given, Tensor) or tuple(given.shape) != wanted:
        shape = tuple(getattr(given, "shape", ())) or type(given).__name__
        raise ValueError(f"a displacement {wanted}, at full size, is wanted, received {shape}")
    return given.detach()


way_back = Exercise(
    task="Write my_way_back(residuals): from what the levels add, coarse to fine, the displacement of the inverse.",
    praise="velocities add, so one minus turns all levels around at once; nothing had to be inverted.",
    prepare=_try,
    reference=lambda: _back,
    alike=lambda given, other: float((given - other).norm()) < _CLOSE * float(other.norm()),
    mistakes={
        "not finite": Hint("the displacement is not finite.").to(
            lambda: lambda residuals: residuals[-1] / 0, lambda given: not bool(given.isfinite().all())
        ),
        "there": Hint("this is the way there, exp(v). The way back is against the wind.").written(
            lambda r: exponential(_added(r))
        ),
        "minus the displacement": Hint(
            "-u is no inverse of u (tutorial 05). Turn the wind around before you let it blow."
        ).written(lambda r: -exponential(_added(r))),
        "the velocity": Hint(
            "this is the velocity, turned around; it has still to be integrated: regkit.exponential."
        ).written(lambda r: -_added(r)),
        "not doubled": Hint(
            "a voxel of a level is two of the next: the numbers have to be doubled with the grid. fields.upsample does "
            "it."
        ).written(lambda r: exponential(-_added(r, lambda v: upsample(v) / 2))),
        "doubled twice": Hint(
            "the numbers are doubled twice: fields.upsample doubles them already, it is the 2 and the up of the "
            "formula."
        ).written(lambda r: exponential(-_added(r, lambda v: 2 * upsample(v)))),
        "the finest alone": Hint("this is what the last level adds. The other levels' velocities are missing.").written(
            lambda r: exponential(-r[-1])
        ),
        "chained": Hint(
            "each level integrated by itself, then composed: another map. Add all velocities first, then integrate."
        ).written(_chained),
        "half of it": Hint(
            "it does not lead back. v = r_1; then for each further level v = r + upsample(v); at the end exp(-v)."
        ).otherwise(lambda residuals: 0.5 * _back(residuals)),
        "half the size": lambda: lambda residuals: exponential(-residuals[-2]),
    },
)
