"""Interactive pictures for notebooks: before and after, a field, its folds.

A `View` puts controls around a scene (scenes.py): a change of one draws the picture anew, in place. In a page without a
kernel a view shows its last picture (PNG). An exception in a callback is shown in red and kept in `view.errors`.
Works with ipywidgets 7.7 and 8; every control has a description and is moved by the keyboard.
"""

from __future__ import annotations

import base64
import functools
import html
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets

from regkit.fields import exponential, warp
from regkit.types import Displacement, Image, Labels, Pair, Registration
from regkit.views import stages, static
from regkit.views.controls import Button, Choice, Control, Player, Scene, Slider, State, Stops, Toggle
from regkit.views.drawing import (
    Limits,
    Picture,
    check_same_shape,
    displacement_limit,
    field_volume,
    intensity_limits,
    label_volume,
    png,
    volume,
)
from regkit.views.quantities import Quantities, determinant, make_panels, pick
from regkit.views.sliced import ComparisonInPlanes, FieldInPlanes, FoldsInPlanes, Volume, Wrapped
from regkit.views.slices import Slices

_DESCRIBED = {"description_width": "initial"}


# ---------------------------------------------------------------------------------------------- a live scene


@functools.singledispatch
def _widget(control: Control) -> ipywidgets.Widget:
    """The ipywidget for a control."""
    raise TypeError(f"a control must be one of {Control}, received {control!r}; see scenes.py.")


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


def _bundle(widget: ipywidgets.Widget, picture: bytes, words: str) -> dict[str, Any]:
    """The widget for a notebook, a picture for a page, words for a terminal."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {
        "text/plain": words,
        "image/png": base64.b64encode(picture).decode(),
        "application/vnd.jupyter.widget-view+json": view,
    }


class View:
    """A scene with its controls.

    controls: the widgets by name; `set(name=value, ...)` moves several and draws once. image: the ipywidgets.Image.
    widget: everything together, to be put into other boxes. errors: the tracebacks of callbacks that failed.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.controls = {name: _widget(control) for name, control in scene.controls().items()}
        self.errors: list[str] = []
        self.image = ipywidgets.Image(format="png", layout={"max_width": "100%", "align_self": "flex-start"})
        self.caption, self.alert = ipywidgets.HTML(), ipywidgets.HTML()
        row = ipywidgets.Box([*self.controls.values()], layout={"flex_flow": "row wrap", "align_items": "center"})
        self.widget = ipywidgets.VBox([row, self.image, self.caption, self.alert])
        self._held = False
        for name, control in self.controls.items():
            if isinstance(control, ipywidgets.Button):
                control.on_click(lambda _, name=name: self.press(name))
            else:
                control.observe(lambda _: self.update(), names="value")
        self._draw()  # a mistake in the input is the caller's to see

    @property
    def state(self) -> dict[str, Any]:
        """The controls' values by name."""
        buttons = ipywidgets.Button
        return {name: control.value for name, control in self.controls.items() if not isinstance(control, buttons)}

    def render(self, state: State) -> Picture:
        """The picture for any values of the controls; those left out keep their present values."""
        return self.scene.render({**self.state, **state})

    def set(self, **values: Any) -> None:
        """Move several controls and draw once."""
        self._held = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.update()

    def press(self, button: str) -> None:
        """Press a button."""
        self.attempt(lambda: self.set(**self.scene.press(button, self.state)))

    def update(self) -> None:
        """Draw the picture and its caption anew, in place."""
        if not self._held:
            self.attempt(self._draw)

    def attempt(self, action: Callable[[], Any]) -> None:
        """Do something in a callback: where it fails, show the error under the picture and keep its traceback."""
        try:
            action()
            self.alert.value = ""
        except Exception as error:
            self.errors.append(traceback.format_exc())
            words = html.escape(f"{type(error).__name__}: {error}")
            self.alert.value = f'<div role="alert" style="color:#b00020;border:1px solid;padding:4px">{words}</div>'

    def _draw(self) -> None:
        state = self.state
        hidden = self.scene.hidden(state)
        for name, control in self.controls.items():
            control.layout.display = "none" if name in hidden else None
        self.image.value = png(self.scene.render(state))
        words = self.scene.describe(state)
        self.caption.value = f'<div aria-live="polite" style="line-height:1.4">{html.escape(words)}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        words = self.scene.describe(self.state)
        if static.wanted():
            return {"text/plain": words, "text/html": static.moving_html(self.scene, self.state)}
        return _bundle(self.widget, self.image.value, words)


class Tabs:
    """Several views behind tabs; `views` by title. A page without a kernel shows the first one's picture."""

    def __init__(self, views: Mapping[str, View]) -> None:
        self.views = dict(views)
        self.widget = ipywidgets.Tab([view.widget for view in views.values()])
        for position, title in enumerate(views):
            self.widget.set_title(position, title)

    @property
    def errors(self) -> list[str]:
        """The errors of all views."""
        return [error for view in self.views.values() for error in view.errors]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if static.wanted():
            return {
                "text/html": static.tabs_html({title: (view.scene, view.state) for title, view in self.views.items()})
            }
        first = next(iter(self.views.values()))
        return _bundle(self.widget, first.image.value, first.scene.describe(first.state))


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
        raise ValueError("levels can be run through where there are some, received levels=(); use another method.")
    seen = Quantities(pair, registration.displacement, item=item)
    return View(stages.level_scrubber(seen, registration.levels, panels, upright))


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
    return View(stages.time_scrubber(seen, velocity, panels, upright))
