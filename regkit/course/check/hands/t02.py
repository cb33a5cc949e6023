"""Tutorial 02 by hand: push, pull, compose, carry a point, and give a voxel the label with the largest share."""

import torch

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = ["carry_by_hand", "compose_by_hand", "largest_by_hand", "pull_by_hand", "push_by_hand"]


def _image_and_arrows():
    draw = torch.Generator().manual_seed(0)
    image, arrows = torch.rand(6, 9, generator=draw), 2 * torch.randn(2, 6, 9, generator=draw)
    return [(image, arrows), (image, 2 * arrows)]


@by_hand(
    "Write the two lines: where the voxel (row, column) is carried to, along axis 0 and along axis 1.",
    praise="each voxel is carried along its own arrow, to the nearest voxel.",
    calls=_image_and_arrows,
    mistakes={
        "against the arrow": ("+ u", "- u", "this goes against the arrow: to push is to add u."),
        "axes swapped": ("u[0", "u[1", "u[0] leads along axis 0 (down), u[1] along axis 1 (right)."),
        "only down": ("column + u[1, row, column].item()", "column", "the arrow leads along axis 1, too: add u[1]."),
        "cut off": ("round(", "int(", "int() cuts off what follows the point: 3.9 becomes 3. Take round()."),
        "own voxel": ("row + u", "u", "the arrow alone is no place: it starts at the voxel, so add row, and column."),
    },
    otherwise="the voxel (row, column) goes to row + u[0, row, column] and column + u[1, row, column], both rounded.",
)
def push_by_hand(image, u):
    """Carry each voxel along its arrow, to the nearest voxel. image: (H, W); u: (2, H, W), voxels."""
    height, width = image.shape
    pushed = torch.full_like(image, torch.nan)  # NaN: nothing has arrived here
    for row in range(height):
        for column in range(width):
            down = round(row + u[0, row, column].item())
            right = round(column + u[1, row, column].item())
            if 0 <= down < height and 0 <= right < width:
                pushed[down, right] = image[row, column]
    return pushed


@by_hand(
    "Write the four lines: where the voxel reads (down, right), how far that is from the voxel above and left of it "
    "(a, b), and the mean of the four values around it.",
    praise="each voxel of the result reads once, in the mean of four voxels, the nearer the heavier.",
    calls=_image_and_arrows,
    mistakes={
        "against the arrow": ("+ u", "- u", "this reads against the arrow: warped(x) = moving(x + u(x))."),
        "weights swapped": (
            "1.0 - a, a",
            "a, 1.0 - a",
            "the weights are swapped: where a is 0, the upper row counts alone.",
        ),
        "axes swapped": ("u[0", "u[1", "u[0] leads along axis 0 (down), u[1] along axis 1 (right)."),
        "mean of four": (
            "torch.tensor([1.0 - a, a]) @ four @ torch.tensor([1.0 - b, b])",
            "four.mean()",
            "this is the plain mean of the four. The nearer a voxel, the heavier: use a and b.",
        ),
        "nearest": (
            "torch.tensor([1.0 - a, a]) @ four @ torch.tensor([1.0 - b, b])",
            "four[round(a), round(b)]",
            "this takes the nearest of the four. A mean of all four is wanted, with a and b as weights.",
        ),
    },
    otherwise="down is row + u[0, row, column]; a is down - top; the upper two voxels weigh 1 - a together, the lower "
    "two a; the left two 1 - b, the right two b.",
)
def pull_by_hand(image, u):
    """Each voxel fetches what lies where its arrow ends. image: (H, W); u: (2, H, W), voxels."""
    height, width = image.shape
    warped = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            down, right = row + u[0, row, column].item(), column + u[1, row, column].item()
            down, right = min(max(down, 0), height - 1), min(max(right, 0), width - 1)  # the border goes on
            top, left = min(int(down), height - 2), min(int(right), width - 2)
            four = image[top : top + 2, left : left + 2]  # the voxels around it
            a, b = down - top, right - left
            warped[row, column] = torch.tensor([1.0 - a, a]) @ four @ torch.tensor([1.0 - b, b])
    return warped


def _two_fields():
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(1, 2, 6, 9, generator=draw), torch.randn(1, 2, 6, 9, generator=draw))]


@by_hand(
    "Write the one line: the displacement that does what warping by u and then by v does.",
    praise="v, and u read where v leads. As maps it is φ_u after φ_v.",
    calls=_two_fields,
    mistakes={
        "added": (
            "fields.warp(u, v)",
            "u",
            "displacements do not add: u is wanted at x + v(x), not at x. Warp u by v.",
        ),
        "other order": (
            "v + fields.warp(u, v)",
            "u + fields.warp(v, u)",
            "this is compose(v, u). The last warp looks first: start with v, and read u where it leads.",
        ),
        "warped alone": ("v + fields", "fields", "this is u where v leads. The way there, v itself, is missing."),
        "v warped": ("fields.warp(u, v)", "fields.warp(v, v)", "u does not occur: what is read at x + v(x) is u."),
    },
    otherwise="compose(u, v)(x) = v(x) + u(x + v(x)), and u(x + v(x)) is fields.warp(u, v).",
)
def compose_by_hand(u, v):
    """One displacement for two warps, first by u and then by v; all (1, 2, H, W), voxels."""
    return v + fields.warp(u, v)


def _labels():
    draw = torch.Generator().manual_seed(2)
    names = torch.tensor([0, 1, 3])
    labels = names[torch.randint(0, 3, (1, 1, 6, 9), generator=draw)]
    return [(labels, torch.randn(1, 2, 6, 9, generator=draw), names)]


@by_hand(
    "Write the two lines: warp one mask for each label, and name the label whose mask is largest.",
    praise="shares are mixed, names never.",
    calls=_labels,
    mistakes={
        "numbers mixed": (
            "names[fields.warp(masks, u).argmax(dim=1, keepdim=True)]",
            "fields.warp(labels.float(), u).round()",
            "this mixes the labels' numbers: between 1 and 3 lies no 2. Warp the masks.",
        ),
        "a mask's number": (
            "names[fields.warp(masks, u).argmax(dim=1, keepdim=True)]",
            "fields.warp(masks, u).argmax(dim=1, keepdim=True)",
            "this is the number of the mask, from 0 on. Its label is `names` at that number.",
        ),
        "smallest": ("argmax", "argmin", "this is the label with the smallest share."),
        "shares": (
            ".argmax(dim=1, keepdim=True)",
            ".amax(dim=1, keepdim=True).long()",
            "this is how large the share is. Whose it is says argmax.",
        ),
        "not warped": ("fields.warp(masks, u)", "masks", "nothing moves here: warp the masks by u."),
    },
    otherwise="fields.warp(masks, u) has the share of each label in axis 1; argmax says whose is largest.",
)
def largest_by_hand(labels, u, names):
    """Warp labels by the largest share. labels: (1, 1, H, W), of `names`; u: (1, 2, H, W), voxels."""
    masks = (labels == names.view(1, -1, 1, 1)).float()  # (1, names, H, W)
    return names[fields.warp(masks, u).argmax(dim=1, keepdim=True)]


def _points():
    draw = torch.Generator().manual_seed(3)
    return [(torch.tensor([[1.0, 6.0], [3.25, 2.5]]), torch.randn(1, 2, 6, 9, generator=draw))]


@by_hand(
    "Write the two lines: u read at the points, and where they go.",
    praise="a point of the fixed image goes along its own arrow, into the moving image.",
    calls=_points,
    mistakes={
        "against the arrow": (
            "points + ",
            "points - ",
            "the arrow at x points to the place in the moving image: add it.",
        ),
        "arrow alone": ("points + ", "", "this is the arrow. It starts at the point: add that."),
        "columns first": (
            "arrows.T",
            "arrows.T.flip(1)",
            "row and column are swapped: channel 0 of u leads along axis 0.",
        ),
        "whole voxels": (
            "points.T[None, ..., None]",
            "points.T[None, ..., None].floor()",
            "u is read at a neighbouring voxel. Give `sample` the points as they are: it reads in between.",
        ),
    },
    otherwise="fields.sample reads u at (1, 2, N, 1), rows and columns, and gives (1, 2, N, 1); p goes to p + u(p).",
)
def carry_by_hand(points, u):
    """Points of the fixed image in the moving image. points: (N, 2), row and column; u: (1, 2, H, W), voxels."""
    arrows = fields.sample(u, points.T[None, ..., None])[0, ..., 0]  # (2, N)
    return points + arrows.T
