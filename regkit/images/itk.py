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
from regkit.images import Affine, Grid, move_points, open_nifti, voxel_map, write_nifti
from regkit.types import Displacement, InputError, at_least_float32, guard, spatial

_LPS = np.array([-1.0, -1.0, 1.0])  # of RAS
_PRECISION = 1 / 4096  # voxels
_UPRIGHT = 1e-6  # of an axis: what is left of it in the axial plane
_DISPLACEMENT_INTENT = 1006  # NIfTI's; its components are RAS


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


def write_displacement(path: Path | str, deformation: Deformation, to: Grid | None = None) -> None:
    """Write a displacement field for ITK and ANTs, .nii or .nii.gz, in one move; it fits the files as ITK sees them.

    to: the grid of the file that is read through it, where it is not that of the deformation. Rounded to a 4096th of a
    voxel or finer. Two files of two axes get a field in two dimensions; a slice with a third axis, which ITK sees in
    three, one of two equal slices, as ITK drops the axis of one.

    Raises:
        ValueError: another ending, a sheared grid. OSError: it cannot be written; an older file stays.
    """
    check_grid(deformation.grid)
    vectors = itk_vectors(deformation, to or deformation.grid)
    *shape, components = vectors.shape
    vectors = vectors.reshape(*shape, *[1] * (4 - len(shape)), components)
    write_nifti(path, vectors, deformation.grid, intent="vector")


def itk_vectors(deformation: Deformation, to: Grid, after: Affine | None = None) -> np.ndarray:
    """What `write_displacement` writes, mm to the left, to the back and up: (i, j, k, 3) or (i, j, 2), float32.

    after: (4, 4), a map of ITK's mm (RAS) that comes after it; nothing by default.
    """
    grid = deformation.grid
    start, end = itk_places(grid, to)
    components = 2 if is_plane(grid) and is_plane(to) else 3
    matrix = end @ _whole_voxel_map(grid, to)
    if np.allclose(matrix, start, rtol=0, atol=1e-9):
        matrix = start
    if after is not None:
        matrix = after @ matrix
    field = deformation.displacement[0].detach().cpu().float().numpy()
    step = 2.0 ** np.floor(np.log2(min(grid.spacing) * _PRECISION))
    vectors = np.tensordot((_LPS[:, None] * matrix[:3, grid.axes] / step).astype(np.float32), field, 1)
    change = _LPS[:, None] * (matrix - start)[:3] / step
    if (np.abs(change) @ [*grid.shape, 1, 1][:4] > 0.5).any():
        vectors = vectors + np.tensordot(change[:, [*grid.axes, 3]], _with_ones(grid.space), 1)
    vectors = np.rint(vectors, out=vectors).astype(np.float32, copy=False)  # gzip packs whole steps
    vectors *= np.float32(step)
    vectors = np.moveaxis(vectors, 0, -1)
    if components == 2:
        return vectors[..., :2]
    vectors = vectors.reshape(*grid.shape, *[1] * (3 - len(grid.shape)), 3)
    return vectors.repeat(2, axis=2) if vectors.shape[2] == 1 else vectors


def _with_ones(space: tuple[int, ...]) -> np.ndarray:
    """The voxels of a grid, and a 1 after each: (dim + 1, *space), float64."""
    return np.concatenate([np.indices(space, dtype=np.float64), np.ones((1, *space))])


def _whole_voxel_map(start: Grid, end: Grid, through: Affine | None = None) -> Affine:
    """As `voxel_map`, with three axes: (4, 4); across slices one voxel is one voxel."""
    whole = np.diag([0.0, 0, 0, 1])
    whole[np.ix_(end.axes, [*start.axes, 3])] = voxel_map(start, end, through)
    for first, last in zip({0, 1, 2} - {*start.axes}, {0, 1, 2} - {*end.axes}, strict=True):
        whole[last, first] = 1
    return whole


def itk_map(start: Grid, end: Grid, through: Affine | None = None) -> Affine:
    """A map of regkit's mm from one file to another as a map of ITK's mm, (4, 4), RAS; by default nothing moves."""
    places = itk_places(start, end)
    return places[1] @ _whole_voxel_map(start, end, through) @ np.linalg.inv(places[0])


def itk_places(*grids: Grid) -> list[Affine]:
    """Voxel to mm (RAS) of files that go together, (4, 4) each, as ITK sees them: in a plane if all have two axes."""
    return [_itk_place(grid, plane=all(map(is_plane, grids))) for grid in grids]


def _itk_place(grid: Grid, *, plane: bool) -> Affine:
    affine = grid.affine if grid.itk is None else grid.itk
    if not plane:
        return affine
    flat, block = np.eye(4), affine[:2, :2]
    flat[:2, :2] = block / np.linalg.norm(block, axis=0) * np.linalg.norm(affine[:3, :2], axis=0)
    flat[:2, 3] = affine[:2, 3]
    return flat


def is_plane(grid: Grid) -> bool:
    """Whether ITK sees a file in two dimensions: it has two axes, and neither stands upright."""
    affine = grid.affine if grid.itk is None else grid.itk
    upright = np.linalg.norm(affine[:2, :2], axis=0) < _UPRIGHT * np.linalg.norm(affine[:3, :2], axis=0)
    return len(grid.shape) == 2 and not upright.any()


def check_grid(grid: Grid) -> None:
    """Raise unless a grid's axes are at right angles, as ITK needs them."""
    affine = _itk_place(grid, plane=False)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise InputError(
            "ITK reads grids with axes at right angles",
            f"the affine {affine}",
            "resample the scan, or regrid the field, to such a grid",
        )


def read_displacement(path: Path | str, *, slab: bool = False) -> Deformation:
    """The displacement field in a file of ITK, ANTs or regkit, axes in canonical order, in voxels, where ITK sees it.

    Two equal slices are one, unless they are to stay a slab.

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a field is ITK's; what the header may mean else does not matter
        grid = images.file_grid(path, image, image.shape[:components])
    vectors = images.read_values(path, image, np.float64)[:, :, :, 0]
    if not np.isfinite(vectors).all():
        raise InputError("a displacement must be finite", f"{path} with NaN", "make it again")
    if not slab and vectors.shape[2] == 2 and (vectors[:, :, 0] == vectors[:, :, 1]).all():
        vectors, grid = vectors[:, :, :1], Grid((*grid.shape[:2], 1), grid.affine, grid.itk)
    signs = np.ones(3) if int(image.header["intent_code"]) == _DISPLACEMENT_INTENT else _LPS
    (place,) = itk_places(grid)
    orientation = io_orientation(place)
    turned = apply_orientation(vectors, orientation)
    turn = inv_ornt_aff(orientation, vectors.shape[:3])
    shape = turned.shape[: len(grid.shape)]
    canonical = Grid(shape, grid.affine @ turn, None if place is grid.affine else place @ turn)
    whole = np.zeros((*turned.shape[:3], 3))
    whole[..., :components] = turned * signs[:components]
    voxels = np.tensordot(np.linalg.inv((place @ turn)[:3, :3])[list(canonical.axes)], whole, (1, -1))
    field = torch.from_numpy(voxels.astype(np.float32))
    return Deformation(field.reshape(1, len(canonical.axes), *canonical.space), canonical)


def seen_by_itk(deformation: Deformation) -> Deformation:
    """The same on the grid where ITK sees its file."""
    grid = deformation.grid
    return Deformation(deformation.displacement, Grid(grid.shape, *itk_places(grid)))


guard(globals())
