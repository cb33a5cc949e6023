"""Checks of the course's exercises: `check.<exercise>(answer)` says amber (blank), green, or red with a hint.

A check never raises. It holds its reference and a catalogue of known mistakes, each of which must draw a hint of its
own; the tests hold it to that.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from regkit import data
from regkit.fields import warp_points
from regkit.types import Pair

Colour = Literal["amber", "green", "red"]
_SHADES: dict[Colour, tuple[str, str]] = {
    "amber": ("#8a5a00", "○ not answered yet"),
    "green": ("#0b6b3a", "✓ right"),
    "red": ("#a3123a", "✗ not yet"),
}


@dataclass(frozen=True)
class Verdict:
    """What a check says: a colour and one sentence. Shown in colour in a notebook, as text elsewhere."""

    colour: Colour
    message: str

    def __str__(self) -> str:
        return f"{_SHADES[self.colour][1]}: {self.message}"

    def _repr_html_(self) -> str:
        shade, word = _SHADES[self.colour]
        return (
            f'<div role="status" style="border-left: 6px solid {shade}; padding: .4em .8em">'
            f'<b style="color: {shade}">{word}</b> {html.escape(self.message)}</div>'
        )


@dataclass(frozen=True)
class Exercise:
    """One exercise: the rules that judge an answer, its reference, and the catalogue of mistakes.

    prepare: turns what the learner typed into what the rules take; its errors become the hint.
    rules: (is this mistake made?, hint) in the order they are tried; the first that applies is told.
    reference: makes a right answer. mistakes: name to a maker of a wrong answer.
    """

    task: str
    praise: str
    prepare: Callable[[Any], Any]
    rules: tuple[tuple[Callable[[Any], bool], str], ...]
    reference: Callable[[], Any]
    mistakes: Mapping[str, Callable[[], Any]]

    def __call__(self, answer: Any) -> Verdict:
        if answer is None or answer is ...:
            return Verdict("amber", self.task)
        try:
            prepared = self.prepare(answer)
            hint = next((hint for made, hint in self.rules if made(prepared)), None)
        except Exception as error:
            return Verdict("red", f"the answer could not be read ({error}). {self.task}")
        return Verdict("red", hint) if hint else Verdict("green", self.praise)


# ---------------------------------------------------------------------------------------------- 00 First light

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
    return bool((places - _true_landmarks()).norm(dim=1).mean() < 2.5)


landmarks = Exercise(
    task="Write the (row, column) of each numbered corner as you see it in the moving image.",
    praise="less than 2.5 voxels off on average: you have registered three points by hand.",
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
            lambda places: not _near(places),
            "more than 2.5 voxels off on average. Read the ticks of both axes at each corner of the moving triangle.",
        ),
    ),
    reference=_true_landmarks,
    mistakes={
        "not a number": lambda: torch.full((3, 2), torch.nan),
        "the fixed places": lambda: LANDMARKS.clone(),
        "columns first": lambda: _true_landmarks().flip(1),
        "displacements": lambda: _true_landmarks() - LANDMARKS,
        "pushed instead of pulled": lambda: 2 * LANDMARKS - _true_landmarks(),
        "far off": lambda: _true_landmarks() + 4,
        "two corners only": lambda: _true_landmarks()[:2],
    },
)
