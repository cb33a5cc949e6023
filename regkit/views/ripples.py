"""What ICON and GradICON charge for a ripple, a shift and a scale of φ_AB∘φ_BA: a dial for amplitude and frequency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regkit.fields import identity
from regkit.losses import gradicon_of_maps, icon_of_maps
from regkit.types import Coordinates
from regkit.views.controls import Button, Control, Scene, Slider, State, Stops
from regkit.views.drawing import FOLD, INK, LINE, NIGHT, PAPER, Colour, Picture, blank, stack
from regkit.views.pictures import draw_lines, write
from regkit.widgets import View

EXTENT = 96  # voxels from the first to the last along either axis
WAVES = 20  # at most
GRADICON_WEIGHT = 0.2
ICON_WEIGHTS = ("1", "8", "64", "1024", "8192")
ICON: Colour = (0, 114, 178)
GRADICON: Colour = (0, 158, 115)
_GREY: Colour = (205, 205, 205)
_SIDE, _CHART = 291, (291, 330)  # pixels: of the grid and the graph, of the prices (height, width)
_MARGINS = (8, 40, 46, 12)  # above, below, left, right
_PRICES = (-4, 3)  # powers of ten


@dataclass(frozen=True)
class Ripple:
    """φ(p) = middle + scale (p - middle) + (amplitude sin(2π waves p_0 / 96), shift), voxels; p runs from 0 to 96.

    As φ_AB∘φ_BA, of which it stands for the whole: φ_BA is the identity.
    """

    amplitude: float
    waves: int
    shift: float = 0.0
    scale: float = 1.0

    def __call__(self, points: Coordinates) -> Coordinates:
        """The map, of points (B, 2, *any)."""
        along = points[:, :1]
        ripple = self.amplitude * torch.sin(2 * math.pi * self.waves / EXTENT * along)
        middle = EXTENT / 2
        return middle + self.scale * (points - middle) + torch.cat([ripple, torch.full_like(along, self.shift)], 1)

    def profile(self, places: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Where axis 0 is carried, and the slope there; |J| = scale * slope."""
        phase = 2 * np.pi * self.waves / EXTENT * places
        middle = EXTENT / 2
        carried = middle + self.scale * (places - middle) + self.amplitude * np.sin(phase)
        return carried, self.scale + self.steepness * np.cos(phase)

    @property
    def steepness(self) -> float:
        """2π waves amplitude / 96: the ripple's largest slope; a fold where it reaches the scale."""
        return 2 * math.pi * self.waves * self.amplitude / EXTENT

    def penalties(self) -> tuple[float, float]:
        """ICON and GradICON (both orders) of this map and the identity, without weights, over the whole image."""
        shape = (EXTENT + 1,) * 2
        points = identity((EXTENT,) * 2) + 0.5

        def still(there: Tensor) -> Tensor:
            return there

        icon = icon_of_maps(self, still, points, shape)
        return float(icon), float(gradicon_of_maps(self, still, points, shape, orders="both"))


def price_of_a_fold(waves: int, icon_weight: float) -> tuple[float, float]:
    """What a ripple that just folds costs under each penalty, weighted: with a = 1/(2π waves), a²/2 and 1/2."""
    return icon_weight / (2 * (2 * math.pi * waves) ** 2), GRADICON_WEIGHT / 2


@dataclass(frozen=True, eq=False)
class RippleDial(Scene):
    """The grid of the map, its graph along axis 0, and both prices beside those of a ripple that just folds."""

    def controls(self) -> dict[str, Control]:
        """The map's four numbers, ICON's weight, and a button that makes the ripple fold."""
        return {
            "amplitude": Slider("ripple a (voxels)", 1.5, 0.0, 16.0, 0.1),
            "waves": Slider("waves k", 3, 1, WAVES),
            "fold": Button("just fold"),
            "shift": Slider("shift (voxels)", 0.0, -12.0, 12.0, 0.5),
            "scale": Slider("scale", 1.0, 0.8, 1.2, 0.02),
            "weight": Stops("weight of ICON", ICON_WEIGHTS, "1024"),
        }

    def press(self, button: str, state: State) -> dict[str, Any]:
        """The smallest amplitude that folds at this frequency."""
        least = state["scale"] * EXTENT / (2 * math.pi * state["waves"])
        return {"amplitude": math.ceil(10 * least - 1e-9) / 10}

    def render(self, state: State) -> Picture:
        """Three panels side by side."""
        ripple = self._ripple(state)
        panels = {
            "grid of the round trip": _grid(ripple),
            "where places on axis 0 come out (voxels)": _graph(ripple),
            "price = weight x penalty, over waves k": _chart(ripple, float(state["weight"])),
        }
        return stack(*(_titled(title, picture) for title, picture in panels.items()), axis=1, gap=12)

    def describe(self, state: State) -> str:
        """The map, whether it folds, and both prices beside that of a fold."""
        ripple, weight = self._ripple(state), float(state["weight"])
        icon, gradicon = ripple.penalties()
        dear, fair = price_of_a_fold(ripple.waves, weight)
        verdict = "It folds" if ripple.steepness >= ripple.scale else "No fold"
        least = ripple.scale * (ripple.scale - ripple.steepness)
        return (
            f"φ_AB∘φ_BA is the identity with a ripple of {ripple.amplitude:.1f} voxels in {ripple.waves} waves, a "
            f"shift of {ripple.shift:g} voxels, a scale of {ripple.scale:.2f}. {verdict}: least |J| {least:.2f}. "
            f"ICON: {weight:g} x {icon:.2e} = {weight * icon:.2g}; GradICON: {GRADICON_WEIGHT} x {gradicon:.2e} = "
            f"{GRADICON_WEIGHT * gradicon:.2g}. A ripple of {ripple.waves} waves that just folds (the curves) costs "
            f"{dear:.2g} under ICON, {fair:.2g} under GradICON."
        )

    def _ripple(self, state: Mapping[str, Any]) -> Ripple:
        return Ripple(state["amplitude"], state["waves"], state["shift"], state["scale"])


def ripple_dial() -> View:
    """Turn up a ripple until it folds, at any frequency, and read what ICON and GradICON charge for it."""
    return View(RippleDial())


# ---------------------------------------------------------------------------------------------- the panels


def _titled(title: str, picture: Picture) -> Picture:
    head = np.full((20, picture.shape[1], 3), PAPER, np.uint8)
    return np.concatenate([write(head, [(10, 2, "lm", title)]), picture])


def _grid(ripple: Ripple) -> Picture:
    """Rows and columns of voxels where the map carries them; folded rows in their colour."""
    sheet, scale = blank((_SIDE, _SIDE), 1, NIGHT), (_SIDE - 1) / EXTENT
    ends = torch.tensor([0.0, float(EXTENT)])

    def carried(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
        places = np.stack(np.broadcast_arrays(rows, columns)).astype(np.float32)
        return np.moveaxis(ripple(torch.from_numpy(places)[None])[0].numpy(), 0, -1) * scale

    fine = np.arange(0, EXTENT + 0.1, 0.25)
    folded = fine[ripple.profile(fine)[1] <= 0]
    rows = carried(np.arange(0, EXTENT + 0.1, 1.5)[:, None], ends.numpy())
    columns = carried(fine, np.arange(0, EXTENT + 1, 8)[:, None])
    sheet = draw_lines(sheet, [*rows, *columns], 1.2, LINE)
    return draw_lines(sheet, list(carried(folded[:, None], ends.numpy())), 1.2, FOLD) if len(folded) else sheet


def _axes(shape: tuple[int, int], texts: list[tuple[float, float, str, str]]) -> Picture:
    """A white panel with a frame at its left and bottom, and the texts."""
    (height, width), (above, below, left, right) = shape, _MARGINS
    sheet = blank(shape, 1, PAPER)
    corner = np.array([[above, left], [height - below, left], [height - below, width - right]], float)
    return write(draw_lines(sheet, [corner], 1, INK), texts)


def _graph(ripple: Ripple) -> Picture:
    """φ(x) over x: rising where the map keeps the order of places; the identity in grey, falling parts as folds."""
    above, below, left, right = _MARGINS
    reach = (_SIDE - above - below, _SIDE - left - right)
    places = np.linspace(0, EXTENT, 2 * _SIDE)
    carried, slope = ripple.profile(places)

    def pixel(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        height = np.clip(y / EXTENT, 0, 1) * reach[0]
        return np.stack([above + reach[0] - height, left + x / EXTENT * reach[1]], -1)

    bottom = _SIDE - below
    across = [(bottom + 4.0, left + 0.0, "la", "0"), (bottom + 4.0, _SIDE - right + 0.0, "ra", f"{EXTENT}")]
    up = [(above + 6.0, left - 4.0, "rm", f"{EXTENT}"), (bottom + 0.0, left - 4.0, "rm", "0")]
    sheet = _axes((_SIDE, _SIDE), across + up)
    ends = np.array([0.0, EXTENT])
    sheet = draw_lines(sheet, [pixel(ends, ends)], 1.5, _GREY)
    seen = (carried >= 0) & (carried <= EXTENT)
    sheet = draw_lines(sheet, [pixel(places[seen], carried[seen])], 2.2, INK)
    falling = np.flatnonzero((slope <= 0) & seen)
    pieces = np.split(falling, np.flatnonzero(np.diff(falling) > 1) + 1)
    parts = [pixel(places[piece], carried[piece]) for piece in pieces if len(piece) > 1]
    return draw_lines(sheet, parts, 4, FOLD)


def _chart(ripple: Ripple, weight: float) -> Picture:
    """Both prices, logarithmic: curves for a ripple that just folds, a dot for the map that is shown."""
    (height, width), (above, below, left, right) = _CHART, _MARGINS
    low, high = _PRICES

    def pixel(waves: Any, price: Any) -> NDArray[Any]:
        share = np.clip((np.log10(np.maximum(price, 10.0**low)) - low) / (high - low), 0, 1)
        across = (np.asarray(waves, float) - 1) / (WAVES - 1)
        row = above + (1 - share) * (height - above - below)
        return np.stack([row, left + 14 + across * (width - left - right - 28)], -1)

    ticks: list[tuple[float, float, str, str]] = []
    for power in range(low, high + 1):
        ticks.append((float(pixel(1, 10.0**power)[0]), left - 4, "rm", f"{10.0**power:g}"))
    for waves in (1, 5, 10, 15, 20):
        ticks.append((height - below + 4, float(pixel(waves, 1)[1]), "ma", f"{waves}"))
    keys = [(height - 18.0, left + 4.0, "ICON", ICON), (height - 18.0, left + 64.0, "GradICON", GRADICON)]
    sheet = _axes(_CHART, ticks)
    every = np.arange(1, WAVES + 1)
    folding = np.array([price_of_a_fold(int(waves), weight) for waves in every]).T
    prices = np.array(ripple.penalties()) * (weight, GRADICON_WEIGHT)
    for (row, column, name, paint), curve, price in zip(keys, folding, prices, strict=True):
        sheet = write(draw_lines(sheet, [pixel(every, curve)], 2, paint), [(row, column, "la", name)], paint)
        at = pixel(ripple.waves, price)
        sheet = draw_lines(sheet, [at + np.array([[0, -5], [0, 5]])], 10, paint)
    return write(sheet, [(height - 18, width - right, "ra", "curve: just folds")])
