"""How good is a registration: overlap, surfaces, landmarks; folds, consistency.

The only measures that know millimetres: `spacing` is the size of a voxel along each axis. Points are in voxels.
The pairs of a batch are measured one by one and averaged. Results are plain numbers and carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from regkit import types
from regkit._core.grid import determinant
from regkit._core.sampler import compose
from regkit.fields import jacobian_determinant, reads_inside, voxels_to_unit, warp_labels, warp_points
from regkit.types import Displacement, Image, InputError, Labels, Pair, Points, Registration, at_least_float32, spatial

__all__ = [
    "Folds",
    "JacobianStatistics",
    "LandmarkError",
    "SurfaceDistance",
    "assd",
    "cycle_consistency",
    "dice",
    "evaluate",
    "folds",
    "hd95",
    "inverse_consistency",
    "jacobian_statistics",
    "surface_distances",
    "tre",
]

Absent = Literal["skip", "zero"]
Spacing = float | tuple[float, ...]
Definition = Literal["central", "forward", "averaged", "flips"]
Norm = Literal["absolute", "squared", "distance", "unit_squared"]
Region = Literal["all", "inside"]
_DENSE_LABELS = 512  # so many label numbers in a row are counted without renumbering them
_CHUNK = 2**16  # voxels counted at a time: they stay in the cache
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # what torch can keep, and little else
_REACH = 3.5  # smallest sides of a voxel: surfaces as near as this are found by looking at each voxel around
_LOG_RANGE = (1e-9, 1e9)

# where a cell's edges are, in 2D and in 3D (see _determinant)
_PLACES = {"forward": (0.0, 0.0), "averaged": (0.5, 0.5), "flips": (0.0, 1.0)}

_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "absolute": torch.abs,
    "squared": torch.square,
    "distance": lambda error: error.norm(dim=1, keepdim=True),
    "unit_squared": lambda error: voxels_to_unit(error).square(),
}


# ---------------------------------------------------------------------------------------------- overlap and landmarks
@dataclass(frozen=True)
class SurfaceDistance:
    """Between two surfaces of one structure, mm: 95th percentile of the distances, and their average."""

    hd95: float
    assd: float


@dataclass(frozen=True)
class LandmarkError:
    """Of the distances of all landmarks, mm."""

    mean: float
    lower_quartile: float
    median: float
    upper_quartile: float


def dice(
    first: Labels, second: Labels, *, labels: Sequence[int] | None = None, absent: Absent = "skip"
) -> dict[int, float]:
    """Overlap of each structure: 2 |A ∩ B| / (|A| + |B|), from 0 to 1.

    first, second: (B, 1, *space), integers. labels: the structures to measure; by default all that occur, without 0.
    absent: a structure that occurs in neither is left out ("skip", SITReg) or counts as 0 ("zero", the programs of
    SACB-Net and SPnet). One that occurs in one of the two counts as 0 either way.

    Raises:
        TypeError, ValueError: float labels, different grids, no structure to measure.
    Source: Dice 1945; SPnet, evaluation (SACB-Net adds 1e-5 to the denominator).
    """
    items = []
    for one, other in _items(first, second):
        counts = torch.stack(_counts(one.flatten(), other.flatten()), 1).tolist()
        items.append({value: 2 * shared / total for value, shared, total in counts if total})
    return {label: float(value) for label, value in _average(items, labels, 0.0 if absent == "zero" else None).items()}


def surface_distances(
    first: Labels, second: Labels, *, spacing: Spacing, labels: Sequence[int] | None = None
) -> dict[int, SurfaceDistance]:
    """How far apart the surfaces of each structure are, in mm.

    S_A are the centres of A's voxels with a face towards another label or the image's border,
    d(a, S_B) = min_b |a - b|, and D_AB = {d(a, S_B): a in S_A}.
    hd95 = max(P95(D_AB), P95(D_BA)); assd = mean(D_AB ∪ D_BA).
    first, second, labels: as for `dice`. A structure that occurs in one of the two is infinitely far away; one that
    occurs in neither is left out.

    Raises:
        TypeError, ValueError: float labels, different grids, no structure to measure, non-positive spacing.
    Source: SACB-Net, Tables 1 and 2. The numbers are MONAI's; tools that weight by the surface's area differ a little.
    """
    sizes = np.asarray(types.check_spacing(spacing, first.dim() - 2))
    items = []
    for pair in _items(first, second):
        here, there = (_surfaces(x, background=0 in (labels or ())) for x in pair)
        wanted = {*here, *there} if labels is None else {*here, *there} & set(labels)
        items.append({label: _distances(here.get(label), there.get(label), sizes) for label in wanted})
    return {label: SurfaceDistance(*map(float, pair)) for label, pair in _average(items, labels, None).items()}


def hd95(first: Labels, second: Labels, *, spacing: Spacing, labels: Sequence[int] | None = None) -> dict[int, float]:
    """The 95th-percentile Hausdorff distance of each structure, mm: see `surface_distances`."""
    return {key: value.hd95 for key, value in surface_distances(first, second, spacing=spacing, labels=labels).items()}


def assd(first: Labels, second: Labels, *, spacing: Spacing, labels: Sequence[int] | None = None) -> dict[int, float]:
    """The average symmetric surface distance of each structure, mm: see `surface_distances`."""
    return {key: value.assd for key, value in surface_distances(first, second, spacing=spacing, labels=labels).items()}


def _items(first: Labels, second: Labels) -> Iterator[tuple[Tensor, Tensor]]:
    """The label maps (*space) of each pair."""
    types.check_same_grid(first, second, ("first", "second"))
    for pair in zip(*torch.broadcast_tensors(first, second), strict=True):
        signed = [x[0].long() if x.dtype in _UNSIGNED else x[0] for x in pair]
        if any(x.dtype == torch.uint64 and (y < 0).any() for x, y in zip(pair, signed, strict=True)):
            raise InputError("labels must be below 2**63", "larger ones", "number them anew")
        yield signed[0], signed[1]


def _average(items: Sequence[Mapping[int, Any]], labels: Sequence[int] | None, missing: Any) -> dict[int, Any]:
    """The mean over the pairs that have a structure, for every structure that is wanted."""
    result = {}
    for label in sorted(set().union(*items) - {0}) if labels is None else labels:
        values = [item.get(label, missing) for item in items]
        if present := [value for value in values if value is not None]:
            result[label] = np.mean(present, axis=0)
    if not result:
        wanted = "no label but background 0" if labels is None else f"none of {list(labels)}"
        raise InputError(
            "at least one structure to measure must occur in the labels",
            wanted,
            "check the numbers of the labels, and how they were read",
        )
    return result


def _counts(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Label numbers (n,), how many voxels have each in both at once, and how often it occurs in the two together.

    Few numbers are counted as a joint histogram (n, n), which reads each voxel once; many one by one, in n places.
    """
    low = min(int(first.min()), int(second.min()))
    high = max(int(first.max()), int(second.max()))
    if high - low < _DENSE_LABELS:
        joint = _joint_histogram(first, second, low, high - low + 1)
        return torch.arange(low, high + 1, device=first.device), joint.diagonal(), joint.sum(0) + joint.sum(1)
    together = torch.cat([first, second]).long()
    if high - low < len(together):
        values, places = torch.arange(low, high + 1, device=first.device), together - low
    else:
        values, places = together.unique(return_inverse=True)
    one, other = places.split(len(first))
    shared, total = (part.bincount(minlength=len(values)) for part in (one[one == other], places))
    return values, shared, total


def _joint_histogram(first: Tensor, second: Tensor, low: int, count: int) -> Tensor:
    """How many voxels have number low + i in `first` and low + j in `second`, (count, count)."""
    joint = torch.zeros(count**2, dtype=torch.long, device=first.device)
    size = max(_CHUNK, count**2)
    for one, other in zip(first.split(size), second.split(size), strict=True):
        rows, columns = ((x.long() - low).int() for x in (one, other))
        joint += torch.bincount(torch.add(columns, rows, alpha=count), minlength=count**2)
    return joint.view(count, count)


def _rim(labels: Tensor) -> Tensor:
    """Where a voxel of a map (*space) has a face towards another label or the image's border."""
    rim = torch.zeros_like(labels, dtype=torch.bool)
    for axis, size in enumerate(labels.shape):
        change = labels.narrow(axis, 1, size - 1) != labels.narrow(axis, 0, size - 1)
        rim.narrow(axis, 0, size - 1).logical_or_(change)
        rim.narrow(axis, 1, size - 1).logical_or_(change)
        rim.select(axis, 0).fill_(True)
        rim.select(axis, size - 1).fill_(True)
    return rim


def _surfaces(labels: Tensor, *, background: bool) -> dict[int, np.ndarray]:
    """The voxels (N, dim) of the surface of each structure in a map (*space), by label."""
    rim = _rim(labels) if background else _rim(labels).logical_and_(labels != 0)
    points = rim.nonzero()
    numbers, order = labels[points.unbind(1)].sort(stable=True)
    values, counts = numbers.unique_consecutive(return_counts=True)
    parts = np.split(points[order].cpu().numpy(), counts.cumsum(0)[:-1].tolist())
    return dict(zip(values.tolist(), parts, strict=False))  # nothing, split, is one empty part


def _distances(first: np.ndarray | None, second: np.ndarray | None, spacing: np.ndarray) -> tuple[float, float]:
    """95th percentile and mean of the distances between two surfaces, one of which may be missing."""
    if first is None or second is None:
        return float("inf"), float("inf")
    both = [_one_way(first, second, spacing), _one_way(second, first, spacing)]
    return max(np.percentile(distances, 95) for distances in both), np.concatenate(both).mean()


def _one_way(here: np.ndarray, there: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The distance of each voxel of one surface (N, dim) to the other surface (M, dim), mm, in any order.

    Steps away from a voxel are tried from short to long, so that the first to meet the other surface is the shortest.
    The few voxels that are farther away than all steps ask a tree.
    """
    steps, lengths = _steps(spacing)
    margin = steps.max(0)
    low = np.minimum(here.min(0), there.min(0)) - margin
    high = np.maximum(here.max(0), there.max(0)) + margin
    mask = np.zeros(high - low + 1, dtype=bool)  # the other surface, in the box around both
    mask.put((there - low) @ mask.strides, True)
    pending = (here - low) @ mask.strides
    found = []
    for step, length in zip(steps @ mask.strides, lengths, strict=True):
        met = mask.take(pending + step)
        found.append(np.full(np.count_nonzero(met), length))
        pending = pending[~met]
    if len(pending):
        tree = cKDTree(there * spacing, leafsize=32, balanced_tree=False, compact_nodes=False)  # quick to build
        places = np.stack(np.unravel_index(pending, mask.shape), 1) + low
        found.append(tree.query(places * spacing)[0])
    return np.concatenate(found)


def _steps(spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All steps (n, dim) to voxels within reach, shortest first, and their lengths (n,) in mm."""
    reach = _REACH * spacing.min()
    box = 2 * (reach // spacing).astype(int) + 1
    steps = np.indices(box).reshape(len(box), -1).T - box // 2
    lengths = np.linalg.norm(steps * spacing, axis=1)
    order = lengths.argsort()[: np.count_nonzero(lengths <= reach)]
    return steps[order], lengths[order]


def tre(displacement: Displacement, fixed_points: Points, moving_points: Points, *, spacing: Spacing) -> LandmarkError:
    """Target registration error: |s (p + u(p) - q)| of landmarks p in the fixed and q in the moving image, in mm.

    displacement: (B, dim, *space), voxels. fixed_points, moving_points: (B, N, dim), voxels. spacing s: mm per voxel.
    The displacement of nothing, torch.zeros_like(displacement), gives the error before registration.

    Raises:
        TypeError, ValueError: points of different shapes, none, or not finite; non-positive spacing.
    Source: GradICON, Table 2 (mean, and 25, 50 and 75 %).
    """
    field = checked(displacement, "displacement")
    sizes = types.check_spacing(spacing, field.shape[1])
    for name, points in (("fixed_points", fixed_points), ("moving_points", moving_points)):
        if points.shape != fixed_points.shape:
            shapes = f"{tuple(fixed_points.shape)} and {tuple(points.shape)}"
            raise InputError(
                "fixed_points and moving_points must have one shape", shapes, "list the same landmarks in both"
            )
        types.check_finite(points, name)
    carried = warp_points(fixed_points.to(field), field)
    distances = ((carried - moving_points.to(field)) * field.new_tensor(sizes)).norm(dim=-1).flatten()
    quartiles = distances.quantile(distances.new_tensor([0.25, 0.5, 0.75])).tolist()
    return LandmarkError(distances.mean().item(), *quartiles)


# ---------------------------------------------------------------------------------------------- folds
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


def _determinant(displacement: Displacement, definition: Definition) -> Tensor:
    """|J| by one of the papers' definitions (see `folds`): at every voxel, or in every cell between 2^dim voxels.

    A cell has several edges along an axis. Its place says which counts: the first (0), the last (1), all alike (1/2).
    """
    if definition == "central":
        return jacobian_determinant(displacement)
    if min(spatial(displacement)) < 2:
        raise InputError(
            "a cell needs two voxels along each axis",
            f"a displacement of shape {tuple(displacement.shape)}",
            'choose definition="central"',
        )
    place, columns = _PLACES[definition][displacement.dim() - 4], []
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
    types.check_same_grid(first, then, ("displacement", "inverse"))
    sizes = _NORMS[norm](compose(then, first))
    if region == "all":
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


# ---------------------------------------------------------------------------------------------- all of them
def evaluate(registration: Registration | Displacement, pair: Pair) -> dict[str, float]:
    """The usual numbers of one registration, by name; only those that can be taken.

    dice_before, dice: mean over all structures, where the pair has labels. folds_percent, jacobian_std_log: see
    `jacobian_statistics`. inverse_consistency: voxels, where the registration has an inverse.
    """
    found = registration if isinstance(registration, Registration) else Registration(registration)
    statistics = jacobian_statistics(found.displacement)
    types.check_same_grid(pair.fixed, found.displacement, ("fixed", "displacement"))
    result = {"folds_percent": statistics.folds_percent, "jacobian_std_log": statistics.std_log}
    if found.inverse is not None:
        result["inverse_consistency"] = inverse_consistency(found.displacement, found.inverse)
    if pair.moving_labels is not None and pair.fixed_labels is not None:
        warped = warp_labels(pair.moving_labels, found.displacement)
        before, after = dice(pair.moving_labels, pair.fixed_labels), dice(warped, pair.fixed_labels)
        result |= {"dice_before": fmean(before.values()), "dice": fmean(after.values())}
    return result


def checked(displacement: Displacement, name: str) -> Tensor:
    """A displacement that can be measured: of the right shape, finite, in float32 at least, without a gradient."""
    types.check_finite(displacement, name)
    return at_least_float32(displacement.detach())


types.guard(globals())
