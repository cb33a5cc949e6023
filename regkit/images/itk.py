"""Displacement fields as ITK and ANTs read them, and maps between two scans.

A file holds d at the voxels of a grid, so that p + d(p) is the place in mm that the image is read from: NIfTI of five
axes, vector intent, components to the left, to the back and up (LPS). antsApplyTransforms takes the file as `-t`,
SimpleITK as `DisplacementFieldTransform(ReadImage(path, sitkVectorFloat64))`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from regkit import images
from regkit.fields import identity, sample
from regkit.images import Affine, Grid, header_affine, move_points, open_nifti, voxel_map, write_nifti
from regkit.types import Displacement, InputError, at_least_float32, guard, spatial

_LPS = np.array([-1.0, -1.0, 1.0])  # of RAS
_PRECISION = 1 / 4096  # voxels
_DISPLACEMENT_INTENT, _VECTOR_INTENT = 1006, 1007  # NIfTI's; components of the first are RAS


@dataclass(frozen=True, eq=False)
class Deformation:
    """A displacement and the grid that it is on: φ takes the place of voxel x to that of x + u(x).

    displacement u: (1, dim, *grid.space), voxels of the grid.

    Raises:
        TypeError, ValueError: no displacement, or on another grid.
    """

    displacement: Displacement
    grid: Grid

    def __post_init__(self) -> None:
        if spatial(self.displacement) != self.grid.space or len(self.displacement) != 1:
            raise InputError(
                "a deformation is one displacement on its grid",
                f"{tuple(self.displacement.shape)} on {self.grid.space}",
                "give one item of a batch, and the grid of the fixed scan",
            )


def regrid(
    deformation: Deformation, to: Grid, *, before: Affine | None = None, after: Affine | None = None
) -> Deformation:
    """The map after ∘ φ ∘ before on another grid.

    before, after: (4, 4), mm to mm (RAS); nothing by default. Beyond φ's grid its outermost displacement goes on. With
    an affine map `through` and then φ, moving is read at through(φ(p)): that is after=through for the way from fixed to
    moving, and before=through⁻¹ with the inverse of φ for the way back.

    Raises:
        ValueError: a volume and a slice.
    """
    grid, field = deformation.grid, at_least_float32(deformation.displacement)
    start = identity(to.space, like=field)
    places = move_points(start, voxel_map(to, grid, before))
    places += sample(field, places)
    return Deformation(move_points(places, voxel_map(grid, to, after)).sub_(start), to)


def write_displacement(path: Path | str, deformation: Deformation) -> None:
    """Write a displacement field for ITK and ANTs, .nii or .nii.gz, in one move.

    Rounded to a 4096th of a voxel or finer. One slice is written as a field in two dimensions, as ITK would read it.

    Raises:
        ValueError: another ending, a sheared grid. OSError: it cannot be written; an older file stays.
    """
    grid = deformation.grid
    check_grid(grid)
    if grid.shape[2:] in ((), (1,)) and not _is_plane(grid):
        warnings.warn(
            f"{Path(path).name}: ITK takes one slice for a plane and cannot read this one ({grid.codes}, not straight "
            f"axial), nor a field of it; regkit can. For ITK, give volumes, or each slice as straight axial.",
            stacklevel=2,
        )
    field = deformation.displacement[0].detach().cpu().float().numpy()
    step = 2.0 ** np.floor(np.log2(min(grid.spacing) * _PRECISION))
    matrix = (_LPS[:, None] * grid.affine[:3, grid.axes] / step).astype(np.float32)
    vectors = np.moveaxis(np.rint(np.tensordot(matrix, field, 1)), 0, -1) * np.float32(step)  # gzip packs whole steps
    components = 2 if _is_plane(grid) else 3
    shape = (*grid.shape, *[1] * (4 - len(grid.shape)), components)
    write_nifti(path, vectors[..., :components].reshape(shape), grid, intent="vector")


def check_grid(grid: Grid) -> None:
    """Raise unless a grid's axes are at right angles, as ITK needs them."""
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise InputError(
            "ITK reads grids with axes at right angles",
            f"the affine {grid.affine}",
            "resample the scan, or regrid the field, to such a grid",
        )


def _is_plane(grid: Grid) -> bool:
    """Whether ITK takes the grid for one of two dimensions: one slice along the third axis, and it is not tilted."""
    return grid.shape[2:] in ((), (1,)) and np.allclose(grid.affine[2, :2], 0, atol=1e-6)


def read_displacement(path: Path | str) -> Deformation:
    """The displacement field in a file of ITK, ANTs or regkit, axes in canonical order, in voxels.

    Raises:
        FileNotFoundError, ValueError: no such file; damaged, or no displacement field.
    """
    path = Path(path)
    image = open_nifti(path)
    components = image.shape[4] if len(image.shape) == 5 else 0
    if components not in (2, 3) or image.shape[3] != 1 or (components == 2 and image.shape[2] != 1):
        raise InputError(
            "a displacement field has the shape (i, j, k, 1, 3), or (i, j, 1, 1, 2) in a plane",
            f"{path} of shape {image.shape}",
            "read images with read_image",
        )
    affine = header_affine(image, path)
    grid = images.file_grid(path, image.shape[:components], affine)
    vectors = images.read_values(path, image, np.float64)[:, :, :, 0]
    if not np.isfinite(vectors).all():
        raise InputError("a displacement must be finite", f"{path} with NaN", "make it again")
    signs = np.ones(3) if int(image.header["intent_code"]) == _DISPLACEMENT_INTENT else _LPS
    orientation = io_orientation(affine)
    turned = apply_orientation(vectors, orientation)
    canonical = Grid(turned.shape[:3], grid.affine @ inv_ornt_aff(orientation, vectors.shape[:3]))
    whole = np.zeros((*turned.shape[:3], 3))
    whole[..., :components] = turned * signs[:components]
    voxels = np.tensordot(np.linalg.inv(canonical.affine[:3, :3])[list(canonical.axes)], whole, (1, -1))
    field = torch.from_numpy(voxels.astype(np.float32))
    return Deformation(field.reshape(1, len(canonical.axes), *canonical.space), canonical)


guard(globals())
