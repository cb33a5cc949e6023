"""Views driven in process: their pixels, other values of their controls, every control moved by itself."""

from __future__ import annotations

import io

import ipywidgets
import numpy as np
from PIL import Image


def pixels(view):
    return np.array(Image.open(io.BytesIO(view.image.value)))


def other_value(control):
    if isinstance(control, ipywidgets.Dropdown):
        return control.options[-1]
    if isinstance(control, ipywidgets.ToggleButton):
        return not control.value
    return control.value + (1 if isinstance(control.value, int) else 0.25)


def drive(view):
    """Move each control by itself; each must draw another picture or say something else, without an error."""
    moved = {name for name in view.controls if name != "extreme"}  # which says only where the button goes
    for control in (view.controls[name] for name in moved if hasattr(view.controls[name], "value")):
        before, said, start = pixels(view), view.caption.value, control.value
        named = isinstance(control, ipywidgets.SelectionSlider)
        control.value = control.options[-1] if named else other_value(control)
        after = pixels(view)
        assert before.shape != after.shape or (before != after).any() or said != view.caption.value
        control.value = start
        assert np.array_equal(pixels(view), before)
    assert view.errors == []
