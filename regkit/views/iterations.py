"""Inverting a map by iteration: each iterate, what it leaves, and how fast that falls."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from regkit.algebra import fixed_point
from regkit.fields import warp
from regkit.types import Displacement
from regkit.views.controls import Choice, Control, Scene, Slider, State, Stops
from regkit.views.drawing import (
    ERRORS,
    LABELS,
    LINE,
    NIGHT,
    PAPER,
    POINT,
    Colour,
    FieldPlane,
    Picture,
    blank,
    colour,
    enlarge,
    field_plane,
    integer_scale,
    lengths,
    stack,
)
from regkit.views.pictures import draw_lines, render_bar, render_grid, write
from regkit.views.quantities import pick
from regkit.widgets import View

_PIXELS, _LINES, _CHART = 224, 16, 200  # a panel's longer side, lines of a grid along it; height of the chart
_POWERS = (-5, 1)  # errors are shown from 1e-5 to 10 voxels
_ASKED = 1e-2  # voxels: what SITReg is content with
_RULE: Colour = (74, 74, 82)
_LEFT, _RIGHT = 62.0, 14.0  # margins of the chart, pixels
SOLVERS = {"plain": 1, "Anderson": 4}  # how many iterates the next one is made from


@dataclass(frozen=True)
class Iteration:
    """z_n, and what it leaves: E = φ_u ∘ φ_z - identity = z + u(x + z), voxels; worst: its largest component."""

    inverse: FieldPlane
    error: FieldPlane
    worst: float


@dataclass(frozen=True, eq=False)
class Inversion(Scene):
    """A map, an iterate of its inverse, both in a row, the error on a logarithmic scale; below, all iterations' errors.

    maps: u by name. runs: the iterations by name of the map and of the solver.
    """

    words: str
    maps: Mapping[str, FieldPlane]
    runs: Mapping[tuple[str, str], Sequence[Iteration]]
    start: str

    def controls(self) -> dict[str, Control]:
        """Which map, which solver, which of its iterations."""
        return {
            "map": Stops(self.words, list(self.maps), self.start),
            "solver": Choice("solver", list(SOLVERS)),
            "iteration": Slider("iteration n", 0, 0, self._most),
        }

    def render(self, state: State) -> Picture:
        """Four panels, their key, and the chart."""
        own, now = self.maps[state["map"]], self._now(state)
        size = np.log10(np.maximum(lengths(now.error), 10.0 ** _POWERS[0]))
        errors = enlarge(colour(size, ERRORS, _POWERS), self._scale)
        panels = stack(
            self._panel("x + u(x)", self._grid(own)),
            self._panel("x + z(x)", self._grid(now.inverse)),
            self._panel("one after the other", self._grid(now.error)),
            self._panel("what is left: |E|", errors),
            axis=1,
        )
        key = render_bar(ERRORS, _POWERS, width=panels.shape[1], unit=": |E| as a power of ten, voxels")
        return stack(panels, key, self._chart(state, panels.shape[1]))

    def describe(self, state: State) -> str:
        """Which iteration it is, the error, and when it fell below what SITReg asks for."""
        run, now = self.runs[state["map"], state["solver"]], self._now(state)
        count = min(state["iteration"], len(run) - 1)
        ended = " (its last)" if count == len(run) - 1 else ""
        reached = next((n for n, each in enumerate(run) if each.worst < _ASKED), None)
        when = "are never reached" if reached is None else f"are reached at n = {reached}"
        return (
            f"{self.words} = {state['map']}, {state['solver']}, iteration {count}{ended}: z + u(x + z) is at most "
            f"{now.worst:.2g} voxels. The {_ASKED:g} voxels that SITReg asks for {when}."
        )

    @functools.cached_property
    def _most(self) -> int:
        """Iterations of the longest run."""
        return max(len(run) for run in self.runs.values()) - 1

    @functools.cached_property
    def _scale(self) -> int:
        return integer_scale(next(iter(self.maps.values())).shape, _PIXELS)

    def _now(self, state: State) -> Iteration:
        run = self.runs[state["map"], state["solver"]]
        return run[min(state["iteration"], len(run) - 1)]

    def _grid(self, field: FieldPlane) -> Picture:
        return render_grid(blank(field.shape, self._scale), field, every=max(1, max(field.shape) // _LINES))

    def _panel(self, title: str, picture: Picture) -> Picture:
        head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
        return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), picture])

    # ------------------------------------------------------------------------------------------ the chart

    def _chart(self, state: State, width: int) -> Picture:
        """Both solvers' errors over the iterations, the present one marked."""
        picture = self._ruled(width)
        texts = []
        for position, name in enumerate(SOLVERS):
            run = self.runs[state["map"], name]
            points = [(self._down(each.worst), self._across(n, width)) for n, each in enumerate(run)]
            chosen = name == state["solver"]
            picture = draw_lines(picture, [np.array(points)], 3.5 if chosen else 1.5, _paint(position))
            texts.append((8.0 + 17 * position, name, _paint(position)))
        for row, name, paint in texts:
            picture = write(picture, [(row, width - _RIGHT, "ra", name)], paint)
        present = min(state["iteration"], len(self.runs[state["map"], state["solver"]]) - 1)
        column = self._across(present, width)
        return draw_lines(picture, [np.array([(0.0, column), (_CHART - 22.0, column)])], 2, POINT)

    def _ruled(self, width: int) -> Picture:
        """Lines at the powers of ten, and the axis of the iterations."""
        picture = blank((_CHART, width), 1)
        powers = range(_POWERS[0], _POWERS[1] + 1)
        rules = [np.array([(self._down(10.0**p), _LEFT), (self._down(10.0**p), width - _RIGHT)]) for p in powers]
        picture = draw_lines(picture, rules, 1, _RULE)
        asked = self._down(_ASKED)
        picture = draw_lines(picture, [np.array([(asked, _LEFT), (asked, width - _RIGHT)])], 1, LINE)
        marks = [(self._down(10.0**p), _LEFT - 6, "rm", f"{10.0**p:g}") for p in powers]
        picture = write(picture, marks, PAPER)
        ticks = [(_CHART - 18.0, self._across(n, width), "ma", str(n)) for n in range(0, self._most, 5)]
        head = [(self._down(_ASKED) - 16, width - _RIGHT, "ra", "SITReg stops below this line")]
        title = (4.0, _LEFT + 4, "la", "largest component of E, voxels")
        axis = (_CHART - 18.0, width - _RIGHT, "ra", "iteration n")
        return write(write(picture, [*ticks, title, axis], PAPER), head, LINE)

    def _down(self, error: float) -> float:
        low, high = _POWERS
        share = (np.log10(np.clip(error, 10.0**low, 10.0**high)) - low) / (high - low)
        return float(_CHART - 26 - share * (_CHART - 36))

    def _across(self, iteration: int, width: int) -> float:
        return _LEFT + iteration / max(1, self._most) * (width - _LEFT - _RIGHT)


def _paint(position: int) -> Colour:
    red, green, blue = LABELS[position].tolist()
    return red, green, blue


def invert_step_by_step(
    displacement: Displacement, *, solver: str = "plain", tolerance: float = 1e-4, most: int = 25
) -> list[Iteration]:
    """z_0 = -u, z_1, ... of z <- -u(x + z), as `regkit.invert` goes through them, until |E| < tolerance.

    displacement: (1, 2, H, W), voxels. solver: of `SOLVERS`. most: iterations.
    """
    taken: list[Iteration] = []

    def pull(inverse: Displacement) -> Displacement:
        value = -warp(displacement, inverse)
        error = field_plane(inverse - value)
        taken.append(Iteration(field_plane(inverse), error, float(np.abs(error).max())))
        return value

    with torch.no_grad():
        fixed_point(pull, -displacement, tolerance, most + 1, SOLVERS[solver])
    return taken


def inversion_viewer(
    displacements: Mapping[str, Displacement], *, words: str, start: str | None = None, item: int = 0
) -> View:
    """Watch maps being inverted by iteration, plain and with Anderson's acceleration.

    displacements: u by name, (B, 2, H, W), voxels, in the slider's order. words: what the names are values of. start:
    the name to begin at, the first by default. item: which of a batch.

    Raises:
        ValueError, IndexError: no displacement, an unknown start, NaN, volumes.
    """
    names = list(displacements)
    if not names or (start is not None and start not in names):
        raise ValueError(f"start must name one of the displacements, received {start!r} for {names}; give one of them.")
    maps, runs = {}, {}
    for name, displacement in displacements.items():
        own = pick(displacement, item)
        maps[name] = field_plane(own, f"displacements[{name!r}]")
        for solver in SOLVERS:
            runs[name, solver] = invert_step_by_step(own, solver=solver)
    return View(Inversion(words, maps, runs, names[0] if start is None else start))
