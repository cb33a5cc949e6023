"""Two images that meet half way, level by level, asked in both orders; and maps inverted by iteration."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.lines import Line2D

from regkit._core.inversion import fixed_point
from regkit.fields import compose, jacobian_determinant, warp
from regkit.figures import paint, pixels
from regkit.figures.pixels import FieldPlane, Limits, Picture, field_plane, lengths, plane, stack
from regkit.types import Displacement, Image, InputError, Pair
from regkit.widgets import Choice, Control, Scene, Slider, State, Stops, Toggle, View
from regkit.widgets.chart import Chart
from regkit.widgets.panels import pick

# ---------------------------------------------------------------------------------------------- iterations
_POWERS = (-5, 1)  # errors are shown from 1e-5 to 10 voxels
_TOLERANCE = 1e-2  # voxels: what SITReg is content with
SOLVERS = {"plain": 1, "Anderson": 4}  # how many iterates the next one is made from


@dataclass(frozen=True)
class Iteration:
    """z_n, and what it leaves: E = φ_u ∘ φ_z - identity = z + u(x + z), voxels; worst: its largest component."""

    inverse: FieldPlane
    error: FieldPlane
    worst: float


def invert_step_by_step(
    displacement: Displacement, *, solver: str = "plain", tolerance: float = 1e-4, most: int = 25
) -> list[Iteration]:
    """z_0 = -u, z_1, ... of z <- -u(x + z), as `regkit.invert` goes through them, until |E| < tolerance.

    displacement: (1, 2, H, W), voxels. solver: of `SOLVERS`. most: iterations.
    """
    run: list[Iteration] = []

    def pull(inverse: Displacement) -> Displacement:
        value = -warp(displacement, inverse)
        error = field_plane(inverse - value)
        run.append(Iteration(field_plane(inverse), error, float(np.abs(error).max())))
        return value

    with torch.no_grad():
        fixed_point(pull, -displacement, tolerance, most + 1, SOLVERS[solver])
    return run


def inversion_viewer(
    displacements: Mapping[str, Displacement], *, words: str, start: str | None = None, item: int = 0
) -> View:
    """Watch maps being inverted by iteration, plain and with Anderson's acceleration.

    Panels: a map, an iterate of its inverse, one after the other, the error on a logarithmic scale; below, the errors
    of all iterations. displacements: u by name, (B, 2, H, W), voxels, in the slider's order. words: what the names are
    values of. start: the name to begin at, the first by default. item: which of a batch.

    Raises:
        ValueError, IndexError: no displacement, an unknown start, NaN, volumes.
    """
    names = list(displacements)
    if not names or (start is not None and start not in names):
        raise InputError("start must name one of the displacements", f"{start!r} for {names}", "give one of them")
    fields = {name: pick(displacement, item) for name, displacement in displacements.items()}
    maps = {name: field_plane(field, f"displacements[{name!r}]") for name, field in fields.items()}
    runs = {name: {s: invert_step_by_step(field, solver=s) for s in SOLVERS} for name, field in fields.items()}
    most = max(len(run) for both in runs.values() for run in both.values()) - 1
    shape = maps[names[0]].shape[1:]
    scale = pixels.integer_scale(shape, 224)
    limits = 10.0 ** _POWERS[0], 10.0 ** _POWERS[1]
    chart, curves = _errors_chart(most, limits, width=4 * scale * shape[1] + 3 * 6)

    @functools.cache
    def grid(name: str) -> Picture:
        return _grid(maps[name], scale)

    def iteration(state: State) -> tuple[int, Iteration]:
        run = runs[state["map"]][state["solver"]]
        number = min(state["iteration"], len(run) - 1)
        return number, run[number]

    def render(state: State) -> Picture:
        number, now = iteration(state)
        size = np.log10(np.maximum(lengths(now.error), limits[0]))
        panels = {
            "x + u(x)": grid(state["map"]),
            "x + z(x)": _grid(now.inverse, scale),
            "one after the other": _grid(now.error, scale),
            "what is left: |E|": pixels.enlarge(pixels.colour(size, pixels.ERRORS, _POWERS), scale),
        }
        row = paint.titled_rows(panels)
        key = paint.render_bar(pixels.ERRORS, _POWERS, width=row.shape[1], unit=": |E| as a power of ten, voxels")
        for solver, line in curves.items():
            errors = np.clip([each.worst for each in runs[state["map"]][solver]], *limits)
            line.set(data=(range(len(errors)), errors), linewidth=3.5 if solver == state["solver"] else 1.5)
        return stack(row, key, chart.at(number))

    def describe(state: State) -> str:
        run, (number, now) = runs[state["map"]][state["solver"]], iteration(state)
        last = " (its last)" if number == len(run) - 1 else ""
        reached = next((n for n, each in enumerate(run) if each.worst < _TOLERANCE), None)
        when = "are never reached" if reached is None else f"are reached at n = {reached}"
        return (
            f"{words} = {state['map']}, {state['solver']}, iteration {number}{last}: z + u(x + z) is at most "
            f"{now.worst:.2g} voxels. The {_TOLERANCE:g} voxels that SITReg asks for {when}."
        )

    controls: dict[str, Control] = {
        "map": Stops(words, names, names[0] if start is None else start),
        "solver": Choice("solver", list(SOLVERS)),
        "iteration": Slider("iteration n", 0, 0, most),
    }
    return View(Scene(controls, render, describe))


def _errors_chart(most: int, limits: Limits, width: int) -> tuple[Chart, dict[str, Line2D]]:
    """Axes for the errors over the iterations, and a line for each solver's, without points as yet."""
    chart = Chart(width=width, height=240, xlabel="iteration n", ylabel="largest component of E (voxels)", yscale="log")
    chart.axes.set(xlim=(-0.02 * most, 1.02 * most + 0.1), ylim=limits)
    chart.axes.axhline(_TOLERANCE, color="#666666", linestyle="--", label="SITReg stops below this line")
    curves = {name: chart.line(pixels.LABELS[i], label=name) for i, name in enumerate(SOLVERS)}
    chart.frame()  # the legend shows lines of one width
    return chart, curves


# ---------------------------------------------------------------------------------------------- meeting half way
Level = tuple[tuple[Displacement, Displacement], tuple[Displacement, Displacement]]  # halves, whole maps


def meet(networks: Mapping[str, Any], pair: Pair, *, item: int = 0) -> View:
    """Watch two images meet in the middle, level by level, and ask each network twice, with the images exchanged.

    Six panels: both images half way, their difference, their grids; and one map computed by network(A, B) (wide lines)
    and by network(B, A) (narrow ones on top). networks: SITReg models by name, with equally many levels. pair: 2D; A is
    its moving, B its fixed image. item: which of a batch.

    Raises:
        ValueError, IndexError: no network, volumes, no such item.
    """
    if not networks:
        raise InputError("there must be a network", "none", "give SITReg models by name")
    A, B = pick(pair.moving, item), pick(pair.fixed, item)
    limits = pixels.intensity_limits(plane(A, "moving"), plane(B, "fixed"))
    calls = {name: (half_ways(network, A, B), half_ways(network, B, A)) for name, network in networks.items()}
    count = min(len(levels) for levels, _ in calls.values()) - 1
    shape, half = A.shape[2:], (limits[1] - limits[0]) / 2
    scale, every = pixels.integer_scale(shape, 256), max(1, max(shape) // 16)
    grey = functools.partial(paint.render_image, limits=limits, scale=scale)

    def level(state: State) -> tuple[Level, Level, list[Image], tuple[str, str]]:
        call, exchanged = calls[state.get("network", next(iter(calls)))]
        images, names = [A, B], ("A", "B")
        if state["swapped"]:
            call, exchanged, images, names = exchanged, call, [B, A], ("B", "A")
        return call[state["level"]], exchanged[state["level"]], images, names

    def render(state: State) -> Picture:
        (halves, maps), (_, exchanged), images, (first, second) = level(state)
        a, b = (plane(warp(image, each)) for image, each in zip(images, halves, strict=True))
        grids = [
            paint.render_grid(pixels.darken(grey(image), 0.6), each, every=every)
            for image, each in zip(images, halves, strict=True)
        ]
        both = _two_grids(maps[0], exchanged[1], scale)
        above = {
            f"{first} half way": grey(a),
            f"{first} - {second}, half way": paint.render_difference(a, b, limit=half, scale=scale),
            f"{second} half way": grey(b),
        }
        below = {
            f"its grid, on {first}": grids[0],
            f"f_{first}{second} by ({first}, {second}), by ({second}, {first})": both,
            f"its grid, on {second}": grids[1],
        }
        rows = paint.titled_rows(above, below)
        return stack(rows, paint.render_bar(pixels.DIFFERENCES, (-half, half), width=rows.shape[1], unit="intensity"))

    def describe(state: State) -> str:
        (halves, maps), (_, exchanged), images, (first, second) = level(state)
        a, b = (plane(warp(image, each)) for image, each in zip(images, halves, strict=True))
        apart = lengths(field_plane(maps[0] - exchanged[1])).max()
        home = lengths(field_plane(compose(*maps)))
        folds = int((jacobian_determinant(maps[0]) <= 0).sum())
        return (
            f"{state.get('network', 'network')}({first}, {second}) after level {state['level']} of {count}. "
            f"Mean difference half way {np.abs(a - b).mean():.4f}. f_{first}{second} by ({first}, {second}) (blue) and "
            f"by ({second}, {first}) (yellow) differ by at most {apart:.3g} voxels. "
            f"There and back: mean {home.mean():.2g}, at most {home.max():.2g} voxels from home. {folds} folded voxels."
        )

    controls: dict[str, Control] = {"network": Choice("network", list(calls))} if len(calls) > 1 else {}
    controls |= {"level": Slider("level", count, 0, count), "swapped": Toggle("swap A and B", False)}
    return View(Scene(controls, render, describe))


@torch.no_grad()
def half_ways(network: Any, first: Image, second: Image) -> list[Level]:
    """Before the first level and after each: the half-way maps of both images, and the whole map in both directions.

    (1, 2, H, W), voxels; the first whole map is that from the first to the second image.
    """
    still = torch.zeros(1, 2, *first.shape[2:])
    levels: list[Level] = [((still, still), (still, still))]
    for stage in network.stages(first, second):
        moving, fixed = stage.halfway.chunk(2)
        levels.append(((moving, fixed), (stage.displacement(0), stage.displacement(1))))
    return levels


def _grid(displacement: Any, scale: int, width: float = 1.3) -> Picture:
    """The grid x + u(x) on a dark ground, in about 16 lines along the longer side."""
    shape = displacement.shape[-2:]
    return paint.render_grid(pixels.blank(shape, scale), displacement, every=max(1, max(shape) // 16), width=width)


def _two_grids(displacement: Any, other: Any, scale: int) -> Picture:
    """A map as wide lines, and another as narrow ones on top: equal maps lie one on the other."""
    wide, every = _grid(displacement, scale, width=5), max(1, max(other.shape[-2:]) // 16)
    return paint.render_grid(wide, other, every=every, width=1.6, paint=pixels.POINT)
