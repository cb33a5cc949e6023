"""Tutorial 00 by hand: read an image where arrows end, the loss, and how far two shapes overlap."""

import torch

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = ["overlap", "pair_loss", "pull"]


def _image_and_arrows():
    draw = torch.Generator().manual_seed(0)
    image, arrows = torch.rand(1, 1, 5, 8, generator=draw), torch.randn(1, 2, 5, 8, generator=draw)
    return [(image, arrows), (image, 3 * arrows), (image, arrows.round())]


@by_hand(
    "Write the one line: the place that each voxel reads.",
    praise="each voxel reads where its arrow ends.",
    calls=_image_and_arrows,
    mistakes={
        "against the arrow": ("+ u", "- u", "this reads at x - u(x), against the arrow. Add the arrow to the place."),
        "arrow alone": (
            "torch.stack([rows, columns]) + u",
            "u",
            "these are the arrows alone. An arrow starts at its own voxel: add the row and the column.",
        ),
        "nothing moves": ("+ u", "+ 0 * u", "each voxel reads itself, so nothing moves. Where is the arrow?"),
        "columns first": ("[rows, columns]", "[columns, rows]", "rows come first (axis 0), columns second (axis 1)."),
        "rows twice": (
            "torch.stack([rows, columns])",
            "rows",
            "the row is added to both parts of the arrow. Its second part wants the column.",
        ),
    },
    otherwise="the place is the voxel's row and column, stacked in this order, plus its arrow u.",
)
def pull(image, u):
    """Each voxel fetches what lies where its arrow ends. image: (1, 1, H, W); u: (1, 2, H, W), voxels."""
    height, width = image.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows, columns]) + u  # (1, 2, H, W), voxels
    return fields.sample(image, places)  # between voxels: a mean of the voxels around the place


def _images_and_velocity():
    draw = torch.Generator().manual_seed(1)
    warped, fixed = torch.rand(2, 1, 1, 5, 8, generator=draw)
    return [(warped, fixed, torch.randn(1, 2, 5, 8, generator=draw), weight) for weight in (0.25, 2.0)]


@by_hand(
    "Write the three lines: the misfit, the roughness, and the loss.",
    praise="one number says how good an answer is: the misfit, and a small price for roughness.",
    calls=_images_and_velocity,
    mistakes={
        "summed": ("fixed) ** 2).mean", "fixed) ** 2).sum", "a sum of squares grows with the image. Take the mean."),
        "not squared": (
            "((warped - fixed) ** 2)",
            "(warped - fixed)",
            "in the misfit, positive and negative differences cancel. Square them before you take the mean.",
        ),
        "absolute": ("((warped - fixed) ** 2)", "(warped - fixed).abs()", "the misfit wants squares, not sizes."),
        "down only": (
            "((down**2).mean() + (right**2).mean()) / 2",
            "(down**2).mean()",
            "the roughness looks along one axis only. `right` counts as much as `down`.",
        ),
        "twice as rough": (
            ") / 2",
            ")",
            "the roughness is twice too large: the mean of the two is wanted, not the sum.",
        ),
        "rough differences": (
            "((down**2).mean() + (right**2).mean())",
            "(down.mean() + right.mean())",
            "in the roughness, differences of both signs cancel. Square them first.",
        ),
        "no weight": ("weight * roughness", "roughness", "the roughness counts in full here. Multiply it by `weight`."),
        "rewarded": ("misfit + ", "misfit - ", "a minus rewards rough answers: a loss is better when it is lower."),
        "the other's weight": (
            "misfit + weight * roughness",
            "weight * misfit + roughness",
            "the weight belongs to the roughness, not to the misfit.",
        ),
    },
    otherwise="square, then take the mean: of warped - fixed for the misfit; of down and of right for the roughness, "
    "half of each. The loss is the misfit plus weight times the roughness.",
)
def pair_loss(warped, fixed, v, weight):
    """How bad an answer is, one number. warped, fixed: (1, 1, H, W); v: (1, 2, H, W), its velocity."""
    misfit = ((warped - fixed) ** 2).mean()
    down, right = v.diff(dim=2), v.diff(dim=3)  # from each voxel to the next one, along axis 0 and 1
    roughness = ((down**2).mean() + (right**2).mean()) / 2
    return misfit + weight * roughness


def _two_shapes():
    whole = torch.ones(1, 1, 5, 7, dtype=torch.bool)
    draw = torch.Generator().manual_seed(2)
    first, second = torch.rand(2, 1, 1, 5, 7, generator=draw) > torch.tensor([0.3, 0.6]).view(2, 1, 1, 1, 1)
    return [(first, second), (second, whole), (first, ~first)]


@by_hand(
    "Write the two lines: how many voxels the shapes share, and Dice.",
    praise="1 for the same shape, 0 for shapes that share no voxel.",
    calls=_two_shapes,
    mistakes={
        "half": (
            "2 * shared",
            "shared",
            "two equal shapes give 0.5 here: their voxels are counted twice below the line.",
        ),
        "of the union": (
            "2 * shared / (first.sum() + second.sum())",
            "shared / (first | second).sum()",
            "this is the Jaccard index: it divides by the voxels in either shape. Dice divides by both sizes, added.",
        ),
        "or": ("first & second", "first | second", "| counts voxels in either shape. Those in both are wanted: &."),
        "of one": (
            "2 * shared / (first.sum() + second.sum())",
            "shared / first.sum()",
            "this is the share of the first shape alone: a second shape that covers everything would get 1.",
        ),
        "a count": (
            " / (first.sum() + second.sum())",
            "",
            "this is a number of voxels. Divide it by both sizes, added.",
        ),
    },
    otherwise="count the voxels of both with (first & second).sum(); Dice is twice that, divided by both sizes, added.",
)
def overlap(first, second):
    """Dice of two shapes, from 0 to 1. first, second: (1, 1, H, W), True inside the shape."""
    shared = (first & second).sum()
    return 2 * shared / (first.sum() + second.sum())
