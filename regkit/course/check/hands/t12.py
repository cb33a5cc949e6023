"""Tutorial 12 by hand: a body stored otherwise, litres, an affine for other voxels, a contrast, bytes, and sides."""

import math

import numpy as np
import torch
from nibabel.affines import apply_affine

from regkit.course.check.hands import by_hand

__all__ = ["bytes_kept", "litres", "painted", "resampled_affine", "stored_otherwise", "to_the_right"]

LETTERS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
_AFFINE = np.array([[2.0, 0.2, 0.0, -30.0], [0.0, 1.5, 0.3, -40.0], [0.1, 0.0, 3.0, 12.0], [0.0, 0.0, 0.0, 1.0]])


def stored_as(letters, values, affine):
    """The same body with its axes stored otherwise: values in RAS, and their affine, to `letters`."""
    order, signs = zip(*(LETTERS[letter] for letter in letters), strict=True)
    backwards = [axis for axis in range(3) if signs[axis] < 0]
    turned = np.flip(values.transpose(order), backwards)
    back = np.zeros((4, 4))  # from the new voxels to the old ones
    back[3, 3] = 1
    for axis in range(3):
        back[order[axis], axis] = signs[axis]
        if axis in backwards:  # what was last is first now
            back[order[axis], 3] = values.shape[order[axis]] - 1
    return turned, affine @ back


def _bodies():
    values = np.random.default_rng(0).random((3, 4, 5))
    return [(letters, values, _AFFINE) for letters in ("LPS", "AIR", "RAS")]


stored_otherwise = by_hand(_bodies)(stored_as)


def _labels():
    labels = torch.randint(0, 4, (1, 1, 5, 6, 7), generator=torch.Generator().manual_seed(0))
    return [(100 * labels, (2.0, 40.0, 60.0)), (labels, (90.0, 100.0, 30.0))]


@by_hand(_labels)
def litres(labels, spacing):
    """The volume of all structures together, in litres. labels: whole numbers, 0 is the outside; spacing: mm."""
    count = (labels > 0).sum().item()
    millilitres = count * math.prod(spacing) / 1000
    return millilitres / 1000


@by_hand(lambda: [(_AFFINE, (10, 12, 9), (4, 4, 6)), (_AFFINE, (10, 12, 9), (10, 6, 18))])
def resampled_affine(affine, shape, new_shape):
    """The affine of an array of new_shape voxels that fills the same box as one of `shape` voxels with `affine`."""
    factors = np.array(shape) / np.array(new_shape)  # how many times as large a voxel is along each axis
    new = affine.copy()
    new[:3, :3] = affine[:3, :3] * factors
    new[:3, 3] = apply_affine(affine, factors / 2 - 0.5)
    return new


def _shares():
    draw = torch.Generator().manual_seed(1)
    return [(torch.rand(5, generator=draw), torch.rand(1, 5, 3, 4, 2, generator=draw).softmax(1))]


@by_hand(_shares)
def painted(intensities, shares):
    """Labels (1, 1, i, j, k) and image (1, 1, i, j, k). intensities: (S,); shares: (1, S, i, j, k)."""
    labels = shares.argmax(1, keepdim=True)
    image = torch.einsum("s,bsijk->bijk", intensities, shares)[:, None]
    return labels, image


@by_hand(lambda: [((24, 30, 20), (2, 16, 16)), ((5, 7, 9), (1, 4))])
def bytes_kept(size, received):
    """Bytes that wait for the way back. size: voxels along each axis; received: channels, one number a layer."""
    voxels = math.prod(size)
    numbers = voxels * sum(received)
    return 4 * numbers


def _two_sides():
    labels = np.random.default_rng(1).integers(0, 4, (6, 5, 4))
    return [(labels, _AFFINE, number) for number in (1, 2)]


@by_hand(_two_sides)
def to_the_right(labels, affine, number):
    """How far to the right a structure lies, mm. labels: (i, j, k); affine: (4, 4); number: the structure's label."""
    voxels = np.argwhere(labels == number)
    middle = voxels.mean(0)
    return apply_affine(affine, middle)[0]
