"""Learn2Reg abdominal CT: 30 patients, 13 organs; SACB-Net's window, crop and split."""

import sys

from data_scripts.common.command import main
from data_scripts.common.datasets import Case, Dataset, Prepared, Variant, centred_pair, find, in_order, read_pair
from data_scripts.common.fetching import Source
from regkit.images import normalise

ORGANS = (
    "spleen, right kidney, left kidney, gallbladder, oesophagus, liver, stomach, aorta, inferior vena cava, "
    "portal and splenic vein, pancreas, left adrenal gland, right adrenal gland"
)

PAPER = Variant(
    protocols=("sacbnet/abdomen",),
    files={"image": "imagesTr/{id}_0000.nii.gz", "labels": "labelsTr/{id}_0000.nii.gz"},
    counts=(19, 3, 8),
    shape=(192, 160, 224),
    labels=dict(enumerate(ORGANS.split(", "), start=1)),
    preprocessing=(
        "as delivered: 2 mm, 192 x 160 x 256",
        "Hounsfield units from -1000 to 1000, clamped, as 0 to 1",
        "centre crop to 192 x 160 x 224",
        "split by the order of the names (the paper gives its sizes and does not list it)",
    ),
    sources=(
        Source("AbdomenCTCT.zip", ("https://cloud.imi.uni-luebeck.de/s/32WaSRaTnFk2JeT/download/AbdomenCTCT.zip",)),
    ),
    options={"window": (-1000.0, 1000.0)},
)


def convert(case: Case, variant: Variant) -> Prepared:
    """Window, then crop."""
    image, labels = read_pair(case)
    image = normalise(image, window=variant.options["window"])
    return centred_pair(image, labels, variant.shape)


DATASET = Dataset(
    name="abdomen",
    title="Learn2Reg abdominal CT",
    licence="as published with the challenge (scans from BTCV and TCIA)",
    terms="https://learn2reg.grand-challenge.org/Datasets/",
    citation="Xu et al. 2016, doi:10.1109/TBME.2016.2574574; Hering et al. 2022, doi:10.1109/TMI.2022.3213983",
    steps="fetched unattended; read and accept the challenge's terms first.",
    variants={"paper": PAPER},
    find=find,
    split=in_order,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
