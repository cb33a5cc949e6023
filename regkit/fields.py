"""Displacement fields: sample, warp, compose, integrate, invert.

The one convention of regkit, stated here and nowhere else:

* Tensors are (batch, channel, *space); space has two or three axes.
* A displacement u is (batch, dim, *space), in voxels of its own grid; channel i moves along spatial axis i.
* Voxel centres are at integers, so the image's corners are voxel centres (align_corners=True).
* Warping pulls: ``warp(image, u)[x] = image[x + u(x)]``. The map is φ(x) = x + u(x).
* ``compose(u, v)(x) = v(x) + u(x + v(x))``, so ``warp(warp(image, u), v) = warp(image, compose(u, v))``.

What the papers' programs keep in other units enters and leaves by the converters at the end. What is given is checked
here, once; `_core.sampler` and `_core.inversion` hold the same operations for steps that trust their callers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, radians, sin
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from regkit import types
from regkit._core import inversion, sampler
from regkit._core.grid import double_difference, identity, ramps
from regkit._core.jacobian import jacobian_determinant
from regkit._core.sampler import Interpolation, Padding
from regkit.types import Coordinates, Displacement, Image, InputError, Labels, Matrix, Points, at_least_float32, spatial

__all__ = [
    "affine_displacement",
    "average_pool",
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
    "rigid_displacement",
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
    types.check_displacement(coordinates, "coordinates")
    types.check_same_batch(image, coordinates, ("image", "coordinates"))
    if image.dim() != coordinates.dim() or image.device != coordinates.device:
        raise InputError(
            "image and coordinates must have the same dimension and device",
            f"shapes {tuple(image.shape)} on {image.device} and {tuple(coordinates.shape)} on {coordinates.device}",
            "bring them together first",
        )
    types.check_values(image=image, coordinates=coordinates)
    return sampler.sample(image, coordinates, mode=mode, padding=padding)


def warp(
    image: Image, displacement: Displacement, *, mode: Interpolation = "linear", padding: Padding = "border"
) -> Image:
    """Pull an image through a map: result[x] = image[x + u(x)].

    image: (B, C, *space). displacement: (B, dim, *space), voxels. Either batch may be 1. See `sample` for the options.

    Raises:
        TypeError, ValueError: different grids or devices, integer images (use `warp_labels`), NaN.
    """
    types.check_same_grid(image, displacement, ("image", "displacement"))
    types.check_values(image=image, displacement=displacement)
    return sampler.warp(image, displacement, mode=mode, padding=padding)


def warp_labels(labels: Labels, displacement: Displacement) -> Labels:
    """Pull integer labels (B, 1, *space) by the nearest voxel; the dtype stays, and no new label can appear.

    displacement: (B, dim, *space), voxels. Either batch may be 1. Outside, the outermost voxel continues.

    Raises:
        TypeError, ValueError: labels that are not integers, different grids or devices, NaN.
    """
    types.check_same_grid(labels, displacement, ("labels", "displacement"))
    types.check_finite(displacement, "displacement")  # on a GPU too: NaN would be an index
    displacement = at_least_float32(displacement.detach())
    index = torch.zeros((), dtype=torch.long, device=labels.device)  # of the nearest voxel: labels stay integers
    for axis, ramp in enumerate(ramps(spatial(labels), like=displacement)):
        size = labels.shape[axis + 2]
        index = index * size + (ramp + displacement[:, axis]).round().clamp(0, size - 1).long()
    batch = max(len(labels), len(displacement))
    index = index.flatten(1)[:, None].expand(batch, 1, -1)
    return labels.flatten(2).expand(batch, 1, -1).gather(2, index).unflatten(2, spatial(labels))


def warp_points(points: Points, displacement: Displacement) -> Tensor:
    """Carry points forward: p ↦ p + u(p), from the fixed grid to the moving grid (opposite to the pull of `warp`).

    points: (B, N, dim), voxels of the fixed grid. Returns (B, N, dim), voxels of the moving grid.

    Raises:
        TypeError, ValueError: the points' shape, batch or device does not fit the displacement.
    """
    dim = displacement.shape[1]
    if points.dim() != 3 or points.shape[2] != dim:
        raise InputError(
            f"points must be (batch, N, {dim}) for a displacement in {dim} dimensions",
            f"shape {tuple(points.shape)}",
            "put one point in each row",
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
    types.check_same_grid(first, then, ("first", "then"))
    types.check_values(first=first, then=then)
    return sampler.compose(first, then, padding=padding)


def exponential(
    velocity: Displacement,
    *,
    steps: types.Whole = 7,
    composition: Callable[[Displacement, Displacement], Displacement] = sampler.compose,
) -> Displacement:
    """Integrate a stationary velocity over unit time by scaling and squaring.

    u_0 = v / 2^steps; u_{k+1} = compose(u_k, u_k). exp(-v) is the inverse of exp(v) up to interpolation.
    velocity: (B, dim, *space), voxels per unit time. composition: how two displacements become one, where an authors'
    program samples differently. Source: Arsigny et al. 2006; VoxelMorph uses 7 steps.

    Raises:
        TypeError, ValueError: not a displacement, NaN, a negative number of steps.
    """
    types.check_values(velocity=velocity)
    return sampler.exponential(velocity, steps=steps, composition=composition)


def invert(
    displacement: Displacement,
    *,
    tolerance: float = 1e-2,
    max_iterations: int = 50,
    method: inversion.Solver = "newton",
) -> Displacement:
    """The inverse map's displacement: z with z(x) = -u(x + z(x)), so compose(u, z) = 0.

    displacement: (B, dim, *space), voxels, of a map without folds. Returns float32 or finer. Each item of the batch
    is solved for itself. The gradient is that of the exact solution; only `displacement` and the result are kept.
    tolerance: the last step |z + u(x + z)| is smaller, in voxels. max_iterations: evaluations of u at most; where they
    do not suffice a RuntimeWarning says what error is left. method: "newton" is the fastest and needs the least memory:
    it solves a small linear system at the voxels that three plain steps leave; what this does not solve is tried by
    "anderson", which is SITReg's. "plain" is that without acceleration.

    Raises:
        TypeError, ValueError: not a displacement, NaN, options out of range.
    Source: deformation inversion layer (SITReg, section 3.3); Anderson acceleration: Walker and Ni, 2011.
    """
    types.check_finite(displacement, "displacement")
    if tolerance <= 0 or max_iterations < 2:
        raise InputError(
            "tolerance must be positive and max_iterations at least 2",
            f"{tolerance}, {max_iterations}",
            "1e-2 voxel and 50 are usual",
        )
    return inversion.invert(displacement, tolerance=tolerance, max_iterations=max_iterations, method=method)


def difference(field: Image, axis: int) -> Tensor:
    """Central difference along a spatial axis, one-sided at both ends; same shape, change per voxel."""
    types.check_option("axis", axis, range(field.dim() - 2))
    return double_difference(field, axis) / 2


# ---------------------------------------------------------------------------------------------- affine maps
def affine_displacement(matrix: Matrix, shape: Sequence[types.Count]) -> Displacement:
    """The displacement of an affine map about the image's centre c: φ(x) = A (x - c) + c + t.

    matrix: (B, dim, dim + 1), the columns of A and then t; voxels, axes in array order. Returns (B, dim, *shape).

    Raises:
        ValueError: the matrix does not fit the shape.
    """
    return _affine_displacement_at(identity(shape, like=matrix), matrix, shape)


def move_affinely(coordinates: Coordinates, matrix: Matrix, shape: Sequence[types.Count]) -> Coordinates:
    """φ(x) = A (x - c) + c + t at any positions x; matrix, centre and errors as of `affine_displacement`.

    coordinates: (B or 1, dim, *any), voxels. Returns (B, dim, *any), voxels.
    """
    return coordinates + _affine_displacement_at(coordinates, matrix, shape)


def _affine_displacement_at(coordinates: Coordinates, matrix: Matrix, shape: Sequence[types.Count]) -> Tensor:
    """(A - I) (x - c) + t, without a matrix product, which autocast would round to half precision."""
    dim = len(shape)
    if matrix.dim() != 3 or matrix.shape[1:] != (dim, dim + 1):
        raise InputError(
            f"matrix must be (batch, {dim}, {dim + 1}) for the shape {tuple(shape)}",
            f"{tuple(matrix.shape)}",
            "put the translation in the last column",
        )
    matrix = at_least_float32(matrix)
    change = matrix - torch.eye(dim, dim + 1, dtype=matrix.dtype, device=matrix.device)
    *columns, result = (part.view(-1, dim, *[1] * (coordinates.dim() - 2)) for part in change.unbind(2))
    for axis, (column, size) in enumerate(zip(columns, shape, strict=True)):
        result = result + column * (coordinates[:, axis : axis + 1] - (size - 1) / 2)
    return result


def rigid_displacement(shape: Sequence[types.Count], *, degrees: float = 0.0, right: float = 0.0) -> Displacement:
    """A turn about the middle of a 2D image, and a shift along axis 1: (1, 2, *shape), voxels.

    φ(x) = R (x - c) + c + (0, right). Pulled, so the content turns and shifts the other way.
    """
    c, s = cos(radians(degrees)), sin(radians(degrees))
    return affine_displacement(torch.tensor([[[c, -s, 0.0], [s, c, float(right)]]]), shape)


def reads_inside(displacement: Displacement) -> Tensor:
    """Whether x + u(x) lies within the grid: (B, 1, *space), boolean."""
    positions = displacement + identity(spatial(displacement), like=displacement)
    last = positions.new_tensor(spatial(displacement)).sub(1).view(1, -1, *[1] * (displacement.dim() - 2))
    return ((positions >= 0) & (positions <= last)).all(1, keepdim=True)


# ---------------------------------------------------------------------------------------------- sizes
def resize(image: Image, shape: Sequence[types.Count]) -> Image:
    """An image on a grid of another size, corner voxels staying corner voxels: (B, C, *space) to (B, C, *shape).

    Raises:
        TypeError, ValueError: not an image; a size for each spatial axis is missing or not positive.
    """
    if len(shape) != image.dim() - 2:
        raise InputError(
            f"shape must be {image.dim() - 2} sizes for an image of shape {tuple(image.shape)}",
            f"{tuple(shape)}",
            "give one for each spatial axis",
        )
    return _interpolate(image, size=tuple(shape), align_corners=True)


def resize_displacement(displacement: Displacement, shape: Sequence[types.Count]) -> Displacement:
    """The same map on a grid of another size: resampled, and scaled by (new - 1)/(old - 1) voxels along each axis."""
    resized = resize(at_least_float32(displacement), shape)
    return scale_components(
        resized, [(new - 1) / max(old - 1, 1) for new, old in zip(shape, spatial(displacement), strict=True)]
    )


def upsample(displacement: Displacement, *, alignment: Literal["cells", "corners"] = "cells") -> Displacement:
    """A coarse level's displacement on the next finer level's grid: twice the size, twice the values.

    "cells": coarse voxel k covers the fine voxels 2k and 2k + 1 (exact for grids made by 2x pooling; SPnet, SM-GICNet).
    "corners": corner voxels stay corner voxels while values still double, as SACB-Net's program does.
    """
    return 2 * _interpolate(at_least_float32(displacement), align_corners=alignment == "corners")


def linear_upsample(features: Tensor) -> Tensor:
    """Features at twice the size by linear interpolation, aligned by cells (a displacement's values: `upsample`)."""
    return _interpolate(features, align_corners=False)


def _interpolate(image: Tensor, *, align_corners: bool, size: tuple[int, ...] | None = None) -> Tensor:
    """Linear interpolation to a size, or to twice the size."""
    mode = "bilinear" if image.dim() == 4 else "trilinear"
    factor = 2 if size is None else None
    return F.interpolate(image, size, factor, mode, align_corners)


def average_pool(features: Tensor, **options: Any) -> Tensor:
    """Means over 2 x 2 (x 2) blocks: (B, C, *space) to (B, C, *space // 2); options as of torch's avg_pool.

    An axis of length 1 stays as it is.
    """
    kernel = [min(2, size) for size in spatial(features)]
    return (F.avg_pool2d if features.dim() == 4 else F.avg_pool3d)(features, kernel, **options)


# ---------------------------------------------------------------------------------------------- units
def scale_components(displacement: Displacement, factors: Sequence[float]) -> Displacement:
    """Multiply component i by factors[i]."""
    parts = zip(displacement.split(1, 1), factors, strict=True)
    return torch.cat([component * factor for component, factor in parts], 1)


def voxels_to_normalized(displacement: Displacement, *, align_corners: bool = True) -> Displacement:
    """Voxels to the sampler's units, in which the image spans [-1, 1]; the channels stay in the order of the axes.

    align_corners=True: from corner voxel to corner voxel, 2 u / (N - 1). False: from edge to edge, 2 u / N.
    """
    return scale_components(displacement, [2 / max(n - align_corners, 1) for n in spatial(displacement)])


def normalized_to_voxels(displacement: Displacement, *, align_corners: bool = True) -> Displacement:
    """The inverse of `voxels_to_normalized`."""
    return scale_components(displacement, [max(n - align_corners, 1) / 2 for n in spatial(displacement)])


def voxels_to_unit(displacement: Displacement) -> Displacement:
    """Voxels to fractions of the image's extent, u / (N - 1): maps on [0, 1]^dim, as GradICON's program keeps them."""
    return scale_components(displacement, [1 / max(n - 1, 1) for n in spatial(displacement)])


def unit_to_voxels(displacement: Displacement) -> Displacement:
    """The inverse of `voxels_to_unit`."""
    return scale_components(displacement, [max(n - 1, 1) for n in spatial(displacement)])


def reverse_components(displacement: Displacement) -> Displacement:
    """Swap between channels in the order of the axes (here) and the reverse (LapIRN's and SM-GICNet's programs)."""
    return displacement.flip(1)


types.guard(globals())
