"""Synthetic brains as the files that a hospital's archive would hand out: a pair of them, and patients with a mistake.

`write_pair` writes two subjects in different orientations, voxel sizes, numbers and places; `write_patients` one scan
again and again, each time with one thing wrong.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from scipy import ndimage

from regkit.data.brains import BrainPairs
from regkit.images import Affine, Grid, Scan, read_array, resample, write_labels, write_nifti
from regkit.types import Image, Labels

_CENTRE = (0.0, -17.0, 18.0)  # mm, of the brain
_AWAY = (24.0, -15.0, 31.0)  # mm: where the moving scan's table stood
_ROTATIONS = {"LIA": ((-1, 0, 0), (0, 0, 1), (0, -1, 0)), "RAS": ((1, 0, 0), (0, 1, 0), (0, 0, 1))}  # voxel to mm


@dataclass(frozen=True)
class PairFiles:
    """Where two scans and their labels are."""

    moving: Path
    fixed: Path
    moving_labels: Path
    fixed_labels: Path


def write_pair(folder: Path | str, *, seed: int = 14) -> PairFiles:
    """Two synthetic brains with labels, as NIfTI files of whole numbers (int16); the skull is off.

    moving: LIA, 3 mm, 0 to 3000, tilted by some degrees and lying elsewhere; fixed: RAS, 2.5 mm, 0 to 700. The two
    differ by an affine map and a smooth one.

    Raises:
        OSError: the files cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pair = BrainPairs(2, dim=3, aligned=False, seed=seed)[0]
    assert pair.moving_labels is not None and pair.fixed_labels is not None
    start = _grid("RAS", pair.spacing[0], tuple(pair.moving.shape[2:]), np.eye(4))
    away = from_matvec(euler2mat(0.05, -0.08, 0.06), _AWAY)
    there, here = _grid("LIA", 3.0, (62, 62, 76), away), _grid("RAS", 2.5, (74, 92, 74), np.eye(4))
    files = PairFiles(*(folder / f"{name}.nii.gz" for name in ("moving", "fixed", "moving_labels", "fixed_labels")))
    back = np.linalg.inv(away)
    _write(files.moving, files.moving_labels, (pair.moving, pair.moving_labels), start, there, back, 3000)
    _write(files.fixed, files.fixed_labels, (pair.fixed, pair.fixed_labels), start, here, np.eye(4), 700)
    return files


def _grid(codes: str, spacing: float, shape: tuple[int, ...], away: Affine) -> Grid:
    """Voxels of one size around the brain's centre, carried away from there."""
    matrix = spacing * np.array(_ROTATIONS[codes], dtype=float)
    shift = np.array(_CENTRE) - matrix @ (np.array(shape) - 1) / 2
    return Grid(shape, away @ from_matvec(matrix, shift))


def _write(
    path: Path, labels_path: Path, subject: tuple[Image, Labels], start: Grid, end: Grid, through: Affine, most: int
) -> None:
    """An image and its labels on another grid; the image as int16 up to `most`, with nothing around the brain."""
    image, labels = (resample(Scan(each, start, start), end, through=through) for each in subject)
    values = np.rint(most * image.tensor[0, 0].numpy()) * (labels.tensor[0, 0].numpy() > 0)
    write_nifti(path, values.astype(np.int16), end)
    write_labels(labels_path, Scan(labels.tensor, end, end))


# ---------------------------------------------------------------------------------------------- one thing wrong
def write_patients(folder: Path | str, scan: Path | str, labels: Path | str) -> dict[str, Path]:
    """The scan in a file, and in further files the same with one thing wrong; by what it is.

    labels: those of the scan. The files' names, patient_0.nii.gz and so on, do not tell.

    Raises:
        FileNotFoundError, ValueError: as of `images.read_image`. OSError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values, grid = read_array(scan, None, np.float32)
    marked, _ = read_array(labels, None, np.float32)
    made: dict[str, tuple[np.ndarray, Affine]] = {
        "good": (values.astype(np.int16), grid.affine),
        "four volumes": (np.stack([values] * 4, -1).astype(np.int16), grid.affine),
        "flipped": (values[:, :, ::-1].astype(np.int16), grid.affine),
        "spacing lost": (values.astype(np.int16), np.eye(4)),
        "NaN": (_with_nan(values), grid.affine),
        "labels": (marked.astype(np.uint8), grid.affine),
        "far away": (values.astype(np.int16), from_matvec(np.eye(3), (400.0, 0, 0)) @ grid.affine),
        "with its skull": (_with_skull(values, grid), grid.affine),
    }
    paths = {name: folder / f"patient_{number}.nii.gz" for number, name in enumerate((*made, "cut short"))}
    for name, (changed, affine) in made.items():
        image = nibabel.Nifti1Image(changed, affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, paths[name])
    whole = paths["good"].read_bytes()
    paths["cut short"].write_bytes(whole[: len(whole) // 2])
    return paths


def _with_nan(values: np.ndarray) -> np.ndarray:
    """Divided by itself, as by a mask: no number where it is empty in one corner."""
    damaged = values.copy()
    corner = tuple(slice(0, size // 3) for size in values.shape)
    damaged[corner][damaged[corner] == 0] = np.nan
    return damaged


def _with_skull(values: np.ndarray, grid: Grid) -> np.ndarray:
    """A dark skull and a bright scalp around the brain, and the noise of air: distances in mm, seeded."""
    distance = ndimage.distance_transform_edt(values == 0, sampling=grid.spacing)
    top, generator = float(np.percentile(values, 99.5)), np.random.default_rng(0)
    air = np.abs(generator.normal(0, 0.02 * top, values.shape))
    scalp = np.where((distance > 7) & (distance < 14), 0.9 * top, np.where(distance <= 7, 0.08 * top, 0))
    return np.where(values > 0, values, np.maximum(air, scalp)).round().astype(np.int16) + np.int16(1)
