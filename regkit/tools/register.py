"""Two scans in, all that a registration gives out: from places in space to voxels, and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from regkit import losses
from regkit.fields import identity, jacobian_determinant, resize
from regkit.images import Affine, Grid, Scan, TooLargeError, normalise, resample, voxel_map
from regkit.images.itk import Deformation, regrid
from regkit.optimise import Similarity, inverse_of, optimise_affine, refine_field
from regkit.tools.methods import Method, Usage, measured
from regkit.types import InputError, Registration, check_finite, check_memory, guard, is_memory

_SIZES = (20, 40, 80)  # voxels along the longest axis, level by level
_LARGEST_CHANGE = 4.0  # of volume: a map that grows or shrinks more has lost its way
FOREGROUND = 0.1  # of the range of intensities
_NEAR = 0.05  # of the size: foregrounds that close count as overlapping
_COARSER = (1.25, 1.6, 2.0, 2.5, 3.2, 4.0)  # what is tried where the memory does not suffice
_NOISY, _SMOOTH = 0.5, 0.12  # of neighbours that differ; of the count of values by which they differ: an image's
_IMAGES, _FIELDS = 2, 3  # of float32 that are there at once, whatever the method
_LABEL_COUNT = 64  # an image of whole numbers with more different ones is none of labels

# ---------------------------------------------------------------------------------------------- the affine stage


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
        raise InputError(
            f"an affine registration must keep a volume's size within a factor of {_LARGEST_CHANGE:g}",
            f"one of {change:.3g}",
            "check that the two scans are of one part of the body, and that their headers' spacings are right",
        )
    check_overlap(moving, fixed, through)
    return through


def check_overlap(moving: Scan, fixed: Scan, through: Affine | None = None) -> None:
    """Raise unless the boxes around what is brighter than the background meet, a twentieth aside; scans in [0, 1].

    Boxes, because thin structures need not meet where they lie side by side.
    """
    grid = _coarse(fixed.grid, _SIZES[1])
    there, here = resample(moving, grid, through=through), resample(fixed, grid)
    moved, still = _box(there), _box(here)
    near = np.array(grid.space) * _NEAR
    if moved is None or still is None or (np.maximum(moved[0], still[0]) - np.minimum(moved[1], still[1]) > near).any():
        apart = float(np.linalg.norm(centre_of_mass(moving, through) - centre_of_mass(fixed)))
        raise InputError(
            "two scans must overlap to be registered",
            f"scans whose centres are {apart:.0f} mm apart by their headers",
            "align them first (--affine, regkit.tools.register.align), or repair the headers",
        )


def _box(scan: Scan) -> np.ndarray | None:
    """The first and the last voxel of the foreground, (2, dim); None without any."""
    places = (scan.tensor[0, 0] > FOREGROUND).nonzero().numpy()
    return np.array([places.min(0), places.max(0)]) if len(places) else None


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


# ---------------------------------------------------------------------------------------------- two scans


@dataclass(frozen=True, eq=False)
class ScanRegistration:
    """What was found for two scans.

    moving, fixed: as they came. through: of the affine stage, (4, 4), mm to mm (RAS); the identity without.
    near: moving after the affine stage; here: fixed, both in [0, 1] on the grid of the registration. found: on that
    grid, with the inverse. there: the whole map on fixed's own grid (warps moving onto fixed); back: on moving's.
    usage: of method and refinement.
    """

    moving: Scan
    fixed: Scan
    through: Affine
    near: Scan
    here: Scan
    found: Registration
    there: Deformation
    back: Deformation
    usage: Usage

    def warp(self, scan: Scan, *, affine_only: bool = False) -> Scan:
        """An image or labels in the space of the moving scan, on the fixed scan's own grid; interpolated once.

        Raises:
            ValueError: a volume and a slice.
        """
        if affine_only:
            return resample(scan, self.fixed.original, through=self.through)
        return resample(scan, self.there.grid, displacement=self.there.displacement)

    def jacobian(self) -> Scan:
        """|J| of the whole map on the fixed scan's own grid; at or below 0 it folds."""
        return Scan(jacobian_determinant(self.there.displacement), self.there.grid, self.there.grid)


def register_scans(
    moving: Scan,
    fixed: Scan,
    method: Method,
    *,
    affine: bool = False,
    refine: int = 0,
    spacing: float | None = None,
    device: str = "cpu",
    progress: bool = True,
    kind: Literal["image", "labels"] | None = None,
) -> ScanRegistration:
    """Register two scans: affine stage, the method, refinement of its field; the whole map both ways.

    affine: find an affine map first, also across large distances. refine: steps of `refine_field`, 0 for none. spacing:
    of the voxels that all works on, mm; by default the fixed scan's own, and those that a network was trained on for
    the network alone. device: where the method computes.
    kind: of both scans, which are then taken as such; by default it is looked at whether one holds labels.

    Raises:
        ValueError: a volume and a slice; labels and an image; constant images; no overlap.
        MemoryError: the images are too large; says which spacing fits.
    """
    if kind is None:
        check_kinds(moving, fixed)
    unit_moving, unit_fixed = _unit("moving", moving), _unit("fixed", fixed)
    through = align(unit_moving, unit_fixed) if affine else np.eye(4)
    check_overlap(unit_moving, unit_fixed, through)
    grid = fixed.grid if spacing is None else fixed.grid.with_spacing(spacing)
    wanted = math.prod(grid.space) * 4 * (_IMAGES + _FIELDS * len(grid.space))
    check_memory(wanted, "a registration must fit into memory", _size(grid), "give a coarser --spacing")
    here = resample(unit_fixed, grid)
    near = resample(unit_moving, here, through=through)
    with measured(device) as usage:
        if spacing is None and method.spacing is not None:
            seen = resample(unit_fixed, fixed.grid.with_spacing(method.spacing))
            found = _carried(_run(method, resample(unit_moving, seen, through=through), seen, device), seen.grid, grid)
        else:
            found = _run(method, near, here, device)
        if refine:
            found = refine_field(near.tensor, here.tensor, found, steps=refine, progress=progress)
        found = replace(found, inverse=inverse_of(found))
    there = regrid(Deformation(found.displacement, grid), fixed.original, after=through)
    back = regrid(Deformation(inverse_of(found), grid), moving.original, before=np.linalg.inv(through))
    return ScanRegistration(moving, fixed, through, near, here, found, there, back, usage)


def _unit(name: str, scan: Scan) -> Scan:
    """A scan with intensities in [0, 1]; an error says which of the two it was."""
    try:
        return normalise(scan)
    except InputError as error:
        raise InputError(f"the {name} scan: {error.rule}", error.received, error.remedy) from error


def _carried(found: Registration, start: Grid, end: Grid) -> Registration:
    """A registration, displacement and inverse, on another grid."""
    there, back = (regrid(Deformation(each, start), end) for each in (found.displacement, inverse_of(found)))
    return Registration(there.displacement, back.displacement)


def _run(method: Method, near: Scan, here: Scan, device: str) -> Registration:
    """The method's registration, on the CPU."""
    method.to(device)
    try:
        found = method(near.tensor.to(device), here.tensor.to(device))
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
        raise TooLargeError(
            "a registration must fit into memory",
            f"{method.name} on {_size(here.grid)}",
            _advice(method, near, here, device),
        ) from error
    return Registration(found.displacement.cpu(), None if found.inverse is None else found.inverse.cpu())


def _advice(method: Method, near: Scan, here: Scan, device: str) -> str:
    """The first coarser spacing that fits, by trying."""
    for factor in _COARSER:
        grid: Grid = here.grid.with_space([max(2, round(size / factor)) for size in here.grid.space])
        try:
            method(*(resize(scan.tensor, grid.space).to(device) for scan in (near, here)))
        except (MemoryError, RuntimeError):
            continue
        return f"{grid.space} fits (tried): give --spacing {max(grid.spacing):.2g}"
    return "a quarter of the size does not fit either: free memory, or take another method"


def _size(grid: Grid) -> str:
    return f"{grid.space} voxels of {' x '.join(f'{size:.3g}' for size in grid.spacing)} mm"


# ---------------------------------------------------------------------------------------------- what is refused


def check_kinds(moving: Scan, fixed: Scan) -> None:
    """Raise where one of two scans looks like labels, whole numbers of which there are few, and the other does not."""
    if looks_like_labels(moving) != looks_like_labels(fixed):
        name = "moving" if looks_like_labels(moving) else "fixed"
        raise InputError(
            "two images of one kind are registered",
            f"{name} that holds labels (whole numbers, at most {_LABEL_COUNT} different ones) and an image",
            "give the scan that the labels were drawn on, and the labels with --labels; or --as image, if it is one",
        )


def looks_like_labels(scan: Scan) -> bool:
    """Whether all values are whole numbers, few different ones, and neighbours equal or of any two numbers.

    An image of few grey levels is noisy, so that neighbours differ, or smooth, so that they differ little.
    """
    values, ranks = torch.unique(scan.tensor, return_inverse=True)
    if not 1 < len(values) <= _LABEL_COUNT or not bool((values == values.round()).all()):
        return False
    pairs = [(ranks.narrow(axis, 1, size - 1), ranks.narrow(axis, 0, size - 1)) for axis, size in _axes(ranks)]
    steps = torch.cat([(one - other).abs()[(one > 0) & (other > 0)] for one, other in pairs]).double()
    different = steps[steps > 0]
    if not len(different):
        return True
    return len(different) < _NOISY * len(steps) and float(different.mean()) > _SMOOTH * len(values)


def _axes(values: Tensor) -> list[tuple[int, int]]:
    """The spatial axes and their sizes."""
    return list(enumerate(values.shape))[2:]


def check_label_grids(labels: Sequence[Scan], scans: Sequence[Scan]) -> None:
    """Raise unless the labels of moving and fixed belong to their scans by their headers; note where these differ.

    Labels of another size may lie on other voxels, and are read at their own places. Of the same size, those that lie
    elsewhere by more than a voxel have lost their header, or belong to another scan.
    """
    crossed = [label.grid.lies_on(scan.grid) for label, scan in zip(labels, reversed(scans), strict=False)]
    if len(crossed) == 2 and all(crossed) and not scans[0].grid.lies_on(scans[1].grid):
        rule, remedy = "labels must be on the grid of their scan", "give the two files in the order moving, fixed"
        raise InputError(rule, "each on the other's", remedy)
    for label, scan, name in zip(labels, scans, ("moving", "fixed"), strict=False):
        check_labels(label, scan, f"the {name} labels")


def check_labels(label: Scan, scan: Scan, name: str) -> None:
    """As `check_label_grids`, of one scan; name: of the labels, for the message."""
    if label.original.shape == scan.original.shape:
        millimetres, degrees = label.original.apart(scan.original)
    else:
        millimetres, degrees = label.grid.apart(scan.grid)
    apart = f"up to {millimetres:.3g} mm and {degrees:.3g} degrees apart by their headers"
    voxel, share = max(scan.spacing), _share_inside(label, scan.grid)
    elsewhere = label.grid.space == scan.grid.space and label.grid.apart(scan.grid)[0] > voxel
    if elsewhere or share < 0.5:
        found = f"{name} of {label.grid.space} and their scan of {scan.grid.space}, {apart}"
        remedy = (
            "if they were drawn on this scan, give them its header; else resample them onto its grid (regkit apply); "
            "give the two files in the order moving, fixed"
        )
        raise InputError("labels must be on the grid of their scan", f"{found}; {100 * share:.0f} % within it", remedy)
    if not label.grid.lies_on(scan.grid) or (
        label.original.shape == scan.original.shape and not label.original.lies_on(scan.original)
    ):
        warnings.warn(
            f"{name} and their scan are {apart} ({label.original.codes} and {scan.original.codes}); the labels are "
            f"read at their own places, by the nearest voxel.",
            stacklevel=3,
        )


def _share_inside(label: Scan, grid: Grid) -> float:
    """How much of the labels, background aside, lies within a grid."""
    places = label.tensor[0, 0].nonzero().double().numpy()
    if not len(places):
        return 1.0
    matrix = voxel_map(label.grid, grid)
    there = places @ matrix[:, :-1].T + matrix[:, -1]
    return float(((there >= -0.5) & (there <= np.array(grid.space) - 0.5)).all(1).mean())


guard(globals())
