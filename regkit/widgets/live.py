"""A scene in a notebook, alone (`View`) or behind tabs (`Tabs`).

A `View` puts controls around a scene (scene.py): a change of one draws the picture anew, in place. In a page without a
kernel a view shows its last picture (PNG); Colab would show that instead of the view, so it gets none. An exception in
a callback is shown in red and kept in `view.errors`.
Works with ipywidgets 7.7 and 8; every control has a description and is moved by the keyboard.
"""

import base64
import html
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets

from regkit.figures.pixels import Picture, png
from regkit.types import InputTypeError
from regkit.widgets import static
from regkit.widgets.scene import Button, Choice, Control, Player, Scene, Slider, State, Stops, Toggle

_DESCRIBED = {"description_width": "initial"}
_VIEW = "application/vnd.jupyter.widget-view+json"
_LAST = """<style>
.jp-OutputArea-child:has(.regkit-last):not(:has(+ .jp-OutputArea-child .widget-container)) .regkit-last {{
  display: block !important }}
.jp-OutputArea-child:has(.regkit-last) + .jp-OutputArea-child:not(:has(.widget-container)) {{ display: none }}
</style><img class="regkit-last" style="display: none" alt="{words}" src="data:image/png;base64,{picture}">"""


def _widget(control: Control) -> ipywidgets.Widget:
    """The ipywidget for a control."""
    if isinstance(control, Slider):
        numbers = {"value": control.value, "min": control.low, "max": control.high, "step": control.step}
        whole = all(isinstance(number, int) for number in numbers.values())
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        options = {"continuous_update": control.live, "style": _DESCRIBED, "layout": {"width": "300px"}}
        return kind(**numbers, description=control.words, **options)
    if isinstance(control, Stops):
        options = {"options": control.options, "value": control.start, "description": control.words}
        return ipywidgets.SelectionSlider(**options, style=_DESCRIBED, layout={"width": "340px"})
    if isinstance(control, Choice):
        return ipywidgets.Dropdown(options=control.options, description=control.words, style=_DESCRIBED)
    if isinstance(control, Toggle):
        return ipywidgets.ToggleButton(value=control.value, description=control.words)
    if isinstance(control, Player):
        return ipywidgets.Play(value=0, min=0, max=10_000, interval=control.interval)
    if isinstance(control, Button):
        return ipywidgets.Button(description=control.words, disabled=not control.enabled)
    raise InputTypeError(f"a control must be one of {Control}", f"{control!r}", "see scene.py")


def _bundle(widget: ipywidgets.Widget, picture: bytes, words: str) -> dict[str, Any]:
    """The widget for a notebook, a picture for a page, words for a terminal."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    still = {} if "google.colab" in sys.modules else {"image/png": base64.b64encode(picture).decode()}
    return {"text/plain": words, **still, _VIEW: view}


def show(bundle: dict[str, Any]) -> None:
    """Show a widget in a notebook; before it its picture, which JupyterLab shows instead while no kernel has it."""
    from IPython.display import display

    if _VIEW in bundle and "image/png" in bundle:
        last = _LAST.format(words=html.escape(bundle["text/plain"]), picture=bundle["image/png"])
        display({"text/html": last, "text/plain": ""}, raw=True)
    display(bundle, raw=True)


class View:
    """A scene with its controls.

    controls: the widgets by name; `set(name=value, ...)` moves several and draws once. image: the ipywidgets.Image.
    widget: everything together, to be put into other boxes. errors: the tracebacks of callbacks that failed.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.controls = {name: _widget(control) for name, control in scene.controls.items()}
        self.errors: list[str] = []
        self.image = ipywidgets.Image(format="png", layout={"max_width": "100%", "align_self": "flex-start"})
        self.caption, self.alert = ipywidgets.HTML(), ipywidgets.HTML()
        row = ipywidgets.Box([*self.controls.values()], layout={"flex_flow": "row wrap", "align_items": "center"})
        self.widget = ipywidgets.VBox([row, self.image, self.caption, self.alert])
        self._held = False
        self._turn = threading.RLock()  # a training's thread and the page change the same controls
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
        with self._turn:
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
        with self._turn:
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
            self.alert.value = f'<div role="alert" style="color:#ffffff;background:#b00020;padding:4px">{words}</div>'

    def _draw(self) -> None:
        state = self.state
        hidden = self.scene.hidden(state)
        for name, control in self.controls.items():
            control.layout.display = "none" if name in hidden else None
        self.image.value = png(self.scene.render(state))
        words = self.scene.describe(state)
        self.caption.value = f'<div aria-live="polite" style="line-height:1.4">{html.escape(words)}</div>'

    def _ipython_display_(self) -> None:
        show(self._repr_mimebundle_())

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

    def _ipython_display_(self) -> None:
        show(self._repr_mimebundle_())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if static.wanted():
            return {
                "text/html": static.tabs_html({title: (view.scene, view.state) for title, view in self.views.items()})
            }
        first = next(iter(self.views.values()))
        return _bundle(self.widget, first.image.value, first.scene.describe(first.state))
