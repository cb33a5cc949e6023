"""One slider over stored registrations of one pair: what a weight or a time does to image and map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from regkit.fields import jacobian_determinant, warp
from regkit.figures.paint import render_grid, render_image, render_jacobian, render_jacobian_bar, render_point
from regkit.figures.pixels import (
    FieldPlane,
    Picture,
    Plane,
    check_same_plane,
    darken,
    field_plane,
    integer_scale,
    intensity_limits,
    plane,
    stack,
)
from regkit.types import Displacement, Image, InputError
from regkit.widgets.live import View
from regkit.widgets.scene import ClassScene, Control, State, Stops, Toggle

_PIXELS = 320  # the longer side of a panel


@dataclass(frozen=True)
class Stop:
    """One position of the slider: what was found there, and what there is to say about it."""

    warped: Plane
    displacement: FieldPlane
    determinant: Plane
    note: str


@dataclass(frozen=True, eq=False)
class Sweep(ClassScene):
    """Warped, the map's grid on moving, and |J|, at one of the stops; the place of the least |J| can be marked in all.

    words: what the stops are values of. start: the first stop, and mark: whether the place is marked at first.
    """

    words: str
    moving: Plane
    fixed: Plane
    stops: Mapping[str, Stop]
    start: str
    mark: bool = True

    def controls(self) -> dict[str, Control]:
        """The stop, and whether the worst voxel is marked."""
        return {
            "stop": Stops(self.words, list(self.stops), self.start),
            "mark": Toggle("mark the least |J|", self.mark),
        }

    def render(self, state: State) -> Picture:
        """Three linked panels, and the colours of |J|."""
        stop, shape = self.stops[state["stop"]], self.moving.shape
        options: dict[str, Any] = {
            "limits": intensity_limits(self.moving, self.fixed),
            "scale": integer_scale(shape, _PIXELS),
        }
        grid = render_grid(
            darken(render_image(self.moving, **options), 0.6), stop.displacement, every=max(1, max(shape) // 24)
        )
        warped, jacobian = (
            render_image(stop.warped, **options),
            render_jacobian(stop.determinant, scale=options["scale"]),
        )
        if state["mark"]:
            place = self._worst(stop)
            reached = np.rint(place + stop.displacement[:, place[0], place[1]]).astype(int)
            warped, jacobian = (render_point(panel, place, shape) for panel in (warped, jacobian))
            grid = render_point(grid, np.clip(reached, 0, np.array(shape) - 1), shape)
        panels = stack(warped, grid, jacobian, axis=1)
        return stack(panels, render_jacobian_bar(width=max(panels.shape[1], 320)))

    def describe(self, state: State) -> str:
        """The stop's name, the image's and the map's numbers, and the caller's note."""
        stop = self.stops[state["stop"]]
        row, column = self._worst(stop)
        folds = int((stop.determinant <= 0).sum())
        return (
            f"{self.words} = {state['stop']}: warped · x + u(x) on moving · |J|. "
            f"Mean |warped - fixed| {np.abs(stop.warped - self.fixed).mean():.4f}; {folds} folded voxels; "
            f"least |J| {stop.determinant[row, column]:.2f} at row {row}, column {column}. {stop.note}".strip()
        )

    def _worst(self, stop: Stop) -> tuple[int, int]:
        row, column = np.unravel_index(int(stop.determinant.argmin()), stop.determinant.shape)
        return int(row), int(column)


def sweep(
    moving: Image,
    fixed: Image,
    displacements: Mapping[str, Displacement],
    *,
    words: str,
    start: str | None = None,
    notes: Mapping[str, str] | None = None,
    mark: bool = True,
    item: int = 0,
) -> View:
    """A slider over stored displacements by name, such as one for each weight: image, grid and |J| move together.

    moving, fixed: (B, 1, H, W). displacements: (B, 2, H, W), voxels, in the slider's order. words: what the names are
    values of. start: the name to begin at, the first by default. notes: a sentence for some names. mark: begin
    with cross hairs at the voxel of least |J|. item: of a batch.

    Raises:
        ValueError, IndexError: no displacement, an unknown name, shapes that differ, NaN, volumes.
    """
    names = list(displacements)
    unknown = {*([] if start is None else [start]), *(notes or {})} - set(names)
    if not names or unknown:
        raise InputError(
            "start and notes must name displacements, of which there must be one",
            f"{sorted(unknown)} for {names}",
            "use the same names",
        )
    target = plane(fixed, "fixed", item)
    stops = {}
    for name, displacement in displacements.items():
        field = field_plane(displacement, f"displacements[{name!r}]", item)
        check_same_plane(field, target, (f"displacements[{name!r}]", "fixed"))
        kept = torch.from_numpy(field)[None]
        warped = plane(warp(moving[[item]].cpu(), kept))
        stops[name] = Stop(warped, field, plane(jacobian_determinant(kept)), (notes or {}).get(name, ""))
    first = names[0] if start is None else start
    return View(Sweep(words, plane(moving, "moving", item), target, stops, first, mark))
