"""The exercises of tutorial 02: 72 turns of 5 degrees, and a landmark carried the right way."""

import functools
from importlib import resources
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor

from regkit import data
from regkit.course.check.exercise import Exercise, Hint, filled_in
from regkit.fields import compose, identity, invert, rigid_displacement, warp, warp_points
from regkit.types import Displacement, Image, Pair, spatial

__all__ = ["MARKED_POINT", "brain_slice", "carrying_pair", "landmark_in_fixed", "turn", "turned"]

TURNS = 72
MARKED_POINT = torch.tensor([44.0, 12.0])  # in the moving image of `carrying_pair`


@functools.cache
def brain_slice() -> Image:
    """A slice of a real MRI scan, forehead up, the patient's left at the right.

    (1, 1, 96, 96), tissue from 0.4 to 1.
    """
    scan: Any = nibabel.load(str(resources.files("nibabel") / "tests/data/example4d.nii.gz"))
    upright = np.asarray(scan.dataobj[16:112, :, 12, 0], dtype=np.float32).T[::-1].copy()
    return torch.from_numpy(upright / 800)[None, None]


def turn(degrees: float) -> Displacement:
    """The displacement that turns the slice about its middle: (1, 2, 96, 96), voxels."""
    return rigid_displacement(spatial(brain_slice()), degrees=degrees)


@functools.cache
def _inside() -> Tensor:
    """Voxels that stay in the image whichever way it is turned."""
    middle = (torch.tensor([96, 96]).view(1, 2, 1, 1) - 1) / 2
    return (identity((96, 96)) - middle).norm(dim=1, keepdim=True) < 44


@functools.cache
def _resampled(count: int) -> Image:
    image = brain_slice()
    for _ in range(count):
        image = warp(image, turn(5))
    return image


@functools.cache
def _composed() -> Image:
    displacement = torch.zeros(1, 2, 96, 96)
    for _ in range(TURNS):
        displacement = compose(displacement, turn(5))
    return warp(brain_slice(), displacement)


def _two_images(answer: Any) -> tuple[Tensor, Tensor]:
    filled = filled_in(("resampled", "composed"), answer)
    resampled, composed = (torch.as_tensor(image, dtype=torch.float32) for image in filled)
    for image in (resampled, composed):
        if image.shape != brain_slice().shape:
            raise ValueError(f"two images (1, 1, 96, 96) are wanted, received the shape {tuple(image.shape)}")
    return resampled, composed


def _same(image: Tensor, other: Tensor) -> bool:
    return bool((image - other)[_inside()].abs().mean() < 2e-3)


turned = Exercise(
    task="Give two images (resampled, composed): the slice warped 72 times in a row, and warped once by 72 composed "
    "displacements.",
    praise="72 interpolations blur, one does not. Carry the displacement along, and touch the image once.",
    prepare=_two_images,
    reference=lambda: (_resampled(TURNS), _composed()),
    alike=lambda two, others: _same(two[0], others[0]) and _same(two[1], others[1]),
    mistakes={
        "not a number": Hint("both images must be finite.").to(
            lambda: (_resampled(TURNS), _composed() * torch.nan),
            lambda two: not all(image.isfinite().all() for image in two),
        ),
        "swapped": Hint("right images, wrong order: first the one that was warped 72 times, then the composed one.").to(
            lambda: (_composed(), _resampled(TURNS))
        ),
        "the slice itself": Hint(
            "the second is the slice itself. It should look the same, but by composing 72 turns and warping once."
        ).to(lambda: (_resampled(TURNS), brain_slice().clone()), lambda two: bool(torch.equal(two[1], brain_slice()))),
        "resampled twice": Hint(
            "the second image is as blurred as the first. Compose the displacements, and warp the image only once."
        ).to(lambda: (_resampled(TURNS), _resampled(TURNS)), lambda two: _same(two[1], _resampled(TURNS))),
        "composed twice": Hint(
            "the first image is not blurred. Warp the image itself 72 times, always starting from the last result."
        ).to(lambda: (_composed(), _composed()), lambda two: _same(two[0], _composed())),
        "added": Hint(
            "displacements do not add: the second arrow starts where the first one ended. Use regkit.compose."
        ).to(
            lambda: (_resampled(TURNS), warp(brain_slice(), TURNS * turn(5))),
            lambda two: _same(two[1], warp(brain_slice(), TURNS * turn(5))),
        ),
        "one turn": Hint(
            "the first was turned by 5 degrees only: keep the result of each turn, and start the next from it."
        ).to(lambda: (_resampled(1), _composed()), lambda two: _same(two[0], _resampled(1))),
        "73 warps": Hint("the first was turned once too often, 73 times: start from the slice as it is.").to(
            lambda: (_resampled(TURNS + 1), _composed()), lambda two: _same(two[0], _resampled(TURNS + 1))
        ),
        "73 compositions": Hint(
            "the second stands 5 degrees off: turned once only (keep the result of each composition), or by one turn "
            "too many (start from zeros, not from one turn)."
        ).to(
            lambda: (_resampled(TURNS), warp(brain_slice(), turn(5 * (TURNS + 1)))),
            lambda two: _same(two[1], _resampled(1)),
        ),
        "half a circle": Hint(
            "not 72 turns of 5 degrees with linear interpolation. After a full circle the slice must be upright again."
        ).to(lambda: (_resampled(36), _composed()), "otherwise"),
        "one image": lambda: (_composed(),),
    },
)


@functools.cache
def carrying_pair() -> Pair:
    """The pair of the landmark exercise; its displacement is known."""
    return data.synthetic_pair(dim=2, seed=7, motion=0.2)


def _carry(displacement: Displacement, sign: float = 1.0) -> Tensor:
    """The landmark moved by a displacement of the pair, or against it."""
    moved = warp_points(MARKED_POINT[None, None], displacement)[0, 0]
    return MARKED_POINT + sign * (moved - MARKED_POINT)


def _forwards() -> Displacement:
    displacement = carrying_pair().displacement
    assert displacement is not None  # a synthetic pair knows its truth
    return displacement


@functools.cache
def _in_fixed() -> Tensor:
    return _carry(invert(_forwards()))


def _place(answer: Any) -> Tensor:
    place = torch.as_tensor(answer, dtype=torch.float32)
    if place.numel() != 2:
        raise ValueError(f"one (row, column) is wanted, received the shape {tuple(place.shape)}")
    return place.flatten()


landmark_in_fixed = Exercise(
    task="Give the (row, column) in the fixed image of the point that lies at check.MARKED_POINT in the moving image.",
    praise="the p with p + u(p) = q. The displacement leads from fixed to moving, so its inverse leads back.",
    prepare=_place,
    reference=_in_fixed,
    alike=lambda place, other: bool((place - other).norm() < 0.3),
    mistakes={
        "not a number": Hint("row and column must be finite numbers.").to(
            lambda: torch.full((2,), torch.nan), lambda place: not bool(place.isfinite().all())
        ),
        "unmoved": Hint("this is still the place in the moving image.").to(lambda: MARKED_POINT.clone()),
        "forwards": Hint(
            "q + u(q) goes the wrong way: u lives on the fixed grid and leads *into* the moving image."
        ).to(lambda: _carry(_forwards())),
        "minus u": Hint(
            "q - u(q): right direction, but u was read at q, a place of the moving image. It is wanted at p, where "
            "p + u(p) = q: use regkit.invert, or repeat p = q - u(p)."
        ).to(lambda: _carry(_forwards(), -1.0)),
        "a displacement": Hint("this is the inverse displacement. Add it to the landmark: a position is wanted.").to(
            lambda: _in_fixed() - MARKED_POINT
        ),
        "columns first": Hint("row and column are swapped: axis 0 comes first.").to(lambda: _in_fixed().flip(0)),
        "elsewhere": Hint("put your place p into p + u(p): it should give the landmark in the moving image.").to(
            lambda: _in_fixed() + 5, "otherwise"
        ),
        "three numbers": lambda: (1, 2, 3),
    },
)
