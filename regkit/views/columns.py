"""Columns of dots: what several methods reached on the same pairs, one dot a pair, linked from column to column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regkit.views.dots import BLUE, FAINT, ORANGE, Scale, draw_dots, fitting, scale_for
from regkit.views.drawing import INK, PAPER, Picture, blank
from regkit.views.pictures import draw_lines, write

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 880, 290, 64, 28, 38  # pixels: of the board, and of its margins
_LINE = 15  # pixels: height of a line of a name
_SPREAD = 0.5  # of a column: how far its dots lie apart


def render_board(
    values: Mapping[str, Mapping[int, float]],
    pairs: Sequence[int],
    title: str,
    *,
    method: str | None = None,
    pair: int | None = None,
    links: bool = True,
) -> Picture:
    """Methods as columns of dots, (290, 880, 3) uint8: one dot for each pair, a bar at the mean, one scale for all.

    values: by method and pair; what is missing leaves a gap. links: lines between the dots of a pair in columns side by
    side. pair: its dots and lines are orange; the dot of `method` on it is large and has a ring. A name with a + takes
    two lines.
    """
    numbers = [value for column in values.values() for value in column.values()]
    scale = scale_for(numbers or [0.0, 1.0], _HEIGHT - _BOTTOM, _TOP)
    places = _places(values, pairs, scale)
    picture = _frame(list(values), title, scale)
    paths = {number: list(_paths(places, values, number)) for number in pairs} if links else {}
    picture = draw_lines(picture, [path for number in paths if number != pair for path in paths[number]], 1, FAINT)
    picture = draw_lines(picture, paths.get(pair, []) if pair is not None else [], 2, ORANGE)
    for chosen, paint, radius in ((False, BLUE, 4.0), (True, ORANGE, 5.0)):
        centres = [place for (_, number), place in places.items() if (number == pair) is chosen]
        picture = draw_dots(picture, np.reshape(centres, (-1, 2)), radius, paint)
    picture = draw_lines(picture, list(_means(values, scale)), 3, INK)
    if (method, pair) in places:
        for radius, paint in ((9.0, INK), (7.0, PAPER), (5.5, ORANGE)):
            picture = draw_dots(picture, places[method, pair][None], radius, paint)  # type: ignore[index]
    return picture


def _centre(position: int, count: int) -> float:
    """The middle of a column, pixels."""
    return _LEFT + (position + 0.5) * (_WIDTH - _LEFT) / count


def _places(
    values: Mapping[str, Mapping[int, float]], pairs: Sequence[int], scale: Scale
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Where the dot of each method and pair is, (row, column)."""
    width = _SPREAD * (_WIDTH - _LEFT) / max(len(values), 1)
    offsets = {number: width * ((i + 0.5) / len(pairs) - 0.5) for i, number in enumerate(pairs)}
    return {
        (name, number): np.array([scale.at(value), _centre(position, len(values)) + offsets[number]])
        for position, (name, column) in enumerate(values.items())
        for number, value in column.items()
    }


def _paths(
    places: Mapping[tuple[str, int], NDArray[np.float64]], names: Mapping[str, Any], number: int
) -> list[NDArray[np.float64]]:
    """The lines between a pair's dots in columns side by side."""
    columns = list(names)
    both = [((one, number), (other, number)) for one, other in pairwise(columns)]
    return [np.stack([places[one], places[other]]) for one, other in both if one in places and other in places]


def _means(values: Mapping[str, Mapping[int, float]], scale: Scale) -> list[NDArray[np.float64]]:
    """A bar at the mean of each column."""
    half = 0.5 * (_SPREAD + 0.15) * (_WIDTH - _LEFT) / max(len(values), 1)
    bars = []
    for position, column in enumerate(values.values()):
        if column:
            row, middle = scale.at(float(np.mean(list(column.values())))), _centre(position, len(values))
            bars.append(np.array([(row, middle - half), (row, middle + half)]))
    return bars


def _frame(names: Sequence[str], title: str, scale: Scale) -> Picture:
    """The empty board: title, ticks and their lines, the names of the columns."""
    picture = blank((_HEIGHT, _WIDTH), 1, PAPER)
    for row, _ in scale.ticks:
        picture[round(row), _LEFT:] = FAINT
    texts = [(row, _LEFT - 8.0, "rm", number) for row, number in scale.ticks]
    room, row = (_WIDTH - _LEFT) / max(len(names), 1) - 4, _HEIGHT - _BOTTOM + 8.0
    below = [
        (row + line * _LINE, _centre(position, len(names)), "ma", fitting(words, room))
        for position, name in enumerate(names)
        for line, words in enumerate(name.replace(" + ", "\n+ ", 1).split("\n"))
    ]
    return write(picture, [(4.0, 0.0, "la", title), *texts, *below])
