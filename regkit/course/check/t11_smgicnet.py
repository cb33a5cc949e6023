"""The exercises of tutorial 11: which switch matters as the displacement grows, and the way back through all levels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regkit.course.check.exercise import Exercise, Unanswered
from regkit.fields import compose, exponential, upsample
from regkit.types import Displacement

CHANGES = ("more", "about as much", "less")

_SWITCHES = {"levels": CHANGES[0], "symmetric": CHANGES[1], "gradient inverse": CHANGES[2]}  # the tutorial measures it

# ---------------------------------------------------------------------------------------------- which switch


def _changes(answer: Any) -> dict[str, str]:
    if not isinstance(answer, Mapping) or set(answer) != set(_SWITCHES):
        raise ValueError(f"a dictionary with {', '.join(_SWITCHES)} is wanted, received {answer!r}")
    blank = [name for name, change in answer.items() if change is None or change is ...]
    if blank:
        raise Unanswered(f"{', '.join(blank)} still blank." if len(blank) < len(_SWITCHES) else "")
    words = {name: change.strip().lower() if isinstance(change, str) else change for name, change in answer.items()}
    unknown = [change for change in words.values() if change not in CHANGES]
    if unknown:
        raise ValueError(f"each must be one of {', '.join(CHANGES)}, received {unknown[0]!r}")
    return words


growing_gap = Exercise(
    task=f"Say of each switch whether more is lost without it at 6 voxels than at 0: one of {', '.join(CHANGES)}.",
    praise="only the levels buy reach. Symmetry helps alike everywhere; the consistency holds large motions back.",
    prepare=_changes,
    rules=(
        (
            lambda words: len(set(words.values())) == 1,
            "not all alike: set the chart to what is lost, and compare the left end of each curve with 6 voxels.",
        ),
        (
            lambda words: words["levels"] != CHANGES[0],
            "levels: choose 'two levels' and watch its distance from the reference between 0 and 6 voxels.",
        ),
        (
            lambda words: words["gradient inverse"] == CHANGES[0],
            "gradient inverse: regular maps are not the same as far-reaching ones. Where does the curve end?",
        ),
        (
            lambda words: words["gradient inverse"] != CHANGES[2],
            "gradient inverse: a little is lost at 0 voxels. Is it still lost at 6, or is something gained?",
        ),
        (
            lambda words: words["symmetric"] != CHANGES[1],
            "symmetric: its curve is nearly level; a hundredth more or less of Dice means nothing here.",
        ),
    ),
    reference=lambda: dict(_SWITCHES),
    mistakes={
        "all alike": lambda: dict.fromkeys(_SWITCHES, CHANGES[0]),
        "levels do not matter": lambda: {**_SWITCHES, "levels": CHANGES[1]},
        "consistency buys reach": lambda: {**_SWITCHES, "gradient inverse": CHANGES[0]},
        "consistency is neutral": lambda: {**_SWITCHES, "gradient inverse": CHANGES[1]},
        "symmetry buys reach": lambda: {**_SWITCHES, "symmetric": CHANGES[0]},
        "another word": lambda: {**_SWITCHES, "symmetric": "twice"},
        "one switch only": lambda: {"levels": CHANGES[0]},
    },
)

# ---------------------------------------------------------------------------------------------- the way back

Back = Callable[[Sequence[Displacement]], Displacement]

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


_WAY_MISTAKES: Mapping[str, tuple[Back, str]] = {
    "there": (lambda r: exponential(_added(r)), "this is the way there, exp(v). The way back is against the wind."),
    "minus the displacement": (
        lambda r: -exponential(_added(r)),
        "-u is no inverse of u (tutorial 05). Turn the wind around before you let it blow.",
    ),
    "the velocity": (
        lambda r: -_added(r),
        "this is the velocity, turned around; it has still to be integrated: regkit.exponential.",
    ),
    "not doubled": (
        lambda r: exponential(-_added(r, lambda v: upsample(v) / 2)),
        "a voxel of a level is two of the next: the numbers have to be doubled with the grid. fields.upsample does it.",
    ),
    "doubled twice": (
        lambda r: exponential(-_added(r, lambda v: 2 * upsample(v))),
        "the numbers are doubled twice: fields.upsample doubles them already, it is the 2 and the up of the formula.",
    ),
    "the finest alone": (
        lambda r: exponential(-r[-1]),
        "this is what the last level adds. The other levels' velocities are missing.",
    ),
    "chained": (
        _chained,
        "each level integrated by itself, then composed: another map. Add all velocities first, then integrate.",
    ),
}


def _try(answer: Any) -> Displacement:
    given = answer([each.clone() for each in three_levels()])
    if given is None or given is ...:
        raise Unanswered("my_way_back returns nothing yet.")
    wanted = tuple(three_levels()[-1].shape)
    if not isinstance(given, Tensor) or tuple(given.shape) != wanted:
        shape = tuple(getattr(given, "shape", ())) or type(given).__name__
        raise ValueError(f"a displacement {wanted}, at full size, is wanted, received {shape}")
    return given.detach()


def _given(answer: Back) -> Back:
    return answer


def _is(right: Back) -> Callable[[Displacement], bool]:
    """Whether an answer is what `right` gives."""

    def near(given: Displacement) -> bool:
        value = right(three_levels())
        return float((given - value).norm()) < _CLOSE * float(value.norm())

    return near


way_back = Exercise(
    task="Write my_way_back(residuals): from what the levels add, coarse to fine, the displacement of the inverse.",
    praise="velocities add, so one minus turns all levels around at once; nothing had to be inverted.",
    prepare=_try,
    rules=(
        (lambda given: not bool(given.isfinite().all()), "the displacement is not finite."),
        *((_is(wrong), hint) for wrong, hint in _WAY_MISTAKES.values()),
        (
            lambda given: not _is(_back)(given),
            "it does not lead back. v = r_1; then for each further level v = r + upsample(v); at the end exp(-v).",
        ),
    ),
    reference=lambda: _back,
    mistakes={
        **{name: functools.partial(_given, wrong) for name, (wrong, _) in _WAY_MISTAKES.items()},
        "half the size": lambda: lambda residuals: exponential(-residuals[-2]),
        "not finite": lambda: lambda residuals: residuals[-1] / 0,
        "half of it": lambda: lambda residuals: 0.5 * _back(residuals),
    },
)
