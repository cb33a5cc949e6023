"""The panels of the slice viewer: each paints one quantity of a registration in any plane, and tells its value.

A panel holds whole images or volumes (*space), so that its range is fixed. All are pure: `paint` gives the plane's
picture, `legend` the key to its colours, `words` what it is at a voxel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regkit.views import pictures
from regkit.views.drawing import (
    DIFFERENCES,
    ERRORS,
    Limits,
    Picture,
    blank,
    colour,
    darken,
    enlarge,
    lengths,
)
from regkit.views.scenes import volume_in_words
from regkit.views.volumes import Cut, Place

Volume = NDArray[Any]  # (*space)
FieldVolume = NDArray[Any]  # (dim, *space), voxels


@dataclass(frozen=True, eq=False)
class Panel(ABC):
    """One quantity on a grid. title: its name."""

    title: str

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of space."""

    @abstractmethod
    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        """The plane through a place, a voxel `scale` pixels wide."""

    @abstractmethod
    def words(self, place: Place) -> str:
        """The value at a voxel, with its unit."""

    def legend(self, width: int) -> Picture | None:
        """The key to the colours, if they need one."""
        return None

    def interest(self) -> Volume | None:
        """What is largest where this panel is most worth a look, if it can tell."""
        return None


@dataclass(frozen=True, eq=False)
class Values(Panel):
    """Numbers in the colours of a table, over fixed limits, in a unit."""

    values: Volume
    table: Picture
    limits: Limits
    unit: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        return enlarge(colour(cut.plane(self.values, place), self.table, self.limits), scale)

    def legend(self, width: int) -> Picture:
        return pictures.render_bar(self.table, self.limits, width=width, unit=self.unit)

    def words(self, place: Place) -> str:
        return f"{self.title} {self.values[place]:.3g} {self.unit}".rstrip()

    def interest(self) -> Volume:
        return np.abs(self.values)


@dataclass(frozen=True, eq=False)
class Intensities(Panel):
    """An image in grey."""

    values: Volume
    limits: Limits

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        return pictures.render_image(cut.plane(self.values, place), limits=self.limits, scale=scale)

    def words(self, place: Place) -> str:
        return f"{self.title} {self.values[place]:.3g}"


def difference_panel(title: str, first: Volume, second: Volume, limits: Limits) -> Values:
    """first - second, in half the range of the intensities."""
    half = (limits[1] - limits[0]) / 2
    return Values(title, first.astype(np.float32) - second, DIFFERENCES, (-half, half), "intensity")


def component_panel(displacement: FieldVolume, axis: int, limit: float) -> Values:
    """One component of u, from -limit to limit voxels."""
    return Values(f"u along axis {axis}", displacement[axis], DIFFERENCES, (-limit, limit), "voxels")


def error_panel(title: str, error: FieldVolume, limit: float) -> Values:
    """The length of what should be zero, up to `limit` voxels."""
    return Values(title, lengths(error), ERRORS, (0.0, limit), "voxels")


@dataclass(frozen=True, eq=False)
class LabelMap(Panel):
    """Labels as transparent colours over an image."""

    labels: Volume
    image: Intensities

    @property
    def shape(self) -> tuple[int, ...]:
        return self.labels.shape

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        return pictures.render_labels(self.image.paint(cut, place, scale), cut.plane(self.labels, place))

    def words(self, place: Place) -> str:
        return f"{self.title} {self.labels[place]}"


@dataclass(frozen=True, eq=False)
class Checkerboard(Panel):
    """Two images in turn on alternate fields, the first in the upper left corner: aligned, edges run on."""

    first: Intensities
    second: Intensities
    tiles: int = 6

    @property
    def shape(self) -> tuple[int, ...]:
        return self.first.shape

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        one, other = (cut.plane(image.values, place) for image in (self.first, self.second))
        limits = self.first.limits
        return pictures.render_checkerboard(one, other, tiles=self.tiles, limits=limits, scale=scale)

    def words(self, place: Place) -> str:
        return f"{self.title} of {self.first.words(place)} and {self.second.words(place)}"


@dataclass(frozen=True, eq=False)
class Directions(Panel):
    """What of u lies in the plane: its direction as hue, its length as depth of colour, full at `limit` voxels.

    name: of the displacement, in the key.
    """

    displacement: FieldVolume
    limit: float
    name: str = "u"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.displacement.shape[1:]

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        return pictures.render_displacement(cut.field(self.displacement, place), limit=self.limit, scale=scale)

    def legend(self, width: int) -> Picture:
        return pictures.render_wheel(self.limit, width=max(width, 240), side=64, name=self.name)

    def words(self, place: Place) -> str:
        u = [float(component[place]) for component in self.displacement]
        components = ", ".join(f"{component:+.2f}" for component in u)
        return f"{self.title} ({components}) voxels, length {np.linalg.norm(u):.2f}"

    def interest(self) -> Volume:
        return lengths(self.displacement)


@dataclass(frozen=True, eq=False)
class GridLines(Panel):
    """Every `every`-th row and column of a plane, moved to x + stretch u(x) within the plane, over an image."""

    displacement: FieldVolume
    image: Intensities | None
    every: int
    stretch: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.displacement.shape[1:]

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        field = cut.field(self.displacement, place)
        below = blank(field.shape, scale) if self.image is None else darken(self.image.paint(cut, place, scale), 0.6)
        return pictures.render_grid(below, field, every=self.every, stretch=self.stretch)

    def words(self, place: Place) -> str:
        target = [index + float(u[place]) for index, u in zip(place, self.displacement, strict=True)]
        return f"{self.title}: leads to ({', '.join(f'{index:.1f}' for index in target)})"


@dataclass(frozen=True, eq=False)
class Determinant(Panel):
    """|J| around 1, folds in their own colour."""

    determinant: Volume

    @property
    def shape(self) -> tuple[int, ...]:
        return self.determinant.shape

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        return pictures.render_jacobian(cut.plane(self.determinant, place), scale=scale)

    def legend(self, width: int) -> Picture:
        return pictures.render_jacobian_bar(width=width)

    def words(self, place: Place) -> str:
        value = float(self.determinant[place])
        return f"{self.title} = {value:.3f}, {volume_in_words(value)}"

    def interest(self) -> Volume:
        return -self.determinant


@dataclass(frozen=True, eq=False)
class FoldMask(Panel):
    """Where |J| <= 0, over an image."""

    determinant: Volume
    image: Intensities

    @property
    def shape(self) -> tuple[int, ...]:
        return self.determinant.shape

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        return pictures.render_folds(self.image.paint(cut, place, scale), cut.plane(self.determinant, place))

    def words(self, place: Place) -> str:
        return f"{self.title}: {'folds' if self.determinant[place] <= 0 else 'no fold'} here"
