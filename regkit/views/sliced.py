"""The scenes of one plane, for volumes: a plane to choose, sliders through it, and the same pictures.

A `Sliced` scene knows its families of planes (volumes.py); in 2D there is one, and the controls for it fall away.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from regkit.views.controls import Button, Choice, Control, Player, Scene, Slider, State, Stops, Toggle
from regkit.views.drawing import Limits, Picture
from regkit.views.scenes import Comparison, Field, Folds, Place, folded_places, jacobian_in_words, next_place
from regkit.views.volumes import Cut, cuts

_REMEMBERED = 16  # planes

Volume = NDArray[Any]  # (*space)
FieldVolume = NDArray[Any]  # (dim, *space), voxels


class Sliced(Scene):
    """A scene that shows one plane of a volume at a time.

    upright: as of `volumes.cuts`.
    """

    upright: bool

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of space."""

    @functools.cached_property
    def cuts(self) -> dict[str, Cut]:
        """The families of planes by name; one in 2D."""
        return {cut.words: cut for cut in cuts(len(self.shape), upright=self.upright)}

    def plane_controls(self) -> dict[str, Control]:
        """The family of planes, and a slider along every axis: nothing in 2D."""
        if len(self.cuts) == 1:
            return {}
        sliders = {
            f"axis_{axis}": Slider(f"axis {axis} (voxel)", size // 2, 0, size - 1)
            for axis, size in enumerate(self.shape)
        }
        return {"plane": Choice("plane", list(self.cuts)), **sliders}

    def cut(self, state: State) -> Cut:
        """The family of planes that is chosen."""
        return self.cuts[state["plane"]] if "plane" in state else next(iter(self.cuts.values()))

    def place(self, state: State) -> Place:
        """The voxel that the sliders name; any in 2D."""
        return tuple(state.get(f"axis_{axis}", 0) for axis in range(len(self.shape)))

    def hidden(self, state: State) -> set[str]:
        """Also the sliders along axes that lie in the plane."""
        sliders = {f"axis_{axis}" for axis in range(len(self.shape)) if "plane" in state}
        return super().hidden(state) | (sliders - {f"axis_{axis}" for axis in self.cut(state).across})

    def where(self, state: State) -> str:
        """The plane in words: which voxel of the axis it cuts, and what runs where; empty in 2D."""
        cut = self.cut(state)
        if not cut.across:
            return ""
        return f"The plane at {', '.join(map(str, cut.held(self.place(state))))} {cut.words} ({cut.directions}). "


class Wrapped(Sliced):
    """A volume's planes, each as a scene of its own."""

    @abstractmethod
    def through(self, cut: Cut, place: Place) -> Scene:
        """The scene of the plane through a place."""

    @functools.cached_property
    def _made(self) -> Callable[[Cut, Place], Scene]:
        return functools.lru_cache(_REMEMBERED)(self.through)

    def at(self, state: State) -> Scene:
        """The scene of the plane that is chosen; the only one in 2D."""
        cut = self.cut(state)
        return self._made(cut, cut.start(self.place(state)))

    def controls(self) -> dict[str, Control]:
        """The plane, and what its scene has."""
        planes = self.plane_controls()
        return {**planes, **self.at(first_values(planes)).controls()}

    def render(self, state: State) -> Picture:
        """The plane's picture."""
        return self.at(state).render(state)

    def describe(self, state: State) -> str:
        """Which plane it is, and its own words."""
        return self.where(state) + self.at(state).describe(state)


def first_values(controls: Mapping[str, Control]) -> State:
    """The state that controls start in."""
    values = {name: control.value for name, control in controls.items() if isinstance(control, Slider | Toggle)}
    choices = {
        name: control.start if isinstance(control, Stops) else control.options[0]
        for name, control in controls.items()
        if isinstance(control, Choice)
    }
    return {**values, **choices, **{name: 0 for name, control in controls.items() if isinstance(control, Player)}}


@dataclass(frozen=True, eq=False)
class ComparisonInPlanes(Wrapped):
    """Two images of one grid, plane by plane: see `Comparison`."""

    before: Volume
    after: Volume | None
    fixed: Volume
    limits: Limits
    outlines: Volume | None
    upright: bool = False

    used_by: ClassVar[Mapping[str, Sequence[str]]] = Comparison.used_by

    @property
    def shape(self) -> tuple[int, ...]:
        return self.fixed.shape

    def through(self, cut: Cut, place: Place) -> Comparison:
        before, fixed = cut.plane(self.before, place), cut.plane(self.fixed, place)
        after, outlines = (None if each is None else cut.plane(each, place) for each in (self.after, self.outlines))
        return Comparison(before, after, fixed, self.limits, outlines)


@dataclass(frozen=True, eq=False)
class FieldInPlanes(Wrapped):
    """A displacement, plane by plane, by its two components in the plane: see `Field`."""

    displacement: FieldVolume
    image: Volume | None
    moving: Volume | None
    limit: float
    limits: Limits
    upright: bool = False

    used_by: ClassVar[Mapping[str, Sequence[str]]] = Field.used_by

    @property
    def shape(self) -> tuple[int, ...]:
        return self.displacement.shape[1:]

    def through(self, cut: Cut, place: Place) -> Field:
        image, moving = (None if each is None else cut.plane(each, place) for each in (self.image, self.moving))
        return Field(cut.field(self.displacement, place), image, moving, self.limit, self.limits)

    def where(self, state: State) -> str:
        return f"{super().where(state)}Of u only what lies in the plane. "


@dataclass(frozen=True, eq=False)
class FoldsInPlanes(Wrapped):
    """|J| of a volume, plane by plane, one voxel in words, and a way from fold to fold: see `Folds`."""

    displacement: FieldVolume
    determinant: Volume
    image: Volume | None
    limits: Limits
    upright: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.determinant.shape

    @functools.cached_property
    def folds(self) -> list[Place]:
        """The worst voxel of each folded region of the volume, deepest first."""
        return folded_places(self.determinant)

    def through(self, cut: Cut, place: Place) -> Folds:
        image = None if self.image is None else cut.plane(self.image, place)
        determinant = cut.plane(self.determinant, place)
        return Folds(cut.field(self.displacement, place), determinant, image, self.limits)

    def controls(self) -> dict[str, Control]:
        """The voxel, the histogram's scale and a way from fold to fold."""
        histogram = Choice("histogram", ["linear", "log"])
        return {**self.plane_controls(), "histogram": histogram, "next_fold": Button("next fold", bool(self.folds))}

    def hidden(self, state: State) -> set[str]:
        """Nothing: all sliders move the voxel."""
        return set()

    def press(self, button: str, state: State) -> dict[str, Any]:
        """From fold to fold, deepest first."""
        return {f"axis_{axis}": index for axis, index in enumerate(next_place(self.folds, self.place(state)))}

    def render(self, state: State) -> Picture:
        """Map, image with the folds, legend, histogram of the plane."""
        row, column = self.cut(state).position(self.place(state), self.shape)
        return super().render({**state, "row": row, "column": column})

    def describe(self, state: State) -> str:
        """The plane, the voxel, and how much of the volume folds."""
        words = jacobian_in_words(self.place(state), self.displacement, self.determinant, len(self.folds))
        return self.where(state) + words
