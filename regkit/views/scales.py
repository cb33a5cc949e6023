"""How far each scale of the adaptive NCC sees, and which of them has the say: an image shifted against itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from regkit.fields import warp
from regkit.losses import Weighting, adaptive_ncc_terms
from regkit.types import Image, check_image, spatial
from regkit.views.controls import Choice, Control, Scene, Slider, State
from regkit.views.drawing import (
    INK,
    LABELS,
    PAPER,
    Colour,
    Picture,
    blank,
    integer_scale,
    intensity_limits,
    plane,
    stack,
)
from regkit.views.landscapes import rigid_displacement
from regkit.views.pictures import draw_lines, render_overlay, write
from regkit.widgets import View

SCALES = ("full", "blurred", "1/2", "1/4", "1/8")
REACH, STEP = 40.0, 0.5  # voxels
_HIGHEST = 1.5  # of 1 - NCC in the chart
_CURVES, _WEIGHTS = (190, 470), (110, 470)  # pixels: the two charts
_MARGINS = (22, 22, 40, 10)  # above, below, left, right
_GREY: Colour = (190, 190, 190)


def _paint(scale: int) -> Colour:
    red, green, blue = LABELS[(0, 1, 2, 4, 6)[scale]].tolist()
    return red, green, blue


@dataclass(frozen=True, eq=False)
class Scales(Scene):
    """An image over itself, shifted along axis 1; 1 - NCC at five scales over the shift, and their weights.

    images: by name, (1, 1, H, W), dark at the border. curves: what was computed so far, by image and weighting.
    """

    images: Mapping[str, Image]
    curves: dict[tuple[str, str], tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)

    def controls(self) -> dict[str, Control]:
        """Which image, how far it is shifted, and how the scales are weighted."""
        return {
            "shift": Slider("shift (voxels)", 12.0, 0.0, REACH, STEP),
            "image": Choice("image", list(self.images)),
            "weighting": Choice("weights", get_args(Weighting)),
        }

    def render(self, state: State) -> Picture:
        """The two images in one; beside it the curves and, below them, the weights as areas."""
        fixed = self.images[state["image"]]
        moved, target = plane(self._moved(state["image"], [state["shift"]])), plane(fixed)
        limits = intensity_limits(moved, target)
        overlay = render_overlay(moved, target, limits=limits, scale=integer_scale(spatial(fixed), 310))
        terms, weights = self._curve(state["image"], state["weighting"])
        charts = stack(_curves(terms, state["shift"]), _areas(weights, state["shift"]))
        return stack(overlay, charts, axis=1, gap=12)

    def describe(self, state: State) -> str:
        """The terms and weights at this shift, and what they add up to."""
        terms, weights = self._curve(state["image"], state["weighting"])
        here = round(state["shift"] / STEP)
        told = (
            f"{name} {term:.2f} x {weight:.2f}"
            for name, term, weight in zip(SCALES, terms[here], weights[here], strict=True)
        )
        return (
            f"Moving in orange, fixed in blue, grey where they agree; {state['shift']:g} voxels apart. 1 - NCC x "
            f"weight at each scale: {', '.join(told)}. Adaptive NCC: {(terms[here] * weights[here]).sum():.3f}."
        )

    def _moved(self, name: str, shifts: list[float]) -> Image:
        image = self.images[name]
        displacement = torch.cat([rigid_displacement(spatial(image), right=-shift) for shift in shifts])
        return warp(image, displacement, padding="zeros")

    def _curve(self, name: str, weighting: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Terms and weights (shifts, scales) over the whole reach, kept once computed."""
        key = (name, weighting)
        if key not in self.curves:
            moved = self._moved(name, np.arange(0, REACH + STEP / 2, STEP).tolist())
            parts = adaptive_ncc_terms(moved, self.images[name].expand_as(moved), weighting=weighting)
            self.curves[key] = parts.terms.numpy(), parts.weights.numpy()
        return self.curves[key]


def scale_viewer(images: Mapping[str, Image]) -> View:
    """Shift an image over itself: which scale of the adaptive NCC still sees the way back, and how much it counts.

    images: by name, (1, 1, H, W) with at least 16 voxels on each axis, 0 at the border.

    Raises:
        ValueError: no image, or one that is too small, a batch, or a volume.
    """
    if not images:
        raise ValueError("images must name at least one image, received none; give a dictionary of name and image.")
    for name, image in images.items():
        check_image(image, f"images[{name!r}]")
        if image.dim() != 4 or image.shape[:2] != (1, 1):
            raise ValueError(
                f"images must be (1, 1, H, W), received {tuple(image.shape)} for {name!r}; take one slice."
            )
    return View(Scales(dict(images)))


# ---------------------------------------------------------------------------------------------- the charts


def _across(shape: tuple[int, int], shift: Any) -> NDArray[Any]:
    """Pixel columns of shifts."""
    left, right = _MARGINS[2:]
    return left + np.asarray(shift) / REACH * (shape[1] - left - right)


def _sheet(shape: tuple[int, int], texts: list[tuple[float, float, str, str]]) -> Picture:
    """White paper with a frame, a title and ticks of the shift."""
    (height, _), (above, below, _, _) = shape, _MARGINS
    bottom = height - below
    frame = np.array([[above, _across(shape, 0)], [bottom, _across(shape, 0)], [bottom, _across(shape, REACH)]], float)
    ticks = [(bottom + 4.0, float(_across(shape, shift)), "ma", f"{shift:g}") for shift in np.arange(0, REACH + 1, 10)]
    return write(draw_lines(blank(shape, 1, PAPER), [frame], 1, INK), [*texts, *ticks])


def _cursor(sheet: Picture, shift: float) -> Picture:
    shape = sheet.shape[0], sheet.shape[1]
    column = float(_across(shape, shift))
    return draw_lines(sheet, [np.array([[_MARGINS[0], column], [shape[0] - _MARGINS[1], column]])], 2, INK)


def _curves(terms: NDArray[Any], shift: float) -> Picture:
    """1 - NCC over the shift, one line for each scale, with their names as the key."""
    (height, _), (above, below, left, _) = _CURVES, _MARGINS
    reach = height - above - below

    def row(value: Any) -> NDArray[Any]:
        return above + (1 - np.clip(np.asarray(value) / _HIGHEST, 0, 1)) * reach

    ticks = [(float(row(value)), left - 4.0, "rm", f"{value:g}") for value in (0, 0.5, 1, 1.5)]
    sheet = _sheet(_CURVES, [(4.0, left + 0.0, "la", "1 - NCC"), *ticks])
    shifts = np.linspace(0, REACH, len(terms))
    sheet = draw_lines(sheet, [np.stack([row([1, 1]), _across(_CURVES, [0, REACH])], -1)], 1, _GREY)
    for scale, name in enumerate(SCALES):
        path = np.stack([row(terms[:, scale]), _across(_CURVES, shifts)], -1)
        sheet = draw_lines(sheet, [path], 2.2, _paint(scale))
        sheet = write(sheet, [(4.0, left + 80.0 + 72 * scale, "la", name)], _paint(scale))
    return _cursor(sheet, shift)


def _areas(weights: NDArray[Any], shift: float) -> Picture:
    """The weights over the shift, one upon the other: together 1."""
    (height, width), (above, below, left, right) = _WEIGHTS, _MARGINS
    texts = [(4.0, left + 0.0, "la", "weight of each scale, over the shift (voxels)")]
    sheet = _sheet(
        _WEIGHTS, [*texts, (above + 6.0, left - 4.0, "rm", "1"), (height - below - 2.0, left - 4.0, "rm", "0")]
    )
    columns = np.linspace(0, len(weights) - 1, width - left - right).round().astype(int)
    tops = weights[columns].cumsum(1).T  # (scales, columns)
    share = (np.arange(height - above - below)[::-1, None, None] + 0.5) / (height - above - below)
    scale = np.minimum((share > tops.T[None]).sum(-1), len(SCALES) - 1)
    sheet[above : height - below, left : width - right] = np.array([_paint(i) for i in range(len(SCALES))])[scale]
    return _cursor(sheet, shift)
