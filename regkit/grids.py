"""Grids and what lives on them: coordinates, differences, other sizes, other units.

Nothing here reads an image between its voxels; that is fields.py, which states the convention and offers these too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from regkit.types import (
    Coordinates,
    Displacement,
    Image,
    at_least_float32,
    check_displacement,
    check_image,
    choose,
    spatial,
)

_SLAB_VOXELS = 2**17  # what stays in a core's cache


def ramps(shape: Sequence[int], *, like: Tensor) -> list[Tensor]:
    """The coordinate along each axis of a grid, shaped to broadcast over it: dim tensors (1, …, n, …, 1), voxels."""
    dtype = torch.promote_types(like.dtype, torch.float32)  # bfloat16 counts to 256 only
    return [
        torch.arange(n, dtype=dtype, device=like.device).view([-1 if i == axis else 1 for i in range(len(shape))])
        for axis, n in enumerate(shape)
    ]


def identity(shape: Sequence[int], *, like: Tensor | None = None) -> Coordinates:
    """The coordinates of every voxel of a grid: (1, dim, *shape), voxels; device as `like`, float32 or finer."""
    like = torch.empty(0) if like is None else like
    return torch.stack(torch.broadcast_tensors(*ramps(shape, like=like)))[None]


def slabs(tensor: Tensor) -> list[slice]:
    """Cuts of the first spatial axis of (B, C, *space) into what a processor's cache holds; one cut elsewhere."""
    length = tensor.shape[2]
    if tensor.device.type != "cpu":
        return [slice(0, length)]
    planes = max(1, _SLAB_VOXELS * length // max(tensor[:, 0].numel(), 1))
    return [slice(start, min(start + planes, length)) for start in range(0, length, planes)]


# ---------------------------------------------------------------------------------------------- differences


def difference(field: Tensor, axis: int) -> Tensor:
    """Central difference along a spatial axis, one-sided at both ends; same shape, change per voxel."""
    return double_difference(field, axis) / 2


def double_difference(field: Tensor, axis: int) -> Tensor:
    """field[x + 1] - field[x - 1], the field going on in a straight line beyond both ends."""
    axis, size = axis + 2, field.shape[axis + 2]
    if size == 1:
        return torch.zeros_like(field)
    first, last = (2 * (field.narrow(axis, end + 1, 1) - field.narrow(axis, end, 1)) for end in (0, size - 2))
    upper, lower = field.narrow(axis, 2, size - 2), field.narrow(axis, 0, size - 2)
    if torch.is_grad_enabled() and field.requires_grad:
        return torch.cat([first, upper - lower, last], axis)
    result = torch.empty_like(field)  # nothing is to be differentiated: write each part where it belongs
    torch.sub(upper, lower, out=result.narrow(axis, 1, size - 2))
    result.narrow(axis, 0, 1).copy_(first)
    result.narrow(axis, size - 1, 1).copy_(last)
    return result


# ---------------------------------------------------------------------------------------------- sizes and units


def resize(image: Image, shape: Sequence[int]) -> Image:
    """An image on a grid of another size, corner voxels staying corner voxels: (B, C, *space) to (B, C, *shape).

    Raises:
        TypeError, ValueError: not an image; a size for each spatial axis is missing or not positive.
    """
    check_image(image)
    if len(shape) != image.dim() - 2 or min(shape) < 1:
        raise ValueError(
            f"shape must be {image.dim() - 2} positive sizes for an image of shape {tuple(image.shape)}, "
            f"received {tuple(shape)}; give one for each spatial axis."
        )
    return _interpolate(image, size=tuple(shape), align_corners=True)


def _interpolate(image: Tensor, *, align_corners: bool, size: tuple[int, ...] | None = None) -> Tensor:
    """Linear interpolation to a size, or to twice the size."""
    mode = "bilinear" if image.dim() == 4 else "trilinear"
    factor = 2 if size is None else None
    return F.interpolate(image, size, factor, mode, align_corners)


def resize_displacement(displacement: Displacement, shape: Sequence[int]) -> Displacement:
    """The same map on a grid of another size: resampled, and scaled by (new - 1)/(old - 1) voxels along each axis."""
    check_displacement(displacement)
    resized = resize(at_least_float32(displacement), shape)
    return scale_components(
        resized, [(new - 1) / max(old - 1, 1) for new, old in zip(shape, spatial(displacement), strict=True)]
    )


def upsample(displacement: Displacement, *, alignment: Literal["cells", "corners"] = "cells") -> Displacement:
    """A coarse level's displacement on the next finer level's grid: twice the size, twice the values.

    "cells": coarse voxel k covers the fine voxels 2k and 2k + 1 (exact for grids made by 2x pooling; SPnet, SM-GICNet).
    "corners": corner voxels stay corner voxels while values still double, as SACB-Net's program does.
    """
    check_displacement(displacement)
    align_corners = choose("alignment", alignment, {"cells": False, "corners": True})
    return 2 * _interpolate(at_least_float32(displacement), align_corners=align_corners)


def linear_upsample(features: Tensor) -> Tensor:
    """Features at twice the size by linear interpolation, aligned by cells (a displacement's values: `upsample`)."""
    return _interpolate(features, align_corners=False)


def scale_components(displacement: Displacement, factors: Sequence[float]) -> Displacement:
    """Multiply component i by factors[i]."""
    parts = zip(displacement.split(1, 1), factors, strict=True)
    return torch.cat([component * factor for component, factor in parts], 1)


def affine_displacement(matrix: Tensor, shape: Sequence[int]) -> Displacement:
    """The displacement of an affine map about the image's centre c: φ(x) = A (x - c) + c + t.

    matrix: (B, dim, dim + 1), the columns of A and then t; voxels, axes in array order. Returns (B, dim, *shape).

    Raises:
        ValueError: the matrix does not fit the shape.
    """
    return _affine_displacement_at(identity(shape, like=matrix), matrix, shape)


def move_affinely(coordinates: Coordinates, matrix: Tensor, shape: Sequence[int]) -> Coordinates:
    """φ(x) = A (x - c) + c + t at any positions x; matrix, centre and errors as of `affine_displacement`.

    coordinates: (B or 1, dim, *any), voxels. Returns (B, dim, *any), voxels.
    """
    return coordinates + _affine_displacement_at(coordinates, matrix, shape)


def _affine_displacement_at(coordinates: Coordinates, matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """(A - I) (x - c) + t, without a matrix product, which autocast would round to half precision."""
    dim = len(shape)
    if matrix.dim() != 3 or matrix.shape[1:] != (dim, dim + 1):
        raise ValueError(
            f"matrix must be (batch, {dim}, {dim + 1}) for the shape {tuple(shape)}, received {tuple(matrix.shape)}; "
            f"put the translation in the last column."
        )
    matrix = at_least_float32(matrix)
    change = matrix - torch.eye(dim, dim + 1, dtype=matrix.dtype, device=matrix.device)
    *columns, result = (part.view(-1, dim, *[1] * (coordinates.dim() - 2)) for part in change.unbind(2))
    for axis, (column, size) in enumerate(zip(columns, shape, strict=True)):
        result = result + column * (coordinates[:, axis : axis + 1] - (size - 1) / 2)
    return result


def reads_inside(displacement: Displacement) -> Tensor:
    """Whether x + u(x) lies within the grid: (B, 1, *space), boolean."""
    positions = displacement + identity(spatial(displacement), like=displacement)
    last = positions.new_tensor(spatial(displacement)).sub(1).view(1, -1, *[1] * (displacement.dim() - 2))
    return ((positions >= 0) & (positions <= last)).all(1, keepdim=True)


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
