"""Which way does an image go? One arrow, moved by hand, and what warping (pull) and splatting (push) make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regkit.fields import warp
from regkit.figures import paint, pixels
from regkit.figures.pixels import FOLD, FieldPlane, Picture, Plane
from regkit.figures.planes import Place
from regkit.widgets import Choice, Control, Scene, Slider, State, Toggle, View


def push(image: Any, displacement: Any) -> Plane:
    """What warping is not: every voxel x is carried to the voxel nearest to x + u(x); NaN where none arrives.

    image: (H, W) or (1, 1, H, W). displacement: (1, 2, H, W) or (2, H, W), voxels. Where two arrive the later one
    stays; what leaves the image is lost. Returns (H, W).
    """
    values, field = pixels.plane(image), pixels.field_plane(displacement)
    places = np.rint(np.indices(values.shape) + field).astype(int).reshape(2, -1)
    kept = np.all((places >= 0) & (places < np.reshape(values.shape, (2, 1))), 0)
    pushed = np.full(values.shape, np.nan, values.dtype)
    pushed[tuple(places[:, kept])] = values.ravel()[kept]
    return pushed


def pull(image: Plane, displacement: FieldPlane) -> Plane:
    """The warped image: every voxel x fetches what lies at x + u(x); zeros from outside."""
    return pixels.plane(
        warp(torch.from_numpy(image)[None, None], torch.from_numpy(displacement)[None], padding="zeros")
    )


def arrow_field(right: float, down: float, shape: tuple[int, ...], reach: float | None = None) -> FieldPlane:
    """One arrow everywhere, or fading with a Gaussian of `reach` voxels around the middle: (2, H, W), voxels."""
    arrow = np.array([down, right], np.float32).reshape(2, 1, 1)
    if reach is None:
        return np.broadcast_to(arrow, (2, *shape)).copy()
    middle = (np.reshape(shape, (2, 1, 1)) - 1) / 2
    squared = ((np.indices(shape) - middle) ** 2).sum(0)
    return (arrow * np.exp(-squared / (2 * reach**2))).astype(np.float32)


def arrow_viewer(moving: Any) -> View:
    """Move an arrow and see which way the image goes, pulled (as warping does) or pushed.

    moving: (H, W) or (1, 1, H, W), not negative.

    Raises:
        ValueError: not one finite plane.
    """
    image = pixels.plane(moving, "moving").astype(np.float32)
    limits, scale, half = pixels.intensity_limits(image), pixels.integer_scale(image.shape, 340), min(image.shape) // 4
    before = paint.render_image(image, limits=limits, scale=scale)
    inside = np.where(image > sum(limits) / 2, 2, 0)  # the second label is blue, unlike the holes
    controls: dict[str, Control] = {
        "right": Slider("arrow to the right (axis 1)", float(half // 2), -float(half), float(half), 0.5),
        "down": Slider("arrow down (axis 0)", 0.0, -float(half), float(half), 0.5),
        "mode": Choice("the same arrow", ["everywhere", "around the middle"]),
        "reach": Slider("fading over (voxels)", half, 2, 2 * half),
        "push": Toggle("push instead", False),
    }

    def field(state: State) -> FieldPlane:
        reach = None if state["mode"] == "everywhere" else state["reach"]
        return arrow_field(state["right"], state["down"], image.shape, reach)

    def result(state: State) -> Plane:
        """The pulled or pushed image; NaN where nothing was pushed to."""
        return push(image, field(state)) if state["push"] else pull(image, field(state))

    def places(state: State) -> tuple[Place, Place]:
        """A voxel x that meets the middle of the content, and x + u(x), rounded."""
        ends = np.indices(image.shape) + field(state)
        away = (np.indices(image.shape) if state["push"] else ends) - _middle(image).reshape(2, 1, 1)
        place = np.unravel_index((away**2).sum(0).argmin(), image.shape)
        end = np.clip(np.rint(ends[:, *place]), 0, np.array(image.shape) - 1).astype(int)
        return (int(place[0]), int(place[1])), (int(end[0]), int(end[1]))

    def render(state: State) -> Picture:
        """Where arrows start, with one voxel marked, and where they end, with what that voxel fetches or becomes."""
        moved, (place, end) = result(state), places(state)
        after = paint.render_image(np.nan_to_num(moved), limits=limits, scale=scale)
        after = np.where(pixels.enlarge(np.isnan(moved)[..., None], scale), np.array(FOLD, np.uint8), after)
        after = paint.render_contours(after, inside, width=1)
        start, goal = (before, after) if state["push"] else (after, before)
        every = max(1, max(image.shape) // 6)
        start = paint.render_arrows(pixels.darken(start, 0.6), field(state), every=every, width=2.2)
        titles = ("moving: where arrows start", "the result: it arrives here")
        if not state["push"]:
            titles = ("the result, on the fixed grid: arrows start", "moving: the marked voxel fetches this")
        shown = (paint.render_point(start, place, image.shape), paint.render_point(goal, end, image.shape))
        return paint.titled_rows(dict(zip(titles, shown, strict=True)))

    def describe(state: State) -> str:
        """The arrow, the way that the content went, and the holes."""
        moved = result(state)
        down, right = (_middle(np.nan_to_num(moved)) - _middle(image)).round(1) + 0.0  # no -0.0
        formula = "result[x + u(x)] = moving[x]" if state["push"] else "result[x] = moving[x + u(x)]"
        holes = f" {int(np.isnan(moved).sum())} voxels were never written (orange)." if state["push"] else ""
        return (
            f"Left: an arrow from x to x + u(x), and one x marked. Right: x + u(x) marked. {formula}; the outline is "
            f"where the letter was. "
            f"The arrow in the middle: {state['right']:+g} right, {state['down']:+g} down (voxels). "
            f"The content's middle went {right:+.1f} right, {down:+.1f} down.{holes}"
        )

    def hidden(state: State) -> set[str]:
        return {"reach"} if state["mode"] == "everywhere" else set()

    return View(Scene(controls, render, describe, hidden))


def _middle(image: Plane) -> NDArray[Any]:
    """The brightness-weighted mean position, voxels."""
    return np.asarray((np.indices(image.shape) * image).sum((1, 2)) / max(image.sum(), 1e-6))
