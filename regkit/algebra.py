"""Small algebra at every voxel, and the fixed-point solver; nothing here knows what an image is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_SMALLEST_DETERMINANT = 1e-6


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


class Solution(NamedTuple):
    """What a solver found: the value, and the largest error that is left in each item of the batch, (B,)."""

    value: Tensor
    left: Tensor


def fixed_point(
    function: Callable[[Tensor], Tensor], start: Tensor, tolerance: float, max_iterations: int, memory: int
) -> Solution:
    """y = F(x) with max|y - x| < tolerance, by Anderson acceleration of x <- F(x); each batch item for itself.

    The next x is the combination Σ α_j y_j of the latest `memory` values whose residuals r_j = y_j - x_j nearly cancel:
    min |Σ α_j r_j|² + tolerance² |α|² with Σ α_j = 1. Two evaluations come before the first test, `max_iterations` are
    the most; memory=1 is the plain iteration. An item keeps its value from when it is done.
    Source: Walker and Ni, 2011; the numbers are those of SITReg's deformation inversion layer.
    """
    batch, shape = start.shape[0], (-1, *[1] * (start.dim() - 1))
    values: list[Tensor] = []
    residuals: list[Tensor] = []
    gram = start.new_zeros(batch, memory, memory, dtype=torch.float64)  # r_i · r_j
    done = torch.zeros(batch, dtype=torch.bool, device=start.device)
    point, solution = start, Solution(start, start.new_zeros(batch))
    for count in range(max_iterations):
        value = function(point)
        residual = value - point
        left = residual.flatten(1).abs().amax(1)
        solution = Solution(
            torch.where(done.view(shape), solution.value, value), torch.where(done, solution.left, left)
        )
        done = (solution.left < tolerance) & (count > 0)
        if done.all():
            break
        slot = count % memory  # the oldest makes room
        values[slot : slot + 1], residuals[slot : slot + 1] = [value], [residual]
        products = torch.stack([(residual * other).flatten(1).sum(1) for other in residuals], 1).double()
        gram[:, slot, : len(values)] = gram[:, : len(values), slot] = products
        weights = _mixing_weights(gram[:, : len(values), : len(values)], tolerance).to(value.dtype)
        point = weights[:, 0].view(shape) * values[0]
        for j in range(1, len(values)):
            point.addcmul_(weights[:, j].view(shape), values[j])
    return solution


def _mixing_weights(gram: Tensor, tolerance: float) -> Tensor:
    """α that minimises αᵀ G α + tolerance² |α|² with Σ α_j = 1: proportional to (G + tolerance² I)⁻¹ 1; (B, count)."""
    regular = gram + tolerance**2 * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve_ex(regular, torch.ones_like(gram[:, :, :1]))[0][:, :, 0]
    return weights / weights.sum(1, keepdim=True)


def move_points(points: Tensor, matrix: np.ndarray) -> Tensor:
    """A x + b of positions x (B, dim, *any); matrix (dim, dim + 1), as of scans.voxel_map."""
    result = points.new_empty(len(points), len(matrix), *points.shape[2:])
    for row, (*factors, shift) in enumerate(matrix.tolist()):
        own = result[:, row]
        torch.mul(points[:, row], factors[row], out=own).add_(shift)
        for axis, factor in enumerate(factors):
            if factor and axis != row:  # most grids are straight
                own.add_(points[:, axis], alpha=factor)
    return result
