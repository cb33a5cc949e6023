"""What ICON and GradICON charge for a ripple, a shift and a scale of φ_AB∘φ_BA: a dial for amplitude and frequency."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regkit.fields import compose, identity, rigid_displacement, warp
from regkit.figures.paint import draw_lines, render_overlay, write
from regkit.figures.pixels import (
    FOLD,
    INK,
    LABELS,
    LINE,
    NIGHT,
    PAPER,
    Colour,
    Picture,
    blank,
    displacement_limit,
    field_volume,
    integer_scale,
    intensity_limits,
    plane,
    stack,
)
from regkit.losses import Weighting, adaptive_ncc_terms, gradicon, gradicon_of_maps, icon, icon_of_maps
from regkit.types import (
    Coordinates,
    Displacement,
    Image,
    InputError,
    Pair,
    Registration,
    check_image,
    check_same_grid,
    spatial,
)
from regkit.widgets.live import View
from regkit.widgets.panels import GridLines, Panel, Quantities, error_panel, make_panels, pick
from regkit.widgets.scene import Button, Choice, ClassScene, Control, Slider, State, Stops, Toggle
from regkit.widgets.slices import Slices, Staged

_ABOVE, _BELOW = ("fixed", "warped", "grid"), ("jacobian",)  # around the two panels of the round trip


@dataclass(frozen=True, eq=False)
class RoundTrips(Staged):
    """One network at a time: fixed, warped, the map on moving; the round trip as a grid and as an error; |J|.

    pair: of batch 1. maps: of each network by name, φ_AB and φ_BA, (1, dim, *space), voxels. notes: a sentence for some
    of them. limit: the error, in voxels, at which its colours are full.
    """

    pair: Pair
    maps: Mapping[str, tuple[Displacement, Displacement]]
    notes: Mapping[str, str]
    limit: float

    def own_controls(self) -> dict[str, Control]:
        """Whose answer is shown."""
        return {"network": Choice("network", list(self.maps))}

    def controls(self) -> dict[str, Control]:
        """Whose answer, and the slice viewer's controls; cross hairs only where they are asked for."""
        return {**super().controls(), "crosshair": Toggle("cross hairs", False)}

    def hidden(self, state: State) -> set[str]:
        """Without cross hairs, what moves them."""
        return set() if state["crosshair"] else set(self.first().controls()) - {"crosshair"}

    def stage(self, state: State) -> Slices:
        """The panels of this network."""
        return self._made(state["network"])

    def first(self) -> Slices:
        """The panels of the first one."""
        return self._made(next(iter(self.maps)))

    def words(self, state: State) -> str:
        """What is left of image and round trip, what both penalties are, and the folds."""
        name = state["network"]
        return f"{name}: {self._numbers(name)} {self.notes.get(name, '')}".strip()

    @functools.cached_property
    def _made(self) -> Callable[[str], Slices]:
        return functools.cache(self._make)

    @functools.cached_property
    def _numbers(self) -> Callable[[str], str]:
        return functools.cache(self._in_words)

    def _make(self, name: str) -> Slices:
        there, back = self.maps[name]
        seen = Quantities(self.pair, there)
        left = field_volume(compose(there, back), "round trip")
        every = max(1, max(seen.fixed.shape) // 16)
        trip: list[Panel] = [
            GridLines("grid of the round trip", left, None, every),
            error_panel("|E| of the round trip", left, self.limit),
        ]
        return Slices([*make_panels(seen, _ABOVE), *trip, *make_panels(seen, _BELOW)], self.pair.spacing)

    def _in_words(self, name: str) -> str:
        there, back = self.maps[name]
        seen = Quantities(self.pair, there)
        misfit = float(((seen.warped - seen.fixed) ** 2).mean())
        error = compose(there, back).norm(dim=1)
        penalties = float(icon(there, back)), float(gradicon(there, back, orders="both"))
        return (
            f"mean (warped - fixed)² {misfit:.4f}; {int((seen.determinant <= 0).sum())} folded voxels; E(x) = "
            f"φ_AB(φ_BA(x)) - x is {error.mean():.2f} voxels long on average, {error.max():.2f} at most; ICON "
            f"{penalties[0]:.2e}, GradICON {penalties[1]:.2e} (without weights)."
        )


def round_trip_viewer(
    pair: Pair,
    registrations: Mapping[str, Registration],
    *,
    notes: Mapping[str, str] | None = None,
    item: int = 0,
    limit: float | None = None,
) -> View:
    """Choose a network; see its image, its map, and where the way from A to B and back ends.

    pair: A is moving, B fixed. registrations: by name, each with its inverse (φ_BA). notes: a sentence for some names.
    item: which of a batch. limit: the error, in voxels, at which its colours are full; by default what none exceeds.

    Raises:
        ValueError, IndexError: no registration, one without an inverse or on another grid, an unknown name, NaN.
    """
    unknown = set(notes or {}) - set(registrations)
    lacking = [name for name, found in registrations.items() if found.inverse is None]
    if not registrations or unknown or lacking:
        raise ValueError(
            f"there must be registrations, each with its inverse, and notes only for them; received "
            f"{list(registrations)}, of which {lacking} have no inverse, and notes for {sorted(unknown)}."
        )
    maps = {}
    for name, found in registrations.items():
        assert found.inverse is not None
        check_same_grid(pair.fixed, found.displacement, ("fixed", f"the displacement of {name!r}"))
        check_same_grid(found.displacement, found.inverse, ("displacement", f"the inverse of {name!r}"))
        maps[name] = pick(found.displacement, item), pick(found.inverse, item)
    longest = max(displacement_limit(field_volume(compose(*both), "round trip")) for both in maps.values())
    shown = Pair(pick(pair.moving, item), pick(pair.fixed, item), spacing=pair.spacing)
    return View(RoundTrips(shown, maps, dict(notes or {}), longest if limit is None else limit))


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
class RippleDial(ClassScene):
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


SCALES = ("full", "blurred", "1/2", "1/4", "1/8")

REACH, STEP = 40.0, 0.5  # voxels

_HIGHEST = 1.5  # of 1 - NCC in the chart

_CURVES, _WEIGHTS = (190, 470), (110, 470)  # pixels: the two charts

_MARGINS_SCALES = (22, 22, 40, 10)  # above, below, left, right

_GREY_SCALES: Colour = (190, 190, 190)


def _paint(scale: int) -> Colour:
    red, green, blue = LABELS[(0, 1, 2, 4, 6)[scale]].tolist()
    return red, green, blue


@dataclass(frozen=True, eq=False)
class Scales(ClassScene):
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
        raise InputError("images must name at least one image", "none", "give a dictionary of name and image")
    for name, image in images.items():
        check_image(image, f"images[{name!r}]")
        if image.dim() != 4 or image.shape[:2] != (1, 1):
            raise InputError("images must be (1, 1, H, W)", f"{tuple(image.shape)} for {name!r}", "take one slice")
    return View(Scales(dict(images)))


# ---------------------------------------------------------------------------------------------- the charts


def _across(shape: tuple[int, int], shift: Any) -> NDArray[Any]:
    """Pixel columns of shifts."""
    left, right = _MARGINS_SCALES[2:]
    return left + np.asarray(shift) / REACH * (shape[1] - left - right)


def _sheet(shape: tuple[int, int], texts: list[tuple[float, float, str, str]]) -> Picture:
    """White paper with a frame, a title and ticks of the shift."""
    (height, _), (above, below, _, _) = shape, _MARGINS_SCALES
    bottom = height - below
    frame = np.array([[above, _across(shape, 0)], [bottom, _across(shape, 0)], [bottom, _across(shape, REACH)]], float)
    ticks = [(bottom + 4.0, float(_across(shape, shift)), "ma", f"{shift:g}") for shift in np.arange(0, REACH + 1, 10)]
    return write(draw_lines(blank(shape, 1, PAPER), [frame], 1, INK), [*texts, *ticks])


def _cursor(sheet: Picture, shift: float) -> Picture:
    shape = sheet.shape[0], sheet.shape[1]
    column = float(_across(shape, shift))
    return draw_lines(
        sheet, [np.array([[_MARGINS_SCALES[0], column], [shape[0] - _MARGINS_SCALES[1], column]])], 2, INK
    )


def _curves(terms: NDArray[Any], shift: float) -> Picture:
    """1 - NCC over the shift, one line for each scale, with their names as the key."""
    (height, _), (above, below, left, _) = _CURVES, _MARGINS_SCALES
    reach = height - above - below

    def row(value: Any) -> NDArray[Any]:
        return above + (1 - np.clip(np.asarray(value) / _HIGHEST, 0, 1)) * reach

    ticks = [(float(row(value)), left - 4.0, "rm", f"{value:g}") for value in (0, 0.5, 1, 1.5)]
    sheet = _sheet(_CURVES, [(4.0, left + 0.0, "la", "1 - NCC"), *ticks])
    shifts = np.linspace(0, REACH, len(terms))
    sheet = draw_lines(sheet, [np.stack([row([1, 1]), _across(_CURVES, [0, REACH])], -1)], 1, _GREY_SCALES)
    for scale, name in enumerate(SCALES):
        path = np.stack([row(terms[:, scale]), _across(_CURVES, shifts)], -1)
        sheet = draw_lines(sheet, [path], 2.2, _paint(scale))
        sheet = write(sheet, [(4.0, left + 80.0 + 72 * scale, "la", name)], _paint(scale))
    return _cursor(sheet, shift)


def _areas(weights: NDArray[Any], shift: float) -> Picture:
    """The weights over the shift, one upon the other: together 1."""
    (height, width), (above, below, left, right) = _WEIGHTS, _MARGINS_SCALES
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
