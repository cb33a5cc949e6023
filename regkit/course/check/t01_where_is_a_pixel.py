"""The exercise of tutorial 01: a place found in a small copy of an image, taken back to the full image."""

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regkit.course.check.exercise import Exercise, Hint, function_of

__all__ = ["small_to_full"]

FACTOR = 4  # so many full voxels along each axis are averaged to a small one
_PAIRS = torch.tensor([[0.0, 2.5], [7.0, 15.0]])  # two places, in voxels of a small image of 16


def _answers(answer: Any) -> NDArray[np.float64]:
    function = function_of("a small place", answer)
    full = [np.asarray(function(pair.clone()), dtype=float) for pair in _PAIRS]
    if any(place.shape != (2,) for place in full):
        raise ValueError(f"two numbers in, two numbers out is wanted, received shape {full[0].shape}")
    return np.concatenate(full)


small_to_full = Exercise(
    task="Write a function: from a place (two numbers) in voxels of the small image to the same place in voxels of the "
    "full image.",
    praise="the centre of a small voxel lies in the middle of the 4 full voxels that it averages: 4 p + 1.5.",
    prepare=_answers,
    reference=lambda: lambda place: FACTOR * place + (FACTOR - 1) / 2,
    alike=functools.partial(np.allclose, atol=1e-3),
    mistakes={
        "not a number": Hint("each place must come back as a finite number.").to(
            lambda: lambda place: place * np.nan, lambda full: not np.isfinite(full).all()
        ),
        "the bug": Hint(
            "this is the colleague's line. Small voxel 0 averages the full voxels 0, 1, 2, 3: where is their middle?"
        ).written(lambda place: 4 * place),
        "the edge at 0": Hint(
            "half a voxel too far. 2 is half of 4, counted from the edge of voxel 0; but that edge is at -0.5, not 0."
        ).written(lambda place: 4 * place + 2),
        "the offset of a factor 2": Hint(
            "0.5 is right for averaging by 2. With a factor f the middle of the voxels 0 to f - 1 is at (f - 1) / 2."
        ).written(lambda place: 4 * place + 0.5),
        "the wrong sign": Hint(
            "right size, wrong sign: the middle of the voxels 0 to 3 lies after voxel 0, not before it."
        ).written(lambda place: 4 * place - 1.5),
        "shifted, then scaled": Hint(
            "1.5 counts full voxels, so it must not be multiplied by 4: first scale, then shift."
        ).written(lambda place: 4 * (place + 1.5)),
        "corners": Hint(
            "this holds where corner voxels stay corner voxels (fields.resize). Averaging in blocks keeps the edges."
        ).written(lambda place: place * 63 / 15),
        "backwards": Hint(
            "this goes from full to small. The small image has fewer voxels, so the numbers must grow."
        ).written(lambda place: place / 4, lambda place: (place - 1.5) / 4),
        "something else": Hint(
            "not the same place. Draw the full voxels 0 to 7 in a row, and above them the two small ones: read it off."
        ).otherwise(lambda place: 5 * place),
        "one number for all": lambda: lambda place: 1.5,
        "a number, no function": lambda: 1.5,
    },
)
