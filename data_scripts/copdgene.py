"""COPDGene lungs, breathed in and out, and DIR-Lab's ten pairs with 300 landmarks each; GradICON's preparation."""

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from data_scripts.common.command import main
from data_scripts.common.conversion import centred, masked, placed
from data_scripts.common.datasets import Case, Dataset, Files, Pair, Prepared, Splits, Variant, check_one_size
from data_scripts.common.errors import DatasetError
from data_scripts.common.fetching import Source
from regkit.images import Scan, normalise, read_array, read_image, read_labels, resample

DIRLAB = {  # slices, and the spacing in mm, along x and y and between slices; 512 x 512 in a slice
    "copd1": (121, 0.625, 2.5),
    "copd2": (102, 0.645, 2.5),
    "copd3": (126, 0.652, 2.5),
    "copd4": (126, 0.590, 2.5),
    "copd5": (131, 0.647, 2.5),
    "copd6": (119, 0.633, 2.5),
    "copd7": (112, 0.625, 2.5),
    "copd8": (115, 0.586, 2.5),
    "copd9": (116, 0.664, 2.5),
    "copd10": (135, 0.742, 2.5),
}
PHASES = {"exp": "e", "insp": "i"}  # expiration moves to inspiration in the first row of each table
OFFSET = 1024  # of DIR-Lab's files, where they hold no Hounsfield units
VALIDATION_SHARE = 100 / 999

PAPER = Variant(
    protocols=("gradicon/copdgene", "gradicon/copdgene-reverse"),
    files={
        "insp": "{id}_INSP_STD_*_img.nii.gz",
        "exp": "{id}_EXP_STD_*_img.nii.gz",
        "insp mask": "{id}_INSP_STD_*_label.nii.gz",
        "exp mask": "{id}_EXP_STD_*_label.nii.gz",
    },
    counts=(899, 100, 10),
    shape=(175, 175, 175),
    labels={1: "lungs"},
    preprocessing=(
        "resampled to 2 mm, cropped or padded evenly to 175 x 175 x 175",
        "Hounsfield units from -1000 to 0, clamped, as 0 to 1; 0 outside the lungs",
        "DIR-Lab's files: axes to the left, to the back and down; 1024 taken off where they hold no Hounsfield units; "
        "landmarks counted from 1; lungs found by threshold where no mask copdN_iBHCT_label.nii.gz is given (the paper "
        "uses the Chest Imaging Platform)",
        "DIR-Lab's ten pairs to test; of COPDGene's, shuffled with seed 0, one in ten to validation (the paper takes "
        "899 and 100 of a subset that it does not list)",
    ),
    sources=tuple(Source(f"{name}.zip", ()) for name in DIRLAB),
    extras=("*BHCT.img", "*BH_xyz_r1.txt"),
    options={"spacing": 2.0, "slice": 512, "slices": {name: count for name, (count, *_) in DIRLAB.items()}},
)


def listed(files: Files, variant: Variant) -> list[Case]:
    """Two scans of each pair: ID_exp and ID_insp.

    Raises:
        DatasetError: no DIR-Lab pair, or files are missing.
    """
    found = {role: files.by_id(pattern) for role, pattern in variant.files.items()}
    names = sorted(set().union(*found.values()))
    for role, paths in found.items():
        if missing := [name for name in names if name not in paths]:
            raise DatasetError(
                f"each pair must have the file {variant.files[role]}, received none for {missing[0]}; add it."
            )
    pairs = [
        Case(f"{name}_{phase}", {"image": found[phase][name], "mask": found[f"{phase} mask"][name]})
        for name in names
        for phase in PHASES
    ]
    return pairs + [_dirlab(files, name, phase) for name in DIRLAB for phase in PHASES]


def _dirlab(files: Files, name: str, phase: str) -> Case:
    letter = PHASES[phase]
    paths = {"raw": files.one(f"{name}_{letter}BHCT.img"), "points": files.one(f"{name}_300_{letter}BH_xyz_r1.txt")}
    masks = files.by_id(f"{{id}}_{letter}BHCT_label.nii.gz")
    return Case(f"{name}_{phase}", paths | ({"mask": masks[name]} if name in masks else {}))


def split(cases: Sequence[Case], files: Files, variant: Variant) -> Splits:
    """Pairs, expiration to inspiration."""
    names = [case.id.removesuffix("_exp") for case in cases if case.id.endswith("_exp") and "raw" not in case.files]
    random.Random(0).shuffle(names)
    validation = max(min(len(names) - 1, 1), round(VALIDATION_SHARE * len(names)))
    return {"train": _pairs(names[validation:]), "validation": _pairs(names[:validation]), "test": _pairs(list(DIRLAB))}


def _pairs(names: Sequence[str]) -> list[Pair]:
    return [(f"{name}_exp", f"{name}_insp") for name in names]


def read_dirlab(case: Case, variant: Variant) -> Scan:
    """One of DIR-Lab's scans in Hounsfield units.

    Raises:
        DatasetError: the file has another size.
    """
    name = case.id.split("_")[0]
    (_, across, along), count, edge = DIRLAB[name], variant.options["slices"][name], variant.options["slice"]
    values = np.fromfile(case.files["raw"], "<i2").astype(np.float32)
    if values.size != count * edge * edge:
        raise DatasetError(
            f"{case.files['raw'].name} must hold {count} slices of {edge} x {edge} numbers of two bytes, received "
            f"{values.size * 2} bytes; fetch it again."
        )
    inside = values[values > values.min()]  # the lowest number may fill the corners
    if np.mean((inside > -1100) & (inside < -700)) < 0.05:  # neither air nor lung
        values -= OFFSET
    affine = np.diag([-across, -across, -along, 1.0])
    return placed(values.reshape(count, edge, edge).transpose(2, 1, 0), affine)


def read_points(case: Case, scan: Scan) -> np.ndarray:
    """DIR-Lab's landmarks (N, 3) in mm.

    Raises:
        DatasetError: the file holds something else, or points outside the scan.
    """
    try:
        points = np.loadtxt(case.files["points"], ndmin=2)[:, :3] - 1
        inside = bool(((points >= -0.5) & (points <= np.array(scan.grid.shape) - 0.5)).all())
    except (ValueError, IndexError) as error:
        raise DatasetError(f"landmarks must be rows of x, y, z, received {case.files['points']} ({error}).") from error
    if not inside:
        raise DatasetError(
            f"landmarks must lie in their scan of {scan.grid.shape} voxels, received {case.files['points']} with "
            f"others; is it of another case?"
        )
    return points @ scan.affine[:3, :3].T + scan.affine[:3, 3]


def find_lungs(scan: Scan) -> Scan:
    """Lungs as 1: air that does not touch the sides of the image, in its two largest pieces, holes closed."""
    air = scan.tensor[0, 0].numpy() < -500
    pieces, _ = ndimage.label(air)
    border = np.unique(np.concatenate([pieces[[0, -1]].ravel(), pieces[:, [0, -1]].ravel()]))
    sizes = np.bincount(pieces.ravel())
    sizes[border] = sizes[0] = 0
    largest = np.argsort(sizes)[::-1][:2]
    lungs = np.isin(pieces, [piece for piece in largest if sizes[piece] > 0.1 * sizes.max() > 0])
    if not lungs.any():
        raise DatasetError("lungs must be found by their air, received a scan without; give a mask NAME_label.nii.gz.")
    closed = ndimage.binary_closing(np.pad(lungs, 3), iterations=3)[3:-3, 3:-3, 3:-3]  # vessels
    return scan.with_tensor(torch.from_numpy(closed | lungs).long()[None, None])


def convert(case: Case, variant: Variant) -> Prepared:
    """Resample, crop or pad, window, mask."""
    points = None
    if "raw" in case.files:
        image = read_dirlab(case, variant)
        points = read_points(case, image)
        mask = read_mask(case.files["mask"], image) if "mask" in case.files else find_lungs(image)
    else:
        image, mask = read_image(case.files["image"]), read_labels(case.files["mask"])
    check_one_size(case, image, mask)
    mask = mask.with_tensor((mask.tensor != 0).long())
    grid = image.grid.with_spacing(variant.options["spacing"])
    image, mask = normalise(resample(image, grid), window=(-1000.0, 0.0)), resample(mask, grid)
    image, mask = centred(masked(image, mask), variant.shape), centred(mask, variant.shape)
    return Prepared(image, mask, mask, points)


def read_mask(path: Path, image: Scan) -> Scan:
    """A mask of DIR-Lab's scan, whose array has the order of the scan's: what its header says of space is not used.

    Raises:
        DatasetError: it has another size.
    """
    values, grid = read_array(path, None, np.float32)
    if grid.shape != image.grid.shape:
        raise DatasetError(
            f"a mask must have the size of its scan, received {path} of {grid.shape} for {image.grid.shape}; make it "
            f"of the same file."
        )
    return image.with_tensor(torch.from_numpy(values != 0).long()[None, None])


DATASET = Dataset(
    name="copdgene",
    title="COPDGene with the landmarks of DIR-Lab",
    licence="dbGaP data use certification (COPDGene); DIR-Lab: free for research after registration",
    terms="https://www.ncbi.nlm.nih.gov/gap/ (phs000179)",
    citation="Regan et al. 2011, COPD 7(1):32; Castillo et al. 2013, doi:10.1088/0031-9155/58/9/2861",
    steps=(
        "ask dbGaP for COPDGene (phs000179) and convert its scans and lung masks to ID_INSP_STD_SITE_COPD_img.nii.gz "
        "and _label.nii.gz, likewise EXP; register with DIR-Lab for copd1 to copd10 (copdN_iBHCT.img, copdN_eBHCT.img, "
        "copdN_300_iBH_xyz_r1.txt, copdN_300_eBH_xyz_r1.txt); put all into one folder. DIR-Lab alone is enough to test."
    ),
    variants={"paper": PAPER},
    find=listed,
    split=split,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
