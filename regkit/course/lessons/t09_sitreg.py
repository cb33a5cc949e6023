"""Two images on their way to each other: half-way deformations, level by level, for both orders of the images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from regkit._core.inversion import fixed_point
from regkit.fields import compose, warp
from regkit.figures.paint import draw_lines, render_bar, render_difference, render_grid, render_image, write
from regkit.figures.pixels import (
    DIFFERENCES,
    ERRORS,
    LABELS,
    LINE,
    NIGHT,
    PAPER,
    POINT,
    Colour,
    FieldPlane,
    Picture,
    Plane,
    blank,
    colour,
    darken,
    enlarge,
    field_plane,
    integer_scale,
    intensity_limits,
    lengths,
    plane,
    stack,
)
from regkit.types import Displacement, InputError, Pair
from regkit.widgets.live import View
from regkit.widgets.panels import determinant, pick
from regkit.widgets.scene import Choice, ClassScene, Control, Slider, State, Stops, Toggle

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
class Inversion(ClassScene):
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
        raise InputError("start must name one of the displacements", f"{start!r} for {names}", "give one of them")
    maps, runs = {}, {}
    for name, displacement in displacements.items():
        own = pick(displacement, item)
        maps[name] = field_plane(own, f"displacements[{name!r}]")
        for solver in SOLVERS:
            runs[name, solver] = invert_step_by_step(own, solver=solver)
    return View(Inversion(words, maps, runs, names[0] if start is None else start))


_PIXELS_MEETINGS, _LINES_MEETINGS = 256, 16  # a panel's longer side; lines of a grid along it

_NAMES = ("A", "B")


@dataclass(frozen=True)
class Stand:
    """Where one call of a network stands after a level: both half-way maps, and the whole map in both directions.

    halves: of the first and of the second image. maps: from the first to the second image, and back. Voxels.
    """

    halves: tuple[FieldPlane, FieldPlane]
    maps: tuple[FieldPlane, FieldPlane]


@dataclass(frozen=True, eq=False)
class Meeting(ClassScene):
    """Both images half way, their difference, their grids; and one map computed by network(A, B) and network(B, A).

    images: A and B. calls: of each network by name, the stands after each level (0: the identity) of both orders.
    """

    images: tuple[Plane, Plane]
    calls: Mapping[str, tuple[Sequence[Stand], Sequence[Stand]]]

    def controls(self) -> dict[str, Control]:
        """Which network, how many of its levels, and which image comes first."""
        network = {"network": Choice("network", list(self.calls))} if len(self.calls) > 1 else {}
        return {
            **network,
            "level": Slider("level", self._levels, 0, self._levels),
            "swapped": Toggle("swap A and B", False),
        }

    def render(self, state: State) -> Picture:
        """Six panels: what has met, and how; the middle column compares."""
        (own, other), (first, second) = self._stands(state), self._order(state)
        a, b = self._halfway(own, state)
        paint = functools.partial(render_image, limits=self._limits, scale=self._scale)
        half = (self._limits[1] - self._limits[0]) / 2
        above = [
            self._panel(f"{first} half way", paint(a)),
            self._panel(f"{first} - {second}, half way", render_difference(a, b, limit=half, scale=self._scale)),
            self._panel(f"{second} half way", paint(b)),
        ]
        both = self._two_grids(own.maps[0], other.maps[1])
        below = [
            self._panel(f"its grid, on {first}", self._grid(own.halves[0], first)),
            self._panel(f"f_{first}{second} by ({first}, {second}), by ({second}, {first})", both),
            self._panel(f"its grid, on {second}", self._grid(own.halves[1], second)),
        ]
        rows = stack(stack(*above, axis=1), stack(*below, axis=1))
        return stack(rows, render_bar(DIFFERENCES, (-half, half), width=rows.shape[1], unit="intensity"))

    def describe(self, state: State) -> str:
        """Which call it is, how close the images have come, and how well the laws are kept, in voxels."""
        (own, other), (first, second) = self._stands(state), self._order(state)
        a, b = self._halfway(own, state)
        there, back = (torch.from_numpy(field)[None] for field in own.maps)
        name = state.get("network", "network")
        apart = lengths(own.maps[0] - other.maps[1]).max()
        home = lengths(field_plane(compose(there, back)))
        folds = int((determinant(own.maps[0]) <= 0).sum())
        return (
            f"{name}({first}, {second}) after level {state['level']} of {self._levels}. "
            f"Mean difference half way {np.abs(a - b).mean():.4f}. f_{first}{second} by ({first}, {second}) (blue) and "
            f"by ({second}, {first}) (yellow) differ by at most {apart:.3g} voxels. "
            f"There and back: mean {home.mean():.2g}, at most {home.max():.2g} voxels from home. {folds} folded voxels."
        )

    @functools.cached_property
    def _levels(self) -> int:
        return min(len(stands) for stands, _ in self.calls.values()) - 1

    @functools.cached_property
    def _limits(self) -> tuple[float, float]:
        return intensity_limits(*self.images)

    @functools.cached_property
    def _scale(self) -> int:
        return integer_scale(self.images[0].shape, _PIXELS_MEETINGS)

    def _order(self, state: State) -> tuple[str, str]:
        first, second = _NAMES
        return (second, first) if state["swapped"] else (first, second)

    def _stands(self, state: State) -> tuple[Stand, Stand]:
        """That of the call that is shown, and that of the call with the images exchanged."""
        calls = self.calls[state.get("network", next(iter(self.calls)))]
        own, other = (stands[state["level"]] for stands in (reversed(calls) if state["swapped"] else calls))
        return own, other

    def _halfway(self, stand: Stand, state: State) -> list[Plane]:
        images = reversed(self.images) if state["swapped"] else self.images
        return [
            plane(warp(torch.from_numpy(image)[None, None], torch.from_numpy(half)[None]))
            for image, half in zip(images, stand.halves, strict=True)
        ]

    def _every(self) -> int:
        return max(1, max(self.images[0].shape) // _LINES_MEETINGS)

    def _grid(self, half: FieldPlane, name: str) -> Picture:
        image = render_image(self.images[_NAMES.index(name)], limits=self._limits, scale=self._scale)
        return render_grid(darken(image, 0.6), half, every=self._every())

    def _two_grids(self, own: FieldPlane, other: FieldPlane) -> Picture:
        """The map of this call as wide lines, the same map of the other call as narrow ones on top."""
        wide = render_grid(blank(own.shape, self._scale), own, every=self._every(), width=5)
        return render_grid(wide, other, every=self._every(), width=1.6, paint=POINT)

    def _panel(self, title: str, picture: Picture) -> Picture:
        head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
        return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), picture])


def meet(networks: Mapping[str, Any], pair: Pair, *, item: int = 0) -> View:
    """Watch two images meet in the middle, level by level, and ask each network twice, with the images exchanged.

    networks: SITReg models by name, with equally many levels. pair: 2D; A is its moving, B its fixed image. item: which
    of a batch.

    Raises:
        ValueError, IndexError: no network, volumes, no such item.
    """
    if not networks:
        raise InputError("there must be a network", "none", "give SITReg models by name")
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    images = plane(moving, "moving"), plane(fixed, "fixed")
    calls = {
        name: (_stands(net.stages, moving, fixed), _stands(net.stages, fixed, moving)) for name, net in networks.items()
    }
    return View(Meeting(images, calls))


def _stands(stages: Callable[..., Any], first: Any, second: Any) -> list[Stand]:
    """Before the first level and after each."""
    nothing = np.zeros((2, *first.shape[2:]), np.float32)
    stands = [Stand((nothing, nothing), (nothing, nothing))]
    with torch.no_grad():
        for stage in stages(first, second):
            halves = (_field(half) for half in stage.halfway.chunk(2))
            maps = (_field(stage.displacement(side)) for side in (0, 1))
            stands.append(Stand((*halves,), (*maps,)))  # type: ignore[arg-type]
    return stands


def _field(displacement: Displacement) -> FieldPlane:
    return field_plane(displacement, "displacement")
