"""The exercise of tutorial 05: how often to square so that a swirl does not fold, and so that it can be undone."""

import functools
from typing import Any

import torch

from regkit.course.check.exercise import Exercise, Hint, filled_in
from regkit.fields import compose, exponential, identity, jacobian_determinant
from regkit.types import Displacement

__all__ = ["squarings", "swirl", "wild_swirl"]

_TURN, _SIZE, _MOST = 6.0, 64, 10  # radians at the swirl's centre, voxels, squarings tried
Squarings = tuple[int, int]


def swirl(turn: float, *, size: int = 64, width: float = 9.0) -> Displacement:
    """A velocity (1, 2, size, size) that turns around the middle: ω(r) = turn exp(-r² / 2 width²) radians a unit time.

    v(x) = ω(r) (-p_1, p_0) with p = x - middle and r = |p|. Every voxel runs on a circle, so its exponential is known:
    p turned by ω(r).
    """
    place = identity((size, size)) - (size - 1) / 2
    rate = turn * torch.exp(-place.square().sum(1, keepdim=True) / (2 * width**2))
    return rate * torch.cat([-place[:, 1:], place[:, :1]], 1)


def wild_swirl() -> Displacement:
    """The swirl of the exercise: nearly a whole turn, 6 radians."""
    return swirl(_TURN, size=_SIZE)


@functools.cache
def _enough() -> Squarings:
    """The fewest squarings without folds, and with |φ_v(φ_-v(x)) - x| below one voxel everywhere."""
    velocity, unfolded, undone = wild_swirl(), [], []
    for steps in range(_MOST + 1):
        there, back = exponential(velocity, steps=steps), exponential(-velocity, steps=steps)
        unfolded.append(bool((jacobian_determinant(there) > 0).all()))
        undone.append(bool((compose(there, back).norm(dim=1) < 1).all()))
    return unfolded.index(True), undone.index(True)


def _two_numbers(answer: Any) -> Squarings:
    if isinstance(answer, (int, float)):
        raise ValueError(f"one number, {answer}, is half of it: write two in brackets, such as (3, 5)")
    if isinstance(answer, (str, bytes, dict)) or len(answer) != 2:
        raise ValueError(f"two numbers are wanted, received {answer!r}")
    answer = filled_in(("K_folds", "K_round_trip"), answer)
    if any(float(number) != int(number) for number in answer):
        raise ValueError(f"whole numbers are wanted, received {answer!r}")
    return int(answer[0]), int(answer[1])


squarings = Exercise(
    task="Give (K_folds, K_round_trip): the fewest squarings without a fold, and with a round trip below 1 voxel.",
    praise="a map can be free of folds and still be many voxels wrong: look at both.",
    prepare=_two_numbers,
    reference=_enough,
    mistakes={
        "negative": Hint(
            "a negative number of squarings: 0 takes the velocity for a displacement, and is the least."
        ).to(lambda: (-1, 3), lambda answer: min(answer) < 0),
        "small steps": Hint("these are the small steps, 2^K. Squarings are counted: K.").to(
            lambda: tuple(2**count for count in _enough())
        ),
        "swapped": Hint("right numbers, wrong order: first for the folds, then for the round trip.").to(
            lambda: _enough()[::-1]
        ),
        "folds only": Hint(
            "right for the folds. But a map without folds need not be accurate: measure the round trip as well."
        ).to(lambda: (_enough()[0], _enough()[0])),
        "still folds": Hint("with so few squarings the map still folds: look at the smallest |J|.").to(
            lambda: (_enough()[0] - 1, _enough()[1]), lambda answer: answer[0] < _enough()[0]
        ),
        "too many for the folds": Hint("fewer squarings are already free of folds: find the fewest.").to(
            lambda: (_enough()[0] + 1, _enough()[1]), lambda answer: answer[0] > _enough()[0]
        ),
        "too few for the round trip": Hint(
            "somewhere the round trip is still a voxel or more off: look at the largest error, not at the mean."
        ).to(lambda: (_enough()[0], _enough()[1] - 1), lambda answer: answer[1] < _enough()[1]),
        "too many for the round trip": Hint("fewer squarings bring every voxel back within 1 voxel.").to(
            lambda: (_enough()[0], _enough()[1] + 1), "otherwise"
        ),
        "one number": lambda: [_enough()[0]],
        "a plain number": lambda: _enough()[0],
        "half a squaring": lambda: (2.5, 8),
    },
)
