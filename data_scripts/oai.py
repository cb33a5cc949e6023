"""OAI knees: GradICON's 2532 scans at half and full resolution, or 150 scans with bones and cartilage (SPnet)."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_scripts.common import datasets
from data_scripts.common.command import main
from data_scripts.common.conversion import centred, relabelled
from data_scripts.common.datasets import Case, Dataset, Files, Prepared, Splits, Variant
from data_scripts.common.errors import DatasetError
from data_scripts.common.fetching import Source
from data_scripts.common.layout import members
from regkit.images import Scan, normalise, read_image, resample
from regkit.tools.register import align

ENDING = "_image.nii.gz"
LISTS = {"train": "train/pair_path_list.txt", "test": "test/pair_path_list.txt"}  # moving fixed and their labels
SIDES = "kneeSideInfo.csv"
_HOST = "https://huggingface.co/datasets/YongchengYAO/OAIZIB-CM/resolve/main/"

HALF = Variant(
    protocols=("gradicon/oai",),
    files={"image": f"{{id}}{ENDING}"},
    counts=(2532, 0, 301),
    shape=(80, 192, 192),
    labels={1: "femoral cartilage", 2: "tibial cartilage"},
    preprocessing=(
        "intensities between the 1st and 99th percentile as 0 to 1, clamped",
        "right knees mirrored",
        "half the resolution, 80 x 192 x 192",
        "ICON's lists of pairs: all scans of the training list, and the test pairs; the paper has no validation: three "
        "pairs of training scans stand in",
    ),
    options={"divisor": 2},
)
FULL = replace(
    HALF,
    shape=(160, 384, 384),
    preprocessing=(*HALF.preprocessing[:2], "full resolution, 160 x 384 x 384", HALF.preprocessing[-1]),
    options={"divisor": 1},
)
SPNET = Variant(
    protocols=("spnet/oai",),
    files={"image": "images*/{id}_0000.nii.gz", "labels": "labels*/{id}.nii.gz"},
    counts=(90, 10, 50),
    shape=(160, 192, 192),
    labels={1: "femur", 2: "femoral cartilage", 3: "tibia", 4: "tibial cartilage"},
    preprocessing=(
        "as delivered with OAIZIB-CM; its two labels of tibial cartilage made one",
        "right knees mirrored; aligned affinely to the first scan (the paper does not name its reference)",
        "resampled to 0.7 mm, centre crop to 160 x 192 x 192 (the paper states the size and not the spacing)",
        "intensities from minimum to maximum as 0 to 1",
        "50 scans to test, drawn with seed 0, and 100 to train and validate (the paper draws and does not list)",
    ),
    sources=(
        Source("imagesTr.zip", (f"{_HOST}imagesTr.zip",), size=10_000_000_000),
        Source("imagesTs.zip", (f"{_HOST}imagesTs.zip",), size=2_540_000_000),
        Source("labelsTr.zip", (f"{_HOST}labelsTr.zip",), size=57_700_000),
        Source("labelsTs.zip", (f"{_HOST}labelsTs.zip",), size=14_200_000),
        Source(SIDES, (f"{_HOST}{SIDES}",), size=12_700),
    ),
    options={"spacing": 0.7, "steps": 60, "numbers": {1: 1, 2: 2, 3: 3, 4: 4, 5: 4}},
    scans=507,
)


def read_lists(files: Files) -> dict[str, list[list[str]]]:
    """Of each list of pairs, the names of the four files of each pair: two images, and their labels.

    Raises:
        DatasetError: a list is missing, or a line has not four paths.
    """
    lists = {}
    for split, ending in LISTS.items():
        found = [path for path in files.paths if path.as_posix().endswith(ending)]
        if len(found) != 1:
            raise DatasetError(
                f"the folder must hold the list {ending} of the ICON repository, received {len(found)} of them below "
                f"{', '.join(map(str, files.folders))}; copy splits/ from its training_scripts/oai_paper_pipeline."
            )
        lines = [[Path(path).name for path in line.split()] for line in found[0].read_text().splitlines() if line]
        if not lines or {len(line) for line in lines} != {4}:
            raise DatasetError(
                f"each line of a list must hold four paths, received another in {found[0]}; copy it anew."
            )
        lists[split] = lines
    return lists


def listed(files: Files, variant: Variant) -> list[Case]:
    """The scans of ICON's lists; or those of OAIZIB-CM, with the sides of the knees."""
    if variant.sources:
        found = datasets.find(files, variant)
        shared = {"sides": files.one(SIDES), "reference": found[0].files["image"]}
        return [Case(case.id, {**case.files, **shared}) for case in found]
    present = {path.name: path for path in files.paths}
    cases: dict[str, Case] = {}
    for line in (line for lines in read_lists(files).values() for line in lines):
        if missing := [name for name in line if name not in present]:
            raise DatasetError(
                f"the folder must hold all scans of the lists, received none named {missing[0]}; add it, as a NIfTI "
                f"file of that name."
            )
        for image, labels in zip(line[:2], line[2:], strict=True):
            name = image.removesuffix(ENDING)
            cases[name] = Case(name, {"image": present[image], "labels": present[labels]})
    return list(cases.values())


def split(cases: Sequence[Case], files: Files, variant: Variant) -> Splits:
    """ICON's lists: every two scans of the first, the pairs of the second; or a drawn split."""
    if variant.sources:
        return datasets.shuffled(cases, files, variant)
    pairs = {
        name: [(moving.removesuffix(ENDING), fixed.removesuffix(ENDING)) for moving, fixed, *_ in lines]
        for name, lines in read_lists(files).items()
    }
    train = members(pairs["train"])
    return {"train": train, "validation": datasets.standing_in(train), "test": pairs["test"]}


def mirrored(scan: Scan) -> Scan:
    """The other knee: left and right exchanged."""
    return scan.with_tensor(scan.tensor.flip(2))  # the first axis leads to the right


def is_right(case: Case, name: str = "") -> bool:
    """Whether a scan, or another one by its name, shows a right knee.

    Raises:
        DatasetError: the table of sides does not say.
    """
    name = name or case.id
    if "sides" not in case.files:
        return "RIGHT" in name
    with case.files["sides"].open(newline="") as file:
        sides = {row[0].removesuffix(".nii.gz"): row[1].strip().lower() for row in csv.reader(file) if len(row) > 1}
    if sides.get(name) not in ("left", "right"):
        raise DatasetError(f"{SIDES} must tell the side of each knee, received none for {name}; fetch it again.")
    return sides[name] == "right"


def convert(case: Case, variant: Variant) -> Prepared:
    """Mirror, scale, align, resample."""
    image, labels = datasets.read_pair(case)
    if is_right(case):
        image, labels = mirrored(image), mirrored(labels)
    if "divisor" in variant.options:
        image = normalise(image, percentiles=(1, 99))
        grid = image.grid.with_space([size // variant.options["divisor"] for size in image.grid.space])
        return Prepared(resample(image, grid), resample(labels, grid))
    reference = read_image(case.files["reference"])
    name = case.files["reference"].name.removesuffix("_0000.nii.gz")
    if is_right(case, name):
        reference = mirrored(reference)
    through = np.eye(4)
    if name != case.id:
        through = align(normalise(image), normalise(reference), steps=variant.options["steps"])
    place = resample(reference, reference.grid.with_spacing(variant.options["spacing"]))
    image = normalise(resample(image, place, through=through), percentiles=(0, 100))
    labels = relabelled(resample(labels, place, through=through), variant.options["numbers"])
    return Prepared(centred(image, _thinnest_first(image, variant)), centred(labels, _thinnest_first(labels, variant)))


def _thinnest_first(scan: Scan, variant: Variant) -> list[int]:
    """The paper's shape in the order of the file's axes: the first number belongs to the axis across the slices."""
    across = scan.original.spacing.index(max(scan.original.spacing))
    first, second, third = variant.shape
    shape = [second, third]
    shape.insert(across, first)
    return shape


DATASET = Dataset(
    name="oai",
    title="Osteoarthritis Initiative, knees (DESS)",
    licence="OAI data use terms; OAIZIB-CM (variant spnet) CC BY-NC 4.0",
    terms="https://nda.nih.gov/oai/",
    citation="Ambellan et al. 2019, doi:10.1016/j.media.2018.11.009; Yao et al. 2024, doi:10.1016/j.media.2023.103035",
    steps=(
        "variant spnet is fetched unattended. For half and full make an account at nda.nih.gov/oai, accept the terms, "
        "fetch the DESS scans that the lists of the ICON repository name (training_scripts/oai_paper_pipeline/splits), "
        "convert them to NIfTI under those names with their cartilage labels, and copy the lists (train/ and test/ "
        "pair_path_list.txt) into the same folder."
    ),
    variants={"half": HALF, "full": FULL, "spnet": SPNET},
    find=listed,
    split=split,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
