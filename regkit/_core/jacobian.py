"""|J|, by how much a map changes volume: fast, because it goes through the field in pieces that stay in the cache.

Without gradients every step writes into memory that the pieces share, and the differences along an axis are one
subtraction of the field from itself, some voxels along in memory: wrong at the axis' ends, which are then set right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from regkit._core.grid import double_difference, slabs
from regkit.types import Displacement, at_least_float32, check_displacement


def jacobian_determinant(displacement: Displacement) -> Tensor:
    """|J| of φ(x) = x + u(x): the volume that a voxel is pulled from; below zero the map folds.

    |J| = det(I + ∂u_i/∂x_j), by `difference`: central inside, one-sided at the borders.
    displacement: (B, dim, *space), voxels. Returns (B, 1, *space), no unit. Differentiable.

    Raises:
        TypeError, ValueError: not a displacement.
    """
    check_displacement(displacement)
    field = at_least_float32(displacement)
    parts = slabs(field)
    if (torch.is_grad_enabled() and field.requires_grad) or not field.is_contiguous():
        return torch.cat([_determinant(_double_differences(field, part))[:, None] for part in parts], 2)
    result = torch.empty_like(field[:, :1])
    batch, dim, _, *rest = field.shape
    spare, *columns = field.new_empty(dim * dim + 1, batch, parts[0].stop, *rest).split([1] + [dim] * dim)
    for part in parts:
        count = part.stop - part.start
        own = [column[:, :, :count].movedim(0, 1) for column in columns]
        _write_double_differences(field, part, own)
        _determinant(own, spare[0, :, :count], result[:, 0, part])
    return result


def _double_differences(field: Displacement, part: slice) -> list[Tensor]:
    """Twice ∂u/∂x_j for every axis j, in some planes across axis 0: dim tensors (B, dim, planes, ...)."""
    low, high = max(part.start - 1, 0), min(part.stop + 1, field.shape[2])  # one plane more on either side
    across = double_difference(field[:, :, low:high], 0)[:, :, part.start - low : part.stop - low]
    return [across, *(double_difference(field[:, :, part], axis) for axis in range(1, field.dim() - 2))]


def _write_double_differences(field: Displacement, part: slice, columns: Sequence[Tensor]) -> None:
    """The same into `columns`; the field is contiguous."""
    flat, shape = field.flatten(2), field.shape[2:]
    start, stop = (plane * math.prod(shape[1:]) for plane in (part.start, part.stop))
    for axis, (column, size) in enumerate(zip(columns, shape, strict=True)):
        if size == 1:
            column.zero_()
            continue
        step = math.prod(shape[axis + 1 :])
        low, high = max(start, step), min(stop, flat.shape[2] - step)
        upper, lower = flat[:, :, low + step : high + step], flat[:, :, low - step : high - step]
        torch.sub(upper, lower, out=column.flatten(2)[:, :, low - start : high - start])
        own, first = (field, part.start) if axis == 0 else (field[:, :, part], 0)
        for end, lower_end in ((0, 0), (size - 1, size - 2)):
            if first <= end < first + column.shape[axis + 2]:
                pair = own.narrow(axis + 2, lower_end, 2).unbind(axis + 2)
                torch.sub(pair[1], pair[0], out=column.select(axis + 2, end - first)).mul_(2)


def _determinant(columns: Sequence[Tensor], spare: Tensor | None = None, result: Tensor | None = None) -> Tensor:
    """det(I + D / 2), by cofactors along the first row; spare, result: memory to write into, and D is overwritten.

    The identity and the halves enter as factors of products that are needed anyway, (1 + a/2) c = c + a c / 2, because
    each operation costs as much as it moves. columns: D's, dim tensors (B, dim, *space). Returns (B, *space).
    """
    if len(columns) == 2:
        (a, c), (b, d) = (column.unbind(1) for column in columns)
        product = torch.add(1, d, alpha=0.5, out=spare)
        product = torch.addcmul(product, a, product, value=0.5, out=result)
        return torch.addcmul(product, b, c, value=-0.25, out=result)
    (a, d, g), (b, e, h), (c, f, i) = (column.unbind(1) for column in columns)
    last = torch.add(1, i, alpha=0.5, out=None if spare is None else i)
    cofactor = torch.addcmul(last, last, e, value=0.5, out=spare)
    cofactor = torch.addcmul(cofactor, f, h, value=-0.25, out=spare)  # (1 + e/2) (1 + i/2) - f h / 4
    total = torch.addcmul(cofactor, a, cofactor, value=0.5, out=result)
    cofactor = torch.mul(f, g, out=spare)
    cofactor = torch.addcmul(cofactor, d, last, value=-2, out=spare)  # 4 (f g / 4 - d/2 (1 + i/2))
    total = torch.addcmul(total, b, cofactor, value=0.125, out=result)
    cofactor = torch.addcmul(g, g, e, value=0.5, out=spare)
    cofactor = torch.addcmul(cofactor, d, h, value=-0.5, out=spare)  # 2 ((1 + e/2) g/2 - d h / 4)
    return torch.addcmul(total, c, cofactor, value=-0.25, out=result)
