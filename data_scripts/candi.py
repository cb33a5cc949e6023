"""CANDI Share: 103 children and adolescents, 28 structures; SPnet's size and split sizes."""

import sys

from data_scripts.common.command import main
from data_scripts.common.conversion import masked, relabelled
from data_scripts.common.datasets import Case, Dataset, Prepared, Variant, centred_pair, find, read_pair, shuffled
from data_scripts.common.fetching import Source
from regkit.images import normalise, resample

BOTH_SIDES = {
    "cerebral white matter": (2, 41),
    "cerebral cortex": (3, 42),
    "lateral ventricle": (4, 43),
    "cerebellum white matter": (7, 46),
    "cerebellum cortex": (8, 47),
    "thalamus proper": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "ventral DC": (28, 60),
}
MIDDLE = {14: "third ventricle", 15: "fourth ventricle", 16: "brain stem", 24: "CSF"}
NAMES = MIDDLE | {
    number: f"{side} {name}"
    for name, numbers in BOTH_SIDES.items()
    for side, number in zip(("left", "right"), numbers, strict=True)
}

PAPER = Variant(
    protocols=("spnet/candi",),
    files={
        "image": "{id}/MNI152_2mm_Linear/{id}_linear_MRI.nii.gz",
        "labels": "{id}/MNI152_2mm_Linear/{id}_linear_SEG.nii.gz",
    },
    counts=(63, 10, 30),
    shape=(128, 144, 128),
    labels=dict(sorted(NAMES.items())),
    preprocessing=(
        "as delivered: affinely aligned to MNI152, 2 mm",
        "skull stripped by the segmentation: what has no label becomes 0 (the paper does not name its tool)",
        "28 structures kept: the 16 of the paper's Fig. 5, twelve of them on both sides",
        "resampled to 1.4 mm (the paper states the size and not the spacing), centre crop to 128 x 144 x 128",
        "intensities from minimum to maximum as 0 to 1",
        "30 scans to test, drawn with seed 0, and 10 of the others to validation (the paper draws and does not list)",
    ),
    sources=tuple(
        Source(f"SchizBull_2008_{group}_segimgreg_V1.2.tar.gz", ()) for group in ("BPDwoPsy", "BPDwPsy", "HC", "SS")
    ),
    options={"spacing": 1.4},
)


def convert(case: Case, variant: Variant) -> Prepared:
    """Strip, resample, crop, scale."""
    image, labels = read_pair(case)
    grid = image.grid.with_spacing(variant.options["spacing"])
    image, labels = resample(masked(image, labels), grid), resample(labels, grid)
    image = normalise(image, percentiles=(0, 100))
    labels = relabelled(labels, {number: number for number in variant.labels})
    return centred_pair(image, labels, variant.shape)


DATASET = Dataset(
    name="candi",
    title="CANDI Share (SchizBull 2008)",
    licence="as stated on the project's page at NITRC (research, non-commercial)",
    terms="https://www.nitrc.org/projects/candi_share/",
    citation="Kennedy et al. 2012, doi:10.1007/s12021-011-9133-y; Frazier et al. 2008, doi:10.1093/schbul/sbm120",
    steps=(
        "make a free account on www.nitrc.org, accept the terms of the project candi_share, and download the four "
        "archives «Img+Seg+Reg V1.2» (SchizBull_2008_GROUP_segimgreg_V1.2.tar.gz) into one folder."
    ),
    variants={"paper": PAPER},
    find=find,
    split=shuffled,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
