"""Small pictures for the neighbourhood of a voxel: 3 x 3 cells with their numbers, titled panels, a box in an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from regkit.views.drawing import DIFFERENCES, INK, NIGHT, PAPER, POINT, Colour, Limits, Picture, Plane, colour, enlarge
from regkit.views.pictures import draw_lines, write

SHARES: Picture = DIFFERENCES[127::-1]  # a share or a weight, from near-white at 0 to dark blue at 1
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_DARK = 128  # luminance of a colour, below which numbers on it are written in white


def readable(paint: NDArray[np.uint8]) -> Colour:
    """White on dark, ink on bright colours."""
    return PAPER if paint @ _LUMINANCE < _DARK else INK


def titled(title: str, picture: Picture) -> Picture:
    """A picture under its title."""
    head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
    return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), picture])


def render_cells(values: Plane, *, table: Picture, limits: Limits, side: int, words: str | None = ".2f") -> Picture:
    """Each value of a small plane as a cell of `side` pixels in the table's colour; `words`: its number's format."""
    small = colour(values, table, limits)
    picture = enlarge(small, side)
    picture[::side] = picture[:, ::side] = picture[side - 1 :: side] = picture[:, side - 1 :: side] = PAPER
    if words is None:
        return picture
    dark = small @ _LUMINANCE < _DARK
    for paint, chosen in ((PAPER, dark), (INK, ~dark)):
        rows, columns = np.nonzero(chosen)
        marks = [
            ((row + 1) * side - 8.0, (column + 0.5) * side, "md", f"{values[row, column]:{words}}")
            for row, column in zip(rows, columns, strict=True)
        ]
        picture = write(picture, marks, paint)
    return picture


def render_box(
    picture: Picture, corner: NDArray[Any], size: float, *, paint: Colour = POINT, width: float = 2
) -> Picture:
    """A square over a picture, from its upper left corner (row, column), in pixels."""
    path = corner + size * np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
    return draw_lines(picture, [path], width, paint)


def render_arrow(picture: Picture, start: NDArray[np.float64], tip: NDArray[np.float64], *, width: float) -> Picture:
    """One arrow from a place to another, (row, column) in pixels; a dot where it is short."""
    shaft = tip - start
    length = float(np.hypot(*shaft))
    if length < 3:
        return draw_lines(picture, [start + np.array([(0.0, -width), (0.0, width)])], 2 * width, POINT)
    head = shaft / length * min(0.5 * length, 4 * width)
    side = 0.6 * head[::-1] * (1, -1)
    path = np.stack([start, tip, tip - head + side, tip, tip - head - side])
    return draw_lines(draw_lines(picture, [path], width + 1.3, INK), [path], width, POINT)
