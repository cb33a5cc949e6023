"""Maps of space in files: affine maps, displacement fields and chains of them, as ITK, ANTs and regkit write them.

A map takes a place in mm (RAS) to another; an image is warped by reading it at the map of each place of the new grid.
Chain(a, b)(p) = a(b(p)): what is warped by the chain is warped by a first, then by b. That is the order of ITK's
CompositeTransform and of antsApplyTransforms' -t. As in ITK, a displacement field leaves places outside its grid alone.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from regkit._core.files import write_atomically
from regkit._core.sampler import Interpolation, sample
from regkit.fields import identity
from regkit.images import Affine, Grid, Scan
from regkit.images.itk import Deformation, is_plane, itk_map, itk_places, itk_vectors, read_displacement, seen_by_itk
from regkit.types import InputError, MissingFileError, guard, needing

Points = np.ndarray  # (n, 3), float64, mm, RAS

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS, and back
_TRANSFORM_FILES = (".mat", ".txt", ".tfm", ".xfm", ".h5", ".hdf5")
_IMAGE_FILES = (".mha", ".mhd", ".nrrd", ".nhdr")
_FIELD, _INVERSE_FIELD = "displacement.nii.gz", "inverse_displacement.nii.gz"  # of a folder of `register`
_PLAIN_STEPS, _NEWTON_STEPS, _DIFFERENCE = 15, 15, 0.05  # of an inversion; mm
_TOLERANCE = 1e-4  # mm


@runtime_checkable
class Map(Protocol):
    """A map of space: takes places (n, 3) to places (n, 3), mm, RAS; `inverse` is its inverse."""

    def __call__(self, points: Points) -> Points: ...

    def inverse(self) -> Map: ...


@dataclass(frozen=True, eq=False)
class AffineMap:
    """p to A p + b. matrix: (4, 4), mm to mm, RAS."""

    matrix: Affine

    def __call__(self, points: Points) -> Points:
        return points @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def inverse(self) -> AffineMap:
        return AffineMap(np.linalg.inv(self.matrix))


@dataclass(frozen=True, eq=False)
class FieldMap:
    """p to p + d(p); d is linear between voxels, constant for half a voxel beyond its grid, then 0, as in ITK."""

    deformation: Deformation

    def __call__(self, points: Points) -> Points:
        grid, places = self.deformation.grid, voxels(points, self.deformation.grid)
        displacement = _read(self._field, places)[0].flatten(1).numpy()
        displacement = displacement * inside(places, grid)
        return points + displacement.T @ grid.affine[:3, grid.axes].T

    def inverse(self) -> Inverse:
        return Inverse(self)

    @functools.cached_property
    def _field(self) -> torch.Tensor:
        return self.deformation.displacement.double()


@dataclass(frozen=True, eq=False)
class Chain:
    """a(b(...(p))) of the maps a, b, ...: what is warped goes through a first."""

    maps: Sequence[Map]

    def __call__(self, points: Points) -> Points:
        for each in reversed(self.maps):
            points = each(points)
        return points

    def inverse(self) -> Chain:
        return Chain([each.inverse() for each in reversed(self.maps)])


class Inverse:
    """The inverse of a displacement field's map F: at q the p with F(p) = q, to 1e-4 mm, read as F is.

    p <- p - A⁻¹ (F(p) - q) with the affine map A closest to F, then Newton's steps with differences of F for the places
    that are left. Where F folds, or at the border of its grid, there may be no such p: a warning counts these places.
    """

    def __init__(self, forward: FieldMap) -> None:
        self.forward = forward
        grid = forward.deformation.grid
        voxels_of_grid = identity(grid.space)[0].flatten(1).double().numpy()
        places = (grid.affine[:3, grid.axes] @ voxels_of_grid).T + grid.affine[:3, 3]
        places = places[:: max(1, len(places) // 20_000)]
        self.closest = _closest_affine(places, forward(places), len(grid.axes))

    def __call__(self, points: Points) -> Points:
        result = AffineMap(np.linalg.inv(self.closest))(points)
        linear = np.linalg.inv(self.closest[:3, :3])
        active = np.arange(len(points))
        for step in range(_PLAIN_STEPS + _NEWTON_STEPS):
            error = self.forward(result[active]) - points[active]
            unsolved = np.abs(error).max(1, initial=0) > _TOLERANCE
            active, error = active[unsolved], error[unsolved]
            if not len(active):
                return result
            change = error @ linear.T if step < _PLAIN_STEPS else self._newton(result[active], error)
            result[active] -= change
        warnings.warn(
            f"an inverse was not found to {_TOLERANCE:g} mm at {len(active)} of {len(points)} places, where the map "
            f"folds or its field ends; there the result may be wrong.",
            stacklevel=2,
        )
        return result

    def inverse(self) -> FieldMap:
        return self.forward

    def _newton(self, points: Points, error: Points) -> Points:
        """J⁻¹ error, J by central differences; where J is singular the error itself."""
        columns = []
        for axis in range(3):
            offset = np.eye(3)[axis] * _DIFFERENCE
            columns.append((self.forward(points + offset) - self.forward(points - offset)) / (2 * _DIFFERENCE))
        jacobian = np.stack(columns, -1)
        regular = np.abs(np.linalg.det(jacobian)) > 1e-3
        change = error.copy()
        change[regular] = np.linalg.solve(jacobian[regular], error[regular, :, None])[..., 0]
        return change


def _closest_affine(start: Points, end: Points, dim: int) -> Affine:
    """The (4, 4) map that takes places to others with the least squared error; of a slice, within its plane."""
    centre, target = start.mean(0), end.mean(0)
    matrix = np.eye(4)
    solution, *_ = np.linalg.lstsq(start - centre, end - target, rcond=1e-6)
    rank_lost = np.eye(3) - np.linalg.pinv(start - centre, rcond=1e-6) @ (start - centre) if dim == 2 else 0
    linear = (solution + rank_lost).T  # across a slice nothing moves
    if np.linalg.det(linear) < 1e-3:
        linear = np.eye(3)
    matrix[:3, :3], matrix[:3, 3] = linear, target - linear @ centre
    return matrix


def voxels(points: Points, grid: Grid) -> torch.Tensor:
    """Places in mm as voxels of a grid, as `sample` takes them: (1, dim, n, 1, …)."""
    inverse = np.linalg.inv(grid.affine)[list(grid.axes)]
    places = torch.from_numpy(inverse[:, :3] @ points.T + inverse[:, 3:])
    return places.reshape(1, len(grid.axes), -1, *[1] * (len(grid.axes) - 1))


def inside(places: torch.Tensor, grid: Grid) -> np.ndarray:
    """1 for voxels (1, dim, n, …) within half a voxel of a grid, else 0: (n,)."""
    last = torch.tensor(grid.space).view(-1, 1) - 0.5
    flat = places[0].flatten(1)
    return ((flat >= -0.5) & (flat <= last)).all(0).double().numpy()


# ---------------------------------------------------------------------------------------------- what is carried


def carry_scan(
    scan: Scan, to: Grid, through: Map, *, smooth_labels: bool = False, outside: float | None = None
) -> Scan:
    """A scan on another grid: result(p) = scan(through(p)); images linearly, labels by the nearest voxel.

    smooth_labels: the label whose own mask, read linearly, is the largest. outside: the value of what the scan does not
    cover; by default an image's lowest value, and 0 for labels.
    """
    values = scan.tensor.double()
    background = outside if outside is not None else (0.0 if scan.is_labels else float(values.min()))
    result = np.empty(to.space)
    for start in range(to.space[0]):  # a plane at a time, so that the memory is that of the result
        points = _places(to, start)
        places = voxels(through(points), scan.grid)
        if scan.is_labels and smooth_labels:
            plane = _largest_share(values, places)
        else:
            plane = _read(values, places, "nearest" if scan.is_labels else "linear")
        covered = np.where(inside(places, scan.grid) > 0, plane.flatten().numpy(), background)
        result[start] = covered.reshape(to.space[1:])
    tensor = torch.from_numpy(result)[None, None]
    return Scan(tensor.round().to(scan.tensor.dtype) if scan.is_labels else tensor.float(), to, to)


def _places(grid: Grid, start: int) -> Points:
    """The places of the voxels of one plane, mm."""
    index = np.indices((1, *grid.space[1:])).reshape(len(grid.axes), -1).astype(np.float64)
    index[0] += start
    return (grid.affine[:3, grid.axes] @ index).T + grid.affine[:3, 3]


def _read(values: torch.Tensor, places: torch.Tensor, mode: Interpolation = "linear") -> torch.Tensor:
    """Values at voxels; neither is checked again for each plane."""
    return sample(values, places, mode=mode)


def _largest_share(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The label with the largest share at each place."""
    best = torch.full((places[0, 0].numel(),), -1.0, dtype=torch.float64)
    result = torch.zeros_like(best)
    for label in torch.unique(values):
        share = _read((values == label).double(), places).flatten()
        result = torch.where(share > best, label, result)
        best = torch.maximum(best, share)
    return result


def between(chain: Map, scan: Scan, to: Grid) -> Map:
    """A map of places as ITK sees the files of a scan and a grid, as one of regkit's."""
    places = zip((scan.original, to), itk_places(scan.original, to), strict=True)
    start, end = (AffineMap(place @ np.linalg.inv(grid.affine)) for grid, place in places)
    return Chain([start.inverse(), chain, end])


# ---------------------------------------------------------------------------------------------- from files


def read_map(path: Path | str, *, inverse: bool = False) -> Map:
    """The map in a file, or in a folder of `regkit register`; inverse: its inverse, from the folder's own file.

    A displacement field (.nii, .nii.gz, and with SimpleITK .mha, .mhd, .nrrd) or, with SimpleITK, a transform of ITK or
    ANTs (.mat, .txt, .tfm, .xfm, .h5): affine, a displacement field, or a chain of these.

    Raises:
        FileNotFoundError, ValueError: no such file; damaged, or another kind. ImportError: SimpleITK is needed.
    """
    path = Path(path)
    if path.is_dir():
        return _field(path / (_INVERSE_FIELD if inverse else _FIELD))
    if not path.is_file():
        raise MissingFileError("a map is read from a file or a folder of register", path, "check the path")
    forward = _reader(path)(path)
    return forward.inverse() if inverse else forward


def _reader(path: Path) -> Callable[[Path], Map]:
    if path.suffix.lower() in _TRANSFORM_FILES:
        return _itk_transform
    if path.suffix.lower() in _IMAGE_FILES:
        return lambda file: _itk_field(_simpleitk(file).ReadImage(str(file), _simpleitk(file).sitkVectorFloat64))
    return _field


def _field(path: Path) -> FieldMap:
    return FieldMap(seen_by_itk(read_displacement(path, slab=True)))


def _simpleitk(path: Path) -> Any:
    with needing("itk", f"the file {path}"):
        import SimpleITK
    return SimpleITK


def _itk_transform(path: Path) -> Map:
    sitk = _simpleitk(path)
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            "a map must be a transform that ITK reads",
            f"{path} ({str(error).strip().splitlines()[-1]})",
            "write it again, or give its displacement field as .nii.gz",
        ) from error
    return _from_itk(transform, path)


def _from_itk(transform: Any, path: Path) -> Map:
    """ITK's transform as a map."""
    sitk, kind = _simpleitk(path), transform.GetTransformEnum()
    if kind == sitk.sitkComposite:
        chain = sitk.CompositeTransform(transform)
        return Chain([_from_itk(chain.GetNthTransform(n), path) for n in range(chain.GetNumberOfTransforms())])
    if kind == sitk.sitkDisplacementField:
        return _itk_field(sitk.DisplacementFieldTransform(transform).GetDisplacementField())
    if not transform.IsLinear():
        raise InputError(
            "a map is affine, a displacement field, or a chain of these",
            f"{path} with a {transform.GetName()}",
            "write it as a displacement field on the fixed scan's grid",
        )
    dim = transform.GetDimension()
    shift = np.array(transform.TransformPoint((0.0,) * dim))
    columns = [np.array(transform.TransformPoint(tuple(map(float, row)))) - shift for row in np.eye(dim)]
    matrix = np.eye(4)
    matrix[:dim, :dim], matrix[:dim, 3] = np.stack(columns, 1), shift
    return AffineMap(_LPS @ matrix @ _LPS)


def _itk_field(image: Any) -> FieldMap:
    """A displacement field that SimpleITK has read."""
    dim, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if components != dim:
        raise InputError(
            "a displacement field has as many components as axes",
            f"{components} components of {dim} axes",
            "give a displacement field, not an image",
        )
    matrix = np.eye(4)
    matrix[:dim, :dim] = np.array(image.GetDirection()).reshape(dim, dim) * np.array(image.GetSpacing())
    matrix[:dim, 3] = image.GetOrigin()
    grid = Grid(image.GetSize(), _LPS @ matrix)
    import SimpleITK

    vectors = SimpleITK.GetArrayFromImage(image).transpose(*reversed(range(dim)), dim)  # (x, y, z, component), mm, LPS
    full = np.zeros((*grid.space, 3))
    full[..., :dim] = vectors.reshape(*grid.space, dim)
    inverse = np.linalg.inv(grid.affine[:3, :3])[list(grid.axes)] @ _LPS[:3, :3]
    displacement = torch.from_numpy(np.moveaxis(full @ inverse.T, -1, 0)[None].copy())
    return FieldMap(Deformation(displacement, grid))


# ---------------------------------------------------------------------------------------------- to files


def write_affine(path: Path | str, through: Affine, grid: Grid, to: Grid) -> None:
    """Write a map of regkit's mm as an affine transform for ITK, from a file's places to those of another."""
    matrix, dim = _LPS @ itk_map(grid, to, through) @ _LPS, _dim(grid, to)
    numbers = [*matrix[:dim, :dim].flat, *matrix[:dim, 3]]
    lines = ["#Insight Transform File V1.0", "#Transform 0", f"Transform: AffineTransform_double_{dim}_{dim}"]
    lines += [f"Parameters: {' '.join(map(repr, map(float, numbers)))}", f"FixedParameters:{' 0' * dim}", ""]
    write_atomically(path, "\n".join(lines).encode())


def write_composite(path: Path | str, deformation: Deformation, to: Grid, through: Affine) -> None:
    """Write a map as one of ITK's composite transforms, .h5: an affine map `through`, and before it what else there is.

    deformation: the whole map, `through` in it; to: the grid of the file that is read through it.

    Raises:
        ImportError: SimpleITK is needed.
    """
    sitk, grid, dim = _simpleitk(Path(path)), deformation.grid, _dim(deformation.grid, to)
    affine = itk_map(grid, to, through)
    vectors = itk_vectors(deformation, to, after=np.linalg.inv(affine))
    vectors = np.ascontiguousarray(vectors.transpose(*reversed(range(dim)), dim))
    field = sitk.Cast(sitk.GetImageFromArray(vectors, isVector=True), sitk.sitkVectorFloat64)
    place = (_LPS @ itk_places(grid, to)[0])[:dim]
    spacing = np.linalg.norm(place[:, :dim], axis=0)
    field.SetSpacing(spacing.tolist())
    field.SetDirection((place[:, :dim] / spacing).ravel().tolist())
    field.SetOrigin(place[:, 3].tolist())
    linear, matrix = sitk.AffineTransform(dim), (_LPS @ affine @ _LPS)[:dim]
    linear.SetMatrix(matrix[:, :dim].ravel().tolist())
    linear.SetTranslation(matrix[:, 3].tolist())
    sitk.WriteTransform(sitk.CompositeTransform([linear, sitk.DisplacementFieldTransform(field)]), str(path))


def _dim(*grids: Grid) -> int:
    """The dimension that ITK sees files in."""
    return 2 if all(map(is_plane, grids)) else 3


guard(globals())
