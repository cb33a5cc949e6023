"""Two images on their way to each other: half-way deformations, level by level, for both orders of the images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from regkit.fields import compose, warp
from regkit.types import Displacement, Pair
from regkit.views.controls import Choice, Control, Scene, Slider, State, Toggle
from regkit.views.drawing import (
    DIFFERENCES,
    NIGHT,
    PAPER,
    POINT,
    FieldPlane,
    Picture,
    Plane,
    blank,
    darken,
    field_plane,
    integer_scale,
    intensity_limits,
    lengths,
    plane,
    stack,
)
from regkit.views.pictures import render_bar, render_difference, render_grid, render_image, write
from regkit.views.quantities import determinant, pick
from regkit.widgets import View

_PIXELS, _LINES = 256, 16  # a panel's longer side; lines of a grid along it
_NAMES = ("A", "B")


@dataclass(frozen=True)
class Stand:
    """Where one call of a network stands after a level: both half-way maps, and the whole map in both directions.

    halves: of the first and of the second image. maps: from the first to the second image, and back. Voxels.
    """

    halves: tuple[FieldPlane, FieldPlane]
    maps: tuple[FieldPlane, FieldPlane]


@dataclass(frozen=True, eq=False)
class Meeting(Scene):
    """Both images half way, their difference, their grids; and one map computed by network(A, B) and network(B, A).

    images: A and B. calls: of each network by name, the stands after each level (0: the identity) of both orders.
    """

    images: tuple[Plane, Plane]
    calls: Mapping[str, tuple[Sequence[Stand], Sequence[Stand]]]

    def controls(self) -> dict[str, Control]:
        """Which network, how many of its levels, and which image comes first."""
        network = {"network": Choice("network", list(self.calls))} if len(self.calls) > 1 else {}
        return {
            **network,
            "level": Slider("level", self._levels, 0, self._levels),
            "swapped": Toggle("swap A and B", False),
        }

    def render(self, state: State) -> Picture:
        """Six panels: what has met, and how; the middle column compares."""
        (own, other), (first, second) = self._stands(state), self._order(state)
        a, b = self._halfway(own, state)
        paint = functools.partial(render_image, limits=self._limits, scale=self._scale)
        half = (self._limits[1] - self._limits[0]) / 2
        above = [
            self._panel(f"{first} half way", paint(a)),
            self._panel(f"{first} - {second}, half way", render_difference(a, b, limit=half, scale=self._scale)),
            self._panel(f"{second} half way", paint(b)),
        ]
        both = self._two_grids(own.maps[0], other.maps[1])
        below = [
            self._panel(f"its grid, on {first}", self._grid(own.halves[0], first)),
            self._panel(f"f_{first}{second} by ({first}, {second}), by ({second}, {first})", both),
            self._panel(f"its grid, on {second}", self._grid(own.halves[1], second)),
        ]
        rows = stack(stack(*above, axis=1), stack(*below, axis=1))
        return stack(rows, render_bar(DIFFERENCES, (-half, half), width=rows.shape[1], unit="intensity"))

    def describe(self, state: State) -> str:
        """Which call it is, how close the images have come, and how well the laws are kept, in voxels."""
        (own, other), (first, second) = self._stands(state), self._order(state)
        a, b = self._halfway(own, state)
        there, back = (torch.from_numpy(field)[None] for field in own.maps)
        name = state.get("network", "network")
        apart = lengths(own.maps[0] - other.maps[1]).max()
        home = lengths(field_plane(compose(there, back)))
        folds = int((determinant(own.maps[0]) <= 0).sum())
        return (
            f"{name}({first}, {second}) after level {state['level']} of {self._levels}. "
            f"Mean difference half way {np.abs(a - b).mean():.4f}. f_{first}{second} by ({first}, {second}) (blue) and "
            f"by ({second}, {first}) (yellow) differ by at most {apart:.3g} voxels. "
            f"There and back: mean {home.mean():.2g}, at most {home.max():.2g} voxels from home. {folds} folded voxels."
        )

    @functools.cached_property
    def _levels(self) -> int:
        return min(len(stands) for stands, _ in self.calls.values()) - 1

    @functools.cached_property
    def _limits(self) -> tuple[float, float]:
        return intensity_limits(*self.images)

    @functools.cached_property
    def _scale(self) -> int:
        return integer_scale(self.images[0].shape, _PIXELS)

    def _order(self, state: State) -> tuple[str, str]:
        first, second = _NAMES
        return (second, first) if state["swapped"] else (first, second)

    def _stands(self, state: State) -> tuple[Stand, Stand]:
        """That of the call that is shown, and that of the call with the images exchanged."""
        calls = self.calls[state.get("network", next(iter(self.calls)))]
        own, other = (stands[state["level"]] for stands in (reversed(calls) if state["swapped"] else calls))
        return own, other

    def _halfway(self, stand: Stand, state: State) -> list[Plane]:
        images = reversed(self.images) if state["swapped"] else self.images
        return [
            plane(warp(torch.from_numpy(image)[None, None], torch.from_numpy(half)[None]))
            for image, half in zip(images, stand.halves, strict=True)
        ]

    def _every(self) -> int:
        return max(1, max(self.images[0].shape) // _LINES)

    def _grid(self, half: FieldPlane, name: str) -> Picture:
        image = render_image(self.images[_NAMES.index(name)], limits=self._limits, scale=self._scale)
        return render_grid(darken(image, 0.6), half, every=self._every())

    def _two_grids(self, own: FieldPlane, other: FieldPlane) -> Picture:
        """The map of this call as wide lines, the same map of the other call as narrow ones on top."""
        wide = render_grid(blank(own.shape, self._scale), own, every=self._every(), width=5)
        return render_grid(wide, other, every=self._every(), width=1.6, paint=POINT)

    def _panel(self, title: str, picture: Picture) -> Picture:
        head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
        return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), picture])


def meet(networks: Mapping[str, Any], pair: Pair, *, item: int = 0) -> View:
    """Watch two images meet in the middle, level by level, and ask each network twice, with the images exchanged.

    networks: SITReg models by name, with equally many levels. pair: 2D; A is its moving, B its fixed image. item: which
    of a batch.

    Raises:
        ValueError, IndexError: no network, volumes, no such item.
    """
    if not networks:
        raise ValueError("there must be a network, received none; give SITReg models by name.")
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    images = plane(moving, "moving"), plane(fixed, "fixed")
    calls = {
        name: (_stands(net.stages, moving, fixed), _stands(net.stages, fixed, moving)) for name, net in networks.items()
    }
    return View(Meeting(images, calls))


def _stands(stages: Callable[..., Any], first: Any, second: Any) -> list[Stand]:
    """Before the first level and after each."""
    nothing = np.zeros((2, *first.shape[2:]), np.float32)
    stands = [Stand((nothing, nothing), (nothing, nothing))]
    with torch.no_grad():
        for stage in stages(first, second):
            halves = (_field(half) for half in stage.halfway.chunk(2))
            maps = (_field(stage.displacement(side)) for side in (0, 1))
            stands.append(Stand((*halves,), (*maps,)))  # type: ignore[arg-type]
    return stands


def _field(displacement: Displacement) -> FieldPlane:
    return field_plane(displacement, "displacement")
