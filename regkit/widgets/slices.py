"""The slice viewer's scene: any number of panels (panels.py) of one grid, in all planes through one voxel."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from regkit.fields import exponential, resize_displacement
from regkit.figures.paint import render_point, write
from regkit.figures.pixels import PAPER, Picture, blank, check_same_shape, integer_scale, stack
from regkit.figures.planes import Cut, Place, cuts, highest
from regkit.types import Displacement, InputError, spatial
from regkit.widgets.panels import Panel, Quantities, make_panels
from regkit.widgets.scene import Button, Choice, ClassScene, Control, Slider, State, Toggle

_ALL = "all planes"

_LINE, _GAP = 18, 6  # pixels: a line of text, between planes

_WIDTH, _LARGEST = 880, 400  # pixels: of all panels, of a plane

_REMEMBERED = 64  # planes: 64 of 192 x 160 voxels take 6 MB at scale 1


@dataclass(frozen=True, eq=False)
class Slices(ClassScene):
    """Panels linked by one voxel: cross hairs where it is, and its value in every panel in words.

    In 3D a panel is a row of three planes, or one plane of each panel is shown, larger. spacing: of the voxels, mm;
    empty where they have none. upright: as of `volumes.cuts`. Voxels are drawn square, whatever their spacing.

    Raises:
        ValueError: no panel, or panels of different grids.
    """

    panels: Sequence[Panel]
    spacing: Sequence[float]
    upright: bool = False

    def __post_init__(self) -> None:
        if not self.panels:
            raise InputError("a slice viewer needs at least one panel", "none", "name what is to be seen")
        for panel in self.panels:
            check_same_shape(panel.shape, self.shape, (panel.title, self.panels[0].title))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of space."""
        return self.panels[0].shape

    @functools.cached_property
    def cuts(self) -> list[Cut]:
        """All families of planes."""
        return cuts(len(self.shape), upright=self.upright)

    @functools.cached_property
    def interests(self) -> dict[str, Place]:
        """Where each panel that can tell is most worth a look."""
        found = {panel.title: panel.interest() for panel in self.panels}
        return {title: highest(values) for title, values in found.items() if values is not None}

    def controls(self) -> dict[str, Control]:
        """The voxel, which planes, a way to what is worth a look, and the cross hairs."""
        controls: dict[str, Control] = {}
        if len(self.cuts) > 1:
            controls["planes"] = Choice("show", [_ALL, *(cut.words for cut in self.cuts)])
        for axis, size in enumerate(self.shape):
            controls[f"axis_{axis}"] = Slider(f"axis {axis} (voxel)", size // 2, 0, size - 1)
        controls["crosshair"] = Toggle("cross hairs", True)
        if len(self.interests) > 1:
            controls["extreme"] = Choice("extreme of", list(self.interests))
        if self.interests:
            controls["go"] = Button("go to the extreme")
        return controls

    def place(self, state: State) -> Place:
        """The voxel that the sliders name."""
        return tuple(state[f"axis_{axis}"] for axis in range(len(self.shape)))

    def press(self, button: str, state: State) -> dict[str, Any]:
        """To the place where the chosen panel is most worth a look."""
        title = state.get("extreme", next(iter(self.interests)))
        return {f"axis_{axis}": index for axis, index in enumerate(self.interests[title])}

    def render(self, state: State) -> Picture:
        """All panels, in rows of about _WIDTH pixels; a panel's planes are side by side."""
        chosen = [cut for cut in self.cuts if state.get("planes", _ALL) in (_ALL, cut.words)]
        most = 4 if len(chosen) == 1 else 2
        columns = math.ceil(len(self.panels) / math.ceil(len(self.panels) / most))
        scale = self._scale(chosen, columns)
        blocks = [self._block(panel, chosen, state, scale) for panel in range(len(self.panels))]
        rows = [stack(*blocks[start : start + columns], axis=1, gap=16) for start in range(0, len(blocks), columns)]
        return stack(*rows, gap=10)

    def describe(self, state: State) -> str:
        """The voxel, and what every panel says of it."""
        place = self.place(state)
        values = "; ".join(panel.words(place) for panel in self.panels)
        along = "up" if self.upright else "down"
        return (
            f"Voxel ({', '.join(map(str, place))}){self._millimetres(place)}: {values}. Of the two axes over a plane "
            f"the first runs {along}, the second to the right."
        )

    def _scale(self, chosen: Sequence[Cut], columns: int) -> int:
        """Pixels a voxel takes where the planes of `columns` panels are side by side."""
        sides = [(self.shape[cut.first], self.shape[cut.second]) for cut in chosen]
        longest = max(map(max, sides))
        if len(chosen) == 1:
            return integer_scale((longest,), min(_WIDTH // columns, _LARGEST))
        side_by_side = columns * sum(first if self.upright else second for first, second in sides)
        return min(integer_scale((side_by_side,), _WIDTH), integer_scale((longest,), _LARGEST))

    def _millimetres(self, place: Place) -> str:
        """Where a voxel lies, if voxels have a size."""
        if not self.spacing:
            return ""
        along = ", ".join(f"{index * size:.1f}" for index, size in zip(place, self.spacing, strict=True))
        return f", at ({along}) mm"

    def _block(self, index: int, chosen: Sequence[Cut], state: State, scale: int) -> Picture:
        """One panel: its title, the planes, the key to the colours."""
        panel, place = self.panels[index], self.place(state)
        planes = []
        for cut in chosen:
            picture = self._painted(index, cut, cut.start(place), scale)
            if state["crosshair"]:
                shape = (picture.shape[0] // scale, picture.shape[1] // scale)
                picture = render_point(picture, cut.position(place, self.shape), shape)
            planes.append(picture)
        body = stack(*planes, axis=1, gap=_GAP)
        legend = self._legend(index, max(body.shape[1], 200))
        header = _header(panel.title, tuple(plane.shape[1] for plane in planes), tuple(cut.axes for cut in chosen))
        return stack(*(part for part in (header, body, legend) if part is not None), gap=2)

    @functools.cached_property
    def _painted(self) -> Callable[[int, Cut, Place, int], Picture]:
        return functools.lru_cache(_REMEMBERED)(
            lambda index, cut, place, scale: self.panels[index].paint(cut, place, scale)
        )

    @functools.cached_property
    def _legend(self) -> Callable[[int, int], Picture | None]:
        return functools.lru_cache(_REMEMBERED)(lambda index, width: self.panels[index].legend(width))


@functools.lru_cache(_REMEMBERED)
def _header(title: str, widths: tuple[int, ...], axes: tuple[str, ...]) -> Picture:
    """A panel's title, and over each plane its axes."""
    starts = np.cumsum([0, *widths[:-1]]) + _GAP * np.arange(len(widths))
    sheet = blank((2 * _LINE, max(int(starts[-1]) + widths[-1], 200)), 1, PAPER)
    texts = [(_LINE, float(start), "la", words) for start, words in zip(starts, axes, strict=True)]
    return write(sheet, [(0, 0, "la", title), *texts])


_REMEMBERED_STAGES = 6  # stages: each holds some volumes

_LIVE = 2**17  # voxels that are deformed while a slider is dragged


class Staged(ClassScene):
    """A slice viewer for each value of the controls that are its own."""

    @abstractmethod
    def own_controls(self) -> dict[str, Control]:
        """What chooses the stage."""

    @abstractmethod
    def stage(self, state: State) -> Slices:
        """The slice viewer at these values."""

    @abstractmethod
    def first(self) -> Slices:
        """The slice viewer at the controls' first values."""

    @abstractmethod
    def words(self, state: State) -> str:
        """Which stage it is."""

    def controls(self) -> dict[str, Control]:
        """Its own, and the slice viewer's."""
        return {**self.own_controls(), **self.first().controls()}

    def render(self, state: State) -> Picture:
        """The stage's panels."""
        return self.stage(state).render(state)

    def press(self, button: str, state: State) -> dict[str, Any]:
        """The slice viewer's button."""
        return self.stage(state).press(button, state)

    def describe(self, state: State) -> str:
        """Which stage it is, and the slice viewer's words."""
        return f"{self.words(state)} {self.stage(state).describe(state)}"


# ---------------------------------------------------------------------------------------------- levels and times


@dataclass(frozen=True, eq=False)
class Scrubber(Staged):
    """A registration under way: the same panels for one displacement after another.

    slider: what runs. displacement_at: the displacement (B, dim, *space) at a value of it, and what to say of it.
    last: what is computed at the end of the slider; its displacement sets the ranges. names: of the panels.
    """

    slider: Slider
    displacement_at: Callable[[float], tuple[Displacement, str]]
    last: Quantities
    names: Sequence[str]
    upright: bool = False

    @functools.cached_property
    def _made(self) -> Callable[[float], tuple[Slices, str]]:
        return functools.lru_cache(_REMEMBERED_STAGES)(self._make)

    def _make(self, value: float) -> tuple[Slices, str]:
        displacement, words = self.displacement_at(value)
        quantities = Quantities(self.last.pair, displacement, item=self.last.item, reach=self.last.limit)
        return Slices(make_panels(quantities, self.names), self.last.pair.spacing, self.upright), words

    def own_controls(self) -> dict[str, Control]:
        return {"step": self.slider}

    def stage(self, state: State) -> Slices:
        return self._made(state["step"])[0]

    def first(self) -> Slices:
        return self._made(self.slider.value)[0]

    def words(self, state: State) -> str:
        return self._made(state["step"])[1]


def level_scrubber(last: Quantities, levels: Sequence[Displacement], names: Sequence[str], upright: bool) -> Scrubber:
    """From the identity (0) over the levels, coarse to fine, each brought to the full grid."""

    def displacement_at(level: float) -> tuple[Displacement, str]:
        if level == 0:
            return torch.zeros_like(last.displacement), "No level yet: the identity."
        field = levels[int(level) - 1].detach()
        size = " x ".join(map(str, spatial(field)))
        words = f"After {level} of {len(levels)} levels, coarse to fine, the last on {size} voxels."
        return resize_displacement(field, spatial(last.displacement)), words

    return Scrubber(Slider("levels done", len(levels), 0, len(levels)), displacement_at, last, names, upright)


def time_scrubber(last: Quantities, velocity: Displacement, names: Sequence[str], upright: bool) -> Scrubber:
    """The exponential of t v, from the identity at t = 0 to the whole deformation at t = 1."""

    def displacement_at(time: float) -> tuple[Displacement, str]:
        return exponential(time * velocity), f"Time {time:.2f}: exp({time:.2f} v)."

    live = last.displacement[0, 0].numel() <= _LIVE
    return Scrubber(Slider("time t", 1.0, 0.0, 1.0, 0.05, live), displacement_at, last, names, upright)
