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


@by_hand(
    "Write the two lines: corners and edges.",
    praise="corners: ±1 at the outer centres. Edges: ±1 where the image ends.",
    calls=_along_an_axis,
    mistakes={
        "corners by N": ("/ (size - 1)", "/ size", "corners: from the first centre to the last there are N - 1 steps."),
        "no half voxel": (
            "2 * voxel + 1",
            "2 * voxel",
            "edges: this starts at -1 in the centre of voxel 0. The edge is half a voxel before it.",
        ),
        "half as long": ("2 * voxel", "voxel", "from -1 to 1 is a length of 2: multiply the voxel by 2."),
        "from 0 on": ("(size - 1) - 1", "(size - 1)", "corners: voxel 0 comes out as 0. It has to be -1."),
        "swapped": ("if align", "if not align", "the two lines are swapped: align_corners=True is corners."),
    },
    otherwise="both formulas stand above: p is `voxel`, N is `size`. Test yours: corners gives -1 at 0 and 1 at N - 1.",
)
def normalised(voxel, size, align_corners):
    """A position along one axis, from voxels to normalised units. size: how many voxels it has."""
    if align_corners:
        return 2 * voxel / (size - 1) - 1
    return (2 * voxel + 1) / size - 1


@by_hand(
    "Write the two lines: solve both formulas for p.",
    praise="there and back: the same voxel.",
    calls=lambda: [(place / 4 - 1, size, corners) for place, size, corners in _along_an_axis()],
    mistakes={
        "from the middle": ("(value + 1)", "value", "-1 has to lead to the first voxel. Add 1 before you scale."),
        "corners by N": ("(size - 1) / 2", "size / 2", "corners: from -1 to 1 there are N - 1 steps, not N."),
        "no half voxel": ("* size - 1)", "* size)", "edges: -1 is where the image ends, at voxel -0.5, not at 0."),
        "the other way": (
            "* size - 1)",
            "* size + 1)",
            "edges: right size, wrong sign. -1 is at voxel -0.5, not at 0.5.",
        ),
        "a whole voxel": (
            "((value + 1) * size - 1) / 2",
            "(value + 1) * size / 2 - 1",
            "edges: this is half a voxel too low. The 1 is subtracted first, then all is halved.",
        ),
        "swapped": ("if align", "if not align", "the two lines are swapped: align_corners=True is corners."),
    },
    otherwise="undo the steps of `normalised` in reverse order: add 1, multiply by N - 1 or N, and so on.",
)
def voxels_from_normalised(value, size, align_corners):
    """The way back: a position along one axis, from normalised units to voxels."""
    if align_corners:
        return (value + 1) * (size - 1) / 2
    return ((value + 1) * size - 1) / 2


def _places_in_a_scan():
    turn = np.array([[0.0, -2.0, 0.3, 90.0], [1.5, 0.25, 0.0, -126.0], [0.0, 0.5, 3.0, -18.0], [0.0, 0.0, 0.0, 1.0]])
    return [(np.array(place), turn) for place in ([0.0, 0.0, 0.0], [3.0, 5.0, 2.0], [-0.5, 2.25, 7.0])]


@by_hand(
    "Write the one line: A p + b.",
    praise="the same place, in mm.",
    calls=_places_in_a_scan,
    mistakes={
        "no origin": (" + affine[:3, 3]", "", "voxel (0, 0, 0) comes out as 0 mm. b, the scan's origin, is missing."),
        "transposed": (
            "affine[:3, :3] @",
            "affine[:3, :3].T @",
            "A is transposed: its columns belong to the voxel axes.",
        ),
        "the diagonal": (
            "affine[:3, :3] @ voxel",
            "affine.diagonal()[:3] * voxel",
            "this uses the diagonal of A alone. A also turns the axes: multiply with the whole matrix, `@`.",
        ),
        "elementwise": (
            "3] @",
            "3] *",
            "`*` multiplies number by number and gives nine of them. Matrix times vector is `@`.",
        ),
        "minus": (" + ", " - ", "b has the wrong sign: the origin is added."),
    },
    otherwise="`@` multiplies a matrix with a vector; affine[:3, :3] is A, and affine[:3, 3] is b.",
)
def millimetres(voxel, affine):
    """A position in mm. voxel: (3,), in voxels; affine: (4, 4), from the scan's header."""
    return affine[:3, :3] @ voxel + affine[:3, 3]


@by_hand(
    "Write the one line: solve mm = A p + b for p.",
    praise="there and back: the same voxel.",
    calls=_places_in_a_scan,
    mistakes={
        "no origin": (" - affine[:3, 3]", "", "the origin b is still in it: subtract b before you undo A."),
        "plus": (" - ", " + ", "b was added on the way there. On the way back it is subtracted."),
        "origin last": (
            "np.linalg.solve(affine[:3, :3], mm - affine[:3, 3])",
            "np.linalg.solve(affine[:3, :3], mm) - affine[:3, 3]",
            "b is in mm: subtract it first, while everything is in mm. Then undo A.",
        ),
        "not inverted": (
            "np.linalg.solve(affine[:3, :3], mm - affine[:3, 3])",
            "affine[:3, :3] @ (mm - affine[:3, 3])",
            "A is applied once more here. It has to be undone.",
        ),
        "transposed": (
            "np.linalg.solve(affine[:3, :3], mm - affine[:3, 3])",
            "affine[:3, :3].T @ (mm - affine[:3, 3])",
            "the transposed matrix undoes a turn, and no more. This A also scales: voxels are no millimetres.",
        ),
    },
    otherwise="first subtract b, then undo A: np.linalg.solve(A, x) gives the p for which A p = x.",
)
def voxels_from_mm(mm, affine):
    """The way back: a position in voxels. mm: (3,); affine: (4, 4)."""
    return np.linalg.solve(affine[:3, :3], mm - affine[:3, 3])


def _image_and_places():
    image = torch.rand(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [(image, *place) for place in ((1.25, 4.6), (2, 3), (0.0, 6.5), (4, 7), (3.75, 0.125))]


@by_hand(
    "Write the three lines: the value above, the value below, and the mean of both by their weights.",
    praise="a mean of four voxels, the nearer the heavier.",
    calls=_image_and_places,
    mistakes={
        "upside down": (
            "(1 - down) * above + down * below",
            "down * above + (1 - down) * below",
            "above and below have each other's weight: where `down` is 0, `above` counts alone.",
        ),
        "left and right": (
            "column - left",
            "1 - (column - left)",
            "left and right have each other's weight: where `right` is 0, column `left` counts alone.",
        ),
        "axes swapped": (
            "row - top, column - left",
            "column - left, row - top",
            "`down` and `right` are mixed up: within a row the weights come from `right`.",
        ),
        "one row": ("top + 1", "top", "above and below read the same row. Below is row `top + 1`."),
        "one column": ("left + 1", "left", "left and right read the same column. Right is column `left + 1`."),
        "plain mean": (
            "(1 - down) * above + down * below",
            "(above + below) / 2",
            "above and below count alike here. The nearer one counts more: use `down`.",
        ),
        "summed": (
            "(1 - down) * above + down * below",
            "above + below",
            "a sum is too bright. The weights add up to 1.",
        ),
    },
    otherwise="`right` says how much the right column counts, 1 - right how much the left one; so too with `down`.",
)
def read(image, row, column):
    """Bilinear interpolation at one place. image: (H, W); row, column: numbers, in voxels."""
    top = min(int(row), image.shape[0] - 2)  # the last row has no row below: use the pair above
    left = min(int(column), image.shape[1] - 2)
    down, right = row - top, column - left  # from 0 to 1
    above = (1 - right) * image[top, left] + right * image[top, left + 1]
    below = (1 - right) * image[top + 1, left] + right * image[top + 1, left + 1]
    return (1 - down) * above + down * below


@by_hand(
    "Write the two lines: u, in units in which the image spans -1 to 1.",
    praise="a difference of positions: scaled, not shifted.",
    calls=_along_an_axis,
    mistakes={
        "a position": (
            "(size - 1)",
            "(size - 1) - 1",
            "corners: an arrow of length 0 comes out as -1. Only places have an origin.",
        ),
        "an edge": (
            "2 * u / size",
            "(2 * u + 1) / size",
            "edges: an arrow of length 0 does not stay 0. Both ends have the +1.",
        ),
        "half as long": ("2 * u", "u", "half too short: the image is 2 long in normalised units."),
        "swapped": ("if align", "if not align", "the two lines are swapped: align_corners=True is corners."),
        "N for both": ("(size - 1)", "size", "corners: from the first centre to the last there are N - 1 steps."),
    },
    otherwise="subtract `normalised` at the arrow's start from `normalised` at its end: what is left of the formula?",
)
def normalised_arrow(u, size, align_corners):
    """A displacement along one axis, from voxels to normalised units."""
    if align_corners:
        return 2 * u / (size - 1)
    return 2 * u / size
