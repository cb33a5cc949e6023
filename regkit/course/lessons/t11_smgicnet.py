"""SM-GICNet level by level: what each network reads, what it says, where all of them together have come."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regkit import metrics
from regkit.fields import compose, upsample, warp, warp_labels
from regkit.figures.paint import (
    draw_lines,
    render_bar,
    render_contours,
    render_displacement,
    render_grid,
    render_image,
    render_wheel,
    write,
)
from regkit.figures.pixels import (
    DIFFERENCES,
    ERRORS,
    GREYS,
    INK,
    LABELS,
    LINE,
    NIGHT,
    PAPER,
    POINT,
    Colour,
    FieldPlane,
    Limits,
    Picture,
    Plane,
    blank,
    colour,
    darken,
    enlarge,
    field_plane,
    integer_scale,
    intensity_limits,
    label_plane,
    lengths,
    nice_limit,
    plane,
    stack,
)
from regkit.models import SMGICNet
from regkit.models.layers import crop
from regkit.types import Displacement, InputError, Labels, Pair, check_same_grid, spatial
from regkit.widgets.live import View
from regkit.widgets.panels import pick
from regkit.widgets.scene import Choice, ClassScene, Control, Slider, State, Stops, Toggle

_PIXELS_WAVELETS, _LINES = 256, 16  # a panel's longer side; lines of a grid along it

_NAMES = ("A", "B")

_GATES: Picture = DIFFERENCES[127:]  # from near-white (closed) to orange (open)

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


@dataclass(frozen=True, eq=False)
class LevelStack(ClassScene):
    """Six panels for a level: what is read above (bands, details or gates), what comes of it below.

    images: A and B. calls: the rungs, coarse to fine, of (A, B) and of (B, A).
    """

    images: tuple[Plane, Plane]
    calls: tuple[Sequence[Rung], Sequence[Rung]]

    def controls(self) -> dict[str, Control]:
        """Which level, which gate of the last one, and which image is moved."""
        return {
            "level": Slider("level", 1, 1, self._count),
            "gate": Choice("gate on the skip at", [*reversed(self.calls[0][-1].gates)]),
            "swapped": Toggle("swap A and B", False),
        }

    def hidden(self, state: State) -> set[str]:
        """There are gates at the last level only."""
        return set() if state["level"] == self._count else {"gate"}

    def render(self, state: State) -> Picture:
        """Two rows of panels, and their keys."""
        rung, (first, second) = self._rung(state), self._order(state)
        paint = functools.partial(render_image, limits=self._limits, scale=self._scale(rung))
        above = [
            _panel(f"{first}, warped by what is known", paint(rung.moving)),
            _panel(f"{second}", paint(rung.fixed)),
            self._third(rung, state),
        ]
        residual = render_displacement(rung.residual, limit=self._longest, scale=self._scale(rung))
        weight = enlarge(colour(rung.weight, ERRORS, _WEIGHTS), self._scale(rung))
        weight = self._empty(rung, "1 everywhere") if rung.weight.min() == 1 else weight
        below = [
            _panel("weight of both images", weight),
            _panel("what it adds: velocity r", residual),
            _panel(f"all so far, on {first}", self._grid(rung, state)),
        ]
        rows = stack(stack(*above, axis=1), stack(*below, axis=1))
        return stack(rows, self._keys(rows.shape[1], gates=state["level"] == self._count))

    def describe(self, state: State) -> str:
        """Sizes, what is read, how much is added, how far it has come."""
        rung, (first, second), level = self._rung(state), self._order(state), state["level"]
        down, right = rung.moving.shape
        added, moved = lengths(rung.residual), lengths(rung.total)
        reads = "the images themselves" if level == self._count else "the low bands"
        reads += " and their energies" if rung.detail is not None else ""
        overlap = "" if rung.dice is None else f" Dice {rung.dice:.3f} so far."
        gate = ""
        if level == self._count:
            values = rung.gates[state["gate"]]
            gate = f" Gate on the skip at {state['gate']}: {values.min():.2f} to {values.max():.2f}."
        return (
            f"Level {level} of {self._count}, {first} onto {second}: {down} x {right} voxels, from {reads}. It adds a "
            f"velocity of {added.mean():.1f} voxels of the image on average, {added.max():.1f} at most; all levels so "
            f"far move {moved.mean():.1f} on average, {moved.max():.1f} at most.{overlap} Weight of the images from "
            f"{rung.weight.min():.2f} to {rung.weight.max():.2f}.{gate}"
        )

    @property
    def _count(self) -> int:
        return len(self.calls[0])

    @functools.cached_property
    def _limits(self) -> Limits:
        return intensity_limits(*self.images)

    @functools.cached_property
    def _longest(self) -> float:
        """Of all residual velocities, voxels of the image."""
        return nice_limit(max(float(lengths(rung.residual).max()) for call in self.calls for rung in call))

    @functools.cached_property
    def _detail(self) -> float:
        """The largest of all details."""
        details = [rung.detail for call in self.calls for rung in call]
        return nice_limit(max((float(each.max()) for each in details if each is not None), default=0.0))

    def _scale(self, rung: Rung) -> int:
        """Pixels a voxel of a level, so that all levels are equally large."""
        return integer_scale(self.images[0].shape, _PIXELS_WAVELETS) * 2**rung.halvings

    def _rung(self, state: State) -> Rung:
        return self.calls[state["swapped"]][state["level"] - 1]

    def _order(self, state: State) -> tuple[str, str]:
        first, second = _NAMES
        return (second, first) if state["swapped"] else (first, second)

    def _third(self, rung: Rung, state: State) -> Picture:
        """What was discarded, or the gate, or that there is neither."""
        first, _ = self._order(state)
        if state["level"] == self._count:
            low, high = self._limits
            gate = enlarge(colour(rung.gates[state["gate"]], _GATES, (0, 1)), self._scale(rung) * _SKIPS[state["gate"]])
            inside = rung.moving > low + _OUTLINED * (high - low)
            return _panel(f"gate at {state['gate']}; {first}'s outline", _outlined(gate, inside, self._scale(rung)))
        if rung.detail is not None:
            detail = colour(rung.detail, GREYS, (0, self._detail))
            return _panel(f"{first}'s discarded detail", enlarge(detail, self._scale(rung)))
        return _panel(f"{first}'s discarded detail", self._empty(rung, "not read at this level"))

    def _empty(self, rung: Rung, words: str) -> Picture:
        """A dark panel that says why there is nothing to see."""
        picture = blank(rung.moving.shape, self._scale(rung))
        return write(picture, [(picture.shape[0] / 2, picture.shape[1] / 2, "mm", words)], PAPER)

    def _grid(self, rung: Rung, state: State) -> Picture:
        image = self.images[state["swapped"]]
        picture = darken(
            render_image(image, limits=self._limits, scale=integer_scale(image.shape, _PIXELS_WAVELETS)), 0.6
        )
        return render_grid(picture, rung.total, every=max(1, max(image.shape) // _LINES))

    def _keys(self, width: int, *, gates: bool) -> Picture:
        third = (width - 12) // 3
        wheel = render_wheel(self._longest, width=third, name="r")
        weights = render_bar(ERRORS, _WEIGHTS, width=third, unit="weight")
        last = (
            render_bar(_GATES, (0, 1), width=third, unit="gate")
            if gates
            else render_bar(GREYS, (0, self._detail), width=third, unit="root of energy")
        )
        return stack(weights, wheel, last, axis=1)


def _panel(title: str, picture: Picture) -> Picture:
    head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
    return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), picture])


def _outlined(picture: Picture, inside: NDArray[np.bool_], scale: int) -> Picture:
    """The border of a region as a thin line over a picture of its size or larger, which is cut to it."""
    mask = inside.repeat(scale, 0).repeat(scale, 1)
    edge = np.zeros_like(mask)
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    return np.where(edge[..., None], INK, picture[: len(mask), : mask.shape[1]]).astype(np.uint8)


def level_stack(network: SMGICNet, pair: Pair, *, item: int = 0) -> View:
    """Go through the levels of an SM-GICNet: bands, discarded detail, weight, residual velocity, map; and its gates.

    network: as `regkit.variants.load` gives it. pair: 2D; A is its moving, B its fixed image; with labels, each level's
    Dice is told. item: which of a batch.

    Raises:
        ValueError, IndexError: volumes, no such item.
    """
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    images = plane(moving, "moving"), plane(fixed, "fixed")
    labels = [None if each is None else pick(each, item) for each in (pair.moving_labels, pair.fixed_labels)]
    calls = _climb(network, moving, fixed, *labels), _climb(network, fixed, moving, *reversed(labels))
    return View(LevelStack(images, calls))


@torch.no_grad()
def _climb(
    network: SMGICNet, moving: Tensor, fixed: Tensor, moving_labels: Labels | None, fixed_labels: Labels | None
) -> list[Rung]:
    """The rungs of network(moving, fixed)."""
    found = network(moving, fixed)
    rungs, known = [], None
    for level, band in enumerate(network.pyramid(torch.cat([moving, fixed]))):
        shape, total = spatial(band), found.displacements[level][:1]
        known = total.new_zeros(1, 2, *shape) if known is None else crop(upsample(known), shape)
        low, energy = warp(band[:1], known).tensor_split([network.in_channels], 1)
        halvings = len(found.residuals) - 1 - level
        whole = full_size(total, spatial(moving), halvings)
        rungs.append(
            Rung(
                halvings=halvings,
                moving=plane(low),
                fixed=plane(band[1:2, :1]),
                detail=plane(energy.clamp_min(0).sqrt()) if energy.shape[1] else None,
                weight=plane(found.weights[level][:1]),
                residual=field_plane(found.residuals[level][:1]) * 2**halvings,
                total=field_plane(whole),
                gates={} if halvings else _gates(found.gates),
                dice=_dice(moving_labels, fixed_labels, whole),
            )
        )
        known = total
    return rungs


def full_size(displacement: Displacement, shape: Sequence[int], halvings: int) -> Displacement:
    """A level's displacement on the image's grid, voxels of the image."""
    for _ in range(halvings):
        displacement = upsample(displacement)
    return crop(displacement, shape)


def _gates(gates: Sequence[Tensor]) -> dict[str, Plane]:
    """The first sample's coefficients, by the size of the skip connection, coarse to fine."""
    return {name: plane(gate[:1]) for name, gate in zip(_SKIPS, gates, strict=True)}


def _dice(moving: Labels | None, fixed: Labels | None, displacement: Displacement) -> float | None:
    if moving is None or fixed is None:
        return None
    return fmean(metrics.dice(warp_labels(moving, displacement), fixed).values())


_PIXELS, _CHART = 256, 240  # a panel's longer side; height of the chart

_LEFT, _RIGHT, _FOOT = 62.0, 14.0, 44.0  # margins of the chart, pixels

_RULE: Colour = (74, 74, 82)

_OTHERS: Colour = (120, 120, 130)

_LEVELS = (0.0, 1.0)

BEFORE = "before"

CHARTS = ("Dice", "lost against the reference")


@dataclass(frozen=True)
class Reached:
    """What a network makes of the pairs at one misalignment: one pair's warped image, and the mean Dice of all."""

    warped: Plane
    dice: float


@dataclass(frozen=True, eq=False)
class Growing(ClassScene):
    """Moving, fixed, warped by the reference and by another network, with the fixed outline; Dice over the stops below.

    words: what the stops are values of. moving: by stop. outline: of the fixed labels, as one label. results: of each
    network by name (the first is the reference; `BEFORE`: nothing done) and stop.
    """

    words: str
    moving: Mapping[str, Plane]
    fixed: Plane
    outline: Plane
    results: Mapping[str, Mapping[str, Reached]]

    def controls(self) -> dict[str, Control]:
        """How far misaligned, which network beside the reference, and what the chart shows."""
        return {
            "stop": Stops(self.words, self._stops, self._stops[0]),
            "network": Choice("beside the reference", self._others),
            "chart": Choice("chart", CHARTS),
        }

    def dice(self, network: str) -> list[float]:
        """The mean Dice at each stop."""
        return [reached.dice for reached in self.results[network].values()]

    def render(self, state: State) -> Picture:
        """Four panels, and the chart."""
        stop, chosen = state["stop"], state["network"]
        panels = {
            "A, moving; B's outline": self.moving[stop],
            "B, fixed": self.fixed,
            f"A, by {self._reference}": self.results[self._reference][stop].warped,
            f"A, by {chosen}": self.results[chosen][stop].warped,
        }
        row = stack(*(self._panel(title, image) for title, image in panels.items()), axis=1)
        return stack(row, self._chart(state, row.shape[1]))

    def describe(self, state: State) -> str:
        """Where the slider stands, the Dice there of all that is compared, and what the chosen network lacks."""
        stop, chosen = state["stop"], state["network"]
        now = {name: self.results[name][stop].dice for name in (BEFORE, self._reference, chosen)}
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in now.items())
        lost = now[self._reference] - now[chosen]
        first = self.results[self._reference][self._stops[0]].dice - self.results[chosen][self._stops[0]].dice
        return (
            f"{self.words} = {stop}: mean Dice of the pairs {numbers}. {chosen.capitalize()} loses {lost:+.3f} against "
            f"the {self._reference} here; {first:+.3f} at {self._stops[0]}."
        )

    @property
    def _stops(self) -> list[str]:
        return list(self.moving)

    @property
    def _reference(self) -> str:
        return next(iter(self.results))

    @property
    def _others(self) -> list[str]:
        return [name for name in self.results if name not in (BEFORE, self._reference)]

    @functools.cached_property
    def _limits(self) -> Limits:
        return intensity_limits(*self.moving.values(), self.fixed)

    def _panel(self, title: str, image: Plane) -> Picture:
        picture = render_image(image, limits=self._limits, scale=integer_scale(image.shape, _PIXELS))
        head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
        return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), render_contours(picture, self.outline)])

    # ------------------------------------------------------------------------------------------ the chart

    def _curves(self, state: State) -> dict[str, list[float]]:
        """What the chart shows of each network."""
        dice = {name: self.dice(name) for name in self.results}
        if state["chart"] == CHARTS[0]:
            return dice
        best = dice.pop(self._reference)
        del dice[BEFORE]
        return {name: [a - b for a, b in zip(best, values, strict=True)] for name, values in dice.items()}

    def _range(self, state: State) -> Limits:
        """Dice from 0 to 1; of what is lost, a quarter as far below zero as above, or just as far where needed."""
        if state["chart"] == CHARTS[0]:
            return _LEVELS
        values = [value for curve in self._curves(state).values() for value in curve]
        top = nice_limit(max(0.1, *values))
        return (-top / 4, top) if min(values) > -top / 4 else (-nice_limit(max(top, -min(values))), top)

    def _chart(self, state: State, width: int) -> Picture:
        """All curves; those of the reference, the chosen network and `BEFORE` in colours and with their names."""
        limits, chosen = self._range(state), state["network"]
        picture = self._ruled(width, limits, state["chart"])
        paints = {BEFORE: _OTHERS, self._reference: LINE, chosen: _orange()}
        curves = self._curves(state)
        for name in sorted(curves, key=lambda name: list(paints).index(name) if name in paints else -1):
            points = [
                (_down(value, limits), self._across(position, width)) for position, value in enumerate(curves[name])
            ]
            strong = name in paints and name != BEFORE
            picture = draw_lines(picture, [np.array(points)], 3.5 if strong else 1.3, paints.get(name, _OTHERS))
        named = [name for name in (self._reference, chosen, BEFORE) if name in curves]
        for row, name in enumerate(named):
            text = (8.0 + 17 * row, width - _RIGHT, "ra", name if name != BEFORE else f"{name}, and the others")
            picture = write(picture, [text], paints[name])
        column = self._across(self._stops.index(state["stop"]), width)
        return draw_lines(picture, [np.array([(0.0, column), (_CHART - _FOOT, column)])], 2, POINT)

    def _ruled(self, width: int, limits: Limits, title: str) -> Picture:
        """Lines at even steps, and the stops along the axis."""
        picture = blank((_CHART, width), 1)
        marks = np.linspace(*limits, 6 if limits[0] < 0 else 5)
        rules = [np.array([(_down(mark, limits), _LEFT), (_down(mark, limits), width - _RIGHT)]) for mark in marks]
        picture = draw_lines(picture, rules, 1, _RULE)
        if limits[0] < 0:
            zero = _down(0, limits)
            picture = draw_lines(picture, [np.array([(zero, _LEFT), (zero, width - _RIGHT)])], 1.5, PAPER)
        texts = [(_down(mark, limits), _LEFT - 6, "rm", f"{mark:.3g}") for mark in marks]
        ticks = [
            (_CHART - _FOOT + 4, self._across(position, width), "ma", stop) for position, stop in enumerate(self._stops)
        ]
        head = (4.0, _LEFT + 4, "la", f"mean {title}" if title == CHARTS[0] else f"Dice {title}")
        foot = (_CHART - 18.0, width / 2, "ma", self.words)
        return write(picture, [*texts, *ticks, head, foot], PAPER)

    def _across(self, position: int, width: int) -> float:
        inset = 20.0
        room = width - _LEFT - _RIGHT - 2 * inset
        return _LEFT + inset + position / max(1, len(self._stops) - 1) * room


def _down(value: float, limits: Limits) -> float:
    low, high = limits
    return float(_CHART - _FOOT - (value - low) / (high - low) * (_CHART - _FOOT - 30))


def _orange() -> Colour:
    red, green, blue = LABELS[0].tolist()
    return red, green, blue


def growing_displacement(
    networks: Mapping[str, nn.Module],
    pairs: Pair,
    misalignments: Mapping[str, Displacement],
    *,
    words: str,
    item: int = 0,
) -> View:
    """Misalign pairs further and further, and see which network still brings them together.

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
    results: dict[str, dict[str, Reached]] = {name: {} for name in (*networks, BEFORE)}
    moved = {}
    for stop, away in misalignments.items():
        check_same_grid(pairs.fixed, away, ("fixed", f"misalignments[{stop!r}]"))
        away = away.expand(len(pairs.fixed), -1, -1, -1)
        moving = warp(pairs.moving, away)
        moved[stop] = plane(moving, "moving", item)
        for name in results:
            results[name][stop] = _reach(networks.get(name), pairs, away, moving, item)
    outline = (label_plane(pairs.fixed_labels, "fixed_labels", item) > 0).astype(np.int64)
    return View(Growing(words, moved, plane(pairs.fixed, "fixed", item), outline, results))


@torch.no_grad()
def _reach(network: Any, pairs: Pair, away: Displacement, moving: torch.Tensor, item: int) -> Reached:
    """Labels are resampled once, through both maps together."""
    found = torch.zeros_like(away) if network is None else network(moving, pairs.fixed).displacement
    assert pairs.moving_labels is not None and pairs.fixed_labels is not None
    labels = warp_labels(pairs.moving_labels, compose(away, found))
    overlaps: Sequence[float] = [*metrics.dice(labels, pairs.fixed_labels).values()]
    return Reached(plane(warp(moving[[item]], found[[item]])), fmean(overlaps))
