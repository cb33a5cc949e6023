"""Scans: NIfTI files in and out, and what is done with them: other grids, sizes and intensities.

What is read has its axes in canonical order, to the right, to the front and up (RAS, closest to it where oblique); the
scan keeps the file's own grid, and `to_original` goes back to it. A file of one slice is a scan with two axes.

    moving, fixed = read_image("moving.nii.gz"), read_image("fixed.nii.gz")
    labels = read_labels("labels.nii.gz")                       # the same, with integers
    thick = resample(fixed, fixed.grid.with_spacing(2.0))       # 2 mm; labels by the nearest voxel
    there = resample(moving, fixed)                             # on the grid of another scan
    small = crop_or_pad(normalise(fixed), (64, 80, 64))         # [0, 1]; about the centre
    write_image("back.nii.gz", to_original(small))

Files are written in one move: a full disk leaves no half of one. NaN are outside an image's field of view, and read as
its background; a header that says nothing of space is read with nibabel's guess; both with a warning. In the header,
the sform goes before the qform; what is written on the grid of a file that ITK sees elsewhere is seen by ITK where it
sees that file. Lengths in metres or micrometres become mm.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation
from scipy.ndimage import gaussian_filter
from torch import Tensor

from regkit import types
from regkit.fields import identity, sample
from regkit.images import content
from regkit.images.formats import open_nifti, read_values
from regkit.images.headers import header_affine, itk_affine, store
from regkit.types import Displacement, Image, InputError, TooLargeError, guard, spatial

__all__ = [
    "Affine",
    "Grid",
    "Scan",
    "TooLargeError",
    "crop_or_pad",
    "foreground",
    "normalise",
    "open_nifti",
    "pad_to_multiple",
    "read_image",
    "read_labels",
    "read_values",
    "resample",
    "to_original",
    "volumes",
    "write_image",
    "write_labels",
]


def _check_form(affine: np.ndarray, name: str) -> None:
    values = np.array(affine, dtype=object)
    if values.shape != (4, 4) or not all(isinstance(each, Real) and math.isfinite(each) for each in values.flat):
        raise InputError(f"{name} must be (4, 4) and finite", values.tolist(), "repair the image's header")


Affine = Annotated[np.ndarray, _check_form]  # (4, 4), float64
SIDES = (("L", "R"), ("P", "A"), ("I", "S"))  # of the body, at the two ends of each axis of mm
_SPACINGS = (1e-3, 100.0)  # mm: finer is microscopy, coarser an error of the header
SAME = 0.1  # voxels: headers of one grid, as programs round them
_SAME_PLACE = 0.01  # voxels: where regkit and ITK see one file
_SEEN = 0.9  # of a voxel: less of it in the field of view is outside
_SNAP = 1e-4  # voxels: two grids that differ by less are one
_LABEL_TYPES = (np.uint8, np.int16, np.int32)
_EXACT = 2.0**53  # above, numbers are read as their neighbours
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an image are.

    shape: voxels along three axes (a file of two has one slice). affine: (4, 4), voxel to mm (RAS). itk: the same as
    ITK reads the file, where it sees another place.

    Raises:
        ValueError: no two axes with more than one voxel; an affine that is no map of space; spacing out of range.
    """

    shape: tuple[int, ...]
    affine: Affine
    itk: Affine | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64))
        if len(self.shape) not in (2, 3) or min(self.shape) < 1 or sum(size > 1 for size in self.shape) < 2:
            raise InputError(
                "an image to register has two or three axes of more than one voxel",
                f"the shape {self.shape}",
                "check how it was cropped or converted",
            )
        _check_affine(self.affine)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that a tensor has: all three, or the two of a single slice."""
        longer = tuple(axis for axis, size in enumerate(self.shape) if size > 1)
        return longer if len(longer) == 2 else (0, 1, 2)

    @property
    def space(self) -> tuple[int, ...]:
        """The tensor's spatial shape."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def spacing(self) -> tuple[float, ...]:
        """The size of a voxel along each of the tensor's axes, mm."""
        return tuple(float(np.linalg.norm(self.affine[:3, axis])) for axis in self.axes)

    @property
    def codes(self) -> str:
        """Where each axis of the file leads, such as RAS (right, anterior, superior)."""
        return "".join(aff2axcodes(self.affine))

    def cropped(self, start: Sequence[int], space: Sequence[int]) -> Grid:
        """The part of this grid, or beyond it, that begins at voxel `start` and has `space` voxels."""
        first, shape = np.zeros(3), list(self.shape)
        for axis, begin, size in zip(self.axes, start, space, strict=True):
            first[axis], shape[axis] = begin, size
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ first
        return Grid(tuple(shape), affine)

    def with_space(self, space: Sequence[types.Count]) -> Grid:
        """Other numbers of voxels over the same extent, from edge to edge."""
        return self._divided([size / new for size, new in zip(self.space, space, strict=True)], space)

    def with_spacing(self, spacing: float | Sequence[float]) -> Grid:
        """Voxels of this size (mm) over the same extent, a part of a voxel at each end aside.

        Raises:
            ValueError: a spacing out of range, or so large that one voxel is left.
        """
        sizes = tuple(spacing) if isinstance(spacing, Sequence) else (float(spacing),) * len(self.axes)
        _check_spacing(sizes)
        factors = [new / old for new, old in zip(sizes, self.spacing, strict=True)]
        space = [max(1, round(size / factor)) for size, factor in zip(self.space, factors, strict=True)]
        return self._divided(factors, space)

    def _divided(self, factors: Sequence[float], space: Sequence[int]) -> Grid:
        """Voxels `factors` times as large, `space` of them, about the same centre."""
        affine, shape = self.affine.copy(), list(self.shape)
        for axis, factor, new in zip(self.axes, factors, space, strict=True):
            start = (self.shape[axis] - 1 - (new - 1) * factor) / 2
            affine[:3, 3] += self.affine[:3, axis] * start
            affine[:3, axis] *= factor
            shape[axis] = new
        return Grid(tuple(shape), affine)

    def is_same(self, other: Grid) -> bool:
        """Whether two grids have the same voxels at the same places."""
        dim = len(self.space)
        return self.space == other.space and np.allclose(voxel_map(self, other), np.eye(dim, dim + 1))

    def apart(self, other: Grid) -> tuple[float, float]:
        """How far two grids are apart: mm between corners of one number, and degrees between axes, the most of all."""
        corners = [list(product(*((0, size - 1) for size in (*grid.shape, 1)[:3]), (1,))) for grid in (self, other)]
        places = [np.array(each) @ grid.affine[:3].T for each, grid in zip(corners, (self, other), strict=True)]
        axes = [grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0) for grid in (self, other)]
        cosines = np.clip((axes[0] * axes[1]).sum(0), -1, 1)
        turned = float(np.degrees(np.arccos(cosines)).max())
        return float(np.linalg.norm(places[0] - places[1], axis=1).max()), turned

    def lies_on(self, other: Grid) -> bool:
        """Whether two files' voxels lie at the same places, to a tenth of a voxel: headers are rounded."""
        return self.space == other.space and self.apart(other)[0] <= SAME * min(other.spacing)


@dataclass(frozen=True, eq=False)
class Scan:
    """An image, or integer labels, and where its voxels are.

    tensor: (1, 1, *space); float32 of an image, int64 of labels. grid: where they are. original: the grid of the file
    it came from, in the file's own order of axes; `to_original` goes back to it. inside: (1, 1, *space), bool, the
    field of view of an image, where it does not go on as background in all directions. background: its value, if found.
    """

    tensor: Tensor
    grid: Grid
    original: Grid
    inside: Tensor | None = None
    background: float | None = None

    def __post_init__(self) -> None:
        if tuple(self.tensor.shape) != (1, 1, *self.grid.space) or self.tensor.is_complex():
            raise InputError(
                "a scan's tensor must be (1, 1, *space) on its grid, in real numbers",
                f"{self.tensor.dtype} of {tuple(self.tensor.shape)} on {self.grid.space}",
                "resample it to that grid",
            )

    @property
    def affine(self) -> Affine:
        """(4, 4): voxel to mm (RAS)."""
        return self.grid.affine

    @property
    def spacing(self) -> tuple[float, ...]:
        """The size of a voxel along each of the tensor's axes, mm."""
        return self.grid.spacing

    @property
    def is_labels(self) -> bool:
        """Whether the voxels are labels."""
        return not self.tensor.is_floating_point()

    def with_tensor(self, tensor: Tensor) -> Scan:
        """Other values at the same places."""
        return replace(self, tensor=tensor)


def _check_affine(affine: Affine) -> None:
    _check_form(affine, "an affine")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    _check_spacing(spacing.tolist())
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise InputError("an image's axes must point in different directions", affine, "repair the image's header")


def _check_spacing(spacing: Sequence[float]) -> None:
    low, high = _SPACINGS
    if not all(low <= size <= high for size in spacing):
        raise InputError(
            f"voxels must be from {low:g} to {high:g} mm along each axis",
            f"{tuple(spacing)}",
            "repair the image's header (is it in other units?)",
        )


# ---------------------------------------------------------------------------------------------- from grid to grid


def voxel_map(start: Grid, end: Grid, through: Affine | None = None) -> np.ndarray:
    """Voxels of `start` to voxels of `end`: (dim, dim + 1), the columns of A and then b, x ↦ A x + b.

    through: (4, 4), mm to mm (RAS), applied between; nothing by default. Slices are looked at along their normal.

    Raises:
        ValueError: a volume and a slice, or two slices across each other.
    """
    if len(start.axes) != len(end.axes):
        raise InputError(
            "two scans must both be volumes or both slices",
            f"the shapes {start.shape} and {end.shape}",
            "take the slice out of the volume first",
        )
    moved = start.affine if through is None else through @ start.affine
    if len(start.axes) == 2 and abs(_normal(moved, start.axes) @ _normal(end.affine, end.axes)) < 0.5:
        raise InputError(
            "two slices must lie in parallel planes",
            f"the orientations {start.codes} of shape {start.shape} and {end.codes} of shape {end.shape}",
            "choose slices of one orientation",
        )
    matrix = (np.linalg.inv(end.affine) @ moved)[np.ix_(end.axes, [*start.axes, 3])]
    snapped = matrix.round()
    return snapped if np.allclose(matrix, snapped, rtol=0, atol=_SNAP) else matrix


def move_points(points: Tensor, matrix: np.ndarray) -> Tensor:
    """A x + b of positions x (B, dim, *any); matrix (dim, dim + 1), as of `voxel_map`."""
    result = points.new_empty(len(points), len(matrix), *points.shape[2:])
    for row, (*factors, shift) in enumerate(matrix.tolist()):
        own = result[:, row]
        torch.mul(points[:, row], factors[row], out=own).add_(shift)
        for axis, factor in enumerate(factors):
            if factor and axis != row:  # most grids are straight
                own.add_(points[:, axis], alpha=factor)
    return result


def _normal(affine: Affine, axes: Sequence[int]) -> np.ndarray:
    """The direction across a slice."""
    first, second = axes
    across = np.cross(affine[:3, first], affine[:3, second])
    return across / np.linalg.norm(across)


def resample(
    scan: Scan, to: Grid | Scan, *, displacement: Displacement | None = None, through: Affine | None = None
) -> Scan:
    """A scan on another grid: result[x] = scan at the place of `through`(x + u(x)); labels by the nearest voxel.

    to: a grid (then `original` stays), or a scan whose grid and original are taken over. displacement u: (1, dim,
    *to.space), voxels of `to`. through: (4, 4), mm to mm (RAS), such as an affine registration. Outside, an image has
    its background, if known, or lowest value, labels are 0. To larger voxels an image is blurred before.

    Raises:
        ValueError: a volume and a slice; a displacement on another grid.
    """
    grid, original = (to.grid, to.original) if isinstance(to, Scan) else (to, scan.original)
    matrix = voxel_map(grid, scan.grid, through)
    if displacement is None and grid.space == scan.grid.space and np.array_equal(matrix, np.eye(*matrix.shape)):
        return replace(scan, grid=grid, original=original)
    places = identity(grid.space, like=scan.tensor)
    if displacement is not None:
        if spatial(displacement) != grid.space:
            raise InputError(
                "a displacement must be on the grid that a scan is resampled to",
                f"{spatial(displacement)} for {grid.space}",
                "bring it there with regrid",
            )
        places = places + displacement
    places = move_points(places, matrix)
    if scan.is_labels:
        values = sample(scan.tensor.double(), places, mode="nearest", padding="zeros").round().to(scan.tensor.dtype)
        return Scan(values, grid, original)
    dark = scan.tensor.min() if scan.background is None else scan.background
    steps = np.linalg.norm(matrix[:, :-1], axis=1)
    values = sample(_blur(scan.tensor, steps) - dark, places, padding="zeros") + dark
    inside = None if scan.inside is None else _inside(scan, scan.inside, places, steps)
    return Scan(values, grid, original, inside, scan.background)


def _inside(scan: Scan, inside: Tensor, places: Tensor, steps: Sequence[float]) -> Tensor:
    """The field of view at places (1, dim, *space), voxels; beyond the file it goes on where the file ends in air."""
    seen = sample(_blur(inside.float(), steps), places)
    ends = sample(foreground(scan).float(), places)
    last = places.new_tensor(scan.grid.space).view(1, -1, *[1] * (places.dim() - 2)) - 0.5
    beyond = ((places < -0.5) | (places > last)).any(1, keepdim=True)
    return (seen > _SEEN) & ~(beyond & (ends > 0.5))


def foreground(scan: Scan) -> Tensor:
    """What is not background, in the field of view: bool, as the tensor. scan: as of `normalise`."""
    there = (scan.tensor - (scan.background or 0.0)).abs() > content.FOREGROUND
    return there if scan.inside is None else there & scan.inside


def _blur(image: Image, steps: Sequence[float]) -> Image:
    """The image blurred to voxels `steps` times as large, so that none between is missed: FWHM² = step² - 1."""
    sigma = [math.sqrt(max(step**2 - 1, 0)) / _FWHM for step in steps]
    if max(sigma) < 0.1:
        return image
    values = gaussian_filter(image[0, 0].cpu().numpy(), sigma, mode="nearest")
    return torch.from_numpy(values)[None, None].to(image)


def to_original(scan: Scan) -> Scan:
    """The scan on the grid of its file, in the file's order of axes."""
    return resample(scan, scan.original)


# ---------------------------------------------------------------------------------------------- sizes, intensities


def crop_or_pad(scan: Scan, space: Sequence[types.Count]) -> Scan:
    """The scan about its centre with another number of voxels; the same call with the old number goes back.

    Added voxels have the lowest value, those of labels 0; `to_original` also undoes it.
    """
    missing = [new - old for new, old in zip(space, scan.grid.space, strict=True)]
    before = [int(difference / 2) for difference in missing]  # towards zero, so that there and back is exact
    widths = [(first, difference - first) for first, difference in zip(before, missing, strict=True)]
    lowest = 0 if scan.is_labels else float(scan.tensor.min())
    pads = [width for pair in reversed(widths) for width in pair]
    inside = None if scan.inside is None else F.pad(scan.inside, pads)
    tensor = F.pad(scan.tensor, pads, value=lowest)
    return replace(scan, tensor=tensor, grid=scan.grid.cropped([-first for first in before], space), inside=inside)


def pad_to_multiple(scan: Scan, multiple: types.Count) -> Scan:
    """The scan with voxels added on both sides, to a size divisible by `multiple` along each axis."""
    return crop_or_pad(scan, [size + -size % multiple for size in scan.grid.space])


def normalise(
    scan: Scan,
    *,
    percentiles: tuple[types.Percent, types.Percent] = (0.0, 99.5),
    window: tuple[float, float] | None = None,
) -> Scan:
    """Intensities as [0, 1]: linear from a low to a high value, cut beyond; with field of view and background found.

    percentiles: of the voxels in the field of view, which give the two values: see `regkit.images.content.window`.
    window: the two values themselves, such as (-160, 240) of CT. Outside the field of view (NaN, padding) the result
    has its background.

    Raises:
        ValueError: the two values are one, as of a constant image; labels.
    """
    if scan.is_labels:
        raise InputError("intensities are those of an image", "labels", "read the file with read_image")
    values = types.at_least_float32(scan.tensor)
    inside = content.field_of_view(values) & (True if scan.inside is None else scan.inside)
    dark = content.background(values, inside)
    low, high = content.window(values, inside, dark, percentiles) if window is None else window
    if not low < high:
        what = f"percentiles {percentiles} both {low:g}" if window is None else f"the window {window}"
        raise InputError(
            "an image must vary to be registered",
            f"{what}, of values from {float(values.min()):g} to {float(values.max()):g}",
            "check that it is no empty or constant image, or give a wider range",
        )
    level = min(max((dark - low) / (high - low), 0.0), 1.0)
    unit = ((values - low) / (high - low)).clamp(0, 1)
    if inside.all():
        found = replace(scan, tensor=unit, inside=None, background=level)
        return replace(found, inside=inside) if content.outermost(foreground(found)).any() else found
    return replace(scan, tensor=torch.where(inside, unit, level), inside=inside, background=level)


# ---------------------------------------------------------------------------------------------- in


def read_image(path: Path | str, *, volume: int | None = None) -> Scan:
    """The image in a NIfTI file: float32, axes in canonical order.

    volume: which one of a file with several, from 0.

    Raises:
        FileNotFoundError, ValueError: no such file; damaged, several volumes, colours, nothing finite, a broken header.
    """
    values, grid = read_array(path, volume, np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        if not finite.any():
            raise InputError("an image must have finite values", f"{path} with none", "make or fetch it again")
        warnings.warn(
            f"{path} has {values.size - int(finite.sum())} NaN or infinite of {values.size} values: not seen.",
            stacklevel=2,
        )
        scan, inside = _scan(values, grid), _scan(finite, grid).tensor
        dark = content.background(scan.tensor, inside)
        return replace(scan, tensor=torch.where(inside, scan.tensor, dark), inside=inside)
    return _scan(values, grid)


def read_labels(path: Path | str, *, volume: int | None = None) -> Scan:
    """The labels in a NIfTI file: int64, axes in canonical order; 0 is background. volume: see `read_image`.

    Raises:
        FileNotFoundError, ValueError: as `read_image`; values that are not whole numbers.
    """
    values, grid = read_array(path, volume, np.float64)
    whole = np.rint(values)
    if not np.isfinite(values).all() or not np.allclose(values, whole, rtol=0, atol=1e-4):
        raise InputError(
            "labels must be whole numbers",
            f"{path} with values such as {values[values != whole].flat[0]:g}",
            "give the file of the labels, not of the image, and resample labels by the nearest voxel only",
        )
    if np.abs(whole).max() > _EXACT:
        received = f"{path} with {whole.flat[np.abs(whole).argmax()]:g}"
        raise InputError("labels must be whole numbers up to 2**53", received, "number them anew")
    return _scan(whole.astype(np.int64), grid)


def _scan(values: np.ndarray, original: Grid) -> Scan:
    """A file's values (*original.shape) as a scan in canonical order."""
    volume = values.reshape(*values.shape, *[1] * (3 - values.ndim))
    orientation = io_orientation(original.affine)
    turned = apply_orientation(volume, orientation)
    grid = Grid(turned.shape, original.affine @ inv_ornt_aff(orientation, volume.shape))
    tensor = torch.from_numpy(turned.copy()).reshape(1, 1, *grid.space)
    return Scan(tensor, grid, original)


def read_array(path: Path | str, volume: int | None, dtype: type[np.floating]) -> tuple[np.ndarray, Grid]:
    """A file's values in its own order of axes, and its grid; errors as `read_image`."""
    path = Path(path)
    image = open_nifti(path)
    if image.get_data_dtype().fields is not None or image.get_data_dtype().kind == "c":
        raise InputError(
            "an image has one number in a voxel",
            f"{path} of {image.get_data_dtype()} (colours or complex numbers)",
            "convert it to grey values",
        )
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4 or 0 in shape:
        raise InputError(
            "an image has two or three axes, and a fourth of volumes",
            f"{path} of shape {image.shape}",
            "read a displacement with read_displacement",
        )
    count = shape[3] if len(shape) == 4 else 1
    if not 0 <= (volume or 0) < count or (volume is None and count > 1):
        raise InputError(
            "an image is one volume",
            f"{path} of {count} {'volume' if count == 1 else 'volumes'} and volume={volume}",
            f"choose one from 0 to {count - 1} (volume=0; --volume 0 of a command)",
        )
    grid = file_grid(path, image, shape[:3])
    return read_values(path, image, dtype).reshape(*shape[:3], count)[..., volume or 0], grid


def file_grid(path: Path, image: Any, shape: Sequence[int]) -> Grid:
    """The grid of a file, and where ITK sees it, if elsewhere; errors name the file."""
    affine, itk = header_affine(image, path), itk_affine(image)
    try:
        grid = Grid(tuple(shape), affine)
    except InputError as error:
        raise InputError(error.rule, f"{path} with {error.received}", error.remedy) from error
    apart = np.abs(affine - itk)[:3] @ [*grid.shape, 1, 1][:4]
    return grid if apart.max() <= _SAME_PLACE * min(grid.spacing) else replace(grid, itk=itk)


def volumes(path: Path | str) -> int:
    """How many volumes a file has; errors as `open_nifti`."""
    return math.prod(open_nifti(Path(path)).shape[3:])


# ---------------------------------------------------------------------------------------------- out


def write_image(path: Path | str, scan: Scan) -> None:
    """Write an image on its grid as float32, to .nii or .nii.gz, in one move (the file's own grid: `to_original`).

    Raises:
        ValueError: another ending. OSError: it cannot be written; an older file stays.
    """
    write_nifti(path, scan.tensor[0, 0].detach().cpu().float().numpy(), scan.grid)


def write_labels(path: Path | str, scan: Scan) -> None:
    """Write labels on their grid in the smallest of uint8, int16 and int32 that holds them; otherwise as `write_image`.

    Raises:
        ValueError: an image, numbers beyond int32, another ending. OSError: as `write_image`.
    """
    if not scan.is_labels:
        raise InputError("labels must be integers", scan.tensor.dtype, "write images with write_image")
    low, high = int(scan.tensor.min()), int(scan.tensor.max())
    fitting = [kind for kind in _LABEL_TYPES if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
    if not fitting:
        raise InputError("labels must fit into 32 bits", f"numbers from {low} to {high}", "number them anew")
    write_nifti(path, scan.tensor[0, 0].cpu().numpy().astype(fitting[0]), scan.grid)


def write_nifti(path: Path | str, values: np.ndarray, grid: Grid, *, intent: str = "none") -> None:
    """Values (*grid.space, or with further axes (*grid.shape, ...)) as a NIfTI file; see `write_image`."""
    shape = grid.shape if values.ndim <= 3 else values.shape
    image = nibabel.Nifti1Image(values.reshape(shape), grid.affine)
    image.set_sform(grid.affine, "scanner" if grid.itk is None else "aligned")
    image.set_qform(grid.affine if grid.itk is None else grid.itk, "scanner")  # ITK takes it before an aligned sform
    image.header.set_xyzt_units("mm")
    image.header.set_intent(intent)
    store(path, image)


guard(globals())
