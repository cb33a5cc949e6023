"""Shift and turn one image over another, under live curves of five losses, and the joint histogram of both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from regkit.data.anatomy import STRUCTURES, anatomy
from regkit.data.brains import weighted
from regkit.fields import rigid_displacement, warp
from regkit.figures import pixels
from regkit.figures.paint import render_overlay, titled
from regkit.figures.pixels import INK, LINE, POINT, Colour, Limits, Picture, Plane
from regkit.losses import adaptive_ncc, lncc, mse, mutual_information, ncc
from regkit.types import Image, InputError, check_pair, spatial
from regkit.widgets import Choice, Control, Scene, Slider, State, View
from regkit.widgets.chart import Chart, paint

Similarity = Callable[[Image, Image], Tensor]

_BAND: Colour = (214, 240, 224)  # of a capture range

SIMILARITIES: Mapping[str, Similarity] = {
    "MSE": mse,
    "NCC": ncc,
    "LNCC": lncc,
    "adaptive NCC": adaptive_ncc,
    "MI": mutual_information,
}
_BINS = 32


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


def show_curves(curves: Mapping[str, Sequence[float]], places: Sequence[float], title: str) -> None:
    """A figure with a panel for each loss over shifts `places`, its capture range in green."""
    import matplotlib.pyplot as plt

    figure, (axes,) = plt.subplots(1, len(curves), figsize=(12.5, 3.0), squeeze=False, layout="compressed")
    for panel, (name, values) in zip(axes, curves.items(), strict=True):
        low, high = capture_range(places, values)
        panel.axvspan(low, high, color=paint(_BAND))
        panel.plot(places, values, color="black")
        panel.axvline(0, color="gray", linewidth=0.8)
        words = f"{low:g} to {high:g}" if low < high else "no minimum at 0"
        panel.set(title=f"{name}\n{words}", xlabel="shift (voxels)")
    axes[0].set(ylabel="loss")
    figure.suptitle(title)


RANGES: Mapping[str, Limits] = {
    "MSE": (0, 0.7),
    "NCC": (0, 2),
    "LNCC": (-0.7, 0),
    "adaptive NCC": (0, 2),
    "MI": (-2, 0),
}
REACH: Mapping[str, float] = {"shift": 40.0, "angle": 60.0}
STEPS: Mapping[str, float] = {"shift": 1.0, "angle": 2.0}
UNITS: Mapping[str, str] = {"shift": "voxels", "angle": "degrees"}


def _chart(name: str, over: str) -> Callable[[Sequence[float], Sequence[float], float, float], Picture]:
    """One loss over a shift or an angle: its curve, its capture range shaded, the present place and the loss there."""
    lowest, highest = RANGES[name]
    reach, words = REACH[over], f"{over} ({UNITS[over]})"
    chart = Chart(width=262, height=156, xlim=(-reach, reach), ylim=(lowest, highest), xlabel=words)
    band = chart.moves(chart.axes.axvspan(0, 0, color=paint(_BAND), lw=0))
    chart.moves(chart.axes.axvline(0, color="#cdcdcd", lw=1))
    curve, cursor, dot = chart.line(INK), chart.line(LINE, width=1.6), chart.dot(POINT, edge=INK)

    def draw(places: Sequence[float], values: Sequence[float], place: float, value: float) -> Picture:
        low, high = capture_range(places, values)
        band.set_bounds(low, 0, high - low, 1)  # over the whole height of the axes
        curve.set_data(places, np.clip(values, lowest, highest))
        cursor.set_data([place, place], [lowest, highest])
        dot.set_data([place], [min(max(value, lowest), highest)])
        return titled(f"{name} = {value:.3f}", chart.frame())

    return draw


def t1_and_t2(size: Sequence[int] = (96, 96)) -> tuple[Image, Image]:
    """One synthetic brain twice, aligned: with T1's contrast, and as T2 shows it: fluid bright, white matter dark."""
    brain = anatomy(tuple(size))
    bright = {"outside": 0.0, "white matter": 0.3, "cortex": 0.55, "ventricle": 1.0, "fluid": 0.95}
    weights = [next((value for word, value in bright.items() if word in name), 0.45) for name in STRUCTURES]
    return brain.image, weighted(torch.tensor(weights), brain.maps)


def _histogram(moved: Plane, target: Plane, limits: Limits) -> Picture:
    """How often an intensity of fixed (to the right) meets one of moved (up) at a voxel: brighter is more often."""
    counts = np.histogram2d(moved.ravel(), target.ravel(), _BINS, (limits, limits))[0][::-1]
    picture = pixels.enlarge(np.rint(255 * np.log1p(counts) / np.log1p(counts.max())).astype(np.uint8)[..., None], 5)
    return titled("how often values meet", np.repeat(picture, 3, 2))


def landscape_viewer(moving: Image, fixed: Mapping[str, Image]) -> View:
    """Shift and turn `moving` by hand over one of several fixed images, under live curves of five losses.

    moving: (1, 1, H, W). fixed: images of that shape by name, aligned with moving. Intensities from 0 to about 1.

    Raises:
        ValueError: no fixed image; shapes that differ, NaN.
    """
    if not fixed:
        raise InputError("fixed must name at least one image", "none", "give a dictionary of name and image")
    for image in fixed.values():
        check_pair(moving, image, dim=2)
    scale = pixels.integer_scale(spatial(moving), 390)
    controls: dict[str, Control] = {
        "shift": Slider("shift (voxels)", 18.0, -REACH["shift"], REACH["shift"], 0.5),
        "angle": Slider("angle (degrees)", 0.0, -REACH["angle"], REACH["angle"], 1.0),
        "over": Choice("curves over", list(REACH)),
        "fixed": Choice("fixed image", list(fixed)),
    }
    charts = functools.cache(lambda over: {name: _chart(name, over) for name in SIMILARITIES})

    @functools.cache
    def curves(name: str, over: str, held: float) -> tuple[list[float], dict[str, list[float]]]:
        """The places, and each loss there, over the whole reach of one control, the other one held."""
        places = np.arange(-REACH[over], REACH[over] + 1e-6, STEPS[over]).tolist()
        degrees, right = ([held], places) if over == "shift" else (places, [held])
        return places, sweep(moving, fixed[name], degrees=degrees, right=right)

    @functools.lru_cache(1)
    def here(name: str, angle: float, shift: float) -> dict[str, float]:
        """Each loss at the present place."""
        return {loss: values[0] for loss, values in sweep(moving, fixed[name], degrees=[angle], right=[shift]).items()}

    def numbers(state: State) -> tuple[list[float], dict[str, list[float]], dict[str, float]]:
        held = state["angle" if state["over"] == "shift" else "shift"]
        return *curves(state["fixed"], state["over"], held), here(state["fixed"], state["angle"], state["shift"])

    def render(state: State) -> Picture:
        """The two images in one, the five curves with the present place, and the joint histogram."""
        displacement = rigid_displacement(spatial(moving), degrees=state["angle"], right=state["shift"])
        moved, target = pixels.plane(warp(moving, displacement)), pixels.plane(fixed[state["fixed"]])
        overlay = render_overlay(moved, target, limits=pixels.intensity_limits(moved, target), scale=scale)
        places, values, now = numbers(state)
        place = state[state["over"]]
        panels = [draw(places, values[name], place, now[name]) for name, draw in charts(state["over"]).items()]
        panels.append(_histogram(moved, target, pixels.intensity_limits(moved, target)))
        rows = [pixels.stack(*panels[start : start + 2], axis=1) for start in (0, 2, 4)]
        return pixels.stack(titled("moving on fixed", overlay), pixels.stack(*rows), axis=1)

    def describe(state: State) -> str:
        """What is laid over what, each loss here, and from where downhill leads to the truth."""
        places, values, now = numbers(state)
        told = []
        for name, value in now.items():
            low, high = capture_range(places, values[name])
            told.append(f"{name} {value:.3f} ({f'{low:g} to {high:g}' if low < high else 'no minimum at 0'})")
        return (
            f"Moving in orange, fixed ({state['fixed']}) in blue, grey where they agree. Aligned at shift 0, angle 0. "
            "Last panel: how often a value of fixed (to the right) meets one of moving (up). "
            f"The loss here, and its capture range (green) in {UNITS[state['over']]}: {'; '.join(told)}."
        )

    return View(Scene(controls, render, describe))
