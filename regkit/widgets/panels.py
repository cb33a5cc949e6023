"""The panels of the slice viewer: each paints one quantity of a registration in any plane, and tells its value.

A panel holds whole images or volumes (*space), so that its range is fixed. All are pure: `paint` gives the plane's
picture, `legend` the key to its colours, `words` what it is at a voxel.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regkit.fields import compose, jacobian_determinant, warp, warp_labels
from regkit.figures import paint as pictures
from regkit.figures import pixels
from regkit.figures.pixels import DIFFERENCES, ERRORS, Limits, Picture
from regkit.figures.planes import Cut, Place
from regkit.types import Displacement, InputError, InputIndexError, Pair


def volume_in_words(value: float) -> str:
    """What |J| says of the place it is taken at."""
    if value <= 0:
        return "the map folds: what lies around is turned over"
    if abs(value - 1) < 0.005:
        return "sizes are kept"
    if abs(value - 1) < 0.05:
        return "sizes are almost kept"
    if value > 1:
        return f"pulled from {value:.2f} times its size in the moving image, so the content shrinks"
    return f"pulled from {value:.2f} of its size in the moving image, so the content grows {1 / value:.1f} times"


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
        return pixels.enlarge(pixels.colour(cut.plane(self.values, place), self.table, self.limits), scale)

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
    return Values(title, pixels.lengths(error), ERRORS, (0.0, limit), "voxels")


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
        return pixels.lengths(self.displacement)


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
        below = (
            pixels.blank(field.shape, scale)
            if self.image is None
            else pixels.darken(self.image.paint(cut, place, scale), 0.6)
        )
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


def determinant(displacement: FieldVolume) -> Volume:
    """|J| (*space) of a displacement (dim, *space)."""
    return jacobian_determinant(torch.from_numpy(displacement)[None])[0, 0].numpy()


def pick(tensor: Tensor, item: int) -> Tensor:
    """One item of a batch, on the CPU, still with its batch axis; a batch of one serves for all."""
    if len(tensor) > 1 and not 0 <= item < len(tensor):
        raise InputIndexError(f"item must be from 0 to {len(tensor) - 1}", item, "choose one of them")
    tensor = tensor.detach().cpu()
    return tensor if len(tensor) == 1 else tensor[[item]]


@dataclass(frozen=True, eq=False)
class Quantities:
    """One item of a pair and what a displacement makes of it, as arrays (*space) and (dim, *space).

    inverse: of the displacement, for the inverse-consistency error; None where there is none. reach: the
    range of displacements, voxels, where several are compared; by default what this one needs.

    Raises:
        ValueError, IndexError: a displacement on another grid, NaN, no such item (when a quantity is asked for).
    """

    pair: Pair
    displacement: Displacement
    inverse: Displacement | None = None
    item: int = 0
    reach: float | None = None

    def __post_init__(self) -> None:
        pixels.check_same_shape(self.displacement.shape[2:], self.pair.fixed.shape[2:], ("displacement", "fixed"))

    @functools.cached_property
    def moving(self) -> Volume:
        return pixels.volume(self._pick(self.pair.moving), "moving")

    @functools.cached_property
    def fixed(self) -> Volume:
        return pixels.volume(self._pick(self.pair.fixed), "fixed")

    @functools.cached_property
    def warped(self) -> Volume:
        return pixels.volume(warp(self._pick(self.pair.moving), self._pick(self.displacement)), "warped")

    @functools.cached_property
    def field(self) -> FieldVolume:
        """The displacement, voxels."""
        return pixels.field_volume(self._pick(self.displacement))

    @functools.cached_property
    def determinant(self) -> Volume:
        """|J|."""
        return determinant(self.field)

    @functools.cached_property
    def error(self) -> FieldVolume:
        """What is left of a round trip: E(x) = u(x) + z(x + u(x)), voxels."""
        if self.inverse is None:
            raise InputError(
                "the inverse-consistency error needs the way back",
                "a registration with inverse=None",
                "register fixed onto moving, or leave this panel out",
            )
        return pixels.field_volume(compose(self._pick(self.inverse), self._pick(self.displacement)), "error")

    @functools.cached_property
    def limits(self) -> Limits:
        """One range for all images."""
        return pixels.intensity_limits(self.moving, self.fixed)

    @functools.cached_property
    def limit(self) -> float:
        """One range for all displacements, voxels."""
        return pixels.displacement_limit(self.field) if self.reach is None else self.reach

    def labels(self, name: str) -> Volume:
        """The fixed labels, or the moving ones warped."""
        moving, fixed = self.pair.moving_labels, self.pair.fixed_labels
        if moving is None or fixed is None:
            raise InputError("panels of labels need a pair with labels", "none", "leave them out")
        if name == "fixed":
            return pixels.label_volume(self._pick(fixed), "fixed_labels")
        return pixels.label_volume(warp_labels(self._pick(moving), self._pick(self.displacement)), "warped labels")

    def _pick(self, tensor: Tensor) -> Tensor:
        return pick(tensor, self.item)


def _image(name: str) -> Callable[[Quantities], list[Panel]]:
    return lambda q: [Intensities(name, getattr(q, name), q.limits)]


def _labels(name: str) -> Callable[[Quantities], list[Panel]]:
    return lambda q: [LabelMap(f"{name} labels", q.labels(name), Intensities(name, getattr(q, name), q.limits))]


def _checkerboard(q: Quantities) -> list[Panel]:
    warped, fixed = (Intensities(name, getattr(q, name), q.limits) for name in ("warped", "fixed"))
    return [Checkerboard("checkerboard", warped, fixed)]


def _grid(q: Quantities) -> list[Panel]:
    below = Intensities("moving", q.moving, q.limits)
    return [GridLines("grid x + u(x), on moving", q.field, below, max(1, max(q.fixed.shape) // 16))]


PANELS: Mapping[str, Callable[[Quantities], list[Panel]]] = {
    "moving": _image("moving"),
    "fixed": _image("fixed"),
    "warped": _image("warped"),
    "before": lambda q: [difference_panel("before: moving - fixed", q.moving, q.fixed, q.limits)],
    "difference": lambda q: [difference_panel("after: warped - fixed", q.warped, q.fixed, q.limits)],
    "checkerboard": _checkerboard,
    "fixed labels": _labels("fixed"),
    "warped labels": _labels("warped"),
    "components": lambda q: [component_panel(q.field, axis, q.limit) for axis in range(len(q.field))],
    "directions": lambda q: [Directions("displacement u", q.field, q.limit)],
    "grid": _grid,
    "jacobian": lambda q: [Determinant("|J|", q.determinant)],
    "folds": lambda q: [FoldMask("folds, on fixed", q.determinant, Intensities("fixed", q.fixed, q.limits))],
    "error": lambda q: [error_panel("inverse-consistency error", q.error, pixels.displacement_limit(q.error))],
}


def make_panels(quantities: Quantities, names: Sequence[str]) -> list[Panel]:
    """The panels of these names, in this order.

    Raises:
        ValueError: an unknown name, or a panel whose labels or inverse are not there.
    """
    unknown = [name for name in names if name not in PANELS]
    if unknown:
        raise InputError(f"a panel must be one of {', '.join(PANELS)}", unknown, "choose some of them")
    return [panel for name in names for panel in PANELS[name](quantities)]
