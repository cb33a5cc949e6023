"""Grids and what lives on them: coordinates, differences and Jacobians, other sizes, other units.

Nothing here reads an image between its voxels; that is fields.py, which states the convention and offers these too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from regkit.algebra import determinant
from regkit.types import Coordinates, Displacement, Image, check_displacement, check_image, spatial

_SLAB_VOXELS = 2**16  # what stays in a core's cache


def identity(shape: Sequence[int], *, like: Tensor | None = None) -> Coordinates:
    """The coordinates of every voxel of a grid: (1, dim, *shape), voxels; dtype and device as `like`."""
    options = {} if like is None else {"dtype": like.dtype, "device": like.device}
    axes = [torch.arange(n, **options) if like is not None else torch.arange(n, dtype=torch.float32) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


# ---------------------------------------------------------------------------------------------- Jacobians


def difference(field: Tensor, axis: int) -> Tensor:
    """Central difference along a spatial axis, one-sided at both ends; same shape, change per voxel."""
    n = field.shape[axis + 2]
    if n == 1:
        return torch.zeros_like(field)
    before, after = field.narrow(axis + 2, 0, n - 1), field.narrow(axis + 2, 1, n - 1)
    steps = after - before  # (…, n - 1, …)
    ends = steps.narrow(axis + 2, 0, 1), steps.narrow(axis + 2, n - 2, 1)
    inner = (steps.narrow(axis + 2, 0, n - 2) + steps.narrow(axis + 2, 1, n - 2)) / 2
    return torch.cat([ends[0], inner, ends[1]], axis + 2)


def jacobian_determinant(displacement: Displacement) -> Tensor:
    """|J| of φ(x) = x + u(x): the volume that a voxel is pulled from; below zero the map folds.

    |J| = det(I + ∂u_i/∂x_j), by `difference`: central inside, one-sided at the borders.
    displacement: (B, dim, *space), voxels. Returns (B, 1, *space), no unit. Differentiable.
    """
    check_displacement(displacement)
    dim, length = displacement.shape[1], displacement.shape[2]
    planes = max(1, _SLAB_VOXELS * length // max(displacement[0, 0].numel(), 1))
    slabs = []
    for start in range(0, length, planes):  # a few planes at a time stay in the cache
        low, stop = max(start - 1, 0), min(start + planes, length)
        slab = displacement[:, :, low : min(stop + 1, length)]
        columns = [difference(slab, axis)[:, :, start - low : stop - low] for axis in range(dim)]
        for axis in range(dim):
            columns[axis][:, axis] += 1
        slabs.append(determinant(columns))
    return torch.cat(slabs, 2)


# ---------------------------------------------------------------------------------------------- sizes and units


def resize(image: Image, shape: Sequence[int]) -> Image:
    """An image on a grid of another size, corner voxels staying corner voxels: (B, C, *space) to (B, C, *shape)."""
    check_image(image)
    if len(shape) != image.dim() - 2 or min(shape) < 1:
        raise ValueError(
            f"shape must be {image.dim() - 2} positive sizes for an image of shape {tuple(image.shape)}, "
            f"received {tuple(shape)}; give one for each spatial axis."
        )
    return F.interpolate(image, tuple(shape), mode="bilinear" if len(shape) == 2 else "trilinear", align_corners=True)


def resize_displacement(displacement: Displacement, shape: Sequence[int]) -> Displacement:
    """The same map on a grid of another size: resampled, and scaled by (new - 1)/(old - 1) voxels along each axis."""
    check_displacement(displacement)
    factors = [(new - 1) / max(old - 1, 1) for new, old in zip(shape, spatial(displacement), strict=True)]
    return scale_components(resize(displacement, shape), factors)


def upsample(displacement: Displacement, *, alignment: Literal["cells", "corners"] = "cells") -> Displacement:
    """A coarse level's displacement on the next finer level's grid: twice the size, twice the values.

    "cells": coarse voxel k covers the fine voxels 2k and 2k + 1 (exact for grids made by 2x pooling; SPnet, SM-GICNet).
    "corners": corner voxels stay corner voxels while values still double, as SACB-Net's program does.
    """
    check_displacement(displacement)
    mode = "bilinear" if displacement.dim() == 4 else "trilinear"
    return 2 * F.interpolate(displacement, scale_factor=2, mode=mode, align_corners=alignment == "corners")


def scale_components(displacement: Displacement, factors: Sequence[float]) -> Displacement:
    """Multiply component i by factors[i]."""
    return displacement * displacement.new_tensor(factors).view(1, -1, *[1] * len(factors))


def affine_displacement(matrix: Tensor, shape: Sequence[int]) -> Displacement:
    """The displacement of an affine map about the image's centre c: φ(x) = A (x - c) + c + t.

    matrix: (B, dim, dim + 1), the columns of A and then t; voxels, axes in array order. Returns (B, dim, *shape).
    """
    dim = len(shape)
    if matrix.dim() != 3 or matrix.shape[1:] != (dim, dim + 1):
        raise ValueError(
            f"matrix must be (batch, {dim}, {dim + 1}) for the shape {tuple(shape)}, received {tuple(matrix.shape)}; "
            f"put the translation in the last column."
        )
    centred = identity(shape, like=matrix) - matrix.new_tensor([(n - 1) / 2 for n in shape]).view(1, -1, *[1] * dim)
    moved = torch.einsum("bij,bj...->bi...", matrix[:, :, :dim], centred.expand(len(matrix), *centred.shape[1:]))
    return moved - centred + matrix[:, :, dim].view(-1, dim, *[1] * dim)


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
    """Swap between channels in the order of the axes (here) and the reverse (VoxelMorph's and LapIRN's programs)."""
    return displacement.flip(1)
