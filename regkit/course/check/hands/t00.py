"""Tutorial 00 by hand: read an image where arrows end, the loss, and how far two shapes overlap."""

import torch

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = ["overlap", "pair_loss", "pull"]


def _image_and_arrows():
    draw = torch.Generator().manual_seed(0)
    image, arrows = torch.rand(1, 1, 5, 8, generator=draw), torch.randn(1, 2, 5, 8, generator=draw)
    return [(image, arrows), (image, 3 * arrows), (image, arrows.round())]


@by_hand(_image_and_arrows)
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


@by_hand(_images_and_velocity)
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


@by_hand(_two_shapes)
def overlap(first, second):
    """Dice of two shapes, from 0 to 1. first, second: (1, 1, H, W), True inside the shape."""
    shared = (first & second).sum()
    return 2 * shared / (first.sum() + second.sum())
