"""Displacement fields: sample, warp, compose, integrate, invert.

The one convention of regkit, stated here and nowhere else:

* Tensors are (batch, channel, *space); space has two or three axes.
* A displacement u is (batch, dim, *space), in voxels of its own grid; channel i moves along spatial axis i.
* Voxel centres are at integers, so the image's corners are voxel centres (align_corners=True).
* Warping pulls: ``warp(image, u)[x] = image[x + u(x)]``. The map is φ(x) = x + u(x).
* ``compose(u, v)(x) = v(x) + u(x + v(x))``, so ``warp(warp(image, u), v) = warp(image, compose(u, v))``.

What the papers' programs keep in other units enters and leaves by named converters (grids.py). Only sampler.py knows
the units and the order of axes of torch's sampler; inversion.py holds the inverse.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from regkit.grids import (
    affine_displacement,
    difference,
    identity,
    move_affinely,
    normalized_to_voxels,
    ramps,
    resize,
    resize_displacement,
    reverse_components,
    scale_components,
    unit_to_voxels,
    upsample,
    voxels_to_normalized,
    voxels_to_unit,
)
from regkit.inversion import invert
from regkit.sampler import Interpolation, Padding, interpolate
from regkit.types import (
    Coordinates,
    Displacement,
    Image,
    Labels,
    at_least_float32,
    check_displacement,
    check_finite,
    check_image,
    check_labels,
    check_same_batch,
    check_same_grid,
    spatial,
)
from regkit.volume_change import jacobian_determinant

__all__ = [
    "affine_displacement",
    "compose",
    "difference",
    "exponential",
    "identity",
    "invert",
    "jacobian_determinant",
    "move_affinely",
    "normalized_to_voxels",
    "resize",
    "resize_displacement",
    "reverse_components",
    "sample",
    "scale_components",
    "unit_to_voxels",
    "upsample",
    "voxels_to_normalized",
    "voxels_to_unit",
    "warp",
    "warp_labels",
    "warp_points",
]

# ---------------------------------------------------------------------------------------------- images and points


def sample(
    image: Image, coordinates: Coordinates, *, mode: Interpolation = "linear", padding: Padding = "border"
) -> Image:
    """Read an image at arbitrary positions: result[x] = image[coordinates(x)].

    image: (B, C, *space). coordinates: (B, dim, *out), voxels of the image's grid; `out` has dim axes of any size.
    Returns (B, C, *out) in the image's dtype; positions are never rounded below float32. Differentiable once in both
    (`nearest`: in the image only). "border" continues the outermost voxel, "zeros" reads 0 outside.

    Raises:
        TypeError, ValueError: wrong shapes, dtypes, devices or values.
    """
    check_image(image)
    check_displacement(coordinates, "coordinates")
    check_same_batch(image, coordinates, ("image", "coordinates"))
    if image.dim() != coordinates.dim() or image.device != coordinates.device:
        raise ValueError(
            f"image and coordinates must have the same dimension and device, received shapes {tuple(image.shape)} on "
            f"{image.device} and {tuple(coordinates.shape)} on {coordinates.device}; bring them together first."
        )
    return interpolate(image, coordinates, relative=False, mode=mode, padding=padding)


def warp(
    image: Image, displacement: Displacement, *, mode: Interpolation = "linear", padding: Padding = "border"
) -> Image:
    """Pull an image through a map: result[x] = image[x + u(x)].

    image: (B, C, *space). displacement: (B, dim, *space), voxels. Either batch may be 1. See `sample` for the options.

    Raises:
        TypeError, ValueError: different grids or devices, integer images (use `warp_labels`), NaN.
    """
    check_image(image)
    check_displacement(displacement)
    check_same_grid(image, displacement, ("image", "displacement"))
    return interpolate(image, displacement, relative=True, mode=mode, padding=padding)


def warp_labels(labels: Labels, displacement: Displacement) -> Labels:
    """Pull integer labels (B, 1, *space) by the nearest voxel; the dtype stays, and no new label can appear.

    displacement: (B, dim, *space), voxels. Either batch may be 1. Outside, the outermost voxel continues.

    Raises:
        TypeError, ValueError: labels that are not integers, different grids or devices, NaN.
    """
    check_labels(labels)
    check_displacement(displacement)
    check_same_grid(labels, displacement, ("labels", "displacement"))
    check_finite(displacement, "displacement")  # on a GPU too: NaN would be an index
    displacement = at_least_float32(displacement.detach())
    index = torch.zeros((), dtype=torch.long, device=labels.device)  # of the nearest voxel: labels stay integers
    for axis, ramp in enumerate(ramps(spatial(labels), like=displacement)):
        size = labels.shape[axis + 2]
        index = index * size + (ramp + displacement[:, axis]).round().clamp(0, size - 1).long()
    batch = max(len(labels), len(displacement))
    index = index.flatten(1)[:, None].expand(batch, 1, -1)
    return labels.flatten(2).expand(batch, 1, -1).gather(2, index).unflatten(2, spatial(labels))


def warp_points(points: Tensor, displacement: Displacement) -> Tensor:
    """Carry points forward: p ↦ p + u(p), from the fixed grid to the moving grid (opposite to the pull of `warp`).

    points: (B, N, dim), voxels of the fixed grid. Returns (B, N, dim), voxels of the moving grid.

    Raises:
        TypeError, ValueError: the points' shape, batch or device does not fit the displacement.
    """
    check_displacement(displacement)
    dim = displacement.shape[1]
    if points.dim() != 3 or points.shape[2] != dim:
        raise ValueError(
            f"points must be (batch, N, {dim}) for a displacement in {dim} dimensions, received shape "
            f"{tuple(points.shape)}; put one point in each row."
        )
    places = points.movedim(-1, 1).unflatten(2, (-1, *[1] * (dim - 1)))  # (B, dim, N, 1[, 1])
    return points + sample(at_least_float32(displacement), places).flatten(2).movedim(1, -1)


# ---------------------------------------------------------------------------------------------- the group of maps


def compose(first: Displacement, then: Displacement, *, padding: Padding = "border") -> Displacement:
    """One displacement for two warps in a row: compose(u, v)(x) = v(x) + u(x + v(x)).

    warp(warp(image, u), v) equals warp(image, compose(u, v)) up to interpolation. As maps: φ_u ∘ φ_v.
    Both (B, dim, *space), voxels of one grid. Returns float32 or finer.

    Raises:
        TypeError, ValueError: not two displacements on one grid, NaN.
    """
    check_displacement(first, "first")
    check_displacement(then, "then")
    check_same_grid(first, then, ("first", "then"))
    then = at_least_float32(then)
    return then + interpolate(at_least_float32(first), then, relative=True, mode="linear", padding=padding)


def exponential(
    velocity: Displacement,
    *,
    steps: int = 7,
    composition: Callable[[Displacement, Displacement], Displacement] = compose,
) -> Displacement:
    """Integrate a stationary velocity over unit time by scaling and squaring.

    u_0 = v / 2^steps; u_{k+1} = compose(u_k, u_k). exp(-v) is the inverse of exp(v) up to interpolation.
    velocity: (B, dim, *space), voxels per unit time. composition: how two displacements become one, where an authors'
    program samples differently. Source: Arsigny et al. 2006; VoxelMorph uses 7 steps.

    Raises:
        TypeError, ValueError: not a displacement, a negative number of steps.
    """
    check_displacement(velocity, "velocity")
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, received {steps}; 7 is usual.")
    displacement = at_least_float32(velocity) / 2**steps
    for _ in range(steps):
        displacement = composition(displacement, displacement)
    return displacement
