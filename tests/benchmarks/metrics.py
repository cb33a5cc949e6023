"""Overlap and surface distances of 35 structures, and the other metrics of one pair."""

import numpy as np
import torch
from harness import compare, peer
from torch import Tensor

from regkit import metrics
from regkit.fields import identity, resize_displacement, warp_labels

STRUCTURES = 35
SPACING = (1.0, 1.2, 0.8)


def label_pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """35 structures that fill an ellipsoid, each what is nearest to its seed, and the same deformed by some voxels."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(shape)
    seeds = (0.5 + 0.35 * (2 * torch.rand(STRUCTURES, 3, generator=generator) - 1)) * size
    points = identity(shape)[0].flatten(1).T
    nearest = torch.cat([torch.cdist(part, seeds).argmin(1) for part in points.split(2**18)]) + 1
    inside = ((points / size - 0.5) ** 2).sum(1) < 0.22
    fixed = (nearest * inside).view(1, 1, *shape)
    displacement = resize_displacement(1.5 * torch.randn(1, 3, 8, 8, 8, generator=generator), shape)
    return warp_labels(fixed, displacement / displacement.std() * 2), fixed


def one_hot(labels: Tensor) -> Tensor:
    """(B, 1, *space) as floating-point masks (B, 36, *space)."""
    return torch.stack([(labels[:, 0] == label).float() for label in range(STRUCTURES + 1)], 1)


def dice_by_masks(first: np.ndarray, second: np.ndarray) -> list[float]:
    """Two masks for each label, as VoxelMorph's utilities do."""
    scores = []
    for label in range(1, STRUCTURES + 1):
        one, other = first == label, second == label
        scores.append(2 * np.logical_and(one, other).sum() / max(one.sum() + other.sum(), 1))
    return scores


def run(quick: bool) -> None:
    """Dice against masks and MONAI, surfaces against MONAI, folds and consistency alone."""
    shape = (64, 72, 56) if quick else (160, 192, 160)
    volume = int(np.prod(shape))
    first, second = label_pair(shape)
    arrays = first[0, 0].numpy(), second[0, 0].numpy()
    monai = peer("monai.metrics")
    masks = one_hot(first), one_hot(second)
    compare(
        f"Dice, {STRUCTURES} labels, {shape}",
        {
            "regkit": lambda: metrics.dice(first, second),
            "masks, as VoxelMorph": lambda: dice_by_masks(*arrays),
            "MONAI, of one-hot masks": monai and (lambda: monai.compute_dice(*masks, include_background=False)),
        },
        goal="best peer >= 10",
        volume=volume,
    )

    def monai_surfaces() -> tuple[Tensor, Tensor]:
        hausdorff = monai.compute_hausdorff_distance(*masks, percentile=95, spacing=SPACING)
        return hausdorff, monai.compute_average_surface_distance(*masks, symmetric=True, spacing=SPACING)

    compare(
        f"HD95 and ASSD, {STRUCTURES} labels, {shape}",
        {
            "regkit": lambda: metrics.surface_distances(first, second, spacing=SPACING),
            "MONAI, of one-hot masks": monai and monai_surfaces,
        },
        goal="best peer >= 6; about 2.3 volumes",
        repeats=3,
        volume=volume,
    )
    if monai is not None:
        _report_difference(first, second, *monai_surfaces())


def _report_difference(first: Tensor, second: Tensor, hausdorff: Tensor, average: Tensor) -> None:
    """How far regkit's numbers are from MONAI's, over the structures that both images have."""
    found = metrics.surface_distances(first, second, spacing=SPACING)
    differences = [
        max(abs(value.hd95 - hausdorff[0, label - 1].item()), abs(value.assd - average[0, label - 1].item()))
        for label, value in found.items()
    ]
    print(f"  largest difference from MONAI: {max(differences):.1e} mm over {len(found)} structures (asked: 1e-4)")
