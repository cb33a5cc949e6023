"""Which way does an image go? One arrow, moved by hand, and what warping (pull) and splatting (push) make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from regkit.fields import warp
from regkit.figures.paint import render_arrows, render_contours, render_image
from regkit.figures.pixels import (
    FOLD,
    FieldPlane,
    Limits,
    Picture,
    Plane,
    darken,
    enlarge,
    field_plane,
    integer_scale,
    intensity_limits,
    plane,
    stack,
)
from regkit.widgets.live import View
from regkit.widgets.scene import Choice, ClassScene, Control, Slider, State, Toggle


def push(image: Any, displacement: Any) -> Plane:
    """What warping is not: every voxel x is carried to the voxel nearest to x + u(x); NaN where none arrives.

    image: (H, W) or (1, 1, H, W). displacement: (1, 2, H, W) or (2, H, W), voxels. Where two arrive the later one
    stays; what leaves the image is lost. Returns (H, W).
    """
    values, field = plane(image), field_plane(displacement)
    places = np.rint(np.indices(values.shape) + field).astype(int).reshape(2, -1)
    kept = np.all((places >= 0) & (places < np.reshape(values.shape, (2, 1))), 0)
    pushed = np.full(values.shape, np.nan, values.dtype)
    pushed[tuple(places[:, kept])] = values.ravel()[kept]
    return pushed


@dataclass(frozen=True, eq=False)
class Arrow(ClassScene):
    """The moving image under the arrows of a field at the left; at the right what becomes of it, with what was."""

    moving: Plane

    used_by: ClassVar[Mapping[str, Sequence[str]]] = {"reach": ("around the middle",)}

    def controls(self) -> dict[str, Control]:
        """The arrow at the middle, how far its like is found, and pull or push."""
        half = min(self.moving.shape) // 4
        return {
            "right": Slider("arrow to the right (axis 1)", float(half // 2), -float(half), float(half), 0.5),
            "down": Slider("arrow down (axis 0)", 0.0, -float(half), float(half), 0.5),
            "mode": Choice("the same arrow", ["everywhere", "around the middle"]),
            "reach": Slider("fading over (voxels)", half, 2, 2 * half),
            "push": Toggle("push instead", False),
        }

    def field(self, state: State) -> FieldPlane:
        """The arrow everywhere, or under a Gaussian around the middle."""
        arrow = np.array([state["down"], state["right"]], np.float32).reshape(2, 1, 1)
        if state["mode"] == "everywhere":
            return np.broadcast_to(arrow, (2, *self.moving.shape)).copy()
        middle = (np.reshape(self.moving.shape, (2, 1, 1)) - 1) / 2
        squared = ((np.indices(self.moving.shape) - middle) ** 2).sum(0)
        return (arrow * np.exp(-squared / (2 * state["reach"] ** 2))).astype(np.float32)

    def result(self, state: State) -> Plane:
        """The pulled or pushed image; NaN where nothing was pushed to."""
        field = self.field(state)
        if state["push"]:
            return push(self.moving, field)
        return plane(warp(torch.from_numpy(self.moving)[None, None], torch.from_numpy(field)[None], padding="zeros"))

    def render(self, state: State) -> Picture:
        """Moving with the arrows, and the result with the outline of what was moving."""
        limits, scale = intensity_limits(self.moving), integer_scale(self.moving.shape, 340)
        result = self.result(state)
        every = max(1, max(self.moving.shape) // 6)
        arrows = darken(render_image(self.moving, limits=limits, scale=scale), 0.6)
        arrows = render_arrows(arrows, self.field(state), every=every, width=2.2)
        after = render_image(np.nan_to_num(result), limits=limits, scale=scale)
        after = np.where(enlarge(np.isnan(result)[..., None], scale), np.array(FOLD, np.uint8), after)
        return stack(arrows, render_contours(after, self._inside(limits), width=1), axis=1, gap=16)

    def describe(self, state: State) -> str:
        """The arrow, the way that the content went, and the holes."""
        result = self.result(state)
        down, right = (_middle(np.nan_to_num(result)) - _middle(self.moving)).round(1) + 0.0  # no -0.0
        holes = int(np.isnan(result).sum())
        formula = "result[x + u(x)] = moving[x]" if state["push"] else "result[x] = moving[x + u(x)]"
        told = f" {holes} voxels were never written (orange)." if state["push"] else ""
        return (
            f"Left: moving, an arrow from x to x + u(x). Right: {formula}; the outline is where it was. "
            f"The arrow in the middle: {state['right']:+g} right, {state['down']:+g} down (voxels). "
            f"The content's middle went {right:+.1f} right, {down:+.1f} down.{told}"
        )

    def _inside(self, limits: Limits) -> NDArray[Any]:
        return np.where(self.moving > sum(limits) / 2, 2, 0)  # the second label is blue, unlike the holes


def _middle(image: Plane) -> NDArray[Any]:
    """The brightness-weighted mean position, voxels."""
    return np.asarray((np.indices(image.shape) * image).sum((1, 2)) / max(image.sum(), 1e-6))


def arrow_viewer(moving: Any) -> View:
    """Move an arrow and see which way the image goes, pulled (as warping does) or pushed.

    moving: (H, W) or (1, 1, H, W), not negative.

    Raises:
        ValueError: not one finite plane.
    """
    return View(Arrow(plane(moving, "moving").astype(np.float32)))
