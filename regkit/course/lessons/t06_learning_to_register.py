"""Who is first, and who gets furthest: registrations of one pair against the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from regkit.fields import warp
from regkit.figures.paint import draw_lines, render_image, write
from regkit.figures.pixels import (
    LABELS,
    NIGHT,
    PAPER,
    POINT,
    Colour,
    Picture,
    Plane,
    blank,
    integer_scale,
    intensity_limits,
    plane,
    stack,
)
from regkit.types import Displacement, InputError, Pair
from regkit.widgets.live import View
from regkit.widgets.scene import ClassScene, Control, State, Stops

_PIXELS, _CHART, _TICKS = 256, 150, 60  # a panel's longer side and the chart's height, pixels; stops of the clock


@dataclass(frozen=True)
class Run:
    """One runner: after how many seconds what was warped, and how far it was from fixed (mean squared difference)."""

    seconds: Sequence[float]
    warped: Sequence[Plane]
    misfit: Sequence[float]

    def at(self, time: float) -> int:
        """Which state stands at a time; the one before the start is 0."""
        return int(np.searchsorted(self.seconds, time, side="right")) - 1


@dataclass(frozen=True, eq=False)
class Race(ClassScene):
    """Fixed, and what each runner has made of moving by now; below, everyone's misfit over the time (logarithmic)."""

    fixed: Plane
    runs: Mapping[str, Run]
    clock: Mapping[str, float]  # seconds by their words

    def controls(self) -> dict[str, Control]:
        """The time."""
        words = list(self.clock)
        return {"time": Stops("time", words, words[-1])}

    def render(self, state: State) -> Picture:
        """A panel for fixed and for each runner, and the chart."""
        time = self.clock[state["time"]]
        panels = [self._panel("fixed", self.fixed, PAPER)]
        for name, run in self.runs.items():
            panels.append(self._panel(name, run.warped[run.at(time)], self._paint(name)))
        row = stack(*panels, axis=1)
        return stack(row, self._chart(time, row.shape[1]))

    def describe(self, state: State) -> str:
        """Each runner's misfit at this time."""
        time, told = self.clock[state["time"]], []
        for name, run in self.runs.items():
            index = run.at(time)
            told.append(f"{name} {run.misfit[index]:.5f}" if index else f"{name} not there yet")
        return f"After {state['time']}, mean squared difference from fixed: {'; '.join(told)}."

    def _paint(self, name: str) -> Colour:
        red, green, blue = LABELS[list(self.runs).index(name)].tolist()
        return red, green, blue

    def _panel(self, title: str, image: Plane, paint: Colour) -> Picture:
        limits = intensity_limits(self.fixed, *(run.warped[0] for run in self.runs.values()))
        picture = render_image(image, limits=limits, scale=integer_scale(image.shape, _PIXELS))
        head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
        return np.concatenate([write(head, [(12, 6, "lm", title)], paint), picture])

    def _chart(self, time: float, width: int) -> Picture:
        """The misfits over the time, with the present as a line."""
        picture = self._curves(width)
        column = self._across(time, width)
        return draw_lines(picture, [np.array([(0.0, column), (_CHART - 1.0, column)])], 2, POINT)

    def _curves(self, width: int) -> Picture:
        picture, times = blank((_CHART, width), 1), list(self.clock.values())
        most = max(max(run.misfit) for run in self.runs.values())
        for name, run in self.runs.items():
            states = [max(run.at(time), 0) for time in times]
            points = [
                (_CHART - 20 - (_CHART - 40) * run.misfit[index] / most, self._across(time, width))
                for index, time in zip(states, times, strict=True)
            ]
            picture = draw_lines(picture, [np.array(points)], 2, self._paint(name))
        first, *_, last = self.clock
        texts = [(3.0, 6.0, "la", f"mean squared difference, 0 to {most:.3g}"), (_CHART - 16.0, 6.0, "la", first)]
        return write(picture, [*texts, (_CHART - 16.0, width - 6.0, "ra", f"{last} (logarithmic)")], PAPER)

    def _across(self, time: float, width: int) -> float:
        first, last = (np.log(list(self.clock.values())[end]) for end in (0, -1))
        return float((np.log(time) - first) / (last - first) * (width - 1))


def race(pair: Pair, runs: Mapping[str, Sequence[tuple[float, Displacement]]], *, item: int = 0) -> View:
    """Watch registrations of one pair against the clock, such as a network and an optimiser.

    pair: 2D. runs: by name, (seconds since the start, displacement) in the order in which they were reached; before the
    first, a runner has the moving image. item: which of a batch.

    Raises:
        ValueError, IndexError: no runner, a runner without a state, times that are not positive and rising; volumes.
    """
    if not runs or any(not states for states in runs.values()):
        raise InputError(
            "there must be a runner, and each must have a state", f"{list(runs)}", "give (seconds, displacement)"
        )
    moving, fixed = plane(pair.moving, "moving", item), plane(pair.fixed, "fixed", item)
    entered = {}
    for name, states in runs.items():
        seconds = [0.0, *(float(time) for time, _ in states)]
        if any(later <= earlier for earlier, later in pairwise(seconds)):
            raise ValueError(f"the times of a runner must be positive and rise, received {seconds[1:]} for {name}.")
        warped = [moving, *(plane(warp(pair.moving, field.detach()), name, item) for _, field in states)]
        entered[name] = Run(seconds, warped, [float(np.square(image - fixed).mean()) for image in warped])
    first, last = (choose(run.seconds[end] for run in entered.values()) for choose, end in ((min, 1), (max, -1)))
    times = np.geomspace(first / 2, last * 1.02, _TICKS)
    return View(Race(fixed, entered, {_in_words(time): float(time) for time in times}))


def _in_words(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
