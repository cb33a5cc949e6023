"""Small algebra at every voxel, and the fixed-point solver: what fields.py and SITReg share, with no notion of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def determinant(columns: Sequence[Tensor]) -> Tensor:
    """det of the 2 x 2 or 3 x 3 matrix with these columns, at every voxel.

    columns: dim tensors (B, dim, *space); component i of a column is its row i. Returns (B, 1, *space).
    """
    if len(columns) == 2:
        a, b = columns
        return a[:, :1] * b[:, 1:] - a[:, 1:] * b[:, :1]
    a, b, c = columns
    rest = [b[:, i] * c[:, j] - b[:, j] * c[:, i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return (a[:, 0] * rest[0] + a[:, 1] * rest[1] + a[:, 2] * rest[2])[:, None]


def solve_transposed(columns: Sequence[Tensor], right: Tensor) -> Tensor:
    """w with Aᵀ w = g at every voxel, by Cramer's rule; shapes as in `determinant`, right and result (B, dim, *space).

    Where A is singular (|det A| < 1e-6) the determinant is taken as ±1e-6, so that a fold gives a large number, not NaN.
    """
    dim = len(columns)
    rows = [torch.stack([column[:, i] for column in columns], 1) for i in range(dim)]  # the columns of Aᵀ
    det = determinant(rows)
    det = torch.where(det.abs() < 1e-6, torch.where(det < 0, -1e-6, 1e-6).to(det), det)
    return torch.cat([determinant([*rows[:i], right, *rows[i + 1 :]]) for i in range(dim)], 1) / det


def fixed_point(
    function: Callable[[Tensor], Tensor], start: Tensor, tolerance: float, max_iterations: int, memory: int
) -> Tensor:
    """y = F(x) with max|y - x| < tolerance, by Anderson acceleration of x <- F(x); each batch item for itself.

    The first two evaluations are plain. Then x is the combination Σ α_j y_j of the latest `memory` values whose
    residuals r_j = y_j - x_j nearly cancel: min |Σ α_j r_j|² + tolerance² |α|², Σ α_j = 1. memory=1 is the plain iteration.
    Source: Walker and Ni, 2011; the numbers are those of SITReg's deformation inversion layer.
    """
    inputs, outputs = [start], [function(start)]
    inputs.append(outputs[0])
    outputs.append(function(inputs[1]))
    for _ in range(2, max_iterations):
        residual = (outputs[-1] - inputs[-1]).flatten(1).abs().amax(1)  # (B,)
        done = (residual < tolerance).view(-1, *[1] * (start.dim() - 1))
        if done.all():
            return outputs[-1]
        inputs, outputs = inputs[-memory:], outputs[-memory:]
        mixed = _anderson_mix(inputs, outputs, tolerance)
        inputs.append(torch.where(done, inputs[-1], mixed))
        outputs.append(torch.where(done, outputs[-1], function(inputs[-1])))
    left = float((outputs[-1] - inputs[-1]).abs().max())
    if not left < tolerance:
        warnings.warn(
            f"the fixed point was not reached: {left:.3g} is left after {max_iterations} iterations where {tolerance:g} "
            f"was asked; most often the field folds: look at jacobian_determinant, or raise max_iterations.",
            RuntimeWarning,
            stacklevel=5,
        )
    return outputs[-1]


def _anderson_mix(inputs: list[Tensor], outputs: list[Tensor], tolerance: float) -> Tensor:
    """Σ α_j y_j with the α that minimise the mixed residual."""
    count, batch = len(inputs), inputs[0].shape[0]
    if count == 1:
        return outputs[0]
    residuals = [(y - x).flatten(1) for x, y in zip(inputs, outputs, strict=True)]
    system = torch.zeros(batch, count + 1, count + 1, dtype=torch.float64, device=inputs[0].device)
    system[:, 0, 1:] = system[:, 1:, 0] = 1
    for i in range(count):
        for j in range(i, count):
            system[:, 1 + i, 1 + j] = system[:, 1 + j, 1 + i] = (residuals[i] * residuals[j]).sum(1).double()
        system[:, 1 + i, 1 + i] += tolerance**2
    right = system.new_zeros(batch, count + 1, 1)
    right[:, 0] = 1
    alpha = torch.linalg.solve(system, right)[:, 1:, 0].to(inputs[0].dtype)  # (B, count)
    shape = (-1, *[1] * (inputs[0].dim() - 1))
    return sum((alpha[:, j].view(shape) * outputs[j] for j in range(1, count)), alpha[:, 0].view(shape) * outputs[0])
