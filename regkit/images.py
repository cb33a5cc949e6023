"""NIfTI files in and out: `read_image`, `read_labels`, `write_image`, `write_labels`; scans.py works on what they hold.

What is read has its axes in canonical order, to the right, to the front and up (RAS, closest to it where oblique); the
scan keeps the file's own grid, and `to_original` goes back to it. A file of one slice is a scan with two axes.

    moving, fixed = read_image("moving.nii.gz"), read_image("fixed.nii.gz")
    labels = read_labels("labels.nii.gz")                       # the same, with integers
    thick = resample(fixed, fixed.grid.with_spacing(2.0))       # 2 mm; labels by the nearest voxel
    there = resample(moving, fixed)                             # on the grid of another scan
    small = crop_or_pad(normalise(fixed), (64, 80, 64))         # [0, 1]; about the centre
    write_image("back.nii.gz", to_original(small))

Files are written in one move: a full disk leaves no half of one. An image with NaN is read with 0 in their place, and
one whose header says nothing of space with nibabel's guess, both with a warning. In the header, the sform goes before
the qform. Lengths in metres or micrometres become mm.
"""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError

from regkit.files import write_atomically
from regkit.scans import (
    Affine,
    Grid,
    Scan,
    crop_or_pad,
    normalise,
    pad_to_multiple,
    resample,
    to_original,
)

__all__ = [
    "Affine",
    "Grid",
    "Scan",
    "crop_or_pad",
    "normalise",
    "pad_to_multiple",
    "read_image",
    "read_labels",
    "resample",
    "to_original",
    "volumes",
    "write_image",
    "write_labels",
]

_DAMAGE = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)  # what nibabel raises for it
_UNITS = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}  # mm
_ENDINGS = (".nii", ".nii.gz")
_LABEL_TYPES = (np.uint8, np.int16, np.int32)


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
            raise ValueError(f"an image must have finite values, received {path} with none; make or fetch it again.")
        warnings.warn(
            f"{path} has {values.size - int(finite.sum())} NaN or infinite of {values.size} values; they count as 0.",
            stacklevel=2,
        )
        values = np.where(finite, values, np.float32(0))
    return _scan(values, grid)


def read_labels(path: Path | str, *, volume: int | None = None) -> Scan:
    """The labels in a NIfTI file: int64, axes in canonical order; 0 is background. volume: see `read_image`.

    Raises:
        FileNotFoundError, ValueError: as `read_image`; values that are not whole numbers.
    """
    values, grid = read_array(path, volume, np.float64)
    whole = np.rint(values)
    if not np.isfinite(values).all() or not np.allclose(values, whole, rtol=0, atol=1e-4):
        raise ValueError(
            f"labels must be whole numbers, received {path} with values such as {values[values != whole].flat[0]:g}; "
            f"give the file of the labels, not of the image, and resample labels by the nearest voxel only."
        )
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
        raise ValueError(
            f"an image has one number in a voxel, received {path} of {image.get_data_dtype()} (colours or complex "
            f"numbers); convert it to grey values."
        )
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4 or 0 in shape:
        raise ValueError(
            f"an image has two or three axes, and a fourth of volumes, received {path} of shape {image.shape}; read "
            f"a displacement with read_displacement."
        )
    count = shape[3] if len(shape) == 4 else 1
    if not 0 <= (volume or 0) < count or (volume is None and count > 1):
        raise ValueError(
            f"an image is one volume, received {path} of {count} {'volume' if count == 1 else 'volumes'} and "
            f"volume={volume}; choose one from 0 to {count - 1} (volume=0; --volume 0 of a command)."
        )
    affine = header_affine(image, path)
    try:
        grid = Grid(shape[:3], affine)
        values = np.asarray(image.dataobj, dtype=dtype).reshape(*shape[:3], count)[..., volume or 0]
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read: {_first_line(error)}") from error
    return values, grid


def volumes(path: Path | str) -> int:
    """How many volumes a file has; errors as `open_nifti`."""
    return math.prod(open_nifti(Path(path)).shape[3:])


def open_nifti(path: Path) -> Any:
    """A file's header, and its values for later.

    Raises:
        FileNotFoundError, ValueError: no such file; it is no NIfTI file, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"an image is read from a file, received {path}, where there is no file; check the path."
        )
    try:
        image: Any = nibabel.load(path)
        if path.suffix == ".gz":
            _check_sum(path)
    except _DAMAGE as error:
        raise ValueError(
            f"an image must be a whole NIfTI file (.nii, .nii.gz), received {path} of {path.stat().st_size} bytes "
            f"({_first_line(error)}); fetch it again, or convert it."
        ) from error
    return image


def _check_sum(path: Path) -> None:
    """Read a packed file to its end, where its checksum is; nibabel stops before."""
    with gzip.open(path) as file:
        while file.read(2**20):
            pass


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def header_affine(image: Any, path: Path) -> Affine:
    """Voxel to mm of a file; says so where the header leaves it open."""
    header = image.header
    if isinstance(header, nibabel.Nifti1Header):
        if not int(header["qform_code"]) and not int(header["sform_code"]):
            warnings.warn(
                f"{path} does not say where its voxels are (no qform, no sform): its first axis is taken as leading to "
                f"the left, the others to the front and up, about the centre.",
                stacklevel=4,
            )
        with nibabel.openers.ImageOpener(str(path)) as file:
            stored = type(header).from_fileobj(file, check=False)["pixdim"][1 : 1 + min(image.ndim, 3)]
        if not int(header["sform_code"]) and not (stored > 0).all():  # nibabel reads 0 as 1
            raise ValueError(
                f"voxels must have a size along each axis, received {path} with {stored.tolist()} in its header and no "
                f"sform; repair the image's header."
            )
        units = _UNITS.get(header.get_xyzt_units()[0], 1.0)
        return np.diag([units, units, units, 1.0]) @ image.affine
    return np.asarray(image.affine)


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
        raise ValueError(f"labels must be integers, received {scan.tensor.dtype}; write images with write_image.")
    low, high = int(scan.tensor.min()), int(scan.tensor.max())
    fitting = [kind for kind in _LABEL_TYPES if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
    if not fitting:
        raise ValueError(f"labels must fit into 32 bits, received numbers from {low} to {high}; number them anew.")
    write_nifti(path, scan.tensor[0, 0].cpu().numpy().astype(fitting[0]), scan.grid)


def write_nifti(path: Path | str, values: np.ndarray, grid: Grid, *, intent: str = "none") -> None:
    """Values (*grid.space, or with further axes (*grid.shape, ...)) as a NIfTI file; see `write_image`."""
    path = Path(path)
    if not path.name.endswith(_ENDINGS):
        raise ValueError(f"images are written as {' or '.join(_ENDINGS)}, received {path}; change the ending.")
    shape = grid.shape if values.ndim <= 3 else values.shape
    image = nibabel.Nifti1Image(values.reshape(shape), grid.affine)
    image.set_sform(grid.affine, "scanner")
    image.set_qform(grid.affine, "scanner")
    image.header.set_xyzt_units("mm")
    image.header.set_intent(intent)
    content = image.to_bytes()
    write_atomically(path, gzip.compress(content, 1, mtime=0) if path.name.endswith(".gz") else content)
