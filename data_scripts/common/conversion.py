"""What papers do to scans beside what regkit.images does: arrays placed in space, margins, new numbers, masks."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.orientations import io_orientation, ornt_transform

from data_scripts.common.errors import DatasetError
from regkit.images import Affine, Grid, Scan, crop_or_pad

Margins = Sequence[tuple[int, int]]  # voxels to leave out at both ends of each axis


def placed(values: np.ndarray, affine: Affine) -> Scan:
    """An array (*space) with its voxel-to-mm affine (4, 4), as a scan: whole numbers are labels, others an image."""
    kind = np.float32 if values.dtype.kind == "f" else np.int64
    shape = values.shape + (1,) * (3 - values.ndim)
    grid = Grid(shape, affine)
    return Scan(torch.from_numpy(np.ascontiguousarray(values, kind)).reshape(1, 1, *grid.space), grid, grid)


def check_packed(path: Path) -> None:
    """Raise unless a gzip file is whole, to its checksum, which those who read an image do not look at.

    Raises:
        DatasetError: it is not.
    """
    try:
        with gzip.open(path) as file:
            while file.read(2**20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(
            f"a packed file must be whole, received {path} ({error}); remove it and fetch or extract it again."
        ) from error


def read_analyze(header: Path, affine: Affine, *, labels: bool = False) -> Scan:
    """An Analyze file whose image may be packed (.img, .img.gz), in the order of its own axes.

    affine: (4, 4); the format has none.

    Raises:
        DatasetError: the image is missing or damaged.
    """
    packed, plain = header.with_suffix(".img.gz"), header.with_suffix(".img")
    if packed.exists():
        check_packed(packed)
    parts = {"header": nibabel.FileHolder(str(header))}
    parts["image"] = nibabel.FileHolder(str(packed if packed.exists() else plain))
    try:
        values = np.asarray(nibabel.AnalyzeImage.from_file_map(parts).dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DatasetError(
            f"an image must be whole, received {packed if packed.exists() else plain} ({error}); remove it and "
            f"extract it again."
        ) from error
    volume = values.reshape(values.shape[:3])
    return placed(np.rint(volume).astype(np.int64) if labels else volume.astype(np.float32), affine)


def of_file(scan: Scan, numbers: Sequence[Any]) -> tuple[Any, ...]:
    """What is given for each axis of a scan's file, in the order of the scan's own axes; pairs turn with their axis."""
    order = ornt_transform(io_orientation(scan.original.affine), io_orientation(scan.affine))
    turned: list[Any] = [None] * len(numbers)
    for number, (axis, flip) in zip(numbers, order, strict=True):
        turned[int(axis)] = number[::-1] if isinstance(number, tuple) and flip < 0 else number
    return tuple(turned)


def centred(scan: Scan, shape: Sequence[int]) -> Scan:
    """Cropped or padded about the centre to `shape`, in the order of the file's axes."""
    return crop_or_pad(scan, of_file(scan, shape))


def cropped(scan: Scan, margins: Margins) -> Scan:
    """Without the margins, which are in the order of the file's axes.

    Raises:
        DatasetError: nothing would be left.
    """
    mine = of_file(scan, margins)
    space = [size - first - last for size, (first, last) in zip(scan.grid.space, mine, strict=True)]
    if min(space) < 1:
        raise DatasetError(
            f"a crop must leave voxels, received a scan of {scan.grid.space} and the margins {mine}; is it the right "
            f"file?"
        )
    start = [first for first, _ in mine]
    parts = [slice(first, first + size) for first, size in zip(start, space, strict=True)]
    return replace(scan, tensor=scan.tensor[(slice(None), slice(None), *parts)], grid=scan.grid.cropped(start, space))


def relabelled(scan: Scan, numbers: Mapping[int, int]) -> Scan:
    """Each label replaced by its new number; those without one become 0."""
    table = torch.zeros(max(int(scan.tensor.max()), *numbers, 0) + 1, dtype=torch.int64)
    table[list(numbers)] = torch.tensor(list(numbers.values()))
    return scan.with_tensor(table[scan.tensor.clamp(0)])


def masked(scan: Scan, mask: Scan) -> Scan:
    """The image where the mask is not 0, and 0 elsewhere.

    Raises:
        DatasetError: they are of different sizes.
    """
    if scan.grid.space != mask.grid.space:
        raise DatasetError(
            f"an image and its mask must have one size, received {scan.grid.space} and {mask.grid.space}; are they of "
            f"one scan?"
        )
    return scan.with_tensor(torch.where(mask.tensor != 0, scan.tensor, torch.zeros_like(scan.tensor)))
