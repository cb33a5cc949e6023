"""Cubic B-splines: a few control values per level become a smooth displacement, and how large they may be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from regkit.types import Dim, Displacement, at_least_float32, check_option

Spline = Literal["plain", "prefiltered"]
_PATCH = 6  # control values along each axis of a patch that holds one whole cell with all its neighbours


def basis(distance: np.ndarray) -> np.ndarray:
    """The cubic B-spline at a signed distance in control spacings: 2/3 - a² + a³/2 for a < 1, (2 - a)³/6 for a < 2."""
    a = np.abs(distance)
    return np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.maximum(2 - a, 0) ** 3 / 6)


@lru_cache(maxsize=512)
def spline_matrix(size: int, factor: int, spline: Spline = "plain") -> np.ndarray:
    """The `size` samples of an axis as combinations of its ceil(size / factor) control values; float64.

    v(j) = Σ_i c(i) B((j + 1/2)/factor - 1/2 - i), the end values replicated beyond the ends.
    "prefiltered": the control values are first those of the spline that passes through c (mirrored ends).
    """
    count = -(-size // factor)
    places = (np.arange(size)[:, None] + 0.5) / factor - 0.5
    weights = basis(places - np.arange(-2, count + 2))  # (size, 2 + count + 2)
    matrix = weights[:, 2:-2].copy()
    matrix[:, 0] += weights[:, :2].sum(1)
    matrix[:, -1] += weights[:, -2:].sum(1)
    return matrix if spline == "plain" else matrix @ np.linalg.inv(spline_matrix(count, 1))


def upsample_controls(control: Tensor, shape: Sequence[int], factor: int, *, spline: Spline = "plain") -> Displacement:
    """Control values as a displacement of the full grid: one small matrix product per axis, then times `factor`.

    control: (B, dim, *ceil(shape / factor)), voxels of their own level. Returns (B, dim, *shape), voxels.
    Level voxel i sits at factor * i + (factor - 1)/2. Computed in float32 or better also under autocast.
    """
    check_option("spline", spline, get_args(Spline))
    with torch.autocast(control.device.type, enabled=False):
        field = at_least_float32(control)
        for size in shape:  # contracts the first spatial axis and appends the new one: dim times restores the order
            matrix = torch.as_tensor(spline_matrix(size, factor, spline), dtype=field.dtype, device=field.device)
            field = torch.tensordot(field, matrix, ([2], [1]))
        return factor * field


def control_bound(factor: int, dim: Dim) -> float:
    """The largest |control value|, in voxels of the level, below which x + u(x) cannot fold; plain spline only.

    bound = 1 / max Σ_i |Σ_d ∂_d B_i| over the corners of all sampling cells, ∂_d the difference between neighbouring
    samples (between samples the map is multilinear). Below it |∂u| < 1 in the maximum norm, so that the map is
    injective and its inversion by iteration contracts. It is tight: see `worst_pattern`.
    Source: Choi and Lee, 2000, for factor -> infinity (0.4033 in 3D, 0.4887 in 2D); the later release of SITReg.
    """
    return 1 / float(np.abs(_steepest(factor, dim)).sum())


def worst_pattern(factor: int, dim: Dim) -> Tensor:
    """Control values ±1 that fold soonest: times k * bound they give min |J| = 1 - k. (1, dim, 6, ...)."""
    pattern = torch.as_tensor(-np.sign(_steepest(factor, dim))).reshape(1, 1, *[_PATCH] * dim)
    return pattern.repeat(1, dim, *[1] * dim)


@lru_cache(maxsize=64)
def _steepest(factor: int, dim: Dim) -> np.ndarray:
    """Σ_d ∂_d B_i for the control values i of a patch, flattened, at the corner where Σ_i |.| is largest."""
    matrix = spline_matrix(_PATCH * factor, factor)
    cells = np.arange(factor) + 2 * factor + factor // 2  # one period of sampling cells, in the middle of the patch
    slopes = np.repeat(factor * (matrix[cells + 1] - matrix[cells]), 2, 0)  # (2 factor, 6), for both ends of a cell
    values = np.stack([matrix[cells], matrix[cells + 1]], 1).reshape(slopes.shape)
    best = np.zeros(_PATCH**dim)
    for first in range(2 * factor):  # the axes may be exchanged: the other corners need not come before the first
        value, slope = values[first, None], slopes[first, None]
        for _ in range(dim - 1):
            slope = _outer(slope, values[first:]) + _outer(value, slopes[first:])
            value = _outer(value, values[first:])
        sums = np.abs(slope).sum(1)
        if sums.max() > np.abs(best).sum():
            best = slope[sums.argmax()]
    return best


def _outer(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """All products of rows, each the outer product of two rows, flattened: (a, m) and (b, n) to (a b, m n)."""
    return np.einsum("am,bn->abmn", one, other).reshape(len(one) * len(other), -1)
