"""Scenes with more controls before those of the slice viewer: which level, what time.

At each of its values a `Staged` scene is a slice viewer (slices.py) of panels with the same titles and ranges.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from regkit.fields import exponential, resize_displacement
from regkit.types import Displacement, spatial
from regkit.views.controls import Control, Scene, Slider, State
from regkit.views.drawing import Picture
from regkit.views.quantities import Quantities, make_panels
from regkit.views.slices import Slices

_REMEMBERED = 6  # stages: each holds some volumes
_LIVE = 2**17  # voxels that are deformed while a slider is dragged


class Staged(Scene):
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
        return functools.lru_cache(_REMEMBERED)(self._make)

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
