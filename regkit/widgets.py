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
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import torch
from torch import Tensor

from regkit.drawing import (
    FieldPlane,
    Picture,
    Plane,
    check_same_plane,
    field_plane,
    intensity_limits,
    label_plane,
    plane,
    png,
)
from regkit.fields import jacobian_determinant, warp
from regkit.scenes import Button, Choice, Comparison, Control, Field, Folds, Player, Scene, Slider, State, Toggle
from regkit.types import Displacement, Image, Labels, Pair, Registration

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
    return kind(**numbers, description=control.words, style=_DESCRIBED, layout={"width": "300px"})


@_widget.register
def _(control: Choice) -> ipywidgets.Widget:
    return ipywidgets.Dropdown(options=control.options, description=control.words, style=_DESCRIBED)


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
        mode = state.get("mode")
        for name, modes in self.scene.used_by.items():
            self.controls[name].layout.display = None if mode in modes else "none"
        self.image.value = png(self.scene.render(state))
        words = self.scene.describe(state)
        self.caption.value = f'<div aria-live="polite" style="line-height:1.4">{html.escape(words)}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return _bundle(self.widget, self.image.value, self.scene.describe(self.state))


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
        first = next(iter(self.views.values()))
        return _bundle(self.widget, first.image.value, first.scene.describe(first.state))


# ---------------------------------------------------------------------------------------------- the views


def compare(
    moving: Image, fixed: Image, *, warped: Image | None = None, fixed_labels: Labels | None = None, item: int = 0
) -> View:
    """Look at an image and the fixed image in one picture: curtain, flicker, checkerboard, difference, overlay.

    moving, fixed, warped: (B, 1, H, W) or (H, W). With `warped` a toggle shows before and after registration; with
    `fixed_labels` their outlines are a further view. item: which of a batch.

    Raises:
        ValueError, IndexError: shapes that differ, NaN, volumes.
    """
    before, target = plane(moving, "moving", item), plane(fixed, "fixed", item)
    after = None if warped is None else plane(warped, "warped", item)
    outlines = None if fixed_labels is None else label_plane(fixed_labels, "fixed_labels", item)
    for name, shown in (("moving", before), ("warped", after), ("fixed_labels", outlines)):
        if shown is not None:
            check_same_plane(shown, target, (name, "fixed"))
    limits = intensity_limits(before, target, before if after is None else after)
    return View(Comparison(before, after, target, limits, outlines))


def field_viewer(
    displacement: Displacement, image: Image | None = None, *, moving: Image | None = None, item: int = 0
) -> View:
    """Look at a displacement: the deformed grid, arrows, or direction and length as colours.

    displacement: (B, 2, H, W), voxels. image: what lies below, on the same grid (usually the fixed image). moving: if
    given it lies below the deformed grid, whose lines are places in the moving image. item: which of a batch.

    Raises:
        ValueError, IndexError: shapes that differ, NaN, volumes.
    """
    field = field_plane(displacement, "displacement", item)
    return View(Field(field, _below(image, field, "image", item), _below(moving, field, "moving", item)))


def _below(image: Image | None, field: FieldPlane, name: str, item: int) -> Plane | None:
    """An image that lies below a field, if there is one."""
    if image is None:
        return None
    below = plane(image, name, item)
    check_same_plane(below, field, (name, "displacement"))
    return below


def jacobian_inspector(displacement: Displacement, image: Image | None = None, *, item: int = 0) -> View:
    """Look for folds: |J| as a map and a histogram, one voxel in words, and a button from fold to fold.

    displacement: (B, 2, H, W), voxels. image: shown beside the map with the folds on it, on the same grid (usually the
    fixed image). item: which of a batch.

    Raises:
        ValueError, IndexError: shapes that differ, NaN, volumes.
    """
    field = field_plane(displacement, "displacement", item)
    determinant = jacobian_determinant(torch.from_numpy(field)[None])
    return View(Folds(field, plane(determinant), _below(image, field, "image", item)))


def _pick(tensor: Tensor, item: int) -> Tensor:
    """One item of a batch, still with its batch axis; a batch of one serves for all."""
    return tensor if len(tensor) == 1 else tensor[[item]]


def explore(pair: Pair, registration: Registration, *, item: int = 0) -> Tabs:
    """Everything about one registration behind three tabs: compare, field, folds. item: which of a batch."""
    tensors = (pair.moving, pair.fixed, registration.displacement)
    moving, fixed, displacement = (_pick(tensor, item) for tensor in tensors)
    labels = None if pair.fixed_labels is None else _pick(pair.fixed_labels, item)
    return Tabs(
        {
            "before and after": compare(moving, fixed, warped=warp(moving, displacement), fixed_labels=labels),
            "field": field_viewer(displacement, fixed, moving=moving),
            "folds": jacobian_inspector(displacement, fixed),
        }
    )
