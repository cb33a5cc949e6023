"""Numbers as dots: a scale with round ticks, dots and the lines that link them, as pixels."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from regkit.views.drawing import Colour, Picture, font

BLUE: Colour = (0, 114, 178)
ORANGE: Colour = (213, 94, 0)
FAINT: Colour = (205, 208, 214)
_OVERSAMPLING = 3  # subpixels along each axis
_TICKS = 6  # at most, beside the lowest


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `end`, with a tick at every `step`."""

    low: float
    high: float
    step: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixel and number of each tick."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + position * self.step for position in range(count + 1)]
        return [(self.at(value), f"{0.0 if abs(value) < self.step / 2 else value:.6g}") for value in values]


def scale_for(values: Sequence[float], start: float, end: float) -> Scale:
    """The scale with the finest round ticks (1, 2 or 5 times a power of ten) that holds all values.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    if not len(values) or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a scale is made for finite numbers, received {list(values)}; leave out what is missing.")
    low, high = min(values), max(values)
    spread = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-9)
    power = 10.0 ** math.floor(math.log10(spread / _TICKS))
    for step in (power * factor for factor in (1, 2, 5, 10, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= _TICKS:
            break
    return Scale(first * step, max(last, first + 1) * step, step, start, end)


def draw_dots(picture: Picture, centres: NDArray[np.float64], radius: float, paint: Colour) -> Picture:
    """Discs with smooth edges at centres (N, 2), given as (row, column) in pixels."""
    height, width = picture.shape[:2]
    mask = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    pen = ImageDraw.Draw(mask)
    for row, column in _OVERSAMPLING * centres:
        reach = _OVERSAMPLING * radius
        pen.ellipse((column - reach, row - reach, column + reach, row + reach), 255)
    sheet = Image.fromarray(picture)
    sheet.paste(paint, mask=mask.reduce(_OVERSAMPLING))
    return np.array(sheet)


@functools.lru_cache(256)
def fitting(words: str, width: float) -> str:
    """The words, cut where they are longer than this many pixels."""
    if font().getlength(words) <= width:
        return words
    while words and font().getlength(f"{words}…") > width:
        words = words[:-1]
    return f"{words.rstrip()}…"
