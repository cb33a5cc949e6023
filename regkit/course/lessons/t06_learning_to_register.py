"""Registrations of one pair against the clock, and pairs whose shapes have no voxel in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from regkit.fields import warp
from regkit.figures.paint import grey
from regkit.figures.pixels import LABELS, PAPER, Picture, intensity_limits, plane, stack
from regkit.types import Displacement, InputError, Labels, Pair
from regkit.widgets import Scene, State, Stops, View
from regkit.widgets.chart import Chart

_TICKS = 60  # stops of the clock


def pulled_apart(pair: Pair) -> Pair | None:
    """A 2D pair with its shapes moved apart until they share no voxel; None where one would leave the image."""
    assert pair.moving_labels is not None and pair.fixed_labels is not None
    way = _centre(pair.moving_labels) - _centre(pair.fixed_labels)
    way = way / way.norm().clamp_min(1e-6)
    for far in range(1, 32):
        moving, moving_labels = (_moved(image, far * way) for image in (pair.moving, pair.moving_labels))
        fixed, fixed_labels = (_moved(image, -far * way) for image in (pair.fixed, pair.fixed_labels))
        if moving.sum() < 0.99 * pair.moving.sum() or fixed.sum() < 0.99 * pair.fixed.sum():
            return None
        if not (moving_labels * fixed_labels).any():
            return Pair(moving, fixed, moving_labels, fixed_labels)
    return None


def _centre(labels: Labels) -> Tensor:
    """Where a shape's voxels lie on average, (axis 0, axis 1)."""
    return labels[0, 0].nonzero().float().mean(0)


def _moved(image: Tensor, by: Tensor) -> Tensor:
    """By whole voxels along both axes; zeros come in."""
    down, right = (round(step) for step in by.tolist())
    return F.pad(image, (right, -right, down, -down))


def reached(seconds: Sequence[float], time: float) -> int:
    """How many of a runner's states, reached after so many rising seconds, there are at a time."""
    return int(np.searchsorted(seconds, time, side="right"))


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
    seconds, warped, misfit = {}, {}, {}
    for name, states in runs.items():
        seconds[name] = [float(time) for time, _ in states]
        if any(later <= earlier for earlier, later in pairwise([0.0, *seconds[name]])):
            raise InputError(
                "the times of a runner must be positive and rise", f"{seconds[name]} for {name}", "sort its states"
            )
        warped[name] = [moving, *(plane(warp(pair.moving, field.detach()), name, item) for _, field in states)]
        misfit[name] = [float(np.square(image - fixed).mean()) for image in warped[name]]
    first, last = min(each[0] for each in seconds.values()), max(each[-1] for each in seconds.values())
    times = np.geomspace(first / 2, last * 1.02, _TICKS)
    clock = {f"{t:.2f} s" if t >= 1 else f"{1000 * t:.3g} ms": float(t) for t in times}
    limits = intensity_limits(fixed, moving)
    colours = {name: tuple(LABELS[position].tolist()) for position, name in enumerate(runs)}
    chart = Chart(
        times,
        {name: [misfit[name][reached(seconds[name], time)] for time in times] for name in runs},
        width=grey("fixed", fixed, limits).shape[1] * (1 + len(runs)) + 6 * len(runs),
        height=200,
        xscale="log",
        xlabel="seconds",
        ylabel="mean squared\ndifference",
        ylim=(0, None),
    )

    def render(state: State) -> Picture:
        """Fixed, what each runner has made of moving by now, and everyone's misfit over the time."""
        now = clock[state["time"]]
        panels = [
            grey(name, images[reached(seconds[name], now)], limits, paint=colours[name])
            for name, images in warped.items()
        ]
        return stack(stack(grey("fixed", fixed, limits, paint=PAPER), *panels, axis=1), chart.at(now))

    def describe(state: State) -> str:
        states = {name: reached(seconds[name], clock[state["time"]]) for name in runs}
        told = (f"{name} {misfit[name][n]:.5f}" if n else f"{name} not there yet" for name, n in states.items())
        return f"After {state['time']}, mean squared difference from fixed: {'; '.join(told)}."

    words = list(clock)
    return View(Scene({"time": Stops("time", words, words[-1])}, render, describe))
