"""Curves over one axis that are drawn once, and a cursor that moves: matplotlib's axes, as pixels."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from regkit.figures.pixels import LABELS, Picture


class Chart:
    """Curves by name over x, in the colours of labels.

    width, height: pixels. axes: what matplotlib's `Axes.set` takes, such as xlabel, ylabel, xscale, ylim.
    """

    def __init__(
        self, x: Sequence[float], curves: Mapping[str, Sequence[float]], *, width: int, height: int = 200, **axes: Any
    ) -> None:
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
        self.canvas, self.axes = FigureCanvasAgg(figure), figure.subplots()
        for index, (name, values) in enumerate(curves.items()):
            self.axes.plot(x, values, color=LABELS[index] / 255, label=name, linewidth=2)
        self.axes.set(**axes)
        self.axes.grid(alpha=0.3)
        self.axes.legend(fontsize=8)
        self.cursor = self.axes.axvline(x[0], color="#333333", animated=True)

    @functools.cached_property
    def _paper(self) -> Any:
        """All that does not move, drawn once."""
        self.canvas.draw()
        return self.canvas.copy_from_bbox(self.axes.figure.bbox)

    def at(self, x: float) -> Picture:
        """The picture with the cursor at a place."""
        self.canvas.restore_region(self._paper)
        self.cursor.set_xdata([x, x])
        self.axes.draw_artist(self.cursor)
        return np.array(self.canvas.buffer_rgba())[..., :3]
