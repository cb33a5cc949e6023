"""The affine stage for two scans: where the headers put them, then their centres of mass, then an affine map.

A result is `through`, (4, 4), mm to mm (RAS): the place p of the fixed scan is read at through(p) in the moving scan;
`resample(moving, fixed, through=through)` does it.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from regkit import losses
from regkit.fields import identity
from regkit.optimise import Similarity, optimise_affine
from regkit.scans import Affine, Grid, Scan, resample
from regkit.types import check_finite

_SIZES = (20, 40, 80)  # voxels along the longest axis, level by level
_LARGEST_CHANGE = 4.0  # of volume: a map that grows or shrinks more has lost its way
FOREGROUND = 0.1  # of the range of intensities


def align(
    moving: Scan, fixed: Scan, *, similarity: Similarity = losses.ncc, steps: int = 60, learning_rate: float = 0.2
) -> Affine:
    """The affine map that lays moving on fixed: `through` (4, 4), mm to mm (RAS).

    It starts from the headers or from the centres of mass, whichever is more similar, and goes on at three sizes, from
    20 to 80 voxels along the longest axis. moving, fixed: intensities in [0, 1]. steps: at each size. learning_rate: of
    Adam, in voxels of that size.

    Raises:
        ValueError: a volume and a slice; the best map has no overlap, or changes volume more than four times.
    """
    grids = [_coarse(fixed.grid, size) for size in _SIZES]
    through = _start(moving, fixed, grids[0], similarity)
    for grid in grids:
        there, here = resample(moving, grid, through=through), resample(fixed, grid)
        matrix = optimise_affine(
            there.tensor, here.tensor, similarity=similarity, steps=steps, learning_rate=learning_rate
        )
        through = through @ _in_millimetres(matrix[0], grid)
    change = abs(np.linalg.det(through[:3, :3]))
    if not 1 / _LARGEST_CHANGE < change < _LARGEST_CHANGE:
        raise ValueError(
            f"an affine registration must keep a volume's size within a factor of {_LARGEST_CHANGE:g}, received one of "
            f"{change:.3g}; are the two scans of one part of the body, and are their headers' spacings right?"
        )
    check_overlap(moving, fixed, through)
    return through


def check_overlap(moving: Scan, fixed: Scan, through: Affine | None = None) -> None:
    """Raise unless what is brighter than the background of one scan meets that of the other (intensities in [0, 1])."""
    grid = _coarse(fixed.grid, _SIZES[1])
    there, here = resample(moving, grid, through=through), resample(fixed, grid)
    if not ((there.tensor > FOREGROUND) & (here.tensor > FOREGROUND)).any():
        apart = float(np.linalg.norm(centre_of_mass(moving, through) - centre_of_mass(fixed)))
        raise ValueError(
            f"two scans must overlap to be registered, received scans whose centres are {apart:.0f} mm apart by their "
            f"headers; align them first (--affine, regkit.alignment.align), or repair the headers."
        )


def _coarse(grid: Grid, size: int) -> Grid:
    """Voxels of one size, so that the longest axis has `size` of them; no smaller than they are."""
    longest = max(count * step for count, step in zip(grid.space, grid.spacing, strict=True))
    spacing = [max(longest / size, step) for step in grid.spacing]
    return grid.with_space(
        [max(2, round(n * old / new)) for n, old, new in zip(grid.space, grid.spacing, spacing, strict=True)]
    )


def _start(moving: Scan, fixed: Scan, grid: Grid, similarity: Similarity) -> Affine:
    """The better of the headers' own alignment and that of the centres of mass."""
    shift = np.eye(4)
    shift[:3, 3] = centre_of_mass(moving) - centre_of_mass(fixed)
    here = resample(fixed, grid).tensor

    def loss(through: Affine) -> float:
        return float(similarity(resample(moving, grid, through=through).tensor, here))

    return min((np.eye(4), shift), key=loss)


def centre_of_mass(scan: Scan, through: Affine | None = None) -> np.ndarray:
    """The centre of mass of the intensities, mm (RAS), (3,); of a moving scan where `through` puts it."""
    weights = scan.tensor.double()
    check_finite(weights, "scan")
    place = np.zeros(3)
    centre = (identity(scan.grid.space) * weights).flatten(2).sum(2) / weights.sum().clamp(min=1e-12)
    place[list(scan.grid.axes)] = centre[0].numpy()
    there = scan.affine @ np.append(place, 1)
    return (there if through is None else np.linalg.solve(through, there))[:3]


def _in_millimetres(matrix: Tensor, grid: Grid) -> Affine:
    """A matrix (dim, dim + 1) about the centre of a grid, voxels, as a map of space (4, 4)."""
    dim, axes = len(grid.axes), list(grid.axes)
    linear, shift = matrix[:, :dim].double().numpy(), matrix[:, dim].double().numpy()
    centre = (np.array(grid.space) - 1) / 2
    whole = np.eye(4)
    whole[np.ix_(axes, axes)] = linear
    whole[axes, 3] = centre + shift - linear @ centre
    return grid.affine @ whole @ np.linalg.inv(grid.affine)
