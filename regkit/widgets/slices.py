"""Linked panels: any number of panels (panels.py) of one grid, in all planes through one voxel; and what runs through
stages of a registration."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regkit.fields import exponential, resize_displacement
from regkit.figures.paint import render_point, write
from regkit.figures.pixels import PAPER, FieldPlane, Picture, Plane, blank, check_same_shape, integer_scale, stack
from regkit.figures.planes import Cut, Place, cuts, highest
from regkit.types import Displacement, InputError, Pair, Registration, spatial
from regkit.widgets.live import View
from regkit.widgets.panels import Panel, Quantities, make_panels, pick
from regkit.widgets.scene import Button, Choice, Control, Scene, Slider, State, Toggle, first_values

FIRST = ("fixed", "warped", "difference", "grid", "jacobian", "folds")
MOVING = ("warped", "difference", "grid", "jacobian")
_ALL = "all planes"
_LINE, _GAP = 18, 6  # pixels: a line of text, between planes
_WIDTH, _LARGEST = 880, 400  # pixels: of all panels, of a plane
_REMEMBERED = 64  # planes: 64 of 192 x 160 voxels take 6 MB at scale 1
_REMEMBERED_STAGES = 6  # stages: each holds some volumes
_LIVE = 2**17  # voxels that are deformed while a slider is dragged


# ---------------------------------------------------------------------------------------------- planes
@dataclass(frozen=True)
class Planes:
    """The planes of a grid through one voxel, as controls: which family, and a slider along each axis.

    shape: of space. upright: as of `planes.cuts`.
    """

    shape: tuple[int, ...]
    upright: bool = False

    @functools.cached_property
    def cuts(self) -> dict[str, Cut]:
        """The families of planes by name; one in 2D."""
        return {cut.words: cut for cut in cuts(len(self.shape), upright=self.upright)}

    def sliders(self) -> dict[str, Control]:
        """A slider along every axis, at the middle."""
        return {
            f"axis_{axis}": Slider(f"axis {axis} (voxel)", size // 2, 0, size - 1)
            for axis, size in enumerate(self.shape)
        }

    def controls(self) -> dict[str, Control]:
        """Those of a view of one plane: the family and the sliders; nothing in 2D."""
        return {"plane": Choice("plane", list(self.cuts)), **self.sliders()} if len(self.cuts) > 1 else {}

    def hidden(self, state: State) -> set[str]:
        """In a view of one plane: the sliders along axes that lie in it."""
        return {
            f"axis_{axis}" for axis in range(len(self.shape)) if "plane" in state and axis not in self.cut(state).across
        }

    def cut(self, state: State) -> Cut:
        """The family of planes that is chosen."""
        return self.cuts[state["plane"]] if "plane" in state else next(iter(self.cuts.values()))

    def place(self, state: State) -> Place:
        """The voxel that the sliders name; the first where there are none."""
        return tuple(state.get(f"axis_{axis}", 0) for axis in range(len(self.shape)))

    def to(self, place: Place) -> dict[str, int]:
        """The sliders' values at a voxel."""
        return {f"axis_{axis}": index for axis, index in enumerate(place)}

    def plane(self, values: NDArray[Any], state: State) -> Plane:
        """The chosen plane of values (*space)."""
        return self.cut(state).plane(values, self.place(state))

    def field(self, displacement: NDArray[Any], state: State) -> FieldPlane:
        """What of a displacement (dim, *space) lies in the chosen plane."""
        return self.cut(state).field(displacement, self.place(state))

    def where(self, state: State) -> str:
        """The plane in words: which voxel of the axis it cuts, and what runs where; empty in 2D."""
        cut = self.cut(state)
        if not cut.across:
            return ""
        return f"The plane at {', '.join(map(str, cut.held(self.place(state))))} {cut.words} ({cut.directions}). "


# ---------------------------------------------------------------------------------------------- panels
@dataclass(frozen=True, eq=False, kw_only=True)
class Linked(Scene):
    """A scene of linked panels. panels: those that are shown at these values of the controls."""

    panels: Callable[[State], Sequence[Panel]]


def linked(
    panels: Callable[[State], Sequence[Panel]],
    controls: Mapping[str, Control] | None = None,
    words: Callable[[State], str] | None = None,
    *,
    spacing: Sequence[float] = (),
    upright: bool = False,
) -> Linked:
    """Panels linked by one voxel: cross hairs where it is, and its value in every panel in words.

    panels: those at these values of the controls; remember what is costly. controls: what else chooses them, before
    those of voxel and planes. words: said of that before the voxel's values. In 3D a panel is a row of three planes, or
    one plane of each panel is shown, larger. spacing: of the voxels, mm; empty where they have none. upright: as of
    `planes.cuts`. Voxels are drawn square, whatever their spacing. A view that differs in something takes the scene
    with `dataclasses.replace`.

    Raises:
        ValueError: no panel, or panels of different grids.
    """
    own = dict(controls or {})
    first = panels(first_values(own))
    if not first:
        raise InputError("a slice viewer needs at least one panel", "none", "name what is to be seen")
    for panel in first:
        check_same_shape(panel.shape, first[0].shape, (panel.title, first[0].title))
    planes = Planes(first[0].shape, upright)
    painted = functools.lru_cache(_REMEMBERED)(lambda panel, cut, place, scale: panel.paint(cut, place, scale))
    legend = functools.lru_cache(_REMEMBERED)(lambda panel, width: panel.legend(width))
    extremes = [panel.title for panel in first if panel.interest() is not None]
    if len(planes.cuts) > 1:
        own["planes"] = Choice("show", [_ALL, *planes.cuts])
    own |= {**planes.sliders(), "crosshair": Toggle("cross hairs", True)}
    if len(extremes) > 1:
        own["extreme"] = Choice("extreme of", extremes)
    if extremes:
        own["go"] = Button("go to the extreme")

    def block(panel: Panel, chosen: Sequence[Cut], state: State, scale: int) -> Picture:
        """One panel: its title, the planes, the key to the colours."""
        place, pictures = planes.place(state), []
        for cut in chosen:
            picture = painted(panel, cut, cut.start(place), scale)
            if state["crosshair"]:
                shape = (picture.shape[0] // scale, picture.shape[1] // scale)
                picture = render_point(picture, cut.position(place, planes.shape), shape)
            pictures.append(picture)
        body = stack(*pictures, axis=1, gap=_GAP)
        header = _header(panel.title, tuple(each.shape[1] for each in pictures), tuple(cut.axes for cut in chosen))
        key = legend(panel, max(body.shape[1], 200))
        return stack(*(part for part in (header, body, key) if part is not None), gap=2)

    def render(state: State) -> Picture:
        """All panels, in rows of about _WIDTH pixels; a panel's planes are side by side."""
        shown = panels(state)
        chosen = [cut for name, cut in planes.cuts.items() if state.get("planes", _ALL) in (_ALL, name)]
        columns = math.ceil(len(shown) / math.ceil(len(shown) / (4 if len(chosen) == 1 else 2)))
        scale = _scale(planes, chosen, columns)
        blocks = [block(panel, chosen, state, scale) for panel in shown]
        rows = [stack(*blocks[start : start + columns], axis=1, gap=16) for start in range(0, len(blocks), columns)]
        return stack(*rows, gap=10)

    def describe(state: State) -> str:
        """The voxel, and what every panel says of it."""
        place = planes.place(state)
        along = ", ".join(f"{index * size:.1f}" for index, size in zip(place, spacing, strict=False))
        return (
            f"{words(state) + ' ' if words else ''}Voxel ({', '.join(map(str, place))})"
            f"{f', at ({along}) mm' if spacing else ''}: {'; '.join(panel.words(place) for panel in panels(state))}. "
            f"Of the two axes over a plane the first runs {'up' if upright else 'down'}, the second to the right."
        )

    def press(button: str, state: State) -> dict[str, Any]:
        """To the place where the chosen panel is most worth a look."""
        title = state.get("extreme", extremes[0])
        position = [panel.title for panel in first].index(title)  # of the panel: its title may change with the controls
        interest = panels(state)[position].interest()
        return {} if interest is None else planes.to(highest(interest))

    return Linked(own, render, describe, press=press, panels=panels)


def _scale(planes: Planes, chosen: Sequence[Cut], columns: int) -> int:
    """Pixels a voxel takes where the planes of `columns` panels are side by side."""
    sides = [(planes.shape[cut.first], planes.shape[cut.second]) for cut in chosen]
    longest = max(map(max, sides))
    if len(chosen) == 1:
        return integer_scale((longest,), min(_WIDTH // columns, _LARGEST))
    side_by_side = columns * sum(first if planes.upright else second for first, second in sides)
    return min(integer_scale((side_by_side,), _WIDTH), integer_scale((longest,), _LARGEST))


@functools.lru_cache(_REMEMBERED)
def _header(title: str, widths: tuple[int, ...], axes: tuple[str, ...]) -> Picture:
    """A panel's title, and over each plane its axes."""
    starts = np.cumsum([0, *widths[:-1]]) + _GAP * np.arange(len(widths))
    sheet = blank((2 * _LINE, max(int(starts[-1]) + widths[-1], 200)), 1, PAPER)
    texts = [(_LINE, float(start), "la", words) for start, words in zip(starts, axes, strict=True)]
    return write(sheet, [(0, 0, "la", title), *texts])


# ---------------------------------------------------------------------------------------------- views
def slice_viewer(
    pair: Pair, registration: Registration, *, panels: Sequence[str] = FIRST, item: int = 0, upright: bool = False
) -> View:
    """Any number of linked panels; one voxel with cross hairs in all of them, and all values there in words.

    panels: names of `panels.PANELS`: moving, fixed, warped, before, difference, checkerboard (of warped and fixed),
    fixed labels, warped labels, components, directions, grid, jacobian, folds, error (of the round trip). A volume
    shows three planes of each, or one. item: which of a batch. upright: as of `compare`.

    Raises:
        ValueError, IndexError: an unknown panel, no labels or inverse where a panel needs them, another grid, NaN.
    """
    shown = make_panels(Quantities(pair, registration.displacement, registration.inverse, item), panels)
    return View(linked(lambda _: shown, spacing=pair.spacing, upright=upright))


def _scrubber(
    slider: Slider,
    displacement_at: Callable[[float], tuple[Displacement, str]],
    last: Quantities,
    panels: Sequence[str],
    upright: bool,
) -> View:
    """A registration under way: the same panels for one displacement after another.

    displacement_at: the displacement (B, dim, *space) at a value of the slider, and what to say of it. last: what is
    computed at the end; its displacement sets the ranges.
    """

    @functools.lru_cache(_REMEMBERED_STAGES)
    def stage(value: float) -> tuple[list[Panel], str]:
        displacement, words = displacement_at(value)
        quantities = Quantities(last.pair, displacement, item=last.item, reach=last.limit)
        return make_panels(quantities, panels), words

    def shown(state: State) -> list[Panel]:
        return stage(state["step"])[0]

    def words(state: State) -> str:
        return stage(state["step"])[1]

    return View(linked(shown, {"step": slider}, words, spacing=last.pair.spacing, upright=upright))


def level_scrubber(
    pair: Pair, registration: Registration, *, panels: Sequence[str] = MOVING, item: int = 0, upright: bool = False
) -> View:
    """Run through the levels of a registration, from the identity over the coarse ones to the finest.

    panels, item, upright: as of `slice_viewer`. Each level is brought to the full grid; ranges are the last one's.

    Raises:
        ValueError: a registration without levels; otherwise as `slice_viewer`.
    """
    levels = registration.levels
    if not levels:
        raise InputError("levels can be run through where there are some", "levels=()", "use another method")
    last = Quantities(pair, registration.displacement, item=item)

    def displacement_at(level: float) -> tuple[Displacement, str]:
        if level == 0:
            return torch.zeros_like(last.displacement), "No level yet: the identity."
        field = levels[int(level) - 1].detach()
        size = " x ".join(map(str, spatial(field)))
        words = f"After {level} of {len(levels)} levels, coarse to fine, the last on {size} voxels."
        return resize_displacement(field, spatial(last.displacement)), words

    return _scrubber(Slider("levels done", len(levels), 0, len(levels)), displacement_at, last, panels, upright)


def time_scrubber(
    pair: Pair, velocity: Displacement, *, panels: Sequence[str] = MOVING, item: int = 0, upright: bool = False
) -> View:
    """Run through the time for which a stationary velocity is integrated, from 0 (the identity) to 1.

    velocity: (B, dim, *space), voxels per unit time. panels, item, upright: as of `slice_viewer`.

    Raises:
        ValueError, IndexError: as `slice_viewer`.
    """
    velocity = pick(velocity, item)
    last = Quantities(pair, exponential(velocity), item=item)
    live = last.displacement[0, 0].numel() <= _LIVE

    def displacement_at(time: float) -> tuple[Displacement, str]:
        return exponential(time * velocity), f"Time {time:.2f}: exp({time:.2f} v)."

    return _scrubber(Slider("time t", 1.0, 0.0, 1.0, 0.05, live), displacement_at, last, panels, upright)
