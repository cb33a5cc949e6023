"""One point, four ways to say where it is: index, voxel, normalised (two conventions) and millimetres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from regkit.figures.paint import draw_lines, render_image, render_point, write
from regkit.figures.pixels import (
    INK,
    PAPER,
    POINT,
    Limits,
    Picture,
    Plane,
    blank,
    integer_scale,
    intensity_limits,
    plane,
)
from regkit.types import InputError
from regkit.widgets.live import View
from regkit.widgets.scene import ClassScene, Control, Slider, State

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


@dataclass(frozen=True, eq=False)
class Place(ClassScene):
    """A plane of a volume with cross hairs, a close-up of the voxels there, and rulers along axis 1 below it.

    image: volume[:, :, number]. affine: (4, 4), voxels of the volume to mm towards right, anterior, superior.
    """

    image: Plane
    affine: NDArray[Any]
    number: int

    def controls(self) -> dict[str, Control]:
        """The point, in quarters of a voxel."""
        rows, columns = self.image.shape
        return {
            "row": Slider("axis 0 (voxels)", rows // 2 + 0.25, 0.0, rows - 1.0, 0.25),
            "column": Slider("axis 1 (voxels)", columns // 2 + 0.25, 0.0, columns - 1.0, 0.25),
        }

    def render(self, state: State) -> Picture:
        """The plane at the left, the close-up at the right, the rulers below that."""
        place = np.array([state["row"], state["column"]])
        index = _index(place)
        limits = intensity_limits(self.image)
        overview = render_image(self.image, limits=limits, scale=integer_scale(self.image.shape))
        overview = render_point(overview, index.tolist(), self.image.shape)
        close = self._close_up(place, limits)
        rulers = self._rulers(place)
        height = max(len(overview), len(close) + len(rulers))
        left = overview.shape[1] + _GUTTER
        sheet = blank((height, left + close.shape[1]), 1, PAPER)
        sheet[: len(overview), : overview.shape[1]] = overview
        sheet[: len(close), left:] = close
        sheet[len(close) : len(close) + len(rulers), left:] = rulers
        middles = [len(close) + (line + 0.5) * _RULER for line in range(len(self._scales(place)))]
        return write(sheet, [(at, left - 8, "rm", name) for at, name in zip(middles, self._scales(place), strict=True)])

    def describe(self, state: State) -> str:
        """The point in every system."""
        place = np.array([state["row"], state["column"]])
        row, column = _index(place).tolist()
        corners, edges = (
            ", ".join(
                f"{to_normalized(place[axis], self.image.shape[axis], align_corners=which):+.4f}" for axis in (1, 0)
            )
            for which in (True, False)
        )
        right, anterior, superior = self._to_mm(place)
        return (
            f"Index [{row}, {column}, {self.number}], the voxel that holds the point. "
            f"Voxel ({place[0]:g}, {place[1]:g}, {self.number}). "
            f"Normalised (axis 1 first, as torch wants it): corners ({corners}), edges ({edges}). "
            f"Scanner: R {right:+.2f}, A {anterior:+.2f}, S {superior:+.2f} mm."
        )

    def _to_mm(self, place: NDArray[Any]) -> NDArray[Any]:
        return apply_affine(self.affine, [*place, self.number])

    def _window(self, place: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The rows and columns of the close-up; beyond the image they are outside its range."""
        row, column = _index(place)
        down, right = _REACH
        return np.arange(row - down, row + down + 1), np.arange(column - right, column + right + 1)

    def _close_up(self, place: NDArray[Any], limits: Limits) -> Picture:
        rows, columns = self._window(place)
        inside = [(line >= 0) & (line < size) for line, size in zip((rows, columns), self.image.shape, strict=True)]
        values = self.image[
            np.ix_(*(line.clip(0, n - 1) for line, n in zip((rows, columns), self.image.shape, strict=True)))
        ]
        picture = render_image(values, limits=limits, scale=_ZOOM)
        outside = ~(inside[0][:, None] & inside[1]).repeat(_ZOOM, 0).repeat(_ZOOM, 1)
        picture[outside] = _OUTSIDE
        height, width = picture.shape[:2]
        edges = [np.array([[at, 0], [at, width]]) for at in range(0, height + 1, _ZOOM)]
        edges += [np.array([[0, at], [height, at]]) for at in range(0, width + 1, _ZOOM)]
        picture = write(draw_lines(picture, edges, 1, INK), self._names(rows, columns))
        down, right = (place - (rows[0], columns[0]) + 0.5) * _ZOOM
        cross = [np.array([[down - 9, right], [down + 9, right]]), np.array([[down, right - 9], [down, right + 9]])]
        return draw_lines(draw_lines(picture, cross, 5, INK), cross, 2.5, POINT)

    def _names(self, rows: NDArray[Any], columns: NDArray[Any]) -> list[tuple[float, float, str, str]]:
        """The word in each cell of the close-up that is no voxel."""
        height, width = self.image.shape
        return [
            ((down + 0.5) * _ZOOM, (right + 0.5) * _ZOOM, "mm", "outside")
            for down, row in enumerate(rows.tolist())
            for right, column in enumerate(columns.tolist())
            if not (0 <= row < height and 0 <= column < width)
        ]

    def _scales(self, place: NDArray[Any]) -> dict[str, Callable[[int], str]]:
        """The rulers: the name of each, and its number at a column's centre."""
        size = self.image.shape[1]
        anterior = {column: self._to_mm(np.array([place[0], column]))[1] for column in self._window(place)[1].tolist()}
        return {
            "index": lambda column: f"{column}" if 0 <= column < size else "none",
            "voxel": lambda column: f"{column:.1f}",
            "corners ±1": lambda column: f"{to_normalized(column, size):+.3f}",
            "edges ±1": lambda column: f"{to_normalized(column, size, align_corners=False):+.3f}",
            "anterior, mm": lambda column: f"{anterior[column]:.1f}",
        }

    def _rulers(self, place: NDArray[Any]) -> Picture:
        columns = self._window(place)[1]
        scales = self._scales(place)
        sheet = blank((_RULER * len(scales), _ZOOM * len(columns)), 1, PAPER)
        at = (place[1] - columns[0] + 0.5) * _ZOOM
        sheet = draw_lines(sheet, [np.array([[0.0, at], [len(sheet), at]])], 2.5, POINT)
        for line, number in enumerate(scales.values()):
            for position, column in enumerate(columns.tolist()):
                row, middle, half = (line + 0.5) * _RULER, (position + 0.5) * _ZOOM, 4 * len(number(column))
                sheet[int(row) - 8 : int(row) + 9, int(middle - half) : int(middle + half)] = PAPER  # over the line
                sheet = write(sheet, [(row, middle, "mm", number(column))])
        return sheet


def _index(place: NDArray[Any]) -> NDArray[Any]:
    """The voxel that holds a point: it reaches half a voxel to either side of its centre."""
    return np.floor(place + 0.5).astype(int)


def place_viewer(volume: Any, affine: Any, *, number: int) -> View:
    """Move a point over one plane of a volume and read where it is in every system.

    volume: (D0, D1, D2). affine: (4, 4), voxels to mm (RAS). number: which plane volume[:, :, number].

    Raises:
        ValueError: the plane is not finite, the affine is not 4 x 4.
    """
    matrix = np.asarray(affine, dtype=float)
    if matrix.shape != (4, 4):
        raise InputError("affine must be 4 x 4", f"shape {matrix.shape}", "take it from nibabel's image.affine")
    return View(Place(plane(np.asarray(volume)[:, :, number]), matrix, number))
