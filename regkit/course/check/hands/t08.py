"""Tutorial 08 by hand: two velocities' average, a level of SPnet, a round trip's error, the loss, a sampler."""

import torch
from torch.nn import functional as F

import regkit
from regkit import fields, losses
from regkit.course.check.hands import by_hand

__all__ = ["average_both_ways", "go_home", "level_by_hand", "one_direction", "pull_normalised"]


def _fields(seed, count, channels=2, size=(6, 9)):
    return torch.randn(count, 1, channels, *size, generator=torch.Generator().manual_seed(seed)).unbind()


@by_hand(lambda: [(lambda a, b: 2 * a - b**2, *_fields(0, 2))])
def average_both_ways(answer, a, b):
    """v = ½ [v̂(a, b) - v̂(b, a)]. answer: the function v̂ of two images."""
    there = answer(a, b)
    back = answer(b, a)
    return (there - back) / 2


@by_hand(lambda: [_fields(1, 2)])
def go_home(there, back):
    """Mean |E_i| over voxels and components of E(x) = back after there; displacements (B, 2, H, W), voxels."""
    error = fields.compose(back, there)
    return error.abs().mean()


def _level():
    generator = torch.Generator().manual_seed(2)
    weight = 0.2 * torch.randn(4, 8, 3, 3, generator=generator)

    def estimator(features):
        answer = F.conv2d(features, weight[:, : features.shape[1]], padding=1)
        return answer[:, :2], answer[:, 2:]

    a, b = _fields(3, 2)
    there, back = _fields(4, 2)
    return [(estimator, a, b, there, back, [there, a], [back, b])]


@by_hand(_level)
def level_by_hand(estimator, a, b, there, back, know_ab, know_ba):
    """One level: v, exp(v), exp(-v), and what the estimator hands on, for (A, B) and for (B, A).

    a, b: features. there, back: the maps so far, on this grid. know_ab, know_ba: what the estimator sees besides.
    """
    warped_a, warped_b = regkit.warp(a, there), regkit.warp(b, back)
    v_ab, handed_ab = estimator(torch.cat([warped_a, b, *know_ab], 1))
    v_ba, handed_ba = estimator(torch.cat([warped_b, a, *know_ba], 1))
    v = (v_ab - v_ba) / 2
    return v, regkit.exponential(v), regkit.exponential(-v), handed_ab, handed_ba


def _pyramids():
    sizes = ((36, 40), (18, 20), (9, 10))
    images = [[torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(n)) for size in sizes] for n in (5, 6)]
    return [(*images, [2 * _fields(7, 1, size=size)[0] for size in sizes])]


@by_hand(_pyramids)
def one_direction(moving, fixed, maps):
    """Σ over levels of lncc / 2^level. moving, fixed: images, fine to coarse; maps: displacements of these levels."""
    total = 0.0
    for level, (image, target, u) in enumerate(zip(moving, fixed, maps, strict=True)):
        window = 9 - 2 * level
        price = losses.lncc(regkit.warp(image, u), target, window=window)
        total = total + price / 2**level
    return total


def pull(image, displacement, align_corners):
    """image[x + u(x)], zero outside, by torch's grid_sample. image: (1, C, H, W); displacement: (1, 2, H, W)."""
    height, width = image.shape[2:]
    row, column = (fields.identity((height, width)) + displacement)[0]
    down = 2 * row / (height - 1) - 1
    right = 2 * column / (width - 1) - 1
    places = torch.stack([right, down], -1)
    return F.grid_sample(image, places[None], align_corners=align_corners)


pull_normalised = by_hand(lambda: [(*_fields(8, 1, 1), *_fields(9, 1), corners) for corners in (True, False)])(pull)
