"""What ICON and GradICON charge for a ripple, a shift and a scale of φ_AB∘φ_BA: a dial for amplitude and frequency;
round trips of networks side by side; the scales of the adaptive NCC."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regkit import losses
from regkit.fields import compose, identity, rigid_displacement, warp
from regkit.figures import pixels
from regkit.figures.paint import draw_lines, render_overlay, titled
from regkit.figures.pixels import FOLD, INK, LABELS, LINE, Colour, Picture, stack
from regkit.losses import Weighting, adaptive_ncc_terms, gradicon_of_maps, icon_of_maps
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
from regkit.widgets import Button, Choice, Control, Scene, Slider, State, Stops, Toggle, View
from regkit.widgets.chart import Chart, paint
from regkit.widgets.panels import GridLines, Panel, Quantities, error_panel, make_panels, pick
from regkit.widgets.slices import linked

# ---------------------------------------------------------------------------------------------- round trips
_ABOVE, _BELOW = ("fixed", "warped", "grid"), ("jacobian",)  # around the two panels of the round trip


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
    notes = dict(notes or {})
    unknown = set(notes) - set(registrations)
    lacking = [name for name, registration in registrations.items() if registration.inverse is None]
    if not registrations or unknown or lacking:
        raise InputError(
            "there must be registrations, each with its inverse, and notes only for them",
            f"{list(registrations)}, of which {lacking} have no inverse, and notes for {sorted(unknown)}",
            "give both directions of each, by the same names",
        )
    maps: dict[str, tuple[Displacement, Displacement]] = {}
    for name, registration in registrations.items():
        assert registration.inverse is not None
        check_same_grid(pair.fixed, registration.displacement, ("fixed", f"the displacement of {name!r}"))
        check_same_grid(registration.displacement, registration.inverse, ("displacement", f"the inverse of {name!r}"))
        maps[name] = pick(registration.displacement, item), pick(registration.inverse, item)
    residuals = {name: pixels.field_volume(compose(*both), "round trip") for name, both in maps.items()}
    full = max(map(pixels.displacement_limit, residuals.values())) if limit is None else limit
    shown = Pair(pick(pair.moving, item), pick(pair.fixed, item), spacing=pair.spacing)
    cases = {name: Quantities(shown, displacement) for name, (displacement, _) in maps.items()}

    @functools.cache
    def made(name: str) -> list[Panel]:
        """Fixed, warped, the map on moving; the round trip as a grid and as an error; |J|."""
        every = max(1, max(cases[name].fixed.shape) // 16)
        trip: list[Panel] = [
            GridLines("grid of the round trip", residuals[name], None, every),
            error_panel("|E| of the round trip", residuals[name], full),
        ]
        return [*make_panels(cases[name], _ABOVE), *trip, *make_panels(cases[name], _BELOW)]

    @functools.cache
    def numbers(name: str) -> str:
        return f"{name}: {_in_words(cases[name], *maps[name])} {notes.get(name, '')}".strip()

    scene = linked(
        lambda state: made(state["network"]),
        {"network": Choice("network", list(maps))},
        lambda state: numbers(state["network"]),
        spacing=pair.spacing,
    )
    controls = {**scene.controls, "crosshair": Toggle("cross hairs", False)}

    def hidden(state: State) -> set[str]:
        """Without cross hairs, what moves them."""
        return set() if state["crosshair"] else set(controls) - {"network", "crosshair"}

    return View(replace(scene, controls=controls, hidden=hidden))


def _in_words(case: Quantities, displacement: Displacement, inverse: Displacement) -> str:
    """What is left of image and round trip, what both penalties are, and the folds."""
    misfit = float(((case.warped - case.fixed) ** 2).mean())
    error = compose(displacement, inverse).norm(dim=1)
    icon = float(losses.icon(displacement, inverse))
    gradicon = float(losses.gradicon(displacement, inverse, orders="both"))
    return (
        f"mean (warped - fixed)² {misfit:.4f}; {int((case.determinant <= 0).sum())} folded voxels; E(x) = "
        f"φ_AB(φ_BA(x)) - x is {error.mean():.2f} voxels long on average, {error.max():.2f} at most; ICON "
        f"{icon:.2e}, GradICON {gradicon:.2e} (without weights)."
    )


# ---------------------------------------------------------------------------------------------- the ripple
EXTENT = 96  # voxels from the first to the last along either axis
WAVES = 20  # at most
GRADICON_WEIGHT = 0.2
ICON_WEIGHTS = ("1", "8", "64", "1024", "8192")
ICON: Colour = (0, 114, 178)
GRADICON: Colour = (0, 158, 115)
_SIDE = 291  # pixels, of the grid
_PRICES = (1e-4, 1e3)


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


def ripple_dial() -> View:
    """Turn up a ripple until it folds, at any frequency, and read what ICON and GradICON charge for it."""
    graph, chart, penalties = _graph(), _prices(), functools.lru_cache(16)(Ripple.penalties)
    controls: dict[str, Control] = {
        "amplitude": Slider("ripple a (voxels)", 1.5, 0.0, 16.0, 0.1),
        "waves": Slider("waves k", 3, 1, WAVES),
        "fold": Button("just fold"),
        "shift": Slider("shift (voxels)", 0.0, -12.0, 12.0, 0.5),
        "scale": Slider("scale", 1.0, 0.8, 1.2, 0.02),
        "weight": Stops("weight of ICON", ICON_WEIGHTS, "1024"),
    }

    def ripple_of(state: State) -> Ripple:
        return Ripple(state["amplitude"], state["waves"], state["shift"], state["scale"])

    def render(state: State) -> Picture:
        """The grid of the map, its graph along axis 0, and both prices beside those of a ripple that just folds."""
        ripple = ripple_of(state)
        grid = titled("grid of the round trip", _grid(ripple))
        prices = chart(ripple.waves, penalties(ripple), float(state["weight"]))
        return stack(grid, graph(ripple), prices, axis=1, gap=12)

    def describe(state: State) -> str:
        """The map, whether it folds, and both prices beside that of a fold."""
        ripple, weight = ripple_of(state), float(state["weight"])
        icon, gradicon = penalties(ripple)
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

    def press(button: str, state: State) -> dict[str, Any]:
        """The smallest amplitude that folds at this frequency."""
        least = state["scale"] * EXTENT / (2 * math.pi * state["waves"])
        return {"amplitude": math.ceil(10 * least - 1e-9) / 10}

    return View(Scene(controls, render, describe, press=press))


def _grid(ripple: Ripple) -> Picture:
    """Rows and columns of voxels where the map carries them; folded rows in their colour."""
    sheet, scale = pixels.blank((_SIDE, _SIDE), 1), (_SIDE - 1) / EXTENT
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


def _graph() -> Callable[[Ripple], Picture]:
    """φ(x) over x: rising where the map keeps the order of places; the identity in grey, falling parts as folds."""
    limits: dict[str, Any] = {"xlim": (0, EXTENT), "ylim": (0, EXTENT)}
    chart = Chart(width=310, height=_SIDE, xlabel="place x (voxels)", ylabel="φ(x) (voxels)", **limits)
    chart.axes.plot([0, EXTENT], [0, EXTENT], color="#cdcdcd", lw=1.5)
    curve, falling = chart.line(INK, width=2.2), chart.line(FOLD, width=4)
    places = np.linspace(0, EXTENT, 2 * _SIDE)

    def draw(ripple: Ripple) -> Picture:
        carried, slope = ripple.profile(places)
        curve.set_data(places, carried)
        falling.set_data(places, np.where(slope <= 0, carried, np.nan))
        return titled("where places on axis 0 come out", chart.frame())

    return draw


def _prices() -> Callable[[int, tuple[float, float], float], Picture]:
    """Both prices over the waves, logarithmic: curves for a ripple that just folds, a dot for the map that is shown."""
    waves = np.arange(1, WAVES + 1)
    fair = [price_of_a_fold(int(each), 1)[1] for each in waves]
    colours = {"ICON": ICON, "GradICON": GRADICON}
    axes: dict[str, Any] = {"yscale": "log", "ylim": _PRICES, "xticks": (1, 5, 10, 15, 20), "xlabel": "waves k"}
    curves = dict.fromkeys(colours, fair)
    chart = Chart(waves, curves, width=330, height=_SIDE, colours=colours, legend="above", ylabel="price", **axes)
    curve = chart.moves(chart.lines["ICON"])
    dots = [chart.dot(colour, size=10) for colour in colours.values()]

    def draw(count: int, penalties: tuple[float, float], weight: float) -> Picture:
        curve.set_ydata([price_of_a_fold(int(each), weight)[0] for each in waves])
        for dot, price in zip(dots, np.array(penalties) * (weight, GRADICON_WEIGHT), strict=True):
            dot.set_data([count], [np.clip(price, *_PRICES)])
        return titled("price = weight x penalty; curve: just folds", chart.frame())

    return draw


# ---------------------------------------------------------------------------------------------- scales of the NCC
SCALES = ("full", "blurred", "1/2", "1/4", "1/8")
REACH, STEP = 40.0, 0.5  # voxels
_PAINTS = {name: tuple(LABELS[i].tolist()) for name, i in zip(SCALES, (0, 1, 2, 4, 6), strict=True)}
_WIDTH = 470  # pixels, of both charts


def shifted_terms(image: Image, weighting: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """1 - NCC and weight (shifts, scales) of an image against itself, shifted to the right by 0 to `REACH` voxels."""
    shifts = np.arange(0, REACH + STEP / 2, STEP).tolist()
    moved = _shifted(image, shifts)
    parts = adaptive_ncc_terms(moved, image.expand_as(moved), weighting=weighting)
    return parts.terms.numpy(), parts.weights.numpy()


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
    controls: dict[str, Control] = {
        "shift": Slider("shift (voxels)", 12.0, 0.0, REACH, STEP),
        "image": Choice("image", list(images)),
        "weighting": Choice("weights", get_args(Weighting)),
    }

    @functools.cache
    def parts(name: str, weighting: str) -> tuple[NDArray[Any], NDArray[Any]]:
        return shifted_terms(images[name], weighting)

    @functools.cache
    def charts(name: str, weighting: str) -> tuple[Chart, Chart]:
        terms, weights = parts(name, weighting)
        return _terms(terms), _areas(weights)

    def render(state: State) -> Picture:
        """The two images in one; beside it the curves and, below them, the weights as areas."""
        image = images[state["image"]]
        moved, target = pixels.plane(_shifted(image, [state["shift"]])), pixels.plane(image)
        limits, scale = pixels.intensity_limits(moved, target), pixels.integer_scale(target.shape, 310)
        overlay = render_overlay(moved, target, limits=limits, scale=scale)
        both = (chart.at(state["shift"]) for chart in charts(state["image"], state["weighting"]))
        return stack(overlay, stack(*both), axis=1, gap=12)

    def describe(state: State) -> str:
        """The terms and weights at this shift, and what they add up to."""
        terms, weights = (part[round(state["shift"] / STEP)] for part in parts(state["image"], state["weighting"]))
        told = (f"{name} {term:.2f} x {weight:.2f}" for name, term, weight in zip(SCALES, terms, weights, strict=True))
        return (
            f"Moving in orange, fixed in blue, grey where they agree; {state['shift']:g} voxels apart. 1 - NCC x "
            f"weight at each scale: {', '.join(told)}. Adaptive NCC: {(terms * weights).sum():.3f}."
        )

    return View(Scene(controls, render, describe))


def _shifted(image: Image, shifts: list[float]) -> Image:
    """An image moved to the right by each of some shifts, voxels: (shifts, 1, H, W)."""
    displacement = torch.cat([rigid_displacement(spatial(image), right=-shift) for shift in shifts])
    return warp(image, displacement, padding="zeros")


def _terms(terms: NDArray[Any]) -> Chart:
    """1 - NCC over the shift, one line for each scale."""
    curves = {name: terms[:, scale] for scale, name in enumerate(SCALES)}
    shifts = np.linspace(0, REACH, len(terms))
    limits: dict[str, Any] = {"xlim": (0, REACH), "ylim": (0, 1.5), "ylabel": "1 - NCC", "xlabel": "shift (voxels)"}
    chart = Chart(shifts, curves, width=_WIDTH, height=200, colours=_PAINTS, legend="above", **limits)
    chart.axes.axhline(1, color="#bebebe", lw=1)
    return chart


def _areas(weights: NDArray[Any]) -> Chart:
    """The weights over the shift, one upon the other: together 1."""
    limits: dict[str, Any] = {"xlim": (0, REACH), "ylim": (0, 1), "ylabel": "weights", "xlabel": "shift (voxels)"}
    chart = Chart(width=_WIDTH, height=140, **limits)
    chart.axes.grid(False)
    shifts = np.linspace(0, REACH, len(weights))
    chart.axes.stackplot(shifts, weights.T, colors=[paint(colour) for colour in _PAINTS.values()], lw=0)
    return chart
