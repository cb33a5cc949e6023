"""Tutorial 13 by hand: Dice of a structure, surfaces, folds, the signed-rank test, and Holm's correction."""

import numpy as np
import torch

from regkit.course.check.hands import by_hand

__all__ = ["distances_by_hand", "folds_percent", "holm_by_hand", "ranks_by_hand", "structure_dice", "surface_by_hand"]


def _labels():
    draw = torch.Generator().manual_seed(0)
    return [(*torch.randint(0, 4, (2, 1, 1, 6, 9), generator=draw), label) for label in (1, 3)]


@by_hand(_labels)
def structure_dice(first, second, label):
    """2 |A ∩ B| / (|A| + |B|) of one structure. first, second: labels of one shape; label: the structure's."""
    a, b = first == label, second == label
    both = (a & b).sum().item()
    return 2 * both / (a.sum() + b.sum()).item()


def _masks():
    down, right = torch.meshgrid(torch.arange(14), torch.arange(18), indexing="ij")
    return [(((down - 6) ** 2 + (right - c) ** 2 < r**2), (1.5, 2.0)) for c, r in ((7, 3.2), (9, 4.6))]


def surface(mask, spacing):
    """The places (N, 2), mm, of voxels with a neighbour outside; none touches the border. mask: (H, W); spacing: mm."""
    inside = mask.clone()
    for axis in (0, 1):
        inside = inside & mask.roll(1, axis) & mask.roll(-1, axis)
    rim = mask & ~inside
    return rim.nonzero() * torch.tensor(spacing)


surface_by_hand = by_hand(_masks)(surface)


def _surfaces():
    draw = torch.Generator().manual_seed(1)
    wide, narrow = 12 * torch.rand(40, 2, generator=draw), 5 * torch.rand(30, 2, generator=draw) + 3
    return [(wide, narrow), (narrow, wide)]


@by_hand(_surfaces)
def distances_by_hand(first, second):
    """HD95 and ASSD, mm. first, second: the places of two surfaces, (N, 2) and (M, 2), mm."""
    between = torch.cdist(first, second)  # (N, M)
    there, back = between.amin(1), between.amin(0)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    assd = torch.cat([there, back]).mean().item()
    return hd95, assd


@by_hand(lambda: [(torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(2)).cumsum(1).cumsum(2) / 2,)])
def folds_percent(phi):
    """Percent of the cells where |J| <= 0. phi: where each voxel is carried, x + u(x), (2, H, W)."""
    d0 = phi.diff(dim=1)[:, :, :-1]  # ∂φ/∂x0 by the step to the next row: (2, H-1, W-1)
    d1 = phi.diff(dim=2)[:, :-1]
    determinant = d0[0] * d1[1] - d0[1] * d1[0]
    return 100 * (determinant <= 0).double().mean().item()


@by_hand(lambda: [(np.array(gains),) for gains in ([0.3, -0.1, 0.5, 0.2, -0.45], [-0.3, -0.2, 0.1, -0.7], [1.0, 2.0])])
def ranks_by_hand(gains):
    """The ranks by size, 1 for the smallest; the sum of those that fell; and the effect size, from -1 to 1."""
    ranks = np.abs(gains).argsort().argsort() + 1
    fallen = ranks[gains < 0].sum()
    effect = (ranks.sum() - 2 * fallen) / ranks.sum()
    return ranks, fallen, effect


def holm(p_values):
    """Corrected p, in the order given: each times the number of those not smaller, never below a smaller one's."""
    order = np.argsort(p_values)
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    rising = np.minimum(1, np.maximum.accumulate(scaled))
    corrected = np.empty(len(p_values))
    corrected[order] = rising
    return corrected


holm_by_hand = by_hand(lambda: [([0.01, 0.04, 0.03],), ([0.2, 0.005, 0.011, 0.6, 0.9],)])(holm)
