"""Tutorial 03 by hand: five losses, the slope of a curve, and the MSE over a part of the image."""

import torch
import torch.nn.functional as F

from regkit.course.check.hands import by_hand

__all__ = [
    "information_by_hand",
    "lncc_by_hand",
    "mix_by_hand",
    "mse_by_hand",
    "ncc_by_hand",
    "overlap_by_hand",
    "slope_by_hand",
]


def _two_images():
    a, b = torch.rand(2, 1, 1, 11, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [(a, b), (a, 3 - 2 * a), ((4 * a).round(), (4 * b).round())]


@by_hand(_two_images)
def mse_by_hand(a, b):
    """The mean squared difference, one number. a, b: (1, 1, H, W)."""
    return (a - b).square().mean()


@by_hand(_two_images)
def ncc_by_hand(a, b):
    """1 minus the correlation, one number from 0 to 2. a, b: (1, 1, H, W)."""
    a, b = a - a.mean(), b - b.mean()
    return 1 - (a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()


@by_hand(lambda: [*_two_images(), (_two_images()[0][0], torch.zeros(1, 1, 11, 14, dtype=torch.float64))])
def lncc_by_hand(a, b, window=9, epsilon=1e-5):
    """Minus the squared correlation in windows, their mean. a, b: (1, 1, H, W); window: odd."""

    def total(image):  # the sum over the window around each voxel; outside the image lie zeros
        return window**2 * F.avg_pool2d(image, window, stride=1, padding=window // 2)

    cross = total(a * b) - total(a) * total(b) / window**2
    variance_a = total(a * a) - total(a) ** 2 / window**2
    variance_b = total(b * b) - total(b) ** 2 / window**2
    return -(cross**2 / (variance_a * variance_b + epsilon)).mean()


def _scales():
    rows = [0.9, 0.05, 0.02, 0.03, 0.01], [0.5, 0.6, 0.7, 0.8, 0.9], [0.4, 0.3, 0.02, 0.0, 0.0], [0.3, 0.1, 0.04]
    return [(torch.tensor(row, dtype=torch.float64, requires_grad=True),) for row in rows]


@by_hand(_scales)
def mix_by_hand(s, alpha=0.1, beta=1.3):
    """Mix the NCC of several scales into one loss. s: (scales,), from fine to coarse."""
    g, coarsest = s[0], len(s) - 1
    for i in range(1, len(s)):
        gamma = (s[i].detach() * beta ** (coarsest - i) / alpha).clamp(0, 1)
        g = gamma * s[i] + (1 - gamma) * g
    return g


@by_hand(lambda: [(lambda x: x**3, 2.0, 0.5), (lambda x: x**3 - x, -1.0, 0.25)])
def slope_by_hand(f, x, h):
    """The slope of f at x, by a central difference. f: from number to number; h: the step."""
    return (f(x + h) - f(x - h)) / (2 * h)


def _masked():
    a, b = torch.rand(2, 1, 1, 5, 8, generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(8) > 2).expand(1, 1, 5, 8).float()
    return [(a, b, mask), (a, b, mask.flip(3)), (a, b, torch.ones_like(a))]


@by_hand(_masked)
def overlap_by_hand(a, b, mask):
    """The MSE over a part of the image. a, b: (1, 1, H, W); mask: the same, 1 where a voxel counts, else 0."""
    return (mask * (a - b).square()).sum() / mask.sum()


def _histograms():
    counts = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [2], [0], [3], [1], [1]]
    )
    return [(counts / counts.sum(),), (torch.eye(4).flip(0) / 4,)]


@by_hand(_histograms)
def information_by_hand(p):
    """I of a joint histogram p, (bins, bins), one number in nats. A bin that nothing meets counts 0."""
    p_a, p_b = p.sum(1, keepdim=True), p.sum(0, keepdim=True)
    return (p * torch.log(p / (p_a * p_b)))[p > 0].sum()
