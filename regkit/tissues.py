"""Tissue without labels: the classes of intensity inside a brain, and how well they lie on each other.

Every scan by itself is divided into three classes, in T1 images fluid, grey and white matter: 3-means of the
intensities of its brain. Two scans of one contrast that are well registered have them in the same places.
"""

from __future__ import annotations

from statistics import fmean

import torch
from torch import Tensor

from regkit import metrics
from regkit.types import Image, Labels, check_finite, check_image

TISSUES = ("fluid", "grey", "white")  # of T1 images, by mean intensity: classes 1, 2, 3
_MOST_ROUNDS = 300


def tissue_classes(image: Image, count: int = len(TISSUES)) -> Labels:
    """The class of each voxel, 1 to `count` by mean intensity, (1, 1, *space); 0 outside the brain, where image = 0.

    image: (1, 1, *space), skull-stripped: all that is not 0 is brain.

    Raises:
        TypeError, ValueError: no image, several, NaN; a brain of fewer different intensities than classes.
    Source: Lloyd's algorithm (1982) in one dimension, from the quantiles (i + 1/2) / count.
    """
    check_image(image)
    check_finite(image, "image")
    if image.shape[:2] != (1, 1) or count < 1:
        raise ValueError(
            f"classes are those of one image of one channel, 1 or more, received shape {tuple(image.shape)} and "
            f"{count}; take one item."
        )
    brain = image != 0
    thresholds = _thresholds(image[brain].double(), count)
    return torch.where(brain, torch.bucketize(image.double(), thresholds, right=True) + 1, 0)


def tissue_dice(warped: Labels, fixed: Labels) -> float:
    """The mean Dice of the classes of two scans on one grid, as of `tissue_classes`.

    Raises:
        TypeError, ValueError: as `metrics.dice`.
    """
    return fmean(metrics.dice(warped, fixed).values())


def _thresholds(values: Tensor, count: int) -> Tensor:
    """Between the classes of some values (N,): the middles of the centres on both sides, (count - 1,)."""
    values = values.sort().values
    if len(values) == 0 or (values[1:] != values[:-1]).sum() + 1 < count:
        raise ValueError(
            f"a brain needs {count} different intensities to have {count} classes, received {len(values)} voxels that "
            f"are not 0; give a skull-stripped image, not labels or a mask."
        )
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    centres = values[((torch.arange(count) + 0.5) / count * len(values)).long()]
    ends = torch.tensor([0, len(values)])
    for _ in range(_MOST_ROUNDS):
        thresholds = (centres[1:] + centres[:-1]) / 2
        borders = torch.cat([ends[:1], torch.searchsorted(values, thresholds), ends[1:]])
        sizes = borders.diff()
        means = torch.where(sizes > 0, sums[borders].diff() / sizes.clamp(min=1), centres)
        if torch.equal(means, centres):
            break
        centres = means
    return (centres[1:] + centres[:-1]) / 2
