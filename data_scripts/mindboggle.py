"""Mindboggle-101: 62 adult brains with cortical labels drawn by hand; SPnet's crop and split."""

import sys
from collections.abc import Sequence

from data_scripts.common import datasets
from data_scripts.common.command import main
from data_scripts.common.datasets import Case, Dataset, Files, Prepared, Splits, Variant
from data_scripts.common.fetching import Source
from regkit.images import normalise

COHORTS = ("NKI-RS-22", "NKI-TRT-20", "OASIS-TRT-20")  # the last is the test set

PAPER = Variant(
    protocols=("spnet/mindboggle",),
    files={"image": "{id}/t1weighted_brain.MNI152.nii.gz", "labels": "{id}/labels.DKT31.manual.MNI152.nii.gz"},
    counts=(42, 0, 20),
    shape=(160, 192, 160),
    labels=datasets.unnamed(side + number for side in (1000, 2000) for number in range(1, 36)),
    preprocessing=(
        "as delivered: skull-stripped, affinely aligned to MNI152, 1 mm, 182 x 218 x 182",
        "intensities from minimum to maximum as 0 to 1 (the paper does not state its scaling)",
        "centre crop to 160 x 192 x 160",
        "42 scans of NKI-RS-22 and NKI-TRT-20 to train and the 20 of OASIS-TRT-20 to test: the paper gives the "
        "numbers and refers to Kuang and Schmah 2019",
        "the paper has no validation: three pairs of training scans stand in",
    ),
    sources=(
        Source(
            "Mindboggle101_release3.zip",
            ("https://zenodo.org/records/22070005/files/Mindboggle101_release3.zip?download=1",),
            "sha256:56dfca8fed2f80740c763c0bf05e48cc736eb793ee1511f621ef5f82eb08f26e",
            5_232_272_873,
            published_by="torch-em (the record itself publishes the MD5 7178353814033f9f56dc97bdef2d68e4)",
        ),
    ),
    nested=tuple(f"{cohort}_volumes.tar.gz" for cohort in COHORTS),
)


def cohorts(files: Files, variant: Variant) -> list[Case]:
    """The scans of the three cohorts, one cohort after the other."""
    kept = Files(files.folders)
    kept.paths = [path for path in files.paths if path.parent.name.startswith(COHORTS)]
    cases = datasets.find(kept, variant) if kept.paths else []
    datasets.check_number([case.id for case in cases], variant.total, files, variant)
    return [case for cohort in COHORTS for case in cases if case.id.startswith(f"{cohort}-")]


def split(cases: Sequence[Case], files: Files, variant: Variant) -> Splits:
    """By cohort."""
    splits = datasets.in_order(cases, files, variant)
    return {**splits, "validation": datasets.standing_in(splits["train"])}


def convert(case: Case, variant: Variant) -> Prepared:
    """Scale, then crop."""
    image, labels = datasets.read_pair(case)
    image = normalise(image, percentiles=(0, 100))
    return datasets.centred_pair(image, labels, variant.shape)


DATASET = Dataset(
    name="mindboggle",
    title="Mindboggle-101",
    licence="CC BY 4.0 of the record; the scans keep the terms of their cohorts (NKI, OASIS)",
    terms="https://doi.org/10.5281/zenodo.22070005",
    citation="Klein and Tourville 2012, doi:10.3389/fnins.2012.00171",
    steps="fetched unattended.",
    variants={"paper": PAPER},
    find=cohorts,
    split=split,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
