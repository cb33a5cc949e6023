"""One plane at a time: two images of one grid in one picture, a displacement, its folds."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from regkit.fields import warp
from regkit.figures import paint, pixels
from regkit.figures.pixels import DIFFERENCES, Limits, Picture
from regkit.figures.planes import Cut, Place
from regkit.types import Displacement, Image, Labels, Pair, Registration
from regkit.widgets.live import Tabs, View
from regkit.widgets.panels import FieldVolume, Volume, determinant, pick, volume_in_words
from regkit.widgets.scene import Button, Choice, Control, Player, Scene, Slider, State, Toggle, first_values
from regkit.widgets.slices import Planes

_REMEMBERED = 16  # planes


def _same(values: Volume, shape: Sequence[int], names: tuple[str, str]) -> Volume:
    """The values, if they have this shape."""
    pixels.check_same_shape(values.shape, shape, names)
    return values


def _below(image: Image | None, field: Volume, name: str, item: int) -> Volume | None:
    """An image that lies below a field, if there is one."""
    return None if image is None else _same(pixels.volume(image, name, item), field.shape[1:], (name, "displacement"))


def _range(*images: Volume | None) -> Limits:
    """One range for those that are there."""
    present = [image for image in images if image is not None]
    return pixels.intensity_limits(*present) if present else (0.0, 1.0)


# ---------------------------------------------------------------------------------------------- before and after
_COMPARED = {
    "curtain": "{first} left of the yellow line, fixed right of it. Aligned: edges run on across the line.",
    "flicker": "{first} and fixed in turn (now {shown}). Aligned: nothing jumps.",
    "checkerboard": "{first} and fixed on alternate fields. Aligned: edges run on from field to field.",
    "difference": "{first} minus fixed, from -{half:g} (blue) to {half:g} (orange). Aligned: no colour.",
    "overlay": "{first} in orange, fixed in blue. Aligned: only grey.",
    "outlines": "{first}, with the outlines of the fixed labels. Aligned: they lie on its edges.",
}

_ONLY = {"position": "curtain", "tiles": "checkerboard", "frame": "flicker"}  # the mode in which a control counts


def compare(
    moving: Image,
    fixed: Image,
    *,
    warped: Image | None = None,
    fixed_labels: Labels | None = None,
    item: int = 0,
    upright: bool = False,
) -> View:
    """Look at an image and the fixed image in one picture: curtain, flicker, checkerboard, difference, overlay.

    moving, fixed, warped: (B, 1, *space), or (H, W). With `warped` a toggle shows before and after registration; with
    `fixed_labels` their outlines are a further view. item: which of a batch. A volume has its plane to choose; upright:
    its axes run to the right, to the front and up (NIfTI), and up is to be drawn up.

    Raises:
        ValueError, IndexError: shapes that differ, NaN.
    """
    target = pixels.volume(fixed, "fixed", item)
    before = _same(pixels.volume(moving, "moving", item), target.shape, ("moving", "fixed"))
    after = outlines = None
    if warped is not None:
        after = _same(pixels.volume(warped, "warped", item), target.shape, ("warped", "fixed"))
    if fixed_labels is not None:
        outlines = pixels.label_volume(fixed_labels, "fixed_labels", item)
        pixels.check_same_shape(outlines.shape, target.shape, ("fixed_labels", "fixed"))
    limits = _range(before, after, target)
    half = (limits[1] - limits[0]) / 2  # the largest difference told apart
    planes = Planes(target.shape, upright)
    controls = planes.controls() | {
        "mode": Choice("view", [mode for mode in _COMPARED if mode != "outlines" or outlines is not None]),
        "position": Slider("curtain", 0.5, 0.0, 1.0, 0.01),
        "tiles": Slider("fields", 6, 2, 16),
        "frame": Player(interval=600),
    }
    if after is not None:
        controls["warped"] = Toggle("after registration", True)

    def first(state: State) -> tuple[str, Volume]:
        """What is compared with fixed: its name and the image."""
        return ("Moving", before) if after is None or not state["warped"] else ("Warped", after)

    def render(state: State) -> Picture:
        one, other = planes.plane(first(state)[1], state), planes.plane(target, state)
        mode = state["mode"]
        options: dict[str, Any] = {"limits": limits, "scale": pixels.integer_scale(other.shape)}
        if mode == "curtain":
            return paint.render_curtain(one, other, position=state["position"], **options)
        if mode == "flicker":
            return paint.render_flicker(one, other, frame=state["frame"], **options)
        if mode == "checkerboard":
            return paint.render_checkerboard(one, other, tiles=state["tiles"], **options)
        if mode == "overlay":
            return paint.render_overlay(one, other, **options)
        if mode == "outlines" and outlines is not None:
            return paint.render_contours(paint.render_image(one, **options), planes.plane(outlines, state))
        picture = paint.render_difference(one, other, limit=half, scale=options["scale"])
        bar = paint.render_bar(DIFFERENCES, (-half, half), width=max(picture.shape[1], 160), unit="intensity")
        return pixels.stack(picture, bar)

    def describe(state: State) -> str:
        name, _ = first(state)
        shown = "fixed" if state["frame"] % 2 else name
        return planes.where(state) + _COMPARED[state["mode"]].format(first=name, shown=shown, half=half)

    def hidden(state: State) -> set[str]:
        return planes.hidden(state) | {name for name, mode in _ONLY.items() if mode != state["mode"]}

    return View(Scene(controls, render, describe, hidden))


# ---------------------------------------------------------------------------------------------- fields
_FIELD = {
    "grid": "Rows and columns of the fixed grid, x moved to x + u(x): where the warp reads the moving image.",
    "arrows": "From x to x + u(x), where the warp reads the moving image. The content goes from tip to tail.",
    "colour": "The direction from x to x + u(x) as hue, its length as depth of colour.",
}


def field_viewer(
    displacement: Displacement,
    image: Image | None = None,
    *,
    moving: Image | None = None,
    item: int = 0,
    upright: bool = False,
) -> View:
    """Look at a displacement: the deformed grid, arrows, or direction and length as colours.

    displacement: (B, dim, *space), voxels. image: what lies below, on the same grid (usually the fixed image). moving:
    if given it lies below the deformed grid, whose lines are places in the moving image. item: which of a batch. Of a
    volume one plane is shown, with what of the displacement lies in it; upright: as of `compare`.

    Raises:
        ValueError, IndexError: shapes that differ, NaN.
    """
    field: FieldVolume = pixels.field_volume(displacement, "displacement", item)
    beneath, under = _below(image, field, "image", item), _below(moving, field, "moving", item)
    limit, limits = pixels.displacement_limit(field), _range(beneath, under)
    planes = Planes(field.shape[1:], upright)
    choice = planes.controls()
    longer = max(planes.field(field, first_values(choice)).shape[1:])
    controls = choice | {
        "mode": Choice("view", list(_FIELD)),
        "every": Slider("one every (voxels)", max(1, longer // 16), 1, max(2, longer // 4)),
        "stretch": Slider("scale of u", 1.0, 0.0, 3.0, 0.05),
    }

    def render(state: State) -> Picture:
        """The plane's u times `stretch`: the grid on moving, where the map leads, arrows on the image, or colours."""
        u, mode, stretch = planes.field(field, state), state["mode"], state["stretch"]
        scale = pixels.integer_scale(u.shape)
        if mode == "colour":
            picture = paint.render_displacement(stretch * u, limit=limit, scale=scale)
            return pixels.stack(picture, paint.render_wheel(limit, width=max(picture.shape[1], 340)))
        render_lines = {"grid": paint.render_grid, "arrows": paint.render_arrows}[mode]
        below = beneath if mode == "arrows" or under is None else under
        picture = pixels.blank(u.shape, scale)
        if below is not None:
            picture = pixels.darken(paint.render_image(planes.plane(below, state), limits=limits, scale=scale), 0.6)
        return render_lines(picture, u, every=state["every"], stretch=stretch)

    def describe(state: State) -> str:
        length = np.hypot(*planes.field(field, state))
        part = "Of u only what lies in the plane. " if "plane" in state else ""
        shown = f" Drawn {state['stretch']:g} times as long." if state["stretch"] != 1 else ""
        return (
            f"{planes.where(state)}{part}{_FIELD[state['mode']]} |u|: mean {length.mean():.2f}, at most "
            f"{length.max():.2f} voxels.{shown}"
        )

    def hidden(state: State) -> set[str]:
        return planes.hidden(state) | ({"every"} if state["mode"] == "colour" else set())

    return View(Scene(controls, render, describe, hidden))


# ---------------------------------------------------------------------------------------------- folds
def jacobian_inspector(
    displacement: Displacement, image: Image | None = None, *, item: int = 0, upright: bool = False
) -> View:
    """Look for folds: |J| as a map and a histogram, one voxel in words, and a button from fold to fold.

    displacement: (B, dim, *space), voxels. image: shown beside the map with the folds on it, on the same grid (usually
    the fixed image). item: which of a batch. Of a volume one plane is shown; upright: as of `compare`.

    Raises:
        ValueError, IndexError: shapes that differ, NaN.
    """
    field: FieldVolume = pixels.field_volume(displacement, "displacement", item)
    below = _below(image, field, "image", item)
    limits, folding = _range(below), determinant(field)
    folds, planes = folded_places(folding), Planes(folding.shape, upright)
    axes: Mapping[str, Control] = planes.controls()
    if not axes:
        rows, columns = folding.shape
        axes = {
            "row": Slider("row (axis 0)", rows // 2, 0, rows - 1),
            "column": Slider("column (axis 1)", columns // 2, 0, columns - 1),
        }
    names = [name for name in axes if name != "plane"]
    histogram = Choice("histogram", ["linear", "log"])
    controls = {**axes, "histogram": histogram, "next_fold": Button("next fold", enabled=bool(folds))}

    def place(state: State) -> Place:
        return tuple(state[name] for name in names)

    @functools.lru_cache(_REMEMBERED)
    def maps(cut: Cut, start: Place) -> list[Picture]:
        """|J| of a plane, and the image with the folds on it where there is one."""
        values = cut.plane(folding, start)
        scale = pixels.integer_scale(values.shape)
        shown = [paint.render_jacobian(values, scale=scale)]
        if below is not None:
            grey = paint.render_image(cut.plane(below, start), limits=limits, scale=scale)
            shown.append(paint.render_folds(grey, values))
        return shown

    def render(state: State) -> Picture:
        """Map, image with the folds, legend, histogram of the plane."""
        voxel, cut = place(state), planes.cut(state)
        at, values = cut.position(voxel, folding.shape), cut.plane(folding, voxel)
        points = (paint.render_point(each, at, values.shape) for each in maps(cut, cut.start(voxel)))
        picture = pixels.stack(*points, axis=1)
        width = max(picture.shape[1], 320)
        options: dict[str, Any] = {"logarithmic": state["histogram"] == "log", "mark": float(folding[voxel])}
        return pixels.stack(
            picture, paint.render_jacobian_bar(width=width), paint.render_histogram(values, width=width, **options)
        )

    def describe(state: State) -> str:
        return planes.where(state) + jacobian_in_words(place(state), field, folding, len(folds))

    def press(button: str, state: State) -> dict[str, Any]:
        """From fold to fold, deepest first."""
        return dict(zip(names, next_place(folds, place(state)), strict=True))

    return View(Scene(controls, render, describe, press=press))


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


# ---------------------------------------------------------------------------------------------- all three
def explore(pair: Pair, registration: Registration, *, item: int = 0, upright: bool = False) -> Tabs:
    """Everything about one registration behind three tabs: compare, field, folds. item: which of a batch."""
    moving, fixed, displacement = (pick(t, item) for t in (pair.moving, pair.fixed, registration.displacement))
    labels = None if pair.fixed_labels is None else pick(pair.fixed_labels, item)
    warped = warp(moving, displacement)
    return Tabs(
        {
            "before and after": compare(moving, fixed, warped=warped, fixed_labels=labels, upright=upright),
            "field": field_viewer(displacement, fixed, moving=moving, upright=upright),
            "folds": jacobian_inspector(displacement, fixed, upright=upright),
        }
    )
