"""Two scans in, all that a registration gives out: from places in space to voxels, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from regkit.alignment import align, check_overlap
from regkit.fields import jacobian_determinant, resize
from regkit.itk import Deformation, regrid
from regkit.measuring import Usage, measured
from regkit.methods import Method
from regkit.refine import inverse_of, refine_field
from regkit.scans import Affine, Grid, Scan, normalise, resample
from regkit.types import Registration

_COARSER = (1.25, 1.6, 2.0, 2.5, 3.2, 4.0)  # what is tried where the memory does not suffice
_LABEL_COUNT = 64  # an image of whole numbers with more different ones is none of labels


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
) -> ScanRegistration:
    """Register two scans: affine stage, the method, refinement of its field; the whole map both ways.

    affine: find an affine map first, also across large distances. refine: steps of `refine_field`, 0 for none. spacing:
    of the voxels that all works on, mm; by default the fixed scan's own, and those that a network was trained on for
    the network alone. device: where the method computes.

    Raises:
        ValueError: a volume and a slice; labels and an image; constant images; no overlap.
        MemoryError: the images are too large; says which spacing fits.
    """
    check_kinds(moving, fixed)
    unit_moving, unit_fixed = _unit("moving", moving), _unit("fixed", fixed)
    through = align(unit_moving, unit_fixed) if affine else np.eye(4)
    check_overlap(unit_moving, unit_fixed, through)
    grid = fixed.grid if spacing is None else fixed.grid.with_spacing(spacing)
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
    except ValueError as error:
        raise ValueError(f"the {name} scan: {error}") from error


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
        if not _is_memory(error):
            raise
        raise MemoryError(
            f"a registration must fit into memory, received {method.name} on {here.grid.space} voxels of "
            f"{_listed(here.spacing)} mm; {_advice(method, near, here, device)}"
        ) from error
    return Registration(found.displacement.cpu(), None if found.inverse is None else found.inverse.cpu())


def _is_memory(error: Exception) -> bool:
    words = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in words or "allocate memory" in words


def _advice(method: Method, near: Scan, here: Scan, device: str) -> str:
    """The first coarser spacing that fits, by trying."""
    for factor in _COARSER:
        grid: Grid = here.grid.with_space([max(2, round(size / factor)) for size in here.grid.space])
        try:
            method(*(resize(scan.tensor, grid.space).to(device) for scan in (near, here)))
        except (MemoryError, RuntimeError):
            continue
        return f"{grid.space} fits (tried): give --spacing {max(grid.spacing):.2g}."
    return "a quarter of the size does not fit either: free memory, or take another method."


def _listed(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.3g}" for number in numbers)


def check_kinds(moving: Scan, fixed: Scan) -> None:
    """Raise where one of two scans looks like labels, whole numbers of which there are few, and the other does not."""
    if looks_like_labels(moving) != looks_like_labels(fixed):
        name = "moving" if looks_like_labels(moving) else "fixed"
        raise ValueError(
            f"two images of one kind are registered, received {name} that holds labels (whole numbers, at most "
            f"{_LABEL_COUNT} different ones) and an image; give the scan that the labels were drawn on, and the labels "
            f"with --labels."
        )


def looks_like_labels(scan: Scan) -> bool:
    """Whether all values are whole numbers, and few different ones."""
    values = scan.tensor
    return bool((values == values.round()).all()) and 1 < len(torch.unique(values)) <= _LABEL_COUNT
