"""Shift and turn one image over another, under live curves of four losses with their capture ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regkit.fields import rigid_displacement, warp
from regkit.figures.paint import draw_lines, render_overlay, write
from regkit.figures.pixels import (
    INK,
    LINE,
    PAPER,
    POINT,
    Limits,
    Picture,
    blank,
    integer_scale,
    intensity_limits,
    plane,
    stack,
)
from regkit.losses import adaptive_ncc, lncc, mse, ncc
from regkit.types import Displacement, Image, InputError, check_pair, spatial
from regkit.widgets.live import View
from regkit.widgets.scene import Choice, ClassScene, Control, Slider, State

Similarity = Callable[[Image, Image], Tensor]

SIMILARITIES: Mapping[str, Similarity] = {"MSE": mse, "NCC": ncc, "LNCC": lncc, "adaptive NCC": adaptive_ncc}


def sweep(
    moving: Image,
    fixed: Image,
    *,
    degrees: Sequence[float] = (0.0,),
    right: Sequence[float] = (0.0,),
    similarities: Mapping[str, Similarity] = SIMILARITIES,
) -> dict[str, list[float]]:
    """Each loss of moving, turned and shifted, against fixed: a list over `degrees`, and for each over `right`."""
    curves: dict[str, list[float]] = {name: [] for name in similarities}
    with torch.no_grad():
        for angle in degrees:
            for shift in right:
                moved = warp(moving, rigid_displacement(spatial(moving), degrees=angle, right=shift))
                for name, loss in similarities.items():
                    curves[name].append(float(loss(moved, fixed)))
    return curves


def capture_range(
    places: Sequence[float], values: Sequence[float], *, truth: float = 0.0, tolerance: float = 1.0
) -> tuple[float, float]:
    """From where walking downhill ends at the truth: (lowest, highest place); (truth, truth) if it is no minimum there.

    places: rising. values: the loss at each. The minimum may lie up to `tolerance` from the truth.
    """
    bottom = min(range(len(places)), key=lambda i: abs(places[i] - truth))
    while True:
        around = range(max(bottom - 1, 0), min(bottom + 2, len(places)))
        lowest = min(around, key=lambda i: values[i])
        if values[lowest] >= values[bottom]:
            break
        bottom = lowest
    if abs(places[bottom] - truth) > tolerance:
        return truth, truth
    low = high = bottom
    while low > 0 and values[low - 1] > values[low]:
        low -= 1
    while high < len(places) - 1 and values[high + 1] > values[high]:
        high += 1
    return places[low], places[high]


RANGES: Mapping[str, Limits] = {"MSE": (0, 0.7), "NCC": (0, 2), "LNCC": (-0.7, 0), "adaptive NCC": (0, 2)}

_SHAPE = (180, 262)  # pixels of one curve's panel

_MARGINS = (26, 24, 46, 10)  # above, below, left, right

_BAND = (214, 240, 224)

_GRID = (205, 205, 205)

_Curve = tuple[list[float], dict[str, list[float]]]  # the places, and each loss there


@dataclass(frozen=True, eq=False)
class Landscape(ClassScene):
    """Moving, shifted and turned, laid over a fixed image; four losses over the shift (or the angle).

    fixed: by name, each aligned with moving where shift and angle are 0. Intensities from 0 to about 1.
    """

    moving: Image
    fixed: Mapping[str, Image]
    curves: dict[tuple[str, str, float], _Curve] = field(default_factory=dict)

    REACH: ClassVar[Mapping[str, float]] = {"shift": 40.0, "angle": 60.0}
    STEPS: ClassVar[Mapping[str, float]] = {"shift": 1.0, "angle": 2.0}
    UNITS: ClassVar[Mapping[str, str]] = {"shift": "voxels", "angle": "degrees"}

    def controls(self) -> dict[str, Control]:
        """Shift, angle, what the curves run over, and which fixed image."""
        return {
            "shift": Slider("shift (voxels)", 18.0, -self.REACH["shift"], self.REACH["shift"], 0.5),
            "angle": Slider("angle (degrees)", 0.0, -self.REACH["angle"], self.REACH["angle"], 1.0),
            "over": Choice("curves over", list(self.REACH)),
            "fixed": Choice("fixed image", list(self.fixed)),
        }

    def render(self, state: State) -> Picture:
        """The two images in one, and the four curves with the present place."""
        scale = integer_scale(spatial(self.moving), 390)
        moved = plane(warp(self.moving, self._motion(state)))
        target = plane(self.fixed[state["fixed"]])
        overlay = render_overlay(moved, target, limits=intensity_limits(moved, target), scale=scale)
        here = self._here(state)
        panels = [self._panel(name, state, here[name]) for name in SIMILARITIES]
        return stack(overlay, stack(stack(*panels[:2], axis=1), stack(*panels[2:], axis=1)), axis=1)

    def describe(self, state: State) -> str:
        """What is laid over what, each loss here, and from where downhill leads to the truth."""
        places, curves = self._curve(state)
        told = []
        for name, value in self._here(state).items():
            low, high = capture_range(places, curves[name])
            told.append(f"{name} {value:.3f} ({f'{low:g} to {high:g}' if low < high else 'no minimum at 0'})")
        return (
            f"Moving in orange, fixed ({state['fixed']}) in blue, grey where they agree. Aligned at shift 0, angle 0. "
            f"The loss here, and its capture range (green) in {self.UNITS[state['over']]}: {'; '.join(told)}."
        )

    def _motion(self, state: State) -> Displacement:
        return rigid_displacement(spatial(self.moving), degrees=state["angle"], right=state["shift"])

    def _here(self, state: State) -> dict[str, float]:
        fixed = self.fixed[state["fixed"]]
        curves = sweep(self.moving, fixed, degrees=[state["angle"]], right=[state["shift"]])
        return {name: values[0] for name, values in curves.items()}

    def _curve(self, state: State) -> _Curve:
        """The losses over the whole reach of one control, the other one held; kept once computed."""
        over = state["over"]
        held = state["angle" if over == "shift" else "shift"]
        key = (state["fixed"], over, held)
        if key not in self.curves:
            places = np.arange(-self.REACH[over], self.REACH[over] + 1e-6, self.STEPS[over]).tolist()
            degrees, right = ([held], places) if over == "shift" else (places, [held])
            self.curves[key] = (places, sweep(self.moving, self.fixed[state["fixed"]], degrees=degrees, right=right))
        return self.curves[key]

    def _panel(self, name: str, state: State, value: float) -> Picture:
        """One loss as a curve in its fixed range, its capture range shaded, the present place marked."""
        places, curves = self._curve(state)
        (height, width), (above, below, left, right) = _SHAPE, _MARGINS
        reach, (lowest, highest) = self.REACH[state["over"]], RANGES[name]

        def pixel(place: Any, loss: Any) -> NDArray[Any]:
            share = np.clip((highest - np.asarray(loss)) / (highest - lowest), 0, 1)
            across = left + (np.asarray(place) + reach) / (2 * reach) * (width - left - right)
            return np.stack(np.broadcast_arrays(above + share * (height - above - below), across), -1)

        sheet = blank(_SHAPE, 1, PAPER)
        low, high = capture_range(places, curves[name])
        if low < high:
            (top, start), (bottom, end) = (
                pixel(low, highest).round().astype(int),
                pixel(high, lowest).round().astype(int),
            )
            sheet[top:bottom, start:end] = _BAND
        frame = [pixel([-reach, -reach, reach], [highest, lowest, lowest]), pixel([0, 0], [highest, lowest])]
        sheet = draw_lines(sheet, frame, 1, _GRID)
        sheet = draw_lines(sheet, [pixel(places, curves[name])], 2.2, INK)
        place = state[state["over"]]
        sheet = draw_lines(sheet, [pixel([place, place], [highest, lowest])], 1.6, LINE)
        row, column = pixel(place, value)
        sheet = draw_lines(sheet, [np.array([[row, column - 4], [row, column + 4]])], 8, POINT)
        return write(sheet, self._words(name, value, state["over"]))

    def _words(self, name: str, value: float, over: str) -> list[tuple[float, float, str, str]]:
        """Title, ranges and unit of a panel, with their places."""
        (height, width), (above, below, left, right) = _SHAPE, _MARGINS
        reach, (lowest, highest) = self.REACH[over], RANGES[name]
        bottom = height - below + 4
        return [
            (4, left, "la", f"{name} = {value:.3f}"),
            (above, left - 4, "rm", f"{highest:g}"),
            (height - below, left - 4, "rm", f"{lowest:g}"),
            (bottom, left, "la", f"{-reach:g}"),
            (bottom, (left + width - right) / 2, "ma", f"{over} ({self.UNITS[over]})"),
            (bottom, width - right, "ra", f"{reach:g}"),
        ]


def landscape_viewer(moving: Image, fixed: Mapping[str, Image]) -> View:
    """Shift and turn `moving` by hand over one of several fixed images, under live curves of four losses.

    moving: (1, 1, H, W). fixed: images of that shape by name, aligned with moving. Intensities from 0 to about 1.

    Raises:
        ValueError: no fixed image; shapes that differ, NaN.
    """
    if not fixed:
        raise InputError("fixed must name at least one image", "none", "give a dictionary of name and image")
    for image in fixed.values():
        check_pair(moving, image, dim=2)
    return View(Landscape(moving, dict(fixed)))
