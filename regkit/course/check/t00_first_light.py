"""The exercise of tutorial 00: three landmarks, placed by hand."""

import functools
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from regkit import data
from regkit.course.check.exercise import Exercise, Hint
from regkit.fields import warp_points
from regkit.types import Pair

__all__ = ["LANDMARKS", "landmark_pair", "landmarks"]

LANDMARKS = torch.tensor([[11.0, 46.0], [50.0, 57.0], [39.0, 27.0]])  # the triangle's corners in the fixed image


@functools.cache
def landmark_pair() -> Pair:
    """The pair of the landmark exercise: its fixed image shows the moving image's triangle, deformed by a known map."""
    return data.synthetic_pair(dim=2, seed=7, motion=0.3)


def _true_landmarks() -> Tensor:
    displacement = landmark_pair().displacement
    assert displacement is not None  # a synthetic pair knows its truth
    return warp_points(LANDMARKS[None], displacement)[0]


def _places(answer: Any) -> Tensor:
    places = torch.as_tensor(answer, dtype=torch.float32)
    if places.shape != LANDMARKS.shape:
        raise ValueError(f"three (row, column) places are wanted, received the shape {tuple(places.shape)}")
    return places


def _near(places: Tensor, others: Tensor) -> bool:
    return bool((places - others).norm(dim=1).max() < 2.5)


def _in_another_order(places: Tensor) -> bool:
    true = _true_landmarks()
    return not _near(places, true) and any(_near(places[list(order)], true) for order in permutations(range(3)))


landmarks = Exercise(
    task="Write the (row, column) of each numbered corner as you see it in the moving image.",
    praise="each less than 2.5 voxels off: you have registered three points by hand.",
    prepare=_places,
    reference=_true_landmarks,
    alike=_near,
    mistakes={
        "not a number": Hint("each row and column must be a finite number.").to(
            lambda: torch.full((3, 2), torch.nan), lambda places: not places.isfinite().all()
        ),
        "the fixed places": Hint(
            "these are the places in the fixed image. Find the same corners in the moving image: they lie elsewhere."
        ).to(lambda: LANDMARKS.clone(), lambda places: bool((places - LANDMARKS).norm(dim=1).max() < 0.5)),
        "columns first": Hint("rows and columns are swapped: axis 0 (down) comes first, axis 1 (right) second.").to(
            lambda: _true_landmarks().flip(1)
        ),
        "displacements": Hint(
            "these are displacements, from fixed to moving. Add them to the fixed places: positions are wanted."
        ).to(lambda: _true_landmarks() - LANDMARKS),
        "pushed instead of pulled": Hint(
            "right lengths, opposite direction: p + u(p) leads from fixed to moving, p - u(p) does not."
        ).to(lambda: 2 * LANDMARKS - _true_landmarks()),
        "one corner not moved": Hint(
            "one corner is still where it lies in the fixed image. All three moved: look for it in the moving image."
        ).to(
            lambda: torch.cat([_true_landmarks()[:2], LANDMARKS[2:]]),
            lambda places: bool(((places - LANDMARKS).norm(dim=1) < 0.5).any()),
        ),
        "another order": Hint(
            "the right corners in another order: first the corner with number 1 in the fixed image, then 2, then 3."
        ).to(lambda: _true_landmarks().roll(1, 0), _in_another_order),
        "far off": Hint(
            "a corner is more than 2.5 voxels off. Read the ticks of both axes at each corner of the moving triangle."
        ).to(lambda: _true_landmarks() + 4, "otherwise"),
        "two corners only": lambda: _true_landmarks()[:2],
    },
)
