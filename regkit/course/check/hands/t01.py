"""Tutorial 01 by hand: from voxels to normalised units and mm and back, and an image read between its voxels."""

import numpy as np
import torch

from regkit.course.check.hands import by_hand

__all__ = [
    "millimetres",
    "normalised",
    "normalised_arrow",
    "read",
    "voxels_from_mm",
    "voxels_from_normalised",
]


def _along_an_axis():
    return [(place, size, corners) for place in (0, 2.75, 6) for size in (7, 12) for corners in (True, False)]


@by_hand(_along_an_axis)
def normalised(voxel, size, align_corners):
    """A position along one axis, from voxels to normalised units. size: how many voxels it has."""
    if align_corners:
        return 2 * voxel / (size - 1) - 1
    return (2 * voxel + 1) / size - 1


@by_hand(lambda: [(place / 4 - 1, size, corners) for place, size, corners in _along_an_axis()])
def voxels_from_normalised(value, size, align_corners):
    """The way back: a position along one axis, from normalised units to voxels."""
    if align_corners:
        return (value + 1) * (size - 1) / 2
    return ((value + 1) * size - 1) / 2


def _places_in_a_scan():
    turn = np.array([[0.0, -2.0, 0.3, 90.0], [1.5, 0.25, 0.0, -126.0], [0.0, 0.5, 3.0, -18.0], [0.0, 0.0, 0.0, 1.0]])
    return [(np.array(place), turn) for place in ([0.0, 0.0, 0.0], [3.0, 5.0, 2.0], [-0.5, 2.25, 7.0])]


@by_hand(_places_in_a_scan)
def millimetres(voxel, affine):
    """A position in mm. voxel: (3,), in voxels; affine: (4, 4), from the scan's header."""
    return affine[:3, :3] @ voxel + affine[:3, 3]


@by_hand(_places_in_a_scan)
def voxels_from_mm(mm, affine):
    """The way back: a position in voxels. mm: (3,); affine: (4, 4)."""
    return np.linalg.solve(affine[:3, :3], mm - affine[:3, 3])


def _image_and_places():
    image = torch.rand(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [(image, *place) for place in ((1.25, 4.6), (2, 3), (0.0, 6.5), (4, 7), (3.75, 0.125))]


@by_hand(_image_and_places)
def read(image, row, column):
    """Bilinear interpolation at one place. image: (H, W); row, column: numbers, in voxels."""
    top = min(int(row), image.shape[0] - 2)  # the last row has no row below: use the pair above
    left = min(int(column), image.shape[1] - 2)
    down, right = row - top, column - left  # from 0 to 1
    above = (1 - right) * image[top, left] + right * image[top, left + 1]
    below = (1 - right) * image[top + 1, left] + right * image[top + 1, left + 1]
    return (1 - down) * above + down * below


@by_hand(_along_an_axis)
def normalised_arrow(u, size, align_corners):
    """A displacement along one axis, from voxels to normalised units."""
    if align_corners:
        return 2 * u / (size - 1)
    return 2 * u / size
