"""Clusters of voxels by what their features say, and a convolution whose kernel depends on the cluster.

First k-means, reproducible, guarded, one step at a time; then neighbourhoods and the adaptive convolution of SACB-Net.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regkit.types import at_least_float32, check_finite, check_option, spatial

Empty = Literal["origin", "farthest"]
_SLAB_VALUES = {"cpu": 2**20, "cuda": 2**26}  # neighbourhoods held at once: what fits a cache, what fills a GPU


@dataclass(frozen=True)
class Clusters:
    """Which cluster each point belongs to, and where the clusters are.

    index: (..., *space), integers in 0 ... N - 1, by the centroids before the last update.
    centroids: (..., N, F), after the last update; never with a gradient.
    """

    index: Tensor
    centroids: Tensor


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The number of the nearest centroid: argmin |m - s|² = argmax (m·s - |s|²/2); the first of equals.

    points: (F, L). centroids: (N, F). Returns (L,).
    """
    half_norms = centroids.square().sum(1, keepdim=True) / 2
    return (centroids @ points - half_norms).max(0).indices


def lloyd(points: Tensor, centroids: Tensor, *, empty: Empty = "origin") -> Iterator[Clusters]:
    """Lloyd's iteration, one result after another, for ever: assign to the nearest centroid, then take the means.

    The cost Σ |m - s_index|² never rises, unless a cluster runs empty. Its centroid then goes to the "origin", as in
    SACB-Net's program, from where it may capture points later; or to the point "farthest" from its own centroid.
    points: (F, L). centroids: (N, F), where to start.
    """
    check_option("empty", empty, get_args(Empty))
    numbers = torch.arange(len(centroids), device=points.device)[:, None]
    while True:
        index = nearest(points, centroids)
        members = (index == numbers).to(points.dtype)  # (N, L)
        sizes = members.sum(1, keepdim=True)
        means = members @ points.T / sizes.clamp(min=1)
        if empty == "farthest" and not sizes.all():
            distances = (points - centroids[index].T).square().sum(0)
            gaps = torch.nonzero(sizes[:, 0] == 0)[:, 0]
            means[gaps] = points[:, distances.topk(len(gaps)).indices].T
        centroids = means
        yield Clusters(index, centroids)


def k_means(
    points: Tensor,
    count: int,
    *,
    seed: int = 0,
    tolerance: float = 1e-4,
    max_iterations: int = 50,
    empty: Empty = "origin",
) -> Clusters:
    """Lloyd's k-means from `count` distinct points drawn by a private generator: same seed, same clusters.

    points: (F, L), finite. Stops when the summed squared movement of all centroids is at most `tolerance`, or after
    `max_iterations`. No gradient. Returns index (L,) and centroids (count, F).

    Raises:
        ValueError: points that are not finite, or fewer than `count`.
    """
    _check_points(points, count)
    rows = np.random.default_rng(seed).choice(points.shape[1], count, replace=False)
    return _converge(points, rows, tolerance, max_iterations, empty)


def k_means_as_released(points: Tensor, count: int, *, seed: int = 0) -> Clusters:
    """k-means as SACB-Net's program calls it: NumPy's older generator, tolerance 1e-10, in effect no iteration limit.

    Source: github.com/x-xc/SACB_Net, with its switch `fix_rng` on (it is off there: every call draws anew).
    """
    _check_points(points, count)
    rows = np.random.RandomState(seed).choice(points.shape[1], count, replace=False)
    return _converge(points, rows, 1e-10, 10**10, "origin")


def _check_points(points: Tensor, count: int) -> None:
    """Raise unless `points` is a finite (F, L) tensor that can be put into `count` clusters."""
    if points.dim() != 2:
        raise ValueError(
            f"points must be (features, points), received shape {tuple(points.shape)}; flatten the space and cluster "
            f"each item of a batch by itself."
        )
    if not 1 <= count <= points.shape[1]:
        raise ValueError(
            f"there must be at least 1 cluster and no more clusters than points, received {count} clusters and "
            f"{points.shape[1]} points; ask for fewer clusters."
        )
    check_finite(points, "points")


@torch.no_grad()
def _converge(points: Tensor, rows: np.ndarray, tolerance: float, max_iterations: int, empty: Empty) -> Clusters:
    points = at_least_float32(points)
    centroids = points[:, torch.from_numpy(rows).to(points.device)].T
    with torch.autocast(points.device.type, enabled=False):  # half precision would tie distances
        for iteration, found in enumerate(lloyd(points, centroids, empty=empty), start=1):
            movement = (found.centroids - centroids).square().sum()
            if iteration >= max_iterations or movement <= tolerance:
                return found
            centroids = found.centroids
    raise AssertionError("lloyd never ends by itself")


# ---------------------------------------------------------------------------------------------- neighbourhoods


def pad(features: Tensor, mode: str = "constant") -> Tensor:
    """One more voxel on every side: zeros ("constant") or the border again ("replicate")."""
    return F.pad(features, [1, 1] * (features.dim() - 2), mode=mode)


def offsets(dim: int) -> list[tuple[int, ...]]:
    """The 3^dim neighbours of a voxel in row-major order, each in {-1, 0, 1}^dim: the taps of a kernel."""
    return list(itertools.product((-1, 0, 1), repeat=dim))


def neighbours(padded: Tensor) -> Iterator[Tensor]:
    """Views p(v + offset), one for each of `offsets`: (B, C, *space + 2) to 3^dim times (B, C, *space)."""
    inner = [size - 2 for size in spatial(padded)]
    for offset in offsets(len(inner)):
        places = [slice(1 + step, 1 + step + size) for step, size in zip(offset, inner, strict=True)]
        yield padded[(slice(None), slice(None), *places)]


# ---------------------------------------------------------------------------------------------- the convolution


class _AdaptiveConvolution(torch.autograd.Function):
    """Scales the neighbourhoods, not the kernels, in slabs of planes; the backward pass makes each slab again."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, attention: Tensor, bias: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, attention, bias, index)
        matrix = weight.transpose(1, 2).flatten(1)  # (out, taps * in)
        result = features.new_empty(len(features), len(weight), *spatial(features))
        padded = pad(features)
        for item, planes, columns in _slabs(padded):
            number = index[item, planes].flatten()
            columns *= attention[item].T[:, None, number]
            value = matrix @ columns.flatten(0, 1) + bias[item].T[:, number]
            result[item, :, planes] = value.view_as(result[item, :, planes])
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, attention, bias, index = ctx.saved_tensors
        matrix = weight.transpose(1, 2).flatten(1)
        padded = pad(features)
        to_padded, to_matrix = torch.zeros_like(padded), torch.zeros_like(matrix)
        to_attention, to_bias = torch.zeros_like(attention), torch.zeros_like(bias)
        clusters = torch.arange(attention.shape[1], device=index.device)[:, None]
        for item, planes, columns in _slabs(padded):
            number = index[item, planes].flatten()
            members = (number == clusters).to(grad.dtype)  # (N, n)
            slab = grad[item, :, planes].flatten(1)  # (out, n)
            to_columns = (matrix.T @ slab).view_as(columns)
            to_bias[item] += members @ slab.T
            to_attention[item] += members @ (to_columns * columns).sum(1).T
            scale = attention[item].T[:, None, number]
            to_matrix += slab @ (columns * scale).flatten(0, 1).T
            to_columns *= scale
            target = to_padded[item : item + 1, :, planes.start : planes.stop + 2]
            for view, value in zip(neighbours(target), to_columns, strict=True):
                view += value.view_as(view)
        inner = list(neighbours(to_padded))[len(columns) // 2]  # the tap without offset
        to_weight = to_matrix.view(len(weight), -1, weight.shape[1]).transpose(1, 2)
        return inner, to_weight, to_attention, to_bias, None


def _slabs(padded: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """(item, planes, columns (taps, C, n)): the neighbourhoods of a few planes at a time, along the first axis."""
    batch, channels, length, *rest = padded.shape
    length, taps = length - 2, 3 ** (padded.dim() - 2)
    values = taps * channels * math.prod(size - 2 for size in rest)
    planes = max(1, _SLAB_VALUES.get(padded.device.type, 2**20) // values)
    for item, start in itertools.product(range(batch), range(0, length, planes)):
        stop = min(start + planes, length)
        views = neighbours(padded[item : item + 1, :, start : stop + 2])
        yield item, slice(start, stop), torch.cat(list(views)).flatten(2)


def adaptive_convolution(features: Tensor, weight: Tensor, attention: Tensor, bias: Tensor, index: Tensor) -> Tensor:
    """Convolve every voxel with the kernel of its cluster n(x) (eqs. 5, 6):

    y_o(x) = Σ_k a_{n(x), k} Σ_i w_{o, i, k} p_i(x + offset_k) + b_{n(x), o}

    It equals Σ_n [index = n] conv(p, a_n ⊙ w, b_n, padding=1), at the cost of one convolution for any N.
    features: (B, in, *space), zeros outside. weight: (out, in, 3^dim). attention: (B, N, 3^dim). bias: (B, N, out).
    index: (B, *space), in 0 ... N - 1. Returns (B, out, *space). Differentiable once in all but the index.
    """
    with torch.autocast(features.device.type, enabled=False):
        tensors = [tensor.to(weight.dtype) for tensor in (features, weight, attention, bias)]
        return _AdaptiveConvolution.apply(*tensors, index)
