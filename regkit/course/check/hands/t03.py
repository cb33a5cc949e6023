"""Tutorial 03 by hand: four losses, the slope of a curve, and the MSE over a part of the image."""

import torch
import torch.nn.functional as F

from regkit.course.check.hands import by_hand

__all__ = ["lncc_by_hand", "mix_by_hand", "mse_by_hand", "ncc_by_hand", "overlap_by_hand", "slope_by_hand"]


def _two_images():
    a, b = torch.rand(2, 1, 1, 11, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [(a, b), (a, 3 - 2 * a), ((4 * a).round(), (4 * b).round())]


@by_hand(
    "Write the one line: the mean of the squared differences.",
    praise="0 where both images are equal, and only there.",
    calls=_two_images,
    mistakes={
        "summed": (".mean()", ".sum()", "a sum grows with the image. Take the mean."),
        "not squared": (".square()", "", "differences of both signs cancel. Square them before you take the mean."),
        "absolute": (".square()", ".abs()", "this is the mean absolute difference. Squares are wanted."),
        "mean first": (
            ".square().mean()",
            ".mean().square()",
            "the mean comes first here, so that signs cancel. Square first.",
        ),
        "a root": (".mean()", ".mean().sqrt()", "this is the root of the MSE. The MSE itself is wanted."),
    },
    otherwise="subtract, square, take the mean over all voxels.",
)
def mse_by_hand(a, b):
    """The mean squared difference, one number. a, b: (1, 1, H, W)."""
    return (a - b).square().mean()


@by_hand(
    "Write the two lines: both images without their mean, and 1 minus their correlation.",
    praise="a gain and an offset change nothing.",
    calls=_two_images,
    mistakes={
        "not centred": (
            "a, b = a - a.mean(), b - b.mean()",
            "",
            "an offset still changes it: subtract each image's mean.",
        ),
        "correlation": (
            "1 - (a",
            "(a",
            "this is the correlation, 1 for a match. A loss is lowest for a match: 1 minus it.",
        ),
        "only minus": ("1 - (a", "-(a", "a perfect match gives -1 here. It has to give 0: 1 minus the correlation."),
        "no root": (
            ").sqrt()",
            ")",
            "a gain still changes it. The variances need a root: σ is the root of a variance.",
        ),
        "n - 1": (
            "(a.square().mean() * b.square().mean()).sqrt()",
            "(a.std() * b.std())",
            ".std() divides by N - 1, and .mean() by N. Use .mean() above and below the line.",
        ),
        "squared": (
            "(a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()",
            "(a * b).mean() ** 2 / (a.square().mean() * b.square().mean())",
            "the correlation is squared here, so an inverted image counts as a match. That is for LNCC.",
        ),
    },
    otherwise="subtract the means; cov is then the mean of the product, and σ the root of the mean square.",
)
def ncc_by_hand(a, b):
    """1 minus the correlation, one number from 0 to 2. a, b: (1, 1, H, W)."""
    a, b = a - a.mean(), b - b.mean()
    return 1 - (a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()


@by_hand(
    "Write the four lines: the covariance and both variances in each window, and the loss.",
    praise="in each window another gain and offset, and still a match.",
    calls=lambda: [*_two_images(), (_two_images()[0][0], torch.zeros(1, 1, 11, 14, dtype=torch.float64))],
    mistakes={
        "means kept": (
            "/ window**2",
            "* 0",
            "these are sums of products. Subtract the product of the totals, divided by the number of voxels.",
        ),
        "not divided": (
            "/ window**2",
            "",
            "the product of two totals is far too large. Divide it by the number of voxels in a window.",
        ),
        "not squared": ("cross**2", "cross", "the covariance is not squared: see the formula of LNCC."),
        "a root": (
            "cross**2 / (variance_a * variance_b + epsilon)",
            "cross / (variance_a * variance_b + epsilon).sqrt()",
            "this is the correlation of each window. LNCC takes its square: c squared, and no root below it.",
        ),
        "the other sign": ("-(cross", "(cross", "a match is best, so it has to be lowest: minus is missing."),
        "no epsilon": (" + epsilon", "", "in a flat window this divides 0 by 0. Add epsilon below the line."),
        "summed": (".mean()", ".sum()", "a sum grows with the image. Take the mean over all windows."),
        "means first": (
            "(cross**2 / (variance_a * variance_b + epsilon)).mean()",
            "cross.square().mean() / (variance_a * variance_b + epsilon).mean()",
            "divide in each window first, and take the mean of the ratios: a window counts as much as any other.",
        ),
    },
    otherwise="covariance: the total of a·b, minus total of a times total of b, divided by the voxels of a window. A "
    "variance is the covariance of an image with itself.",
)
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


@by_hand(
    "Write the two lines: the weight gamma, as a constant, and the new g.",
    praise="value and gradient: a coarse scale that fits badly counts alone, and no gradient flows through a weight.",
    calls=_scales,
    mistakes={
        "not detached": (
            ".detach()",
            "",
            "the value is right, the gradient is not: it also flows through gamma. A weight is a constant: .detach().",
        ),
        "all detached": (
            "gamma * s[i]",
            "gamma * s[i].detach()",
            "the value is right, but no gradient reaches s[i]. Only the s[i] inside gamma is detached.",
        ),
        "not clamped": (
            ".clamp(0, 1)",
            "",
            "gamma becomes larger than 1. A weight lies between 0 and 1: .clamp(0, 1).",
        ),
        "swapped": (
            "gamma * s[i] + (1 - gamma) * g",
            "gamma * g + (1 - gamma) * s[i]",
            "the weights are swapped: gamma belongs to the coarser scale, s[i].",
        ),
        "added": ("(1 - gamma) * g", "g", "the two weights do not add up to 1: g counts 1 - gamma."),
        "the finest alone": ("(1 - gamma) * g", "(1 - gamma) * s[0]", "the scales between are lost: mix s[i] with g."),
        "other powers": (
            "beta ** (coarsest - i)",
            "beta**i",
            "beta's power falls from fine to coarse; it is 0 at the last.",
        ),
        "times alpha": ("/ alpha", "* alpha", "alpha divides: a scale counts in full as soon as its s is above alpha."),
    },
    otherwise="gamma is clamp(s[i] · beta^(coarsest - i) / alpha, 0, 1), with s[i] detached; the new g is a mean of "
    "s[i] and the old g, with the weights gamma and 1 - gamma.",
)
def mix_by_hand(s, alpha=0.1, beta=1.3):
    """Mix the NCC of several scales into one loss. s: (scales,), from fine to coarse."""
    g, coarsest = s[0], len(s) - 1
    for i in range(1, len(s)):
        gamma = (s[i].detach() * beta ** (coarsest - i) / alpha).clamp(0, 1)
        g = gamma * s[i] + (1 - gamma) * g
    return g


@by_hand(
    "Write the one line: the central difference.",
    praise="the slope between two points, one step to either side.",
    calls=lambda: [(lambda x: x**3, 2.0, 0.5), (lambda x: x**3 - x, -1.0, 0.25)],
    mistakes={
        "one side": (
            "(f(x + h) - f(x - h)) / (2 * h)",
            "(f(x + h) - f(x)) / h",
            "this looks to one side only. Go h to both.",
        ),
        "one step": ("(2 * h)", "h", "twice too steep: from x - h to x + h it is two steps."),
        "a difference": (
            " / (2 * h)",
            "",
            "this is a difference of values. A slope is a difference for each unit of x.",
        ),
        "the other sign": (
            "f(x + h) - f(x - h)",
            "f(x - h) - f(x + h)",
            "the sign is wrong: a rising f has a positive slope.",
        ),
        "a mean": ("f(x + h) - f(x - h)", "f(x + h) + f(x - h)", "this adds the two values. Subtract them."),
    },
    otherwise="f at x + h, minus f at x - h, divided by how far these two are apart.",
)
def slope_by_hand(f, x, h):
    """The slope of f at x, by a central difference. f: from number to number; h: the step."""
    return (f(x + h) - f(x - h)) / (2 * h)


def _masked():
    a, b = torch.rand(2, 1, 1, 5, 8, generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(8) > 2).expand(1, 1, 5, 8).float()
    return [(a, b, mask), (a, b, mask.flip(3)), (a, b, torch.ones_like(a))]


@by_hand(
    "Write the one line: the mean of the squared differences over the voxels that count.",
    praise="what the mask leaves out does not count, above the line or below it.",
    calls=_masked,
    mistakes={
        "over all": (".sum() / mask.sum()", ".mean()", "this divides by all voxels. Divide by those that count."),
        "no mask": (
            "(mask * (a - b).square()).sum()",
            "(a - b).square().sum()",
            "voxels that do not count are in the sum: multiply by the mask.",
        ),
        "summed": (" / mask.sum()", "", "this is a sum. Divide it by the number of voxels that count."),
        "one image": (
            "mask * (a - b)",
            "(mask * a - b)",
            "the mask makes one image black, which adds errors. Mask the difference.",
        ),
        "the others": ("(mask *", "((1 - mask) *", "these are the voxels that do *not* count."),
    },
    otherwise="multiply the squared differences by the mask, add them up, divide by the sum of the mask.",
)
def overlap_by_hand(a, b, mask):
    """The MSE over a part of the image. a, b: (1, 1, H, W); mask: the same, 1 where a voxel counts, else 0."""
    return (mask * (a - b).square()).sum() / mask.sum()
