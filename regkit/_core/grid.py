"""Grids of voxels: coordinates, pieces that fit a cache, differences along an axis, small algebra at each voxel.

Nothing here knows what an image is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regkit.types import Coordinates, Count

_SLAB_VOXELS = 2**17  # what stays in a core's cache
_SMALLEST_DETERMINANT = 1e-6


def ramps(shape: Sequence[int], *, like: Tensor) -> list[Tensor]:
    """The coordinate along each axis of a grid, shaped to broadcast over it: dim tensors (1, …, n, …, 1), voxels."""
    dtype = torch.promote_types(like.dtype, torch.float32)  # bfloat16 counts to 256 only
    return [
        torch.arange(n, dtype=dtype, device=like.device).view([-1 if i == axis else 1 for i in range(len(shape))])
        for axis, n in enumerate(shape)
    ]


def identity(shape: Sequence[Count], *, like: Tensor | None = None) -> Coordinates:
    """The coordinates of every voxel of a grid: (1, dim, *shape), voxels; device as `like`, float32 or finer."""
    like = torch.empty(0) if like is None else like
    return torch.stack(torch.broadcast_tensors(*ramps(shape, like=like)))[None]


def in_one_piece(tensor: Tensor) -> bool:
    """Whether pieces gain nothing: elsewhere than on a processor with a cache, and where a compiler cuts by itself."""
    return tensor.device.type != "cpu" or torch.compiler.is_compiling()


def slabs(tensor: Tensor) -> list[slice]:
    """Cuts of the first spatial axis of (B, C, *space) into what a processor's cache holds; one cut elsewhere."""
    length = tensor.shape[2]
    if in_one_piece(tensor):
        return [slice(0, length)]
    planes = max(1, _SLAB_VOXELS * length // max(tensor[:, 0].numel(), 1))
    return [slice(start, min(start + planes, length)) for start in range(0, length, planes)]


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


def determinant(columns: Sequence[Tensor]) -> Tensor:
    """det of the 2 x 2 or 3 x 3 matrix with these columns, at every voxel.

    columns: dim tensors (B, dim, *space); component i of a column is its row i. Returns (B, 1, *space).
    """
    first, *others = (column.unbind(1) for column in columns)
    if len(columns) == 2:
        (second,) = others
        return (first[0] * second[1] - first[1] * second[0])[:, None]
    second, third = others
    result = torch.zeros((), dtype=columns[0].dtype, device=columns[0].device)
    for row, i, j in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross = torch.addcmul(second[i] * third[j], second[j], third[i], value=-1)
        result = torch.addcmul(result, first[row], cross)
    return result[:, None]


def solve(columns: Sequence[Tensor], right: Tensor) -> Tensor:
    """w with A w = right at every voxel, by Cramer's rule; columns as in `determinant`, the others (B, dim, *space).

    Where |det A| < 1e-6 it is taken as ±1e-6, so that a fold gives a large number and not NaN.
    """
    numerators = [determinant([*columns[:i], right, *columns[i + 1 :]]) for i in range(len(columns))]
    whole = determinant(columns)
    whole = torch.where(whole < 0, whole.clamp(max=-_SMALLEST_DETERMINANT), whole.clamp(min=_SMALLEST_DETERMINANT))
    return torch.cat(numerators, 1) / whole
