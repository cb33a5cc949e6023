"""DRIVE: the vessels of 20 retinas, and the same after random elastic deformations; GradICON's 2D study."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from data_scripts.common.command import main
from data_scripts.common.conversion import placed
from data_scripts.common.datasets import SPLITS, Case, Dataset, Files, Prepared, Splits, Variant, check_number
from data_scripts.common.errors import DatasetError
from regkit.data.vessels import random_deformation
from regkit.fields import warp

PAPER = Variant(
    protocols=("gradicon/drive",),
    files={"vessels": "training/1st_manual/{id}_manual1.gif"},
    counts=(20, 0, 20),
    shape=(146, 141),
    labels={1: "vessel"},
    preprocessing=(
        "the manual vessel masks of the training set (584 x 565), inverted: background 1, vessel 0",
        "fixed: the same after two random elastic deformations, standard deviation 25 pixels at 3 x 3 control points, "
        "then 12 at 6 x 6; seed of each retina its number; as velocities, so that none folds",
        "averaged over 4 x 4 pixels",
        "the paper trains and tests on the same 20 pairs; so is validation",
    ),
    options={"pooling": 4, "motion": 25 / 565},
)


def listed(files: Files, variant: Variant) -> list[Case]:
    """Each retina twice: as it is, and deformed."""
    found = files.by_id(variant.files["vessels"])
    check_number(sorted(found), variant.counts[0], files, variant)
    return [
        Case(f"{name}_{role}", {"vessels": path})
        for name, path in sorted(found.items())
        for role in ("moving", "fixed")
    ]


def split(cases: Sequence[Case], files: Files, variant: Variant) -> Splits:
    """The same pairs in all."""
    names = [case.id.removesuffix("_moving") for case in cases if case.id.endswith("_moving")]
    pairs = [(f"{name}_moving", f"{name}_fixed") for name in names]
    return dict.fromkeys(SPLITS, pairs)


def read_vessels(path: Path) -> torch.Tensor:
    """A mask (1, 1, *space): 1 in vessels.

    Raises:
        DatasetError: it is no image, or nothing but vessels, or none.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, EOFError, SyntaxError) as error:
        raise DatasetError(f"a mask must be a whole GIF image, received {path} ({error}); fetch it again.") from error
    vessels = torch.from_numpy(values > 127).float()[None, None]
    if not 0 < vessels.mean() < 1:
        raise DatasetError(f"a mask must show vessels and background, received one of the two alone in {path}.")
    return vessels


def convert(case: Case, variant: Variant) -> Prepared:
    """Invert, deform, average."""
    name, role = case.id.split("_")
    vessels = read_vessels(case.files["vessels"])
    if role == "fixed":
        size = tuple(vessels.shape[2:])
        vessels = warp(vessels, random_deformation(size, motion=variant.options["motion"], seed=int(name)))
    pooled = F.avg_pool2d(vessels, variant.options["pooling"])[0, 0].numpy()
    labels = (pooled >= 0.5).astype(np.int64)
    return Prepared(placed(1 - pooled, np.eye(4)), placed(labels, np.eye(4)))


DATASET = Dataset(
    name="drive",
    title="DRIVE, retinal vessels",
    licence="research and education only, no redistribution",
    terms="https://drive.grand-challenge.org/",
    citation="Staal et al. 2004, doi:10.1109/TMI.2004.825627",
    steps=(
        "make a free account at grand-challenge.org, join DRIVE, accept its terms, download and extract the training "
        "set (training/1st_manual/21_manual1.gif to 40_manual1.gif)."
    ),
    variants={"paper": PAPER},
    find=listed,
    split=split,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
