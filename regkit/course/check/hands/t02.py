"""Tutorial 02 by hand: push, pull, compose, carry a point, and give a voxel the label with the largest share."""

import torch

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = ["carry_by_hand", "compose_by_hand", "largest_by_hand", "pull_by_hand", "push_by_hand"]


def _image_and_arrows():
    draw = torch.Generator().manual_seed(0)
    image, arrows = torch.rand(6, 9, generator=draw), 2 * torch.randn(2, 6, 9, generator=draw)
    return [(image, arrows), (image, 2 * arrows)]


@by_hand(_image_and_arrows)
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


@by_hand(_image_and_arrows)
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


@by_hand(_two_fields)
def compose_by_hand(u, v):
    """One displacement for two warps, first by u and then by v; all (1, 2, H, W), voxels."""
    return v + fields.warp(u, v)


def _labels():
    draw = torch.Generator().manual_seed(2)
    names = torch.tensor([0, 1, 3])
    labels = names[torch.randint(0, 3, (1, 1, 6, 9), generator=draw)]
    return [(labels, torch.randn(1, 2, 6, 9, generator=draw), names)]


@by_hand(_labels)
def largest_by_hand(labels, u, names):
    """Warp labels by the largest share. labels: (1, 1, H, W), of `names`; u: (1, 2, H, W), voxels."""
    masks = (labels == names.view(1, -1, 1, 1)).float()  # (1, names, H, W)
    return names[fields.warp(masks, u).argmax(dim=1, keepdim=True)]


def _points():
    draw = torch.Generator().manual_seed(3)
    return [(torch.tensor([[1.0, 6.0], [3.25, 2.5]]), torch.randn(1, 2, 6, 9, generator=draw))]


@by_hand(_points)
def carry_by_hand(points, u):
    """Points of the fixed image in the moving image. points: (N, 2), row and column; u: (1, 2, H, W), voxels."""
    arrows = fields.sample(u, points.T[None, ..., None])[0, ..., 0]  # (2, N)
    return points + arrows.T
