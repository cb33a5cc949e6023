"""Registration without a network: one pair, and Adam on its affine map, displacement or velocity.

The classical way, and the one that mends what a network found for a pair unlike those it has learnt from (instance
optimisation: give the network's field as `start`). Every item of a batch is a pair of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from regkit import losses, types
from regkit._core.interrupts import Bar, until_the_end
from regkit._core.sampler import compose, exponential, warp
from regkit._core.windows import gaussian_blur
from regkit.fields import affine_displacement, identity, invert, move_affinely, resize, resize_displacement
from regkit.training import Recipe, train
from regkit.types import Displacement, Image, Matrix, Registration, Similarity, at_least_float32, spatial

__all__ = ["MOST", "Output", "Similarity", "inverse_of", "invert_affine", "local", "local_and_global"]
__all__ += ["local_and_mutual", "masked", "optimise_affine", "optimise_field", "refine_field", "refine_weights"]

Output = Literal["displacement", "velocity"]

_SMALLEST = 12  # voxels along an axis at the coarsest scale
MOST = 10**6  # voxels at the finest
_SHARP = 0.25  # voxels: less blur is none
_INSIDE = 0.75  # of a mask, between its voxels
_STRIDE = 0.25  # voxels: the longest first step of an integration


# ---------------------------------------------------------------------------------------------- one pair, from nothing
def optimise_affine(
    moving: Image,
    fixed: Image,
    *,
    similarity: Similarity = losses.mse,
    steps: types.Whole = 150,
    learning_rate: types.Positive = 0.3,
) -> Tensor:
    """The affine map that makes similarity(warp(moving, u), fixed) small, by Adam from the identity.

    Returns a matrix (B, dim, dim + 1) for `affine_displacement`: the columns of A, then t in voxels. Adam sees every
    number as the way it moves the image's border, so learning_rate is in voxels.

    Raises:
        TypeError, ValueError: images that cannot be registered; steps or learning_rate out of range.
    """
    types.check_pair(moving, fixed)
    dim, shape = moving.dim() - 2, spatial(moving)
    change = torch.zeros(len(moving), dim, dim + 1, device=moving.device, requires_grad=True)
    unit = torch.tensor([2 / max(size - 1, 1) for size in shape] + [1.0], device=moving.device)  # per voxel of motion
    nothing = torch.eye(dim, dim + 1, device=moving.device)

    def matrix() -> Tensor:
        return nothing + change * unit

    def loss() -> Tensor:
        return similarity(warp(moving, affine_displacement(matrix(), shape)), fixed)

    _descend(change, loss, steps, learning_rate)
    return matrix().detach()


def optimise_field(
    moving: Image,
    fixed: Image,
    *,
    output: Output = "displacement",
    affine: Matrix | None = None,
    start: Displacement | None = None,
    similarity: Similarity = losses.mse,
    weight: types.Amount = 0.03,
    steps: types.Whole = 300,
    learning_rate: types.Positive = 0.1,
    squarings: types.Whole | None = 7,
    callback: Callable[[int, Registration], None] | None = None,
) -> Registration:
    """The field f that minimises similarity(warp(moving, u), fixed) + weight diffusion(f), one vector for each voxel.

    φ = φ_affine ∘ φ_f, where f is a displacement, or a velocity whose exponential is taken: then inverse and velocity
    are given too (the velocity is that of φ_f alone).
    affine: (B, dim, dim + 1), see `optimise_affine`; nothing by default. start: the first f (B, dim, *space), voxels,
    such as a network's displacement or velocity; zero by default. learning_rate: Adam's, voxels. squarings: of a
    velocity's exponential; None for as few as keep its first step within a quarter of a voxel: half the time.
    callback(step, registration): called with what stands before each step.

    Raises:
        TypeError, ValueError: images, affine or start do not fit each other; an option is out of range.
    Source: VoxelMorph's and GradICON's instance optimisation, on the field instead of the network's weights.
    """
    types.check_pair(moving, fixed)
    field = _first(start, moving).requires_grad_()

    def integrate(own: Displacement) -> Displacement:
        if output == "displacement":
            return own
        return exponential(own, steps=_needed(own) if squarings is None else squarings)

    def found(own: Displacement) -> Registration:
        there = _after(affine, integrate(own))
        if output == "displacement":
            return Registration(there)
        back = integrate(-own)
        if affine is not None:  # φ_f⁻¹ ∘ φ_affine⁻¹
            back = compose(back, affine_displacement(invert_affine(affine), spatial(back)))
        return Registration(there, back, own)

    def loss() -> Tensor:
        there = _after(affine, integrate(field))
        return similarity(warp(moving, there), fixed) + weight * losses.diffusion(field)

    def tell(step: int) -> None:
        if callback is not None:
            with torch.no_grad():
                callback(step, found(field.clone()))  # Adam changes the field in place

    _descend(field, loss, steps, learning_rate, tell)
    return found(field.requires_grad_(False))


def _first(start: Displacement | None, moving: Image) -> Displacement:
    """A field of its own to start from."""
    if start is None:
        return torch.zeros(len(moving), moving.dim() - 2, *spatial(moving), device=moving.device)
    types.check_same_grid(moving, start, ("moving", "start"))
    return at_least_float32(start.detach()).clone()


def _needed(velocity: Displacement) -> int:
    """Squarings after which the first step of an integration is no longer than `_STRIDE`."""
    longest = float(velocity.detach().abs().max())
    return max(0, math.ceil(math.log2(longest / _STRIDE))) if longest > 0 else 0


def _after(affine: Tensor | None, local: Displacement) -> Displacement:
    """φ_affine ∘ φ."""
    if affine is None:
        return local
    shape = spatial(local)
    grid = identity(shape, like=local)
    return move_affinely(grid + local, affine, shape) - grid


def invert_affine(affine: Matrix) -> Tensor:
    """The matrix (B, dim, dim + 1) of the inverse map: A⁻¹ and -A⁻¹ t."""
    inverse = torch.linalg.inv(affine[:, :, :-1])
    return torch.cat([inverse, -inverse @ affine[:, :, -1:]], 2)


@torch.enable_grad()  # its caller may do without
def _descend(
    variable: Tensor,
    loss: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
    tell: Callable[[int], None] = lambda step: None,
) -> None:
    """Change a variable in place by Adam so that the loss falls."""
    with until_the_end():  # torch imports its compiler with the first optimiser
        optimiser = torch.optim.Adam([variable], lr=learning_rate)
    for step in range(steps):
        tell(step)
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


# ---------------------------------------------------------------------------------------------- refinement
def local(warped: Image, fixed: Image) -> Tensor:
    """lncc in a window of 9, or as wide as a thin volume lets it be; 0 below 3 voxels, where there is none."""
    window = min(9, (min(spatial(fixed)) - 1) // 2 * 2 + 1)
    return losses.lncc(warped, fixed, window=window) if window >= 3 else 0 * warped.sum()


def local_and_global(warped: Image, fixed: Image, mask: Tensor | None = None) -> Tensor:
    """lncc + ncc: the local one sees every edge, however faint; the global one keeps edges of no weight in place.

    mask: (B, 1, *space), of the voxels that count, for images that are 0 in their background; see `masked`.
    """
    if mask is None:
        return losses.ncc(warped, fixed) + local(warped, fixed)
    return losses.ncc(*_centred(mask, warped, fixed)) + local(warped * mask, fixed * mask)


def local_and_mutual(warped: Image, fixed: Image, mask: Tensor | None = None) -> Tensor:
    """lncc + 2 mutual information, for other contrasts: lncc is squared, and does not see a sign. mask: as above."""
    own = (warped, fixed) if mask is None else (warped * mask, fixed * mask)
    return 2 * losses.mutual_information(warped, fixed, mask=mask) + local(*own)


def masked(similarity: Similarity) -> Similarity:
    """A similarity of images whose second channel is a mask, in [0, 1]: that of the first where both masks are 1.

    ncc is exact: both images are made 0 on average inside, and 0 outside. Those that look around each voxel (lncc,
    mindssc) see both images end at the edge, in their background, 0. No gradient pulls at the edge.
    """

    def inside(warped: Image, fixed: Image) -> Tensor:
        mask = ((warped[:, 1:] > _INSIDE) & (fixed[:, 1:] > _INSIDE)).to(warped)
        mask = mask if mask.any() else torch.ones_like(mask)
        warped, fixed = warped[:, :1], fixed[:, :1]
        if similarity is losses.ncc:
            return similarity(*_centred(mask, warped, fixed))
        if similarity in (losses.mse, losses.mutual_information, local_and_global, local_and_mutual):
            return similarity(warped, fixed, mask=mask)
        return similarity(warped * mask, fixed * mask)

    return inside


def _centred(mask: Tensor, *images: Image) -> list[Image]:
    """Images (B, 1, *space) less their mean inside the mask, 0 outside."""
    axes = tuple(range(1, mask.dim()))
    means = [((image * mask).sum(axes, keepdim=True) / mask.sum(axes, keepdim=True)).detach() for image in images]
    return [(image - mean) * mask for image, mean in zip(images, means, strict=True)]


def refine_field(
    moving: Image,
    fixed: Image,
    found: Registration | None = None,
    *,
    steps: types.Whole = 20,
    halvings: Sequence[types.Amount] | None = None,
    similarity: Similarity = local_and_global,
    weight: types.Amount = 1.0,
    learning_rate: types.Positive = 0.1,
    most: types.Count = MOST,
    progress: bool = True,
) -> Registration:
    """φ_found ∘ exp(v_1) ∘ exp(v_2) …, each v made on the images at one scale; with the inverse.

    found: what there is; nothing, for registration without a network. steps: Adam's at each scale. halvings: of the
    images' size at each scale, coarse to fine, any fraction; 0 is the full size. By default the finest has at most
    `most` voxels, and there is one before it, or two before it where nothing was found yet. The v are put together on
    the finest.
    similarity(warped, fixed) + weight diffusion(v) is made small. learning_rate: voxels of the scale. Without folds
    where `found` has none, up to interpolation.

    Raises:
        TypeError, ValueError: images or registration do not fit each other; an option is out of range.
    Source: `optimise_field` at several scales; compositions of small maps as in SyN (Avants et al., 2008).
    """
    types.check_pair(moving, fixed)
    scales = _scales(spatial(fixed), most, 2 if found is None else 1) if halvings is None else halvings
    name = "optimise" if found is None else "refine"
    found = found or Registration(moving.new_zeros(len(moving), moving.dim() - 2, *spatial(moving)))
    types.check_same_grid(fixed, found.displacement, ("fixed", "displacement"))
    before = found.displacement.detach()
    finest = min(scales, default=0)
    moving, fixed = _coarse(moving, finest), _coarse(fixed, finest)
    start = resize_displacement(before, spatial(fixed))
    there = back = torch.zeros_like(start)  # what is found here, on the finest scale's grid
    with Bar(total=steps * len(scales), disable=not progress, desc=name) as bar:
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
    model: Any,
    moving: Image,
    fixed: Image,
    *,
    steps: types.Whole = 30,
    learning_rate: types.Positive = 1e-4,
    progress: bool = True,
) -> Registration:
    """What a copy of the model finds after `steps` of Adam on its own objective for this pair.

    moving, fixed: (1, C, *space). The copy is trained as `regkit.train` does and thrown away.

    Raises:
        TypeError, ValueError: images that cannot be registered; an option is out of range.
        FloatingPointError: the objective or its gradient is not finite.
    Source: GradICON, instance optimisation ("GradICON with IO").
    """
    types.check_pair(moving, fixed)
    own = copy.deepcopy(model)
    train(own, [(moving, fixed)], Recipe(steps=steps, learning_rate=learning_rate), progress=progress)
    with torch.no_grad():
        return own.eval()(moving, fixed)


def inverse_of(found: Registration) -> Displacement:
    """The inverse displacement: the registration's own, or one found by iteration, with a warning where it folds."""
    return found.inverse if found.inverse is not None else invert(found.displacement.detach(), method="newton")


def _scales(shape: Sequence[int], most: int, before: int) -> list[float]:
    """Halvings to at most `most` voxels, and `before` coarser ones where the axes are long enough."""
    finest = max(0.0, math.log2(math.prod(shape) / most) / len(shape))
    coarser = range(before, -1, -1)
    return [finest + more for more in coarser if more == 0 or min(shape) / 2 ** (finest + more) >= _SMALLEST]


def _coarse(image: Image, halvings: float) -> Image:
    """The image, blurred, at half its size `halvings` times, corner voxels staying corner voxels."""
    if halvings == 0:
        return image
    sigma = 0.5 * 2**halvings * min(halvings, 1.0)
    shape = [min(size, max(_SMALLEST, round(size / 2**halvings))) for size in spatial(image)]
    return resize(gaussian_blur(image, sigma) if sigma >= _SHARP else image, shape)


def _counted(similarity: Similarity, bar: Bar) -> Similarity:
    """The similarity, which moves a progress bar when it is asked for."""

    def counted(warped: Image, fixed: Image) -> Tensor:
        value = similarity(warped, fixed)
        bar.set_postfix(similarity=f"{float(value.detach()):.4g}", refresh=False)
        bar.update()
        return value

    return counted


types.guard(globals())
