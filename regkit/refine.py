"""Instance optimisation: what a network found for one pair, made better on that pair alone.

Either the field, by a further map that is composed to it (any model, any registration; from nothing, it is registration
by optimisation), or the weights, by some steps of the model's own objective. The model that is given is never changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from regkit import losses
from regkit.fields import compose, invert, resize, resize_displacement, warp
from regkit.optimise import Similarity, optimise_field
from regkit.training import Recipe, train
from regkit.types import Displacement, Image, Registration, check_pair, check_same_grid, spatial
from regkit.windows import gaussian_blur

_SMALLEST = 12  # voxels along an axis at the coarsest scale
_MOST = 10**6  # voxels at the finest


def local_and_global(warped: Image, fixed: Image) -> Tensor:
    """lncc + ncc: the local one sees every edge, however faint; the global one keeps edges of no weight in place.

    The window of lncc is 9, or as wide as a thin volume lets it be; below 3 voxels there is none.
    """
    window = min(9, (min(spatial(fixed)) - 1) // 2 * 2 + 1)
    whole = losses.ncc(warped, fixed)
    return whole + losses.lncc(warped, fixed, window=window) if window >= 3 else whole


def refine_field(
    moving: Image,
    fixed: Image,
    found: Registration | None = None,
    *,
    steps: int = 20,
    halvings: Sequence[int] | None = None,
    similarity: Similarity = local_and_global,
    weight: float = 1.0,
    learning_rate: float = 0.1,
    progress: bool = True,
) -> Registration:
    """φ_found ∘ exp(v_1) ∘ exp(v_2) …, each v made on the images at one scale; with the inverse.

    found: what there is; nothing, for registration without a network. steps: Adam's at each scale. halvings: of the
    images' size at each scale, coarse to fine; 0 is the full size. By default the finest has at most a million voxels,
    and there is one before it, or two before it where nothing was found yet. The v are put together on the finest.
    similarity(warped, fixed) + weight diffusion(v) is made small. learning_rate: voxels of the scale. Without folds
    where `found` has none, up to interpolation.

    Raises:
        TypeError, ValueError: images or registration do not fit each other; an option is out of range.
    Source: optimise.py at several scales; compositions of small maps as in SyN (Avants et al., 2008).
    """
    check_pair(moving, fixed)
    scales = _scales(spatial(fixed), 2 if found is None else 1) if halvings is None else halvings
    found = found or Registration(moving.new_zeros(len(moving), moving.dim() - 2, *spatial(moving)))
    check_same_grid(fixed, found.displacement, ("fixed", "displacement"))
    before = found.displacement.detach()
    finest = min(scales, default=0)
    moving, fixed = _coarse(moving, finest), _coarse(fixed, finest)
    start = resize_displacement(before, spatial(fixed))
    there = back = torch.zeros_like(start)  # what is found here, on the finest scale's grid
    with tqdm(total=steps * len(scales), disable=not progress, desc="refine") as bar:
        for count in scales:
            step = optimise_field(
                _coarse(warp(moving, compose(start, there)), count - finest),
                _coarse(fixed, count - finest),
                output="velocity",
                similarity=_counted(similarity, bar),
                weight=weight,
                steps=steps,
                learning_rate=learning_rate,
                squarings=None,
            )
            there = compose(there, resize_displacement(step.displacement, spatial(fixed)))
            if step.inverse is not None:
                back = compose(resize_displacement(step.inverse, spatial(fixed)), back)
    shape = spatial(before)
    there, back = (resize_displacement(each, shape) for each in (there, back))
    return Registration(compose(before, there), compose(back, inverse_of(found)))


def refine_weights(
    model: Any, moving: Image, fixed: Image, *, steps: int = 30, learning_rate: float = 1e-4, progress: bool = True
) -> Registration:
    """What a copy of the model finds after `steps` of Adam on its own objective for this pair.

    moving, fixed: (1, C, *space). The copy is trained as `regkit.train` does and thrown away.

    Raises:
        TypeError, ValueError: images that cannot be registered; an option is out of range.
        FloatingPointError: the objective or its gradient is not finite.
    Source: GradICON, instance optimisation ("GradICON with IO").
    """
    check_pair(moving, fixed)
    own = copy.deepcopy(model)
    train(own, [(moving, fixed)], Recipe(steps=steps, learning_rate=learning_rate), progress=progress)
    with torch.no_grad():
        return own.eval()(moving, fixed)


def inverse_of(found: Registration) -> Displacement:
    """The inverse displacement: the registration's own, or one found by iteration, with a warning where it folds."""
    return found.inverse if found.inverse is not None else invert(found.displacement.detach(), method="newton")


def _scales(shape: Sequence[int], before: int) -> list[int]:
    """Halvings to at most `_MOST` voxels, and `before` coarser ones where the axes are long enough."""
    finest = max(0, math.ceil(math.log2(math.prod(shape) / _MOST) / len(shape)))
    return [finest + more for more in range(before, -1, -1) if more == 0 or min(shape) >> (finest + more) >= _SMALLEST]


def _coarse(image: Image, halvings: int) -> Image:
    """The image, blurred, at half its size `halvings` times, corner voxels staying corner voxels."""
    if halvings == 0:
        return image
    shape = [min(size, max(_SMALLEST, round(size / 2**halvings))) for size in spatial(image)]
    return resize(gaussian_blur(image, 0.5 * 2**halvings), shape)


def _counted(similarity: Similarity, bar: tqdm) -> Similarity:
    """The similarity, which moves a progress bar when it is asked for."""

    def counted(warped: Image, fixed: Image) -> Tensor:
        value = similarity(warped, fixed)
        bar.set_postfix(similarity=f"{float(value.detach()):.4g}", refresh=False)
        bar.update()
        return value

    return counted
