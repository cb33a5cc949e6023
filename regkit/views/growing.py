"""Networks on pairs that are misaligned more and more: what each makes of one pair, and the Dice of all."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from regkit import metrics
from regkit.fields import compose, warp, warp_labels
from regkit.types import Displacement, Pair, check_same_grid
from regkit.views.controls import Choice, Control, Scene, State, Stops
from regkit.views.drawing import (
    LABELS,
    LINE,
    NIGHT,
    PAPER,
    POINT,
    Colour,
    Limits,
    Picture,
    Plane,
    blank,
    integer_scale,
    intensity_limits,
    label_plane,
    nice_limit,
    plane,
    stack,
)
from regkit.views.pictures import draw_lines, render_contours, render_image, write
from regkit.widgets import View

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
class Growing(Scene):
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
        raise ValueError(
            f"a comparison needs two networks, a misalignment and labels, received {list(networks)} and "
            f"{list(misalignments)}; give pairs that have labels."
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
