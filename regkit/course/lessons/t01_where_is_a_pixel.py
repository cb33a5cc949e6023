"""One point, four ways to say where it is: index, voxel, normalised (two conventions) and millimetres."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from regkit.figures import paint, pixels
from regkit.figures.pixels import INK, PAPER, POINT, Limits, Picture, Plane
from regkit.types import InputError
from regkit.widgets import Scene, Slider, State, View

Point = tuple[float, float]  # along axis 0 and 1 of a plane, voxels
_ZOOM = 56  # pixels a voxel in the close-up
_REACH = (2, 3)  # voxels shown on either side of the point, along each axis
_GUTTER = 92  # pixels for the rulers' names
_RULER = 22  # pixels a ruler
_OUTSIDE = (196, 205, 222)  # bluish: no intensity has this colour


def to_normalized(voxel: float, size: int, *, align_corners: bool = True) -> float:
    """A position along one axis of `size` voxels in the sampler's units, in which the image spans [-1, 1].

    align_corners=True: from the first voxel's centre to the last one's, 2 p / (N - 1) - 1 (regkit's convention).
    False: from edge to edge, (2 p + 1) / N - 1. Displacements have no origin: see `fields.voxels_to_normalized`.
    """
    return 2 * voxel / (size - 1) - 1 if align_corners else (2 * voxel + 1) / size - 1


def place_viewer(volume: Any, affine: Any, *, number: int) -> View:
    """Move a point over one plane of a volume and read where it is in every system.

    volume: (D0, D1, D2). affine: (4, 4), voxels to mm (RAS). number: which plane volume[:, :, number].

    Raises:
        ValueError: the plane is not finite, the affine is not 4 x 4.
    """
    matrix = np.asarray(affine, dtype=float)
    if matrix.shape != (4, 4):
        raise InputError("affine must be 4 x 4", f"shape {matrix.shape}", "take it from nibabel's image.affine")
    image = pixels.plane(np.asarray(volume)[:, :, number])
    (height, width), limits = image.shape, pixels.intensity_limits(image)
    overview = paint.render_image(image, limits=limits, scale=pixels.integer_scale(image.shape))
    controls = {
        "row": Slider("axis 0 (voxels)", height // 2 + 0.25, 0.0, height - 1.0, 0.25),
        "column": Slider("axis 1 (voxels)", width // 2 + 0.25, 0.0, width - 1.0, 0.25),
    }

    def to_mm(place: Point) -> NDArray[Any]:
        return apply_affine(matrix, [*place, number])

    def rulers(place: Point) -> dict[str, list[str]]:
        """The numbers at the close-up's columns, by the ruler's name."""
        columns = _window(place)[1].tolist()
        return {
            "index": [f"{column}" if 0 <= column < width else "none" for column in columns],
            "voxel": [f"{column:.1f}" for column in columns],
            "corners ±1": [f"{to_normalized(column, width):+.3f}" for column in columns],
            "edges ±1": [f"{to_normalized(column, width, align_corners=False):+.3f}" for column in columns],
            "anterior, mm": [f"{to_mm((place[0], column))[1]:.1f}" for column in columns],
        }

    def render(state: State) -> Picture:
        """The plane at the left, the close-up at the right, the rulers below that."""
        place = state["row"], state["column"]
        picture = paint.render_point(overview, _index(place), image.shape)
        close, scales = _close_up(image, place, limits), rulers(place)
        below = _rulers(place, list(scales.values()))
        left = picture.shape[1] + _GUTTER
        sheet = pixels.blank((max(len(picture), len(close) + len(below)), left + close.shape[1]), 1, PAPER)
        sheet[: len(picture), : picture.shape[1]] = picture
        sheet[: len(close), left:] = close
        sheet[len(close) : len(close) + len(below), left:] = below
        names = [(len(close) + (line + 0.5) * _RULER, left - 8, "rm", name) for line, name in enumerate(scales)]
        return paint.write(sheet, names)

    def describe(state: State) -> str:
        """The point in every system."""
        place = state["row"], state["column"]
        row, column = _index(place)
        corners, edges = (
            ", ".join(f"{to_normalized(place[axis], image.shape[axis], align_corners=which):+.4f}" for axis in (1, 0))
            for which in (True, False)
        )
        right, anterior, superior = to_mm(place)
        return (
            f"Index [{row}, {column}, {number}], the voxel that holds the point. "
            f"Voxel ({place[0]:g}, {place[1]:g}, {number}). "
            f"Normalised (axis 1 first, as torch wants it): corners ({corners}), edges ({edges}). "
            f"Scanner: R {right:+.2f}, A {anterior:+.2f}, S {superior:+.2f} mm."
        )

    return View(Scene(controls, render, describe))


def _index(place: Point) -> tuple[int, int]:
    """The voxel that holds a point: it reaches half a voxel to either side of its centre."""
    row, column = place
    return math.floor(row + 0.5), math.floor(column + 0.5)


def _window(place: Point) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows and columns of the close-up; beyond the image they are outside its range."""
    (row, column), (down, right) = _index(place), _REACH
    return np.arange(row - down, row + down + 1), np.arange(column - right, column + right + 1)


def _close_up(image: Plane, place: Point, limits: Limits) -> Picture:
    """The voxels around a point, each framed, those outside the image named; and the point as a cross."""
    window = _window(place)
    inside = [(line >= 0) & (line < size) for line, size in zip(window, image.shape, strict=True)]
    values = image[np.ix_(*(line.clip(0, size - 1) for line, size in zip(window, image.shape, strict=True)))]
    picture = paint.render_image(values, limits=limits, scale=_ZOOM)
    outside = ~(inside[0][:, None] & inside[1])
    picture[outside.repeat(_ZOOM, 0).repeat(_ZOOM, 1)] = _OUTSIDE
    height, width = picture.shape[:2]
    edges = [np.array([[at, 0], [at, width]]) for at in range(0, height + 1, _ZOOM)]
    edges += [np.array([[0, at], [height, at]]) for at in range(0, width + 1, _ZOOM)]
    names = [((down + 0.5) * _ZOOM, (right + 0.5) * _ZOOM, "mm", "outside") for down, right in np.argwhere(outside)]
    picture = paint.write(paint.draw_lines(picture, edges, 1, INK), names)
    down, right = (np.array(place) - (window[0][0], window[1][0]) + 0.5) * _ZOOM
    cross = [np.array([[down - 9, right], [down + 9, right]]), np.array([[down, right - 9], [down, right + 9]])]
    return paint.draw_lines(paint.draw_lines(picture, cross, 5, INK), cross, 2.5, POINT)


def _rulers(place: Point, rulers: Sequence[Sequence[str]]) -> Picture:
    """Numbers at the close-up's columns, a line for each ruler, over the line of the point."""
    columns = _window(place)[1]
    sheet = pixels.blank((_RULER * len(rulers), _ZOOM * len(columns)), 1, PAPER)
    at = (place[1] - columns[0] + 0.5) * _ZOOM
    sheet = paint.draw_lines(sheet, [np.array([[0.0, at], [len(sheet), at]])], 2.5, POINT)
    texts = []
    for line, numbers in enumerate(rulers):
        for position, number in enumerate(numbers):
            row, middle, half = (line + 0.5) * _RULER, (position + 0.5) * _ZOOM, 4 * len(number)
            sheet[int(row) - 8 : int(row) + 9, int(middle - half) : int(middle + half)] = PAPER  # over the line
            texts.append((row, middle, "mm", number))
    return paint.write(sheet, texts)
