"""SM-GICNet level by level, from what each network reads to where all have come; and pairs ever further misaligned."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray
from torch import Tensor, nn

from regkit import metrics
from regkit.fields import compose, upsample, warp, warp_labels
from regkit.figures import paint, pixels
from regkit.figures.pixels import FieldPlane, Limits, Picture, Plane, field_plane, lengths, plane, stack
from regkit.models import SMGICNet
from regkit.models.layers import crop
from regkit.types import Displacement, Image, InputError, Labels, Pair, check_same_grid, spatial
from regkit.widgets import Choice, Control, Scene, Slider, State, Stops, Toggle, View
from regkit.widgets.chart import Chart
from regkit.widgets.panels import pick

# ---------------------------------------------------------------------------------------------- the level stack
_GATES: Picture = pixels.DIFFERENCES[127:]  # from near-white (closed) to orange (open)
_OUTLINED = 0.2  # of the range of intensities: where a head begins
_WEIGHTS: Limits = (0.5, 1.0)
_SKIPS = {"1/4 size": 4, "1/2 size": 2, "full size": 1}  # voxels of the image a voxel of each skip connection


@dataclass(frozen=True)
class Rung:
    """One level of one call.

    halvings: how often the image was halved for it. moving: the moving band as the network gets it, warped by what is
    known; fixed. detail: the square root of the moving band's energy, as warped, or None where it is not read. weight:
    of both images. residual: velocity, voxels of the image, on the level's grid. total: the displacement so far, at
    full size. gates: coefficients by the size of their skip connection. dice: of the labels after this level, if there
    are any.
    """

    halvings: int
    moving: Plane
    fixed: Plane
    detail: Plane | None
    weight: Plane
    residual: FieldPlane
    total: FieldPlane
    gates: dict[str, Plane]
    dice: float | None


def level_stack(network: SMGICNet, pair: Pair, *, item: int = 0) -> View:
    """Go through the levels of an SM-GICNet: bands, discarded detail, weight, residual velocity, map; and its gates.

    Six panels: what is read above (bands, details or gates), what comes of it below. network: as `studies.load` gives
    it. pair: 2D; A is its moving, B its fixed image; with labels, each level's Dice is told. item: which of a batch.

    Raises:
        ValueError, IndexError: volumes, no such item.
    """
    A, B = pick(pair.moving, item), pick(pair.fixed, item)
    images = {"A": plane(A, "moving"), "B": plane(B, "fixed")}
    labels = [None if each is None else pick(each, item) for each in (pair.moving_labels, pair.fixed_labels)]
    calls = rungs(network, A, B, *labels), rungs(network, B, A, *reversed(labels))
    count, shape, limits = len(calls[0]), images["A"].shape, pixels.intensity_limits(*images.values())
    longest, strongest = _ranges([*calls[0], *calls[1]])
    whole = pixels.integer_scale(shape, 256)

    def level(state: State) -> tuple[Rung, tuple[str, str], int]:
        rung = calls[state["swapped"]][state["level"] - 1]
        return rung, ("B", "A") if state["swapped"] else ("A", "B"), whole * 2**rung.halvings

    def discarded(state: State) -> tuple[str, Picture]:
        rung, (first, _), scale = level(state)
        if state["level"] == count:
            inside = rung.moving > limits[0] + _OUTLINED * (limits[1] - limits[0])
            gate = gate_picture(rung.gates[state["gate"]], scale * _SKIPS[state["gate"]])
            return f"gate at {state['gate']}; {first}'s outline", _outlined(gate, inside, scale)
        if rung.detail is None:
            return f"{first}'s discarded detail", _empty(rung, scale, "not read at this level")
        detail = pixels.colour(rung.detail, pixels.GREYS, (0, strongest))
        return f"{first}'s discarded detail", pixels.enlarge(detail, scale)

    def render(state: State) -> Picture:
        rung, (first, second), scale = level(state)
        grey = functools.partial(paint.render_image, limits=limits)
        weight = pixels.enlarge(pixels.colour(rung.weight, pixels.ERRORS, _WEIGHTS), scale)
        dark, every = pixels.darken(grey(images[first], scale=whole), 0.6), max(1, max(shape) // 16)
        above = {
            f"{first}, warped by what is known": grey(rung.moving, scale=scale),
            f"{second}": grey(rung.fixed, scale=scale),
            **dict([discarded(state)]),
        }
        below = {
            "weight of both images": _empty(rung, scale, "1 everywhere") if rung.weight.min() == 1 else weight,
            "what it adds: velocity r": paint.render_displacement(rung.residual, limit=longest, scale=scale),
            f"all so far, on {first}": paint.render_grid(dark, rung.total, every=every),
        }
        rows = paint.titled_rows(above, below)
        last = (_GATES, 1, "gate") if state["level"] == count else (pixels.GREYS, strongest, "root of energy")
        return stack(rows, _keys(rows.shape[1], longest, *last))

    def describe(state: State) -> str:
        rung, (first, second), _ = level(state)
        (down, right), added, moved = rung.moving.shape, lengths(rung.residual), lengths(rung.total)
        last = state["level"] == count
        reads = "the images themselves" if last else "the low bands"
        reads += " and their energies" if rung.detail is not None else ""
        return (
            f"Level {state['level']} of {count}, {first} onto {second}: {down} x {right} voxels, from {reads}. It adds "
            f"a velocity of {added.mean():.1f} voxels of the image on average, {added.max():.1f} at most; all levels "
            f"so far move {moved.mean():.1f} on average, {moved.max():.1f} at most."
            f"{'' if rung.dice is None else f' Dice {rung.dice:.3f} so far.'} Weight of the images from "
            f"{rung.weight.min():.2f} to {rung.weight.max():.2f}.{_gate_in_words(rung, state['gate']) if last else ''}"
        )

    def hidden(state: State) -> set[str]:
        return set() if state["level"] == count else {"gate"}

    controls: dict[str, Control] = {
        "level": Slider("level", 1, 1, count),
        "gate": Choice("gate on the skip at", [*reversed(calls[0][-1].gates)]),
        "swapped": Toggle("swap A and B", False),
    }
    return View(Scene(controls, render, describe, hidden))


@torch.no_grad()
def rungs(
    network: SMGICNet, moving: Image, fixed: Image, moving_labels: Labels | None, fixed_labels: Labels | None
) -> list[Rung]:
    """The levels of network(moving, fixed), coarse to fine. Images and labels: (1, 1, H, W)."""
    registration = network(moving, fixed)
    levels, known = [], None
    for level, band in enumerate(network.pyramid(torch.cat([moving, fixed]))):
        shape, total = spatial(band), registration.displacements[level][:1]
        known = total.new_zeros(1, 2, *shape) if known is None else crop(upsample(known), shape)
        low, energy = warp(band[:1], known).tensor_split([network.in_channels], 1)
        halvings = len(registration.residuals) - 1 - level
        whole = full_size(total, spatial(moving), halvings)
        gates = {} if halvings else dict(zip(_SKIPS, (plane(gate[:1]) for gate in registration.gates), strict=True))
        rung = Rung(
            halvings=halvings,
            moving=plane(low),
            fixed=plane(band[1:2, :1]),
            detail=plane(energy.clamp_min(0).sqrt()) if energy.shape[1] else None,
            weight=plane(registration.weights[level][:1]),
            residual=field_plane(registration.residuals[level][:1]) * 2**halvings,
            total=field_plane(whole),
            gates=gates,
            dice=_dice(moving_labels, fixed_labels, whole),
        )
        levels.append(rung)
        known = total
    return levels


def full_size(displacement: Displacement, shape: Sequence[int], halvings: int) -> Displacement:
    """A level's displacement on the image's grid, voxels of the image."""
    for _ in range(halvings):
        displacement = upsample(displacement)
    return crop(displacement, shape)


def _dice(moving: Labels | None, fixed: Labels | None, displacement: Displacement) -> float | None:
    if moving is None or fixed is None:
        return None
    return fmean(metrics.dice(warp_labels(moving, displacement), fixed).values())


def _ranges(levels: Sequence[Rung]) -> tuple[float, float]:
    """The longest of all residual velocities, voxels of the image, and the largest of all details, as round numbers."""
    longest = max(float(lengths(rung.residual).max()) for rung in levels)
    strongest = max((float(rung.detail.max()) for rung in levels if rung.detail is not None), default=0.0)
    return pixels.nice_limit(longest), pixels.nice_limit(strongest)


def gate_picture(gate: Plane, scale: int) -> Picture:
    """A gate from near-white (0, closed) to orange (1, open)."""
    return pixels.enlarge(pixels.colour(gate, _GATES, (0, 1)), scale)


def _gate_in_words(rung: Rung, name: str) -> str:
    gate = rung.gates[name]
    return f" Gate on the skip at {name}: {gate.min():.2f} to {gate.max():.2f}."


def _empty(rung: Rung, scale: int, words: str) -> Picture:
    """A dark panel that says why there is nothing to see."""
    picture = pixels.blank(rung.moving.shape, scale)
    return paint.write(picture, [(picture.shape[0] / 2, picture.shape[1] / 2, "mm", words)], pixels.PAPER)


def _keys(width: int, longest: float, table: Picture, most: float, unit: str) -> Picture:
    """The colours of weights, of velocities, and of the third panel: a table from 0 to `most`."""
    third = (width - 12) // 3
    wheel = paint.render_wheel(longest, width=third, name="r")
    weights = paint.render_bar(pixels.ERRORS, _WEIGHTS, width=third, unit="weight")
    return stack(weights, wheel, paint.render_bar(table, (0, most), width=third, unit=unit), axis=1)


def _outlined(picture: Picture, inside: NDArray[np.bool_], scale: int) -> Picture:
    """The border of a region as a thin line over a picture of its size or larger, which is cut to it."""
    edge = pixels.rim(inside, scale)
    return np.where(edge[..., None], pixels.INK, picture[: len(edge), : edge.shape[1]]).astype(np.uint8)


# ---------------------------------------------------------------------------------------------- growing displacements
BEFORE = "before"
CHARTS = ("Dice", "lost against the reference")
_REFERENCE, _CHOSEN, _OTHERS = "#0072b2", "#d55e00", "#78787f"  # colours of curves


@dataclass(frozen=True)
class Reached:
    """What a network makes of the pairs at one misalignment: one pair's warped image, and the mean Dice of all."""

    warped: Plane
    dice: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Growing(Scene):
    """What the scene of `growing_displacement` shows, for a look at its numbers.

    words: what the stops are values of. moving: by stop. results: of each network by name (the first is the reference;
    `BEFORE`: nothing done) and stop.
    """

    words: str
    moving: Mapping[str, Plane]
    results: Mapping[str, Mapping[str, Reached]]

    def dice(self, network: str) -> list[float]:
        """The mean Dice at each stop."""
        return [reached.dice for reached in self.results[network].values()]


def growing_displacement(
    networks: Mapping[str, nn.Module],
    pairs: Pair,
    misalignments: Mapping[str, Displacement],
    *,
    words: str,
    item: int = 0,
) -> View:
    """Misalign pairs further and further, and see which network still brings them together.

    Moving, fixed, warped by the reference and by another network, with the fixed outline; Dice over the stops below.
    networks: by name, the reference first, in evaluation mode. pairs: a batch with labels, 2D. misalignments: by the
    slider's values, (1, 2, H, W), voxels; each moves the moving images of all pairs. words: what those values are.
    item: the pair that is shown.

    Raises:
        ValueError, IndexError: fewer than two networks, no misalignment, no labels, other grids, volumes.
    """
    if len(networks) < 2 or not misalignments or pairs.moving_labels is None or pairs.fixed_labels is None:
        raise InputError(
            "a comparison needs two networks, a misalignment and labels",
            f"{list(networks)} and {list(misalignments)}",
            "give pairs that have labels",
        )
    moving, results = _results(networks, pairs, misalignments, item)
    fixed, stops, (reference, *others) = plane(pairs.fixed, "fixed", item), list(moving), networks
    outline = pixels.label_plane(pairs.fixed_labels, "fixed_labels", item) > 0
    limits, scale = pixels.intensity_limits(*moving.values(), fixed), pixels.integer_scale(fixed.shape, 256)
    dice = {name: [reached.dice for reached in results[name].values()] for name in results}
    curves = {CHARTS[0]: dice, CHARTS[1]: lost(dice, reference)}
    charts = {
        kind: _chart(kind, curves[kind], reference, stops, words, 4 * scale * fixed.shape[1] + 3 * 6) for kind in CHARTS
    }

    def outlined(image: Plane) -> Picture:
        return paint.render_contours(paint.render_image(image, limits=limits, scale=scale), outline.astype(int))

    def render(state: State) -> Picture:
        stop, chosen, kind = state["stop"], state["network"], state["chart"]
        panels = {
            "A, moving; B's outline": moving[stop],
            "B, fixed": fixed,
            f"A, by {reference}": results[reference][stop].warped,
            f"A, by {chosen}": results[chosen][stop].warped,
        }
        row = paint.titled_rows({title: outlined(image) for title, image in panels.items()})
        chart, line, name = charts[kind]
        line.set_data(range(len(stops)), curves[kind][chosen])
        name.set_text(chosen)
        return stack(row, chart.at(stops.index(stop)))

    def describe(state: State) -> str:
        stop, chosen, at = state["stop"], state["network"], stops.index(state["stop"])
        numbers = ", ".join(f"{name} {dice[name][at]:.3f}" for name in (BEFORE, reference, chosen))
        missing = curves[CHARTS[1]][chosen]
        return (
            f"{words} = {stop}: mean Dice of the pairs {numbers}. {chosen.capitalize()} loses {missing[at]:+.3f} "
            f"against the {reference} here; {missing[0]:+.3f} at {stops[0]}."
        )

    controls: dict[str, Control] = {
        "stop": Stops(words, stops, stops[0]),
        "network": Choice("beside the reference", others),
        "chart": Choice("chart", CHARTS),
    }
    return View(Growing(controls, render, describe, words=words, moving=moving, results=results))


def _results(
    networks: Mapping[str, nn.Module], pairs: Pair, misalignments: Mapping[str, Displacement], item: int
) -> tuple[dict[str, Plane], dict[str, dict[str, Reached]]]:
    """One pair's moving image at each stop, and what each network, and `BEFORE`, reach there."""
    moving, results = {}, {name: dict[str, Reached]() for name in (*networks, BEFORE)}
    for stop, away in misalignments.items():
        check_same_grid(pairs.fixed, away, ("fixed", f"misalignments[{stop!r}]"))
        away = away.expand(len(pairs.fixed), -1, -1, -1)
        images = warp(pairs.moving, away)
        moving[stop] = plane(images, "moving", item)
        for name in results:
            results[name][stop] = _reach(networks.get(name), pairs, away, images, item)
    return moving, results


@torch.no_grad()
def _reach(network: Any, pairs: Pair, away: Displacement, moving: Tensor, item: int) -> Reached:
    """Labels are resampled once, through both maps together."""
    displacement = torch.zeros_like(away) if network is None else network(moving, pairs.fixed).displacement
    assert pairs.moving_labels is not None and pairs.fixed_labels is not None
    labels = warp_labels(pairs.moving_labels, compose(away, displacement))
    overlaps = metrics.dice(labels, pairs.fixed_labels).values()
    return Reached(plane(warp(moving[[item]], displacement[[item]])), fmean(overlaps))


def lost(dice: Mapping[str, Sequence[float]], reference: str) -> dict[str, list[float]]:
    """How much less Dice than the reference each other network has at each stop; not `BEFORE`."""
    others = [name for name in dice if name not in (reference, BEFORE)]
    return {name: [a - b for a, b in zip(dice[reference], dice[name], strict=True)] for name in others}


def _chart(
    kind: str, curves: Mapping[str, Sequence[float]], reference: str, stops: Sequence[str], words: str, width: int
) -> tuple[Chart, Line2D, Text]:
    """All curves over the stops, their names above; and what moves: the chosen network's curve and name."""
    chart = Chart(range(len(stops)), curves, width=width, height=240, xlabel=words, legend=None)
    chart.axes.set_xticks(range(len(stops)), stops)
    for line in chart.lines.values():
        line.set(color=_OTHERS, linewidth=1.3)
    if kind == CHARTS[0]:
        chart.axes.set(ylabel=f"mean {kind}", ylim=(0, 1))
        chart.axes.set_title(reference, loc="left", color=_REFERENCE, fontsize=9)
        chart.axes.set_title(f"{BEFORE}, and the others (thin)", color=_OTHERS, fontsize=9)
        chart.lines[reference].set(color=_REFERENCE, linewidth=3.5)
    else:
        low, high = chart.axes.get_ylim()
        chart.axes.set(ylabel=f"Dice {kind}", ylim=(min(low, -0.025), max(high, 0.1)))
        chart.axes.set_title("the others (thin)", color=_OTHERS, fontsize=9)
        chart.axes.axhline(0, color="#333333", linewidth=1)
    name = chart.moves(chart.axes.set_title("", loc="right", color=_CHOSEN, fontsize=9))
    return chart, chart.line(_CHOSEN, width=3.5), name
