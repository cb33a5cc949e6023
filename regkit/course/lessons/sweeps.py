"""One slider over stored registrations of one pair: what a weight or a time does to image and map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from regkit.fields import jacobian_determinant, warp
from regkit.figures import paint, pixels
from regkit.figures.pixels import FieldPlane, Picture, Plane
from regkit.figures.planes import Place, highest
from regkit.types import Displacement, Image, InputError
from regkit.widgets import Control, Scene, State, Stops, Toggle, View

_PIXELS = 320  # the longer side of a panel


@dataclass(frozen=True, eq=False)
class Stop:
    """One position of a slider: a displacement, the moving image warped by it, and what there is to say about it."""

    displacement: FieldPlane
    warped: Plane
    note: str

    @classmethod
    def of(cls, moving: Image, displacement: Displacement, note: str, item: int, name: str = "displacement") -> Stop:
        """Of one item of a batch."""
        field = pixels.field_plane(displacement, name, item)
        image = moving[[item if len(moving) > 1 else 0]].detach().cpu()
        return cls(field, pixels.plane(warp(image, torch.from_numpy(field)[None]), "warped"), note)


def sweep(
    moving: Image,
    fixed: Image,
    displacements: Mapping[str, Displacement],
    *,
    words: str,
    start: str | None = None,
    notes: Mapping[str, str] | None = None,
    mark: bool = True,
    error: bool = False,
    item: int = 0,
) -> View:
    """A slider over stored displacements by name, such as one for each weight: image, grid and |J| move together.

    moving, fixed: (B, 1, H, W). displacements: (B, 2, H, W), voxels, in the slider's order. words: what the names are
    values of. start: the name to begin at, the first by default. notes: a sentence for some names. mark: begin
    with cross hairs at the voxel of least |J|. error: show |warped - fixed|, too. item: of a batch.

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
    target, source = pixels.plane(fixed, "fixed", item), pixels.plane(moving, "moving", item)
    stops, determinants = {}, {}
    for name, displacement in displacements.items():
        title = f"displacements[{name!r}]"
        pixels.check_same_plane(pixels.field_plane(displacement, title, item), target, (title, "fixed"))
        stops[name] = Stop.of(moving, displacement, (notes or {}).get(name, ""), item, title)
        determinants[name] = pixels.plane(jacobian_determinant(torch.from_numpy(stops[name].displacement)[None]))
    shape = source.shape
    low, high = pixels.intensity_limits(source, target)
    scale = pixels.integer_scale(shape, _PIXELS * 4 // 5 if error else _PIXELS)
    options: dict[str, Any] = {"limits": (low, high), "scale": scale}
    below = pixels.darken(paint.render_image(source, **options), 0.6)

    def worst(name: str) -> Place:
        """The voxel of least |J|."""
        return highest(-determinants[name])

    def render(state: State) -> Picture:
        """Warped, its error, the map's grid on moving, and |J|; where its least is marked, in all of them."""
        name, stop = state["stop"], stops[state["stop"]]
        images = [paint.render_image(stop.warped, **options)]
        if error:
            difference = np.abs(stop.warped - target)
            images.append(paint.render_image(difference, limits=(0, (high - low) / 4), scale=scale))
        grid = paint.render_grid(below, stop.displacement, every=max(1, max(shape) // 24))
        jacobian = paint.render_jacobian(determinants[name], scale=scale)
        if state["mark"]:
            place = worst(name)
            target_place = np.rint(place + stop.displacement[:, place[0], place[1]]).astype(int)
            *images, jacobian = (paint.render_point(panel, place, shape) for panel in (*images, jacobian))
            grid = paint.render_point(grid, np.clip(target_place, 0, np.array(shape) - 1), shape)
        titles = ["warped", *(["|warped - fixed|"] if error else []), "x + u(x), on moving", "|J|"]
        panels = paint.titled_rows(dict(zip(titles, [*images, grid, jacobian], strict=True)))
        return pixels.stack(panels, paint.render_jacobian_bar(width=max(panels.shape[1], 320)))

    def describe(state: State) -> str:
        """The stop's name, the image's and the map's numbers, and the caller's note."""
        name, stop, determinant = state["stop"], stops[state["stop"]], determinants[state["stop"]]
        row, column = worst(name)
        return (
            f"{words} = {name}: warped · {'|warped - fixed| · ' if error else ''}x + u(x) on moving · |J|. "
            f"Mean |warped - fixed| {np.abs(stop.warped - target).mean():.4f}; {int((determinant <= 0).sum())} folded "
            f"voxels; least |J| {determinant[row, column]:.2f} at row {row}, column {column}. {stop.note}".strip()
        )

    first = names[0] if start is None else start
    controls: dict[str, Control] = {"stop": Stops(words, names, first), "mark": Toggle("mark the least |J|", mark)}
    return View(Scene(controls, render, describe))
