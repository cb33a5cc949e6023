"""Two images in one picture, a field, its folds: the scenes of one plane. sliced.py makes them of volumes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from regkit.views import pictures
from regkit.views.controls import Button, Choice, Control, Player, Scene, Slider, State, Toggle
from regkit.views.drawing import (
    DIFFERENCES,
    FieldPlane,
    Limits,
    Picture,
    Plane,
    blank,
    darken,
    integer_scale,
    stack,
)
from regkit.views.volumes import Place

# ---------------------------------------------------------------------------------------------- before and after


@dataclass(frozen=True, eq=False)
class Comparison(Scene):
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
        "curtain": pictures.render_curtain,
        "flicker": pictures.render_flicker,
        "checkerboard": pictures.render_checkerboard,
        "overlay": pictures.render_overlay,
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
            picture = pictures.render_difference(first, self.fixed, limit=half, scale=options["scale"])
            bar = pictures.render_bar(DIFFERENCES, (-half, half), width=max(picture.shape[1], 160), unit="intensity")
            return stack(picture, bar)
        if mode == "outlines":
            return pictures.render_contours(pictures.render_image(first, **options), self.outlines)
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
class Field(Scene):
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
            picture = pictures.render_displacement(stretch * self.displacement, limit=self.limit, scale=scale)
            return stack(picture, pictures.render_wheel(self.limit, width=max(picture.shape[1], 340)))
        below = self.image if mode == "arrows" or self.moving is None else self.moving
        picture = blank(self.displacement.shape, scale)
        if below is not None:
            picture = darken(pictures.render_image(below, limits=self.limits, scale=scale), 0.6)
        render = {"grid": pictures.render_grid, "arrows": pictures.render_arrows}[mode]
        return render(picture, self.displacement, every=state["every"], stretch=stretch)

    def describe(self, state: State) -> str:
        """What is drawn, and how long the displacements are."""
        length = np.hypot(*self.displacement)
        shown = f" Drawn {state['stretch']:g} times as long." if state["stretch"] != 1 else ""
        return f"{self.WORDS[state['mode']]} |u|: mean {length.mean():.2f}, at most {length.max():.2f} voxels.{shown}"


# ---------------------------------------------------------------------------------------------- folds


@dataclass(frozen=True, eq=False)
class Folds(Scene):
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
        maps = [pictures.render_jacobian(self.determinant, scale=scale)]
        if self.image is not None:
            below = pictures.render_image(self.image, limits=self.limits, scale=scale)
            maps.append(pictures.render_folds(below, self.determinant))
        return maps

    def render(self, state: State) -> Picture:
        """Map, image with the folds, legend, histogram."""
        place, shape = (state["row"], state["column"]), self.determinant.shape
        picture = stack(*(pictures.render_point(panel, place, shape) for panel in self.maps), axis=1)
        width = max(picture.shape[1], 320)
        options = {"logarithmic": state["histogram"] == "log", "mark": float(self.determinant[place])}
        histogram = pictures.render_histogram(self.determinant, width=width, **options)
        return stack(picture, pictures.render_jacobian_bar(width=width), histogram)

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
