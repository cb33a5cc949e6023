"""Interactive pictures for notebooks: before and after, a field, its folds.

A `View` puts controls around a scene (scenes.py): a change of one draws the picture anew, in place. In a page without a
kernel a view shows its last picture (PNG). An exception in a callback is shown in red and kept in `view.errors`.
Works with ipywidgets 7.7 and 8; every control has a description and is moved by the keyboard.
"""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets

from regkit.fields import exponential, warp
from regkit.figures.pixels import (
    Limits,
    check_same_shape,
    displacement_limit,
    field_volume,
    intensity_limits,
    label_volume,
    volume,
)
from regkit.types import Displacement, Image, InputError, Labels, Pair, Registration
from regkit.widgets import slices
from regkit.widgets.live import _DESCRIBED, Tabs, View, _widget
from regkit.widgets.panels import Quantities, determinant, make_panels, pick
from regkit.widgets.scene import Button, Choice, Control, Player, Scene, Slider, State, Stops, Toggle
from regkit.widgets.slices import Slices
from regkit.widgets.volumes import ComparisonInPlanes, FieldInPlanes, FoldsInPlanes, Volume, Wrapped

__all__ = [
    "FIRST",
    "MOVING",
    "Button",
    "Choice",
    "Control",
    "Player",
    "Scene",
    "Slider",
    "State",
    "Stops",
    "Tabs",
    "Toggle",
    "View",
    "compare",
    "explore",
    "field_viewer",
    "jacobian_inspector",
    "level_scrubber",
    "slice_viewer",
    "time_scrubber",
]


@_widget.register
def _(control: Slider) -> ipywidgets.Widget:
    numbers = {"value": control.value, "min": control.low, "max": control.high, "step": control.step}
    whole = all(isinstance(number, int) for number in numbers.values())
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    options = {"continuous_update": control.live, "style": _DESCRIBED, "layout": {"width": "300px"}}
    return kind(**numbers, description=control.words, **options)


@_widget.register
def _(control: Choice) -> ipywidgets.Widget:
    return ipywidgets.Dropdown(options=control.options, description=control.words, style=_DESCRIBED)


@_widget.register
def _(control: Stops) -> ipywidgets.Widget:
    options = {"options": control.options, "value": control.start, "description": control.words}
    return ipywidgets.SelectionSlider(**options, style=_DESCRIBED, layout={"width": "340px"})


@_widget.register
def _(control: Toggle) -> ipywidgets.Widget:
    return ipywidgets.ToggleButton(value=control.value, description=control.words)


@_widget.register
def _(control: Player) -> ipywidgets.Widget:
    return ipywidgets.Play(value=0, min=0, max=10_000, interval=control.interval)


@_widget.register
def _(control: Button) -> ipywidgets.Widget:
    return ipywidgets.Button(description=control.words, disabled=not control.enabled)


# ---------------------------------------------------------------------------------------------- the views


def _view(scene: Wrapped) -> View:
    """A view of an image, or of a volume's planes."""
    return View(scene if len(scene.cuts) > 1 else scene.at({}))


def _same(values: Volume, shape: Sequence[int], names: tuple[str, str]) -> Volume:
    """The values, if they have this shape."""
    check_same_shape(values.shape, shape, names)
    return values


def _below(image: Image | None, field: Volume, name: str, item: int) -> Volume | None:
    """An image that lies below a field, if there is one."""
    return None if image is None else _same(volume(image, name, item), field.shape[1:], (name, "displacement"))


def _range(*images: Volume | None) -> Limits:
    """One range for those that are there."""
    present = [image for image in images if image is not None]
    return intensity_limits(*present) if present else (0.0, 1.0)


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
    target = volume(fixed, "fixed", item)
    before = _same(volume(moving, "moving", item), target.shape, ("moving", "fixed"))
    after = outlines = None
    if warped is not None:
        after = _same(volume(warped, "warped", item), target.shape, ("warped", "fixed"))
    if fixed_labels is not None:
        outlines = label_volume(fixed_labels, "fixed_labels", item)
        check_same_shape(outlines.shape, target.shape, ("fixed_labels", "fixed"))
    limits = _range(before, after, target)
    return _view(ComparisonInPlanes(before, after, target, limits, outlines, upright))


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
    field = field_volume(displacement, "displacement", item)
    beneath, under = _below(image, field, "image", item), _below(moving, field, "moving", item)
    limit, limits = displacement_limit(field), _range(beneath, under)
    return _view(FieldInPlanes(field, beneath, under, limit, limits, upright))


def jacobian_inspector(
    displacement: Displacement, image: Image | None = None, *, item: int = 0, upright: bool = False
) -> View:
    """Look for folds: |J| as a map and a histogram, one voxel in words, and a button from fold to fold.

    displacement: (B, dim, *space), voxels. image: shown beside the map with the folds on it, on the same grid (usually
    the fixed image). item: which of a batch. Of a volume one plane is shown; upright: as of `compare`.

    Raises:
        ValueError, IndexError: shapes that differ, NaN.
    """
    field = field_volume(displacement, "displacement", item)
    below = _below(image, field, "image", item)
    return _view(FoldsInPlanes(field, determinant(field), below, _range(below), upright))


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


# ---------------------------------------------------------------------------------------------- linked panels

FIRST = ("fixed", "warped", "difference", "grid", "jacobian", "folds")

MOVING = ("warped", "difference", "grid", "jacobian")


def slice_viewer(
    pair: Pair, registration: Registration, *, panels: Sequence[str] = FIRST, item: int = 0, upright: bool = False
) -> View:
    """Any number of linked panels; one voxel with cross hairs in all of them, and all values there in words.

    panels: names of `quantities.PANELS`: moving, fixed, warped, before, difference, checkerboard (of warped and fixed),
    fixed labels, warped labels, components, directions, grid, jacobian, folds, error (of the round trip). A volume
    shows three planes of each, or one. item: which of a batch. upright: as of `compare`.

    Raises:
        ValueError, IndexError: an unknown panel, no labels or inverse where a panel needs them, another grid, NaN.
    """
    seen = Quantities(pair, registration.displacement, registration.inverse, item)
    return View(Slices(make_panels(seen, panels), pair.spacing, upright))


def level_scrubber(
    pair: Pair, registration: Registration, *, panels: Sequence[str] = MOVING, item: int = 0, upright: bool = False
) -> View:
    """Run through the levels of a registration, from the identity over the coarse ones to the finest.

    panels, item, upright: as of `slice_viewer`. Each level is brought to the full grid; ranges are the last one's.

    Raises:
        ValueError: a registration without levels; otherwise as `slice_viewer`.
    """
    if not registration.levels:
        raise InputError("levels can be run through where there are some", "levels=()", "use another method")
    seen = Quantities(pair, registration.displacement, item=item)
    return View(slices.level_scrubber(seen, registration.levels, panels, upright))


def time_scrubber(
    pair: Pair, velocity: Displacement, *, panels: Sequence[str] = MOVING, item: int = 0, upright: bool = False
) -> View:
    """Run through the time for which a stationary velocity is integrated, from 0 (the identity) to 1.

    velocity: (B, dim, *space), voxels per unit time. panels, item, upright: as of `slice_viewer`.

    Raises:
        ValueError, IndexError: as `slice_viewer`.
    """
    velocity = pick(velocity, item)
    seen = Quantities(pair, exponential(velocity), item=item)
    return View(slices.time_scrubber(seen, velocity, panels, upright))
