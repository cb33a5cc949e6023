"""LPBA40: 40 brains, 56 structures drawn by hand; SITReg's preparation, and SACB-Net's."""

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_scripts.common import datasets
from data_scripts.common.command import main
from data_scripts.common.conversion import centred, cropped, masked, read_analyze
from data_scripts.common.datasets import SPLITS, Case, Dataset, Files, Prepared, Splits, Variant
from data_scripts.common.errors import DatasetError
from data_scripts.common.fetching import Source
from regkit.images import Affine, Scan, normalise, resample

VALIDATION = ("S14", "S16", "S19", "S26", "S39")
TEST = ("S11", "S12", "S13", "S15", "S24", "S28", "S29", "S32", "S34", "S38")
CORTEX = (*range(21, 35), *range(41, 51), *range(61, 69), *range(81, 93), 101, 102, 121, 122, *range(161, 167))
WHITE_MATTER = 3  # in the tissue maps
_ADDRESS = "https://resource.loni.usc.edu/atlasfiles/"
_DELINEATION = Source(
    "LPBA40_Subjects_Delineation_Space_MRI_and_label_files.zip",
    (f"{_ADDRESS}LPBA40_Subjects_Delineation_Space_MRI_and_label_files.zip",),
)
_NATIVE = Source(
    "LPBA40_Subjects_Native_Space_MRI_data_and_masks.zip",
    (f"{_ADDRESS}LPBA40_Subjects_Native_Space_MRI_data_and_masks.zip",),
)

SITREG = Variant(
    protocols=("sitreg/lpba40", "sacbnet/lpba40"),
    files={
        "labels": "{id}/{id}.delineation.structure.label.hdr",
        "image": "{id}/{id}.native.brain.bfc.hdr",
        "tissue": "{id}/tissue/{id}.native.tissue.hdr",
        "transform": "{id}/transforms/{id}.delineation.to.native.air",
    },
    counts=(25, 5, 10),
    shape=(160, 192, 160),
    labels=datasets.unnamed(CORTEX) | {181: "cerebellum", 182: "brain stem"},
    preprocessing=(
        "the bias-corrected scan (native.brain.bfc) and the tissue map in the delineation space, through the AIR file",
        "divided by the mean of white matter, and 0 outside the tissue map",
        "cropped by (11, 10), (20, 5), (0, 21) to 160 x 192 x 160, 1 mm",
        "split by number, as in the authors' program; validation and test are all pairs, in one direction",
    ),
    sources=(_DELINEATION, _NATIVE),
    extras=("*.delineation.structure.label.img*", "*.native.brain.bfc.img*", "*.native.tissue.img*"),
    nested=("LPBA40subjects.delineation_space.zip", "LPBA40subjects.native_space.zip"),
    options={"margins": ((11, 10), (20, 5), (0, 21))},
)
SACBNET = replace(
    SITREG,
    protocols=("sacbnet/lpba40", "sitreg/lpba40"),
    files={"labels": "{id}/{id}.delineation.structure.label.hdr", "image": "{id}/{id}.delineation.skullstripped.hdr"},
    preprocessing=(
        "as delivered: skull-stripped, in the delineation space (rigidly aligned to MNI305), 1 mm, 181 x 217 x 181",
        "intensities from minimum to maximum as 0 to 1",
        "centre crop to 160 x 192 x 160",
        "SITReg's 25, 5 and 10 scans (SACB-Net gives the sizes and no list); pairs in both directions",
    ),
    sources=(_DELINEATION,),
    extras=("*.delineation.structure.label.img*", "*.delineation.skullstripped.img*"),
    nested=("LPBA40subjects.delineation_space.zip",),
    options={},
)


@dataclass(frozen=True)
class AirTransform:
    """An AIR file. matrix: (4, 4), from voxels of its resliced file to cubic voxels of its standard file, inverted:
    see `read_air`. cube: side of the cubic voxels, mm. sizes: voxels of the standard file, mm."""

    matrix: np.ndarray
    cube: float
    sizes: tuple[float, ...]


def read_air(path: Path) -> AirTransform:
    """An AIR 5 file, in either order of bytes.

    It holds the matrix, by columns, from the standard file's voxels, taken as cubes of its smallest side, to the voxels
    of the file to reslice; then of both files a name, bits, three numbers of voxels, and three sizes in mm.

    Raises:
        DatasetError: it is no such file.
    """
    content = path.read_bytes()
    for order in "<>":
        layout = struct.Struct(f"{order}16d128s4I3d128s4I3d")
        if len(content) < layout.size:
            break
        numbers = layout.unpack_from(content)
        sizes = numbers[21:24]
        if all(0 < count < 2**16 for count in numbers[18:21]) and all(1e-2 < size < 1e2 for size in sizes):
            return AirTransform(np.reshape(numbers[:16], (4, 4)).T, min(sizes), sizes)
    raise DatasetError(f"a transform must be an AIR file, received {path} of {len(content)} bytes; extract it again.")


def in_delineation_space(scan: Scan, air: AirTransform, labels: Scan) -> Scan:
    """A native scan on the grid of the delineations."""
    cubes_to_mm = np.diag([air.cube] * 3 + [1.0])
    through: Affine = cubes_to_mm @ np.linalg.inv(air.matrix) @ np.linalg.inv(labels.affine)
    return resample(scan, labels, through=through)


def split(cases: Sequence[Case], files: Files, variant: Variant) -> Splits:
    """The numbers of SITReg's program: its pairs in one direction, SACB-Net's in both."""
    named = {"validation": VALIDATION, "test": TEST}
    chosen = {name: [case.id for case in cases if case.id in scans] for name, scans in named.items()}
    train = [case.id for case in cases if case.id not in (*VALIDATION, *TEST)]
    pairs = (
        chosen if variant.protocols[0].startswith("sacbnet") else {k: datasets.unordered(v) for k, v in chosen.items()}
    )
    return {SPLITS[0]: train, **pairs}


def convert(case: Case, variant: Variant) -> Prepared:
    """SITReg's steps where there is a tissue map, else SACB-Net's."""
    leftwards = np.diag([-1.0, -1.0, 1.0, 1.0])  # the axes lead to the left, to the back and up
    labels = read_analyze(case.files["labels"], leftwards, labels=True)
    if "tissue" not in case.files:
        image = read_analyze(case.files["image"], leftwards)
        datasets.check_one_size(case, image, labels)
        image = normalise(image, percentiles=(0, 100))
        return Prepared(centred(image, variant.shape), centred(labels, variant.shape))
    air = read_air(case.files["transform"])
    native = np.diag([*air.sizes, 1.0])
    image = in_delineation_space(read_analyze(case.files["image"], native), air, labels)
    tissue = in_delineation_space(read_analyze(case.files["tissue"], native, labels=True), air, labels)
    white = tissue.tensor == WHITE_MATTER
    if not white.any():
        raise DatasetError(
            f"a tissue map must hold white matter ({WHITE_MATTER}), received {case.files['tissue']} without; are its "
            f"transform and the map of one scan?"
        )
    image = masked(image.with_tensor(image.tensor / image.tensor[white].mean()), tissue)
    return Prepared(cropped(image, variant.options["margins"]), cropped(labels, variant.options["margins"]))


DATASET = Dataset(
    name="lpba40",
    title="LONI Probabilistic Brain Atlas (LPBA40)",
    licence="LONI Research License 3.0",
    terms="https://resource.loni.usc.edu/resources/atlases-downloads/",
    citation="Shattuck et al. 2008, doi:10.1016/j.neuroimage.2007.09.031",
    steps="fetched unattended; read and accept the LONI research licence first.",
    variants={"sitreg": SITREG, "sacbnet": SACBNET},
    find=datasets.find,
    split=split,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
