"""SACB-Net's matching under a microscope: nine scores at a voxel, their softmax, and the arrow that is their mean."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regkit.fields import compose, upsample, warp
from regkit.layers import pad_to_multiple
from regkit.models.sacbnet import LEVELS, Match, SACBNet, soft_argmax
from regkit.types import Displacement, Image, Pair, spatial
from regkit.views.cells import SHARES, render_arrow, render_box, render_cells, titled
from regkit.views.controls import Control, Scene, Slider, State, Stops
from regkit.views.drawing import Limits, Picture, Plane, integer_scale, intensity_limits, plane, stack
from regkit.views.pictures import render_difference, render_displacement, render_image, render_wheel, write
from regkit.views.quantities import pick
from regkit.widgets import View

PIXELS = 256  # a panel's longer side
SHARPNESS = ("0", "0.1", "0.25", "0.5", "1", "2", "4", "10", "100")


@dataclass(frozen=True, eq=False)
class Stand:
    """One level of a registration: what was found before it, and what it compared.

    before: the field so far, on this level's grid, in its voxels. moving: the image, warped by it, at full size.
    match: refined features, clusters, increment. scores: (1, 3^dim, *space).
    """

    level: int
    before: Displacement
    moving: Image
    match: Match
    scores: Tensor

    @property
    def voxel(self) -> int:
        """How many of the image's voxels one of this level's is wide."""
        return 2 ** (self.level - 1)


@dataclass(frozen=True, eq=False)
class Stands:
    """All levels of one registration of one pair: images padded to a multiple of 16, as the network does."""

    moving: Image
    fixed: Image
    levels: dict[int, Stand]
    displacement: Displacement
    alignment: str


def stands(network: SACBNet, moving: Image, fixed: Image) -> Stands:
    """Register one pair (2D, batch 1), and keep what each of the levels 5, 4, 3, 2 saw."""
    moving, fixed = pad_to_multiple(moving, 16), pad_to_multiple(fixed, 16)
    with torch.no_grad():
        found = network(moving, fixed)
        before = torch.zeros_like(found.matches[0].increment)
        levels = {}
        for level, match, after in zip(LEVELS, found.matches, found.levels[:-1], strict=True):
            full = enlarged(before, level, network.alignment)
            warped = warp(moving, full, padding=network.padding)
            levels[level] = Stand(level, before, warped, match, network.scores(match.moving, match.fixed))
            before = upsample(after, alignment=network.alignment)
    return Stands(moving, fixed, levels, found.displacement, network.alignment)


def enlarged(displacement: Displacement, level: int, alignment: str) -> Displacement:
    """A level's field on the image's grid, in the image's voxels."""
    for _ in range(level - 1):
        displacement = upsample(displacement, alignment=alignment)  # type: ignore[arg-type]
    return displacement


# ---------------------------------------------------------------------------------------------- the scene


@dataclass(frozen=True, eq=False)
class Microscope(Scene):
    """A fixed voxel, its nine candidates in the moving image, their weights; and what the level makes of all voxels."""

    stands: Stands

    def controls(self) -> dict[str, Control]:
        """Which level, which voxel of the image, and how sharp the softmax is."""
        height, width = spatial(self.stands.fixed)
        return {
            "level": Stops("level", [str(level) for level in LEVELS], "3"),
            "axis_0": Slider("axis 0 (voxel)", height // 2, 0, height - 1),
            "axis_1": Slider("axis 1 (voxel)", width // 2, 0, width - 1),
            "sharpness": Stops("sharpness: scores times", SHARPNESS, "1"),
        }

    def render(self, state: State) -> Picture:
        """Above, the one voxel; below, all of this level's."""
        stand, place = self._stand(state), self._place(state)
        increment = self._increment(state)
        after = self._after(stand, increment)
        half = (self._limits[1] - self._limits[0]) / 2
        fixed = plane(self.stands.fixed)
        side = stand.voxel * self._scale
        corner = np.array(place) * side
        above = [
            titled("fixed: this voxel", render_box(self._image(fixed), corner, side)),
            titled("moving, warped so far: 9 places", self._candidates(state)),
            titled("softmax of their scores, and the mean", self._weights(state)),
        ]
        colours = render_displacement(increment[0], limit=1, scale=side)
        below = [
            titled("this level's increments u", colours),
            titled("moving, after this level", self._image(after)),
            titled("that minus fixed", render_difference(after, fixed, limit=half, scale=self._scale)),
        ]
        sheet = stack(stack(*above, axis=1), stack(*below, axis=1))
        return stack(sheet, render_wheel(1, width=sheet.shape[1], side=64))

    def describe(self, state: State) -> str:
        """The weights in words, the increment in voxels of the level and of the image, and what is left."""
        stand, (row, column) = self._stand(state), self._place(state)
        weights = self._softmax(state)
        best = np.unravel_index(np.argmax(weights), weights.shape)
        offset = tuple(int(index) - 1 for index in best)
        step = self._increment(state)[0, :, row, column].tolist()
        full = [stand.voxel * part for part in step]
        outside = int(self._outside(stand, (row, column)).sum())
        edge = (
            f" {outside} of the 9 places lie outside: their features are zeros, and they take part." if outside else ""
        )
        left = np.abs(self._after(stand, self._increment(state)) - plane(self.stands.fixed)).mean()
        return (
            f"Voxel ({state['axis_0']}, {state['axis_1']}) lies in voxel ({row}, {column}) of level {stand.level}, "
            f"which is {stand.voxel} voxels wide, the unit of u. Scores times {state['sharpness']}. The largest weight "
            f"is {weights.max():.2f}, at offset ({offset[0]:+d}, {offset[1]:+d}). The mean of the offsets is "
            f"({step[0]:+.2f}, {step[1]:+.2f}) voxels of this level, ({full[0]:+.1f}, {full[1]:+.1f}) of the image."
            f"{edge} Mean |moving - fixed| after this level: {left:.4f}."
        )

    @functools.cached_property
    def _limits(self) -> Limits:
        return intensity_limits(plane(self.stands.moving), plane(self.stands.fixed))

    @functools.cached_property
    def _scale(self) -> int:
        return integer_scale(spatial(self.stands.fixed), PIXELS)

    def _stand(self, state: State) -> Stand:
        return self.stands.levels[int(state["level"])]

    def _place(self, state: State) -> tuple[int, int]:
        """The level's voxel that holds the chosen voxel of the image."""
        voxel = self._stand(state).voxel
        return state["axis_0"] // voxel, state["axis_1"] // voxel

    def _image(self, values: Plane) -> Picture:
        return render_image(values, limits=self._limits, scale=self._scale)

    def _increment(self, state: State) -> Displacement:
        return soft_argmax(float(state["sharpness"]) * self._stand(state).scores)

    def _after(self, stand: Stand, increment: Displacement) -> Plane:
        """The moving image after this level, for all that comes before as it was."""
        whole = enlarged(compose(stand.before, increment), stand.level, self.stands.alignment)
        return plane(warp(self.stands.moving, whole))

    def _softmax(self, state: State) -> Plane:
        row, column = self._place(state)
        scores = float(state["sharpness"]) * self._stand(state).scores[0, :, row, column]
        return scores.softmax(0).view(3, 3).numpy()

    def _outside(self, stand: Stand, place: Sequence[int]) -> Plane:
        """Which of the nine places lie outside the level's grid."""
        rows, columns = (index + np.arange(-1, 2) for index in place)
        height, width = spatial(stand.scores)
        return ~(((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width)))

    def _candidates(self, state: State) -> Picture:
        """Boxes around the nine, and the arrow from the middle of the voxel."""
        stand, place = self._stand(state), np.array(self._place(state))
        side = stand.voxel * self._scale
        picture = render_box(self._image(plane(stand.moving)), (place - 1) * side, 3 * side, width=1)
        step = self._increment(state)[0, :, place[0], place[1]].numpy()
        middle = (place + 0.5) * side
        return render_arrow(render_box(picture, place * side, side), middle, middle + step * side, width=2)

    def _weights(self, state: State) -> Picture:
        side = spatial(self.stands.fixed)[1] * self._scale // 3
        picture = render_cells(self._softmax(state), table=SHARES, limits=(0, 1), side=side)
        row, column = self._place(state)
        rows, columns = np.nonzero(self._outside(self._stand(state), (row, column)))
        marks = [
            (float(r * side + 16), float((c + 0.5) * side), "mm", "outside") for r, c in zip(rows, columns, strict=True)
        ]
        middle = np.full(2, 1.5 * side)
        step = self._increment(state)[0, :, row, column].numpy()
        return write(render_arrow(picture, middle, middle + step * side, width=3), marks)


def matching_microscope(network: SACBNet, pair: Pair, *, item: int = 0) -> View:
    """Look at the matching of a 2D pair voxel by voxel, and make its softmax softer or sharper, level by level.

    network: a SACBNet in 2D. item: which of a batch. Images are padded to a multiple of 16, as the network does.

    Raises:
        ValueError, IndexError: volumes, no such item.
    """
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    plane(moving, "moving"), plane(fixed, "fixed")
    return View(Microscope(stands(network, moving, fixed)))


def reach(level: int) -> int:
    """How far levels 5 to `level` move a voxel at most, in voxels of the next finer grid: 2, 6, 14, 30."""
    return sum(2 ** (1 + each - level) for each in LEVELS if each >= level)
