"""Planes of a volume: which axis a plane cuts across, what lies in it, and where a voxel is found in it.

An image of two axes has one plane, itself, and of one of three there are three families. All else follows from `Cut`,
so that no scene asks how many axes there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regkit.figures.pixels import FieldPlane, Plane

Place = tuple[int, ...]  # a voxel of a plane or a volume


@dataclass(frozen=True)
class Cut:
    """A family of parallel planes of a grid.

    across: the axes that a plane holds still: none in 2D, one in 3D. first, second: the axes in the plane; `first` runs
    down and `second` to the right, or if `upright` `first` to the right and `second` up.
    """

    across: tuple[int, ...]
    first: int
    second: int
    upright: bool = False

    @property
    def words(self) -> str:
        """The family's name, from the axes that it cuts across: "across axis 0"."""
        return "across axis " + ", ".join(map(str, self.across))

    @property
    def axes(self) -> str:
        """The axis that runs down (or up) and the one that runs to the right."""
        return f"axes {self.second}, {self.first}" if self.upright else f"axes {self.first}, {self.second}"

    @property
    def directions(self) -> str:
        """Which axis runs where."""
        if self.upright:
            return f"axis {self.second} up, {self.first} right"
        return f"axis {self.first} down, {self.second} right"

    def held(self, place: Place) -> Place:
        """What of a place tells this family's planes apart."""
        return tuple(place[axis] for axis in self.across)

    def start(self, place: Place) -> Place:
        """The first voxel of the plane through `place`."""
        return tuple(index if axis in self.across else 0 for axis, index in enumerate(place))

    def plane(self, values: NDArray[Any], place: Place) -> Plane:
        """The plane through `place` of values (*space)."""
        index = tuple(place[axis] if axis in self.across else slice(None) for axis in range(values.ndim))
        return np.rot90(values[index]) if self.upright else values[index]

    def field(self, displacement: NDArray[Any], place: Place) -> FieldPlane:
        """The two components in the plane through `place` of a displacement (dim, *space), down and to the right."""
        first, second = (self.plane(displacement[axis], place) for axis in (self.first, self.second))
        return np.stack([-second, first] if self.upright else [first, second])

    def position(self, place: Place, shape: Sequence[int]) -> tuple[int, int]:
        """Row and column of a place in its plane of a grid of this shape."""
        if self.upright:
            return shape[self.second] - 1 - place[self.second], place[self.first]
        return place[self.first], place[self.second]


def cuts(dim: int, *, upright: bool = False) -> list[Cut]:
    """The families of planes of a grid: one in 2D, three in 3D, by the axes they cut across.

    upright: for volumes whose axes run to the right, to the front and up, as NIfTI's do: up and front are drawn up.
    """
    planes = reversed(list(combinations(range(dim), 2)))
    return [Cut(tuple(sorted({*range(dim)} - {*plane})), *plane, upright) for plane in planes]


def highest(values: NDArray[Any]) -> Place:
    """The place of the largest value."""
    return tuple(int(index) for index in np.unravel_index(np.argmax(values), values.shape))
