"""The scenes of one plane, for volumes: a plane to choose, sliders through it, and the same pictures.

A `Sliced` scene knows its families of planes (volumes.py); in 2D there is one, and the controls for it fall away.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from regkit.figures import paint
from regkit.figures.pixels import DIFFERENCES, FieldPlane, Limits, Picture, Plane, blank, darken, integer_scale, stack
from regkit.figures.planes import Cut, Place, cuts
from regkit.widgets.panels import volume_in_words
from regkit.widgets.scene import Button, Choice, ClassScene, Control, Player, Slider, State, Stops, Toggle

# ---------------------------------------------------------------------------------------------- before and after


@dataclass(frozen=True, eq=False)
class Comparison(ClassScene):
    """Two images of one grid in one picture; `before` and `after` are what is compared with `fixed`."""

    before: Plane
    after: Plane | None
    fixed: Plane
    limits: Limits
    outlines: Plane | None

    used_by: ClassVar[Mapping[str, Sequence[str]]] = {
        "position": ("curtain",),
        "tiles": ("checkerboard",),
        "frame": ("flicker",),
    }
    WORDS: ClassVar[Mapping[str, str]] = {
        "curtain": "{first} left of the yellow line, fixed right of it. Aligned: edges run on across the line.",
        "flicker": "{first} and fixed in turn (now {shown}). Aligned: nothing jumps.",
        "checkerboard": "{first} and fixed on alternate fields. Aligned: edges run on from field to field.",
        "difference": "{first} minus fixed, from -{half:g} (blue) to {half:g} (orange). Aligned: no colour.",
        "overlay": "{first} in orange, fixed in blue. Aligned: only grey.",
        "outlines": "{first}, with the outlines of the fixed labels. Aligned: they lie on its edges.",
    }
    PAINTERS: ClassVar[Mapping[str, Callable[..., Picture]]] = {
        "curtain": paint.render_curtain,
        "flicker": paint.render_flicker,
        "checkerboard": paint.render_checkerboard,
        "overlay": paint.render_overlay,
    }

    def controls(self) -> dict[str, Control]:
        """View, before or after, and what the views need."""
        modes = [mode for mode in self.WORDS if mode != "outlines" or self.outlines is not None]
        controls: dict[str, Control] = {
            "mode": Choice("view", modes),
            "position": Slider("curtain", 0.5, 0.0, 1.0, 0.01),
            "tiles": Slider("fields", 6, 2, 16),
            "frame": Player(interval=600),
        }
        if self.after is not None:
            controls["warped"] = Toggle("after registration", True)
        return controls

    def render(self, state: State) -> Picture:
        """The picture of `state["mode"]`."""
        mode, (_, first) = state["mode"], self._first(state)
        options: dict[str, Any] = {"limits": self.limits, "scale": integer_scale(first.shape)}
        if mode == "difference":
            half = self._half()
            picture = paint.render_difference(first, self.fixed, limit=half, scale=options["scale"])
            bar = paint.render_bar(DIFFERENCES, (-half, half), width=max(picture.shape[1], 160), unit="intensity")
            return stack(picture, bar)
        if mode == "outlines":
            return paint.render_contours(paint.render_image(first, **options), self.outlines)
        own = {name: state[name] for name, modes in self.used_by.items() if mode in modes}
        return self.PAINTERS[mode](first, self.fixed, **own, **options)

    def describe(self, state: State) -> str:
        """What is seen, and how alignment would look."""
        name, _ = self._first(state)
        shown = "fixed" if state["frame"] % 2 else name
        return self.WORDS[state["mode"]].format(first=name, shown=shown, half=self._half())

    def _first(self, state: State) -> tuple[str, Plane]:
        """What is compared with fixed: its name and the image."""
        return ("Moving", self.before) if self.after is None or not state["warped"] else ("Warped", self.after)

    def _half(self) -> float:
        """Half the range of the intensities: the largest difference told apart."""
        return (self.limits[1] - self.limits[0]) / 2


# ---------------------------------------------------------------------------------------------- fields


@dataclass(frozen=True, eq=False)
class Field(ClassScene):
    """A displacement as a deformed grid (on `moving`, where the map leads), as arrows (on `image`) or as colours.

    limit: the range of the colours, voxels. limits: the range of the images.
    """

    displacement: FieldPlane
    image: Plane | None
    moving: Plane | None
    limit: float
    limits: Limits

    used_by: ClassVar[Mapping[str, Sequence[str]]] = {"every": ("grid", "arrows")}
    WORDS: ClassVar[Mapping[str, str]] = {
        "grid": "Rows and columns of the fixed grid, x moved to x + u(x): where the warp reads the moving image.",
        "arrows": "From x to x + u(x), where the warp reads the moving image. The content goes from tip to tail.",
        "colour": "The direction from x to x + u(x) as hue, its length as depth of colour.",
    }

    def controls(self) -> dict[str, Control]:
        """View, density and scale."""
        longer = max(self.displacement.shape[1:])
        return {
            "mode": Choice("view", list(self.WORDS)),
            "every": Slider("one every (voxels)", max(1, longer // 16), 1, max(2, longer // 4)),
            "stretch": Slider("scale of u", 1.0, 0.0, 3.0, 0.05),
        }

    def render(self, state: State) -> Picture:
        """The picture of `state["mode"]`, with u times `state["stretch"]`."""
        mode, stretch, scale = state["mode"], state["stretch"], integer_scale(self.displacement.shape)
        if mode == "colour":
            picture = paint.render_displacement(stretch * self.displacement, limit=self.limit, scale=scale)
            return stack(picture, paint.render_wheel(self.limit, width=max(picture.shape[1], 340)))
        below = self.image if mode == "arrows" or self.moving is None else self.moving
        picture = blank(self.displacement.shape, scale)
        if below is not None:
            picture = darken(paint.render_image(below, limits=self.limits, scale=scale), 0.6)
        render = {"grid": paint.render_grid, "arrows": paint.render_arrows}[mode]
        return render(picture, self.displacement, every=state["every"], stretch=stretch)

    def describe(self, state: State) -> str:
        """What is drawn, and how long the displacements are."""
        length = np.hypot(*self.displacement)
        shown = f" Drawn {state['stretch']:g} times as long." if state["stretch"] != 1 else ""
        return f"{self.WORDS[state['mode']]} |u|: mean {length.mean():.2f}, at most {length.max():.2f} voxels.{shown}"


# ---------------------------------------------------------------------------------------------- folds


@dataclass(frozen=True, eq=False)
class Folds(ClassScene):
    """|J| as a map, with the image beside it, a histogram, and one voxel in words."""

    displacement: FieldPlane
    determinant: Plane
    image: Plane | None
    limits: Limits

    @functools.cached_property
    def folds(self) -> list[Place]:
        """The worst voxel of each folded region, deepest first."""
        return folded_places(self.determinant)

    def controls(self) -> dict[str, Control]:
        """The voxel, the histogram's scale and a way from fold to fold."""
        rows, columns = self.determinant.shape
        return {
            "row": Slider("row (axis 0)", rows // 2, 0, rows - 1),
            "column": Slider("column (axis 1)", columns // 2, 0, columns - 1),
            "histogram": Choice("histogram", ["linear", "log"]),
            "next_fold": Button("next fold", enabled=bool(self.folds)),
        }

    def press(self, button: str, state: State) -> dict[str, Any]:
        """From fold to fold, deepest first."""
        place = next_place(self.folds, (state["row"], state["column"]))
        return dict(zip(("row", "column"), place, strict=True))

    @functools.cached_property
    def maps(self) -> list[Picture]:
        """|J|, and the image with the folds on it where there is one."""
        scale = integer_scale(self.determinant.shape)
        maps = [paint.render_jacobian(self.determinant, scale=scale)]
        if self.image is not None:
            below = paint.render_image(self.image, limits=self.limits, scale=scale)
            maps.append(paint.render_folds(below, self.determinant))
        return maps

    def render(self, state: State) -> Picture:
        """Map, image with the folds, legend, histogram."""
        place, shape = (state["row"], state["column"]), self.determinant.shape
        picture = stack(*(paint.render_point(panel, place, shape) for panel in self.maps), axis=1)
        width = max(picture.shape[1], 320)
        options = {"logarithmic": state["histogram"] == "log", "mark": float(self.determinant[place])}
        histogram = paint.render_histogram(self.determinant, width=width, **options)
        return stack(picture, paint.render_jacobian_bar(width=width), histogram)

    def describe(self, state: State) -> str:
        """The voxel's displacement and change of size, and how much of the plane folds."""
        place = (state["row"], state["column"])
        return jacobian_in_words(place, self.displacement, self.determinant, len(self.folds))


def folded_places(determinant: NDArray[Any]) -> list[Place]:
    """The worst voxel of each region with |J| <= 0 of a plane or a volume, deepest first."""
    regions, count = ndimage.label(determinant <= 0, np.ones((3,) * determinant.ndim))
    places = ndimage.minimum_position(determinant, regions, range(1, count + 1))
    return sorted((tuple(map(int, place)) for place in places), key=lambda place: determinant[place])


def next_place(places: Sequence[Place], place: Place) -> Place:
    """The one after `place` in a list, from the last to the first; the first where `place` is none of them."""
    return places[(places.index(place) + 1) % len(places) if place in places else 0]


def jacobian_in_words(place: Place, displacement: NDArray[Any], determinant: NDArray[Any], regions: int) -> str:
    """A voxel's displacement and change of size, and how much of the plane or volume folds."""
    value = float(determinant[place])
    components = ", ".join(f"{u[place]:+.2f} along axis {axis}" for axis, u in enumerate(displacement))
    return (
        f"Voxel ({', '.join(map(str, place))}): |J| = {value:.3f}, {volume_in_words(value)}. "
        f"u = {components} (voxels). |J| goes from {determinant.min():.2f} to {determinant.max():.2f}; "
        f"{(determinant <= 0).mean():.2%} of the voxels fold, in {regions} regions."
    )


_REMEMBERED = 16  # planes

Volume = NDArray[Any]  # (*space)

FieldVolume = NDArray[Any]  # (dim, *space), voxels


class Sliced(ClassScene):
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
    def through(self, cut: Cut, place: Place) -> ClassScene:
        """The scene of the plane through a place."""

    @functools.cached_property
    def _made(self) -> Callable[[Cut, Place], ClassScene]:
        return functools.lru_cache(_REMEMBERED)(self.through)

    def at(self, state: State) -> ClassScene:
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
