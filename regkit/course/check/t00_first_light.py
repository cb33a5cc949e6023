"""The exercise of tutorial 00: three landmarks, placed by hand."""

from __future__ import annotations

import functools
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from regkit import data
from regkit.course.check.exercise import Exercise
from regkit.fields import warp_points
from regkit.types import Pair

LANDMARKS = torch.tensor([[11.0, 46.0], [50.0, 57.0], [39.0, 27.0]])  # the triangle's corners in the fixed image


@functools.cache
def landmark_pair() -> Pair:
    """The pair of the landmark exercise: its fixed image shows the moving image's triangle, deformed by a known map."""
    return data.synthetic_pair(dim=2, seed=7, motion=0.3)


def _true_landmarks() -> Tensor:
    return warp_points(LANDMARKS[None], _displacement())[0]


def _displacement() -> Tensor:
    displacement = landmark_pair().displacement
    assert displacement is not None  # a synthetic pair knows its truth
    return displacement


def _places(answer: Any) -> Tensor:
    places = torch.as_tensor(answer, dtype=torch.float32)
    if places.shape != LANDMARKS.shape:
        raise ValueError(f"three (row, column) places are wanted, received the shape {tuple(places.shape)}")
    return places


def _near(places: Tensor) -> bool:
    return bool((places - _true_landmarks()).norm(dim=1).max() < 2.5)


landmarks = Exercise(
    task="Write the (row, column) of each numbered corner as you see it in the moving image.",
    praise="each less than 2.5 voxels off: you have registered three points by hand.",
    prepare=_places,
    rules=(
        (lambda places: not places.isfinite().all(), "each row and column must be a finite number."),
        (
            lambda places: bool((places - LANDMARKS).norm(dim=1).max() < 0.5),
            "these are the places in the fixed image. Find the same corners in the moving image: they lie elsewhere.",
        ),
        (
            lambda places: _near(places.flip(1)),
            "rows and columns are swapped: axis 0 (down) comes first, axis 1 (right) second.",
        ),
        (
            lambda places: _near(places + LANDMARKS),
            "these are displacements, from fixed to moving. Add them to the fixed places: positions are wanted.",
        ),
        (
            lambda places: _near(2 * LANDMARKS - places),
            "right lengths, opposite direction: p + u(p) leads from fixed to moving, p - u(p) does not.",
        ),
        (
            lambda places: bool(((places - LANDMARKS).norm(dim=1) < 0.5).any()),
            "one corner is still where it lies in the fixed image. All three moved: look for it in the moving image.",
        ),
        (
            lambda places: not _near(places) and any(_near(places[list(order)]) for order in permutations(range(3))),
            "the right corners in another order: first the corner with number 1 in the fixed image, then 2, then 3.",
        ),
        (
            lambda places: not _near(places),
            "a corner is more than 2.5 voxels off. Read the ticks of both axes at each corner of the moving triangle.",
        ),
    ),
    reference=_true_landmarks,
    mistakes={
        "not a number": lambda: torch.full((3, 2), torch.nan),
        "the fixed places": lambda: LANDMARKS.clone(),
        "columns first": lambda: _true_landmarks().flip(1),
        "displacements": lambda: _true_landmarks() - LANDMARKS,
        "pushed instead of pulled": lambda: 2 * LANDMARKS - _true_landmarks(),
        "one corner not moved": lambda: torch.cat([_true_landmarks()[:2], LANDMARKS[2:]]),
        "another order": lambda: _true_landmarks().roll(1, 0),
        "far off": lambda: _true_landmarks() + 4,
        "two corners only": lambda: _true_landmarks()[:2],
    },
)
