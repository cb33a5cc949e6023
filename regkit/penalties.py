"""What keeps maps plausible: penalties on displacements (B, dim, *space) in voxels, and on maps.

A map is a function that takes coordinates (B, dim, *any) in voxels to coordinates. losses.py offers all of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from regkit.fields import identity, sample, scale_components
from regkit.types import (
    Coordinates,
    Displacement,
    at_least_float32,
    check_displacement,
    check_option,
    check_same_grid,
    spatial,
)

Map = Callable[[Coordinates], Coordinates]
Orders = Literal["one", "both"]

_SLAB_VOXELS = 2**16  # what stays in a core's cache


def _total(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


# ---------------------------------------------------------------------------------------------- smoothness


def _slabs(shape: Sequence[int]) -> Iterator[tuple[tuple[slice, slice], int]]:
    """Parts (items, planes) of a field (items, *space) that fit the cache, each with the axis to difference along."""
    items, length, *rest = shape
    plane = math.prod(rest)
    count = max(1, _SLAB_VOXELS // (length * plane))
    planes = max(1, _SLAB_VOXELS // plane)
    for item in range(0, items, count):
        for start in range(0, length, planes):
            stop = min(start + planes, length)
            yield (slice(item, item + count), slice(start, stop + 1)), 1
            for axis in range(2, len(shape)):
                yield (slice(item, item + count), slice(start, stop)), axis


class _Diffusion(torch.autograd.Function):
    """(1/dim) Σ_k mean (D_k u)² and its gradient (2/dim) Σ_k D_kᵀ D_k u / n_k, a few planes at a time. Keeps only u."""

    @staticmethod
    def forward(ctx: Any, field: Tensor) -> Tensor:
        """field: (items, *space)."""
        ctx.save_for_backward(field)
        ctx.scales = [1 / max((field.dim() - 1) * (field.numel() - field.numel() // n), 1) for n in field.shape]
        sums = [field.new_zeros(())]
        for part, axis in _slabs(field.shape):
            sums.append(field[part].diff(dim=axis).square_().sum() * ctx.scales[axis])
        return torch.stack(sums).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (field,) = ctx.saved_tensors
        gradient = field.new_zeros(field.shape)
        for part, axis in _slabs(field.shape):
            steps = field[part].diff(dim=axis)
            size = steps.shape[axis]
            gradient[part].narrow(axis, 1, size).addcmul_(steps, grad, value=2 * ctx.scales[axis])
            gradient[part].narrow(axis, 0, size).addcmul_(steps, grad, value=-2 * ctx.scales[axis])
        return gradient


def diffusion(displacement: Displacement) -> Tensor:
    """How unevenly a field moves: (1/dim) Σ_k mean (u(x + e_k) - u(x))², voxels squared; 0 for a translation.

    displacement, or velocity: (B, dim, *space), voxels. The mean runs over batch, components and the N_k - 1 steps of
    axis k; an axis of one voxel adds 0. Differentiable once; memory: the gradient only.
    Source: VoxelMorph's "l2"; SACB-Net, SPnet, SITReg and SM-GICNet use the same.
    """
    check_displacement(displacement)
    field = at_least_float32(displacement)
    return _Diffusion.apply(field.flatten(0, 1))


def bending(displacement: Displacement) -> Tensor:
    """How a field bends: (1/dim²) Σ_kl mean (∂²u/∂x_k∂x_l)², per voxel squared; 0 for an affine map.

    ∂_kk u = u(x + e_k) - 2 u(x) + u(x - e_k); ∂_kl u = the forward difference of the forward difference. The mean runs
    over batch, components and the positions where the difference exists. displacement: (B, dim, *space), voxels, at
    least 3 on each axis. Source: Rueckert et al. 1999; the factor is that of GradICON's comparison.
    """
    check_displacement(displacement)
    field = at_least_float32(displacement)
    dim = field.shape[1]
    if min(spatial(field)) < 3:
        raise ValueError(
            f"displacement must have 3 voxels on each axis to bend, received {spatial(field)}; enlarge it."
        )
    slopes = [field.diff(dim=2 + k) for k in range(dim)]
    return _total([slope.diff(dim=2 + k).square().mean() for slope in slopes for k in range(dim)]) / dim**2


# ---------------------------------------------------------------------------------------------- inverse consistency


def evaluation_points(
    shape: Sequence[int], *, noise: float = 1.0, stride: int = 1, like: Tensor | None = None
) -> Coordinates:
    """Where GradICON's program looks at maps: every voxel (or every `stride`-th on each axis), moved at random.

    Normal noise of standard deviation `noise`/N_last of the image's extent: about `noise` voxels. One draw, batch 1:
    (1, dim, *shape / stride), voxels; device as `like`, float32 at least. The sparse loss has noise=2, stride=2.
    """
    grid = at_least_float32(identity(shape, like=like))
    every: tuple[slice, ...] = (slice(None), slice(None), *[slice(None, None, stride)] * len(shape))
    grid = grid[every]
    return grid + scale_components(torch.randn_like(grid), [noise * (size - 1) / shape[-1] for size in shape])


def _round_trip_error(phi_AB: Map, phi_BA: Map, points: Coordinates, shape: Sequence[int]) -> Tensor:
    """p - φ_AB(φ_BA(p)) in fractions of the image's extent."""
    return scale_components(points - phi_AB(phi_BA(points)), [1 / max(size - 1, 1) for size in shape])


def icon_of_maps(phi_AB: Map, phi_BA: Map, points: Coordinates, shape: Sequence[int]) -> Tensor:
    """Inverse consistency of two maps: mean (p - φ_AB(φ_BA(p)))² + mean (p - φ_BA(φ_AB(p)))².

    phi_AB, phi_BA: functions of coordinates in voxels. points: (B or 1, dim, *any), voxels; `any` has dim axes. shape:
    the image's, whose extent is the unit of the errors, so that a weight means the same at every resolution. The mean
    runs over batch, components and points.
    Source: ICON (Greer et al. 2021), as GradICON's program computes it; its weight there was 1024.
    """
    points = at_least_float32(points)
    orders = (phi_AB, phi_BA), (phi_BA, phi_AB)
    return _total([_round_trip_error(*maps, points, shape).square().mean() for maps in orders])


def gradicon_of_maps(
    phi_AB: Map,
    phi_BA: Map,
    points: Coordinates,
    shape: Sequence[int],
    *,
    delta: float = 1e-3,
    orders: Orders = "one",
) -> Tensor:
    """Gradient inverse consistency of two maps: Σ_k mean ((e(p + δ a_k) - e(p))/δ)², e(p) = p - φ_AB(φ_BA(p)).

    With the image's extent as the unit (a_k spans axis k) this is mean |∇[φ_AB∘φ_BA] - I|² (Frobenius) / dim.
    phi_AB, phi_BA, points, shape: as for `icon_of_maps`. delta: fraction of the extent. "one" order is what the weight
    0.2 was tuned with; "both" adds φ_BA∘φ_AB as in the paper: halve the weight to compare.
    Source: GradICON, equation 2, as the authors' program computes it.
    """
    check_option("orders", orders, get_args(Orders))
    points = at_least_float32(points)
    steps = torch.diag(points.new_tensor([delta * (size - 1) for size in shape]))
    starts = [points, *(points + step.view(1, -1, *[1] * len(shape)) for step in steps)]

    def penalty(first: Map, second: Map) -> Tensor:
        start, *ahead = _round_trip_error(first, second, torch.cat(starts, 2), shape).chunk(len(starts), 2)
        return _total([((error - start) / delta).square().mean() for error in ahead])

    return penalty(phi_AB, phi_BA) if orders == "one" else penalty(phi_AB, phi_BA) + penalty(phi_BA, phi_AB)


def _maps(displacement_AB: Displacement, displacement_BA: Displacement) -> tuple[Map, Map]:
    check_displacement(displacement_AB, "displacement_AB")
    check_displacement(displacement_BA, "displacement_BA")
    check_same_grid(displacement_AB, displacement_BA, ("displacement_AB", "displacement_BA"))
    first, second = at_least_float32(displacement_AB), at_least_float32(displacement_BA)
    return lambda points: points + sample(first, points), lambda points: points + sample(second, points)


def icon(displacement_AB: Displacement, displacement_BA: Displacement, *, points: Coordinates | None = None) -> Tensor:
    """`icon_of_maps` for displacements (B, dim, *space) in voxels; at the voxels, or at `points`."""
    maps, shape = _maps(displacement_AB, displacement_BA), spatial(displacement_AB)
    points = evaluation_points(shape, noise=0, like=displacement_AB) if points is None else points
    return icon_of_maps(*maps, points, shape)


def gradicon(
    displacement_AB: Displacement,
    displacement_BA: Displacement,
    *,
    points: Coordinates | None = None,
    delta: float = 1e-3,
    orders: Orders = "one",
) -> Tensor:
    """`gradicon_of_maps` for displacements (B, dim, *space) in voxels; at the voxels, or at `points`.

    At a voxel the step of `delta` stays in the cell ahead; delta=1/(N - 1) differences neighbouring voxels.
    """
    maps, shape = _maps(displacement_AB, displacement_BA), spatial(displacement_AB)
    points = evaluation_points(shape, noise=0, like=displacement_AB) if points is None else points
    return gradicon_of_maps(*maps, points, shape, delta=delta, orders=orders)
