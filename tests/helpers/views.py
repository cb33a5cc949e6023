"""Views driven in process: their pixels, and what each of their controls changes."""

import io

import ipywidgets
import numpy as np
from PIL import Image


def pixels(view):
    return np.array(Image.open(io.BytesIO(view.image.value)))


def other_value(control):
    """A value that the control does not have now."""
    if isinstance(control, ipywidgets.Dropdown | ipywidgets.SelectionSlider):
        return control.options[-1] if control.value != control.options[-1] else control.options[0]
    if isinstance(control, ipywidgets.ToggleButton):
        return not control.value
    step = 1 if isinstance(control.value, int) else 0.25
    return control.value + step if control.value + step <= control.max else control.value - step


def changed(view, name):
    """What moving one control by itself changes: "picture", "words", "both" or "nothing"; it is moved back."""
    control = view.controls[name]
    before, said, start = view.image.value, view.caption.value, control.value
    control.value = other_value(control)
    picture, words = view.image.value != before, view.caption.value != said
    control.value = start
    assert view.image.value == before and view.caption.value == said, name
    return {(True, True): "both", (True, False): "picture", (False, True): "words"}.get((picture, words), "nothing")


def drive(view, changes):
    """Move each control that is shown by itself: it must change what the table says, and have words.

    changes: by the control's name "picture", "words", "both", or "nothing" (it only says what a button does).
    """
    shown = [name for name, each in view.controls.items() if hasattr(each, "value") and each.layout.display != "none"]
    assert {name: changed(view, name) for name in shown} == changes
    assert all(each.description for each in view.controls.values() if not isinstance(each, ipywidgets.Play))
    assert view.errors == [] and view.alert.value == ""
    assert "image/png" in view._repr_mimebundle_() and 'aria-live="polite"' in view.caption.value
