"""OASIS-1 as prepared for neurite and Learn2Reg 2021: 414 brains, 35 structures; SITReg's split and crop."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from data_scripts.common import datasets
from data_scripts.common.command import main
from data_scripts.common.conversion import cropped
from data_scripts.common.datasets import SPLITS, Case, Dataset, Files, Prepared, Splits, Variant
from data_scripts.common.fetching import Source

ARCHIVE = Source(
    "neurite-oasis.v1.0.tar",
    (
        "https://surfer.nmr.mgh.harvard.edu/ftp/data/neurite/data/neurite-oasis.v1.0.tar",
        "http://surfer.nmr.mgh.harvard.edu/ftp/data/neurite/data/neurite-oasis.v1.0.tar",
    ),
    "sha256:86dd117dda17f736ade8a4088d7e98e066e1181950fe8b406f1a35f7fb743e78",
    6_600_000_000,
    published_by="torch-em",
)

ALIGNED = Variant(
    protocols=("sitreg/oasis",),
    files={"image": "{id}/aligned_norm.nii.gz", "labels": "{id}/aligned_seg35.nii.gz"},
    counts=(255, 20, 139),
    shape=(160, 144, 192),
    labels=datasets.unnamed(range(1, 36)),
    preprocessing=(
        "as delivered: skull-stripped, bias-corrected, affinely aligned, 1 mm, intensities from 0 to 1",
        "cropped from 160 x 192 x 224 (left, inferior, anterior) by (0, 0), (24, 24), (16, 16)",
        "split by the order of subjects.txt; validation and test are all pairs, in one direction",
    ),
    sources=(ARCHIVE,),
    extras=("subjects.txt",),
    options={"margins": ((0, 0), (24, 24), (16, 16))},
)
RAW = replace(
    ALIGNED,
    protocols=("sitreg/oasis-raw",),
    files={"image": "{id}/norm.nii.gz", "labels": "{id}/seg35.nii.gz"},
    shape=(256, 256, 256),
    preprocessing=(
        "as delivered: skull-stripped, bias-corrected, in the scanner's space, 1 mm, intensities from 0 to 1",
        ALIGNED.preprocessing[-1],
    ),
    options={"margins": ((0, 0), (0, 0), (0, 0))},
)


def listed(files: Files, variant: Variant) -> list[Case]:
    """The scans in the order of subjects.txt, which the split goes by."""
    names = files.one("subjects.txt").read_text().split()
    datasets.check_number(names, variant.total, files, variant)
    cases = {case.id: case for case in datasets.find(files, variant)}
    return [cases[name] for name in names]


def split(cases: Sequence[Case], files: Files, variant: Variant) -> Splits:
    """Training scans, and every two scans of validation and test."""
    train, validation, test = (datasets.in_order(cases, files, variant)[name] for name in SPLITS)
    return {"train": train, "validation": datasets.unordered(validation), "test": datasets.unordered(test)}


def convert(case: Case, variant: Variant) -> Prepared:
    """Crop."""
    image, labels = datasets.read_pair(case)
    return Prepared(cropped(image, variant.options["margins"]), cropped(labels, variant.options["margins"]))


DATASET = Dataset(
    name="oasis",
    title="OASIS-1 (neurite, Learn2Reg 2021)",
    licence="OASIS Data Use Agreement",
    terms="https://www.oasis-brains.org/#access",
    citation="Marcus et al. 2007, doi:10.1162/jocn.2007.19.9.1498; Hoopes et al. 2021, arXiv:2101.01035",
    steps="fetched unattended; read and accept the data use agreement first.",
    variants={"aligned": ALIGNED, "raw": RAW},
    find=listed,
    split=split,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
