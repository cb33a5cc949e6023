"""Interactive pictures for notebooks: before and after, a field, its folds; any panels of a registration, linked.

A `View` (live.py) puts controls around a `Scene` (scene.py): two functions of the controls' values, which draw and
describe them. A view of your own is one function that prepares what is shown and returns `View(Scene(...))`.
"""

from regkit.types import needing

with needing("notebooks", "regkit.widgets"):
    from regkit.widgets.live import Tabs, View
    from regkit.widgets.niivue import volume_viewer, with_volumes
    from regkit.widgets.scene import Button, Choice, Control, Player, Scene, Slider, State, Stops, Toggle
    from regkit.widgets.slices import FIRST, MOVING, level_scrubber, slice_viewer, time_scrubber
    from regkit.widgets.volumes import compare, explore, field_viewer, jacobian_inspector

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
    "volume_viewer",
    "with_volumes",
]
