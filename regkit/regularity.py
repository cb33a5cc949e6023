"""How regular a displacement is: where it folds, how evenly it changes volume, whether a way back undoes it.

All in voxels; metrics.py offers these beside the measures of anatomy. The items of a batch are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regkit.algebra import determinant
from regkit.fields import compose, jacobian_determinant, voxels_to_unit
from regkit.grids import reads_inside
from regkit.types import (
    Displacement,
    Image,
    Pair,
    Registration,
    at_least_float32,
    check_displacement,
    check_finite,
    check_same_grid,
    choose,
    spatial,
)

Definition = Literal["central", "forward", "averaged", "flips"]
Norm = Literal["absolute", "squared", "distance", "unit_squared"]
Region = Literal["all", "inside"]
_LOG_RANGE = (1e-9, 1e9)
# where a cell's edges are, in 2D and in 3D (see _determinant)
_PLACES: dict[str, tuple[float, ...]] = {
    "central": (),
    "forward": (0.0, 0.0),
    "averaged": (0.5, 0.5),
    "flips": (0.0, 1.0),
}
_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "absolute": torch.abs,
    "squared": torch.square,
    "distance": lambda error: error.norm(dim=1, keepdim=True),
    "unit_squared": lambda error: voxels_to_unit(error).square(),
}


@dataclass(frozen=True)
class Folds:
    """Where a map folds: the number of places per pair, and their percentage of all places."""

    count: float
    percent: float


@dataclass(frozen=True)
class JacobianStatistics:
    """Of |J|: standard deviations of |J| and of log |J|, least value, percentage of folds."""

    std: float
    std_log: float
    minimum: float
    folds_percent: float


def checked(displacement: Displacement, name: str) -> Tensor:
    """A displacement that can be measured: of the right shape, finite, in float32 at least, without a gradient."""
    check_displacement(displacement, name)
    check_finite(displacement, name)
    return at_least_float32(displacement.detach())


def _determinant(displacement: Displacement, definition: Definition) -> Tensor:
    """|J| by one of the papers' definitions (see `folds`): at every voxel, or in every cell between 2^dim voxels.

    A cell has several edges along an axis. Its place says which counts: the first (0), the last (1), all alike (1/2).
    """
    places = choose("definition", definition, _PLACES)
    if not places:
        return jacobian_determinant(displacement)
    if min(spatial(displacement)) < 2:
        raise ValueError(
            f"a cell needs two voxels along each axis, received a displacement of shape {tuple(displacement.shape)}; "
            f'choose definition="central".'
        )
    place, columns = places[displacement.dim() - 4], []
    for axis in range(2, displacement.dim()):
        steps = displacement.diff(dim=axis)
        for other in set(range(2, displacement.dim())) - {axis}:
            length = steps.shape[other] - 1
            steps = torch.lerp(steps.narrow(other, 0, length), steps.narrow(other, 1, length), place)
        steps[:, axis - 2] += 1
        columns.append(steps)
    return determinant(columns)


def _folded(determinants: Tensor, definition: Definition) -> Tensor:
    return determinants < 0 if definition == "flips" else determinants <= 0


def folds(displacement: Displacement, *, definition: Definition = "central") -> Folds:
    """Where the map φ(x) = x + u(x) folds, |J| = det(∂φ) <= 0: how often, and in percent.

    displacement: (B, dim, *space), voxels. definition: how the papers' programs take the differences.
    "central": at every voxel, one-sided at the borders (VoxelMorph, SACB-Net; SPnet does not say).
    "forward": in every cell, from its first voxel (SM-GICNet as it should be: its table leaves the identity out).
    "averaged": in every cell, the mean over its parallel edges (SITReg).
    "flips": |J| < 0 in every cell, from its first voxel in 2D, from its last in 3D (GradICON).

    Raises:
        TypeError, ValueError: not a finite displacement; a definition with cells where an axis has one voxel.
    """
    folded = _folded(_determinant(checked(displacement, "displacement"), definition), definition)
    return Folds(folded.sum().item() / len(folded), 100 * folded.double().mean().item())


def jacobian_statistics(displacement: Displacement, *, definition: Definition = "central") -> JacobianStatistics:
    """How evenly a map changes volume: std |J|, std log |J|, min |J|, percentage of folds.

    log |J| is taken of |J| clipped to [1e-9, 1e9]. displacement: (B, dim, *space), voxels. definition: see `folds`.
    Source: SITReg, Tables 1 and 2 (std |J|); SM-GICNet's and Learn2Reg's SDlogJ (whose program clips |J| + 3, which is
    not done here: compare its numbers with its own only).
    """
    values = _determinant(checked(displacement, "displacement"), definition).flatten(1)
    return JacobianStatistics(
        std=values.std(1, correction=0).mean().item(),
        std_log=values.clamp(*_LOG_RANGE).log().std(1, correction=0).mean().item(),
        minimum=values.min().item(),
        folds_percent=100 * _folded(values, definition).double().mean().item(),
    )


# ---------------------------------------------------------------------------------------------- consistency


def inverse_consistency(
    displacement: Displacement, inverse: Displacement, *, norm: Norm = "absolute", region: Region = "all"
) -> float:
    """What is left of a round trip: E(x) = u(x) + z(x + u(x)), zero where z undoes u.

    displacement u, inverse z: (B, dim, *space), voxels. One order of the two; swap them for the other.
    norm: "absolute" mean |E_i|, voxels (SPnet's ICE). "squared" mean E_i², voxels² (SITReg). "distance" mean |E|,
    voxels. "unit_squared" mean E_i² in fractions of the image's extent (ICON and GradICON add both orders).
    region: "inside" leaves out the x that u carries out of the image (SITReg's program knows both).

    Raises:
        TypeError, ValueError: not finite displacements on one grid.
    """
    first, then = checked(displacement, "displacement"), checked(inverse, "inverse")
    check_same_grid(first, then, ("displacement", "inverse"))
    sizes = choose("norm", norm, _NORMS)(compose(then, first))
    if not choose("region", region, {"all": False, "inside": True}):
        return sizes.mean().item()
    return sizes[reads_inside(first).expand_as(sizes)].mean().item()


def cycle_consistency(
    model: Callable[[Image, Image], Registration], pair: Pair, *, norm: Norm = "absolute", region: Region = "all"
) -> float:
    """What is left of going there and back by two registrations, one of each order: see `inverse_consistency`.

    u = model(moving, fixed), z = model(fixed, moving). Zero for a model that is symmetric and inverse consistent.
    Source: SITReg, Tables 1 and 2, "cycle".
    """
    with torch.no_grad():
        there, back = model(pair.moving, pair.fixed), model(pair.fixed, pair.moving)
    return inverse_consistency(there.displacement, back.displacement, norm=norm, region=region)
